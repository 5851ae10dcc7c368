//! What a kernel did wrong.

use std::fmt;

use crate::ptx::program::Program;

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An access outside every allocation, or outside shared, local or parameter memory.
    OutOfBounds,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// A read of bytes that were never written.
    Uninitialised,
    /// Threads wait at different barriers, or a barrier that cannot be completed.
    BarrierDivergence,
    /// A mask of a `.sync` instruction that names the wrong lanes.
    WrongMask,
    /// Nobody can run on.
    Deadlock,
    /// Two unordered accesses to shared memory, at least one a write.
    Race,
    /// The kernel executed `trap`.
    Trap,
    /// The kernel ran for too long.
    Hang,
}

impl FaultKind {
    /// The `CUresult` that a driver gives for it.
    pub fn code(self) -> i32 {
        match self {
            Self::OutOfBounds | Self::Uninitialised => 700,
            Self::Misaligned => 716,
            Self::Hang => 702,
            _ => 719,
        }
    }
}

/// A fault with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// The kernel.
    pub kernel: String,
    /// The line of the PTX text.
    pub line: u32,
    /// The text of that line.
    pub text: String,
    /// The block's index in the grid.
    pub block: [u32; 3],
    /// The thread's index in the block.
    pub thread: [u32; 3],
    /// What happened.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bx, by, bz] = self.block;
        let [tx, ty, tz] = self.thread;
        write!(
            f,
            "{:?}: {} (kernel {}, PTX line {}: `{}`, block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz}))",
            self.kind, self.detail, self.kernel, self.line, self.text
        )
    }
}

impl std::error::Error for Fault {}

/// A fault as a warp knows it.
#[derive(Debug)]
pub(super) struct Trap {
    pub(super) kind: FaultKind,
    pub(super) pc: u32,
    pub(super) lane: usize,
    pub(super) detail: String,
}

impl Trap {
    #[cold]
    pub(super) fn new(kind: FaultKind, pc: u32, lane: usize, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self { kind, pc, lane, detail: detail.into() })
    }

    /// Adds the place.
    pub(super) fn locate(self, program: &Program, block: [u32; 3], shape: [u32; 3], warp: usize) -> Fault {
        let linear = (32 * warp + self.lane) as u32;
        Fault {
            kind: self.kind,
            kernel: program.name.clone(),
            line: program.line(self.pc),
            text: program.text(self.pc).to_owned(),
            block,
            thread: thread_index(linear, shape),
            detail: self.detail,
        }
    }
}

/// The index of a thread from its number in the block.
pub(super) fn thread_index(linear: u32, [x, y, _]: [u32; 3]) -> [u32; 3] {
    [linear % x, linear / x % y, linear / x / y]
}

//! Decoded instructions. A register is its number in one of the three files of [`super::types::Class`]; constants and
//! special registers lie in the same files after the registers, so that every operand is a register.

mod kinds;

pub use kinds::*;

use super::types::Space;

/// A register's number in its file.
pub type Reg = u16;

/// No register: a result that is not wanted.
pub const NONE: Reg = Reg::MAX;

/// An instruction with its predicate.
#[derive(Clone, Debug, PartialEq)]
pub struct Inst {
    /// The predicate register, or [`NONE`].
    pub guard: Reg,
    /// Whether lanes run where the predicate is false.
    pub negated: bool,
    /// What it does.
    pub op: Op,
}

/// What an instruction does. `d` is the destination, `a`, `b`, `c` the operands in order.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "fields are operands in the order of the PTX manual")]
pub enum Op {
    Mov32 {
        d: Reg,
        a: Reg,
    },
    Mov64 {
        d: Reg,
        a: Reg,
    },
    MovPred {
        d: Reg,
        a: Reg,
    },
    /// Predicates: `d = a op b`, both perhaps negated by a `Not` before.
    LogicPred {
        f: Logic,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    NotPred {
        d: Reg,
        a: Reg,
    },
    Int32 {
        f: Int,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// 16-bit: operands extended by their sign, the result cut.
    Int16 {
        f: Int,
        signed: bool,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Int64 {
        f: Int,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// 64-bit shifts, whose distance is 32 bits wide.
    Shift64 {
        f: Int,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Unary32 {
        f: IntUnary,
        d: Reg,
        a: Reg,
    },
    Unary16 {
        f: IntUnary,
        d: Reg,
        a: Reg,
    },
    /// `popc` and `clz` give 32 bits, the others 64.
    Unary64 {
        f: IntUnary,
        d: Reg,
        a: Reg,
    },
    /// `d = a * b + c`; without the addition `c` is [`NONE`].
    Mad32 {
        hi: bool,
        signed: bool,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Mad16 {
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Mad64 {
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    MadWide {
        signed: bool,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    MulWide16 {
        signed: bool,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// Carries live in a predicate of their own.
    AddCarry {
        subtract: bool,
        read: bool,
        write: bool,
        d: Reg,
        a: Reg,
        b: Reg,
        carry: Reg,
    },
    Bits {
        f: Bits,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Bfe64 {
        signed: bool,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Bfi32 {
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
        e: Reg,
    },
    Bfi64 {
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
        e: Reg,
    },
    Float32 {
        f: Float,
        mode: Mode,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Fma32 {
        mode: Mode,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    FloatUnary32 {
        f: FloatUnary,
        mode: Mode,
        d: Reg,
        a: Reg,
    },
    Float64 {
        f: Float,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Fma64 {
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    FloatUnary64 {
        f: FloatUnary,
        d: Reg,
        a: Reg,
    },
    Compare {
        cmp: Cmp,
        ty: CmpType,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// A comparison with entry `more` of [`super::program::Program::compares`].
    CompareMore {
        cmp: Cmp,
        ty: CmpType,
        d: Reg,
        a: Reg,
        b: Reg,
        more: u16,
    },
    Select32 {
        d: Reg,
        a: Reg,
        b: Reg,
        p: Reg,
    },
    Select64 {
        d: Reg,
        a: Reg,
        b: Reg,
        p: Reg,
    },
    /// `d = a` sign-extended from 32 bits.
    Widen {
        signed: bool,
        d: Reg,
        a: Reg,
    },
    /// The low half of a 64-bit register.
    Truncate {
        d: Reg,
        a: Reg,
    },
    /// `cvt.rna.tf32.f32`.
    ToTf32 {
        d: Reg,
        a: Reg,
    },
    /// A conversion, entry `how` of [`super::program::Program::conversions`].
    Convert {
        how: u16,
        d: Reg,
        a: Reg,
    },
    /// Two `f32` to two 16-bit numbers, the first operand in the upper half.
    ConvertPair {
        to: MmaType,
        relu: bool,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// `{a, b}` into a 64-bit register, `a` in the low half.
    Pack64 {
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Unpack64 {
        d: Reg,
        e: Reg,
        a: Reg,
    },
    /// `{a, b}` of 16 bits each into a 32-bit register.
    Pack32 {
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Unpack32 {
        d: Reg,
        e: Reg,
        a: Reg,
    },
    /// `{a, b, c, e}` of 16 bits each into a 64-bit register.
    Pack16x4 {
        d: Reg,
        a: [Reg; 4],
    },
    Unpack16x4 {
        d: [Reg; 4],
        a: Reg,
    },
    Load {
        space: Space,
        elem: Elem,
        count: u8,
        addr: Addr,
        d: [Reg; 4],
    },
    Store {
        space: Space,
        elem: Elem,
        count: u8,
        addr: Addr,
        a: [Reg; 4],
    },
    /// An address of a space becomes a generic one, or the other way round.
    ToGeneric {
        space: Space,
        d: Reg,
        a: Reg,
    },
    FromGeneric {
        space: Space,
        d: Reg,
        a: Reg,
    },
    /// Atomic update; `b` and `c` and `d` are 64 bits wide if `wide`.
    Atomic {
        f: Atomic,
        wide: bool,
        space: Space,
        addr: Addr,
        d: Reg,
        b: Reg,
        c: Reg,
    },
    /// Starts a copy of `bytes` from global to shared memory, of which `size` bytes are read and the rest is zero.
    CopyAsync {
        bytes: u8,
        to: Addr,
        from: Addr,
        size: Reg,
    },
    CopyCommit,
    /// Waits until at most `pending` groups are unfinished, or for everything if that is [`u32::MAX`].
    CopyWait {
        pending: u32,
    },
    Shuffle {
        f: Shuffle,
        d: Reg,
        p: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
        mask: Reg,
    },
    /// A vote gives a predicate, or for a ballot 32 bits.
    Vote {
        f: Vote,
        d: Reg,
        a: Reg,
        negated: bool,
        mask: Reg,
    },
    ActiveMask {
        d: Reg,
    },
    Redux {
        f: Int,
        d: Reg,
        a: Reg,
        mask: Reg,
    },
    WarpSync {
        mask: Reg,
    },
    /// Entry of [`super::program::Program::products`].
    Mma {
        index: u16,
    },
    LoadMatrix {
        count: u8,
        transpose: bool,
        addr: Addr,
        d: [Reg; 4],
    },
    /// A barrier of the block; `threads` is [`NONE`] if all take part.
    Barrier {
        id: Reg,
        threads: Reg,
        wait: bool,
    },
    /// A barrier that reduces a predicate; the result is 32 bits for `popc`.
    BarrierReduce {
        f: BarRed,
        id: Reg,
        threads: Reg,
        d: Reg,
        a: Reg,
        negated: bool,
    },
    /// A memory fence: nothing to do here.
    Fence,
    Branch {
        target: u32,
    },
    /// `ret` and `exit`.
    Exit,
    Trap,
    Clock32 {
        d: Reg,
    },
    Clock64 {
        d: Reg,
    },
}

//! A decoded kernel.

use std::sync::Arc;

use super::op::{CompareMore, Conversion, Inst, Mma, Reg};
use super::syntax::Parameter;

/// A kernel ready to run.
#[derive(Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The instructions; the last one always leaves the kernel.
    pub code: Vec<Inst>,
    /// The line of each instruction.
    pub lines: Vec<u32>,
    /// The text of each line of the module, trimmed.
    pub source: Arc<[String]>,
    /// Registers of 32 bits and fewer, then what lies behind them.
    pub narrow_registers: u16,
    /// Constants and special registers behind the narrow registers.
    pub narrow_fixed: Vec<Fixed>,
    /// Registers of 64 bits.
    pub wide_registers: u16,
    /// Constants behind the wide registers.
    pub wide_fixed: Vec<Fixed>,
    /// Narrow registers that a thread may read before it writes them.
    pub unwritten_narrow: Vec<Reg>,
    /// Wide registers that a thread may read before it writes them.
    pub unwritten_wide: Vec<Reg>,
    /// Predicates.
    pub predicates: u16,
    /// Constant predicates behind them.
    pub predicate_fixed: Vec<bool>,
    /// Parameters in order.
    pub parameters: Vec<Parameter>,
    /// Bytes of the parameter buffer.
    pub parameter_bytes: u32,
    /// Bytes of shared memory declared with a size.
    pub static_shared: u32,
    /// Where dynamic shared memory begins.
    pub dynamic_base: u32,
    /// Bytes of local memory a thread.
    pub local_bytes: u32,
    /// Threads a block may have at most, from `.maxntid` and `.reqntid`.
    pub max_threads: u32,
    /// The block that `.reqntid` demands, or zeros.
    pub required_threads: [u32; 3],
    /// See [`super::op::Op::CompareMore`].
    pub compares: Vec<CompareMore>,
    /// See [`super::op::Op::Convert`].
    pub conversions: Vec<Conversion>,
    /// See [`super::op::Op::Mma`].
    pub products: Vec<Mma>,
}

impl Program {
    /// The text of an instruction's line.
    pub fn text(&self, pc: u32) -> &str {
        let line = self.line(pc) as usize;
        self.source.get(line.wrapping_sub(1)).map_or("", String::as_str)
    }

    /// The line of an instruction.
    pub fn line(&self, pc: u32) -> u32 {
        self.lines.get(pc as usize).copied().unwrap_or(0)
    }
}

/// What a fixed register holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fixed {
    /// A constant.
    Value(u64),
    /// The address of a module variable, plus a distance.
    Symbol(String, i64),
    /// A special register.
    Special(Special),
}

/// Special registers that do not change while a block runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the PTX manual; the number is the axis")]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    DynamicSharedBytes,
    TotalSharedBytes,
}

impl Special {
    /// The special register of a name such as `%tid.x`.
    pub fn parse(name: &str) -> Option<Self> {
        let axis = |suffix: &str| match suffix {
            "x" => Some(0),
            "y" => Some(1),
            "z" => Some(2),
            _ => None,
        };
        if let Some((stem, suffix)) = name.split_once('.') {
            let axis = axis(suffix)?;
            return Some(match stem {
                "%tid" => Self::Tid(axis),
                "%ntid" => Self::Ntid(axis),
                "%ctaid" => Self::Ctaid(axis),
                "%nctaid" => Self::Nctaid(axis),
                _ => return None,
            });
        }
        Some(match name {
            "%laneid" => Self::LaneId,
            "%warpid" => Self::WarpId,
            "%nwarpid" => Self::NWarpId,
            "%smid" => Self::SmId,
            "%nsmid" => Self::NSmId,
            "%gridid" => Self::GridId,
            "%lanemask_eq" => Self::LaneMaskEq,
            "%lanemask_le" => Self::LaneMaskLe,
            "%lanemask_lt" => Self::LaneMaskLt,
            "%lanemask_ge" => Self::LaneMaskGe,
            "%lanemask_gt" => Self::LaneMaskGt,
            "%dynamic_smem_size" => Self::DynamicSharedBytes,
            "%total_smem_size" => Self::TotalSharedBytes,
            _ => return None,
        })
    }
}

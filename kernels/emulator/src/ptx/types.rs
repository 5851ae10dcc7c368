//! The scalar types and state spaces of PTX.

/// A type suffix such as `.f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum Type {
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    Pred,
}

impl Type {
    /// The type of a suffix without its dot.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "b8" => Self::B8,
            "b16" => Self::B16,
            "b32" => Self::B32,
            "b64" => Self::B64,
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "s8" => Self::S8,
            "s16" => Self::S16,
            "s32" => Self::S32,
            "s64" => Self::S64,
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::Bf16,
            "bf16x2" => Self::Bf16x2,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "pred" => Self::Pred,
            _ => return None,
        })
    }

    /// Bytes in memory; a predicate, which is never in memory, counts as one.
    pub fn bytes(self) -> u32 {
        match self {
            Self::B8 | Self::U8 | Self::S8 | Self::Pred => 1,
            Self::B16 | Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 2,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 8,
            _ => 4,
        }
    }

    /// The file in which a register of this type lies.
    pub fn class(self) -> Class {
        match self {
            Self::Pred => Class::Pred,
            _ if self.bytes() == 8 => Class::Wide,
            _ => Class::Narrow,
        }
    }

    /// Whether the type is a signed integer.
    pub fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    /// Whether the type is a floating-point number of any width.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::Tf32 | Self::F32 | Self::F64)
    }
}

/// The three register files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Up to 32 bits, one `u32` a lane; 16-bit registers are kept zero-extended.
    Narrow,
    /// 64 bits, one `u64` a lane.
    Wide,
    /// One bit a lane: a predicate register is one `u32` for the whole warp.
    Pred,
}

/// A state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum Space {
    Param,
    Global,
    Const,
    Shared,
    Local,
    Generic,
}

impl Space {
    /// The space of a suffix without its dot.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "param" | "param::entry" => Self::Param,
            "global" => Self::Global,
            "const" => Self::Const,
            "shared" | "shared::cta" => Self::Shared,
            "local" => Self::Local,
            _ => return None,
        })
    }

    /// Where the space begins among generic addresses. Global and constant memory are their own generic addresses.
    pub fn window(self) -> u64 {
        match self {
            Self::Global | Self::Const | Self::Generic => 0,
            Self::Shared => SHARED_WINDOW,
            Self::Local => LOCAL_WINDOW,
            Self::Param => PARAM_WINDOW,
        }
    }
}

/// Generic addresses from here on are shared memory.
pub const SHARED_WINDOW: u64 = 0x7100_0000_0000;
/// Generic addresses from here on are the thread's local memory.
pub const LOCAL_WINDOW: u64 = 0x7200_0000_0000;
/// Generic addresses from here on are kernel parameters.
pub const PARAM_WINDOW: u64 = 0x7300_0000_0000;
/// No window is longer than this.
pub const WINDOW_BYTES: u64 = 0x0100_0000_0000;

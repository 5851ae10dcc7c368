//! What the suffixes of an instruction choose, and the operands that are more than a register.

use super::Reg;

/// Integer and bit operations of two operands, for 16, 32 and 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual; S is signed, U unsigned")]
pub enum Int {
    Add,
    Sub,
    MulLo,
    MulHiS,
    MulHiU,
    DivS,
    DivU,
    RemS,
    RemU,
    MinS,
    MinU,
    MaxS,
    MaxU,
    And,
    Or,
    Xor,
    Shl,
    ShrS,
    ShrU,
}

/// Integer and bit operations of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum IntUnary {
    Not,
    Cnot,
    Neg,
    Abs,
    Brev,
    Popc,
    Clz,
    /// `bfind`: the highest one, or the highest bit that is not the sign; its place, or how far it is from the top.
    Find {
        signed: bool,
        shift: bool,
    },
}

/// Floating-point operations of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum Float {
    Add,
    Sub,
    Mul,
    Div,
    /// `div.approx` and `div.full`.
    DivApprox,
    Min,
    Max,
    MinNan,
    MaxNan,
    CopySign,
}

/// Floating-point operations of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum FloatUnary {
    Neg,
    Abs,
    Rcp,
    Sqrt,
    RcpApprox,
    SqrtApprox,
    RsqrtApprox,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

/// A direction of rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To the nearest, ties to even.
    Nearest,
    /// Toward zero.
    Zero,
    /// Toward negative infinity.
    Down,
    /// Toward positive infinity.
    Up,
}

/// What the suffixes of a single-precision operation ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Subnormal operands and results count as zero.
    pub ftz: bool,
    /// The result is clamped to [0, 1], NaN to 0.
    pub sat: bool,
    /// How the result is rounded.
    pub round: Round,
}

impl Mode {
    /// IEEE arithmetic, to the nearest.
    pub const PLAIN: Self = Self { ftz: false, sat: false, round: Round::Nearest };
}

/// A comparison. The forms ending in U are true if an operand is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    EqU,
    NeU,
    LtU,
    LeU,
    GtU,
    GeU,
    Num,
    Nan,
}

/// The type that a comparison gives to its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum CmpType {
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
    F32,
    F64,
}

/// A logical operation of predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum Logic {
    And,
    Or,
    Xor,
}

/// The rarer parts of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareMore {
    /// Receives the negated comparison, combined likewise.
    pub complement: Reg,
    /// Combines the comparison with a predicate, perhaps a negated one.
    pub combine: Option<(Logic, Reg, bool)>,
    /// Subnormal operands count as zero.
    pub ftz: bool,
}

/// A number format of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An integer of so many bits.
    Int {
        /// 8, 16, 32 or 64.
        bits: u8,
        /// Two's complement.
        signed: bool,
    },
    /// `f16`.
    F16,
    /// `bf16`.
    Bf16,
    /// `tf32`: 10 bits of mantissa in an `f32`.
    Tf32,
    /// `f32`.
    F32,
    /// `f64`.
    F64,
}

impl Format {
    /// Whether a value takes a 64-bit register.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::F64 | Self::Int { bits: 64, .. })
    }

    /// Whether it is an integer.
    pub fn is_int(self) -> bool {
        matches!(self, Self::Int { .. })
    }
}

/// How a conversion rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CvtRound {
    /// To a value of the destination, in a direction.
    Direct(Round),
    /// To an integral value first, in a direction (`.rni` and so on).
    Integral(Round),
    /// To the nearest, ties away from zero (`.rna`).
    NearestAway,
}

/// A conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// From.
    pub from: Format,
    /// To.
    pub to: Format,
    /// How.
    pub round: CvtRound,
    /// Clamp to the range of the destination, or to [0, 1] for floating point.
    pub sat: bool,
    /// Subnormal `f32` operands and results count as zero.
    pub ftz: bool,
    /// Negative results count as zero.
    pub relu: bool,
    /// The destination register is wider than the destination type, which is then extended.
    pub widen: bool,
    /// The destination register has 64 bits.
    pub dest_wide: bool,
    /// The destination register has 16 bits.
    pub dest_half: bool,
}

/// An address operand: a register plus a distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addr {
    /// The base register.
    pub base: Reg,
    /// Whether the base is a 64-bit register.
    pub wide: bool,
    /// Bytes added.
    pub offset: i32,
}

/// The elements of a load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elem {
    /// Bytes in memory: 1, 2, 4 or 8.
    pub bytes: u8,
    /// Loads extend the sign.
    pub signed: bool,
    /// The registers are 64 bits wide.
    pub wide: bool,
    /// The registers are 16 bits wide.
    pub half: bool,
}

/// An atomic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum Atomic {
    Add,
    AddF32,
    AddF64,
    MinS,
    MinU,
    MaxS,
    MaxU,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

/// How a shuffle finds its source lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum Shuffle {
    Up,
    Down,
    Bfly,
    Idx,
}

/// What a vote asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

/// The reduction of `bar.red`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum BarRed {
    Popc,
    And,
    Or,
}

/// The operand types of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum MmaType {
    Tf32,
    Bf16,
    F16,
}

/// A matrix product of a warp, `D = A B + C`, 16 × 8 × `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mma {
    /// Type of A and B.
    pub ty: MmaType,
    /// Depth: 4, 8 or 16.
    pub k: u8,
    /// Result fragment.
    pub d: [Reg; 4],
    /// First operand; unused places are [`NONE`](super::NONE).
    pub a: [Reg; 4],
    /// Second operand.
    pub b: [Reg; 2],
    /// Added fragment.
    pub c: [Reg; 4],
}

/// Operations of four narrow registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum Bits {
    BfeS,
    BfeU,
    Prmt,
    ShfL { wrap: bool },
    ShfR { wrap: bool },
    Lop3 { table: u8 },
    SadS,
    SadU,
}

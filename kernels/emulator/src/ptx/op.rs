//! Decoded instructions. A register is its number in one of the three files of [`super::types::Class`]; constants and
//! special registers lie in the same files after the registers, so that every operand is a register.

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
    /// First operand; unused places are [`NONE`].
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

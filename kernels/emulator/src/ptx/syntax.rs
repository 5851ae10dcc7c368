//! What the parser makes of a text: declarations and instructions with names resolved, meanings not yet.

use super::types::{Class, Space, Type};

/// A register, by its place in [`Entry::registers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(pub u32);

/// A parsed text.
#[derive(Debug, Default)]
pub struct Source {
    /// The `.version` directive.
    pub version: (u32, u32),
    /// The first word of the `.target` directive.
    pub target: String,
    /// Variables declared outside functions, `.extern .shared` ones included.
    pub variables: Vec<Variable>,
    /// The kernels.
    pub entries: Vec<Entry>,
}

/// A variable in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub space: Space,
    /// Bytes; 0 for an `.extern .shared` array, whose length the launch gives.
    pub bytes: u32,
    /// Its alignment in bytes.
    pub align: u32,
    /// The bytes of its initialiser; shorter than `bytes` where the rest is zero.
    pub init: Vec<u8>,
    /// Whether it is `.extern`: for shared memory, the dynamic array.
    pub is_extern: bool,
}

impl Variable {
    /// Whether it is in shared memory, and so belongs to a block and not to the module.
    pub fn is_shared(&self) -> bool {
        self.space == Space::Shared
    }
}

/// A parameter of a kernel and its place in the parameter buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its first byte.
    pub offset: u32,
    /// Its length.
    pub bytes: u32,
}

/// A register's type and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterInfo {
    /// The name in the text.
    pub name: String,
    /// The declared type.
    pub ty: Type,
}

impl RegisterInfo {
    /// The file it lies in.
    pub fn class(&self) -> Class {
        self.ty.class()
    }
}

/// A kernel.
#[derive(Debug, Default)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The line of its name.
    pub line: u32,
    /// Its parameters in order.
    pub parameters: Vec<Parameter>,
    /// `.maxntid`, or zeros.
    pub max_threads: [u32; 3],
    /// `.reqntid`, or zeros.
    pub required_threads: [u32; 3],
    /// Shared and local variables declared inside.
    pub variables: Vec<Variable>,
    /// Registers that occur in an instruction.
    pub registers: Vec<RegisterInfo>,
    /// The instructions.
    pub instructions: Vec<Instruction>,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// Its line.
    pub line: u32,
    /// The predicate that switches it, and whether that is negated.
    pub guard: Option<(Register, bool)>,
    /// The opcode with its suffixes.
    pub opcode: String,
    /// The operands in order. The target of a branch is an [`Operand::Target`].
    pub operands: Vec<Operand>,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register.
    Register(Register),
    /// A negated predicate, `!%p1`.
    Not(Register),
    /// An integer.
    Integer(i64),
    /// The bits of an `0f` literal.
    Float(u32),
    /// The bits of an `0d` literal.
    Double(u64),
    /// A special register such as `%tid.x`.
    Special(String),
    /// A variable or parameter, plus a distance in bytes.
    Symbol(String, i64),
    /// `[base + distance]`.
    Address(Box<Operand>, i64),
    /// `{a, b, ...}`.
    Vector(Vec<Operand>),
    /// `p|q`.
    Pair(Register, Register),
    /// The index of the instruction after a label.
    Target(u32),
    /// `_`: a result that is not wanted.
    Sink,
}

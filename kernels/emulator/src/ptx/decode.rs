//! From parsed instructions to [`Op`]s.

mod alu;
mod convert;
mod float;
mod memory;
mod operands;
mod suffix;
mod warp;

use std::collections::HashMap;
use std::sync::Arc;

use super::PtxError;
use super::allocate;
use super::op::{Inst, NONE, Op, Reg};
use super::program::{Fixed, Program};
use super::syntax::{Entry, Instruction, Variable};
use super::types::{Class, Space};
use suffix::Suffixes;

/// Decodes a kernel.
///
/// # Errors
///
/// The first instruction that the emulator does not know or whose operands do not fit, with its line.
pub(super) fn decode(entry: &Entry, globals: &[Variable], source: Arc<[String]>) -> Result<Program, PtxError> {
    let mut decoder = Decoder::new(entry, globals, source).map_err(|message| PtxError::new(entry.line, message))?;
    for instruction in &entry.instructions {
        decoder.instruction(instruction).map_err(|message| {
            PtxError::new(instruction.line, format!("{} in kernel {}: {message}", instruction.opcode, entry.name))
        })?;
    }
    // A text may end without `ret`, and a label may stand at the very end.
    decoder.program.code.push(Inst { guard: NONE, negated: false, op: Op::Exit });
    decoder.program.lines.push(entry.instructions.last().map_or(entry.line, |last| last.line));
    decoder.finish().map_err(|message| PtxError::new(entry.line, message))
}

/// What went wrong, without a place.
type Outcome<T> = Result<T, String>;

struct Decoder<'a> {
    entry: &'a Entry,
    /// The number of each register of the entry in its file.
    numbers: Vec<Reg>,
    /// Byte offsets of shared and local variables in their spaces.
    offsets: HashMap<&'a str, (Space, u32)>,
    /// Module variables in global and constant memory.
    globals: &'a [Variable],
    narrow_fixed: HashMap<Fixed, Reg>,
    wide_fixed: HashMap<Fixed, Reg>,
    program: Program,
}

impl<'a> Decoder<'a> {
    fn new(entry: &'a Entry, globals: &'a [Variable], source: Arc<[String]>) -> Outcome<Self> {
        let allocate::Allocation { numbers, counts, unwritten } = allocate::allocate(entry);
        if counts.iter().any(|&count| count > MAX_REGISTERS) {
            return Err(format!("kernel {} uses more than {MAX_REGISTERS} registers of a kind", entry.name));
        }
        let max_product = |dimensions: [u32; 3]| match dimensions {
            [0, ..] => u32::MAX,
            [x, y, z] => x.saturating_mul(y).saturating_mul(z),
        };
        let numbers = numbers.into_iter().map(|number| number as Reg).collect();
        let [unwritten_narrow, unwritten_wide] =
            unwritten.map(|numbers| numbers.into_iter().map(|number| number as Reg).collect());
        let program = Program {
            name: entry.name.clone(),
            code: Vec::with_capacity(entry.instructions.len() + 1),
            lines: Vec::with_capacity(entry.instructions.len() + 1),
            source,
            narrow_registers: counts[0] as u16,
            narrow_fixed: Vec::new(),
            wide_registers: counts[1] as u16,
            wide_fixed: Vec::new(),
            unwritten_narrow,
            unwritten_wide,
            predicates: counts[2] as u16,
            predicate_fixed: vec![false, true],
            parameters: entry.parameters.clone(),
            parameter_bytes: entry.parameters.last().map_or(0, |last| last.offset + last.bytes),
            static_shared: 0,
            dynamic_base: 0,
            local_bytes: 0,
            max_threads: max_product(entry.max_threads).min(max_product(entry.required_threads)),
            required_threads: entry.required_threads,
            compares: Vec::new(),
            conversions: Vec::new(),
            products: Vec::new(),
        };
        let mut decoder = Self {
            entry,
            numbers,
            offsets: HashMap::new(),
            globals,
            narrow_fixed: HashMap::new(),
            wide_fixed: HashMap::new(),
            program,
        };
        decoder.lay_out()?;
        Ok(decoder)
    }

    /// Gives shared and local variables their places. Shared variables declared outside kernels take room only in
    /// kernels that name them.
    fn lay_out(&mut self) -> Outcome<()> {
        let (mut shared, mut local, mut dynamic_align) = (0u32, 0u32, 16u32);
        for variable in self.entry.variables.iter().chain(self.globals) {
            let end = match variable.space {
                Space::Shared if variable.is_extern => {
                    dynamic_align = dynamic_align.max(variable.align.min(MAX_ALIGN));
                    continue;
                }
                Space::Shared if self.is_named(&variable.name) => &mut shared,
                Space::Local => &mut local,
                _ => continue,
            };
            let offset = end.next_multiple_of(variable.align.min(MAX_ALIGN));
            *end = offset.saturating_add(variable.bytes);
            if *end > MAX_VARIABLES {
                return Err(format!("{} is too large", variable.name));
            }
            self.offsets.insert(&variable.name, (variable.space, offset));
        }
        self.program.static_shared = shared;
        self.program.dynamic_base = shared.next_multiple_of(dynamic_align);
        self.program.local_bytes = local.next_multiple_of(16);
        for variable in self.globals.iter().filter(|variable| variable.is_shared() && variable.is_extern) {
            self.offsets.insert(&variable.name, (Space::Shared, self.program.dynamic_base));
        }
        Ok(())
    }

    fn is_named(&self, name: &str) -> bool {
        use super::syntax::Operand;
        fn names(operand: &Operand, name: &str) -> bool {
            match operand {
                Operand::Symbol(symbol, _) => symbol == name,
                Operand::Address(base, _) => names(base, name),
                Operand::Vector(elements) => elements.iter().any(|element| names(element, name)),
                _ => false,
            }
        }
        let local = self.entry.variables.iter().any(|variable| variable.name == name);
        local || self.entry.instructions.iter().any(|i| i.operands.iter().any(|operand| names(operand, name)))
    }

    fn instruction(&mut self, instruction: &Instruction) -> Outcome<()> {
        let (guard, negated) = match instruction.guard {
            Some((register, negated)) => (self.register(register, Class::Pred)?, negated),
            None => (NONE, false),
        };
        let mut suffixes = Suffixes::new(&instruction.opcode);
        let op = self.op(&mut suffixes, &instruction.operands)?;
        suffixes.finish()?;
        self.program.code.push(Inst { guard, negated, op });
        self.program.lines.push(instruction.line);
        Ok(())
    }

    fn op(&mut self, suffixes: &mut Suffixes<'_>, operands: &[super::syntax::Operand]) -> Outcome<Op> {
        for decode in [Self::alu, Self::float, Self::conversion, Self::memory, Self::warp] {
            if let Some(op) = decode(self, suffixes, operands)? {
                return Ok(op);
            }
        }
        Err("unsupported instruction".to_owned())
    }

    fn finish(mut self) -> Outcome<Program> {
        let program = &mut self.program;
        let files = [
            usize::from(program.narrow_registers) + program.narrow_fixed.len(),
            usize::from(program.wide_registers) + program.wide_fixed.len(),
        ];
        if files.iter().any(|&length| length >= usize::from(NONE)) {
            return Err(format!("kernel {} uses too many registers and constants", program.name));
        }
        let end = program.code.len() as u32;
        for inst in &program.code {
            if let Op::Branch { target } = inst.op
                && target >= end
            {
                return Err(format!("a branch leaves kernel {}", program.name));
            }
        }
        Ok(self.program)
    }
}

/// Bytes of shared or local variables that are worth a try: a thread may have 512 KiB of local memory.
const MAX_VARIABLES: u32 = 512 * 1024;
/// The largest alignment that means something.
const MAX_ALIGN: u32 = 256;

/// Leaves room for constants in a file whose numbers are 16 bits wide.
const MAX_REGISTERS: u32 = 48_000;

#[cfg(test)]
mod tests;

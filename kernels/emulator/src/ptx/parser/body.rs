//! The body of a kernel: declarations, labels, instructions.

use super::cursor::{Cursor, FloatBits, float_bits};
use super::scope::Scopes;
use super::{type_of, variable};
use crate::ptx::PtxError;
use crate::ptx::lexer::Kind;
use crate::ptx::syntax::{Entry, Instruction, Operand, Variable};

/// A branch whose label may come later.
struct Branch {
    instruction: usize,
    operand: usize,
    scope: usize,
    label: String,
}

struct Body<'a, 'c> {
    cursor: &'c mut Cursor<'a>,
    entry: &'c mut Entry,
    globals: &'c [Variable],
    scopes: Scopes,
    branches: Vec<Branch>,
}

/// Parses a kernel's braces and what is in them.
pub(super) fn parse(cursor: &mut Cursor<'_>, entry: &mut Entry, globals: &[Variable]) -> Result<(), PtxError> {
    cursor.expect('{')?;
    let mut body = Body { cursor, entry, globals, scopes: Scopes::new(), branches: Vec::new() };
    while body.statement()? {}
    body.bind()
}

impl Body<'_, '_> {
    /// Reads a statement; false at the kernel's closing brace.
    fn statement(&mut self) -> Result<bool, PtxError> {
        if self.cursor.accept('{') {
            self.scopes.open();
        } else if self.cursor.accept('}') {
            return Ok(self.scopes.close());
        } else if !self.cursor.accept(';') {
            match self.cursor.peek().map(|token| token.kind) {
                Some(Kind::Word(word)) if self.cursor.second_is(':') => self.label(word)?,
                Some(Kind::Word(word)) if word.starts_with('.') => self.directive(word)?,
                Some(Kind::Word(_) | Kind::Mark('@')) => self.instruction()?,
                _ => return Err(self.cursor.unexpected("an instruction")),
            }
        }
        Ok(true)
    }

    fn label(&mut self, name: &str) -> Result<(), PtxError> {
        let line = self.cursor.line();
        self.cursor.advance();
        self.cursor.expect(':')?;
        if !self.scopes.label(name, self.entry.instructions.len() as u32) {
            return Err(PtxError::new(line, format!("the label {name} is defined twice")));
        }
        Ok(())
    }

    fn directive(&mut self, word: &str) -> Result<(), PtxError> {
        let line = self.cursor.line();
        match word {
            ".reg" => self.registers(),
            ".shared" | ".local" => {
                let variable = variable(self.cursor, false)?;
                self.entry.variables.push(variable);
                Ok(())
            }
            ".pragma" => {
                self.cursor.skip_past(';');
                Ok(())
            }
            _ => Err(PtxError::new(line, format!("unsupported directive {word} inside a kernel"))),
        }
    }

    /// `.reg .f32 %f<720>;` or `.reg .b64 %SP, %SPL;`
    fn registers(&mut self) -> Result<(), PtxError> {
        self.cursor.advance();
        let line = self.cursor.line();
        let ty = type_of(self.cursor.word()?, line)?;
        loop {
            let name = self.cursor.word()?;
            if self.cursor.accept('<') {
                let count = self.cursor.unsigned()?;
                self.cursor.expect('>')?;
                self.scopes.declare_range(name, ty, count);
            } else {
                self.scopes.declare(name, ty, &mut self.entry.registers);
            }
            if !self.cursor.accept(',') {
                return self.cursor.expect(';');
            }
        }
    }

    fn instruction(&mut self) -> Result<(), PtxError> {
        let line = self.cursor.line();
        let guard = if self.cursor.accept('@') {
            let negated = self.cursor.accept('!');
            let name = self.cursor.word()?;
            let register = self.scopes.register(name, &mut self.entry.registers);
            Some((register.ok_or_else(|| PtxError::new(line, format!("unknown predicate {name}")))?, negated))
        } else {
            None
        };
        let opcode = self.cursor.word()?.to_owned();
        let mut operands = Vec::new();
        while !self.cursor.accept(';') {
            let operand = self.operand(&opcode, operands.len())?;
            operands.push(operand);
            if !self.cursor.at(';') {
                self.cursor.expect(',')?;
            }
        }
        self.entry.instructions.push(Instruction { line, guard, opcode, operands });
        Ok(())
    }

    /// An operand that has no parts.
    fn simple(&mut self, opcode: &str, index: usize) -> Result<Operand, PtxError> {
        if ['[', '{', '!'].into_iter().any(|mark| self.cursor.at(mark)) {
            return Err(self.cursor.unexpected("a register or a number"));
        }
        self.operand(opcode, index)
    }

    fn operand(&mut self, opcode: &str, index: usize) -> Result<Operand, PtxError> {
        if self.cursor.accept('[') {
            let base = self.simple(opcode, index)?;
            let mut distance = 0i64;
            // Compilers write `[%rd1+-24]`.
            while self.cursor.at('+') || self.cursor.at('-') {
                self.cursor.accept('+');
                distance = distance.wrapping_add(self.cursor.integer()?);
            }
            self.cursor.expect(']')?;
            return Ok(Operand::Address(Box::new(base), distance));
        }
        if self.cursor.accept('{') {
            let mut elements = Vec::new();
            while !self.cursor.accept('}') {
                elements.push(self.simple(opcode, index)?);
                self.cursor.accept(',');
            }
            return Ok(Operand::Vector(elements));
        }
        if self.cursor.accept('!') {
            let line = self.cursor.line();
            return match self.simple(opcode, index)? {
                Operand::Register(register) => Ok(Operand::Not(register)),
                _ => Err(PtxError::new(line, "only a predicate can be negated")),
            };
        }
        match self.cursor.peek().map(|token| token.kind) {
            Some(Kind::Number(text)) if float_bits(text).is_some() => {
                self.cursor.advance();
                Ok(match float_bits(text) {
                    Some(FloatBits::Double(bits)) => Operand::Double(bits),
                    Some(FloatBits::Single(bits)) => Operand::Float(bits),
                    None => Operand::Integer(0),
                })
            }
            Some(Kind::Number(_) | Kind::Mark('-')) => Ok(Operand::Integer(self.cursor.integer()?)),
            Some(Kind::Word(word)) => {
                self.cursor.advance();
                self.name(word, opcode, index)
            }
            _ => Err(self.cursor.unexpected("an operand")),
        }
    }

    /// A name: a register, a special register, a variable or a label.
    fn name(&mut self, word: &str, opcode: &str, index: usize) -> Result<Operand, PtxError> {
        if word == "_" {
            return Ok(Operand::Sink);
        }
        if word == "WARP_SZ" {
            return Ok(Operand::Integer(32));
        }
        if let Some(first) = self.scopes.register(word, &mut self.entry.registers) {
            if !self.cursor.accept('|') {
                return Ok(Operand::Register(first));
            }
            let line = self.cursor.line();
            let name = self.cursor.word()?;
            let second = self.scopes.register(name, &mut self.entry.registers);
            let second = second.ok_or_else(|| PtxError::new(line, format!("unknown register {name}")))?;
            return Ok(Operand::Pair(first, second));
        }
        if word.starts_with('%') {
            return Ok(Operand::Special(word.to_owned()));
        }
        if self.is_variable(word) {
            let mut distance = 0;
            while self.cursor.at('+') {
                distance = self.cursor.integer()?.wrapping_add(distance);
            }
            return Ok(Operand::Symbol(word.to_owned(), distance));
        }
        if opcode == "bra" || opcode == "bra.uni" {
            self.branches.push(Branch {
                instruction: self.entry.instructions.len(),
                operand: index,
                scope: self.scopes.current(),
                label: word.to_owned(),
            });
            return Ok(Operand::Target(0));
        }
        Err(PtxError::new(self.cursor.line(), format!("unknown name `{word}` in {opcode}")))
    }

    fn is_variable(&self, name: &str) -> bool {
        self.entry.variables.iter().chain(self.globals).any(|variable| variable.name == name)
            || self.entry.parameters.iter().any(|parameter| parameter.name == name)
    }

    /// Fills in the targets of branches.
    fn bind(self) -> Result<(), PtxError> {
        for branch in &self.branches {
            let instruction = &mut self.entry.instructions[branch.instruction];
            let target = self
                .scopes
                .find_label(branch.scope, &branch.label)
                .ok_or_else(|| PtxError::new(instruction.line, format!("unknown label {}", branch.label)))?;
            instruction.operands[branch.operand] = Operand::Target(target);
        }
        Ok(())
    }
}

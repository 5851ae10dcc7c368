//! From operands to register numbers.

use super::{Decoder, Outcome};
use crate::ptx::op::{Addr, NONE, Reg};
use crate::ptx::program::{Fixed, Special};
use crate::ptx::syntax::{Operand, Register};
use crate::ptx::types::{Class, Space, Type};

impl Decoder<'_> {
    /// A register's number, if it lies in the file that is wanted.
    pub(super) fn register(&self, register: Register, class: Class) -> Outcome<Reg> {
        let info = &self.entry.registers[register.0 as usize];
        if info.class() != class {
            let wanted = match class {
                Class::Narrow => "32 bits or fewer",
                Class::Wide => "64 bits",
                Class::Pred => "a predicate",
            };
            return Err(format!("{} is not {wanted}", info.name));
        }
        Ok(self.numbers[register.0 as usize])
    }

    /// The declared type of a register operand.
    pub(super) fn declared(&self, operand: &Operand) -> Option<Type> {
        match operand {
            Operand::Register(register) => Some(self.entry.registers[register.0 as usize].ty),
            _ => None,
        }
    }

    /// The file of a register operand.
    pub(super) fn class_of(&self, operand: &Operand) -> Option<Class> {
        self.declared(operand).map(Type::class)
    }

    /// A destination in a file.
    pub(super) fn dest(&self, operand: &Operand, class: Class) -> Outcome<Reg> {
        match operand {
            Operand::Register(register) => self.register(*register, class),
            Operand::Sink => Ok(NONE),
            _ => Err("the destination is no register".to_owned()),
        }
    }

    /// A source of a type: a register, a constant, a special register or an address.
    pub(super) fn source(&mut self, operand: &Operand, ty: Type) -> Outcome<Reg> {
        match ty.class() {
            Class::Narrow => self.narrow(operand, ty),
            Class::Wide => self.wide(operand, ty),
            Class::Pred => match self.predicate(operand)? {
                (register, false) => Ok(register),
                _ => Err("a negated predicate is not allowed here".to_owned()),
            },
        }
    }

    fn narrow(&mut self, operand: &Operand, ty: Type) -> Outcome<Reg> {
        let mask = if ty.bytes() >= 4 { u64::from(u32::MAX) } else { (1 << (8 * ty.bytes())) - 1 };
        match operand {
            Operand::Register(register) => self.register(*register, Class::Narrow),
            Operand::Integer(value) if ty == Type::F32 => {
                Ok(self.fixed_narrow(Fixed::Value(u64::from((*value as f32).to_bits()))))
            }
            Operand::Integer(value) => Ok(self.fixed_narrow(Fixed::Value(*value as u64 & mask))),
            Operand::Float(bits) => Ok(self.fixed_narrow(Fixed::Value(u64::from(*bits)))),
            Operand::Double(bits) => {
                Ok(self.fixed_narrow(Fixed::Value(u64::from((f64::from_bits(*bits) as f32).to_bits()))))
            }
            Operand::Special(name) => {
                let special = Special::parse(name).ok_or_else(|| format!("unsupported special register {name}"))?;
                Ok(self.fixed_narrow(Fixed::Special(special)))
            }
            Operand::Symbol(name, distance) => match self.address_of(name, *distance)? {
                (Space::Global, _) => Err(format!("the address of {name} takes 64 bits")),
                (_, Fixed::Value(offset)) => Ok(self.fixed_narrow(Fixed::Value(offset & mask))),
                _ => Err(format!("{name} has no address")),
            },
            _ => Err("this operand is not allowed here".to_owned()),
        }
    }

    fn wide(&mut self, operand: &Operand, ty: Type) -> Outcome<Reg> {
        match operand {
            Operand::Register(register) => self.register(*register, Class::Wide),
            Operand::Integer(value) if ty == Type::F64 => Ok(self.fixed_wide(Fixed::Value((*value as f64).to_bits()))),
            Operand::Integer(value) => Ok(self.fixed_wide(Fixed::Value(*value as u64))),
            Operand::Float(bits) => Ok(self.fixed_wide(Fixed::Value(f64::from(f32::from_bits(*bits)).to_bits()))),
            Operand::Double(bits) => Ok(self.fixed_wide(Fixed::Value(*bits))),
            Operand::Symbol(name, distance) => {
                let (_, fixed) = self.address_of(name, *distance)?;
                Ok(self.fixed_wide(fixed))
            }
            Operand::Special(name) => Err(format!("the special register {name} is not 64 bits wide")),
            _ => Err("this operand is not allowed here".to_owned()),
        }
    }

    /// A predicate, perhaps negated. Integers are constant predicates.
    pub(super) fn predicate(&mut self, operand: &Operand) -> Outcome<(Reg, bool)> {
        match operand {
            Operand::Register(register) => Ok((self.register(*register, Class::Pred)?, false)),
            Operand::Not(register) => Ok((self.register(*register, Class::Pred)?, true)),
            Operand::Integer(value) => Ok((self.program.predicates + Reg::from(*value != 0), false)),
            _ => Err("a predicate is missing".to_owned()),
        }
    }

    /// The register of a narrow constant.
    pub(super) fn fixed_narrow(&mut self, fixed: Fixed) -> Reg {
        let list = &mut self.program.narrow_fixed;
        let base = self.program.narrow_registers;
        *self.narrow_fixed.entry(fixed.clone()).or_insert_with(|| {
            list.push(fixed);
            base.wrapping_add(list.len() as u16 - 1)
        })
    }

    fn fixed_wide(&mut self, fixed: Fixed) -> Reg {
        let list = &mut self.program.wide_fixed;
        let base = self.program.wide_registers;
        *self.wide_fixed.entry(fixed.clone()).or_insert_with(|| {
            list.push(fixed);
            base.wrapping_add(list.len() as u16 - 1)
        })
    }

    /// The space of a name and its address there.
    fn address_of(&self, name: &str, distance: i64) -> Outcome<(Space, Fixed)> {
        if let Some((space, offset)) = self.offsets.get(name) {
            return Ok((*space, Fixed::Value(i64::from(*offset).wrapping_add(distance) as u64)));
        }
        if let Some(parameter) = self.entry.parameters.iter().find(|parameter| parameter.name == name) {
            return Ok((Space::Param, Fixed::Value(i64::from(parameter.offset).wrapping_add(distance) as u64)));
        }
        if self.globals.iter().any(|variable| variable.name == name && !variable.is_shared()) {
            return Ok((Space::Global, Fixed::Symbol(name.to_owned(), distance)));
        }
        Err(format!("unknown name {name}"))
    }

    /// An address operand.
    pub(super) fn address(&mut self, operand: &Operand) -> Outcome<Addr> {
        let Operand::Address(base, distance) = operand else {
            return Err("an address in brackets is missing".to_owned());
        };
        let offset = i32::try_from(*distance).map_err(|_| format!("the distance {distance} is too large"))?;
        let (base, wide) = match &**base {
            register @ Operand::Register(_) if self.class_of(register) == Some(Class::Narrow) => {
                (self.source(register, Type::U32)?, false)
            }
            other => (self.source(other, Type::U64)?, true),
        };
        Ok(Addr { base, wide, offset })
    }

    /// The elements of a vector, or the operand itself.
    pub(super) fn elements<'o>(&self, operand: &'o Operand) -> &'o [Operand] {
        match operand {
            Operand::Vector(elements) => elements,
            _ => std::slice::from_ref(operand),
        }
    }
}

/// Exactly so many operands.
pub(super) fn exactly<const N: usize>(operands: &[Operand]) -> Outcome<&[Operand; N]> {
    operands.try_into().map_err(|_| format!("{} operands where {N} are needed", operands.len()))
}

//! Loads, stores, atomics and asynchronous copies.

use super::operands::exactly;
use super::suffix::Suffixes;
use super::{Decoder, Outcome};
use crate::ptx::op::{Atomic, Elem, NONE, Op, Reg};
use crate::ptx::syntax::Operand;
use crate::ptx::types::{Class, Space, Type};

/// Suffixes about caches, memory order and visibility, which change nothing in the emulator.
const ORDER: &[&str] = &[
    "nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt", "volatile", "weak", "relaxed", "acquire", "release", "acq_rel",
    "cta", "cluster", "gpu", "gl", "sys", "sc", "noftz",
];

impl Decoder<'_> {
    pub(super) fn memory(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Option<Op>> {
        let op = match suffixes.stem() {
            "ld" | "ldu" => self.load(suffixes, operands)?,
            "st" => self.store(suffixes, operands)?,
            "atom" | "red" => self.atomic(suffixes, operands)?,
            "cp" => self.copy_async(suffixes, operands)?,
            "ldmatrix" => self.load_matrix(suffixes, operands)?,
            "prefetch" | "prefetchu" => {
                suffixes.ignore(&["global", "local", "L1", "L2"]);
                Op::Fence
            }
            "membar" | "fence" => {
                suffixes.ignore(ORDER);
                Op::Fence
            }
            _ => return Ok(None),
        };
        Ok(Some(op))
    }

    fn load(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let (space, count) = space_and_count(suffixes);
        let ty = suffixes.ty()?;
        let [d, address] = exactly(operands)?;
        let parts = self.elements(d);
        check_count(parts, count)?;
        let mut dests = [NONE; 4];
        let mut elem = element(ty);
        for (dest, part) in dests.iter_mut().zip(parts) {
            let Some(declared) = self.declared(part) else { continue };
            elem.wide = declared.class() == Class::Wide;
            elem.half = declared.bytes() == 2;
            if declared.bytes() < ty.bytes() {
                return Err("the destination is narrower than its type".to_owned());
            }
            *dest = self.dest(part, declared.class())?;
        }
        Ok(Op::Load { space, elem, count, addr: self.address(address)?, d: dests })
    }

    fn store(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let (space, count) = space_and_count(suffixes);
        if space == Space::Param || space == Space::Const {
            return Err("this state space cannot be written".to_owned());
        }
        let ty = suffixes.ty()?;
        let [address, value] = exactly(operands)?;
        let parts = self.elements(value);
        check_count(parts, count)?;
        let mut elem = element(ty);
        elem.wide = parts.iter().any(|part| self.class_of(part) == Some(Class::Wide)) || ty.class() == Class::Wide;
        let mut sources = [NONE; 4];
        for (source, part) in sources.iter_mut().zip(parts) {
            *source = match self.class_of(part) {
                Some(_) if elem.wide => self.source(part, Type::B64)?,
                Some(_) => self.source(part, Type::B32)?,
                None => self.source(part, ty)?,
            };
        }
        Ok(Op::Store { space, elem, count, addr: self.address(address)?, a: sources })
    }

    fn atomic(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let reduction = suffixes.stem() == "red";
        let space = suffixes.take_map(Space::parse).unwrap_or(Space::Generic);
        suffixes.ignore(ORDER);
        let name = suffixes.take_map(|suffix| ATOMICS.iter().copied().find(|name| *name == suffix));
        let ty = suffixes.ty()?;
        let signed = ty.is_signed();
        let f = match (name.ok_or("an operation is missing")?, ty) {
            ("add", Type::F32) => Atomic::AddF32,
            ("add", Type::F64) => Atomic::AddF64,
            ("exch", Type::B32 | Type::B64 | Type::F32) => Atomic::Exch,
            ("cas", Type::B32 | Type::B64 | Type::U32 | Type::S32 | Type::U64 | Type::S64) => Atomic::Cas,
            ("add", ty) if !ty.is_float() && ty.bytes() >= 4 => Atomic::Add,
            ("min", ty) if !ty.is_float() && ty.bytes() >= 4 => {
                if signed {
                    Atomic::MinS
                } else {
                    Atomic::MinU
                }
            }
            ("max", ty) if !ty.is_float() && ty.bytes() >= 4 => {
                if signed {
                    Atomic::MaxS
                } else {
                    Atomic::MaxU
                }
            }
            ("and", Type::B32 | Type::B64) => Atomic::And,
            ("or", Type::B32 | Type::B64) => Atomic::Or,
            ("xor", Type::B32 | Type::B64) => Atomic::Xor,
            ("inc", Type::U32) => Atomic::Inc,
            ("dec", Type::U32) => Atomic::Dec,
            _ => return Err("unsupported operation or type".to_owned()),
        };
        let wide = ty.class() == Class::Wide;
        let (d, rest) = match (reduction, operands) {
            (true, rest) => (NONE, rest),
            (false, [d, rest @ ..]) => (self.dest(d, ty.class())?, rest),
            _ => return Err("operands are missing".to_owned()),
        };
        let (addr, b, c): (_, Reg, Reg) = match (f, rest) {
            (Atomic::Cas, [addr, b, c]) => (self.address(addr)?, self.source(b, ty)?, self.source(c, ty)?),
            (Atomic::Cas, _) => return Err("three operands are needed".to_owned()),
            (_, [addr, b]) => (self.address(addr)?, self.source(b, ty)?, NONE),
            _ => return Err("the number of operands is wrong".to_owned()),
        };
        Ok(Op::Atomic { f, wide, space, addr, d, b, c })
    }

    /// `cp.async`, `cp.async.commit_group`, `cp.async.wait_group N`, `cp.async.wait_all`.
    fn copy_async(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        if !suffixes.take("async") {
            return Err("unsupported instruction".to_owned());
        }
        if suffixes.take("commit_group") {
            return Ok(Op::CopyCommit);
        }
        if suffixes.take("wait_all") {
            return Ok(Op::CopyWait { pending: u32::MAX });
        }
        if suffixes.take("wait_group") {
            return match operands {
                [Operand::Integer(pending)] if (0..i64::from(u32::MAX)).contains(pending) => {
                    Ok(Op::CopyWait { pending: *pending as u32 })
                }
                _ => Err("the number of pending groups must be a constant".to_owned()),
            };
        }
        let whole_lines = suffixes.take("cg");
        if !whole_lines && !suffixes.take("ca") {
            return Err("one of .ca and .cg is needed".to_owned());
        }
        if !(suffixes.take("shared") || suffixes.take("shared::cta")) || !suffixes.take("global") {
            return Err("only copies from global to shared memory are supported".to_owned());
        }
        suffixes.ignore(&[]);
        let [to, from, Operand::Integer(bytes), rest @ ..] = operands else {
            return Err("the number of bytes must be a constant".to_owned());
        };
        let bytes = match bytes {
            16 => 16,
            4 | 8 if !whole_lines => *bytes as u8,
            _ => return Err(format!("copies of {bytes} bytes are not allowed")),
        };
        let size = match rest {
            [] => NONE,
            [size] if self.class_of(size) != Some(Class::Pred) => self.source(size, Type::U32)?,
            _ => return Err("ignore-src is not supported".to_owned()),
        };
        Ok(Op::CopyAsync { bytes, to: self.address(to)?, from: self.address(from)?, size })
    }

    fn load_matrix(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        if !suffixes.take("sync") || !suffixes.take("aligned") || !suffixes.take("m8n8") || !suffixes.take("b16") {
            return Err("only .sync.aligned.m8n8 of .b16 is supported".to_owned());
        }
        if !(suffixes.take("shared") || suffixes.take("shared::cta")) {
            return Err("only .shared is supported".to_owned());
        }
        let count = match (suffixes.take("x1"), suffixes.take("x2"), suffixes.take("x4")) {
            (true, false, false) => 1,
            (false, true, false) => 2,
            (false, false, true) => 4,
            _ => return Err("one of .x1, .x2 and .x4 is needed".to_owned()),
        };
        let transpose = suffixes.take("trans");
        let [d, address] = exactly(operands)?;
        let parts = self.elements(d);
        check_count(parts, count)?;
        let mut dests = [NONE; 4];
        for (dest, part) in dests.iter_mut().zip(parts) {
            *dest = self.dest(part, Class::Narrow)?;
        }
        Ok(Op::LoadMatrix { count, transpose, addr: self.address(address)?, d: dests })
    }
}

const ATOMICS: [&str; 10] = ["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"];

fn space_and_count(suffixes: &mut Suffixes<'_>) -> (Space, u8) {
    let space = suffixes.take_map(Space::parse).unwrap_or(Space::Generic);
    suffixes.ignore(ORDER);
    let count = suffixes.take_map(|suffix| match suffix {
        "v2" => Some(2),
        "v4" => Some(4),
        _ => None,
    });
    (space, count.unwrap_or(1))
}

fn element(ty: Type) -> Elem {
    Elem { bytes: ty.bytes() as u8, signed: ty.is_signed(), wide: false, half: false }
}

fn check_count(parts: &[Operand], count: u8) -> Outcome<()> {
    if parts.len() == usize::from(count) {
        Ok(())
    } else {
        Err(format!("{} registers where {count} are needed", parts.len()))
    }
}

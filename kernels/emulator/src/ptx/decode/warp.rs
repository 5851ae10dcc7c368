//! Control flow, barriers, and what the lanes of a warp do together.

use super::operands::exactly;
use super::suffix::Suffixes;
use super::{Decoder, Outcome};
use crate::ptx::op::{BarRed, Int, Mma, MmaType, NONE, Op, Reg, Shuffle, Vote};
use crate::ptx::syntax::Operand;
use crate::ptx::types::{Class, Type};

impl Decoder<'_> {
    pub(super) fn warp(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Option<Op>> {
        let op = match suffixes.stem() {
            "bra" => {
                suffixes.ignore(&["uni"]);
                match operands {
                    [Operand::Target(target)] => Op::Branch { target: *target },
                    _ => return Err("a label is missing".to_owned()),
                }
            }
            "ret" | "exit" => {
                suffixes.ignore(&["uni"]);
                Op::Exit
            }
            "trap" | "brkpt" => Op::Trap,
            "nanosleep" => {
                suffixes.ignore(&["u32"]);
                Op::Fence
            }
            "griddepcontrol" => {
                suffixes.ignore(&["launch_dependents", "wait"]);
                Op::Fence
            }
            "bar" | "barrier" => self.barrier(suffixes, operands)?,
            "shfl" => self.shuffle(suffixes, operands)?,
            "vote" => self.vote(suffixes, operands)?,
            "activemask" => {
                suffixes.ignore(&["b32"]);
                let [d] = exactly(operands)?;
                Op::ActiveMask { d: self.dest(d, Class::Narrow)? }
            }
            "redux" => self.redux(suffixes, operands)?,
            "mma" => self.product_of_matrices(suffixes, operands)?,
            _ => return Ok(None),
        };
        Ok(Some(op))
    }

    fn barrier(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        suffixes.ignore(&["aligned", "cta"]);
        if suffixes.take("warp") {
            if !suffixes.take("sync") {
                return Err("only bar.warp.sync is supported".to_owned());
            }
            let [mask] = exactly(operands)?;
            return Ok(Op::WarpSync { mask: self.source(mask, Type::B32)? });
        }
        if suffixes.take("red") {
            return self.barrier_reduce(suffixes, operands);
        }
        let wait = suffixes.take("sync");
        if !wait && !suffixes.take("arrive") {
            return Err("one of .sync, .arrive and .red is needed".to_owned());
        }
        let (id, threads) = match operands {
            [id] if wait => (self.source(id, Type::U32)?, NONE),
            [id, threads] => (self.source(id, Type::U32)?, self.source(threads, Type::U32)?),
            _ => return Err("the number of operands is wrong".to_owned()),
        };
        Ok(Op::Barrier { id, threads, wait })
    }

    fn barrier_reduce(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let f = suffixes.take_map(|suffix| match suffix {
            "popc" => Some(BarRed::Popc),
            "and" => Some(BarRed::And),
            "or" => Some(BarRed::Or),
            _ => None,
        });
        let f = f.ok_or("a reduction is missing")?;
        let ty = suffixes.ty()?;
        let (d, id, threads, a) = match operands {
            [d, id, a] => (d, id, None, a),
            [d, id, threads, a] => (d, id, Some(threads), a),
            _ => return Err("the number of operands is wrong".to_owned()),
        };
        let threads = threads.map_or(Ok(NONE), |threads| self.source(threads, Type::U32))?;
        let (a, negated) = self.predicate(a)?;
        let class = if f == BarRed::Popc { Class::Narrow } else { Class::Pred };
        if class != ty.class() {
            return Err("the type does not fit the reduction".to_owned());
        }
        Ok(Op::BarrierReduce { f, id: self.source(id, Type::U32)?, threads, d: self.dest(d, class)?, a, negated })
    }

    fn shuffle(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        if !suffixes.take("sync") || !suffixes.take("b32") {
            return Err("only shfl.sync of .b32 is supported".to_owned());
        }
        let f = suffixes.take_map(|suffix| match suffix {
            "up" => Some(Shuffle::Up),
            "down" => Some(Shuffle::Down),
            "bfly" => Some(Shuffle::Bfly),
            "idx" => Some(Shuffle::Idx),
            _ => None,
        });
        let [d, a, b, c, mask] = exactly(operands)?;
        let (d, p) = match d {
            Operand::Pair(d, p) => (self.register(*d, Class::Narrow)?, self.register(*p, Class::Pred)?),
            d => (self.dest(d, Class::Narrow)?, NONE),
        };
        Ok(Op::Shuffle {
            f: f.ok_or("a mode is missing")?,
            d,
            p,
            a: self.source(a, Type::B32)?,
            b: self.source(b, Type::U32)?,
            c: self.source(c, Type::U32)?,
            mask: self.source(mask, Type::B32)?,
        })
    }

    fn vote(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        if !suffixes.take("sync") {
            return Err("only vote.sync is supported".to_owned());
        }
        let f = suffixes.take_map(|suffix| match suffix {
            "all" => Some(Vote::All),
            "any" => Some(Vote::Any),
            "uni" => Some(Vote::Uni),
            "ballot" => Some(Vote::Ballot),
            _ => None,
        });
        let f = f.ok_or("a mode is missing")?;
        let ty = suffixes.ty()?;
        let [d, a, mask] = exactly(operands)?;
        let class = if f == Vote::Ballot { Class::Narrow } else { Class::Pred };
        if ty.class() != class {
            return Err("the type does not fit the vote".to_owned());
        }
        let (a, negated) = self.predicate(a)?;
        Ok(Op::Vote { f, d: self.dest(d, class)?, a, negated, mask: self.source(mask, Type::B32)? })
    }

    fn redux(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        if !suffixes.take("sync") {
            return Err("only redux.sync exists".to_owned());
        }
        let name =
            suffixes.take_map(|suffix| ["add", "min", "max", "and", "or", "xor"].into_iter().find(|n| *n == suffix));
        let ty = suffixes.ty()?;
        if ty.bytes() != 4 || ty.is_float() {
            return Err("unsupported type".to_owned());
        }
        let f = match (name.ok_or("an operation is missing")?, ty.is_signed()) {
            ("add", _) => Int::Add,
            ("min", true) => Int::MinS,
            ("min", false) => Int::MinU,
            ("max", true) => Int::MaxS,
            ("max", false) => Int::MaxU,
            ("and", _) => Int::And,
            ("or", _) => Int::Or,
            _ => Int::Xor,
        };
        let [d, a, mask] = exactly(operands)?;
        Ok(Op::Redux {
            f,
            d: self.dest(d, Class::Narrow)?,
            a: self.source(a, ty)?,
            mask: self.source(mask, Type::B32)?,
        })
    }

    /// `mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32` and its relatives.
    fn product_of_matrices(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        if !(suffixes.take("sync") && suffixes.take("aligned") && suffixes.take("row") && suffixes.take("col")) {
            return Err("only .sync.aligned with .row.col is supported".to_owned());
        }
        let k = suffixes.take_map(|suffix| match suffix {
            "m16n8k4" => Some(4u8),
            "m16n8k8" => Some(8),
            "m16n8k16" => Some(16),
            _ => None,
        });
        let k = k.ok_or("unsupported shape")?;
        let types = [suffixes.ty()?, suffixes.ty()?, suffixes.ty()?, suffixes.ty()?];
        let ty = match types {
            [Type::F32, Type::Tf32, Type::Tf32, Type::F32] => MmaType::Tf32,
            [Type::F32, Type::Bf16, Type::Bf16, Type::F32] => MmaType::Bf16,
            [Type::F32, Type::F16, Type::F16, Type::F32] => MmaType::F16,
            _ => return Err("unsupported types".to_owned()),
        };
        // A warp holds 16 k elements of A and 8 k of B in 32 lanes, of one 32-bit register each or half of one.
        let (a_count, b_count) = match (ty, k) {
            (MmaType::Tf32, 4) | (MmaType::Bf16 | MmaType::F16, 8) => (2, 1),
            (MmaType::Tf32, 8) | (MmaType::Bf16 | MmaType::F16, 16) => (4, 2),
            _ => return Err("unsupported shape".to_owned()),
        };
        let [d, a, b, c] = exactly(operands)?;
        let mut product = Mma { ty, k, d: [NONE; 4], a: [NONE; 4], b: [NONE; 2], c: [NONE; 4] };
        self.fragment(d, 4, true, &mut product.d)?;
        self.fragment(a, a_count, false, &mut product.a)?;
        self.fragment(b, b_count, false, &mut product.b)?;
        self.fragment(c, 4, false, &mut product.c)?;
        self.program.products.push(product);
        Ok(Op::Mma { index: self.program.products.len() as u16 - 1 })
    }

    fn fragment(&mut self, operand: &Operand, count: usize, is_dest: bool, into: &mut [Reg]) -> Outcome<()> {
        let parts = self.elements(operand);
        if parts.len() != count {
            return Err(format!("a fragment of {} registers where {count} are needed", parts.len()));
        }
        for (register, part) in into.iter_mut().zip(parts) {
            *register = if is_dest { self.dest(part, Class::Narrow)? } else { self.source(part, Type::F32)? };
        }
        Ok(())
    }
}

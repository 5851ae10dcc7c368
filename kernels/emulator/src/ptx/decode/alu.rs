//! Integer, bit and predicate instructions.

use super::operands::exactly;
use super::suffix::Suffixes;
use super::{Decoder, Outcome};
use crate::ptx::op::{Bits, Cmp, CmpType, CompareMore, Int, IntUnary, Logic, NONE, Op, Reg};
use crate::ptx::syntax::Operand;
use crate::ptx::types::{Class, Type};

impl Decoder<'_> {
    pub(super) fn alu(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Option<Op>> {
        let op = match suffixes.stem() {
            "mov" => self.mov(suffixes, operands)?,
            "and" | "or" | "xor" => self.bitwise(suffixes, operands)?,
            "not" | "cnot" | "brev" | "popc" | "clz" | "bfind" => self.unary(suffixes, operands)?,
            "shl" | "shr" => self.shift(suffixes, operands)?,
            "mad" | "mul" if is_integer(suffixes) => self.product(suffixes, operands)?,
            "add" | "sub" if suffixes.take("cc") => self.carry(suffixes, operands, false)?,
            "addc" | "subc" => self.carry(suffixes, operands, true)?,
            "add" | "sub" | "div" | "rem" | "min" | "max" if is_integer(suffixes) => {
                self.integer(suffixes, operands)?
            }
            "neg" | "abs" if is_integer(suffixes) => self.unary(suffixes, operands)?,
            "bfe" | "prmt" | "shf" | "lop3" | "sad" => self.bits(suffixes, operands)?,
            "bfi" => self.insert(suffixes, operands)?,
            "setp" => self.compare(suffixes, operands)?,
            "selp" => self.select(suffixes, operands)?,
            _ => return Ok(None),
        };
        Ok(Some(op))
    }

    fn mov(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let ty = suffixes.ty()?;
        let [d, a] = exactly(operands)?;
        match (d, a) {
            (Operand::Vector(parts), a) => return self.unpack(parts, a),
            (d, Operand::Vector(parts)) => return self.pack(d, parts),
            (d, Operand::Special(name)) if name == "%clock64" || name == "%globaltimer" => {
                return Ok(Op::Clock64 { d: self.dest(d, Class::Wide)? });
            }
            (d, Operand::Special(name)) if name == "%clock" || name == "%globaltimer_lo" => {
                return Ok(Op::Clock32 { d: self.dest(d, Class::Narrow)? });
            }
            // Special registers are 32 bits wide; a 64-bit move extends them.
            (d, Operand::Special(_)) if ty.class() == Class::Wide => {
                let a = self.source(a, Type::U32)?;
                return Ok(Op::Widen { signed: false, d: self.dest(d, Class::Wide)?, a });
            }
            _ => {}
        }
        let d = self.dest(d, ty.class())?;
        if ty == Type::Pred {
            let (a, negated) = self.predicate(a)?;
            return Ok(if negated { Op::NotPred { d, a } } else { Op::MovPred { d, a } });
        }
        let a = self.source(a, ty)?;
        Ok(if ty.class() == Class::Wide { Op::Mov64 { d, a } } else { Op::Mov32 { d, a } })
    }

    fn pack(&mut self, d: &Operand, parts: &[Operand]) -> Outcome<Op> {
        match (self.class_of(d), parts) {
            (Some(Class::Wide), [a, b]) => Ok(Op::Pack64 {
                d: self.dest(d, Class::Wide)?,
                a: self.source(a, Type::B32)?,
                b: self.source(b, Type::B32)?,
            }),
            (Some(Class::Wide), [a, b, c, e]) => Ok(Op::Pack16x4 {
                d: self.dest(d, Class::Wide)?,
                a: [
                    self.source(a, Type::B16)?,
                    self.source(b, Type::B16)?,
                    self.source(c, Type::B16)?,
                    self.source(e, Type::B16)?,
                ],
            }),
            (Some(Class::Narrow), [a, b]) => Ok(Op::Pack32 {
                d: self.dest(d, Class::Narrow)?,
                a: self.source(a, Type::B16)?,
                b: self.source(b, Type::B16)?,
            }),
            _ => Err("these registers cannot be packed".to_owned()),
        }
    }

    fn unpack(&mut self, parts: &[Operand], a: &Operand) -> Outcome<Op> {
        match (self.class_of(a), parts) {
            (Some(Class::Wide), [d, e]) => Ok(Op::Unpack64 {
                d: self.dest(d, Class::Narrow)?,
                e: self.dest(e, Class::Narrow)?,
                a: self.source(a, Type::B64)?,
            }),
            (Some(Class::Wide), [d, e, f, g]) => {
                let dests = [d, e, f, g].map(|part| self.dest(part, Class::Narrow));
                let [d, e, f, g] = dests;
                Ok(Op::Unpack16x4 { d: [d?, e?, f?, g?], a: self.source(a, Type::B64)? })
            }
            (Some(Class::Narrow), [d, e]) => Ok(Op::Unpack32 {
                d: self.dest(d, Class::Narrow)?,
                e: self.dest(e, Class::Narrow)?,
                a: self.source(a, Type::B32)?,
            }),
            _ => Err("these registers cannot be unpacked".to_owned()),
        }
    }

    fn bitwise(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let (f, logic) = match suffixes.stem() {
            "and" => (Int::And, Logic::And),
            "or" => (Int::Or, Logic::Or),
            _ => (Int::Xor, Logic::Xor),
        };
        let ty = suffixes.ty()?;
        let [d, a, b] = exactly(operands)?;
        let (d, a, b) = (self.dest(d, ty.class())?, self.source(a, ty)?, self.source(b, ty)?);
        Ok(match ty.class() {
            Class::Pred => Op::LogicPred { f: logic, d, a, b },
            Class::Wide => Op::Int64 { f, d, a, b },
            Class::Narrow => Op::Int32 { f, d, a, b },
        })
    }

    fn unary(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let f = match suffixes.stem() {
            "not" => IntUnary::Not,
            "cnot" => IntUnary::Cnot,
            "neg" => IntUnary::Neg,
            "abs" => IntUnary::Abs,
            "brev" => IntUnary::Brev,
            "popc" => IntUnary::Popc,
            "bfind" => IntUnary::Find { signed: false, shift: suffixes.take("shiftamt") },
            _ => IntUnary::Clz,
        };
        let ty = suffixes.ty()?;
        let f = match f {
            IntUnary::Find { shift, .. } => IntUnary::Find { signed: ty.is_signed(), shift },
            f => f,
        };
        let [d, a] = exactly(operands)?;
        if ty == Type::Pred {
            let (a, _) = self.predicate(a)?;
            return Ok(Op::NotPred { d: self.dest(d, Class::Pred)?, a });
        }
        let counts = matches!(f, IntUnary::Popc | IntUnary::Clz | IntUnary::Find { .. });
        let d = self.dest(d, if counts { Class::Narrow } else { ty.class() })?;
        let a = self.source(a, ty)?;
        Ok(match ty.bytes() {
            8 => Op::Unary64 { f, d, a },
            2 => Op::Unary16 { f, d, a },
            _ => Op::Unary32 { f, d, a },
        })
    }

    fn shift(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let ty = suffixes.ty()?;
        let f = match (suffixes.stem(), ty.is_signed()) {
            ("shl", _) => Int::Shl,
            (_, true) => Int::ShrS,
            _ => Int::ShrU,
        };
        let [d, a, b] = exactly(operands)?;
        let (d, a, b) = (self.dest(d, ty.class())?, self.source(a, ty)?, self.source(b, Type::U32)?);
        Ok(match ty.bytes() {
            8 => Op::Shift64 { f, d, a, b },
            2 => Op::Int16 { f, signed: ty.is_signed(), d, a, b },
            _ => Op::Int32 { f, d, a, b },
        })
    }

    fn integer(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let ty = suffixes.ty()?;
        let signed = ty.is_signed();
        let f = match (suffixes.stem(), signed) {
            ("add", _) => Int::Add,
            ("sub", _) => Int::Sub,
            ("div", true) => Int::DivS,
            ("div", false) => Int::DivU,
            ("rem", true) => Int::RemS,
            ("rem", false) => Int::RemU,
            ("min", true) => Int::MinS,
            ("min", false) => Int::MinU,
            (_, true) => Int::MaxS,
            (_, false) => Int::MaxU,
        };
        let [d, a, b] = exactly(operands)?;
        let (d, a, b) = (self.dest(d, ty.class())?, self.source(a, ty)?, self.source(b, ty)?);
        Ok(match ty.bytes() {
            8 => Op::Int64 { f, d, a, b },
            2 => Op::Int16 { f, signed, d, a, b },
            _ => Op::Int32 { f, d, a, b },
        })
    }

    /// `mul` and `mad` with `.lo`, `.hi` or `.wide`.
    fn product(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let (wide, hi) = (suffixes.take("wide"), suffixes.take("hi"));
        if !wide && !hi && !suffixes.take("lo") {
            return Err("one of .lo, .hi and .wide is needed".to_owned());
        }
        let ty = suffixes.ty()?;
        let signed = ty.is_signed();
        let (d, a, b, c) = match (suffixes.stem(), operands) {
            ("mul", [d, a, b]) => (d, a, b, None),
            ("mad", [d, a, b, c]) => (d, a, b, Some(c)),
            _ => return Err("the number of operands is wrong".to_owned()),
        };
        let (a, b) = (self.source(a, ty)?, self.source(b, ty)?);
        if wide {
            return match ty.bytes() {
                4 => {
                    let c = c.map_or(Ok(NONE), |c| self.source(c, Type::B64))?;
                    Ok(Op::MadWide { signed, d: self.dest(d, Class::Wide)?, a, b, c })
                }
                2 if c.is_none() => Ok(Op::MulWide16 { signed, d: self.dest(d, Class::Narrow)?, a, b }),
                _ => Err("unsupported width".to_owned()),
            };
        }
        let c = c.map_or(Ok(NONE), |c| self.source(c, ty))?;
        let d = self.dest(d, ty.class())?;
        match (ty.bytes(), hi, c) {
            (8, false, NONE) => Ok(Op::Int64 { f: Int::MulLo, d, a, b }),
            (8, true, NONE) => Ok(Op::Int64 { f: if signed { Int::MulHiS } else { Int::MulHiU }, d, a, b }),
            (8, false, c) => Ok(Op::Mad64 { d, a, b, c }),
            (4, false, NONE) => Ok(Op::Int32 { f: Int::MulLo, d, a, b }),
            (4, hi, c) => Ok(Op::Mad32 { hi, signed, d, a, b, c }),
            (2, false, NONE) => Ok(Op::Int16 { f: Int::MulLo, signed, d, a, b }),
            (2, false, c) => Ok(Op::Mad16 { d, a, b, c }),
            _ => Err("unsupported width".to_owned()),
        }
    }

    /// `add.cc`, `addc`, `sub.cc`, `subc` of 32 bits. The carry is a predicate behind all others.
    fn carry(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand], read: bool) -> Outcome<Op> {
        let subtract = suffixes.stem().starts_with("sub");
        let write = !read || suffixes.take("cc");
        let ty = suffixes.ty()?;
        if ty.bytes() != 4 {
            return Err("only 32-bit carries are supported".to_owned());
        }
        let [d, a, b] = exactly(operands)?;
        let (d, a, b) = (self.dest(d, Class::Narrow)?, self.source(a, ty)?, self.source(b, ty)?);
        let carry = self.program.predicates + self.carry_place();
        Ok(Op::AddCarry { subtract, read, write, d, a, b, carry })
    }

    fn carry_place(&mut self) -> Reg {
        if self.program.predicate_fixed.len() == 2 {
            self.program.predicate_fixed.push(false);
        }
        2
    }

    fn bits(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let stem = suffixes.stem();
        let shf = (suffixes.take("l"), suffixes.take("r"), suffixes.take("wrap"), suffixes.take("clamp"));
        let ty = suffixes.ty()?;
        if stem == "lop3" {
            let [d, a, b, c, table] = exactly(operands)?;
            let Operand::Integer(table) = table else { return Err("the table is no constant".to_owned()) };
            let f = Bits::Lop3 { table: *table as u8 };
            return self.three(f, d, [a, b, c]);
        }
        let [d, a, b, c] = exactly(operands)?;
        let f = match (stem, ty) {
            ("bfe", Type::U64 | Type::S64) => {
                return Ok(Op::Bfe64 {
                    signed: ty.is_signed(),
                    d: self.dest(d, Class::Wide)?,
                    a: self.source(a, ty)?,
                    b: self.source(b, Type::U32)?,
                    c: self.source(c, Type::U32)?,
                });
            }
            ("bfe", Type::S32) => Bits::BfeS,
            ("bfe", Type::U32) => Bits::BfeU,
            ("prmt", Type::B32) => Bits::Prmt,
            ("shf", Type::B32) => match shf {
                (true, false, wrap, clamp) if wrap != clamp => Bits::ShfL { wrap },
                (false, true, wrap, clamp) if wrap != clamp => Bits::ShfR { wrap },
                _ => return Err("a direction and one of .wrap and .clamp are needed".to_owned()),
            },
            ("sad", Type::S32) => Bits::SadS,
            ("sad", Type::U32) => Bits::SadU,
            _ => return Err("unsupported type".to_owned()),
        };
        self.three(f, d, [a, b, c])
    }

    fn three(&mut self, f: Bits, d: &Operand, [a, b, c]: [&Operand; 3]) -> Outcome<Op> {
        Ok(Op::Bits {
            f,
            d: self.dest(d, Class::Narrow)?,
            a: self.source(a, Type::B32)?,
            b: self.source(b, Type::B32)?,
            c: self.source(c, Type::B32)?,
        })
    }

    fn insert(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let ty = suffixes.ty()?;
        let [d, a, b, c, e] = exactly(operands)?;
        let d = self.dest(d, ty.class())?;
        let (a, b) = (self.source(a, ty)?, self.source(b, ty)?);
        let (c, e) = (self.source(c, Type::U32)?, self.source(e, Type::U32)?);
        Ok(if ty.class() == Class::Wide { Op::Bfi64 { d, a, b, c, e } } else { Op::Bfi32 { d, a, b, c, e } })
    }

    fn compare(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let ftz = suffixes.take("ftz");
        let (cmp, unsigned) = suffixes.take_map(comparison).ok_or("a comparison is missing")?;
        let logic = suffixes.take_map(|suffix| match suffix {
            "and" => Some(Logic::And),
            "or" => Some(Logic::Or),
            "xor" => Some(Logic::Xor),
            _ => None,
        });
        let ty = suffixes.ty()?;
        let compared = compare_type(ty, unsigned).ok_or("unsupported type")?;
        let (d, complement) = match operands.first() {
            Some(Operand::Pair(p, q)) => (self.register(*p, Class::Pred)?, self.register(*q, Class::Pred)?),
            Some(operand) => (self.dest(operand, Class::Pred)?, NONE),
            None => return Err("operands are missing".to_owned()),
        };
        let (a, b, combine) = match (&operands[1..], logic) {
            ([a, b], None) => (a, b, None),
            ([a, b, c], Some(logic)) => {
                let (register, negated) = self.predicate(c)?;
                (a, b, Some((logic, register, negated)))
            }
            _ => return Err("the number of operands is wrong".to_owned()),
        };
        let (a, b) = (self.source(a, ty)?, self.source(b, ty)?);
        if complement == NONE && combine.is_none() && !ftz {
            return Ok(Op::Compare { cmp, ty: compared, d, a, b });
        }
        let more = self.program.compares.len() as u16;
        self.program.compares.push(CompareMore { complement, combine, ftz });
        Ok(Op::CompareMore { cmp, ty: compared, d, a, b, more })
    }

    fn select(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let ty = suffixes.ty()?;
        let [d, a, b, p] = exactly(operands)?;
        let d = self.dest(d, ty.class())?;
        let (mut a, mut b) = (self.source(a, ty)?, self.source(b, ty)?);
        let (p, negated) = self.predicate(p)?;
        if negated {
            std::mem::swap(&mut a, &mut b);
        }
        Ok(if ty.class() == Class::Wide { Op::Select64 { d, a, b, p } } else { Op::Select32 { d, a, b, p } })
    }
}

/// Whether the type among the suffixes is an integer.
fn is_integer(suffixes: &mut Suffixes<'_>) -> bool {
    suffixes.peek_type().is_some_and(|ty| !ty.is_float() && !matches!(ty, Type::F16x2 | Type::Bf16x2))
}

/// A comparison and whether it asks for unsigned integers (`lo`, `ls`, `hi`, `hs`).
fn comparison(suffix: &str) -> Option<(Cmp, bool)> {
    Some(match suffix {
        "eq" => (Cmp::Eq, false),
        "ne" => (Cmp::Ne, false),
        "lt" => (Cmp::Lt, false),
        "le" => (Cmp::Le, false),
        "gt" => (Cmp::Gt, false),
        "ge" => (Cmp::Ge, false),
        "lo" => (Cmp::Lt, true),
        "ls" => (Cmp::Le, true),
        "hi" => (Cmp::Gt, true),
        "hs" => (Cmp::Ge, true),
        "equ" => (Cmp::EqU, false),
        "neu" => (Cmp::NeU, false),
        "ltu" => (Cmp::LtU, false),
        "leu" => (Cmp::LeU, false),
        "gtu" => (Cmp::GtU, false),
        "geu" => (Cmp::GeU, false),
        "num" => (Cmp::Num, false),
        "nan" => (Cmp::Nan, false),
        _ => return None,
    })
}

fn compare_type(ty: Type, unsigned: bool) -> Option<CmpType> {
    Some(match ty {
        Type::S16 if !unsigned => CmpType::S16,
        Type::B16 | Type::U16 | Type::S16 => CmpType::U16,
        Type::S32 if !unsigned => CmpType::S32,
        Type::B32 | Type::U32 | Type::S32 => CmpType::U32,
        Type::S64 if !unsigned => CmpType::S64,
        Type::B64 | Type::U64 | Type::S64 => CmpType::U64,
        Type::F32 => CmpType::F32,
        Type::F64 => CmpType::F64,
        _ => return None,
    })
}

//! `cvt` and the conversions of addresses, `cvta`.

use super::operands::exactly;
use super::suffix::{Suffixes, round};
use super::{Decoder, Outcome};
use crate::ptx::op::{Conversion, CvtRound, Format, MmaType, Op, Round};
use crate::ptx::syntax::Operand;
use crate::ptx::types::{Class, Space, Type};

impl Decoder<'_> {
    pub(super) fn conversion(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Option<Op>> {
        match suffixes.stem() {
            "cvt" => self.convert(suffixes, operands).map(Some),
            "cvta" => self.convert_address(suffixes, operands).map(Some),
            _ => Ok(None),
        }
    }

    fn convert(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let (ftz, sat, relu) = (suffixes.take("ftz"), suffixes.take("sat"), suffixes.take("relu"));
        let direction = suffixes.take_map(cvt_round);
        let (to, from) = (suffixes.ty()?, suffixes.ty()?);
        match (to, from) {
            (Type::Bf16x2, Type::F32) => return self.pair_conversion(MmaType::Bf16, relu, operands),
            (Type::F16x2, Type::F32) => return self.pair_conversion(MmaType::F16, relu, operands),
            _ => {}
        }
        let [d, a] = exactly(operands)?;
        let (from, to_format) = (format(from)?, format(to)?);
        let saturates = match to_format {
            Format::Int { .. } => from.is_int(),
            Format::F32 | Format::F64 => !from.is_int(),
            _ => false,
        };
        if sat && !saturates {
            return Err("this conversion is not clamped".to_owned());
        }
        // A destination register may be wider than its type: the result is extended to it.
        let a = self.source(a, if from.is_wide() { Type::B64 } else { Type::B32 })?;
        let declared = self.declared(d).ok_or("the destination is no register")?;
        let widen = declared.bytes() > to.bytes();
        let d = self.dest(d, declared.class())?;
        if to_format.is_wide() && declared.class() != Class::Wide {
            return Err("the destination is too narrow".to_owned());
        }
        if widen && !to_format.is_int() {
            return Err("the destination is wider than its type".to_owned());
        }
        let round = direction.unwrap_or(CvtRound::Direct(Round::Nearest));
        let (dest_wide, dest_half) = (declared.class() == Class::Wide, declared.bytes() == 2);
        let conversion = Conversion { from, to: to_format, round, sat, ftz, relu, widen, dest_wide, dest_half };
        if let Some(op) = common(&conversion, d, a, declared) {
            return Ok(op);
        }
        let how = self.program.conversions.iter().position(|known| *known == conversion).unwrap_or_else(|| {
            self.program.conversions.push(conversion);
            self.program.conversions.len() - 1
        });
        Ok(Op::Convert { how: how as u16, d, a })
    }

    fn convert_address(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let from_generic = suffixes.take("to");
        let space = suffixes.take_map(Space::parse).ok_or("a state space is missing")?;
        let ty = suffixes.ty()?;
        if ty.class() != Class::Wide {
            return Err("only 64-bit addresses are supported".to_owned());
        }
        let [d, a] = exactly(operands)?;
        let d = self.dest(d, Class::Wide)?;
        let a = self.source(a, ty)?;
        Ok(match space {
            Space::Global | Space::Const | Space::Generic => Op::Mov64 { d, a },
            _ if from_generic => Op::FromGeneric { space, d, a },
            _ => Op::ToGeneric { space, d, a },
        })
    }
}

/// Conversions with an operation of their own, because kernels are full of them.
fn common(conversion: &Conversion, d: u16, a: u16, declared: Type) -> Option<Op> {
    if conversion.sat || conversion.relu {
        return None;
    }
    let int = |bits, signed| Format::Int { bits, signed };
    match (conversion.to, conversion.from) {
        (Format::Int { bits: 64, .. }, from) if from == int(32, true) => Some(Op::Widen { signed: true, d, a }),
        (Format::Int { bits: 64, .. }, from) if from == int(32, false) => Some(Op::Widen { signed: false, d, a }),
        (Format::Int { bits: 32, .. }, Format::Int { bits: 64, .. }) if declared.bytes() == 4 => {
            Some(Op::Truncate { d, a })
        }
        (Format::Tf32, Format::F32) if conversion.round == CvtRound::NearestAway => Some(Op::ToTf32 { d, a }),
        _ => None,
    }
}

fn cvt_round(suffix: &str) -> Option<CvtRound> {
    Some(match suffix {
        "rni" => CvtRound::Integral(Round::Nearest),
        "rzi" => CvtRound::Integral(Round::Zero),
        "rmi" => CvtRound::Integral(Round::Down),
        "rpi" => CvtRound::Integral(Round::Up),
        "rna" => CvtRound::NearestAway,
        _ => CvtRound::Direct(round(suffix)?),
    })
}

fn format(ty: Type) -> Outcome<Format> {
    Ok(match ty {
        Type::F16 => Format::F16,
        Type::Bf16 => Format::Bf16,
        Type::Tf32 => Format::Tf32,
        Type::F32 => Format::F32,
        Type::F64 => Format::F64,
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::S8 | Type::S16 | Type::S32 | Type::S64 => {
            Format::Int { bits: (8 * ty.bytes()) as u8, signed: ty.is_signed() }
        }
        _ => return Err("unsupported type".to_owned()),
    })
}

//! Floating-point arithmetic.

use super::operands::exactly;
use super::suffix::Suffixes;
use super::{Decoder, Outcome};
use crate::ptx::op::{Float, FloatUnary, Mode, Op, Round};
use crate::ptx::syntax::Operand;
use crate::ptx::types::{Class, Type};

impl Decoder<'_> {
    pub(super) fn float(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Option<Op>> {
        let op = match suffixes.stem() {
            "fma" | "mad" => self.fused(suffixes, operands)?,
            "add" | "sub" | "mul" | "div" | "min" | "max" | "copysign" => self.float_binary(suffixes, operands)?,
            "neg" | "abs" | "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => {
                self.float_unary(suffixes, operands)?
            }
            _ => return Ok(None),
        };
        Ok(Some(op))
    }

    fn fused(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let mode = suffixes.mode();
        let ty = suffixes.ty()?;
        let [d, a, b, c] = exactly(operands)?;
        let d = self.dest(d, ty.class())?;
        let (a, b, c) = (self.source(a, ty)?, self.source(b, ty)?, self.source(c, ty)?);
        match ty {
            Type::F32 => Ok(Op::Fma32 { mode, d, a, b, c }),
            Type::F64 if mode == Mode::PLAIN => Ok(Op::Fma64 { d, a, b, c }),
            _ => Err("unsupported type or rounding".to_owned()),
        }
    }

    fn float_binary(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let approximate = suffixes.take("approx") || suffixes.take("full");
        let nan = suffixes.take("NaN");
        let f = match (suffixes.stem(), nan) {
            ("add", false) => Float::Add,
            ("sub", false) => Float::Sub,
            ("mul", false) => Float::Mul,
            ("div", false) if approximate => Float::DivApprox,
            ("div", false) => Float::Div,
            ("min", false) => Float::Min,
            ("min", true) => Float::MinNan,
            ("max", false) => Float::Max,
            ("max", true) => Float::MaxNan,
            ("copysign", false) => Float::CopySign,
            _ => return Err("unsupported suffix .NaN".to_owned()),
        };
        let mode = suffixes.mode();
        if mode.round != Round::Nearest && !matches!(f, Float::Add | Float::Sub | Float::Mul) {
            return Err("unsupported rounding".to_owned());
        }
        let ty = suffixes.ty()?;
        let [d, a, b] = exactly(operands)?;
        let (d, a, b) = (self.dest(d, ty.class())?, self.source(a, ty)?, self.source(b, ty)?);
        match ty {
            // `copysign.f32 d, a, b` gives b with the sign of a.
            Type::F32 => Ok(Op::Float32 { f, mode, d, a, b }),
            Type::F64 if mode == Mode::PLAIN => Ok(Op::Float64 { f, d, a, b }),
            _ => Err("unsupported type or rounding".to_owned()),
        }
    }

    fn float_unary(&mut self, suffixes: &mut Suffixes<'_>, operands: &[Operand]) -> Outcome<Op> {
        let approximate = suffixes.take("approx");
        let f = match (suffixes.stem(), approximate) {
            ("neg", false) => FloatUnary::Neg,
            ("abs", false) => FloatUnary::Abs,
            ("rcp", true) => FloatUnary::RcpApprox,
            ("rcp", false) => FloatUnary::Rcp,
            ("sqrt", true) => FloatUnary::SqrtApprox,
            ("sqrt", false) => FloatUnary::Sqrt,
            ("rsqrt", true) => FloatUnary::RsqrtApprox,
            ("ex2", true) => FloatUnary::Ex2,
            ("lg2", true) => FloatUnary::Lg2,
            ("sin", true) => FloatUnary::Sin,
            ("cos", true) => FloatUnary::Cos,
            ("tanh", true) => FloatUnary::Tanh,
            (_, true) => return Err("unsupported suffix .approx".to_owned()),
            (_, false) => return Err(".approx is needed".to_owned()),
        };
        let mode = suffixes.mode();
        let ty = suffixes.ty()?;
        let [d, a] = exactly(operands)?;
        let d = self.dest(d, ty.class())?;
        let a = self.source(a, ty)?;
        let exact = matches!(f, FloatUnary::Neg | FloatUnary::Abs | FloatUnary::Rcp | FloatUnary::Sqrt);
        match ty {
            Type::F32 if mode.round == Round::Nearest => Ok(Op::FloatUnary32 { f, mode, d, a }),
            Type::F64 if mode == Mode::PLAIN && exact => Ok(Op::FloatUnary64 { f, d, a }),
            // The only approximate reciprocal of double precision.
            Type::F64 if f == FloatUnary::RcpApprox && mode == (Mode { ftz: true, ..Mode::PLAIN }) => {
                Ok(Op::FloatUnary64 { f, d, a })
            }
            _ => Err("unsupported type or rounding".to_owned()),
        }
    }

    /// `cvt` and `cvt.pack`-like conversions of a pair.
    pub(super) fn pair_conversion(
        &mut self,
        to: crate::ptx::op::MmaType,
        relu: bool,
        operands: &[Operand],
    ) -> Outcome<Op> {
        let [d, a, b] = exactly(operands)?;
        Ok(Op::ConvertPair {
            to,
            relu,
            d: self.dest(d, Class::Narrow)?,
            a: self.source(a, Type::F32)?,
            b: self.source(b, Type::F32)?,
        })
    }
}

//! Arithmetic on whole rows of registers.

use super::approx;
use super::convert::{convert, pair, to_tf32};
use super::registers::{LANES, Registers};
use super::scalar::{
    bfe, bfi, bits, finish, float32, float64, flush, fma32, int16, int32, int64, max32, min32, unary32, unary64,
};
use crate::ptx::op::{Cmp, CmpType, Float, FloatUnary, Int, Logic, MmaType, Mode, NONE, Op, Reg};
use crate::ptx::program::Program;

#[inline(always)]
fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

#[inline(always)]
fn d(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// Executes an instruction that only touches registers; false if it is not one.
#[inline(always)]
pub(super) fn execute(r: &mut Registers, m: u32, op: &Op, program: &Program, hardware_error: bool) -> bool {
    match *op {
        Op::Fma32 { mode: Mode::PLAIN, d, a, b, c } => {
            r.map3(m, d, [a, b, c], |a, b, c| f(a).mul_add(f(b), f(c)).to_bits());
        }
        Op::Float32 { f: function, mode: Mode::PLAIN, d, a, b } => float_row(r, m, function, d, a, b, hardware_error),
        Op::Int32 { f, d, a, b } => int_row(r, m, f, d, a, b),
        Op::Int64 { f, d, a, b } => wide_row(r, m, f, d, a, b),
        Op::Mov32 { d, a } => r.map1(m, d, a, |a| a),
        Op::Mov64 { d, a } => r.wide1(m, d, a, |a| a),
        Op::Mad32 { hi: false, d, a, b, c, .. } => {
            r.map3(m, d, [a, b, c], |a, b, c| a.wrapping_mul(b).wrapping_add(c));
        }
        Op::MadWide { signed, d, a, b, c } => mad_wide(r, m, signed, d, a, b, c),
        Op::Widen { signed: true, d, a } => r.widen2(m, d, a, a, |a, _| a as i32 as i64 as u64),
        Op::Widen { signed: false, d, a } => r.widen2(m, d, a, a, |a, _| u64::from(a)),
        Op::Truncate { d, a } => {
            let a = r.w(a);
            let mut row = [0; LANES];
            for (d, a) in row.iter_mut().zip(a) {
                *d = *a as u32;
            }
            r.put_n(m, d, row);
        }
        Op::Shift64 { f: Int::Shl, d, a, b } => {
            r.wide_narrow(m, d, a, b, |a, b| if b < 64 { a << b } else { 0 });
        }
        Op::Compare { cmp, ty, d, a, b } => {
            let bits = compare(r, cmp, ty, a, b, false);
            r.put_p(m, d, bits);
        }
        Op::Select32 { d, a, b, p } => {
            let p = r.p(p);
            let (a, b) = (r.n(a), r.n(b));
            let mut row = [0; LANES];
            for (lane, ((d, a), b)) in row.iter_mut().zip(a).zip(b).enumerate() {
                *d = if p >> lane & 1 != 0 { *a } else { *b };
            }
            r.put_n(m, d, row);
        }
        Op::ToTf32 { d, a } => r.map1(m, d, a, to_tf32),
        Op::FloatUnary32 { f, mode, d, a } => unary_row(r, m, f, mode, d, a, hardware_error),
        Op::LogicPred { f, d, a, b } => {
            let bits = logic(f, r.p(a), r.p(b));
            r.put_p(m, d, bits);
        }
        Op::NotPred { d, a } => {
            let bits = !r.p(a);
            r.put_p(m, d, bits);
        }
        Op::MovPred { d, a } => {
            let bits = r.p(a);
            r.put_p(m, d, bits);
        }
        _ => return rare(r, m, op, program),
    }
    true
}

/// The instructions that kernels seldom execute.
#[inline(never)]
fn rare(r: &mut Registers, m: u32, op: &Op, program: &Program) -> bool {
    match *op {
        Op::Int16 { f, signed, d, a, b } => r.map2(m, d, a, b, |a, b| int16(f, signed, a, b)),
        Op::Shift64 { f, d, a, b } => r.wide_narrow(m, d, a, b, |a, b| int64(f, a, u64::from(b))),
        Op::Unary32 { f, d, a } => r.map1(m, d, a, |a| unary32(f, a)),
        Op::Unary16 { f, d, a } => r.map1(m, d, a, |a| unary32(f, a as i16 as i32 as u32) & 0xffff),
        Op::Unary64 { f: function, d, a } => {
            use crate::ptx::op::IntUnary::{Clz, Find, Popc};
            if matches!(function, Clz | Popc | Find { .. }) {
                let row = r.w(a).map(|a| unary64(function, a) as u32);
                r.put_n(m, d, row);
            } else {
                r.wide1(m, d, a, |a| unary64(function, a));
            }
        }
        Op::Mad32 { signed, d, a, b, c, .. } => {
            let high = if signed { Int::MulHiS } else { Int::MulHiU };
            if c == NONE {
                r.map2(m, d, a, b, |a, b| int32(high, a, b));
            } else {
                r.map3(m, d, [a, b, c], |a, b, c| int32(high, a, b).wrapping_add(c));
            }
        }
        Op::Mad16 { d, a, b, c } => {
            r.map3(m, d, [a, b, c], |a, b, c| a.wrapping_mul(b).wrapping_add(c) & 0xffff);
        }
        Op::Mad64 { d, a, b, c } => {
            let (a, b, c) = (r.w(a), r.w(b), r.w(c));
            let row = std::array::from_fn(|lane| a[lane].wrapping_mul(b[lane]).wrapping_add(c[lane]));
            r.put_w(m, d, row);
        }
        Op::MulWide16 { signed: true, d, a, b } => {
            r.map2(m, d, a, b, |a, b| (i32::from(a as i16) * i32::from(b as i16)) as u32);
        }
        Op::MulWide16 { signed: false, d, a, b } => r.map2(m, d, a, b, |a, b| (a & 0xffff) * (b & 0xffff)),
        Op::AddCarry { subtract, read, write, d, a, b, carry } => {
            let old = if read { r.p(carry) } else { 0 };
            let (a, b) = (r.n(a), r.n(b));
            let (mut row, mut bits) = ([0; LANES], 0);
            for lane in 0..LANES {
                let carry = old >> lane & 1;
                let (first, second) = if subtract {
                    let (first, borrow) = a[lane].overflowing_sub(b[lane]);
                    let (second, more) = first.overflowing_sub(carry);
                    (second, borrow || more)
                } else {
                    let (first, over) = a[lane].overflowing_add(b[lane]);
                    let (second, more) = first.overflowing_add(carry);
                    (second, over || more)
                };
                row[lane] = first;
                bits |= u32::from(second) << lane;
            }
            r.put_n(m, d, row);
            if write {
                r.put_p(m, carry, bits);
            }
        }
        Op::Bits { f, d, a, b, c } => r.map3(m, d, [a, b, c], |a, b, c| bits(f, a, b, c)),
        Op::Bfe64 { signed, d, a, b, c } => {
            let (a, b, c) = (r.w(a), r.n(b), r.n(c));
            let row = std::array::from_fn(|lane| bfe(a[lane], b[lane], c[lane], 64, signed));
            r.put_w(m, d, row);
        }
        Op::Bfi32 { d, a, b, c, e } => {
            let (a, b, c, e) = (r.n(a), r.n(b), r.n(c), r.n(e));
            let row =
                std::array::from_fn(|lane| bfi(u64::from(a[lane]), u64::from(b[lane]), c[lane], e[lane], 32) as u32);
            r.put_n(m, d, row);
        }
        Op::Bfi64 { d, a, b, c, e } => {
            let (a, b, c, e) = (r.w(a), r.w(b), r.n(c), r.n(e));
            let row = std::array::from_fn(|lane| bfi(a[lane], b[lane], c[lane], e[lane], 64));
            r.put_w(m, d, row);
        }
        Op::Float32 { f: function, mode, d, a, b } => {
            r.map2(m, d, a, b, |a, b| float32(function, mode, f(a), f(b)).to_bits());
        }
        Op::Fma32 { mode, d, a, b, c } => {
            r.map3(m, d, [a, b, c], |a, b, c| fma32(mode, f(a), f(b), f(c)).to_bits());
        }
        Op::Float64 { f, d: dest, a, b } => r.wide2(m, dest, a, b, |a, b| float64(f, d(a), d(b)).to_bits()),
        Op::Fma64 { d: dest, a, b, c } => {
            let (a, b, c) = (r.w(a), r.w(b), r.w(c));
            let row = std::array::from_fn(|lane| d(a[lane]).mul_add(d(b[lane]), d(c[lane])).to_bits());
            r.put_w(m, dest, row);
        }
        Op::FloatUnary64 { f, d: dest, a } => r.wide1(m, dest, a, |a| match f {
            FloatUnary::Neg => (-d(a)).to_bits(),
            FloatUnary::Abs => d(a).abs().to_bits(),
            FloatUnary::Sqrt => d(a).sqrt().to_bits(),
            FloatUnary::RcpApprox => approx::reciprocal(a),
            _ => (1.0 / d(a)).to_bits(),
        }),
        Op::CompareMore { cmp, ty, d, a, b, more } => {
            let more = program.compares[usize::from(more)];
            let bits = compare(r, cmp, ty, a, b, more.ftz);
            let combine = |bits: u32| match more.combine {
                Some((f, p, negated)) => logic(f, bits, if negated { !r.p(p) } else { r.p(p) }),
                None => bits,
            };
            let (bits, complement) = (combine(bits), combine(!bits));
            r.put_p(m, d, bits);
            r.put_p(m, more.complement, complement);
        }
        Op::Select64 { d, a, b, p } => {
            let p = r.p(p);
            let (a, b) = (r.w(a), r.w(b));
            let row = std::array::from_fn(|lane| if p >> lane & 1 != 0 { a[lane] } else { b[lane] });
            r.put_w(m, d, row);
        }
        Op::Convert { how, d, a } => {
            let how = &program.conversions[usize::from(how)];
            let mut row = [0u64; LANES];
            for lane in 0..LANES {
                let bits = if how.from.is_wide() { r.w(a)[lane] } else { u64::from(r.n(a)[lane]) };
                row[lane] = convert(how, bits);
            }
            if how.to.is_wide() || how.dest_wide {
                r.put_w(m, d, row);
            } else {
                let mask = if how.dest_half { 0xffff } else { u32::MAX };
                r.put_n(m, d, row.map(|bits| bits as u32 & mask));
            }
        }
        Op::ConvertPair { to, relu, d, a, b } => {
            r.map2(m, d, a, b, |a, b| pair(to == MmaType::Bf16, relu, f(a), f(b)));
        }
        Op::Pack64 { d, a, b } => r.widen2(m, d, a, b, |a, b| u64::from(a) | u64::from(b) << 32),
        Op::Unpack64 { d, e, a } => {
            let row = *r.w(a);
            r.put_n(m, d, row.map(|a| a as u32));
            r.put_n(m, e, row.map(|a| (a >> 32) as u32));
        }
        Op::Pack32 { d, a, b } => r.map2(m, d, a, b, |a, b| a & 0xffff | b << 16),
        Op::Unpack32 { d, e, a } => {
            let row = *r.n(a);
            r.put_n(m, d, row.map(|a| a & 0xffff));
            r.put_n(m, e, row.map(|a| a >> 16));
        }
        Op::Pack16x4 { d, a } => {
            let row = std::array::from_fn(|lane| {
                (0..4).fold(0, |bits, part| bits | u64::from(r.n(a[part])[lane] & 0xffff) << (16 * part))
            });
            r.put_w(m, d, row);
        }
        Op::Unpack16x4 { d, a } => {
            let row = *r.w(a);
            for (part, d) in d.into_iter().enumerate() {
                r.put_n(m, d, row.map(|a| (a >> (16 * part)) as u32 & 0xffff));
            }
        }
        Op::FromGeneric { space, d, a } => r.wide1(m, d, a, |a| a.wrapping_sub(space.window())),
        Op::ToGeneric { space, d, a } => r.wide1(m, d, a, |a| a.wrapping_add(space.window())),
        _ => return false,
    }
    true
}

#[inline(always)]
fn int_row(r: &mut Registers, m: u32, f: Int, d: Reg, a: Reg, b: Reg) {
    match f {
        Int::Add => r.map2(m, d, a, b, u32::wrapping_add),
        Int::Sub => r.map2(m, d, a, b, u32::wrapping_sub),
        Int::MulLo => r.map2(m, d, a, b, u32::wrapping_mul),
        Int::And => r.map2(m, d, a, b, |a, b| a & b),
        Int::Or => r.map2(m, d, a, b, |a, b| a | b),
        Int::Xor => r.map2(m, d, a, b, |a, b| a ^ b),
        Int::Shl => r.map2(m, d, a, b, |a, b| int32(Int::Shl, a, b)),
        Int::ShrU => r.map2(m, d, a, b, |a, b| int32(Int::ShrU, a, b)),
        Int::ShrS => r.map2(m, d, a, b, |a, b| int32(Int::ShrS, a, b)),
        f => r.map2(m, d, a, b, |a, b| int32(f, a, b)),
    }
}

#[inline(always)]
fn wide_row(r: &mut Registers, m: u32, f: Int, d: Reg, a: Reg, b: Reg) {
    match f {
        Int::Add => r.wide2(m, d, a, b, u64::wrapping_add),
        Int::Sub => r.wide2(m, d, a, b, u64::wrapping_sub),
        Int::MulLo => r.wide2(m, d, a, b, u64::wrapping_mul),
        Int::And => r.wide2(m, d, a, b, |a, b| a & b),
        Int::Or => r.wide2(m, d, a, b, |a, b| a | b),
        f => r.wide2(m, d, a, b, |a, b| int64(f, a, b)),
    }
}

#[inline(always)]
fn mad_wide(r: &mut Registers, m: u32, signed: bool, d: Reg, a: Reg, b: Reg, c: Reg) {
    let (a, b) = (r.n(a), r.n(b));
    let mut row = [0u64; LANES];
    if signed {
        for ((d, a), b) in row.iter_mut().zip(a).zip(b) {
            *d = (i64::from(*a as i32) * i64::from(*b as i32)) as u64;
        }
    } else {
        for ((d, a), b) in row.iter_mut().zip(a).zip(b) {
            *d = u64::from(*a) * u64::from(*b);
        }
    }
    if c != NONE {
        for (d, c) in row.iter_mut().zip(r.w(c)) {
            *d = d.wrapping_add(*c);
        }
    }
    r.put_w(m, d, row);
}

#[inline(always)]
fn float_row(r: &mut Registers, m: u32, function: Float, d: Reg, a: Reg, b: Reg, hardware_error: bool) {
    match function {
        Float::Add => r.map2(m, d, a, b, |a, b| (f(a) + f(b)).to_bits()),
        Float::Sub => r.map2(m, d, a, b, |a, b| (f(a) - f(b)).to_bits()),
        Float::Mul => r.map2(m, d, a, b, |a, b| (f(a) * f(b)).to_bits()),
        Float::Max => r.map2(m, d, a, b, |a, b| max32(f(a), f(b)).to_bits()),
        Float::Min => r.map2(m, d, a, b, |a, b| min32(f(a), f(b)).to_bits()),
        Float::Div => r.map2(m, d, a, b, |a, b| (f(a) / f(b)).to_bits()),
        Float::DivApprox if hardware_error => {
            r.map2(m, d, a, b, |a, b| approx::disturb(f(a) + f(b), approx::divide(f(a), f(b)), 2, 0.0).to_bits());
        }
        function => r.map2(m, d, a, b, |a, b| float32(function, Mode::PLAIN, f(a), f(b)).to_bits()),
    }
}

#[inline(always)]
fn unary_row(r: &mut Registers, m: u32, function: FloatUnary, mode: Mode, d: Reg, a: Reg, hardware_error: bool) {
    if mode != Mode::PLAIN || hardware_error {
        return disturbed_row(r, m, function, mode, d, a, hardware_error);
    }
    match function {
        FloatUnary::Neg => r.map1(m, d, a, |a| a ^ 0x8000_0000),
        FloatUnary::Abs => r.map1(m, d, a, |a| a & 0x7fff_ffff),
        FloatUnary::Ex2 => r.map1(m, d, a, |a| approx::ex2(f(a)).to_bits()),
        FloatUnary::Lg2 => r.map1(m, d, a, |a| approx::lg2(f(a)).to_bits()),
        FloatUnary::Rcp | FloatUnary::RcpApprox => r.map1(m, d, a, |a| (1.0 / f(a)).to_bits()),
        function => r.map1(m, d, a, |a| unary_scalar(function, f(a)).to_bits()),
    }
}

#[inline(never)]
fn disturbed_row(r: &mut Registers, m: u32, function: FloatUnary, mode: Mode, d: Reg, a: Reg, hardware_error: bool) {
    // Largest errors, from the PTX ISA: ulps, and absolute.
    let (ulps, absolute) = match function {
        FloatUnary::Ex2 => (2, 0.0),
        FloatUnary::Lg2 => (1, 2f32.powi(-22)),
        FloatUnary::RcpApprox => (1, 0.0),
        FloatUnary::SqrtApprox | FloatUnary::RsqrtApprox => (2, 0.0),
        FloatUnary::Sin | FloatUnary::Cos => (1, 2f32.powf(-20.5)),
        FloatUnary::Tanh => (64, 0.0),
        _ => (0, 0.0),
    };
    r.map1(m, d, a, |a| {
        let x = if mode.ftz { flush(f(a)) } else { f(a) };
        let y = unary_scalar(function, x);
        let y = if hardware_error { approx::disturb(x, y, ulps, absolute) } else { y };
        finish(mode, y).to_bits()
    });
}

fn unary_scalar(function: FloatUnary, x: f32) -> f32 {
    match function {
        FloatUnary::Neg => -x,
        FloatUnary::Abs => x.abs(),
        FloatUnary::Rcp | FloatUnary::RcpApprox => 1.0 / x,
        FloatUnary::Sqrt | FloatUnary::SqrtApprox => x.sqrt(),
        FloatUnary::RsqrtApprox => approx::rsqrt(x),
        FloatUnary::Ex2 => approx::ex2(x),
        FloatUnary::Lg2 => approx::lg2(x),
        FloatUnary::Sin => approx::sin(x),
        FloatUnary::Cos => approx::cos(x),
        FloatUnary::Tanh => approx::tanh(x),
    }
}

#[inline(always)]
fn logic(f: Logic, a: u32, b: u32) -> u32 {
    match f {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

/// Applies a comparison as an expression in `a` and `b`.
macro_rules! ordered {
    ($cmp:expr, $test:expr) => {
        match $cmp {
            Cmp::Eq | Cmp::EqU => $test(|a, b| a == b),
            Cmp::Ne | Cmp::NeU => $test(|a, b| a != b),
            Cmp::Lt | Cmp::LtU => $test(|a, b| a < b),
            Cmp::Le | Cmp::LeU => $test(|a, b| a <= b),
            Cmp::Gt | Cmp::GtU => $test(|a, b| a > b),
            Cmp::Ge | Cmp::GeU => $test(|a, b| a >= b),
            Cmp::Num => u32::MAX,
            Cmp::Nan => 0,
        }
    };
}

#[inline(always)]
fn compare(r: &Registers, cmp: Cmp, ty: CmpType, a: Reg, b: Reg, ftz: bool) -> u32 {
    match ty {
        CmpType::U32 => ordered!(cmp, |test: fn(u32, u32) -> bool| r.test2(a, b, test)),
        CmpType::S32 => ordered!(cmp, |test: fn(i32, i32) -> bool| r.test2(a, b, |a, b| test(a as i32, b as i32))),
        CmpType::F32 => compare_float(r, cmp, a, b, ftz),
        CmpType::U64 => ordered!(cmp, |test: fn(u64, u64) -> bool| r.test2_wide(a, b, test)),
        CmpType::S64 => {
            ordered!(cmp, |test: fn(i64, i64) -> bool| r.test2_wide(a, b, |a, b| test(a as i64, b as i64)))
        }
        CmpType::U16 => {
            ordered!(cmp, |test: fn(u32, u32) -> bool| r.test2(a, b, |a, b| test(a & 0xffff, b & 0xffff)))
        }
        CmpType::S16 => ordered!(cmp, |test: fn(i16, i16) -> bool| r.test2(a, b, |a, b| test(a as i16, b as i16))),
        CmpType::F64 => r.test2_wide(a, b, |a, b| test_float(cmp, d(a), d(b))),
    }
}

#[inline(always)]
fn compare_float(r: &Registers, cmp: Cmp, a: Reg, b: Reg, ftz: bool) -> u32 {
    if ftz {
        return r.test2(a, b, |a, b| test_float(cmp, f64::from(flush(f(a))), f64::from(flush(f(b)))));
    }
    match cmp {
        Cmp::Eq => r.test2(a, b, |a, b| f(a) == f(b)),
        Cmp::Lt => r.test2(a, b, |a, b| f(a) < f(b)),
        Cmp::Gt => r.test2(a, b, |a, b| f(a) > f(b)),
        Cmp::Le => r.test2(a, b, |a, b| f(a) <= f(b)),
        Cmp::Ge => r.test2(a, b, |a, b| f(a) >= f(b)),
        cmp => r.test2(a, b, |a, b| test_float(cmp, f64::from(f(a)), f64::from(f(b)))),
    }
}

/// A comparison of numbers; the forms with U hold if an operand is NaN, the others do not.
fn test_float(cmp: Cmp, a: f64, b: f64) -> bool {
    let nan = a.is_nan() || b.is_nan();
    match cmp {
        Cmp::Eq => a == b,
        Cmp::Ne => !nan && a != b,
        Cmp::Lt => a < b,
        Cmp::Le => a <= b,
        Cmp::Gt => a > b,
        Cmp::Ge => a >= b,
        Cmp::EqU => nan || a == b,
        Cmp::NeU => a != b,
        Cmp::LtU => nan || a < b,
        Cmp::LeU => nan || a <= b,
        Cmp::GtU => nan || a > b,
        Cmp::GeU => nan || a >= b,
        Cmp::Num => !nan,
        Cmp::Nan => nan,
    }
}

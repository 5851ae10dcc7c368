//! What instructions do to one lane.

use crate::ptx::op::{Bits, Float, Int, IntUnary, Mode, Round};

/// `a f b` of 32 bits. Division by zero gives all ones, as hardware does.
#[inline(always)]
pub fn int32(f: Int, a: u32, b: u32) -> u32 {
    let (sa, sb) = (a as i32, b as i32);
    match f {
        Int::Add => a.wrapping_add(b),
        Int::Sub => a.wrapping_sub(b),
        Int::MulLo => a.wrapping_mul(b),
        Int::MulHiS => ((i64::from(sa) * i64::from(sb)) >> 32) as u32,
        Int::MulHiU => ((u64::from(a) * u64::from(b)) >> 32) as u32,
        Int::DivS => {
            if b == 0 {
                u32::MAX
            } else {
                sa.wrapping_div(sb) as u32
            }
        }
        Int::DivU => a.checked_div(b).unwrap_or(u32::MAX),
        Int::RemS => {
            if b == 0 {
                a
            } else {
                sa.wrapping_rem(sb) as u32
            }
        }
        Int::RemU => a.checked_rem(b).unwrap_or(a),
        Int::MinS => sa.min(sb) as u32,
        Int::MinU => a.min(b),
        Int::MaxS => sa.max(sb) as u32,
        Int::MaxU => a.max(b),
        Int::And => a & b,
        Int::Or => a | b,
        Int::Xor => a ^ b,
        Int::Shl => {
            if b < 32 {
                a << b
            } else {
                0
            }
        }
        Int::ShrU => {
            if b < 32 {
                a >> b
            } else {
                0
            }
        }
        Int::ShrS => (sa >> b.min(31)) as u32,
    }
}

/// `a f b` of 64 bits.
#[inline(always)]
pub fn int64(f: Int, a: u64, b: u64) -> u64 {
    let (sa, sb) = (a as i64, b as i64);
    match f {
        Int::Add => a.wrapping_add(b),
        Int::Sub => a.wrapping_sub(b),
        Int::MulLo => a.wrapping_mul(b),
        Int::MulHiS => ((i128::from(sa) * i128::from(sb)) >> 64) as u64,
        Int::MulHiU => ((u128::from(a) * u128::from(b)) >> 64) as u64,
        Int::DivS => {
            if b == 0 {
                u64::MAX
            } else {
                sa.wrapping_div(sb) as u64
            }
        }
        Int::DivU => a.checked_div(b).unwrap_or(u64::MAX),
        Int::RemS => {
            if b == 0 {
                a
            } else {
                sa.wrapping_rem(sb) as u64
            }
        }
        Int::RemU => a.checked_rem(b).unwrap_or(a),
        Int::MinS => sa.min(sb) as u64,
        Int::MinU => a.min(b),
        Int::MaxS => sa.max(sb) as u64,
        Int::MaxU => a.max(b),
        Int::And => a & b,
        Int::Or => a | b,
        Int::Xor => a ^ b,
        Int::Shl => {
            if b < 64 {
                a << b
            } else {
                0
            }
        }
        Int::ShrU => {
            if b < 64 {
                a >> b
            } else {
                0
            }
        }
        Int::ShrS => (sa >> b.min(63)) as u64,
    }
}

/// A 16-bit operation in zero-extended registers.
pub fn int16(f: Int, signed: bool, a: u32, b: u32) -> u32 {
    let extend = |value: u32| if signed { value as i16 as i32 as u32 } else { value & 0xffff };
    // A shift distance is a plain number, not a 16-bit one.
    let b = if matches!(f, Int::Shl | Int::ShrS | Int::ShrU) { b } else { extend(b) };
    int32(f, extend(a), b) & 0xffff
}

/// `f a` of 32 bits.
#[inline(always)]
pub fn unary32(f: IntUnary, a: u32) -> u32 {
    match f {
        IntUnary::Not => !a,
        IntUnary::Cnot => u32::from(a == 0),
        IntUnary::Neg => a.wrapping_neg(),
        IntUnary::Abs => (a as i32).wrapping_abs() as u32,
        IntUnary::Brev => a.reverse_bits(),
        IntUnary::Popc => a.count_ones(),
        IntUnary::Clz => a.leading_zeros(),
        IntUnary::Find { signed, shift } => find(if signed && (a as i32) < 0 { !a } else { a }.into(), 32, shift),
    }
}

/// The place of the highest one of a number of `bits` bits, or how far it is from the top; all ones where there is none.
fn find(a: u64, bits: u32, shift: bool) -> u32 {
    let place = 63 - (a | 1).leading_zeros();
    match a {
        0 => u32::MAX,
        _ if shift => bits - 1 - place,
        _ => place,
    }
}

/// `f a` of 64 bits.
pub fn unary64(f: IntUnary, a: u64) -> u64 {
    match f {
        IntUnary::Not => !a,
        IntUnary::Cnot => u64::from(a == 0),
        IntUnary::Neg => a.wrapping_neg(),
        IntUnary::Abs => (a as i64).wrapping_abs() as u64,
        IntUnary::Brev => a.reverse_bits(),
        IntUnary::Popc => u64::from(a.count_ones()),
        IntUnary::Clz => u64::from(a.leading_zeros()),
        IntUnary::Find { signed, shift } => find(if signed && (a as i64) < 0 { !a } else { a }, 64, shift).into(),
    }
}

/// Operations of three 32-bit operands.
pub fn bits(f: Bits, a: u32, b: u32, c: u32) -> u32 {
    match f {
        Bits::BfeU => bfe(u64::from(a), b, c, 32, false) as u32,
        Bits::BfeS => bfe(a as i32 as i64 as u64, b, c, 32, true) as u32,
        Bits::Prmt => prmt(a, b, c),
        // The funnel is b:a, a in the low half.
        Bits::ShfL { wrap } => {
            let n = if wrap { c & 31 } else { c.min(32) };
            ((((u64::from(b) << 32) | u64::from(a)) << n) >> 32) as u32
        }
        Bits::ShfR { wrap } => {
            let n = if wrap { c & 31 } else { c.min(32) };
            (((u64::from(b) << 32) | u64::from(a)) >> n) as u32
        }
        Bits::Lop3 { table } => (0..8).filter(|row| table >> row & 1 != 0).fold(0, |result, row| {
            let pick = |value: u32, bit: u32| if row >> bit & 1 != 0 { value } else { !value };
            result | pick(a, 2) & pick(b, 1) & pick(c, 0)
        }),
        Bits::SadS => c.wrapping_add((a as i32).abs_diff(b as i32)),
        Bits::SadU => c.wrapping_add(a.abs_diff(b)),
    }
}

/// `bfe`: `length` bits of `a` from `position`, extended by the sign bit of the field.
pub fn bfe(a: u64, position: u32, length: u32, width: u32, signed: bool) -> u64 {
    let (position, length) = (position & 255, length & 255);
    if length == 0 {
        return 0;
    }
    let bit = |index: u32| a >> index.min(width - 1) & 1;
    let sign = if signed { bit((position + length - 1).min(width - 1)) } else { 0 };
    let kept = length.min(width.saturating_sub(position)).min(64);
    let field = if kept == 0 { 0 } else { (a >> position) & (u64::MAX >> (64 - kept)) };
    let fill = if kept >= 64 { 0 } else { u64::MAX << kept };
    if sign != 0 { field | fill } else { field }
}

/// `bfi`: the low `length` bits of `a` into `b` at `position`.
pub fn bfi(a: u64, b: u64, position: u32, length: u32, width: u32) -> u64 {
    let (position, length) = (position & 255, (length & 255).min(width));
    if position >= width || length == 0 {
        return b;
    }
    let mask = (u64::MAX >> (64 - length)) << position;
    b & !mask | (a << position) & mask
}

/// `prmt` in its default mode.
pub fn prmt(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    (0..4).fold(0, |result, place| {
        let choice = selector >> (4 * place) & 0xf;
        let byte = (bytes >> (8 * (choice & 7))) as u8;
        let byte = if choice & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        result | u32::from(byte) << (8 * place)
    })
}

/// The smaller; a NaN gives way to a number, and -0 is less than 0.
#[inline(always)]
pub fn min32(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a < b {
        a
    } else if a > b {
        b
    } else {
        f32::from_bits(a.to_bits() | b.to_bits())
    }
}

/// The larger; a NaN gives way to a number, and 0 is more than -0.
#[inline(always)]
pub fn max32(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a > b {
        a
    } else if a < b {
        b
    } else {
        f32::from_bits(a.to_bits() & b.to_bits())
    }
}

/// Subnormals become zero of their sign.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// Applies a mode's clamp and flush to a result.
pub fn finish(mode: Mode, x: f32) -> f32 {
    let x = if mode.ftz { flush(x) } else { x };
    match mode.sat {
        true if x > 1.0 => 1.0,
        true if x > 0.0 => x,
        true => 0.0,
        false => x,
    }
}

/// `a f b` in a mode other than the plain one.
pub fn float32(f: Float, mode: Mode, a: f32, b: f32) -> f32 {
    let (a, b) = if mode.ftz { (flush(a), flush(b)) } else { (a, b) };
    let (wide_a, wide_b) = (f64::from(a), f64::from(b));
    let result = match f {
        Float::Add => round_sum(wide_a, wide_b, mode.round),
        Float::Sub => round_sum(wide_a, -wide_b, mode.round),
        // A product of two singles is exact in double precision.
        Float::Mul => round_sum(wide_a * wide_b, -0.0, mode.round),
        Float::Div => a / b,
        Float::DivApprox => super::approx::divide(a, b),
        Float::Min => min32(a, b),
        Float::Max => max32(a, b),
        Float::MinNan if a.is_nan() || b.is_nan() => f32::NAN,
        Float::MaxNan if a.is_nan() || b.is_nan() => f32::NAN,
        Float::MinNan => min32(a, b),
        Float::MaxNan => max32(a, b),
        Float::CopySign => b.copysign(a),
    };
    finish(mode, result)
}

/// `a * b + c` in a mode other than the plain one.
pub fn fma32(mode: Mode, a: f32, b: f32, c: f32) -> f32 {
    let [a, b, c] = if mode.ftz { [flush(a), flush(b), flush(c)] } else { [a, b, c] };
    let result = match mode.round {
        Round::Nearest => a.mul_add(b, c),
        round => round_sum(f64::from(a) * f64::from(b), f64::from(c), round),
    };
    finish(mode, result)
}

/// `a + b` rounded once to single precision in a direction.
fn round_sum(a: f64, b: f64, round: Round) -> f32 {
    let sum = a + b;
    if round == Round::Nearest {
        // Double rounding is harmless for a sum or product of two singles (53 ≥ 2 · 24 + 2).
        return sum as f32;
    }
    if sum == 0.0 && a == -b && round == Round::Down && a != 0.0 {
        return -0.0;
    }
    // What the double-precision sum lost (Knuth's TwoSum).
    let b_part = sum - a;
    let lost = (a - (sum - b_part)) + (b - b_part);
    round_to_single(sum, if lost.is_finite() { lost } else { 0.0 }, round)
}

/// `value + lost` rounded to single precision, `lost` being less than half a unit of `value`.
pub fn round_to_single(value: f64, lost: f64, round: Round) -> f32 {
    let nearest = value as f32;
    if round == Round::Nearest || !value.is_finite() {
        return nearest;
    }
    let wide = f64::from(nearest);
    let above = wide > value || wide == value && lost < 0.0;
    let below = wide < value || wide == value && lost > 0.0;
    let want_down = round == Round::Down || round == Round::Zero && value > 0.0;
    let want_up = round == Round::Up || round == Round::Zero && value < 0.0;
    if above && want_down {
        nearest.next_down()
    } else if below && want_up {
        nearest.next_up()
    } else {
        nearest
    }
}

/// `a f b` in double precision.
#[inline(always)]
pub fn float64(f: Float, a: f64, b: f64) -> f64 {
    match f {
        Float::Add => a + b,
        Float::Sub => a - b,
        Float::Mul => a * b,
        Float::Div | Float::DivApprox => a / b,
        Float::Min | Float::MinNan => a.min(b),
        Float::Max | Float::MaxNan => a.max(b),
        Float::CopySign => b.copysign(a),
    }
}

#[cfg(test)]
mod tests;

//! `cvt`: conversions between number formats.

use super::scalar::{finish, flush, round_to_single};
use crate::ptx::op::{Conversion, CvtRound, Format, Mode, Round};

/// Converts the low bits of a register.
pub fn convert(how: &Conversion, bits: u64) -> u64 {
    match (how.from, how.to) {
        (Format::Int { bits: width, signed }, Format::Int { .. }) => fit(extend(bits, width, signed), how),
        (Format::Int { bits: width, signed }, to) => {
            let value = extend(bits, width, signed);
            let direction = direction(how);
            match to {
                Format::F64 => (value as f64).to_bits(),
                // Up to 64 bits do not fit a double; the single is rounded from the integer itself.
                Format::F32 => u64::from(int_to_single(value, direction).to_bits()),
                to => narrow(int_to_single(value, direction), to, how),
            }
        }
        (from, Format::Int { .. }) => float_to_int(widen(from, bits, how.ftz), how),
        (from, Format::F64) => saturated(integral(widen(from, bits, how.ftz), how), how.sat).to_bits(),
        (from, to) => {
            let value = integral(widen(from, bits, how.ftz), how);
            narrow_from_double(value, to, how)
        }
    }
}

/// Two singles as 16-bit numbers, `a` in the upper half.
pub fn pair(bf16: bool, relu: bool, a: f32, b: f32) -> u32 {
    let half = |x: f32| {
        let x = if relu && (x < 0.0 || x.is_nan()) { 0.0 } else { x };
        u32::from(if bf16 { to_bf16(x) } else { to_f16(f64::from(x)) })
    };
    half(a) << 16 | half(b)
}

/// To tf32, ties away from zero: the low 13 bits go.
#[inline(always)]
pub fn to_tf32(bits: u32) -> u32 {
    let special = bits & 0x7f80_0000 == 0x7f80_0000;
    let rounded = if special { bits } else { bits.wrapping_add(0x1000) };
    rounded & 0xffff_e000
}

/// To the nearest bf16, ties to even.
pub fn to_bf16(x: f32) -> u16 {
    if x.is_nan() {
        return 0x7fff;
    }
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// To the nearest half, ties to even.
pub fn to_f16(x: f64) -> u16 {
    let sign = ((x.to_bits() >> 48) & 0x8000) as u16;
    let magnitude = x.abs();
    if x.is_nan() {
        return 0x7fff;
    }
    // The unit in the last place: 2^-24 for subnormals, else 2^(e - 10).
    let exponent = ((magnitude.to_bits() >> 52) as i32 - 1023).max(-14);
    let unit = f64::from_bits(((exponent - 10 + 1023) as u64) << 52);
    let units = (magnitude / unit).round_ties_even();
    if units * unit >= 65536.0 || magnitude.is_infinite() {
        return sign | 0x7c00;
    }
    // `units` carries the implicit bit; adding it to the exponent field takes a carry along.
    sign | ((((exponent + 14) as u32) << 10) + units as u32) as u16
}

/// A half as a double.
pub fn from_f16(bits: u16) -> f64 {
    let exponent = i32::from(bits >> 10 & 0x1f);
    let mantissa = f64::from(bits & 0x3ff);
    let magnitude = match exponent {
        0x1f if mantissa == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        0 => mantissa * 2f64.powi(-24),
        _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 != 0 { -magnitude } else { magnitude }
}

fn direction(how: &Conversion) -> Round {
    match how.round {
        CvtRound::Direct(round) | CvtRound::Integral(round) => round,
        CvtRound::NearestAway => Round::Nearest,
    }
}

fn extend(bits: u64, width: u8, signed: bool) -> i128 {
    let shift = 64 - u32::from(width);
    if signed { i128::from((bits << shift) as i64 >> shift) } else { i128::from(bits << shift >> shift) }
}

/// An integer in the destination's width, clamped if asked for, extended if the register is wider.
fn fit(value: i128, how: &Conversion) -> u64 {
    let Format::Int { bits, signed } = how.to else { return 0 };
    let (low, high) = range(bits, signed);
    let value = if how.sat { value.clamp(low, high) } else { value };
    let cut = extend(value as u64, bits, signed);
    let cut = cut as u64;
    if how.widen && signed { cut } else { cut & (u64::MAX >> (64 - u32::from(bits))) }
}

fn range(bits: u8, signed: bool) -> (i128, i128) {
    if signed { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) }
}

fn int_to_single(value: i128, round: Round) -> f32 {
    // A 64-bit integer splits exactly into two doubles.
    let high = (value >> 32 << 32) as f64;
    let low = (value & 0xffff_ffff) as f64;
    let sum = high + low;
    if round == Round::Nearest {
        return value as f32;
    }
    round_to_single(sum, low - (sum - high), round)
}

fn widen(from: Format, bits: u64, ftz: bool) -> f64 {
    match from {
        Format::F64 => f64::from_bits(bits),
        Format::F16 => from_f16(bits as u16),
        Format::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
        _ => {
            let x = f32::from_bits(bits as u32);
            f64::from(if ftz { flush(x) } else { x })
        }
    }
}

fn round_integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
    }
}

fn integral(x: f64, how: &Conversion) -> f64 {
    match how.round {
        CvtRound::Integral(round) => round_integral(x, round),
        _ => x,
    }
}

/// Between 0 and 1 if asked for; NaN gives zero.
fn saturated(x: f64, sat: bool) -> f64 {
    match sat {
        true if x > 1.0 => 1.0,
        true if x > 0.0 => x,
        true => 0.0,
        false => x,
    }
}

/// Floating point to integer always clamps; NaN gives zero.
fn float_to_int(x: f64, how: &Conversion) -> u64 {
    let Format::Int { bits, signed } = how.to else { return 0 };
    let (low, high) = range(bits, signed);
    let x = round_integral(x, direction(how));
    let value = (x as i128).clamp(low, high);
    fit(value, how)
}

fn narrow(x: f32, to: Format, how: &Conversion) -> u64 {
    narrow_from_double(f64::from(x), to, how)
}

fn narrow_from_double(x: f64, to: Format, how: &Conversion) -> u64 {
    let x = if how.relu && (x < 0.0 || x.is_nan()) { 0.0 } else { x };
    match to {
        Format::F16 => u64::from(to_f16(x)),
        Format::Bf16 => u64::from(to_bf16(x as f32)),
        Format::Tf32 => u64::from(to_tf32((x as f32).to_bits())),
        _ => {
            let single = round_to_single(x, 0.0, direction(how));
            let mode = Mode { ftz: how.ftz, sat: how.sat, round: Round::Nearest };
            u64::from(finish(mode, single).to_bits())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_to_even_and_come_back() {
        for bits in 0..=0x7c00u16 {
            assert_eq!(to_f16(from_f16(bits)), bits);
            assert_eq!(to_f16(from_f16(bits | 0x8000)), bits | 0x8000);
        }
        assert_eq!(to_f16(1.0 + 2f64.powi(-11)), 0x3c00);
        assert_eq!(to_f16(1.0 + 3.0 * 2f64.powi(-11)), 0x3c02);
        assert_eq!(to_f16(65519.0), 0x7bff);
        assert_eq!(to_f16(65520.0), 0x7c00);
        assert_eq!(to_f16(2f64.powi(-25)), 0);
        assert_eq!(to_f16(3.0 * 2f64.powi(-25)), 2);
        assert!(from_f16(0x7e00).is_nan());
    }

    #[test]
    fn bf16_and_tf32() {
        assert_eq!(to_bf16(1.0), 0x3f80);
        assert_eq!(to_bf16(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(to_bf16(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(to_bf16(f32::NAN), 0x7fff);
        assert_eq!(to_tf32(0x3f80_1000), 0x3f80_2000);
        assert_eq!(to_tf32(0x3f80_0fff), 0x3f80_0000);
        assert_eq!(to_tf32(f32::INFINITY.to_bits()), f32::INFINITY.to_bits());
        assert_eq!(pair(true, false, 1.0, -2.0), 0x3f80_c000);
        assert_eq!(pair(false, true, 1.0, -2.0), 0x3c00_0000);
    }
}

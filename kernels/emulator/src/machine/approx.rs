//! The approximate functions of the special function unit.
//!
//! Hardware gives `ex2.approx` to 2 ulp, `lg2.approx` to an absolute error of 2⁻²² (2 ulp outside [0.5, 2]),
//! `rcp.approx` to 1 ulp, `rsqrt.approx` to 2⁻²²·⁹ relative, `sin` and `cos` to 2⁻²⁰·⁵ absolute (PTX ISA, "Floating Point
//! Instructions"). Here each is computed in double precision and rounded once, and then, if asked for, moved by an error
//! of that size: [`disturb`].
//!
//! The polynomials are minimax-like truncations good to 10⁻¹²; branches are kept out so that the loops over lanes
//! become vector code.

/// 2^x.
#[inline(always)]
pub fn ex2(x: f32) -> f32 {
    let x = f64::from(x);
    // Beyond, the result is 0 or infinity in single precision; NaN stays.
    let clamped = x.clamp(-200.0, 200.0);
    // Adding and subtracting 1.5 · 2^52 rounds to an integer, whose bits are the low bits of the sum.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let shifted = clamped + MAGIC;
    let whole = shifted - MAGIC;
    let t = (clamped - whole) * std::f64::consts::LN_2;
    // exp(t), |t| ≤ ln 2 / 2: the Taylor series to t^10 leaves 3e-13.
    let mut p = 1.0 / 3_628_800.0;
    for c in
        [1.0 / 362_880.0, 1.0 / 40_320.0, 1.0 / 5_040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0]
    {
        p = p * t + c;
    }
    let scale = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    (p * scale) as f32
}

/// log2(x).
#[inline(always)]
pub fn lg2(x: f32) -> f32 {
    let wide = f64::from(x);
    // Split into m · 2^e with m in [√½, √2): subtract the bits of √½, whose exponent field is that of 2^-1.
    const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let offset = wide.to_bits().wrapping_sub(ROOT_HALF);
    let exponent = (offset as i64 >> 52) as i32;
    let m = f64::from_bits(wide.to_bits().wrapping_sub((exponent as i64 as u64) << 52));
    // log2(m) = 2 atanh(s) / ln 2 with s = (m - 1) / (m + 1), |s| ≤ 0.1716: to s^15 leaves 1e-13.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 1.0 / 15.0;
    for c in [1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 0.2, 1.0 / 3.0, 1.0] {
        p = p * z + c;
    }
    let finite = (f64::from(exponent) + s * p * (2.0 * std::f64::consts::LOG2_E)) as f32;
    if x > 0.0 && x < f32::INFINITY {
        finite
    } else if x == 0.0 {
        f32::NEG_INFINITY
    } else if x == f32::INFINITY {
        f32::INFINITY
    } else {
        f32::NAN
    }
}

/// 1 / √x.
#[inline(always)]
pub fn rsqrt(x: f32) -> f32 {
    (1.0 / f64::from(x).sqrt()) as f32
}

/// 1 / x of the bits of doubles, as `rcp.approx.ftz.f64`: of the upper halves alone, to 20 bits of mantissa.
pub fn reciprocal(x: u64) -> u64 {
    const UPPER: u64 = 0xffff_ffff_0000_0000;
    let flush = |x: f64| if x.is_subnormal() { 0.0f64.copysign(x) } else { x };
    let exact = 1.0 / flush(f64::from_bits(x & UPPER));
    if exact.is_nan() {
        return f64::NAN.to_bits() & UPPER;
    }
    // To the nearest, which may carry into the exponent; infinities have nothing below to carry.
    flush(f64::from_bits(exact.to_bits().wrapping_add(0x8000_0000) & UPPER)).to_bits()
}

/// x / y as `div.approx`: zero where |y| is above 2^126.
#[inline(always)]
pub fn divide(x: f32, y: f32) -> f32 {
    if y.abs() > 8.507_059e37 && y.is_finite() && x.is_finite() { 0.0 * x * y.signum() } else { x / y }
}

/// sin(x).
pub fn sin(x: f32) -> f32 {
    f64::from(x).sin() as f32
}

/// cos(x).
pub fn cos(x: f32) -> f32 {
    f64::from(x).cos() as f32
}

/// tanh(x).
pub fn tanh(x: f32) -> f32 {
    f64::from(x).tanh() as f32
}

/// Moves a result by an error that hardware may have: a fixed function of the argument's bits, so that runs repeat.
///
/// `ulps` is the largest error in units in the last place, `absolute` a largest absolute error that counts where it is
/// larger. Zeros, infinities and NaN stay; they are exact on hardware.
pub fn disturb(argument: f32, result: f32, ulps: u32, absolute: f32) -> f32 {
    if result == 0.0 || !result.is_finite() || (argument == 0.0 && result == 1.0) {
        return result;
    }
    // A multiplicative hash; its upper bits choose among -2 ..= 2 halves of the largest error.
    let hash = argument.to_bits().wrapping_mul(0x9e37_79b1) >> 16;
    let step = (hash % 5) as i32 - 2;
    let by_ulps = (ulps * step.unsigned_abs() / 2) as i32 * step.signum();
    // Neither past zero nor to infinity.
    let magnitude = result.abs().to_bits().saturating_add_signed(by_ulps).min(f32::MAX.to_bits());
    let moved = f32::from_bits(magnitude).copysign(result);
    let shifted = result + absolute * step as f32 / 2.0;
    if (shifted - result).abs() > (moved - result).abs() { shifted } else { moved }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_and_logarithms_are_correctly_rounded_almost_everywhere() {
        let (mut wrong, mut count) = (0, 0);
        for i in 0..400_000 {
            let x = -160.0 + 300.0 * i as f32 / 400_000.0;
            let exact = f64::from(x).exp2() as f32;
            wrong += u32::from(ex2(x) != exact);
            assert!((i64::from(ex2(x).to_bits()) - i64::from(exact.to_bits())).abs() <= 1, "2^{x}");
            let y = exact * 1.37;
            if y > 0.0 && y.is_finite() {
                let exact = f64::from(y).log2() as f32;
                wrong += u32::from(lg2(y) != exact);
                assert!((lg2(y) - exact).abs() <= exact.abs() * 6e-8, "log2({y})");
            }
            count += 1;
        }
        assert!(wrong * 1000 < count, "{wrong} of {count}");
    }

    #[test]
    fn special_values() {
        assert_eq!(ex2(f32::NEG_INFINITY), 0.0);
        assert_eq!(ex2(f32::INFINITY), f32::INFINITY);
        assert_eq!(ex2(-0.0), 1.0);
        assert_eq!(ex2(10.0), 1024.0);
        assert_eq!(ex2(-149.0), f32::from_bits(1));
        assert!(ex2(f32::NAN).is_nan());
        assert_eq!(lg2(0.0), f32::NEG_INFINITY);
        assert_eq!(lg2(-0.0), f32::NEG_INFINITY);
        assert_eq!(lg2(1.0), 0.0);
        assert_eq!(lg2(f32::from_bits(1)), -149.0);
        assert_eq!(lg2(f32::INFINITY), f32::INFINITY);
        assert!(lg2(-1.0).is_nan() && lg2(f32::NAN).is_nan());
        assert_eq!(divide(3.0, 1e38), 0.0);
        let reciprocal = |x: f64| f64::from_bits(reciprocal(x.to_bits()));
        assert_eq!(reciprocal(0.0), f64::INFINITY);
        assert_eq!(reciprocal(-f64::from_bits(1)), f64::NEG_INFINITY);
        assert_eq!(reciprocal(f64::NEG_INFINITY).to_bits(), (-0.0f64).to_bits());
        assert_eq!(reciprocal(f64::MAX), 0.0);
        assert_eq!(reciprocal(-0.25), -4.0);
        assert!(reciprocal(f64::NAN).is_nan());
    }

    #[test]
    fn disturbances_stay_within_the_documented_error() {
        let mut moved = 0;
        for i in 1..10_000 {
            let x = i as f32 * 0.01 - 50.0;
            let y = disturb(x, ex2(x), 2, 0.0);
            let ulps = (i64::from(y.to_bits()) - i64::from(ex2(x).to_bits())).abs();
            assert!(ulps <= 2);
            moved += u32::from(ulps != 0);
        }
        assert!(moved > 5_000);
        assert_eq!(disturb(-1.0e9, 0.0, 2, 0.0), 0.0);
        assert!((0..100).all(|i| disturb(i as f32, f32::from_bits(1), 2, 0.0) < 1e-40));
    }
}

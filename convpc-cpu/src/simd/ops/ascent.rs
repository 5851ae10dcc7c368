//! The arithmetic of Adam on one distribution, in float64. Plain loops: the compiler makes vectors of them, as wide as the
//! instruction set that they are compiled for.

use std::f64::consts::LOG2_E;

use crate::simd::{Kernel, Lanes};

/// The running means of a gradient and of its square, `m = β₁ m + (1 − β₁) g` and `v = β₂ v + (1 − β₂) g²`, and in the
/// gradient's place the step `size · (m / bias₁) / (√(v / bias₂) + ε)`.
pub struct Moments<'a> {
    /// The gradient, then the step.
    pub g: &'a mut [f64],
    /// As many values.
    pub first: &'a mut [f64],
    /// As many values.
    pub second: &'a mut [f64],
    /// Of the two means.
    pub beta: [f64; 2],
    /// Of the two means.
    pub bias: [f64; 2],
    /// Added to the root.
    pub epsilon: f64,
    /// The step size.
    pub size: f64,
}

impl Kernel for Moments<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { g, first, second, beta: [beta1, beta2], bias: [bias1, bias2], epsilon, size } = self;
        for ((g, m), v) in g.iter_mut().zip(first).zip(second) {
            *m = beta1 * *m + (1.0 - beta1) * *g;
            *v = beta2 * *v + (1.0 - beta2) * *g * *g;
            *g = size * (*m / bias1) / ((*v / bias2).sqrt() + epsilon);
        }
    }
}

/// `w = w exp(by) / Σ w exp(by)`, the softmax of `log w + by`: a weight of zero stays, none becomes less than `least`.
pub struct ShiftLogits<'a> {
    /// Weights of a distribution.
    pub w: &'a mut [f64],
    /// As many values.
    pub by: &'a [f64],
    /// What learning leaves at least.
    pub least: f64,
}

/// Values that are compared or added side by side.
const SIDE_BY_SIDE: usize = 8;

impl Kernel for ShiftLogits<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { w, by, least } = self;
        let mut largest = [f64::NEG_INFINITY; SIDE_BY_SIDE];
        for (w, by) in w.chunks(SIDE_BY_SIDE).zip(by.chunks(SIDE_BY_SIDE)) {
            for ((largest, w), by) in largest.iter_mut().zip(w).zip(by) {
                *largest = if *w > 0.0 && *by > *largest { *by } else { *largest };
            }
        }
        let largest = largest.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let mut sums = [0.0; SIDE_BY_SIDE];
        for (w, by) in w.chunks_mut(SIDE_BY_SIDE).zip(by.chunks(SIDE_BY_SIDE)) {
            for ((sum, w), by) in sums.iter_mut().zip(w).zip(by) {
                let share = *w * exp(*by - largest);
                let possible = *w > 0.0;
                *sum += if possible { share } else { 0.0 };
                *w = if possible { share.max(f64::MIN_POSITIVE) } else { 0.0 };
            }
        }
        let sum: f64 = sums.iter().sum();
        for w in w.iter_mut() {
            let share = (*w / sum).max(least);
            *w = if *w > 0.0 { share } else { 0.0 };
        }
    }
}

/// 1.5 · 2^52: the bits of a sum with it end with the other summand, rounded to a whole number.
const SHIFTER: f64 = 6_755_399_441_055_744.0;

/// ln 2 in two parts, the first with so few bits that its product with an exponent is exact.
const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// The least value whose exponential is a normal number.
const EXP_MIN: f64 = -708.0;

/// `exp(x)` for x <= 0, to a few units of the last place; that of [`EXP_MIN`] below it.
#[inline(always)]
fn exp(x: f64) -> f64 {
    // A NaN stays one.
    let x = if x < EXP_MIN { EXP_MIN } else { x };
    let shifted = x * LOG2_E + SHIFTER;
    let n = shifted - SHIFTER;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    // Taylor's series to r^13 for |r| <= ln 2 / 2: the rest is below 1e-17.
    let mut y = 1.0 / 6_227_020_800.0;
    let mut factorial = 6_227_020_800.0;
    let mut k = 13.0;
    for _ in 0..13 {
        factorial /= k;
        k -= 1.0;
        y = y * r + 1.0 / factorial;
    }
    y * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{InstructionSet, Isa};

    #[test]
    fn exponentials_are_those_of_the_library() {
        for i in 0..100_000 {
            let x = -708.0 * f64::from(i) / 99_999.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 2e-15, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f64::NAN).is_nan());
        assert!(exp(f64::NEG_INFINITY) > 0.0 && exp(f64::NEG_INFINITY) < 1e-300);
    }

    #[test]
    fn shifted_logits_are_a_softmax() {
        for isa in InstructionSet::available().into_iter().filter_map(Isa::new) {
            for n in [1, 2, 7, 8, 9, 50] {
                let w: Vec<f64> = (0..n).map(|i| if i % 5 == 3 { 0.0 } else { 1.0 + (i * i % 7) as f64 }).collect();
                let by: Vec<f64> =
                    (0..n).map(|i| (i * 13 % 11) as f64 - if i % 6 == 2 { 800.0 } else { 5.0 }).collect();
                let shares: Vec<f64> = w.iter().zip(&by).map(|(w, by)| w * by.exp()).collect();
                let sum: f64 = shares.iter().sum();
                let mut given = w.clone();
                isa.dispatch(ShiftLogits { w: &mut given, by: &by, least: 1e-30 });
                for ((given, share), w) in given.iter().zip(shares).zip(w) {
                    let expected = if w > 0.0 { (share / sum).max(1e-30) } else { 0.0 };
                    assert!((given - expected).abs() <= 1e-14 * expected, "{given} {expected}");
                }
            }
        }
    }
}

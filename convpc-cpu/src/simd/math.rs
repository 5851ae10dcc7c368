//! The exponential and the logarithm of a register.
//!
//! The coefficients are minimax fits of the relative error (Remez, 40 digits), rounded to `f32`.

use super::Lanes;

/// ln 2 in two parts: the first has so few bits that its product with an exponent is exact, fused or not. Both are
/// positive, so that an exponent of ±inf does not make a NaN of their sum.
const LN_2_HIGH: f32 = 0.693_115_23;
const LN_2_LOW: f32 = 3.194_618_3e-5;

/// The least `f32` whose exponential is at least 2^-126.
const EXP_MIN: f32 = -87.336_54;

/// The greatest `f32` whose exponential is finite.
const EXP_MAX: f32 = 88.722_83;

/// The bound on the error of [`exp`]. Over all `f32`, fused sets reach 0.91 ULP, the portable one 1.17.
#[cfg(test)]
pub const EXP_ULPS: f64 = 1.25;

/// exp(r) = 1 + r + r² p(r) for |r| <= ln 2 / 2, to 2^-28 of its value; the highest power first.
const EXP: [f32; 5] = [1.381_460_9e-3, 8.368_71e-3, 4.166_839e-2, 1.666_652_1e-1, 4.999_999_4e-1];

/// The bound on the error of [`log`]. Over all `f32` it reaches 0.93 ULP.
#[cfg(test)]
pub const LOG_ULPS: f64 = 1.0;

/// log(1 + f) = f - f²/2 + f³ p(f) for f in [-0.25, 0.5), to 2^-27 of its value; the highest power first.
const LOG: [f32; 8] = [
    -4.507_486_5e-2,
    1.046_302_4e-1,
    -1.316_119e-1,
    1.447_839_3e-1,
    -1.664_731_2e-1,
    1.999_086_1e-1,
    -2.500_009_5e-1,
    3.333_345e-1,
];

/// The exponential, within [`EXP_ULPS`] units in the last place.
///
/// Results below 2^-126 are 0, those above the greatest `f32` are +inf; exp(0) is exactly 1, exp(-inf) 0, exp(+inf)
/// +inf, and exp(NaN) NaN.
///
/// # Safety
///
/// As for the methods of [`Lanes`].
#[inline(always)]
pub unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's contract is the one of `Lanes`.
    unsafe {
        // A NaN is the second operand of min and max, which they return.
        let bounded = L::splat(EXP_MIN).max(L::splat(EXP_MAX).min(x));
        // exp(x) = 2^n exp(r)
        let n = bounded.mul(L::splat(std::f32::consts::LOG2_E)).round_ties_even();
        let r = n.mul_add(L::splat(-LN_2_HIGH), bounded);
        let r = n.mul_add(L::splat(-LN_2_LOW), r);
        let p = polynomial(r, &EXP);
        let one = L::splat(1.0);
        let y = p.mul_add(r, one).mul_add(r, one).scale_pow2(n);
        let y = L::select(x.lt(L::splat(EXP_MIN)), L::splat(0.0), y);
        L::select(L::splat(EXP_MAX).lt(x), L::splat(f32::INFINITY), y)
    }
}

/// The exponential of x <= 0 as a positive number near 1 and a power of two's exponent; -inf has the exponent -inf.
///
/// # Safety
///
/// As for the methods of [`Lanes`].
#[inline(always)]
pub unsafe fn exp_split<L: Lanes>(x: L) -> (L, L) {
    // SAFETY: the caller's contract is the one of `Lanes`.
    unsafe {
        let zero = x.eq(L::splat(f32::NEG_INFINITY));
        let bounded = L::select(zero, L::splat(0.0), x);
        let n = bounded.mul(L::splat(std::f32::consts::LOG2_E)).round_ties_even();
        let r = n.mul_add(L::splat(-LN_2_HIGH), bounded);
        let r = n.mul_add(L::splat(-LN_2_LOW), r);
        // Of an x beyond 2^24 or so nothing is left but its size.
        let r = r.max(L::splat(-0.5)).min(L::splat(0.5));
        let one = L::splat(1.0);
        let y = polynomial(r, &EXP).mul_add(r, one).mul_add(r, one);
        (y, L::select(zero, L::splat(f32::NEG_INFINITY), n))
    }
}

/// The natural logarithm, within [`LOG_ULPS`] units in the last place for all positive numbers, subnormal ones included.
///
/// log(1) is exactly 0, log(±0) -inf, log(+inf) +inf; log of a negative number or NaN is NaN.
///
/// # Safety
///
/// As for the methods of [`Lanes`].
#[inline(always)]
pub unsafe fn log<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's contract is the one of `Lanes`.
    unsafe {
        // log(x) = e ln 2 + log(1 + f)
        let (m, e) = x.split_pow2();
        let f = m.sub(L::splat(1.0));
        let f2 = f.mul(f);
        // The small terms first; the two large ones, f and e ln 2, join them last.
        let y = polynomial(f, &LOG).mul(f).mul(f2);
        let y = e.mul_add(L::splat(LN_2_LOW), y);
        let y = f2.mul_add(L::splat(-0.5), y);
        e.mul_add(L::splat(LN_2_HIGH), f.add(y))
    }
}

/// Horner's scheme; the coefficient of the highest power comes first.
#[inline(always)]
unsafe fn polynomial<L: Lanes, const N: usize>(x: L, coefficients: &[f32; N]) -> L {
    // SAFETY: the caller's contract is the one of `Lanes`.
    unsafe {
        let mut y = L::splat(coefficients[0]);
        for &c in &coefficients[1..] {
            y = y.mul_add(x, L::splat(c));
        }
        y
    }
}

#[cfg(test)]
mod tests {
    use super::super::{InstructionSet, Isa, Kernel};
    use super::*;

    /// A prime, so that the sweep follows no pattern of the bits; 8.6 million points.
    const STRIDE: usize = 499;

    struct Sweep {
        function: Function,
        bits: Vec<u32>,
    }

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Log,
        Split,
    }

    impl Kernel for Sweep {
        type Output = Vec<(f32, f32)>;

        #[inline(always)]
        unsafe fn run<L: Lanes>(self) -> Self::Output {
            let mut pairs = Vec::with_capacity(self.bits.len());
            for chunk in self.bits.chunks(L::LEN) {
                let mut x = [0.0; 16];
                for (x, &bits) in x.iter_mut().zip(chunk) {
                    *x = f32::from_bits(bits);
                }
                let mut y = [0.0; 16];
                // SAFETY: no register has more than 16 lanes; the instruction set is the caller's contract.
                unsafe {
                    let x = L::load(x.as_ptr());
                    let y_lanes = match self.function {
                        Function::Exp => exp(x),
                        Function::Log => log(x),
                        Function::Split => {
                            let (m, k) = exp_split(x);
                            m.scale_pow2(k)
                        }
                    };
                    y_lanes.store(y.as_mut_ptr());
                }
                pairs.extend(x.into_iter().zip(y).take(chunk.len()));
            }
            pairs
        }
    }

    fn evaluate(isa: Isa, function: Function, x: &[f32]) -> Vec<f32> {
        let bits = x.iter().map(|x| x.to_bits()).collect();
        let pairs = isa.dispatch(Sweep { function, bits });
        pairs.into_iter().map(|(_, y)| y).collect()
    }

    /// The distance from `y` to the exact value, in units of the last place of the latter.
    fn ulps(y: f32, exact: f64) -> f64 {
        let exponent = ((exact.abs().to_bits() >> 52) as i32 - 1023).max(-126);
        (f64::from(y) - exact).abs() / 2f64.powi(exponent - 23)
    }

    /// The greatest error over the entire range, in ULP. `exact` returns `Err` with the value that an `f32` must be.
    fn worst(isa: Isa, function: Function, exact: impl Fn(f32) -> Result<f64, f32>) -> f64 {
        let mut every = (0..=u32::MAX).step_by(STRIDE);
        let mut worst = (0.0, 0.0);
        loop {
            let bits: Vec<u32> = every.by_ref().take(1 << 16).collect();
            if bits.is_empty() {
                break;
            }
            for (x, y) in isa.dispatch(Sweep { function, bits }) {
                match exact(x) {
                    Ok(exact) => {
                        let error = ulps(y, exact);
                        assert!(error.is_finite(), "at {x:e}: {y:e} instead of {exact:e}");
                        if error > worst.0 {
                            worst = (error, x);
                        }
                    }
                    Err(special) => assert!(
                        y == special || y.is_nan() && special.is_nan(),
                        "at {x:e}: {y:e} instead of {special:e}"
                    ),
                }
            }
        }
        let set = isa.instruction_set();
        println!("{set}: {:.3} ULP at {:e}", worst.0, worst.1);
        worst.0
    }

    fn every_isa() -> impl Iterator<Item = Isa> {
        InstructionSet::available().into_iter().filter_map(Isa::new)
    }

    #[test]
    fn exp_is_within_its_bound_everywhere() {
        for isa in every_isa() {
            let error = worst(isa, Function::Exp, |x| {
                let exact = f64::from(x).exp();
                if exact < f64::from(f32::MIN_POSITIVE) {
                    Err(0.0)
                } else if exact.is_nan() || exact > f64::from(f32::MAX) {
                    Err(exact as f32)
                } else {
                    Ok(exact)
                }
            });
            assert!(error < EXP_ULPS);
        }
    }

    #[test]
    fn the_parts_of_a_split_exponential_are_those_of_exp() {
        let x: Vec<f32> = (0..8700).map(|i| -0.01 * i as f32).collect();
        for isa in every_isa() {
            assert_eq!(evaluate(isa, Function::Split, &x), evaluate(isa, Function::Exp, &x));
        }
    }

    #[test]
    fn log_is_within_its_bound_everywhere() {
        for isa in every_isa() {
            let error = worst(isa, Function::Log, |x| {
                let exact = f64::from(x).ln();
                if exact.is_finite() { Ok(exact) } else { Err(exact as f32) }
            });
            assert!(error < LOG_ULPS);
        }
    }

    #[test]
    fn log_of_special_values() {
        let x =
            [1.0, 0.0, -0.0, f32::INFINITY, -1.0, f32::NEG_INFINITY, -f32::from_bits(1), f32::NAN, f32::from_bits(1)];
        for isa in every_isa() {
            let y = evaluate(isa, Function::Log, &x);
            let inf = f32::INFINITY;
            assert_eq!(y[..4], [0.0, -inf, -inf, inf]);
            assert!(y[4..8].iter().all(|y| y.is_nan()), "{y:?}");
            assert!(ulps(y[8], f64::from(x[8]).ln()) < LOG_ULPS);
        }
    }

    struct Split(f32);

    impl Kernel for Split {
        type Output = (f32, f32);

        #[inline(always)]
        unsafe fn run<L: Lanes>(self) -> (f32, f32) {
            let mut parts = [[0.0; 16]; 2];
            // SAFETY: no register has more than 16 lanes; the instruction set is the caller's contract.
            unsafe {
                let (m, k) = exp_split(L::splat(self.0));
                m.store(parts[0].as_mut_ptr());
                k.store(parts[1].as_mut_ptr());
            }
            (parts[0][0], parts[1][0])
        }
    }

    #[test]
    fn split_exponentials_reach_beyond_f32() {
        for isa in every_isa() {
            for x in [-100.0_f32, -777.7, -1e4, -54_321.25] {
                let (m, k) = isa.dispatch(Split(x));
                // Unfused products of the exponent are rounded as x is.
                let log = f64::from(m).ln() + f64::from(k) * std::f64::consts::LN_2;
                assert!((log - f64::from(x)).abs() < 1e-6 + 1.2e-7 * f64::from(x.abs()), "{x}: {m} and {k}");
            }
            let (m, k) = isa.dispatch(Split(f32::NEG_INFINITY));
            assert!(m.is_finite() && k == f32::NEG_INFINITY);
            let (m, k) = isa.dispatch(Split(f32::MIN));
            assert!((0.5..2.0).contains(&m) && k < -1e38);
        }
    }

    #[test]
    fn exp_of_special_values() {
        let x = [
            0.0,
            -0.0,
            f32::NEG_INFINITY,
            f32::INFINITY,
            EXP_MIN.next_down(),
            EXP_MAX.next_up(),
            f32::MIN,
            f32::MAX,
            f32::NAN,
        ];
        let inf = f32::INFINITY;
        for isa in every_isa() {
            let y = evaluate(isa, Function::Exp, &x);
            assert_eq!(y[..8], [1.0, 1.0, 0.0, inf, 0.0, inf, 0.0, inf]);
            assert!(y[8].is_nan());

            let ends = evaluate(isa, Function::Exp, &[EXP_MIN, EXP_MAX]);
            assert!(ends[0] >= f32::MIN_POSITIVE && ends[1] <= f32::MAX);
        }
    }
}

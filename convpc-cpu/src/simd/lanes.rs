//! What every instruction set offers.

/// The bits of 0.75, where the mantissas of [`Lanes::split_pow2`] begin.
pub(super) const THREE_QUARTERS: i32 = 0.75_f32.to_bits() as i32;

/// Makes every subnormal number normal.
pub(super) const TWO_POW_25: f32 = (1 << 25) as f32;

/// No register has more lanes.
pub const MOST_LANES: usize = 16;

/// A register of `f32` lanes.
///
/// Operations act lane by lane and round as IEEE 754 says; only [`Lanes::mul_add`], [`Lanes::neg_mul_add`] and the
/// sum over lanes may differ between instruction sets.
///
/// # Safety of the methods
///
/// Every method needs the instruction set of the implementor, enabled in the caller after inlining (see
/// [`Kernel`](super::Kernel)). Those that take a pointer need it to be valid, at any alignment, for the lanes that they
/// read or write. Nothing else is required.
#[allow(clippy::missing_safety_doc, reason = "stated once, on the trait, for all methods")]
pub trait Lanes: Copy {
    /// The number of lanes.
    const LEN: usize;

    /// How many registers the instruction set has; what a register tile is chosen by.
    const REGISTERS: usize;

    /// One truth value per lane.
    type Mask: Copy;

    /// `x` in every lane.
    unsafe fn splat(x: f32) -> Self;

    /// The `LEN` values at `from`.
    unsafe fn load(from: *const f32) -> Self;

    /// Writes all lanes to the `LEN` places at `to`.
    unsafe fn store(self, to: *mut f32);

    /// The first `min(count, LEN)` values at `from`, zero in the other lanes; reads nothing beyond them.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;

    /// Writes the first `min(count, LEN)` lanes to `to`, and nothing beyond them.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;

    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;

    /// `self * other`.
    unsafe fn mul(self, other: Self) -> Self;

    /// `self / other`.
    unsafe fn div(self, other: Self) -> Self;

    /// `self * factor + summand`, rounded once where the instruction set has a fused instruction.
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;

    /// `summand - self * factor`, rounded once where the instruction set has a fused instruction.
    unsafe fn neg_mul_add(self, factor: Self, summand: Self) -> Self;

    /// `if self > other { self } else { other }`: a NaN on either side gives `other`.
    unsafe fn max(self, other: Self) -> Self;

    /// `if self < other { self } else { other }`: a NaN on either side gives `other`.
    unsafe fn min(self, other: Self) -> Self;

    /// `self < other`, false where either is NaN.
    unsafe fn lt(self, other: Self) -> Self::Mask;

    /// `self == other`, false where either is NaN; the two zeros are equal.
    unsafe fn eq(self, other: Self) -> Self::Mask;

    /// The lanes that are NaN.
    unsafe fn is_nan(self) -> Self::Mask;

    /// `if mask { yes } else { no }`.
    unsafe fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;

    /// Whether the mask is true in some lane.
    unsafe fn any(mask: Self::Mask) -> bool;

    /// The nearest integer, the even one of two that are equally near.
    unsafe fn round_ties_even(self) -> Self;

    /// The sum of all lanes, in an order of the implementation's choice.
    unsafe fn reduce_add(self) -> f32;

    /// `self * 2^n`, exactly, for whole numbers `n` (given as `f32`) and normal `self` if the result is normal. NaN if both
    /// are NaN, any value otherwise.
    unsafe fn scale_pow2(self, n: Self) -> Self;

    /// The pair (m, e) with `self = m * 2^e`, m in [0.75, 1.5) and e a whole number, for all positive finite `self`,
    /// subnormal ones included.
    ///
    /// So that a logarithm needs no special cases: for zero m is finite and e = -inf; for +inf m = 1 and e = +inf; for
    /// negative values and NaN at least one of the two is NaN.
    unsafe fn split_pow2(self) -> (Self, Self);

    /// Writes a square of `LEN` × `LEN` values transposed: `to[j * stride + i] = from[i][j]` for i and j below `LEN`.
    ///
    /// The first `LEN` pointers are valid for `LEN` values each, and `to` for the square.
    unsafe fn transpose(from: &[*const f32; MOST_LANES], to: *mut f32, stride: usize);
}

#[cfg(test)]
mod tests {
    use super::super::{InstructionSet, Isa, Kernel};
    use super::*;

    type Scalar = fn(f32, f32, f32) -> f32;

    fn truth(condition: bool) -> f32 {
        if condition { 1.0 } else { 0.0 }
    }

    /// The operations that give one value per lane, in the order of `EveryOperation`.
    const SCALAR: [(&str, Scalar); 14] = [
        ("splat", |_, _, _| -2.5),
        ("add", |a, b, _| a + b),
        ("sub", |a, b, _| a - b),
        ("mul", |a, b, _| a * b),
        ("div", |a, b, _| a / b),
        ("max", |a, b, _| if a > b { a } else { b }),
        ("min", |a, b, _| if a < b { a } else { b }),
        ("lt", |a, b, _| truth(a < b)),
        ("eq", |a, b, _| truth(a == b)),
        ("is_nan", |a, _, _| truth(a.is_nan())),
        ("select", |a, b, c| if a < b { b } else { c }),
        ("round_ties_even", |a, _, _| a.round_ties_even()),
        ("mul_add", |a, b, c| a.mul_add(b, c)),
        ("neg_mul_add", |a, b, c| (-a).mul_add(b, c)),
    ];

    struct EveryOperation<'a> {
        a: &'a [f32],
        b: &'a [f32],
        c: &'a [f32],
    }

    impl Kernel for EveryOperation<'_> {
        /// One list per operation.
        type Output = Vec<Vec<f32>>;

        #[inline(always)]
        unsafe fn run<L: Lanes>(self) -> Self::Output {
            let mut results = vec![vec![0.0; self.a.len()]; SCALAR.len()];
            for i in (0..self.a.len()).step_by(L::LEN) {
                // SAFETY: the lengths are multiples of 16; the instruction set is the caller's contract.
                unsafe {
                    let a = L::load(self.a[i..].as_ptr());
                    let b = L::load(self.b[i..].as_ptr());
                    let c = L::load(self.c[i..].as_ptr());
                    let (one, zero) = (L::splat(1.0), L::splat(0.0));
                    let values = [
                        L::splat(-2.5),
                        a.add(b),
                        a.sub(b),
                        a.mul(b),
                        a.div(b),
                        a.max(b),
                        a.min(b),
                        L::select(a.lt(b), one, zero),
                        L::select(a.eq(b), one, zero),
                        L::select(a.is_nan(), one, zero),
                        L::select(a.lt(b), b, c),
                        a.round_ties_even(),
                        a.mul_add(b, c),
                        a.neg_mul_add(b, c),
                    ];
                    for (list, value) in results.iter_mut().zip(values) {
                        value.store(list[i..].as_mut_ptr());
                    }
                }
            }
            results
        }
    }

    fn every_isa() -> impl Iterator<Item = Isa> {
        InstructionSet::available().into_iter().filter_map(Isa::new)
    }

    fn same(x: f32, y: f32) -> bool {
        x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan()
    }

    /// Values at which operations go wrong.
    fn delicate() -> Vec<f32> {
        let positive = [
            0.0,
            f32::from_bits(1),
            f32::MIN_POSITIVE,
            0.3,
            0.5,
            0.49999997,
            1.0,
            1.5,
            1.7,
            2.5,
            3.0,
            4_194_304.5,
            8_388_607.5,
            8_388_609.0,
            3e9,
            f32::MAX,
            f32::INFINITY,
            f32::NAN,
        ];
        positive.into_iter().flat_map(|x| [x, -x]).collect()
    }

    #[test]
    fn every_operation_equals_the_scalar_one() {
        let values = delicate();
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        for (i, &x) in values.iter().enumerate() {
            for (j, &y) in values.iter().enumerate() {
                a.push(x);
                b.push(y);
                c.push(values[(5 * i + 7 * j) % values.len()]);
            }
        }
        assert_eq!(a.len() % 16, 0);
        for isa in every_isa() {
            let results = isa.dispatch(EveryOperation { a: &a, b: &b, c: &c });
            for ((name, scalar), results) in SCALAR.iter().zip(results) {
                for (i, result) in results.into_iter().enumerate() {
                    let (a, b, c) = (a[i], b[i], c[i]);
                    let unfused = *name == "mul_add" && same(result, a * b + c)
                        || *name == "neg_mul_add" && same(result, c - a * b);
                    assert!(
                        same(result, scalar(a, b, c)) || unfused,
                        "{} {name} of {a:e}, {b:e}, {c:e}: {result:e}",
                        isa.instruction_set()
                    );
                }
            }
        }
    }

    struct Partial;

    impl Kernel for Partial {
        type Output = ();

        #[inline(always)]
        unsafe fn run<L: Lanes>(self) {
            for count in 0..=L::LEN + 1 {
                let part = count.min(L::LEN);
                // Exactly as long as may be touched, for the sake of memory checkers.
                let from: Vec<f32> = (1..=part).map(|i| i as f32).collect();
                let mut loaded = [-1.0; 16];
                let mut stored = vec![-1.0; part + 1];
                // SAFETY: the lengths are at least the counts; the instruction set is the caller's contract.
                unsafe {
                    let lanes = L::load_first(from.as_ptr(), count);
                    lanes.store(loaded.as_mut_ptr());
                    L::splat(7.0).store_first(stored.as_mut_ptr(), count);
                }
                assert_eq!(loaded[..part], from);
                assert!(loaded[part..L::LEN].iter().all(|&x| x == 0.0));
                assert!(stored[..part].iter().all(|&x| x == 7.0));
                assert_eq!(stored[part], -1.0);
            }
        }
    }

    #[test]
    fn partial_loads_and_stores_touch_the_first_lanes() {
        for isa in every_isa() {
            isa.dispatch(Partial);
        }
    }

    struct AcrossLanes;

    impl Kernel for AcrossLanes {
        type Output = ();

        #[inline(always)]
        unsafe fn run<L: Lanes>(self) {
            for lane in 0..L::LEN {
                let mut x: [f32; 16] = std::array::from_fn(|i| -1.0 - i as f32);
                let rest: f32 = x[..L::LEN].iter().sum::<f32>() - x[lane];
                x[lane] = 100.0;
                // SAFETY: no register has more than 16 lanes; the instruction set is the caller's contract.
                unsafe {
                    let x = L::load(x.as_ptr());
                    let zero = L::splat(0.0);
                    assert_eq!(x.reduce_add(), 100.0 + rest);
                    assert!(L::any(zero.lt(x)));
                    assert!(!L::any(L::splat(100.0).lt(x)));
                }
            }
        }
    }

    #[test]
    fn reductions_see_every_lane() {
        for isa in every_isa() {
            isa.dispatch(AcrossLanes);
        }
    }

    struct Transpose;

    impl Kernel for Transpose {
        type Output = ();

        #[inline(always)]
        unsafe fn run<L: Lanes>(self) {
            let stride = L::LEN + 3;
            let from: Vec<f32> = (0..L::LEN * 20).map(|i| i as f32).collect();
            let mut to = vec![-1.0; L::LEN * stride];
            let rows = std::array::from_fn(|i| from[i % L::LEN * 20 + 1..].as_ptr());
            // SAFETY: each row has 19 values from its second on; the instruction set is the caller's contract.
            unsafe { L::transpose(&rows, to.as_mut_ptr(), stride) };
            for (at, &y) in to.iter().enumerate() {
                let (j, i) = (at / stride, at % stride);
                assert_eq!(y, if i < L::LEN { from[i * 20 + 1 + j] } else { -1.0 }, "{i}, {j}");
            }
        }
    }

    #[test]
    fn transposing_moves_every_value_and_nothing_else() {
        for isa in every_isa() {
            isa.dispatch(Transpose);
        }
    }

    /// [x, m, e, m 2^e] for each x.
    struct SplitAndScale(Vec<f32>);

    impl Kernel for SplitAndScale {
        type Output = Vec<[f32; 4]>;

        #[inline(always)]
        unsafe fn run<L: Lanes>(self) -> Self::Output {
            let mut results = Vec::new();
            for x in self.0 {
                let mut lanes = [[0.0; 16]; 3];
                // SAFETY: no register has more than 16 lanes; the instruction set is the caller's contract.
                unsafe {
                    let (m, e) = L::splat(x).split_pow2();
                    m.store(lanes[0].as_mut_ptr());
                    e.store(lanes[1].as_mut_ptr());
                    m.scale_pow2(e).store(lanes[2].as_mut_ptr());
                }
                results.push([x, lanes[0][0], lanes[1][0], lanes[2][0]]);
            }
            results
        }
    }

    #[test]
    fn splitting_is_exact_and_scaling_undoes_it() {
        let every = (1..f32::INFINITY.to_bits()).step_by(99_991);
        let powers = (1..255).flat_map(|e| [e << 23, (e << 23) - 1, (e << 23) | 0x40_0000]);
        let subnormal = [1, 2, 3, 0x3f_ffff, 0x40_0000, 0x60_0000, 0x7f_ffff];
        let bits = every.chain(powers).chain(subnormal);
        let x: Vec<f32> = bits.map(f32::from_bits).collect();
        for isa in every_isa() {
            for [x, m, e, scaled] in isa.dispatch(SplitAndScale(x.clone())) {
                assert!((0.75..1.5).contains(&m) && e.fract() == 0.0, "{x:e}");
                assert_eq!(f64::from(m) * f64::from(e).exp2(), f64::from(x));
                if x.is_normal() {
                    assert_eq!(scaled, x);
                }
            }
        }
    }

    #[test]
    fn splitting_special_values() {
        let inf = f32::INFINITY;
        let x = vec![0.0, -0.0, inf, -inf, -1.0, -f32::from_bits(1), f32::NAN];
        for isa in every_isa() {
            let results = isa.dispatch(SplitAndScale(x.clone()));
            for [_, m, e, _] in &results[..2] {
                assert!(m.is_finite() && *e == -inf);
            }
            assert_eq!(results[2][1..3], [1.0, inf]);
            for [x, m, e, _] in &results[3..] {
                assert!(m.is_nan() || e.is_nan(), "{x:e}: {m:e}, {e:e}");
            }
        }
    }
}

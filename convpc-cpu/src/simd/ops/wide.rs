//! Values further apart than f32 can hold: a mantissa in [0.75, 1.5) and an exponent each, -inf that of zero.
//!
//! The mantissas go through the same multiplications, rounded alike, as the values of a plain panel, so that a row's result
//! does not depend on whether its panel is wide. Panels of a single row use a lane of a register: they are rare enough.

use super::{LEAST_EXPONENT, SMALLEST_SUM, load, or_zero};
use crate::simd::{Kernel, Lanes, math};

/// Splits values into mantissas (in place) and exponents.
pub struct Widen<'a> {
    /// Values of at least 0, then mantissas.
    pub values: &'a mut [f32],
    /// As many.
    pub exponents: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { values, exponents } = self;
        assert!(values.len() == exponents.len());
        for (values, exponents) in values.chunks_mut(L::LEN).zip(exponents.chunks_mut(L::LEN)) {
            // SAFETY: only values of the slices are read and written.
            unsafe {
                let (m, k) = load::<L>(values).split_pow2();
                m.store_first(values.as_mut_ptr(), values.len());
                k.store_first(exponents.as_mut_ptr(), exponents.len());
            }
        }
    }
}

/// `exp(x − max)` as mantissas and exponents.
pub struct SplitLogarithms<'a> {
    /// `[channels][width]`
    pub x: &'a [f32],
    /// `[width]`
    pub max: &'a [f32],
    /// `[channels][width]`
    pub values: &'a mut [f32],
    /// `[channels][width]`
    pub exponents: &'a mut [f32],
}

impl Kernel for SplitLogarithms<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { x, max, values, exponents } = self;
        let n = max.len();
        assert!(x.len().is_multiple_of(n) && x.len() == values.len() && x.len() == exponents.len());
        for j in (0..n).step_by(L::LEN) {
            let count = L::LEN.min(n - j);
            for at in (j..x.len()).step_by(n) {
                // SAFETY: j + count <= n and at steps by n keep every access inside the slices checked above.
                unsafe {
                    let x = load::<L>(&x[at..][..count]).sub(load(&max[j..][..count]));
                    let (m, k) = math::exp_split(x);
                    let (m, e) = m.split_pow2();
                    m.store_first(values.as_mut_ptr().add(at), count);
                    k.add(e).store_first(exponents.as_mut_ptr().add(at), count);
                }
            }
        }
    }
}

/// `p *= s`, both as mantissas and exponents.
pub struct WideMultiply<'a> {
    /// Mantissas.
    pub p: &'a mut [f32],
    /// As many exponents.
    pub exponents: &'a mut [f32],
    /// As many mantissas, or plain values.
    pub s: &'a [f32],
    /// Their exponents; `None` for plain values.
    pub s_exponents: Option<&'a [f32]>,
}

impl Kernel for WideMultiply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { p, exponents, s, s_exponents } = self;
        assert!(p.len() == s.len() && p.len() == exponents.len() && s_exponents.is_none_or(|k| k.len() == p.len()));
        for at in (0..p.len()).step_by(L::LEN) {
            let part = at..p.len().min(at + L::LEN);
            let (p, k) = (&mut p[part.clone()], &mut exponents[part.clone()]);
            // SAFETY: only values of the slices are read and written.
            unsafe {
                let (m, mut e) = load::<L>(p).mul(load(&s[part.clone()])).split_pow2();
                if let Some(s_exponents) = s_exponents {
                    e = e.add(load(&s_exponents[part]));
                }
                m.store_first(p.as_mut_ptr(), p.len());
                load::<L>(k).add(e).store_first(k.as_mut_ptr(), k.len());
            }
        }
    }
}

/// [`Normalise`](super::Normalise) of a wide panel: plain values, zero where they are below 2^-125 of a row's largest.
pub struct NormaliseWide<'a> {
    /// `[channels][width]`
    pub mantissas: &'a [f32],
    /// `[channels][width]`; those of the rows are subtracted.
    pub exponents: &'a mut [f32],
    /// `[channels][width]`
    pub values: &'a mut [f32],
    /// `[width]`: those of the rows.
    pub row_exponents: &'a mut [f32],
}

impl Kernel for NormaliseWide<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { mantissas, exponents, values, row_exponents } = self;
        let n = row_exponents.len();
        assert!(values.len().is_multiple_of(n) && mantissas.len() == values.len() && exponents.len() == values.len());
        for j in (0..n).step_by(L::LEN) {
            let count = L::LEN.min(n - j);
            // SAFETY: j + count <= n and at steps by n keep every access inside the slices checked above.
            unsafe {
                let mut greatest = L::splat(f32::NEG_INFINITY);
                for at in (j..values.len()).step_by(n) {
                    greatest = load::<L>(&exponents[at..][..count]).max(greatest);
                }
                let row = or_zero(greatest);
                row.store_first(row_exponents.as_mut_ptr().add(j), count);
                for at in (j..values.len()).step_by(n) {
                    let k = load::<L>(&exponents[at..][..count]).sub(row);
                    k.store_first(exponents.as_mut_ptr().add(at), count);
                    scaled(load(&mantissas[at..][..count]), k).store_first(values.as_mut_ptr().add(at), count);
                }
            }
        }
    }
}

/// `mantissa · 2^exponent`, 0 where that is too small.
#[inline(always)]
unsafe fn scaled<L: Lanes>(mantissa: L, exponent: L) -> L {
    // SAFETY: the caller's contract is the one of `Lanes`.
    unsafe {
        let zero = exponent.lt(L::splat(LEAST_EXPONENT));
        L::select(zero, L::splat(0.0), mantissa.scale_pow2(L::select(zero, L::splat(0.0), exponent)))
    }
}

/// The mantissa and the exponent of weight `c` in all lanes.
#[inline(always)]
unsafe fn split_weight<L: Lanes>(w: f32, exponents: Option<&[f32]>, c: usize) -> (L, L) {
    // SAFETY: the caller's contract is the one of `Lanes`.
    unsafe {
        let (m, k) = L::splat(w).split_pow2();
        (m, exponents.map_or(k, |exponents| k.add(L::splat(exponents[c]))))
    }
}

/// One output of a sum, where it is not trusted: `sum_c w[c] x[c]` (or the largest term), relative to its own largest term.
/// Returns whether some row's is below [`SMALLEST_SUM`] and not zero.
pub struct Rescue<'a> {
    /// `[channels]`
    pub w: &'a [f32],
    /// `[channels]`: exponents of the weights, where f32 does not hold them without.
    pub w_exponents: Option<&'a [f32]>,
    /// `[channels][width]`: mantissas of the inputs.
    pub mantissas: &'a [f32],
    /// `[channels][width]`: their exponents.
    pub exponents: &'a [f32],
    /// `[width]`: the sum; where it is trusted it stays.
    pub sum: &'a [f32],
    /// `[width]`: mantissas of the output.
    pub out: &'a mut [f32],
    /// `[width]`: its exponents.
    pub out_exponents: &'a mut [f32],
    /// Whether the largest term takes the place of the sum.
    pub largest: bool,
}

impl Kernel for Rescue<'_> {
    type Output = bool;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> bool {
        let Self { w, w_exponents, mantissas, exponents, sum, out, out_exponents, largest } = self;
        let n = sum.len();
        assert!(w_exponents.is_none_or(|k| k.len() == w.len()));
        assert!(mantissas.len() == w.len() * n && exponents.len() == w.len() * n);
        assert!(out.len() == n && out_exponents.len() == n);
        let mut wide = false;
        for j in (0..n).step_by(L::LEN) {
            let count = L::LEN.min(n - j);
            // SAFETY: j + count <= n, and inputs have n values for each weight.
            unsafe {
                let given = load::<L>(&sum[j..][..count]);
                let (mut m, mut k) = given.split_pow2();
                let small = given.lt(L::splat(SMALLEST_SUM));
                if L::any(small) {
                    let mut greatest = L::splat(f32::NEG_INFINITY);
                    for (c, &w) in w.iter().enumerate().filter(|(_, w)| **w > 0.0) {
                        let (_, k) = split_weight::<L>(w, w_exponents, c);
                        greatest = load::<L>(&exponents[c * n + j..][..count]).add(k).max(greatest);
                    }
                    let row = or_zero(greatest);
                    let mut total = L::splat(0.0);
                    for (c, &w) in w.iter().enumerate().filter(|(_, w)| **w > 0.0) {
                        let (w, k) = split_weight::<L>(w, w_exponents, c);
                        let k = load::<L>(&exponents[c * n + j..][..count]).add(k).sub(row);
                        let term = scaled(load::<L>(&mantissas[c * n + j..][..count]).mul(w), k);
                        total = if largest { term.max(total) } else { total.add(term) };
                    }
                    let (total_m, total_k) = total.split_pow2();
                    m = L::select(small, total_m, m);
                    k = L::select(small, total_k.add(row), k);
                    let zero = k.eq(L::splat(f32::NEG_INFINITY));
                    wide |= L::any(L::select(zero, L::splat(0.0), k).lt(L::splat(-99.0)));
                }
                m.store_first(out.as_mut_ptr().add(j), count);
                k.store_first(out_exponents.as_mut_ptr().add(j), count);
            }
        }
        wide
    }
}

/// The flow of one output whose sum is not trusted: `flow · w[c] · x[c] / output` for each input, added to the inputs' flows
/// and to the counts.
pub struct RescueFlow<'a> {
    /// `[channels]`
    pub w: &'a [f32],
    /// `[channels]`: exponents of the weights, where f32 does not hold them without.
    pub w_exponents: Option<&'a [f32]>,
    /// `[channels][width]`: mantissas of the inputs.
    pub mantissas: &'a [f32],
    /// `[channels][width]`: their exponents.
    pub exponents: &'a [f32],
    /// `[width]`: the sum; where it is trusted nothing is done.
    pub sum: &'a [f32],
    /// `[width]`: mantissas of the output.
    pub out: &'a [f32],
    /// `[width]`: its exponents.
    pub out_exponents: &'a [f32],
    /// `[width]`
    pub flow: &'a [f32],
    /// `[channels][width]`, added to.
    pub below: &'a mut [f32],
    /// `[channels]`, added to.
    pub counts: &'a mut [f32],
}

impl Kernel for RescueFlow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { w, w_exponents, mantissas, exponents, sum, out, out_exponents, flow, below, counts } = self;
        let n = sum.len();
        assert!(w_exponents.is_none_or(|k| k.len() == w.len()));
        assert!(n.is_multiple_of(L::LEN) && mantissas.len() == w.len() * n && exponents.len() == w.len() * n);
        assert!(out.len() == n && out_exponents.len() == n && flow.len() == n);
        assert!(below.len() == w.len() * n && counts.len() == w.len());
        for j in (0..n).step_by(L::LEN) {
            // SAFETY: j + L::LEN <= n, and inputs have n values for each weight.
            unsafe {
                let zero = L::splat(0.0);
                let small = L::load(sum.as_ptr().add(j)).lt(L::splat(SMALLEST_SUM));
                let flow = L::select(small, L::load(flow.as_ptr().add(j)), zero);
                if !L::any(zero.lt(flow)) {
                    continue;
                }
                let (m, k) = (L::load(out.as_ptr().add(j)), or_zero(L::load(out_exponents.as_ptr().add(j))));
                let q = flow.div(m);
                for (c, &w) in w.iter().enumerate().filter(|(_, w)| **w > 0.0) {
                    let at = c * n + j;
                    let (w, w_exponent) = split_weight::<L>(w, w_exponents, c);
                    let exponent = L::load(exponents.as_ptr().add(at)).add(w_exponent).sub(k);
                    let share = scaled(L::load(mantissas.as_ptr().add(at)).mul(w), exponent).mul(q);
                    let to = below.as_mut_ptr().add(at);
                    L::load(to).add(share).store(to);
                    counts[c] += share.reduce_add();
                }
            }
        }
    }
}

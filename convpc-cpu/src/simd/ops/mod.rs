//! What a sum does around its matrix products, panel by panel.
//!
//! A panel is a few rows of a tile, `[channel][width]`, the width one or two registers, or one: on the way up a single row is
//! a panel too, whose lanes are channels, and comes out the same to the last bit. The values of a node in it are linear: what they are relative to is kept apart, an exponent or a logarithm a row. Where values differ from one another
//! by more than f32 can hold, the panel is wide: a mantissa and an exponent each ([`wide`]).

mod ascent;
mod leaves;
mod location_scale;
mod wide;

pub use ascent::{Moments, ShiftLogits};
pub use leaves::{Largest, Logarithms, Natural, NaturalCounts, Table, TableCounts};
pub use location_scale::{ExactLocationScale, LOCATION_SCALE_ROWS, LocationScale, LocationScaleCounts};
pub use wide::{NormaliseWide, Rescue, RescueFlow, SplitLogarithms, WideMultiply, Widen};

use super::{Kernel, Lanes, lanes::MOST_LANES, math};

/// Sums of values relative to their largest input are not trusted below 2^-100: a term lost below 2^-126 could matter.
/// They are computed anew, see [`Rescue`].
pub const SMALLEST_SUM: f32 = 1.0 / (1_u128 << 100) as f32;

/// A row's flow to a distribution counts as none below 2^-100: beside what else flows there it is lost in f32, and numbers below
/// 2^-126, which quotients and shares of it would be, are many times slower to compute with.
pub const SMALLEST_FLOW: f32 = SMALLEST_SUM;

/// Products begin at 2^96 times their first factor, so that they may fall far.
pub const PRODUCT_EXPONENT: f32 = 96.0;

const PRODUCT_SCALE: f32 = (1_u128 << 96) as f32;

/// Products within these bounds can take one factor more without leaving f32, and their ratios are above 2^-125.
const LEAST_PRODUCT: f32 = 1.0 / (1 << 25) as f32;
const GREATEST_PRODUCT: f32 = (1_u128 << 99) as f32;

/// Exponents below this are those of zeros, relative to the largest of a row.
const LEAST_EXPONENT: f32 = -125.0;

/// `max[row] = max_c x[c][row]` (0 where that is -inf) and `e = exp(x − max)`. Returns whether some row's largest value is beyond
/// the limit.
pub struct Exponentials<'a> {
    /// `[channels][width]`
    pub x: &'a [f32],
    /// `[channels][width]`
    pub e: &'a mut [f32],
    /// `[width]`
    pub max: &'a mut [f32],
    /// The largest amount that is not beyond the limit; infinity where there is none.
    pub limit: f32,
}

impl Kernel for Exponentials<'_> {
    type Output = bool;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> bool {
        let Self { x, e, max, limit } = self;
        let n = max.len();
        if n == 1 {
            assert!(x.len() == e.len());
            // SAFETY: only values of the slices are read and written.
            unsafe {
                let m = greatest::<L>(x, f32::NEG_INFINITY);
                max[0] = if m == f32::NEG_INFINITY { 0.0 } else { m };
                for (x, e) in x.chunks(L::LEN).zip(e.chunks_mut(L::LEN)) {
                    math::exp(load::<L>(x).sub(L::splat(max[0]))).store_first(e.as_mut_ptr(), e.len());
                }
                return m.abs() > limit;
            }
        }
        assert!(n.is_multiple_of(L::LEN) && x.len() == e.len() && x.len().is_multiple_of(n));
        // SAFETY: j + L::LEN <= n and at steps by n keep every access inside the slices checked above.
        unsafe {
            let mut farthest = L::splat(0.0);
            for j in (0..n).step_by(L::LEN) {
                let mut m = L::splat(f32::NEG_INFINITY);
                for at in (j..x.len()).step_by(n) {
                    m = L::load(x.as_ptr().add(at)).max(m);
                }
                farthest = L::splat(0.0).sub(m).max(m).max(farthest);
                let m = L::select(m.eq(L::splat(f32::NEG_INFINITY)), L::splat(0.0), m);
                m.store(max.as_mut_ptr().add(j));
                for at in (j..x.len()).step_by(n) {
                    math::exp(L::load(x.as_ptr().add(at)).sub(m)).store(e.as_mut_ptr().add(at));
                }
            }
            L::any(L::splat(limit).lt(farthest))
        }
    }
}

/// `p = 2^96 s` for the first factor, `p *= s` for another one; returns whether p is too small or too large for one more.
/// Zeros are neither.
pub struct Multiply<'a> {
    /// `[channels][width]`
    pub p: &'a mut [f32],
    /// As many values, none between 0 and [`SMALLEST_SUM`].
    pub s: &'a [f32],
    /// Whether there was no factor yet.
    pub first: bool,
}

impl Kernel for Multiply<'_> {
    type Output = bool;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> bool {
        let Self { p, s, first } = self;
        assert!(p.len() == s.len());
        let whole = p.len() / L::LEN * L::LEN;
        // SAFETY: at + L::LEN <= whole <= p.len() == s.len(), and what is beyond are slices.
        unsafe {
            let scale = L::splat(PRODUCT_SCALE);
            let (mut least, mut greatest) = (L::splat(f32::INFINITY), L::splat(0.0));
            for at in (0..whole).step_by(L::LEN) {
                let before = if first { scale } else { L::load(p.as_ptr().add(at)) };
                let product = before.mul(L::load(s.as_ptr().add(at)));
                least = product.min(least);
                greatest = product.max(greatest);
                product.store(p.as_mut_ptr().add(at));
            }
            if whole < p.len() {
                let (p, s) = (&mut p[whole..], &s[whole..]);
                let product = if first { scale } else { load::<L>(p) }.mul(load::<L>(s));
                // The lanes beyond are zeros, which are neither too small nor too large.
                least = product.min(least);
                greatest = product.max(greatest);
                product.store_first(p.as_mut_ptr(), p.len());
            }
            if L::any(L::splat(GREATEST_PRODUCT).lt(greatest)) {
                return true;
            }
            L::any(least.lt(L::splat(LEAST_PRODUCT))) && p.iter().any(|p| *p > 0.0 && *p < LEAST_PRODUCT)
        }
    }
}

/// Divides each row by a power of two, so that its largest value lies in [0.75, 1.5); rows of zeros stay.
pub struct Normalise<'a> {
    /// `[channels][width]`
    pub p: &'a mut [f32],
    /// `[width]`: the powers' exponents.
    pub exponents: &'a mut [f32],
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { p, exponents } = self;
        let n = exponents.len();
        if n == 1 {
            // SAFETY: only values of the slices are read and written.
            unsafe {
                let exponent = or_zero(L::splat(greatest::<L>(p, 0.0)).split_pow2().1);
                exponent.store_first(exponents.as_mut_ptr(), 1);
                let scale = L::splat(1.0).scale_pow2(L::splat(0.0).sub(exponent));
                for p in p.chunks_mut(L::LEN) {
                    load::<L>(p).mul(scale).store_first(p.as_mut_ptr(), p.len());
                }
            }
            return;
        }
        assert!(n.is_multiple_of(L::LEN) && p.len().is_multiple_of(n));
        for j in (0..n).step_by(L::LEN) {
            // SAFETY: j + L::LEN <= n and at steps by n keep every access inside the slices checked above.
            unsafe {
                let mut greatest = L::splat(0.0);
                for at in (j..p.len()).step_by(n) {
                    greatest = L::load(p.as_ptr().add(at)).max(greatest);
                }
                let exponent = or_zero(greatest.split_pow2().1);
                exponent.store(exponents.as_mut_ptr().add(j));
                let scale = L::splat(1.0).scale_pow2(L::splat(0.0).sub(exponent));
                for at in (j..p.len()).step_by(n) {
                    L::load(p.as_ptr().add(at)).mul(scale).store(p.as_mut_ptr().add(at));
                }
            }
        }
    }
}

/// A register of the values, zero beyond the last.
#[inline(always)]
unsafe fn load<L: Lanes>(from: &[f32]) -> L {
    // SAFETY: nothing beyond the slice is read; the instruction set is the caller's contract.
    unsafe { if from.len() >= L::LEN { L::load(from.as_ptr()) } else { L::load_first(from.as_ptr(), from.len()) } }
}

/// The largest of the values and `least`.
#[inline(always)]
unsafe fn greatest<L: Lanes>(x: &[f32], least: f32) -> f32 {
    let (whole, rest) = x.split_at(x.len() / L::LEN * L::LEN);
    let mut lanes = [least; MOST_LANES];
    // SAFETY: whole registers are read from `whole`, and no register has more lanes than `lanes`.
    unsafe {
        let mut greatest = L::splat(least);
        for at in (0..whole.len()).step_by(L::LEN) {
            greatest = L::load(whole.as_ptr().add(at)).max(greatest);
        }
        greatest.store(lanes.as_mut_ptr());
    }
    lanes.iter().chain(rest).fold(least, |a, b| if *b > a { *b } else { a })
}

/// `exponent`, 0 where it is -inf.
#[inline(always)]
unsafe fn or_zero<L: Lanes>(exponent: L) -> L {
    // SAFETY: the caller's contract is the one of `Lanes`.
    unsafe { L::select(exponent.eq(L::splat(f32::NEG_INFINITY)), L::splat(0.0), exponent) }
}

/// `to[row][channel] = from[channel][row]`
pub struct Transpose<'a> {
    /// `[channels][width]`
    pub from: &'a [f32],
    /// `[width][channels]`
    pub to: &'a mut [f32],
    /// The width.
    pub width: usize,
}

impl Kernel for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { from, to, width } = self;
        assert!(from.len() == to.len() && width.is_multiple_of(L::LEN) && from.len().is_multiple_of(width));
        let channels = from.len() / width;
        let whole = channels / L::LEN * L::LEN;
        for c in (0..whole).step_by(L::LEN) {
            for j in (0..width).step_by(L::LEN) {
                let mut rows = [from.as_ptr(); MOST_LANES];
                for (i, row) in rows[..L::LEN].iter_mut().enumerate() {
                    *row = from[(c + i) * width + j..][..L::LEN].as_ptr();
                }
                let to = &mut to[j * channels + c..][..(L::LEN - 1) * channels + L::LEN];
                // SAFETY: the rows have L::LEN values, and `to` has the square's.
                unsafe { L::transpose(&rows, to.as_mut_ptr(), channels) };
            }
        }
        for c in whole..channels {
            for j in 0..width {
                to[j * channels + c] = from[c * width + j];
            }
        }
    }
}

/// `q = flow / sum`, 0 where the sum is not trusted; returns whether flow was left out for that.
pub struct Quotients<'a> {
    /// `[channels][width]`
    pub flow: &'a [f32],
    /// `[channels][width]`
    pub sum: &'a [f32],
    /// `[channels][width]`
    pub q: &'a mut [f32],
}

impl Kernel for Quotients<'_> {
    type Output = bool;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> bool {
        let Self { flow, sum, q } = self;
        assert!(flow.len() == sum.len() && flow.len() == q.len() && flow.len().is_multiple_of(L::LEN));
        let mut left = false;
        for at in (0..flow.len()).step_by(L::LEN) {
            // SAFETY: at + L::LEN <= the common length of the slices.
            unsafe {
                let (f, s) = (L::load(flow.as_ptr().add(at)), L::load(sum.as_ptr().add(at)));
                let small = s.lt(L::splat(SMALLEST_SUM));
                left |= L::any(L::splat(0.0).lt(L::select(small, f, L::splat(0.0))));
                L::select(small, L::splat(0.0), f.div(s)).store(q.as_mut_ptr().add(at));
            }
        }
        left
    }
}

/// `flow *= e`; what becomes less than [`SMALLEST_FLOW`] is 0.
pub struct Scale<'a> {
    /// The factor.
    pub e: &'a [f32],
    /// As many values.
    pub flow: &'a mut [f32],
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { e, flow } = self;
        assert!(e.len() == flow.len() && e.len().is_multiple_of(L::LEN));
        for at in (0..e.len()).step_by(L::LEN) {
            // SAFETY: at + L::LEN <= the common length of the slices.
            unsafe {
                let to = flow.as_mut_ptr().add(at);
                let product = L::load(to).mul(L::load(e.as_ptr().add(at)));
                L::select(product.lt(L::splat(SMALLEST_FLOW)), L::splat(0.0), product).store(to);
            }
        }
    }
}

#[cfg(test)]
mod tests;

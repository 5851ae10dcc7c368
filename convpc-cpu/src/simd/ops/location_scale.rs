//! Log-densities of variables of a location and a scale for a panel of rows, and flow-weighted statistics for a tile of panels.

use std::f64::consts::SQRT_2;

use super::load;
use crate::simd::{Kernel, Lanes};

/// The share of a mean square that the variance must be for the f32 sums that it is the difference of to be trusted: its relative
/// error is about 1e-4 at most then.
const TRUSTED_SHARE: f64 = 1.0 / 512.0;

/// Mean squares below this, of u, are trusted whatever the variance: their rounding errors are nothing beside a variance of 1.
const TRUSTED_SQUARE: f64 = 1e-6;

/// Rows of coefficients of a location and a scale, `[channels]` each: the mean; the rate; what rounding the mean left of it, times
/// the rate; the peak, which is not read here; and the log-density at the mean, relative to the peak.
pub const LOCATION_SCALE_ROWS: usize = 5;

/// `bias[c] − u²` with `u = (x − mean[c]) · rate[c] + left[c]`, summed over columns and added to a panel. With `rate = 1/(√2 std)`
/// that is a Normal's log-density: `u = z/√2`. Returns true if a value is missing.
pub struct LocationScale<'a> {
    /// `[columns][width]`, NaN = missing.
    pub x: &'a [f32],
    /// For each column its coefficients, `[LOCATION_SCALE_ROWS][channels]`.
    pub coefficients: &'a [&'a [f32]],
    /// What a missing value adds is `missing · bias`: 0 when summed out, 1 for the mode.
    pub missing: f32,
    /// `[channels][width]`
    pub out: &'a mut [f32],
}

impl Kernel for LocationScale<'_> {
    type Output = bool;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> bool {
        let Self { x, coefficients, missing, out } = self;
        let (columns, width) = (coefficients.len(), x.len() / coefficients.len());
        let channels = out.len() / width;
        assert!(x.len() == columns * width && out.len() == channels * width);
        assert!(coefficients.iter().all(|of| of.len() == LOCATION_SCALE_ROWS * channels));
        if width == 1 {
            for (first, out) in (0..channels).step_by(L::LEN).zip(out.chunks_mut(L::LEN)) {
                // SAFETY: only values of the slices are read and written.
                unsafe {
                    let mut sum = load::<L>(out);
                    for (&x, of) in x.iter().zip(coefficients) {
                        let row = |row: usize| load::<L>(&of[row * channels + first..][..out.len()]);
                        let [mean, rate, left, bias] = [row(0), row(1), row(2), row(4)];
                        sum = sum.add(location_scale::<L, true>(L::splat(x), [mean, rate, left, bias], missing));
                    }
                    sum.store_first(out.as_mut_ptr(), out.len());
                }
            }
            return x.iter().any(|x| x.is_nan());
        }
        assert!(width.is_multiple_of(L::LEN));
        let panel = LocationScalePanel { x, width, coefficients, missing };
        // SAFETY: the slices are as long as checked above; the instruction set is the caller's contract.
        unsafe {
            let some_missing = (0..x.len()).step_by(L::LEN).any(|at| L::any(L::load(x.as_ptr().add(at)).is_nan()));
            match (width.is_multiple_of(2 * L::LEN), some_missing) {
                (true, false) => panel.add_to::<L, 2, false>(out),
                (true, true) => panel.add_to::<L, 2, true>(out),
                (false, false) => panel.add_to::<L, 1, false>(out),
                (false, true) => panel.add_to::<L, 1, true>(out),
            }
            some_missing
        }
    }
}

/// What one value adds, given the mean, the rate, the rest of the mean and the bias; `MISSING` if it may be NaN.
///
/// # Safety
/// The instruction set of `L` is available.
#[inline(always)]
unsafe fn location_scale<L: Lanes, const MISSING: bool>(x: L, [mean, rate, left, bias]: [L; 4], missing: f32) -> L {
    // SAFETY: the caller's contract.
    unsafe {
        let u = x.sub(mean).mul_add(rate, left);
        let y = u.neg_mul_add(u, bias);
        if MISSING { L::select(x.is_nan(), bias.mul(L::splat(missing)), y) } else { y }
    }
}

/// The values and coefficients of a [`LocationScale`] of more than one row.
#[derive(Clone, Copy)]
struct LocationScalePanel<'a> {
    x: &'a [f32],
    width: usize,
    coefficients: &'a [&'a [f32]],
    missing: f32,
}

impl LocationScalePanel<'_> {
    /// Adds to all channels, `REGISTERS` registers of rows at a time.
    ///
    /// # Safety
    /// The slices have the lengths that [`LocationScale`] names, and the width is a multiple of `REGISTERS · L::LEN`; the
    /// instruction set of `L` is available.
    #[inline(always)]
    unsafe fn add_to<L: Lanes, const REGISTERS: usize, const MISSING: bool>(self, out: &mut [f32]) {
        let LocationScalePanel { x, width, coefficients, missing } = self;
        let channels = out.len() / width;
        for (c, out) in out.chunks_exact_mut(width).enumerate() {
            for (j, out) in (0..width).step_by(REGISTERS * L::LEN).zip(out.chunks_exact_mut(REGISTERS * L::LEN)) {
                // SAFETY: j + REGISTERS · L::LEN <= width and c < channels keep every access inside the slices.
                unsafe {
                    let mut sums = [L::splat(0.0); REGISTERS];
                    for (r, sum) in sums.iter_mut().enumerate() {
                        *sum = L::load(out.as_ptr().add(r * L::LEN));
                    }
                    for (k, of) in coefficients.iter().enumerate() {
                        let of = of.as_ptr().add(c);
                        let (mean, rate) = (L::splat(*of), L::splat(*of.add(channels)));
                        let (left, bias) = (L::splat(*of.add(2 * channels)), L::splat(*of.add(4 * channels)));
                        let x = x.as_ptr().add(k * width + j);
                        for (r, sum) in sums.iter_mut().enumerate() {
                            let x = L::load(x.add(r * L::LEN));
                            *sum = sum.add(location_scale::<L, MISSING>(x, [mean, rate, left, bias], missing));
                        }
                    }
                    for (r, sum) in sums.into_iter().enumerate() {
                        sum.store(out.as_mut_ptr().add(r * L::LEN));
                    }
                }
            }
        }
    }
}

/// `mode − z²/2` with `z = (x − mean) · inv_std`, added to one channel of a panel in float64. The compiler makes vectors of the
/// loop.
pub struct ExactLocationScale<'a> {
    /// NaN = missing.
    pub x: &'a [f32],
    /// The mean.
    pub mean: f64,
    /// 1 / standard deviation.
    pub inv_std: f64,
    /// The log-density at the mean.
    pub mode: f64,
    /// What a missing value adds.
    pub missing: f64,
    /// As many as values.
    pub out: &'a mut [f64],
}

impl Kernel for ExactLocationScale<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { x, mean, inv_std, mode, missing, out } = self;
        for (out, x) in out.iter_mut().zip(x) {
            let z = (f64::from(*x) - mean) * inv_std;
            *out += if x.is_nan() { missing } else { mode - 0.5 * z * z };
        }
    }
}

/// For every channel the sums over observed rows of flow, flow·z and flow·z², `z = √2 u` with the u of [`LocationScale`]. Where u
/// varies little against its mean, a second pass adds relative to that mean, since the variance would be lost in rounding
/// errors. Channels with an infinite u are left out and named.
pub struct LocationScaleCounts<'a> {
    /// `[panels][width]`, NaN = missing.
    pub x: &'a [f32],
    /// The width.
    pub width: usize,
    /// `[channels]`
    pub mean: &'a [f32],
    /// `[channels]`
    pub rate: &'a [f32],
    /// `[channels]`: what rounding the mean left of it, times the rate.
    pub left: &'a [f32],
    /// `[panels][channels][width]`
    pub flow: &'a [f32],
    /// `[3][channels]`, added to.
    pub counts: &'a mut [f64],
    /// The channels that were left out are appended.
    pub far: &'a mut Vec<usize>,
}

impl Kernel for LocationScaleCounts<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { x, width, mean, rate, left, flow, counts, far } = self;
        let (n, channels) = (x.len(), mean.len());
        assert!(width.is_multiple_of(L::LEN) && n.is_multiple_of(width) && rate.len() == channels);
        assert!(left.len() == channels && flow.len() == channels * n && counts.len() == 3 * channels);
        for c in 0..channels {
            let of_channel = Values { x, width, flow, channels, c };
            let (m, s, left) = (mean[c], rate[c], left[c]);
            // SAFETY: the slices are as long as checked above; the instruction set is the caller's contract.
            let mut sums = unsafe { of_channel.sums::<L>(m, s, left) };
            let [flow, first, second] = sums;
            let spread = flow * second - first * first;
            // Not a number, where no flow met an infinite u, is not trusted either.
            let trusted = second <= TRUSTED_SQUARE * flow || spread >= TRUSTED_SHARE * flow * second;
            if !trusted {
                let pivot = (f64::from(m) + (first / flow - f64::from(left)) / f64::from(s)) as f32;
                // SAFETY: as above.
                let [flow, first, second] = unsafe { of_channel.sums::<L>(pivot, s, 0.0) };
                // From the pivot to the mean, in float64: u = u' + d.
                let d = (f64::from(pivot) - f64::from(m)) * f64::from(s) + f64::from(left);
                sums = [flow, first + d * flow, second + d * (2.0 * first + d * flow)];
            }
            if sums.iter().all(|sum| sum.is_finite()) {
                // z = √2 u
                for (power, factor) in [1.0, SQRT_2, 2.0].into_iter().enumerate() {
                    counts[power * channels + c] += factor * sums[power];
                }
            } else {
                far.push(c);
            }
        }
    }
}

/// One channel of a tile.
#[derive(Clone, Copy)]
struct Values<'a> {
    x: &'a [f32],
    width: usize,
    flow: &'a [f32],
    channels: usize,
    c: usize,
}

impl Values<'_> {
    /// The sums over observed rows of flow, flow·u and flow·u², `u = (x − mean) · rate + left`.
    ///
    /// # Safety
    /// `x` is whole panels of `width` rows, a multiple of `L::LEN`; `flow` has `channels` values for each row, and `c < channels`.
    #[inline(always)]
    unsafe fn sums<L: Lanes>(self, mean: f32, rate: f32, left: f32) -> [f64; 3] {
        let Values { x, width, flow, channels, c } = self;
        // SAFETY: panel + j + L::LEN <= x.len() and c < channels keep every access inside the slices.
        unsafe {
            let (m, s, left) = (L::splat(mean), L::splat(rate), L::splat(left));
            let mut sums = [L::splat(0.0); 3];
            for panel in (0..x.len()).step_by(width) {
                for j in (0..width).step_by(L::LEN) {
                    let x = L::load(x.as_ptr().add(panel + j));
                    let (missing, zero) = (x.is_nan(), L::splat(0.0));
                    let f = L::load(flow.as_ptr().add(panel * channels + c * width + j));
                    let f = L::select(missing, zero, f);
                    let u = L::select(missing, zero, x.sub(m).mul_add(s, left));
                    let fu = f.mul(u);
                    sums = [sums[0].add(f), sums[1].add(fu), fu.mul_add(u, sums[2])];
                }
            }
            sums.map(|sum| f64::from(sum.reduce_add()))
        }
    }
}

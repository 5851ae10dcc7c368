//! What a sum does around its matrix products, over tiles `[channel][row]` whose row count is a multiple of 16.

use super::{Kernel, Lanes, math};

/// Sums of scaled exponentials below this are not trusted: a term lost by flushing below 2^-126 could matter. They are
/// computed anew in logarithms.
pub const SMALLEST_SUM: f32 = 1e-30;

/// `max[row] = max_c x[c][row]` (0 where that is -inf) and `e = exp(x − max)`.
pub struct Exponentials<'a> {
    /// `[channels][n]`
    pub x: &'a [f32],
    /// `[channels][n]`
    pub e: &'a mut [f32],
    /// `[n]`
    pub max: &'a mut [f32],
    /// Rows of the tile.
    pub n: usize,
}

impl Kernel for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { x, e, max, n } = self;
        assert!(n.is_multiple_of(L::LEN) && x.len() == e.len() && x.len().is_multiple_of(n) && max.len() == n);
        let channels = x.len() / n;
        for j in (0..n).step_by(L::LEN) {
            // SAFETY: j + L::LEN <= n and c < channels keep every access inside the slices checked above.
            unsafe {
                let mut m = L::splat(f32::NEG_INFINITY);
                for c in 0..channels {
                    m = L::load(x.as_ptr().add(c * n + j)).max(m);
                }
                let m = L::select(m.eq(L::splat(f32::NEG_INFINITY)), L::splat(0.0), m);
                m.store(max.as_mut_ptr().add(j));
                for c in 0..channels {
                    math::exp(L::load(x.as_ptr().add(c * n + j)).sub(m)).store(e.as_mut_ptr().add(c * n + j));
                }
            }
        }
    }
}

/// `out += log(sum)` where the sum can be trusted; returns whether there are others.
pub struct LogAdd<'a> {
    /// `[channels][n]`
    pub sum: &'a [f32],
    /// As many values.
    pub out: &'a mut [f32],
}

impl Kernel for LogAdd<'_> {
    type Output = bool;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> bool {
        let Self { sum, out } = self;
        assert!(sum.len() == out.len() && sum.len().is_multiple_of(L::LEN));
        let mut untrusted = false;
        for at in (0..sum.len()).step_by(L::LEN) {
            // SAFETY: at + L::LEN <= sum.len() == out.len().
            unsafe {
                let s = L::load(sum.as_ptr().add(at));
                let small = s.lt(L::splat(SMALLEST_SUM));
                untrusted |= L::any(small);
                let to = out.as_mut_ptr().add(at);
                L::load(to).add(L::select(small, L::splat(0.0), math::log(s))).store(to);
            }
        }
        untrusted
    }
}

/// `out[row] += max_c (x[c][row] + log_w[c])`: one output channel of a sum in the max-product semiring.
pub struct MaxPlus<'a> {
    /// `[channels][n]`
    pub x: &'a [f32],
    /// `[channels]`
    pub log_w: &'a [f32],
    /// `[n]`
    pub out: &'a mut [f32],
}

impl Kernel for MaxPlus<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { x, log_w, out } = self;
        let n = out.len();
        assert!(n.is_multiple_of(L::LEN) && x.len() == log_w.len() * n);
        for j in (0..n).step_by(L::LEN) {
            // SAFETY: j + L::LEN <= n, and x has n values for each log weight.
            unsafe {
                let mut y = L::splat(f32::NEG_INFINITY);
                for (c, w) in log_w.iter().enumerate() {
                    y = L::load(x.as_ptr().add(c * n + j)).add(L::splat(*w)).max(y);
                }
                let to = out.as_mut_ptr().add(j);
                L::load(to).add(y).store(to);
            }
        }
    }
}

/// `e = exp(x − max)`, both as it lies and transposed: what the downward pass multiplies with.
pub struct Transposed<'a> {
    /// `[channels][n]`
    pub x: &'a [f32],
    /// `[n]`
    pub max: &'a [f32],
    /// `[channels][n]`
    pub e: &'a mut [f32],
    /// `[n][channels]`
    pub transposed: &'a mut [f32],
}

impl Kernel for Transposed<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { x, max, e, transposed } = self;
        let n = max.len();
        assert!(n.is_multiple_of(L::LEN) && x.len() == e.len() && x.len() == transposed.len());
        let channels = x.len() / n;
        for c in 0..channels {
            for j in (0..n).step_by(L::LEN) {
                // SAFETY: c < channels and j + L::LEN <= n keep every access inside the slices checked above.
                unsafe {
                    let at = c * n + j;
                    let v = math::exp(L::load(x.as_ptr().add(at)).sub(L::load(max.as_ptr().add(j))));
                    v.store(e.as_mut_ptr().add(at));
                    for lane in 0..L::LEN {
                        *transposed.get_unchecked_mut((j + lane) * channels + c) = *e.get_unchecked(at + lane);
                    }
                }
            }
        }
    }
}

/// `q = flow / sum`, 0 where the sum is not trusted; returns whether flow was left out for that.
pub struct Quotients<'a> {
    /// `[channels][n]`
    pub flow: &'a [f32],
    /// `[channels][n]`
    pub sum: &'a [f32],
    /// `[channels][n]`
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

/// `flow *= e`.
pub struct Multiply<'a> {
    /// The factor.
    pub e: &'a [f32],
    /// As many values.
    pub flow: &'a mut [f32],
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { e, flow } = self;
        assert!(e.len() == flow.len() && e.len().is_multiple_of(L::LEN));
        for at in (0..e.len()).step_by(L::LEN) {
            // SAFETY: at + L::LEN <= the common length of the slices.
            unsafe {
                let to = flow.as_mut_ptr().add(at);
                L::load(to).mul(L::load(e.as_ptr().add(at))).store(to);
            }
        }
    }
}

/// Log-densities of one variable, added to a tile: `out[c] += bias[c] − z²/2` with `z = (x − mean[c]) · inv_std[c]`.
pub struct LocationScale<'a> {
    /// `[n]`, NaN = missing.
    pub x: &'a [f32],
    /// `[channels]`
    pub mean: &'a [f32],
    /// `[channels]`
    pub inv_std: &'a [f32],
    /// `[channels]`: the log-density at the mean.
    pub bias: &'a [f32],
    /// What a missing value adds is `missing · bias`: 0 when summed out, 1 for the mode.
    pub missing: f32,
    /// `[channels][n]`
    pub out: &'a mut [f32],
}

impl Kernel for LocationScale<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { x, mean, inv_std, bias, missing, out } = self;
        let (n, channels) = (x.len(), mean.len());
        assert!(n.is_multiple_of(L::LEN) && inv_std.len() == channels && bias.len() == channels);
        assert!(out.len() == channels * n);
        for c in 0..channels {
            // SAFETY: j + L::LEN <= n and c < channels keep every access inside the slices checked above.
            unsafe {
                let (m, s, b) = (L::splat(mean[c]), L::splat(inv_std[c]), L::splat(bias[c]));
                for j in (0..n).step_by(L::LEN) {
                    let x = L::load(x.as_ptr().add(j));
                    let z = x.sub(m).mul(s);
                    let y = z.mul(L::splat(-0.5)).mul_add(z, b);
                    let to = out.as_mut_ptr().add(c * n + j);
                    L::load(to).add(L::select(x.is_nan(), b.mul(L::splat(missing)), y)).store(to);
                }
            }
        }
    }
}

/// Statistics of one variable: for every channel the sums over observed rows of flow, flow·z and flow·z².
pub struct LocationScaleCounts<'a> {
    /// `[n]`, NaN = missing.
    pub x: &'a [f32],
    /// `[channels]`
    pub mean: &'a [f32],
    /// `[channels]`
    pub inv_std: &'a [f32],
    /// `[channels][n]`
    pub flow: &'a [f32],
    /// `[3][channels]`, added to.
    pub counts: &'a mut [f32],
}

impl Kernel for LocationScaleCounts<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { x, mean, inv_std, flow, counts } = self;
        let (n, channels) = (x.len(), mean.len());
        assert!(n.is_multiple_of(L::LEN) && inv_std.len() == channels);
        assert!(flow.len() == channels * n && counts.len() == 3 * channels);
        for c in 0..channels {
            // SAFETY: j + L::LEN <= n and c < channels keep every access inside the slices checked above.
            unsafe {
                let (m, s) = (L::splat(mean[c]), L::splat(inv_std[c]));
                let mut sums = [L::splat(0.0); 3];
                for j in (0..n).step_by(L::LEN) {
                    let x = L::load(x.as_ptr().add(j));
                    let (missing, zero) = (x.is_nan(), L::splat(0.0));
                    let f = L::select(missing, zero, L::load(flow.as_ptr().add(c * n + j)));
                    let z = L::select(missing, zero, x.sub(m).mul(s));
                    let fz = f.mul(z);
                    sums = [sums[0].add(f), sums[1].add(fz), fz.mul_add(z, sums[2])];
                }
                counts[c] += sums[0].reduce_add();
                counts[channels + c] += sums[1].reduce_add();
                counts[2 * channels + c] += sums[2].reduce_add();
            }
        }
    }
}

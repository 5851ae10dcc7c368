//! Log-densities of one variable for a panel of rows, and its flow-weighted statistics for a tile of panels: natural forms and tables.

use super::{greatest, load};
use crate::simd::{Kernel, Lanes, lanes::MOST_LANES, math};

/// `sum_k eta[k][c] · T_k + bias[c] + h`, added to a panel; `0 · (−inf) = 0`.
pub struct Natural<'a> {
    /// `[statistics + 1][width]`: T and then h of each row's value.
    pub sufficient: &'a [f32],
    /// `[width]`: 1 for an observed value, 0 for a missing one.
    pub observed: &'a [f32],
    /// `[statistics + 1][channels]`: eta, and then what does not depend on the value.
    pub eta: &'a [f32],
    /// `[channels]`: the log-density of the mode.
    pub mode: &'a [f32],
    /// What a missing value adds is `missing · mode`: 0 when summed out, 1 for the mode.
    pub missing: f32,
    /// `[channels][width]`
    pub out: &'a mut [f32],
}

impl Kernel for Natural<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { sufficient, observed, eta, mode, missing, out } = self;
        let (n, channels) = (observed.len(), mode.len());
        let statistics = eta.len() / channels - 1;
        assert!(eta.len() == (statistics + 1) * channels);
        assert!(sufficient.len() == (statistics + 1) * n && out.len() == channels * n);
        if n == 1 {
            for (first, out) in (0..channels).step_by(L::LEN).zip(out.chunks_mut(L::LEN)) {
                let count = out.len();
                let of = |row: usize| &eta[row * channels + first..][..count];
                // SAFETY: only values of the slices are read and written.
                unsafe {
                    let mut y = load::<L>(of(statistics));
                    for (k, &t) in sufficient[..statistics].iter().enumerate().filter(|(_, t)| **t != 0.0) {
                        y = L::splat(t).mul_add(load(of(k)), y);
                    }
                    if observed[0] == 0.0 {
                        y = load::<L>(&mode[first..][..count]).mul(L::splat(missing));
                    } else {
                        y = y.add(L::splat(sufficient[statistics]));
                    }
                    load::<L>(out).add(y).store_first(out.as_mut_ptr(), count);
                }
            }
            return;
        }
        assert!(n.is_multiple_of(L::LEN));
        for c in 0..channels {
            for j in (0..n).step_by(L::LEN) {
                // SAFETY: j + L::LEN <= n, k <= statistics and c < channels keep every access inside the slices.
                unsafe {
                    let zero = L::splat(0.0);
                    let mut y = L::splat(eta[statistics * channels + c]);
                    for k in 0..statistics {
                        let t = L::load(sufficient.as_ptr().add(k * n + j));
                        y = L::select(t.eq(zero), y, t.mul_add(L::splat(eta[k * channels + c]), y));
                    }
                    let y = y.add(L::load(sufficient.as_ptr().add(statistics * n + j)));
                    let unobserved = L::load(observed.as_ptr().add(j)).eq(zero);
                    let y = L::select(unobserved, L::splat(mode[c]).mul(L::splat(missing)), y);
                    let to = out.as_mut_ptr().add(c * n + j);
                    L::load(to).add(y).store(to);
                }
            }
        }
    }
}

/// For every channel the sums over observed rows of flow and flow·T.
pub struct NaturalCounts<'a> {
    /// `[statistics][panels][width]`, 0 for missing values.
    pub sufficient: &'a [f32],
    /// `[panels][width]`: 1 for an observed value, 0 for a missing one.
    pub observed: &'a [f32],
    /// The width.
    pub width: usize,
    /// `[panels][channels][width]`
    pub flow: &'a [f32],
    /// `[1 + statistics][channels]`, added to.
    pub counts: &'a mut [f64],
}

impl Kernel for NaturalCounts<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { sufficient, observed, width, flow, counts } = self;
        let n = observed.len();
        let (channels, statistics) = (flow.len() / n, sufficient.len() / n);
        assert!(width.is_multiple_of(L::LEN) && n.is_multiple_of(width) && flow.len() == channels * n);
        assert!(sufficient.len() == statistics * n && counts.len() == (1 + statistics) * channels);
        for c in 0..channels {
            for k in 0..=statistics {
                let factors = if k == 0 { observed } else { &sufficient[(k - 1) * n..k * n] };
                // SAFETY: j + L::LEN <= width, whole panels and c < channels keep every access inside the slices.
                unsafe {
                    let mut sum = L::splat(0.0);
                    for panel in (0..n).step_by(width) {
                        for j in (0..width).step_by(L::LEN) {
                            let f = L::load(flow.as_ptr().add(panel * channels + c * width + j));
                            sum = f.mul_add(L::load(factors.as_ptr().add(panel + j)), sum);
                        }
                    }
                    counts[k * channels + c] += f64::from(sum.reduce_add());
                }
            }
        }
    }
}

/// `table[x][c]`, added to a panel.
pub struct Table<'a> {
    /// For each row of the panel its row of the table, `[channels]` values or more.
    pub rows: &'a [&'a [f32]],
    /// `[channels][width]`
    pub out: &'a mut [f32],
}

impl Kernel for Table<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { rows, out } = self;
        let width = rows.len();
        if let [row] = rows {
            let row = &row[..out.len()];
            out.iter_mut().zip(row).for_each(|(out, x)| *out += x);
            return;
        }
        assert!(width.is_multiple_of(L::LEN) && out.len().is_multiple_of(width));
        let channels = out.len() / width;
        let whole = channels / L::LEN * L::LEN;
        let mut square = [0.0; MOST_LANES * MOST_LANES];
        for (group, rows) in rows.chunks_exact(L::LEN).enumerate() {
            for c in (0..whole).step_by(L::LEN) {
                let mut from = [square.as_ptr(); MOST_LANES];
                for (from, row) in from.iter_mut().zip(rows) {
                    *from = row[c..][..L::LEN].as_ptr();
                }
                // SAFETY: the rows have L::LEN values from c on, the square has L::LEN², a row of the panel follows at `to`.
                unsafe {
                    L::transpose(&from, square.as_mut_ptr(), L::LEN);
                    for i in 0..L::LEN {
                        let to = out[(c + i) * width + group * L::LEN..][..L::LEN].as_mut_ptr();
                        L::load(to).add(L::load(square.as_ptr().add(i * L::LEN))).store(to);
                    }
                }
            }
        }
        for c in whole..channels {
            out[c * width..].iter_mut().zip(rows).for_each(|(out, row)| *out += row[c]);
        }
    }
}

/// Flows of one panel, added to rows of counts, f32 or float64: `counts[0] += flow`, `counts[1 + x] += flow` for each observed
/// row.
pub struct TableCounts<'a, T> {
    /// `[width]`, NaN = missing.
    pub x: &'a [f32],
    /// `[width][channels]`
    pub flow: &'a [f32],
    /// `[1 + size][channels]`, added to.
    pub counts: &'a mut [T],
}

impl<T: From<f32> + std::ops::AddAssign> Kernel for TableCounts<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { x, flow, counts } = self;
        let channels = flow.len() / x.len();
        for (x, flow) in x.iter().zip(flow.chunks_exact(channels)).filter(|(x, _)| !x.is_nan()) {
            for row in [0, 1 + *x as usize] {
                counts[row * channels..][..channels].iter_mut().zip(flow).for_each(|(count, f)| *count += T::from(*f));
            }
        }
    }
}

/// `x = log x`, in place.
pub struct Logarithms<'a> {
    /// Any number of values.
    pub x: &'a mut [f32],
}

impl Kernel for Logarithms<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for x in self.x.chunks_mut(L::LEN) {
            // SAFETY: only the chunk's own values are read and written.
            unsafe { math::log(L::load_first(x.as_ptr(), x.len())).store_first(x.as_mut_ptr(), x.len()) };
        }
    }
}

/// The largest value; -inf where there is none.
pub struct Largest<'a> {
    /// Any number of values.
    pub x: &'a [f32],
}

impl Kernel for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        // SAFETY: the instruction set is the caller's contract.
        unsafe { greatest::<L>(self.x, f32::NEG_INFINITY) }
    }
}

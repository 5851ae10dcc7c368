//! Leaf distributions, laid out for the SIMD loops in f32. Rows that f32 cannot hold are computed in float64 ([`exact`]).

mod exact;

use std::f64::consts::FRAC_1_SQRT_2;

use convpc_core::{Family, Form, Semiring, Structure};
use rayon::{prelude::*, slice::ChunksExactMut};

use crate::{
    shares::{Recent, ShareCounts},
    simd::{
        Isa, MOST_LANES, MOST_WIDTH,
        ops::{
            Largest, LocationScale, LocationScaleCounts, Logarithms, Natural, NaturalCounts, Table, TableCounts,
            Transpose,
        },
    },
};

/// The most values of a variable for which a log-density in natural form is computed in f32: it is a small difference of terms that
/// grow with the number of values. Measured against float64 the error is below 4e-5 nats.
const MOST_VALUES_IN_F32: usize = 256;

/// Leaf parameters as the loops read them: for each (row of the tensor, repetition) a few rows of `channels` values.
///
/// The rows are the family's coefficients, the last of which a missing value adds in the max-product semiring. For location and
/// scale they are those of [`location_scale`].
#[derive(Debug)]
pub(crate) struct Leaves {
    family: Family,
    channels: usize,
    repetitions: usize,
    rows: usize,
    values: Vec<f32>,
    /// Natural form, discrete: for each value its statistics and `h`.
    sufficient: Vec<f32>,
    /// What a missing value finds in a table where it is summed out, one a channel.
    zeros: Vec<f32>,
    /// The largest absolute log-density, in nats, for which a row is computed in f32.
    trusted: f32,
}

/// Scratch buffers for the leaves of one thread.
#[derive(Debug, Default)]
pub(crate) struct LeafScratch {
    sufficient: Vec<f32>,
    observed: Vec<f32>,
    transposed: Vec<f32>,
    /// Channels whose statistics are added in float64 for this tile.
    far: Vec<usize>,
    /// Of one leaf, in float64.
    coefficients: Vec<f64>,
    statistics: Vec<f64>,
}

/// What the log-densities of a panel's rows are relative to, nats.
#[derive(Debug, Default)]
pub(crate) struct Peaks {
    common: f64,
    /// What is to be added for each row; empty where nothing is.
    by_row: Vec<f64>,
}

impl Peaks {
    /// For rows without log-densities yet.
    pub(crate) fn clear(&mut self) {
        self.common = 0.0;
        self.by_row.clear();
    }

    /// That of a row.
    pub(crate) fn of(&self, row: usize) -> f64 {
        self.common + self.by_row.get(row).copied().unwrap_or(0.0)
    }

    /// Replaces that of one of so many rows.
    pub(crate) fn set(&mut self, row: usize, rows: usize, peak: f64) {
        self.by_row.resize(rows, 0.0);
        self.by_row[row] = peak - self.common;
    }
}

/// How the parameters of one row of the tensor become rows of coefficients, and the rows of its counts those of each leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    family: Family,
    channels: usize,
    repetitions: usize,
    rows: usize,
    isa: Isa,
}

/// Channels that are transposed together: whole registers, and whole lines of the cache.
pub(crate) const TOGETHER: usize = MOST_LANES;

/// What [`Layout`] transposes with.
#[derive(Debug, Default)]
pub(crate) struct Squares {
    from: Vec<f32>,
    to: Vec<f32>,
    coefficients: Vec<f64>,
}

impl Layout {
    /// From `theta`, `[channels][repetitions][parameters]`, to `values`, `[repetitions][rows][channels]`.
    pub(crate) fn lay(&self, theta: &[f64], values: &mut [f32], squares: &mut Squares) {
        let Layout { family, channels, repetitions, rows, isa } = *self;
        let (size, width) = (family.parameters(), rows.next_multiple_of(TOGETHER));
        let Squares { from, to, coefficients } = squares;
        from.resize(TOGETHER * width, 0.0);
        to.resize(TOGETHER * width, 0.0);
        for (r, values) in values.chunks_exact_mut(rows * channels).enumerate() {
            let of_repetition = theta.chunks_exact(size).skip(r).step_by(repetitions);
            let peak = if family.form() == Form::LocationScale { peak(family, of_repetition) } else { 0.0 };
            for first in (0..channels).step_by(TOGETHER) {
                let together = TOGETHER.min(channels - first);
                for (c, from) in (first..first + together).zip(from.chunks_exact_mut(width)) {
                    let theta = &theta[(c * repetitions + r) * size..][..size];
                    if let Form::Table { free: true, .. } = family.form() {
                        table(isa, theta, &mut from[..rows]);
                    } else {
                        coefficients.clear();
                        family.coefficients(theta, coefficients);
                        match family.form() {
                            Form::LocationScale => from[..5].copy_from_slice(&location_scale(coefficients, peak)),
                            _ => from.iter_mut().zip(&*coefficients).for_each(|(to, v)| *to = *v as f32),
                        }
                    }
                }
                isa.dispatch(Transpose { from, to, width });
                for (values, to) in values.chunks_exact_mut(channels).zip(to.chunks_exact(TOGETHER)) {
                    values[first..first + together].copy_from_slice(&to[..together]);
                }
            }
        }
    }

    /// Adds counts of [`TOGETHER`] channels from the `first` on, or of those that there are, from `[1 + statistics][channels]`
    /// to `[channels][1 + statistics]`.
    pub(crate) fn add_counts(&self, counts: Recent, first: usize, sum: &mut [f64], squares: &mut Squares) {
        let Layout { family, channels, isa, .. } = *self;
        let size = 1 + family.statistics();
        let counts = match counts {
            Recent::Single(counts) => counts,
            Recent::Double(counts) => {
                for (c, sum) in (first..).zip(sum.chunks_exact_mut(size)) {
                    sum.iter_mut().zip(counts[c..].iter().step_by(channels)).for_each(|(sum, n)| *sum += n);
                }
                return;
            }
        };
        let (together, width) = (sum.len() / size, size.next_multiple_of(TOGETHER));
        let Squares { from, to, .. } = squares;
        from.resize(TOGETHER * width, 0.0);
        to.resize(TOGETHER * width, 0.0);
        for (counts, from) in counts.chunks_exact(channels).zip(from.chunks_exact_mut(TOGETHER)) {
            from[..together].copy_from_slice(&counts[first..first + together]);
        }
        isa.dispatch(Transpose { from, to, width: TOGETHER });
        for (sum, to) in sum.chunks_exact_mut(size).zip(to.chunks_exact(width)) {
            sum.iter_mut().zip(to).for_each(|(sum, n)| *sum += f64::from(*n));
        }
    }
}

/// The largest log-density that any of these leaves has at its mean, which is that of the narrowest one, rounded to f32.
fn peak<'a>(family: Family, leaves: impl Iterator<Item = &'a [f64]>) -> f32 {
    let narrowest = leaves.map(|theta| theta[1]).fold(f64::INFINITY, f64::min);
    family.log_density(&[0.0, narrowest], 0.0) as f32
}

/// The coefficients of a location and a scale: the mean rounded to f32, the rate `1/(√2 std)`, what the rounding left of the mean,
/// times the rate, the peak, and the log-density at the mean relative to the peak. The peak itself is added in float64, see
/// [`Peaks`], since the log-densities of narrow distributions are large, and those of many pixels add up.
fn location_scale(coefficients: &[f64], peak: f32) -> [f32; 5] {
    let (mean, rate, bias) = (coefficients[0], coefficients[1] * FRAC_1_SQRT_2, coefficients[2]);
    let rounded = mean as f32;
    // It stays finite, so that adding it to an infinite number is harmless.
    let left = ((f64::from(rounded) - mean) * rate).clamp(f64::from(f32::MIN), f64::from(f32::MAX));
    [rounded, rate as f32, left as f32, peak, (bias - f64::from(peak)) as f32]
}

/// The largest absolute log-density, in nats, for which a row is computed in f32.
///
/// Far from all means, the squares in a Normal's log-density are large, and their differences between channels have few digits in
/// f32; beyond 1.8e19 standard deviations squares overflow. Where many leaves are added before the first sum, large
/// log-densities of both signs may cancel later. A binomial of many trials is a small difference of large terms.
fn trusted(family: Family) -> f32 {
    match family.form() {
        Form::LocationScale => 64.0,
        // No row is trusted.
        Form::Natural if family.cardinality().is_none_or(|values| values > MOST_VALUES_IN_F32) => -1.0,
        Form::Natural | Form::Table { .. } => f32::INFINITY,
    }
}

/// The coefficients of a table whose parameters are its probabilities: their logarithms, then the largest of them.
fn table(isa: Isa, p: &[f64], coefficients: &mut [f32]) {
    if let Some((mode, logarithms)) = coefficients.split_last_mut() {
        log_table(isa, p, logarithms);
        *mode = isa.dispatch(Largest { x: logarithms });
    }
}

/// The logarithms of probabilities.
pub(crate) fn log_table(isa: Isa, p: &[f64], logarithms: &mut [f32]) {
    let mut beyond = false;
    for (to, &p) in logarithms.iter_mut().zip(p) {
        *to = p as f32;
        beyond |= p > 0.0 && p < f64::from(f32::MIN_POSITIVE);
    }
    if beyond {
        // What f32 holds only in part, or not at all, has a logarithm all the same.
        logarithms.iter_mut().zip(p).for_each(|(to, p)| *to = p.ln() as f32);
    } else {
        isa.dispatch(Logarithms { x: logarithms });
    }
}

impl Leaves {
    pub(crate) fn new(structure: &Structure, isa: Isa, tensor: &[f64]) -> Self {
        let (family, shape) = (structure.leaf().family, structure.shape(0));
        let (channels, repetitions) = (shape.channels, shape.repetitions);
        let rows = family.coefficient_count() + if family.form() == Form::LocationScale { 2 } else { 0 };
        let values = vec![0.0; structure.leaf_rows() * repetitions * rows * channels];
        let sufficient = family.sufficient_table().unwrap_or_default().into_iter().map(|v| v as f32).collect();
        let (zeros, trusted) = (vec![0.0; channels], trusted(family));
        let mut leaves = Leaves { family, channels, repetitions, rows, values, sufficient, zeros, trusted };
        leaves.set(isa, tensor);
        leaves
    }

    /// Takes other parameters, rows of the tensor on all threads of the current pool.
    pub(crate) fn set(&mut self, isa: Isa, tensor: &[f64]) {
        let theta = self.channels * self.repetitions * self.family.parameters();
        let (layout, rows) = self.rows_mut(isa);
        let lay = |squares: &mut Squares, (values, theta): (&mut [f32], &[f64])| layout.lay(theta, values, squares);
        rows.zip(tensor.par_chunks_exact(theta)).for_each_init(Squares::default, lay);
    }

    /// The coefficients of each row of the tensor, to be written anew, and their layout.
    pub(crate) fn rows_mut(&mut self, isa: Isa) -> (Layout, ChunksExactMut<'_, f32>) {
        let Leaves { family, channels, repetitions, rows, .. } = *self;
        let layout = Layout { family, channels, repetitions, rows, isa };
        (layout, self.values.par_chunks_exact_mut(repetitions * rows * channels))
    }

    fn of(&self, leaf: usize, repetition: usize) -> &[f32] {
        let size = self.rows * self.channels;
        let start = (leaf * self.repetitions + repetition) * size;
        &self.values[start..start + size]
    }

    /// Fills in the statistics `[statistics + 1][n]` of the natural form, `h` the last, and which values are observed.
    fn natural(&self, x: &[f32], scratch: &mut LeafScratch) {
        let (size, n) = (self.family.statistics(), x.len());
        scratch.sufficient.clear();
        scratch.sufficient.resize((size + 1) * n, 0.0);
        scratch.observed.clear();
        scratch.observed.extend(x.iter().map(|x| f32::from(!x.is_nan())));
        let mut exact = vec![0.0; size];
        for (j, &x) in x.iter().enumerate().filter(|(_, x)| !x.is_nan()) {
            let to = scratch.sufficient[j..].iter_mut().step_by(n);
            if self.sufficient.is_empty() {
                self.family.sufficient(&[], f64::from(x), &mut exact);
                let base = self.family.log_base(f64::from(x));
                to.zip(exact.iter().chain([&base])).for_each(|(to, t)| *to = *t as f32);
            } else {
                let t = &self.sufficient[x as usize * (size + 1)..][..size + 1];
                to.zip(t).for_each(|(to, t)| *to = *t);
            }
        }
    }

    /// Adds the peak of one column, but for rows whose value is missing and adds nothing.
    fn add_peak(peak: f32, x: &[f32], left_out_missing: bool, peaks: &mut Peaks) {
        let peak = f64::from(peak);
        peaks.common += peak;
        if left_out_missing {
            peaks.by_row.resize(x.len(), 0.0);
            peaks.by_row.iter_mut().zip(x).filter(|(_, x)| x.is_nan()).for_each(|(to, _)| *to -= peak);
        }
    }

    /// Adds the log-densities of one column to a panel `[channels][width]`; `x` holds the column's values, `leaf` is its row of the
    /// parameter tensor. Those of a location and a scale are relative to a peak, which is added to the peaks.
    pub(crate) fn upward(
        &self,
        isa: Isa,
        (leaf, repetition): (usize, usize),
        x: &[f32],
        semiring: Semiring,
        scratch: &mut LeafScratch,
        (out, peaks): (&mut [f32], &mut Peaks),
    ) {
        let (p, channels) = (self.of(leaf, repetition), self.channels);
        let (rest, mode) = p.split_at((self.rows - 1) * channels);
        let max = semiring == Semiring::MaxProduct;
        let missing = f32::from(max);
        match self.family.form() {
            Form::LocationScale => {
                let (mean, rest) = rest.split_at(channels);
                let (rate, rest) = rest.split_at(channels);
                let (left, peak) = rest.split_at(channels);
                let some_missing = isa.dispatch(LocationScale { x, mean, rate, left, bias: mode, missing, out });
                Self::add_peak(peak[0], x, some_missing && !max, peaks);
            }
            Form::Natural => {
                self.natural(x, scratch);
                let LeafScratch { sufficient, observed, .. } = scratch;
                isa.dispatch(Natural { sufficient, observed, eta: rest, mode, missing, out });
            }
            Form::Table { .. } => {
                let missing = if max { mode } else { &self.zeros };
                let mut rows = [missing; MOST_WIDTH];
                let found = |x: &f32| if x.is_nan() { missing } else { &p[*x as usize * channels..][..channels] };
                rows.iter_mut().zip(x).for_each(|(row, x)| *row = found(x));
                isa.dispatch(Table { rows: &rows[..x.len()], out });
            }
        }
    }

    /// Values of the counts for one (row of the tensor, repetition): `[1 + statistics][channels]`.
    pub(crate) fn counts_len(&self) -> usize {
        (1 + self.family.statistics()) * self.channels
    }

    /// Adds flow-weighted statistics of one column to its counts, which begin at `start`; `x` `[panels][width]`, `flow`
    /// `[panels][channels][width]`. `theta` are the leaf's own parameters, `[channels][repetitions][parameters]`.
    pub(crate) fn downward(
        &self,
        isa: Isa,
        (leaf, repetition, theta): (usize, usize, &[f64]),
        (x, width): (&[f32], usize),
        flow: &[f32],
        scratch: &mut LeafScratch,
        (counts, start): (&mut ShareCounts, usize),
    ) {
        let (p, channels, len) = (self.of(leaf, repetition), self.channels, self.counts_len());
        match self.family.form() {
            Form::LocationScale => {
                let [mean, rate, left] = [0, 1, 2].map(|row| &p[row * channels..][..channels]);
                let (far, counts) = (&mut scratch.far, &mut counts.leaves[start..][..len]);
                far.clear();
                isa.dispatch(LocationScaleCounts { x, width, mean, rate, left, flow, counts, far });
                for &c in &*far {
                    let theta = &theta[(c * self.repetitions + repetition) * 2..][..2];
                    let sums = exact::location_scale_sums(theta, (x, width), flow, (c, channels));
                    counts[c..].iter_mut().step_by(channels).zip(sums).for_each(|(n, sum)| *n += sum);
                }
            }
            Form::Natural => {
                self.natural(x, scratch);
                let sufficient = &scratch.sufficient[..self.family.statistics() * x.len()];
                let counts = &mut counts.leaves[start..][..len];
                isa.dispatch(NaturalCounts { sufficient, observed: &scratch.observed, width, flow, counts });
            }
            Form::Table { .. } => {
                scratch.transposed.resize(channels * width, 0.0);
                for (x, panel) in x.chunks_exact(width).zip(flow.chunks_exact(channels * width)) {
                    isa.dispatch(Transpose { from: panel, to: &mut scratch.transposed, width });
                    let flow = &scratch.transposed;
                    if counts.leaves.is_empty() {
                        isa.dispatch(TableCounts { x, flow, counts: &mut counts.sums[start..][..len] });
                    } else {
                        isa.dispatch(TableCounts { x, flow, counts: &mut counts.leaves[start..][..len] });
                    }
                }
            }
        }
    }

    /// Whether leaf counts are added up in float64.
    ///
    /// Tables of their own for each pixel are many numbers to which hardly anything is added: f32 is enough for a few thousand
    /// rows, and half of the memory. Where pixels share leaves, a million values of a few images may belong to one number.
    pub(crate) fn counts_in_float64(structure: &Structure) -> bool {
        let leaf = structure.leaf();
        leaf.shared || !matches!(leaf.family.form(), Form::Table { .. })
    }

    /// The index in the circuit's statistics tensor of each value of all counts, `[row][repetition][1 + statistics]
    /// [channels]`, in order.
    pub(crate) fn statistics_offset(&self, at: usize) -> usize {
        let size = 1 + self.family.statistics();
        let (place, c) = (at / self.channels, at % self.channels);
        let (s, place) = (place % size, place / size);
        let (leaf, r) = (place / self.repetitions, place % self.repetitions);
        ((leaf * self.channels + c) * self.repetitions + r) * size + s
    }
}

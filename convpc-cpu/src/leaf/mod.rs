//! Leaf distributions, laid out for the SIMD loops in f32. Rows that f32 cannot hold are computed in float64 ([`exact`]).

mod columns;
mod exact;
mod layout;

use convpc_core::{Family, Form, Semiring, Structure};
use rayon::{prelude::*, slice::ChunksExactMut};

use self::columns::MOST_COLUMNS;
pub(crate) use self::{
    columns::Columns,
    layout::{Layout, Squares, TOGETHER},
};
use crate::{
    shares::ShareCounts,
    simd::{
        Isa, MOST_WIDTH,
        ops::{
            LOCATION_SCALE_ROWS, LocationScale, LocationScaleCounts, Logarithms, Natural, NaturalCounts, Table,
            TableCounts, Transpose,
        },
    },
};

/// The row of the peak among the coefficients of a location and a scale; all its values are the same.
const PEAK_ROW: usize = 3;

/// The most values of a variable for which a log-density in natural form is computed in f32: it is a small difference of terms that
/// grow with the number of values. Measured against float64 the error is below 4e-5 nats.
const MOST_VALUES_IN_F32: usize = 256;

/// Leaf parameters as the loops read them: for each (row of the tensor, repetition) a few rows of `channels` values.
///
/// The rows are the family's coefficients, the last of which a missing value adds in the max-product semiring. For location and
/// scale they are those of [`LOCATION_SCALE_ROWS`].
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

    /// Adds that of each row to what the row has.
    pub(crate) fn add_to(&self, rows: &mut [f64]) {
        rows.iter_mut().for_each(|to| *to += self.common);
        rows.iter_mut().zip(&self.by_row).for_each(|(to, peak)| *to += peak);
    }

    /// Replaces that of one of so many rows.
    pub(crate) fn set(&mut self, row: usize, rows: usize, peak: f64) {
        self.by_row.resize(rows, 0.0);
        self.by_row[row] = peak - self.common;
    }
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
        let rows = match family.form() {
            Form::LocationScale => LOCATION_SCALE_ROWS,
            Form::Natural | Form::Table { .. } => family.coefficient_count(),
        };
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

    /// Adds the log-densities of some columns to a panel `[channels][width]`. Those of a location and a scale are relative to a
    /// peak, which is added to the peaks.
    pub(crate) fn upward(
        &self,
        isa: Isa,
        (columns, repetition): (&Columns, usize),
        semiring: Semiring,
        scratch: &mut LeafScratch,
        (out, peaks): (&mut [f32], &mut Peaks),
    ) {
        let channels = self.channels;
        let split = |leaf: usize| self.of(leaf, repetition).split_at((self.rows - 1) * channels);
        let max = semiring == Semiring::MaxProduct;
        let missing = f32::from(max);
        match self.family.form() {
            Form::LocationScale => {
                let mut coefficients: [&[f32]; MOST_COLUMNS] = [&[]; MOST_COLUMNS];
                coefficients.iter_mut().zip(columns.leaves()).for_each(|(to, leaf)| *to = self.of(*leaf, repetition));
                let coefficients = &coefficients[..columns.leaves().len()];
                let some_missing = isa.dispatch(LocationScale { x: columns.values(), coefficients, missing, out });
                for (x, of) in columns.iter().map(|(_, x)| x).zip(coefficients) {
                    Self::add_peak(of[PEAK_ROW * channels], x, some_missing && !max, peaks);
                }
            }
            Form::Natural => {
                for (leaf, x) in columns.iter() {
                    let (eta, mode) = split(leaf);
                    self.natural(x, scratch);
                    let LeafScratch { sufficient, observed, .. } = scratch;
                    isa.dispatch(Natural { sufficient, observed, eta, mode, missing, out });
                }
            }
            Form::Table { .. } => {
                for (leaf, x) in columns.iter() {
                    let (table, mode) = split(leaf);
                    let missing = if max { mode } else { &self.zeros };
                    let mut rows = [missing; MOST_WIDTH];
                    let found =
                        |x: &f32| if x.is_nan() { missing } else { &table[*x as usize * channels..][..channels] };
                    rows.iter_mut().zip(x).for_each(|(row, x)| *row = found(x));
                    isa.dispatch(Table { rows: &rows[..x.len()], out });
                }
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

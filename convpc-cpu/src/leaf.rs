use convpc_core::{Family, Form, Semiring, Structure};
use rayon::{prelude::*, slice::ChunksExactMut};

use crate::simd::{
    Isa, MOST_LANES, MOST_WIDTH,
    ops::{
        Largest, LocationScale, LocationScaleCounts, Logarithms, Natural, NaturalCounts, Table, TableCounts, Transpose,
    },
};

/// Leaf parameters as the loops read them: for each (row of the tensor, repetition) a few rows of `channels` values.
///
/// The rows are the family's coefficients, the last of which a missing value adds in the max-product semiring.
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
}

/// What a leaf needs besides: the statistics of a natural form, flows transposed.
#[derive(Debug, Default)]
pub(crate) struct LeafScratch {
    sufficient: Vec<f32>,
    observed: Vec<f32>,
    transposed: Vec<f32>,
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
            for first in (0..channels).step_by(TOGETHER) {
                let together = TOGETHER.min(channels - first);
                for (c, from) in (first..first + together).zip(from.chunks_exact_mut(width)) {
                    let theta = &theta[(c * repetitions + r) * size..][..size];
                    if let Form::Table { free: true, .. } = family.form() {
                        table(isa, theta, &mut from[..rows]);
                    } else {
                        coefficients.clear();
                        family.coefficients(theta, coefficients);
                        from.iter_mut().zip(&*coefficients).for_each(|(to, v)| *to = *v as f32);
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
    pub(crate) fn add_counts(&self, counts: &[f32], first: usize, sum: &mut [f64], squares: &mut Squares) {
        let Layout { family, channels, isa, .. } = *self;
        let size = 1 + family.statistics();
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
        let rows = family.coefficient_count();
        let values = vec![0.0; structure.leaf_rows() * repetitions * rows * channels];
        let sufficient = family.sufficient_table().unwrap_or_default().into_iter().map(|v| v as f32).collect();
        let mut leaves = Leaves { family, channels, repetitions, rows, values, sufficient, zeros: vec![0.0; channels] };
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

    /// What comes of each row of the tensor, to be laid out anew.
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

    /// Adds the log-densities of one column to a panel `[channels][width]`; `x` holds the column's values, `leaf` is its row of
    /// the parameter tensor.
    pub(crate) fn upward(
        &self,
        isa: Isa,
        (leaf, repetition): (usize, usize),
        x: &[f32],
        semiring: Semiring,
        scratch: &mut LeafScratch,
        out: &mut [f32],
    ) {
        let (p, channels) = (self.of(leaf, repetition), self.channels);
        let (rest, mode) = p.split_at((self.rows - 1) * channels);
        let max = semiring == Semiring::MaxProduct;
        let missing = f32::from(max);
        match self.family.form() {
            Form::LocationScale => {
                let (mean, inv_std) = rest.split_at(channels);
                isa.dispatch(LocationScale { x, mean, inv_std, bias: mode, missing, out });
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

    /// Adds flow-weighted statistics of one column to its counts; `x` `[panels][width]`, `flow` `[panels][channels][width]`.
    pub(crate) fn downward(
        &self,
        isa: Isa,
        (leaf, repetition): (usize, usize),
        (x, width): (&[f32], usize),
        flow: &[f32],
        scratch: &mut LeafScratch,
        counts: &mut [f32],
    ) {
        let (p, channels) = (self.of(leaf, repetition), self.channels);
        match self.family.form() {
            Form::LocationScale => {
                let (mean, inv_std) = (&p[..channels], &p[channels..2 * channels]);
                isa.dispatch(LocationScaleCounts { x, width, mean, inv_std, flow, counts });
            }
            Form::Natural => {
                self.natural(x, scratch);
                let sufficient = &scratch.sufficient[..self.family.statistics() * x.len()];
                isa.dispatch(NaturalCounts { sufficient, observed: &scratch.observed, width, flow, counts });
            }
            Form::Table { .. } => {
                scratch.transposed.resize(channels * width, 0.0);
                for (x, flow) in x.chunks_exact(width).zip(flow.chunks_exact(channels * width)) {
                    isa.dispatch(Transpose { from: flow, to: &mut scratch.transposed, width });
                    isa.dispatch(TableCounts { x, flow: &scratch.transposed, counts });
                }
            }
        }
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

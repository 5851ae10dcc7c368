use std::{
    ops::{Deref, Range},
    sync::OnceLock,
};

use convpc_core::{Structure, WeightMatrices};
use ndarray::{Array3, s};

use crate::{
    memory::Aligned,
    simd::{Steps, bf16::pair},
};

/// The weights of a sum-like layer as the SIMD loops read them: f32, linear.
///
/// A weight below the smallest normal f32 number does not matter in a sum that f32 can be trusted with. Where only such weights
/// are left, the sum is computed with [`WideWeights`], and logarithms are taken of [`exact`](Self::exact) weights.
#[derive(Debug)]
pub(crate) struct Weights {
    matrices: WeightMatrices,
    values: Vec<f32>,
    /// Positive weights below the smallest normal f32 number: their place among the values, in ascending order, and the weight.
    small: Vec<(usize, f64)>,
    made: Made,
}

/// Other layouts of the weights, each made when it is needed for the first time.
#[derive(Debug, Default)]
struct Made {
    /// Tables for drawing inputs by their weights.
    steps: OnceLock<Steps>,
    /// `[matrix][input][output]`, for upward passes of single rows.
    columns: OnceLock<Aligned>,
    /// `[matrix][output][input / 2]`
    pairs: OnceLock<Aligned<u32>>,
    /// `[matrix][input / 2][output]`
    pair_columns: OnceLock<Aligned<u32>>,
}

impl Deref for Weights {
    type Target = WeightMatrices;

    fn deref(&self) -> &WeightMatrices {
        &self.matrices
    }
}

impl Weights {
    /// `None` for leaves and products.
    pub(crate) fn new(structure: &Structure, layer: usize, tensor: &[f64]) -> Option<Self> {
        let matrices = WeightMatrices::new(structure, layer)?;
        let values = matrices.offsets().map(|offset| single(tensor[offset])).collect();
        let is_small = |w: f64| w > 0.0 && w < f64::from(f32::MIN_POSITIVE);
        let all = matrices.offsets().map(|offset| tensor[offset]).enumerate();
        let small = all.filter(|(_, w)| is_small(*w)).collect();
        Some(Weights { matrices, values, small, made: Made::default() })
    }

    /// The places of the weights of one output of a feature.
    pub(crate) fn places(&self, feature: usize, repetition: usize, output: usize) -> Range<usize> {
        let start = self.start(feature, repetition) + output * self.inputs;
        start..start + self.inputs
    }

    /// The weights at a range of places among the values, in float64.
    pub(crate) fn exact(&self, places: Range<usize>) -> impl Iterator<Item = f64> + Clone {
        let mut small = self.small_at(places.clone()).iter().peekable();
        places.map(move |at| match small.next_if(|(place, _)| *place == at) {
            Some((_, w)) => *w,
            None => f64::from(self.values[at]),
        })
    }

    /// The weights at a range of places that are below the smallest normal f32 number.
    pub(crate) fn small_at(&self, places: Range<usize>) -> &[(usize, f64)] {
        let first = |place| self.small.partition_point(|(at, _)| *at < place);
        &self.small[first(places.start)..first(places.end)]
    }

    /// Forgets the exact values of small weights that have been overwritten by larger ones, which f32 holds.
    pub(crate) fn settle(&mut self) {
        let Weights { small, values, .. } = self;
        small.retain(|(at, _)| values[*at] < f32::MIN_POSITIVE);
    }

    /// `[matrix][output][input]`
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The layout of the matrices, and the weights, to be overwritten. [`settle`](Self::settle) must follow.
    pub(crate) fn values_mut(&mut self) -> (WeightMatrices, &mut [f32]) {
        self.made = Made::default();
        (self.matrices, &mut self.values)
    }

    /// Adds to the top-down probabilities of the inputs, given those of the outputs, both `[repetition, feature, channel]`.
    pub(crate) fn mix(&self, outputs: &Array3<f64>, inputs: &mut Array3<f64>) {
        for ((r, feature, d), p) in outputs.indexed_iter().filter(|(_, p)| **p > 0.0) {
            let edges = self.of(feature, r)[d * self.inputs..][..self.inputs].iter();
            let to = match self.mixes_repetitions() {
                true => inputs.slice_mut(s![.., feature, d]),
                false => inputs.slice_mut(s![r, feature, ..]),
            };
            to.into_iter().zip(edges).for_each(|(to, w)| *to += p * f64::from(*w));
        }
    }

    /// The probabilities of outputs, `[repetition, feature, channel]`, added up over the features that share their weights:
    /// `[matrix][output]`.
    pub(crate) fn shared(&self, outputs: &Array3<f64>) -> Vec<f64> {
        let mut used = vec![0.0; self.groups * self.repetitions * self.outputs];
        for ((r, feature, d), p) in outputs.indexed_iter() {
            used[self.matrix(feature, r) * self.outputs + d] += p;
        }
        used
    }

    /// The tables for drawing inputs by their weights.
    pub(crate) fn steps(&self) -> &Steps {
        self.made.steps.get_or_init(|| Steps::new(&self.values, self.inputs))
    }

    /// The weights of one output, counted through all matrices, in float64.
    pub(crate) fn of_output(&self, output: usize) -> impl Iterator<Item = f64> + Clone {
        self.exact(output * self.inputs..(output + 1) * self.inputs)
    }

    /// The number of a feature's matrix.
    pub(crate) fn matrix(&self, feature: usize, repetition: usize) -> usize {
        self.group(feature) * self.repetitions + repetition
    }

    /// Where the `outputs × inputs` weights of a feature begin.
    pub(crate) fn start(&self, feature: usize, repetition: usize) -> usize {
        self.matrix(feature, repetition) * self.outputs * self.inputs
    }

    /// The `[outputs][inputs]` weights of a feature.
    pub(crate) fn of(&self, feature: usize, repetition: usize) -> &[f32] {
        let start = self.start(feature, repetition);
        &self.values[start..start + self.outputs * self.inputs]
    }

    /// The `[inputs][outputs]` weights of a feature.
    pub(crate) fn columns_of(&self, feature: usize, repetition: usize) -> &[f32] {
        let len = self.outputs * self.inputs;
        let columns = self.made.columns.get_or_init(|| self.lay(len, |w, to| transpose(w, self.inputs, to)));
        &columns.as_ref()[self.start(feature, repetition)..][..len]
    }

    /// The `[outputs][inputs / 2]` weights of a feature as pairs of bf16.
    pub(crate) fn pairs_of(&self, feature: usize, repetition: usize) -> &[u32] {
        let len = self.outputs * self.inputs.div_ceil(2);
        let pairs = self.made.pairs.get_or_init(|| self.lay(len, |w, to| self.pair(w, to)));
        &pairs.as_ref()[self.matrix(feature, repetition) * len..][..len]
    }

    /// The `[inputs / 2][outputs]` weights of a feature as pairs of bf16.
    pub(crate) fn pair_columns_of(&self, feature: usize, repetition: usize) -> &[u32] {
        let rows = self.inputs.div_ceil(2);
        let len = self.outputs * rows;
        let lay = |w: &[f32], to: &mut [u32]| {
            let mut pairs = vec![0; len];
            self.pair(w, &mut pairs);
            transpose(&pairs, rows, to);
        };
        let columns = self.made.pair_columns.get_or_init(|| self.lay(len, lay));
        &columns.as_ref()[self.matrix(feature, repetition) * len..][..len]
    }

    /// Lays out each matrix anew, in `len` values.
    fn lay<T: Copy + Default>(&self, len: usize, lay: impl Fn(&[f32], &mut [T])) -> Aligned<T> {
        let matrices = self.values.chunks_exact(self.outputs * self.inputs);
        let mut all = Aligned::zeros(matrices.len() * len);
        matrices.zip(all.as_mut().chunks_exact_mut(len)).for_each(|(w, to)| lay(w, to));
        all
    }

    fn pair(&self, w: &[f32], to: &mut [u32]) {
        let pairs = w.chunks_exact(self.inputs).flat_map(|w| w.chunks(2));
        to.iter_mut().zip(pairs).for_each(|(to, w)| *to = pair(w[0], w.get(1).copied().unwrap_or(0.0)));
    }
}

/// Scratch space for the weights of one output as mantissas and exponents.
#[derive(Debug, Default)]
pub(crate) struct WideWeights {
    mantissas: Vec<f32>,
    exponents: Vec<f32>,
}

impl WideWeights {
    /// `values · 2^exponents` of an output of a feature; no exponents where f32 holds all weights.
    pub(crate) fn of<'a>(
        &'a mut self,
        weights: &'a Weights,
        (feature, repetition): (usize, usize),
        output: usize,
    ) -> (&'a [f32], Option<&'a [f32]>) {
        /// Brings the smallest float64 number into the range of f32 in ten steps.
        const STEP: f64 = (1_u128 << 120) as f64;
        let places = weights.places(feature, repetition, output);
        let (values, start) = (&weights.values[places.clone()], places.start);
        let small = weights.small_at(places);
        if small.is_empty() {
            return (values, None);
        }
        self.mantissas.clear();
        self.mantissas.extend_from_slice(values);
        self.exponents.clear();
        self.exponents.resize(values.len(), 0.0);
        for &(at, w) in small {
            let (mut w, mut exponent) = (w, 0.0);
            while w < 1.0 / STEP {
                (w, exponent) = (w * STEP, exponent - 120.0);
            }
            (self.mantissas[at - start], self.exponents[at - start]) = (w as f32, exponent);
        }
        (&self.mantissas, Some(&self.exponents))
    }
}

/// The nearest f32 number, but never zero for a weight that is not.
fn single(w: f64) -> f32 {
    let nearest = w as f32;
    if nearest == 0.0 && w > 0.0 { f32::from_bits(1) } else { nearest }
}

/// From `[rows][columns]` to `[columns][rows]`.
fn transpose<T: Copy>(from: &[T], columns: usize, to: &mut [T]) {
    let rows = from.len() / columns;
    for (row, from) in from.chunks_exact(columns).enumerate() {
        to[row..].iter_mut().step_by(rows).zip(from).for_each(|(to, x)| *to = *x);
    }
}

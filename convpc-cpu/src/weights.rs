use std::{ops::Deref, sync::OnceLock};

use convpc_core::{Structure, WeightMatrices};
use ndarray::{Array3, s};

use crate::{memory::Aligned, simd::Steps};

/// The weights of a sum-like layer as the SIMD loops read them: f32, linear.
#[derive(Debug)]
pub(crate) struct Weights {
    matrices: WeightMatrices,
    values: Vec<f32>,
    /// Made when something is drawn for the first time.
    steps: OnceLock<Steps>,
    /// `[matrix][input][output]`, made when a single row is scored for the first time.
    columns: OnceLock<Aligned>,
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
        let values = matrices.offsets().map(|offset| tensor[offset] as f32).collect();
        Some(Weights { matrices, values, steps: OnceLock::new(), columns: OnceLock::new() })
    }

    /// `[matrix][output][input]`
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// To be replaced; how they lie beside them.
    pub(crate) fn values_mut(&mut self) -> (WeightMatrices, &mut [f32]) {
        (self.steps, self.columns) = (OnceLock::new(), OnceLock::new());
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

    /// What draws by the weights.
    pub(crate) fn steps(&self) -> &Steps {
        self.steps.get_or_init(|| Steps::new(&self.values, self.inputs))
    }

    /// The weights of an output among those of all matrices.
    pub(crate) fn of_output(&self, output: usize) -> impl Iterator<Item = f64> + Clone {
        self.values[output * self.inputs..][..self.inputs].iter().map(|w| f64::from(*w))
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
        let columns = self.columns.get_or_init(|| {
            let mut columns = Aligned::zeros(self.values.len());
            for (w, to) in self.values.chunks_exact(len).zip(columns.as_mut().chunks_exact_mut(len)) {
                for (output, w) in w.chunks_exact(self.inputs).enumerate() {
                    to[output..].iter_mut().step_by(self.outputs).zip(w).for_each(|(to, w)| *to = *w);
                }
            }
            columns
        });
        &columns.as_ref()[self.start(feature, repetition)..][..len]
    }
}

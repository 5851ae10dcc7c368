use std::{ops::Deref, sync::OnceLock};

use convpc_core::{Structure, WeightMatrices};

use crate::simd::Steps;

/// The weights of a sum-like layer as the SIMD loops read them: f32, linear.
#[derive(Debug)]
pub(crate) struct Weights {
    matrices: WeightMatrices,
    values: Vec<f32>,
    /// Made when something is drawn for the first time.
    steps: OnceLock<Steps>,
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
        Some(Weights { matrices, values, steps: OnceLock::new() })
    }

    /// `[matrix][output][input]`
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// To be replaced.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        self.steps = OnceLock::new();
        &mut self.values
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
}

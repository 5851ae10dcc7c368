use std::ops::Deref;

use convpc_core::{Structure, WeightMatrices};

/// The weights of a sum-like layer as the SIMD loops read them: f32, linear.
#[derive(Debug)]
pub(crate) struct Weights {
    matrices: WeightMatrices,
    pub(crate) values: Vec<f32>,
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
        Some(Weights { matrices, values: matrices.offsets().map(|offset| tensor[offset] as f32).collect() })
    }

    /// Where the `outputs × inputs` weights of a feature begin.
    pub(crate) fn start(&self, feature: usize, repetition: usize) -> usize {
        (self.group(feature) * self.repetitions + repetition) * self.outputs * self.inputs
    }

    /// The `[outputs][inputs]` weights of a feature.
    pub(crate) fn of(&self, feature: usize, repetition: usize) -> &[f32] {
        let start = self.start(feature, repetition);
        &self.values[start..start + self.outputs * self.inputs]
    }
}

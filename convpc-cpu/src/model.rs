//! A circuit as the walk reads it.

use std::sync::Arc;

use convpc_core::Structure;

use crate::{
    caches::Caches,
    leaf::Leaves,
    plan::Plan,
    simd::{Isa, bf16::Bf16},
    weights::Weights,
};

/// A circuit laid out for the walk.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) structure: Arc<Structure>,
    /// Leaf parameters in float64, as in the circuit.
    pub(crate) leaf_tensor: Vec<f64>,
    pub(crate) leaves: Leaves,
    /// One a layer; `None` for leaves and products.
    pub(crate) sums: Vec<Option<Weights>>,
    /// The lowest sum-like layer, or the number of layers.
    pub(crate) first_sum: usize,
    pub(crate) plan: Plan,
    pub(crate) isa: Isa,
    /// The power that posteriors over repetitions are taken to on the way down.
    pub(crate) inverse_temperature: f64,
    /// Where scores are computed from operands of bf16.
    pub(crate) bf16: Option<Bf16>,
}

impl Model {
    pub(crate) fn new(
        structure: &Arc<Structure>,
        parameters: &convpc_core::Parameters,
        isa: Isa,
        bf16: Option<Bf16>,
    ) -> Self {
        let layers = structure.layers().len();
        let sums: Vec<_> = (0..layers).map(|layer| Weights::new(structure, layer, parameters.slice(layer))).collect();
        let first_sum = sums.iter().position(Option::is_some).unwrap_or(layers);
        let leaves = Leaves::new(structure, isa, parameters.slice(0));
        let plan = Plan::new(structure, leaves.counts_len(), isa.lanes(), Caches::detect());
        let (structure, leaf_tensor) = (structure.clone(), parameters.slice(0).to_vec());
        Model { structure, leaf_tensor, leaves, sums, first_sum, plan, isa, inverse_temperature: 1.0, bf16 }
    }

    /// The parameters of the leaf at (data column, channel, repetition).
    pub(crate) fn leaf_parameters(&self, column: usize, channel: usize, repetition: usize) -> &[f64] {
        let (shape, size) = (self.structure.shape(0), self.structure.leaf().family.parameters());
        let at = (self.structure.leaf_row(column) * shape.channels + channel) * shape.repetitions + repetition;
        &self.leaf_tensor[at * size..][..size]
    }

    /// The parameters of a row of the leaf's tensor, `[channel][repetition][parameter]`.
    pub(crate) fn leaf_row(&self, row: usize) -> &[f64] {
        let (shape, size) = (self.structure.shape(0), self.structure.leaf().family.parameters());
        let len = shape.channels * shape.repetitions * size;
        &self.leaf_tensor[row * len..][..len]
    }

    /// The same circuit with other parameters, on all threads of the current pool.
    pub(crate) fn set_parameters(&mut self, parameters: &convpc_core::Parameters) {
        let layers = self.structure.layers().len();
        self.sums = (0..layers).map(|layer| Weights::new(&self.structure, layer, parameters.slice(layer))).collect();
        self.leaf_tensor.copy_from_slice(parameters.slice(0));
        self.leaves.set(self.isa, &self.leaf_tensor);
    }

    /// Values of the counts of one matrix of weights, or at the leaf of one column and repetition.
    pub(crate) fn counts_len(&self, layer: usize) -> usize {
        self.sums[layer].as_ref().map_or(self.leaves.counts_len(), |w| w.outputs * w.inputs)
    }
}

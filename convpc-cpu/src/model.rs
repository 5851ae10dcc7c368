//! A circuit as the walk reads it.

use std::sync::Arc;

use convpc_core::Structure;

use crate::{leaf::Leaves, simd::Isa, weights::Weights};

/// A circuit laid out for the walk.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) structure: Arc<Structure>,
    /// Leaf parameters in float64, as in the circuit.
    pub(crate) leaf_tensor: Vec<f64>,
    pub(crate) leaves: Leaves,
    /// One a layer; `None` for leaves and products.
    pub(crate) sums: Vec<Option<Weights>>,
    /// `[layer][feature]`: children with a scope.
    pub(crate) children: Vec<Vec<Vec<usize>>>,
    /// `[layer][feature]`: its number among the features with a scope.
    number: Vec<Vec<usize>>,
    pub(crate) isa: Isa,
}

impl Model {
    pub(crate) fn new(structure: &Arc<Structure>, parameters: &convpc_core::Parameters, isa: Isa) -> Self {
        let layers = structure.layers().len();
        let features = |layer: usize| 0..structure.shape(layer).features();
        let children =
            (0..layers).map(|layer| features(layer).map(|f| structure.children(layer, f)).collect()).collect();
        let number = (0..layers)
            .map(|layer| {
                let mut next = 0;
                let count = |f| {
                    next += usize::from(!structure.is_empty(layer, f));
                    next.saturating_sub(1)
                };
                features(layer).map(count).collect()
            })
            .collect();
        Model {
            structure: structure.clone(),
            leaf_tensor: parameters.slice(0).to_vec(),
            leaves: Leaves::new(structure, parameters.slice(0)),
            sums: (0..layers).map(|layer| Weights::new(structure, layer, parameters.slice(layer))).collect(),
            children,
            number,
            isa,
        }
    }

    /// The (feature, repetition) of all nodes of a layer that have a scope, by repetition.
    pub(crate) fn nodes(&self, layer: usize) -> Vec<(usize, usize)> {
        let shape = self.structure.shape(layer);
        let occupied = |f: &usize| !self.structure.is_empty(layer, *f);
        (0..shape.repetitions).flat_map(|r| (0..shape.features()).filter(occupied).map(move |f| (f, r))).collect()
    }

    /// The highest sum layer with at least `count` nodes, if there is one.
    pub(crate) fn layer_with(&self, count: usize) -> Option<usize> {
        (1..self.sums.len()).rev().find(|&layer| self.sums[layer].is_some() && self.nodes(layer).len() >= count)
    }

    /// The number of a node among [`nodes`](Self::nodes).
    pub(crate) fn node_number(&self, layer: usize, feature: usize, repetition: usize) -> usize {
        let number = &self.number[layer];
        repetition * number.last().map_or(0, |last| last + 1) + number[feature]
    }

    /// Values of the tape for one node of a sum layer at `n` rows: inputs, sums, maxima.
    pub(crate) fn node_len(&self, layer: usize, n: usize) -> usize {
        let channels = self.structure.input_shape(layer).channels;
        self.sums[layer].as_ref().map_or(0, |w| match w.mixes_repetitions() {
            true => w.inputs * w.outputs * n,
            false => (channels + w.outputs + 1) * n,
        })
    }

    pub(crate) fn node_start(&self, layer: usize, feature: usize, repetition: usize, n: usize) -> usize {
        self.node_number(layer, feature, repetition) * self.node_len(layer, n)
    }

    /// Values of the whole tape of one row.
    pub(crate) fn tape_len(&self) -> usize {
        (0..self.sums.len()).map(|layer| self.layer_tape_len(layer, 1)).sum()
    }

    pub(crate) fn layer_tape_len(&self, layer: usize, n: usize) -> usize {
        let occupied = self.number[layer].last().map_or(0, |last| last + 1);
        self.structure.shape(layer).repetitions * occupied * self.node_len(layer, n)
    }
}

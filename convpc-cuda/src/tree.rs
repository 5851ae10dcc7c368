//! Which nodes feed which: the wiring of a circuit with its product layers folded into the sums above them.

use convpc_core::{Layer, Structure};

use crate::params;

/// Where the inputs of a launch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The data, through the leaves.
    Data,
    /// The outputs of a layer.
    Layer(usize),
}

/// The sum-like layers, lowest first.
pub(crate) fn sums(structure: &Structure) -> Vec<usize> {
    let layers = structure.layers();
    (1..layers.len()).filter(|&layer| !matches!(layers[layer], Layer::ProdConv(_))).collect()
}

/// The nearest layer below that is no product, or the data.
pub(crate) fn input_of(structure: &Structure, layer: usize) -> Input {
    match (0..layer).rev().find(|&below| !matches!(structure.layers()[below], Layer::ProdConv(_))) {
        Some(below) if below > 0 => Input::Layer(below),
        _ => Input::Data,
    }
}

/// The children of a feature of a repetition of `layer` on the nearest layer below that is no product: features, or data
/// columns. For a leaf layer its own columns. Those of a mixture of repetitions are the same in each.
pub(crate) fn children(structure: &Structure, layer: usize, feature: usize, repetition: usize) -> Vec<usize> {
    if layer == 0 {
        return structure.pixel_columns(feature).collect();
    }
    let below = structure.children(layer, feature, repetition);
    match structure.layers()[layer - 1] {
        Layer::Leaf(_) | Layer::ProdConv(_) => {
            below.flat_map(|child| children(structure, layer - 1, child, repetition)).collect()
        }
        _ => below.collect(),
    }
}

/// The nodes of a layer that have a scope, (repetition, feature), the first repetition's first.
pub(crate) fn nodes(structure: &Structure, layer: usize) -> impl Iterator<Item = (usize, usize)> {
    let repetitions = structure.shape(layer).repetitions;
    (0..repetitions).flat_map(move |r| structure.occupied(layer, r).map(move |feature| (r, feature)))
}

/// For each of so many inputs (features or data columns) in each of their repetitions, `[repetition][input]`, the feature of the
/// lowest of the sum layers above that reads it, or CONVPC_NO_FEATURE. Where there is no sum above the root reads all.
pub(crate) fn parents(structure: &Structure, above: &[usize], inputs: usize, repetitions: usize) -> Vec<u32> {
    let Some(&layer) = above.first() else { return vec![0; inputs * repetitions] };
    let mixes = matches!(structure.layers()[layer], Layer::RepetitionMixing(_));
    let mut parents = vec![params::CONVPC_NO_FEATURE; inputs * repetitions];
    for (repetition, feature) in nodes(structure, layer) {
        let read = if mixes { 0..repetitions } else { repetition..repetition + 1 };
        for child in children(structure, layer, feature, repetition) {
            read.clone().for_each(|r| parents[r * inputs + child] = feature as u32);
        }
    }
    parents
}

//! Which nodes feed which: the wiring of a circuit with its product layers folded into the sums above them.

use convpc_core::{Layer, Structure};

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

/// The children of a feature of `layer` on the nearest layer below that is no product: features, or data columns. For a
/// leaf layer its own columns.
pub(crate) fn children(structure: &Structure, layer: usize, feature: usize) -> Vec<usize> {
    if layer == 0 {
        return structure.pixel_columns(feature).collect();
    }
    let below = structure.children(layer, feature).into_iter();
    match structure.layers()[layer - 1] {
        Layer::Leaf(_) | Layer::ProdConv(_) => below.flat_map(|child| children(structure, layer - 1, child)).collect(),
        _ => below.collect(),
    }
}

/// The features of a layer that have a scope.
pub(crate) fn occupied(structure: &Structure, layer: usize) -> impl Iterator<Item = usize> {
    (0..structure.shape(layer).features()).filter(move |&feature| !structure.is_empty(layer, feature))
}

//! The way down, as data: at which node a row comes from where, sum layer by sum layer from the root to the leaves.

mod launch;

use convpc_core::{Structure, WeightMatrices};

pub(crate) use launch::{Call, Tables, draw_family};

use crate::{
    params::{self, ConvpcBranch, ConvpcMixture},
    tree::{self, Input},
};

/// How rows go down through a circuit; the same for every batch.
///
/// Each sum feature with a scope has a place for the input (repetition and channel) that a row chooses there. What is below it
/// (nodes of the next sum layer, or leaves) reads the choice and goes on from that repetition and channel. What is below a feature
/// is the same in all repetitions, unless these are padded differently: then there are tables for each.
///
/// ```
/// use convpc_core::{ConvPc, Family};
/// use convpc_cuda::Choices;
/// let structure = ConvPc::new(4, 4, 1, Family::normal()).channels(8).depth(2).structure()?;
/// let choices = Choices::new(&structure);
/// let nodes: Vec<usize> = choices.layers.iter().map(|layer| layer.nodes.len()).collect();
/// assert_eq!(nodes, [1, 4, 16]);
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Choices {
    /// The sum layers, the highest first.
    pub layers: Vec<Branches>,
    /// `[repetition][column]`: the place of the choice that leads to its leaf; `u32::MAX` where there is no sum.
    pub columns: Vec<u32>,
    /// Where a row's repetition is read.
    pub mixture: ConvpcMixture,
    /// Places for choices.
    pub places: usize,
}

/// The features of one sum layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Branches {
    /// The layer.
    pub layer: usize,
    /// What its inputs are, on the way up too.
    pub input: Input,
    /// Features or columns of the input, by node.
    pub list: Vec<u32>,
    /// `[repetition][node]`: those with a scope in some repetition.
    pub nodes: Vec<ConvpcBranch>,
    /// Repetitions that have nodes of their own in the table.
    pub repetitions: usize,
}

impl Choices {
    /// Describes the way down.
    pub fn new(structure: &Structure) -> Self {
        let sums = tree::sums(structure);
        let inputs = |input| match input {
            Input::Data => structure.variables(),
            Input::Layer(layer) => structure.shape(layer).features(),
        };
        // Nobody has chosen anything above the highest sums.
        let highest = sums.last().map_or(Input::Data, |&layer| Input::Layer(layer));
        let mut above = vec![params::CONVPC_NO_PLACE; inputs(highest)];
        let (mut layers, mut places, mut repetitions) = (Vec::new(), 0, 1);
        let mut mixture = ConvpcMixture { place: params::CONVPC_NO_PLACE, channels: 1 };
        for &layer in sums.iter().rev() {
            let (input, features) = (tree::input_of(structure, layer), structure.shape(layer).features());
            let matrices = WeightMatrices::new(structure, layer).expect("a sum-like layer");
            // Below a mixture repetitions part, where they differ.
            let parts = structure.is_shifted() && matrices.mixes_repetitions();
            let repetitions_below = if parts { matrices.inputs } else { repetitions };
            let mut leads = vec![params::CONVPC_NO_PLACE; repetitions_below * inputs(input)];
            let mut branches = Branches { layer, input, list: Vec::new(), nodes: Vec::new(), repetitions };
            let has_scope = |f: &usize| (0..repetitions).any(|r| !structure.is_empty(layer, *f, r));
            let nodes: Vec<usize> = (0..features).filter(has_scope).collect();
            for repetition in 0..repetitions {
                for (place, &feature) in (places as u32..).zip(&nodes) {
                    let children = tree::children(structure, layer, feature, repetition);
                    branches.nodes.push(ConvpcBranch {
                        place,
                        from: above[repetition * features + feature],
                        group: matrices.group(feature) as u32,
                        first: branches.list.len() as u32,
                        count: children.len() as u32,
                        number: structure.node(layer, feature),
                    });
                    let below = if parts { 0..repetitions_below } else { repetition..repetition + 1 };
                    for &child in &children {
                        below.clone().for_each(|r| leads[r * inputs(input) + child] = place);
                    }
                    branches.list.extend(children.iter().map(|&child| child as u32));
                }
            }
            if parts {
                mixture = ConvpcMixture { place: places as u32, channels: matrices.outputs as u32 };
            }
            places += nodes.len();
            layers.push(branches);
            (above, repetitions) = (leads, repetitions_below);
        }
        Choices { layers, columns: above, mixture, places }
    }
}

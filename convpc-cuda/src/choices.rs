//! The way down, as data: at which node a row comes from where, sum layer by sum layer from the root to the leaves.

mod launch;

use convpc_core::{Structure, WeightMatrices};

pub(crate) use launch::{Call, Tables, draw_family};

use crate::{
    params::{self, ConvpcBranch},
    tree::{self, Input},
};

/// How rows go down through a circuit; the same for every batch.
///
/// Each sum node with a scope has a place for the input (repetition and channel) that a row chooses there. What is below it
/// (nodes of the next sum layer, or leaves) reads the choice and goes on from that repetition and channel.
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
    /// For each data column the place of the choice that leads to its leaf; `u32::MAX` where there is no sum.
    pub columns: Vec<u32>,
    /// Places for choices.
    pub places: usize,
}

/// The nodes of one sum layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Branches {
    /// The layer.
    pub layer: usize,
    /// What its inputs are, on the way up too.
    pub input: Input,
    /// Features or columns of the input, by node.
    pub list: Vec<u32>,
    /// The nodes with a scope.
    pub nodes: Vec<ConvpcBranch>,
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
        let (mut layers, mut places) = (Vec::new(), 0);
        for &layer in sums.iter().rev() {
            let input = tree::input_of(structure, layer);
            let matrices = WeightMatrices::new(structure, layer).expect("a sum-like layer");
            let mut leads = vec![params::CONVPC_NO_PLACE; inputs(input)];
            let mut branches = Branches { layer, input, list: Vec::new(), nodes: Vec::new() };
            for feature in tree::occupied(structure, layer) {
                let children = tree::children(structure, layer, feature);
                branches.nodes.push(ConvpcBranch {
                    place: places as u32,
                    from: above[feature],
                    group: matrices.group(feature) as u32,
                    first: branches.list.len() as u32,
                    count: children.len() as u32,
                    number: structure.node(layer, feature),
                });
                children.iter().for_each(|&child| leads[child] = places as u32);
                branches.list.extend(children.iter().map(|&child| child as u32));
                places += 1;
            }
            layers.push(branches);
            above = leads;
        }
        Choices { layers, columns: above, places }
    }
}

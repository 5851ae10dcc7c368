//! The kinds of layer, as plain data: what is computed, not the parameters it is computed with.

mod leaf;
mod matrices;
mod prod_conv;
mod sum;

pub use leaf::{Column, Leaf};
pub use matrices::WeightMatrices;
pub use prod_conv::ProdConv;
use serde::{Deserialize, Serialize};
pub use sum::{Edge, Edges, RepetitionMixing, Sum, SumConv};

use crate::{error::Result, shape::Shape};

/// One stage of a circuit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "layer", rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// Distributions over single pixels.
    Leaf(Leaf),
    /// Products over patches.
    ProdConv(ProdConv),
    /// Mixtures over channels, with weights of its own at each feature.
    Sum(Sum),
    /// Mixtures over channels, with weights shared by all patches.
    SumConv(SumConv),
    /// Mixtures over repetitions.
    RepetitionMixing(RepetitionMixing),
}

impl Layer {
    /// The name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Layer::Leaf(_) => "Leaf",
            Layer::ProdConv(_) => "ProdConv",
            Layer::Sum(_) => "Sum",
            Layer::SumConv(_) => "SumConv",
            Layer::RepetitionMixing(_) => "RepetitionMixing",
        }
    }

    /// The shape of the output of layer number `index`, given the shape of its input (ignored by a leaf).
    pub(crate) fn output(&self, index: usize, input: Shape) -> Result<Shape> {
        match self {
            Layer::Leaf(leaf) => leaf.output(),
            Layer::ProdConv(product) => product.output(index, input),
            Layer::Sum(sum) => sum.output(input),
            Layer::SumConv(sum) => sum.output(input),
            Layer::RepetitionMixing(_) => Ok(Shape { repetitions: 1, ..input }),
        }
    }

    /// The shape of the parameter tensor, given the shape of the layer's input; `[0]` for a product.
    pub(crate) fn parameter_shape(&self, input: Shape) -> Vec<usize> {
        match self {
            Layer::Leaf(leaf) => {
                vec![leaf.rows(), leaf.channels, leaf.repetitions, leaf.family.parameters()]
            }
            Layer::ProdConv(_) => vec![0],
            Layer::Sum(sum) => vec![input.features(), input.channels, sum.channels, input.repetitions],
            Layer::SumConv(sum) => {
                vec![sum.channels, input.channels, sum.kernel_size, sum.kernel_size, input.repetitions]
            }
            Layer::RepetitionMixing(_) => vec![input.features(), input.channels, input.repetitions],
        }
    }

    /// The axis of the parameter tensor along which weights sum to one; `None` for leaves and products.
    pub fn normalized_axis(&self) -> Option<usize> {
        match self {
            Layer::Leaf(_) | Layer::ProdConv(_) => None,
            Layer::Sum(_) | Layer::SumConv(_) => Some(1),
            Layer::RepetitionMixing(_) => Some(2),
        }
    }

    /// The same layer with so many channels; products and mixtures of repetitions have those of their inputs.
    pub(crate) fn with_channels(self, channels: usize) -> Self {
        match self {
            Layer::Leaf(leaf) => Layer::Leaf(Leaf { channels, ..leaf }),
            Layer::Sum(_) => Layer::Sum(Sum { channels }),
            Layer::SumConv(sum) => Layer::SumConv(SumConv { channels, ..sum }),
            Layer::ProdConv(_) | Layer::RepetitionMixing(_) => self,
        }
    }

    /// The axes of the parameter tensor that are channels, and whether they are those of the inputs.
    pub(crate) fn channel_axes(&self) -> &'static [(usize, bool)] {
        match self {
            Layer::Leaf(_) => &[(1, false)],
            Layer::Sum(_) => &[(1, true), (2, false)],
            Layer::SumConv(_) => &[(0, false), (1, true)],
            // Its outputs are its inputs' channels.
            Layer::RepetitionMixing(_) => &[(1, false)],
            Layer::ProdConv(_) => &[],
        }
    }

    /// The axis of the parameter tensor that is repetitions of the outputs; `None` where there are no parameters, or they are of one.
    pub(crate) fn repetition_axis(&self) -> Option<usize> {
        match self {
            Layer::Leaf(_) => Some(2),
            Layer::Sum(_) => Some(3),
            Layer::SumConv(_) => Some(4),
            Layer::ProdConv(_) | Layer::RepetitionMixing(_) => None,
        }
    }

    /// How outputs of a sum-like layer are connected to its inputs; `None` for leaves and products.
    pub fn edges(&self, input: Shape) -> Option<Edges> {
        match self {
            Layer::Leaf(_) | Layer::ProdConv(_) => None,
            Layer::Sum(sum) => Some(Edges::sum(sum, input)),
            Layer::SumConv(sum) => Some(Edges::sum_conv(sum, input)),
            Layer::RepetitionMixing(_) => Some(Edges::repetition_mixing(input)),
        }
    }
}

impl std::fmt::Display for Layer {
    /// The kind with its arguments, as in `ProdConv 2×2 pad 1,1,2,2` (top, left, bottom, right), with ` or ` between the
    /// paddings of repetitions that differ.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Layer::Leaf(leaf) => {
                write!(f, " {}{}", leaf.family.name(), if leaf.shared { ", shared" } else { "" })
            }
            Layer::ProdConv(product) => {
                write!(f, " {}×{}", product.kernel.0, product.kernel.1)?;
                if product.padding != Default::default() {
                    let paddings = product.padding.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>();
                    write!(f, " pad {}", paddings.join(" or "))?;
                }
                Ok(())
            }
            Layer::SumConv(sum) => write!(f, " {k}×{k}", k = sum.kernel_size),
            Layer::Sum(_) | Layer::RepetitionMixing(_) => Ok(()),
        }
    }
}

use super::Layer;
use crate::structure::Structure;

/// The weights of a sum-like layer as matrices, `[group][repetition][output][input]`: what a backend multiplies with.
///
/// A group is a set of features that share weights: one feature of a Sum or RepetitionMixing, one kernel position of a
/// SumConv. The inputs of a RepetitionMixing are repetitions, its outputs channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightMatrices {
    /// Sets of features that share weights.
    pub groups: usize,
    /// Repetitions with weights of their own.
    pub repetitions: usize,
    /// Rows of a matrix.
    pub outputs: usize,
    /// Columns of a matrix.
    pub inputs: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sum,
    SumConv { kernel: usize, width: usize },
    Mixing,
}

impl WeightMatrices {
    /// The matrices of a layer; `None` for leaves and products.
    pub fn new(structure: &Structure, layer: usize) -> Option<Self> {
        let (input, output) = (structure.input_shape(layer), structure.shape(layer));
        let (groups, kind) = match &structure.layers()[layer] {
            Layer::Sum(_) => (input.features(), Kind::Sum),
            Layer::SumConv(s) => {
                (s.kernel_size * s.kernel_size, Kind::SumConv { kernel: s.kernel_size, width: input.width })
            }
            Layer::RepetitionMixing(_) => (input.features(), Kind::Mixing),
            Layer::Leaf(_) | Layer::ProdConv(_) => return None,
        };
        let (inputs, repetitions) = match kind {
            Kind::Mixing => (input.repetitions, 1),
            _ => (input.channels, input.repetitions),
        };
        Some(WeightMatrices { groups, repetitions, outputs: output.channels, inputs, kind })
    }

    /// Whether the inputs are repetitions.
    pub fn mixes_repetitions(&self) -> bool {
        self.kind == Kind::Mixing
    }

    /// The group of a feature.
    pub fn group(&self, feature: usize) -> usize {
        match self.kind {
            Kind::SumConv { kernel, width } => (feature / width % kernel) * kernel + feature % width % kernel,
            Kind::Sum | Kind::Mixing => feature,
        }
    }

    /// The number of weights.
    pub fn weights(&self) -> usize {
        self.groups * self.repetitions * self.outputs * self.inputs
    }

    /// The offset of a weight in the circuit's parameter tensor.
    pub fn offset(&self, (group, repetition): (usize, usize), output: usize, input: usize) -> usize {
        let WeightMatrices { repetitions, outputs, inputs, kind, .. } = *self;
        match kind {
            Kind::Sum => ((group * inputs + input) * outputs + output) * repetitions + repetition,
            // group = row · kernel + column of the pattern
            Kind::SumConv { kernel, .. } => {
                ((output * inputs + input) * kernel * kernel + group) * repetitions + repetition
            }
            Kind::Mixing => (group * outputs + output) * inputs + input,
        }
    }

    /// For every weight, in order, its offset in the circuit's parameter tensor.
    pub fn offsets(&self) -> impl Iterator<Item = usize> + use<> {
        let matrices = *self;
        let WeightMatrices { groups, repetitions, outputs, inputs, .. } = matrices;
        let numbers = (0..groups).flat_map(move |group| (0..repetitions).map(move |r| (group, r)));
        let rows = numbers.flat_map(move |matrix| (0..outputs).map(move |d| (matrix, d)));
        rows.flat_map(move |(matrix, d)| (0..inputs).map(move |k| matrices.offset(matrix, d, k)))
    }

    /// Whether the weights of a group are neighbours in the circuit's parameter tensor, group after group.
    pub fn groups_are_apart(&self) -> bool {
        !matches!(self.kind, Kind::SumConv { .. }) || self.groups == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConvPc, Family};

    /// The wiring that the reference walks is the other description of the same weights.
    #[test]
    fn matrices_and_edges_name_the_same_weights() {
        for use_sum_conv in [false, true] {
            let convpc = ConvPc::new(5, 3, 1, Family::bernoulli()).channels(3).leaf_channels(2).depth(2).repetitions(2);
            let structure = convpc.use_sum_conv(use_sum_conv).structure().unwrap();
            for layer in 0..structure.layers().len() {
                let Some(matrices) = WeightMatrices::new(&structure, layer) else { continue };
                let (edges, shape) = (structure.edges(layer).unwrap(), structure.shape(layer));
                let offsets: Vec<usize> = matrices.offsets().collect();
                assert_eq!(offsets.len(), matrices.weights());
                for feature in 0..shape.features() {
                    for r in 0..shape.repetitions {
                        for d in 0..shape.channels {
                            let matrix = matrices.group(feature) * matrices.repetitions + r;
                            let start = (matrix * matrices.outputs + d) * matrices.inputs;
                            let given: Vec<usize> = edges.of(feature, d, r).map(|e| e.weight).collect();
                            assert_eq!(given, offsets[start..start + matrices.inputs]);
                        }
                    }
                }
            }
        }
    }
}

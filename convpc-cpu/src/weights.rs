use convpc_core::{Layer, Structure};

/// The weights of a sum-like layer as the SIMD loops read them: `[group][repetition][output][input]`, f32, linear.
///
/// A group is a set of features that share weights: one feature of a Sum or RepetitionMixing, one kernel position of a
/// SumConv. The inputs of a RepetitionMixing are repetitions, its outputs channels.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    groups: usize,
    repetitions: usize,
    kind: Kind,
    pub(crate) values: Vec<f32>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Sum,
    SumConv { kernel: usize, width: usize },
    Mixing,
}

impl Weights {
    /// `None` for leaves and products.
    pub(crate) fn new(structure: &Structure, layer: usize, tensor: &[f64]) -> Option<Self> {
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
        let mut weights =
            Weights { inputs, outputs: output.channels, groups, repetitions, kind, values: vec![0.0; tensor.len()] };
        let mut values = std::mem::take(&mut weights.values);
        weights.for_each_offset(|at, offset| values[at] = tensor[offset] as f32);
        weights.values = values;
        Some(weights)
    }

    /// Whether the inputs are repetitions.
    pub(crate) fn mixes_repetitions(&self) -> bool {
        matches!(self.kind, Kind::Mixing)
    }

    /// Where the `outputs × inputs` weights of a feature begin.
    pub(crate) fn start(&self, feature: usize, repetition: usize) -> usize {
        let group = match self.kind {
            Kind::SumConv { kernel, width } => (feature / width % kernel) * kernel + feature % width % kernel,
            Kind::Sum | Kind::Mixing => feature,
        };
        (group * self.repetitions + repetition) * self.outputs * self.inputs
    }

    /// The `[outputs][inputs]` weights of a feature.
    pub(crate) fn of(&self, feature: usize, repetition: usize) -> &[f32] {
        let start = self.start(feature, repetition);
        &self.values[start..start + self.outputs * self.inputs]
    }

    /// Calls `f(index here, offset in the circuit's tensor)` for every weight.
    pub(crate) fn for_each_offset(&self, mut f: impl FnMut(usize, usize)) {
        let Weights { inputs, outputs, groups, repetitions, .. } = *self;
        let mut at = 0;
        for group in 0..groups {
            for r in 0..repetitions {
                for d in 0..outputs {
                    for k in 0..inputs {
                        let offset = match self.kind {
                            Kind::Sum => ((group * inputs + k) * outputs + d) * repetitions + r,
                            // group = row · kernel + column of the pattern
                            Kind::SumConv { kernel, .. } => {
                                ((d * inputs + k) * kernel * kernel + group) * repetitions + r
                            }
                            Kind::Mixing => (group * outputs + d) * inputs + k,
                        };
                        f(at, offset);
                        at += 1;
                    }
                }
            }
        }
    }
}

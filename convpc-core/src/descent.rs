use crate::{
    layer::Layer,
    rng::{self, Use},
    structure::Structure,
};

/// How an edge of a sum, and a missing value at a leaf, are chosen on the way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// In proportion to their posterior probability.
    Sample {
        /// Seed of the random numbers.
        seed: u64,
    },
    /// The most probable; the first of several.
    ArgMax,
}

/// What the way down needs to know about one row: the parameters, and what the way up found.
pub trait Inputs {
    /// The circuit's structure.
    fn structure(&self) -> &Structure;

    /// Appends, for every edge of the sum node at (layer, feature, channel, repetition) in the order of
    /// [`Edges`](crate::Edges), its weight and its input's log-likelihood in nats.
    fn edges(&self, layer: usize, feature: usize, channel: usize, repetition: usize, edges: &mut Vec<(f64, f64)>);

    /// Appends the parameters of the leaf at (data column, channel, repetition).
    fn leaf_parameters(&self, column: usize, channel: usize, repetition: usize, parameters: &mut Vec<f64>);
}

/// Completes the NaN values of one row from the root down: every backend samples and completes through this one walk, which
/// is why they agree. `row` is the row's number in the random numbers' counter.
pub fn descend(inputs: &impl Inputs, choice: Choice, row: u64, values: &mut [f64]) {
    let root = inputs.structure().layers().len() - 1;
    let mut walk = Walk { inputs, choice, row, values, edges: Vec::new(), parameters: Vec::new() };
    walk.visit(root, 0, 0, 0);
}

struct Walk<'a, I> {
    inputs: &'a I,
    choice: Choice,
    row: u64,
    values: &'a mut [f64],
    edges: Vec<(f64, f64)>,
    parameters: Vec<f64>,
}

impl<I: Inputs> Walk<'_, I> {
    fn visit(&mut self, layer: usize, feature: usize, channel: usize, repetition: usize) {
        let structure = self.inputs.structure();
        if structure.is_empty(layer, feature) {
            return;
        }
        match &structure.layers()[layer] {
            Layer::Leaf(_) => self.complete_pixel(feature, channel, repetition),
            Layer::ProdConv(product) => {
                let (input, output) = (structure.input_shape(layer), structure.shape(layer));
                for child in product.children(feature, input, output) {
                    self.visit(layer - 1, child, channel, repetition);
                }
            }
            _ => {
                self.edges.clear();
                self.inputs.edges(layer, feature, channel, repetition, &mut self.edges);
                let k = self.choose(structure.node(layer, feature));
                let edges = structure.edges(layer).expect("a sum");
                let edge = edges.edge(feature, channel, repetition, k);
                self.visit(layer - 1, feature, edge.channel, edge.repetition);
            }
        }
    }

    /// The number of the chosen edge.
    fn choose(&self, node: u32) -> usize {
        match self.choice {
            Choice::ArgMax => rng::arg_max(self.edges.iter().map(|(w, x)| w.ln() + x)),
            Choice::Sample { seed } => {
                // The largest input that counts: relative to it nothing overflows, and something stays above zero.
                let inputs = self.edges.iter().filter(|(w, _)| *w > 0.0).map(|(_, x)| *x);
                let max = inputs.fold(f64::NEG_INFINITY, f64::max);
                let [u, _] = rng::uniforms(seed, self.row, node, Use::Edge);
                rng::pick(self.edges.iter().map(|(w, x)| if *w > 0.0 { w * (x - max).exp() } else { 0.0 }), u)
            }
        }
    }

    fn complete_pixel(&mut self, pixel: usize, channel: usize, repetition: usize) {
        let structure = self.inputs.structure();
        let family = &structure.leaf().family;
        for column in structure.pixel_columns(pixel) {
            if !self.values[column].is_nan() {
                continue;
            }
            self.parameters.clear();
            self.inputs.leaf_parameters(column, channel, repetition, &mut self.parameters);
            self.values[column] = match self.choice {
                Choice::ArgMax => family.mode(&self.parameters),
                // Columns, not pixels: the colors of a pixel are independent given its channel.
                Choice::Sample { seed } => {
                    family.sample(&self.parameters, rng::uniforms(seed, self.row, column as u32, Use::Value))
                }
            };
        }
    }
}

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

/// A row on its way down.
pub struct Descending<'a, I> {
    /// What is known about it.
    pub inputs: I,
    /// Its number in the random numbers' counter.
    pub row: u64,
    /// Its values; NaN is to be completed.
    pub values: &'a mut [f64],
}

/// Completes the NaN values of rows from the root down. Backends that go another way make the same choices by the same random
/// numbers, which is why they agree. A row's result does not depend on the others; together they find what a node is made of
/// in the cache.
pub fn descend<I: Inputs>(rows: &mut [Descending<'_, I>], choice: Choice) {
    let Some(first) = rows.first() else { return };
    let root = first.inputs.structure().layers().len() - 1;
    let at_root: Vec<Place> = (0..rows.len()).map(|row| Place { row, channel: 0, repetition: 0 }).collect();
    Walk { rows, choice, edges: Vec::new(), parameters: Vec::new() }.visit(root, 0, &at_root);
}

/// Which of a feature's distributions a row has come to.
#[derive(Clone, Copy)]
struct Place {
    /// The row's number among those that go down together.
    row: usize,
    channel: usize,
    repetition: usize,
}

struct Walk<'a, 'b, I> {
    rows: &'a mut [Descending<'b, I>],
    choice: Choice,
    edges: Vec<(f64, f64)>,
    parameters: Vec<f64>,
}

impl<I: Inputs> Walk<'_, '_, I> {
    /// Goes on from a feature with the rows that have come there.
    fn visit(&mut self, layer: usize, feature: usize, places: &[Place]) {
        let structure = self.rows[0].inputs.structure();
        match &structure.layers()[layer] {
            Layer::Leaf(_) => self.complete_pixel(feature, places),
            Layer::ProdConv(_) if structure.is_shifted() => {
                for repetition in 0..structure.shape(layer).repetitions {
                    let own: Vec<Place> = places.iter().filter(|p| p.repetition == repetition).copied().collect();
                    if !own.is_empty() {
                        self.visit_children(layer, feature, repetition, &own);
                    }
                }
            }
            // The children are the same in all repetitions.
            Layer::ProdConv(_) => self.visit_children(layer, feature, 0, places),
            _ => {
                let (node, edges) = (structure.node(layer, feature), structure.edges(layer).expect("a sum"));
                let below: Vec<Place> = places
                    .iter()
                    .map(|place| {
                        let k = self.choose(layer, feature, node, *place);
                        let edge = edges.edge(feature, place.channel, place.repetition, k);
                        Place { channel: edge.channel, repetition: edge.repetition, ..*place }
                    })
                    .collect();
                self.visit(layer - 1, feature, &below);
            }
        }
    }

    fn visit_children(&mut self, layer: usize, feature: usize, repetition: usize, places: &[Place]) {
        let children: Vec<usize> = self.rows[0].inputs.structure().children(layer, feature, repetition).collect();
        children.into_iter().for_each(|child| self.visit(layer - 1, child, places));
    }

    /// The number of the edge that a row takes.
    fn choose(&mut self, layer: usize, feature: usize, node: u32, place: Place) -> usize {
        let Place { row: at, channel, repetition } = place;
        let Descending { inputs, row, .. } = &self.rows[at];
        let uniform = match self.choice {
            Choice::ArgMax => 0.0,
            Choice::Sample { seed } => rng::uniforms(seed, *row, node, Use::Edge)[0],
        };
        self.edges.clear();
        inputs.edges(layer, feature, channel, repetition, &mut self.edges);
        match self.choice {
            Choice::ArgMax => rng::arg_max(self.edges.iter().map(|(w, x)| w.ln() + x)),
            Choice::Sample { .. } => {
                // The largest input that counts: relative to it nothing overflows, and something stays above zero.
                let inputs = self.edges.iter().filter(|(w, _)| *w > 0.0).map(|(_, x)| *x);
                let max = inputs.fold(f64::NEG_INFINITY, f64::max);
                rng::pick(self.edges.iter().map(|(w, x)| if *w > 0.0 { w * (x - max).exp() } else { 0.0 }), uniform)
            }
        }
    }

    fn complete_pixel(&mut self, pixel: usize, places: &[Place]) {
        let structure = self.rows[0].inputs.structure();
        let (family, columns) = (structure.leaf().family, structure.pixel_columns(pixel));
        for place in places {
            let Descending { inputs, row, values } = &mut self.rows[place.row];
            for column in columns.clone() {
                if !values[column].is_nan() {
                    continue;
                }
                self.parameters.clear();
                inputs.leaf_parameters(column, place.channel, place.repetition, &mut self.parameters);
                values[column] = match self.choice {
                    Choice::ArgMax => family.mode(&self.parameters),
                    // Columns, not pixels: the colors of a pixel are independent given its channel.
                    Choice::Sample { seed } => {
                        family.sample(&self.parameters, rng::uniforms(seed, *row, column as u32, Use::Value))
                    }
                };
            }
        }
    }
}

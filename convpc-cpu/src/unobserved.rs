//! Sampling with nothing observed: no way up, and on the way down a sum is a draw by its weights alone. The random numbers are
//! those that `convpc_core::descend` takes, and so are the samples.

use convpc_core::{
    Form, Layer, Normal,
    rng::{self, Use},
};
use ndarray::ArrayViewMut2;

use crate::{
    model::Model,
    simd::{box_muller, uniforms},
};

/// Rows that go down together: as many as share what a node is made of while it is in the cache.
pub(crate) const TOGETHER: usize = 256;

/// Fills rows with samples; row i takes the random numbers of row `first_row + i`.
pub(crate) fn sample(model: &Model, seed: u64, first_row: u64, rows: ArrayViewMut2<f32>) {
    let n = rows.nrows();
    let at_root: Vec<Place> = (0..n).map(|row| Place { row, channel: 0, repetition: 0 }).collect();
    let uniforms = [vec![0.0; n], vec![0.0; n]];
    let mut descent = Descent { model, seed, first_row, rows, uniforms, outputs: vec![0; n], drawn: vec![None; n] };
    descent.visit(model.sums.len() - 1, 0, &at_root);
}

/// Which of a feature's distributions a row has come to.
#[derive(Clone, Copy)]
struct Place {
    /// The row's number among those that go down together.
    row: usize,
    channel: usize,
    repetition: usize,
}

struct Descent<'a> {
    model: &'a Model,
    seed: u64,
    first_row: u64,
    rows: ArrayViewMut2<'a, f32>,
    /// Of the node at hand, one for each row that has come there.
    uniforms: [Vec<f64>; 2],
    outputs: Vec<usize>,
    drawn: Vec<Option<usize>>,
}

impl Descent<'_> {
    /// Goes on from a feature with the rows that have come there, in ascending order.
    fn visit(&mut self, layer: usize, feature: usize, places: &[Place]) {
        let structure = &self.model.structure;
        match &structure.layers()[layer] {
            Layer::Leaf(_) => self.pixel(feature, places),
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
                let below = self.choose(layer, feature, places);
                self.visit(layer - 1, feature, &below);
            }
        }
    }

    fn visit_children(&mut self, layer: usize, feature: usize, repetition: usize, places: &[Place]) {
        for child in self.model.structure.children(layer, feature, repetition) {
            self.visit(layer - 1, child, places);
        }
    }

    /// The places below a sum.
    fn choose(&mut self, layer: usize, feature: usize, places: &[Place]) -> Vec<Place> {
        let model = self.model;
        let weights = model.sums[layer].as_ref().expect("a sum layer");
        self.uniforms(model.structure.node(layer, feature), Use::Edge, places);
        for (output, place) in self.outputs.iter_mut().zip(places) {
            *output = weights.matrix(feature, place.repetition) * weights.outputs + place.channel;
        }
        let (uniforms, n) = (&self.uniforms[0], places.len());
        weights.steps().draw(model.isa, &self.outputs[..n], &uniforms[..n], &mut self.drawn[..n]);
        let mixes_repetitions = weights.mixes_repetitions();
        let below = |(i, place): (usize, &Place)| {
            let k = self.drawn[i].unwrap_or_else(|| rng::pick(weights.of_output(self.outputs[i]), uniforms[i]));
            match mixes_repetitions {
                true => Place { repetition: k, ..*place },
                false => Place { channel: k, ..*place },
            }
        };
        places.iter().enumerate().map(below).collect()
    }

    fn pixel(&mut self, pixel: usize, places: &[Place]) {
        let model = self.model;
        let (structure, family) = (&model.structure, model.structure.leaf().family);
        let (repetitions, largest) = (structure.shape(0).repetitions, Normal::LARGEST as f32);
        for column in structure.pixel_columns(pixel) {
            self.uniforms(column as u32, Use::Value, places);
            let [u, v] = self.uniforms.each_mut().map(|of| &mut of[..places.len()]);
            let (row, size) = (model.leaf_row(structure.leaf_row(column)), family.parameters());
            let parameters = |place: &Place| &row[(place.channel * repetitions + place.repetition) * size..][..size];
            let mut values = self.rows.column_mut(column);
            if family.form() == Form::LocationScale {
                box_muller(model.isa, u, v);
                for (place, z) in places.iter().zip(u) {
                    let p = parameters(place);
                    values[place.row] = ((p[0] + p[1] * *z) as f32).clamp(-largest, largest);
                }
            } else {
                for ((place, u), v) in places.iter().zip(u).zip(v) {
                    values[place.row] = family.sample(parameters(place), [*u, *v]) as f32;
                }
            }
        }
    }

    /// The random numbers of the rows that have come to a place in the circuit.
    fn uniforms(&mut self, node: u32, what: Use, places: &[Place]) {
        let to = self.uniforms.each_mut().map(Vec::as_mut_slice);
        uniforms(self.model.isa, self.seed, self.first_row, node, what, to);
        if places.len() < self.outputs.len() {
            for all in &mut self.uniforms {
                // Never from before where it goes to: rows are in order.
                places.iter().enumerate().for_each(|(to, place)| all[to] = all[place.row]);
            }
        }
    }
}

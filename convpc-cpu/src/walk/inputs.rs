use convpc_core::{Inputs, Structure};

use super::{Tape, Tile};
use crate::{model::Model, product::log};

/// The sums' inputs for one row of a recorded tile.
pub(crate) struct Row<'a, 'd> {
    pub(crate) model: &'a Model,
    /// Of the shares.
    pub(crate) tapes: &'a [Tape],
    pub(crate) tile: Tile<'d>,
    /// The row in the tile.
    pub(crate) row: usize,
}

impl Inputs for Row<'_, '_> {
    fn structure(&self) -> &Structure {
        &self.model.structure
    }

    fn edges(&self, layer: usize, feature: usize, channel: usize, repetition: usize, edges: &mut Vec<(f64, f64)>) {
        let weights = self.model.sums[layer].as_ref().expect("a sum layer");
        let inputs = weights.inputs;
        let places = weights.places(feature, repetition, channel);
        let w = weights.values()[places.clone()].iter().map(|w| f64::from(*w));
        let first = edges.len();
        let Row { tapes, tile: Tile { n, width, .. }, row, .. } = *self;
        let (share, start) = self.model.plan.node(layer, feature, repetition);
        let node = &tapes[share].layers[layer].as_ref()[start * n..];
        if weights.mixes_repetitions() {
            let x = node[channel * n + row..].iter().step_by(weights.outputs * n);
            edges.extend(w.zip(x).map(|(w, x)| (w, f64::from(*x))));
        } else {
            let (panel, row) = (row / width, row % width);
            match tapes[share].wide.get(&(layer, start, panel)) {
                Some(wide) => {
                    let [values, exponents] = wide.inputs.each_ref().map(|of| of[row..].iter().step_by(width));
                    edges.extend(w.zip(values.zip(exponents)).map(|(w, (value, k))| (w, log(*value, *k))));
                }
                None => {
                    let values = node[panel * inputs * width + row..].iter().step_by(width);
                    edges.extend(w.zip(values).map(|(w, value)| (w, f64::from(*value).ln())));
                }
            }
        }
        for &(at, w) in weights.small_at(places.clone()) {
            edges[first + at - places.start].0 = w;
        }
    }

    fn leaf_parameters(&self, column: usize, channel: usize, repetition: usize, parameters: &mut Vec<f64>) {
        parameters.extend_from_slice(self.model.leaf_parameters(column, channel, repetition));
    }
}

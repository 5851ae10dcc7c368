//! Structural marginalisation: a circuit over fewer variables.

use ndarray::{ArrayD, Axis};

use crate::{
    circuit::Circuit,
    error::{Error, Result},
    layer::{Column, Layer, Leaf, ProdConv},
    parameters::Parameters,
    scope::Scope,
    shape::{Padding, Shape},
    structure::Structure,
};

/// The part of a grid that is kept, in the old grid's rows and columns.
#[derive(Debug, Clone, Copy)]
struct Crop {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Crop {
    /// The smallest rectangle that holds every feature of a layer with a non-empty scope in some repetition; the whole grid
    /// without pruning.
    fn around(structure: &Structure, layer: usize, prune: bool) -> Self {
        let shape = structure.shape(layer);
        let is_occupied = |f: &usize| (0..shape.repetitions).any(|r| !structure.is_empty(layer, *f, r));
        let occupied = (0..shape.features()).filter(|f| !prune || is_occupied(f));
        let positions = occupied.map(|f| shape.position(f));
        let (mut low, mut high) = ((usize::MAX, usize::MAX), (0, 0));
        for (i, j) in positions {
            low = (low.0.min(i), low.1.min(j));
            high = (high.0.max(i + 1), high.1.max(j + 1));
        }
        Crop { top: low.0, left: low.1, height: high.0 - low.0, width: high.1 - low.1 }
    }

    /// The old numbers of the features that are kept, in their new order.
    fn features(self, old: Shape) -> Vec<usize> {
        let Crop { top, left, height, width } = self;
        (top..top + height).flat_map(|i| (left..left + width).map(move |j| i * old.width + j)).collect()
    }
}

impl Circuit {
    /// The circuit over the variables that are not in `drop`: its log-likelihoods are those of this circuit with the dropped
    /// variables missing. Parameters are kept; the remaining variables keep their numbers in scopes, and the data have one
    /// column for each in ascending order.
    ///
    /// With `prune`, grids are cropped to what still has a scope, and weights that can no longer matter are removed;
    /// without, every layer keeps its shape.
    ///
    /// # Errors
    /// [`Error::UnknownVariable`] where `drop` names a variable that the circuit does not have, [`Error::NothingLeft`]
    /// where no variable would remain.
    ///
    /// ```
    /// use convpc_core::{ConvPc, Family};
    /// let circuit = ConvPc::new(4, 4, 1, Family::bernoulli()).channels(3).build(7)?;
    /// let top = circuit.marginalize(&(8..16).collect(), true)?;
    /// assert_eq!(top.scope(), (0..8).collect());
    /// assert!(top.parameter_count() < circuit.parameter_count());
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    pub fn marginalize(&self, drop: &Scope, prune: bool) -> Result<Circuit> {
        let scope = self.scope();
        if let Some(variable) = drop.iter().find(|&v| !scope.contains(v)) {
            return Err(Error::UnknownVariable { variable, scope });
        }
        if drop.len() == scope.len() {
            return Err(Error::NothingLeft { variables: scope.len() });
        }
        let old = self.structure();
        let kept: Vec<usize> =
            (0..self.variables()).filter(|&column| !drop.contains(old.columns()[column].variable)).collect();
        let columns: Vec<Column> = kept.iter().map(|&column| old.columns()[column]).collect();

        let mut layers = old.layers().to_vec();
        layers[0] = Layer::Leaf(Leaf { kept: Some(columns), ..old.leaf().clone() });
        let mut tensors = self.parameters().0.clone();
        if !old.leaf().shared {
            tensors[0] = tensors[0].select(Axis(0), &kept);
        }
        let marginal = Structure::new(layers)?;
        let crops: Vec<Crop> =
            (0..marginal.layers().len()).map(|layer| Crop::around(&marginal, layer, prune)).collect();
        let layers = (0..crops.len()).map(|layer| crop_layer(&marginal, layer, &crops)).collect();
        let tensors = tensors
            .into_iter()
            .enumerate()
            .map(|(layer, tensor)| crop_tensor(&marginal, layer, crops[layer], tensor))
            .collect();
        Circuit::new(Structure::new(layers)?, Parameters(tensors))
    }
}

fn crop_layer(old: &Structure, layer: usize, crops: &[Crop]) -> Layer {
    let to = crops[layer];
    match &old.layers()[layer] {
        Layer::Leaf(leaf) => {
            let slot = |slot: usize| {
                let (pixel, color) = (slot / leaf.colors, slot % leaf.colors);
                let (i, j) = (pixel / leaf.width - to.top, pixel % leaf.width - to.left);
                (i * to.width + j) * leaf.colors + color
            };
            let columns = old.columns().iter().map(|c| Column { slot: slot(c.slot), ..*c }).collect();
            Layer::Leaf(Leaf { height: to.height, width: to.width, kept: Some(columns), ..leaf.clone() })
        }
        Layer::ProdConv(product) => {
            let from = crops[layer - 1];
            let (kh, kw) = product.kernel;
            // Input row p = i·kh + a − top stays where it is when both grids lose their first rows.
            let padding = product.padding.map(|padding| {
                let top = padding.top + from.top - to.top * kh;
                let left = padding.left + from.left - to.left * kw;
                let (bottom, right) = (to.height * kh - from.height - top, to.width * kw - from.width - left);
                Padding { top, left, bottom, right }
            });
            Layer::ProdConv(ProdConv { padding, ..*product })
        }
        sum => sum.clone(),
    }
}

fn crop_tensor(old: &Structure, layer: usize, crop: Crop, tensor: ArrayD<f64>) -> ArrayD<f64> {
    match &old.layers()[layer] {
        Layer::Leaf(_) | Layer::ProdConv(_) => tensor,
        Layer::Sum(_) | Layer::RepetitionMixing(_) => tensor.select(Axis(0), &crop.features(old.shape(layer))),
        Layer::SumConv(sum) => {
            // New feature i' is old feature i' + top, so the pattern of weights rolls.
            let roll = |by: usize| (0..sum.kernel_size).map(|a| (a + by) % sum.kernel_size).collect::<Vec<_>>();
            tensor.select(Axis(2), &roll(crop.top)).select(Axis(3), &roll(crop.left))
        }
    }
}

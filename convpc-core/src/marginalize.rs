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
    /// All of a grid.
    fn whole(shape: Shape) -> Self {
        Crop { top: 0, left: 0, height: shape.height, width: shape.width }
    }

    /// The smallest rectangle that holds every pixel with a variable.
    fn of_leaf(structure: &Structure) -> Self {
        let shape = structure.shape(0);
        let (mut low, mut high) = ((usize::MAX, usize::MAX), (0, 0));
        for (i, j) in structure.occupied(0, 0).map(|pixel| shape.position(pixel)) {
            low = (low.0.min(i), low.1.min(j));
            high = (high.0.max(i + 1), high.1.max(j + 1));
        }
        Crop { top: low.0, left: low.1, height: high.0 - low.0, width: high.1 - low.1 }
    }

    /// The smallest rectangle of a product's outputs that depends on all of this one in every repetition.
    fn image(self, product: &ProdConv) -> Self {
        let paddings = product.padding.as_slice();
        let (top, height) = image((self.top, self.height), product.kernel.0, paddings.iter().map(|p| p.top));
        let (left, width) = image((self.left, self.width), product.kernel.1, paddings.iter().map(|p| p.left));
        Crop { top, left, height, width }
    }

    /// The old numbers of the features that are kept, in their new order.
    fn features(self, old: Shape) -> Vec<usize> {
        let Crop { top, left, height, width } = self;
        (top..top + height).flat_map(|i| (left..left + width).map(move |j| i * old.width + j)).collect()
    }
}

/// The patches that hold so many rows from the first on, where any of these numbers of rows is padded above; the same along
/// columns.
fn image((first, size): (usize, usize), kernel: usize, before: impl Iterator<Item = usize>) -> (usize, usize) {
    let (low, high) = before.fold((usize::MAX, 0), |(low, high), before| {
        (low.min((first + before) / kernel), high.max((first + size - 1 + before) / kernel + 1))
    });
    (low, high - low)
}

/// What is kept of each layer: the pixels that still have a variable, and what depends on them. Without pruning all is kept.
fn crops(structure: &Structure, prune: bool) -> Vec<Crop> {
    if !prune {
        return (0..structure.layers().len()).map(|layer| Crop::whole(structure.shape(layer))).collect();
    }
    let next = |crop: &mut Crop, layer: &Layer| {
        if let Layer::ProdConv(product) = layer {
            *crop = crop.image(product);
        }
        Some(*crop)
    };
    structure.layers().iter().scan(Crop::of_leaf(structure), next).collect()
}

impl Circuit {
    /// The circuit over the variables that are not in `drop`: its log-likelihoods are those of this circuit with the dropped
    /// variables missing. Parameters are kept; the remaining variables keep their numbers in scopes, and the data have one
    /// column for each in ascending order.
    ///
    /// With `prune`, grids are cropped to what still has a scope in some repetition, and weights that can no longer matter are
    /// removed; without, every layer keeps its shape. A circuit of which nothing is dropped stays as it is.
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
        if drop.is_empty() {
            return Ok(self.clone());
        }
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
        let crops = crops(&marginal, prune);
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
            // Input row p = i·kh + a − top stays where it is when both grids lose their first rows. The crop of the outputs
            // begins at or before the patch of the inputs' first row, so that no padding is negative.
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

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis};

    use super::*;
    use crate::{Backend, ConvPc, Family, ProdConv, Reference, rng, rng::Use};

    fn above(top: usize, bottom: usize) -> Padding {
        Padding { top, bottom, ..Padding::default() }
    }

    /// Two layers of products whose repetitions are padded differently, the second the other way round.
    fn shifted_twice() -> Circuit {
        let first = ProdConv::new(1, 1).padding(vec![above(0, 4), above(4, 0)]);
        let second = ProdConv::new(2, 1).padding(vec![above(4, 0), above(0, 4)]);
        let chain = Structure::builder(Leaf::new(4, 1, 1, Family::bernoulli(), 2).repetitions(2))
            .prod_conv(first)
            .sum(3)
            .prod_conv(second)
            .sum(2)
            .prod_conv(ProdConv::new(6, 1))
            .sum(1)
            .repetition_mixing();
        Circuit::random(chain.build().unwrap(), 3).unwrap()
    }

    /// The same on a plane, with products of two rows and two columns, and weights that patches share.
    fn shifted_on_a_plane() -> Circuit {
        let each = |shifts: [(usize, usize); 3]| {
            let padding = |(top, left)| Padding { top, left, bottom: 3 - top, right: 3 - left };
            shifts.map(padding).to_vec()
        };
        let chain = Structure::builder(Leaf::new(5, 3, 2, Family::categorical(3), 2).repetitions(3))
            .sum(2)
            .prod_conv(ProdConv::new(2, 1).padding(each([(0, 3), (3, 0), (1, 1)])))
            .sum_conv(3, 3)
            .prod_conv(ProdConv::new(1, 3).padding(each([(3, 0), (0, 3), (2, 1)])))
            .sum(2)
            .prod_conv(ProdConv::new(7, 3))
            .sum(1)
            .repetition_mixing();
        Circuit::random(chain.build().unwrap(), 5).unwrap()
    }

    fn circuits() -> Vec<Circuit> {
        let convpc = |family| ConvPc::new(5, 4, 1, family).channels(3).depth(3);
        let built = [
            convpc(Family::normal()).build(1),
            convpc(Family::bernoulli()).use_sum_conv(true).repetitions(2).build(2),
            convpc(Family::binomial(3)).shifts([(-1, 1), (1, -2), (0, 0)]).shared_leaves(true).build(3),
        ];
        built.map(Result::unwrap).into_iter().chain([shifted_twice(), shifted_on_a_plane()]).collect()
    }

    /// About half of the variables, at least one and never all.
    fn drop(circuit: &Circuit, seed: u64) -> Scope {
        let order = rng::permutation(circuit.variables(), seed, 0, Use::Split);
        let dropped = 1 + (seed as usize * 7) % (circuit.variables() - 1);
        order[..dropped].iter().map(|&at| circuit.structure().columns()[at].variable).collect()
    }

    fn log_likelihood(circuit: &Circuit, data: &Array2<f32>) -> Vec<f64> {
        Reference.load(circuit).unwrap().log_likelihood(data.view()).unwrap().to_vec()
    }

    #[test]
    fn marginals_are_the_likelihoods_of_what_is_left() {
        for (number, circuit) in circuits().iter().enumerate() {
            let data = Reference.load(circuit).unwrap().sample(0..5, 1).unwrap();
            for seed in 0..20 {
                let drop = drop(circuit, seed);
                let kept: Vec<usize> = (0..circuit.variables()).filter(|&v| !drop.contains(v)).collect();
                let mut evidence = data.clone();
                drop.iter().for_each(|variable| evidence.column_mut(variable).fill(f32::NAN));
                let expected = log_likelihood(circuit, &evidence);
                for prune in [false, true] {
                    let marginal =
                        circuit.marginalize(&drop, prune).unwrap_or_else(|e| panic!("{number}, {drop}: {e}"));
                    let given = log_likelihood(&marginal, &data.select(Axis(1), &kept));
                    let close = given.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9);
                    assert!(close, "circuit {number} without {drop}, prune {prune}: {given:?} {expected:?}");
                }
            }
        }
    }

    #[test]
    fn two_steps_are_one() {
        for circuit in circuits() {
            for seed in 0..5 {
                let first = drop(&circuit, seed);
                let Ok(once) = circuit.marginalize(&first, true) else { panic!("{first}") };
                if once.variables() < 2 {
                    continue;
                }
                let second = drop(&once, seed + 1);
                let both = circuit.marginalize(&first.union(&second), true).unwrap();
                assert_eq!(once.marginalize(&second, true).unwrap(), both, "{first}, then {second}");
            }
        }
    }

    #[test]
    fn nothing_dropped_is_nothing_changed() {
        for circuit in circuits() {
            let marginal = circuit.marginalize(&drop(&circuit, 2), false).unwrap();
            for circuit in [circuit, marginal] {
                for prune in [false, true] {
                    assert_eq!(circuit.marginalize(&Scope::default(), prune).unwrap(), circuit);
                }
            }
        }
    }
}

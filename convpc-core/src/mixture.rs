//! Circuits as repetitions of one.

use ndarray::{ArrayD, Axis, IxDyn, concatenate};

use crate::{
    circuit::Circuit,
    classes,
    error::{Error, Result},
    layer::{Layer, Leaf, ProdConv, RepetitionMixing, Sum},
    normalize::normalize,
    parameters::Parameters,
    shape::{Padding, Paddings},
    structure::Structure,
};

/// A circuit in two: a stack of layers in some repetitions, and how these are mixed.
struct Part<'a> {
    circuit: &'a Circuit,
    /// Layers of the stack.
    layers: &'a [Layer],
    /// What each class takes of each repetition: of class c its prior times the weights of the mixture, `[class][repetition]`;
    /// without classes one row.
    weights: Vec<Vec<f64>>,
}

impl Circuit {
    /// The mixture of circuits as one, `p(x) = Σ_i w_i p_i(x)` with weights in proportion to those given: what were circuits are
    /// its repetitions. All have the same layers, but each its own number of repetitions and its own paddings; where there are
    /// classes, it is the mixture of the joint distributions of image and class.
    ///
    /// Repetitions that have learned apart share the rows, and go on to learn together; those that learn together from the start
    /// need annealing for that ([`Executable::set_inverse_temperature`](crate::Executable::set_inverse_temperature)).
    ///
    /// ```
    /// use convpc_core::{Circuit, ConvPc, Family};
    /// let convpc = ConvPc::new(3, 3, 1, Family::bernoulli()).channels(2).depth(2);
    /// let parts = [convpc.clone().build(1)?, convpc.shifts([(1, 0)]).build(2)?];
    /// let mixture = Circuit::mixture(&parts, &[1.0, 1.0])?;
    /// assert_eq!(mixture.structure().shape(0).repetitions, 2);
    /// assert!(mixture.structure().is_shifted());
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where there are no circuits, or not one weight for each; where a weight is negative or not finite, or all are 0; where
    /// circuits have other layers, other variables, or mixtures of repetitions below the root.
    pub fn mixture(circuits: &[Circuit], weights: &[f64]) -> Result<Circuit> {
        let argument = |what, given: String, expected: &str| Error::Argument { what, given, expected: expected.into() };
        if circuits.is_empty() || weights.len() != circuits.len() {
            let given = format!("{} for {} circuits", weights.len(), circuits.len());
            return Err(argument(
                "the number of a mixture's weights",
                given,
                "one for each circuit, of which there is one",
            ));
        }
        let total: f64 = weights.iter().sum();
        let legal = weights.iter().all(|w| *w >= 0.0) && total > 0.0 && total.is_finite();
        if !legal {
            let expected = "finite numbers of at least 0, one of them above";
            return Err(argument("the list of a mixture's weights", format!("{weights:?}"), expected));
        }
        let parts = circuits.iter().map(Part::new).collect::<Result<Vec<_>>>()?;
        for (number, part) in parts.iter().enumerate() {
            if let Some(difference) = part.difference(&parts[0]) {
                let given = format!("of {difference} (number {number}, the first is 0)");
                return Err(argument(
                    "a circuit of a mixture",
                    given,
                    "the layers of the first, but for repetitions and paddings",
                ));
            }
        }
        let stack = parts[0].layers.len();
        let mut layers: Vec<Layer> = (0..stack).map(|layer| joined(&parts, layer)).collect();
        let mut tensors = (0..stack).map(|layer| joined_tensor(&parts, layer)).collect::<Vec<_>>();

        let classes = parts[0].weights.len();
        // Of each class what it takes of all repetitions.
        let mut mixed: Vec<Vec<f64>> = (0..classes)
            .map(|class| {
                let of_part =
                    |(part, w): (&Part, &f64)| part.weights[class].iter().map(|m| w / total * m).collect::<Vec<_>>();
                parts.iter().zip(weights).flat_map(of_part).collect()
            })
            .collect();
        let mut prior: Vec<f64> = mixed.iter().map(|row| row.iter().sum()).collect();
        mixed.iter_mut().for_each(|row| normalize(row.iter_mut()));
        let repetitions = mixed[0].len();
        if repetitions > 1 {
            layers.push(Layer::RepetitionMixing(RepetitionMixing {}));
            tensors.push(tensor(&[1, classes, repetitions], mixed.concat()));
        }
        if classes > 1 {
            normalize(prior.iter_mut());
            layers.push(Layer::Sum(Sum { channels: 1 }));
            tensors.push(tensor(&[1, classes, 1, 1], prior));
        }
        Circuit::new(Structure::new(layers)?, Parameters(tensors))
    }
}

impl<'a> Part<'a> {
    fn new(circuit: &'a Circuit) -> Result<Self> {
        let (structure, all) = (circuit.structure(), circuit.structure().layers());
        let (above, prior) = match structure.num_classes() {
            Some(_) => (classes::heads(structure)? + 1, circuit.class_prior()?),
            None => (all.len(), vec![1.0]),
        };
        let stack = above - usize::from(matches!(all[above - 1], Layer::RepetitionMixing(_)));
        if let Some(layer) = all[..stack].iter().position(|layer| matches!(layer, Layer::RepetitionMixing(_))) {
            return Err(Error::Argument {
                what: "a circuit of a mixture",
                given: format!("one that mixes repetitions at layer {layer}"),
                expected: "one that mixes them at the root, if at all".into(),
            });
        }
        let weights = match stack < above {
            true => {
                let of_class = circuit.parameters().slice(stack).chunks_exact(structure.shape(stack - 1).repetitions);
                of_class.zip(&prior).map(|(weights, prior)| weights.iter().map(|w| w * prior).collect()).collect()
            }
            false => prior.iter().map(|prior| vec![*prior]).collect(),
        };
        Ok(Part { circuit, layers: &all[..stack], weights })
    }

    /// What another part has in its place, in words; `None` where they fit together.
    fn difference(&self, first: &Part) -> Option<String> {
        if self.layers.len() != first.layers.len() || self.weights.len() != first.weights.len() {
            let classes = self.weights.len();
            return Some(format!("{} layers below the mixture and {classes} heads", self.layers.len()));
        }
        let differs = |(own, first): &(&Layer, &Layer)| alike(own) != alike(first);
        let (own, first) = self.layers.iter().zip(first.layers).find(differs)?;
        Some(match (own, first) {
            (Layer::Leaf(_), Layer::Leaf(_)) => "a leaf layer of another size, family or number of channels".into(),
            _ => format!("{own} in the place of {first}"),
        })
    }

    fn repetitions(&self) -> usize {
        self.weights[0].len()
    }
}

/// The layer without what parts may have of their own.
fn alike(layer: &Layer) -> Layer {
    match layer {
        Layer::Leaf(leaf) => Layer::Leaf(Leaf { repetitions: 1, ..leaf.clone() }),
        Layer::ProdConv(product) => Layer::ProdConv(ProdConv { kernel: product.kernel, padding: Paddings::default() }),
        other => other.clone(),
    }
}

/// A layer of the repetitions of all parts.
fn joined(parts: &[Part], layer: usize) -> Layer {
    match alike(&parts[0].layers[layer]) {
        Layer::Leaf(leaf) => Layer::Leaf(Leaf { repetitions: parts.iter().map(Part::repetitions).sum(), ..leaf }),
        Layer::ProdConv(product) => {
            let of_part = |part: &Part| match &part.layers[layer] {
                Layer::ProdConv(product) => (0..part.repetitions()).map(|r| product.padding.of(r)).collect(),
                _ => vec![],
            };
            let all: Vec<Padding> = parts.iter().flat_map(of_part).collect();
            let same = all.iter().all(|padding| *padding == all[0]);
            let padding = if same { all[0].into() } else { all.into() };
            Layer::ProdConv(ProdConv { padding, ..product })
        }
        other => other,
    }
}

/// The parameters of a layer of all parts, one repetition after another.
fn joined_tensor(parts: &[Part], layer: usize) -> ArrayD<f64> {
    let tensors: Vec<_> = parts.iter().map(|part| part.circuit.parameters().0[layer].view()).collect();
    match parts[0].layers[layer].repetition_axis() {
        Some(axis) => concatenate(Axis(axis), &tensors).expect("layers that differ in repetitions alone"),
        None => tensors[0].to_owned(),
    }
}

fn tensor(shape: &[usize], values: Vec<f64>) -> ArrayD<f64> {
    ArrayD::from_shape_vec(IxDyn(shape), values).expect("as many values as the shape says")
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::{Backend, ConvPc, Family, Reference};

    fn ll(circuit: &Circuit, data: &Array2<f32>) -> Array1<f64> {
        Reference.load(circuit).unwrap().log_likelihood(data.view()).unwrap()
    }

    #[test]
    fn likelihoods_are_mixed() {
        let base = |family| ConvPc::new(3, 5, 1, family).channels(3).leaf_channels(2).depth(3);
        let normal = base(Family::normal()).use_sum_conv(true);
        let cases = [
            vec![base(Family::categorical(3)); 3],
            vec![base(Family::categorical(3)).repetitions(2), base(Family::categorical(3)).shifts([(-1, 1)])],
            vec![normal.clone().shifts([(0, 0), (1, -1)]), normal.clone(), normal.shifts([(2, 0), (2, 0), (-2, 1)])],
            vec![base(Family::binomial(4)).shared_leaves(true), base(Family::binomial(4)).shared_leaves(true)],
            vec![base(Family::binomial(4))],
        ];
        for parts in cases {
            let parts: Vec<Circuit> = (1..).zip(parts).map(|(seed, convpc)| convpc.build(seed).unwrap()).collect();
            let weights: Vec<f64> = (0..parts.len()).map(|i| [0.6, 2.0, 0.4][i]).collect();
            let mixture = Circuit::mixture(&parts, &weights).unwrap();
            let mut data = Reference.load(&mixture).unwrap().sample(0..20, 1).unwrap();
            data.iter_mut().step_by(4).for_each(|x| *x = f32::NAN);
            let total: f64 = weights.iter().sum();
            let mut expected = Array1::<f64>::zeros(20);
            parts.iter().zip(&weights).for_each(|(part, w)| expected += &ll(part, &data).mapv(|x| x.exp() * w / total));
            let given = ll(&mixture, &data);
            assert!(given.iter().zip(expected).all(|(a, b)| (a - b.ln()).abs() < 1e-10), "{mixture}");
        }
    }

    #[test]
    fn what_has_no_weight_says_nothing() {
        let base = ConvPc::new(3, 3, 1, Family::bernoulli()).channels(3).depth(2);
        let parts = [1, 2, 3].map(|seed| base.build(seed).unwrap());
        let data = Reference.load(&parts[1]).unwrap().sample(0..20, 1).unwrap();
        let given = ll(&Circuit::mixture(&parts, &[0.0, 2.0, 0.0]).unwrap(), &data);
        assert!(given.iter().zip(ll(&parts[1], &data)).all(|(a, b)| (a - b).abs() < 1e-10));
    }

    #[test]
    fn classes_are_mixed_with_their_priors() {
        let base = ConvPc::new(3, 3, 1, Family::bernoulli()).channels(3).depth(2).num_classes(4);
        let parts = [base.clone().build(1).unwrap(), base.shifts([(0, 0), (1, 0)]).build(2).unwrap()];
        let mixture = Circuit::mixture(&parts, &[3.0, 1.0]).unwrap();
        assert_eq!(mixture.structure().num_classes(), Some(4));
        let data = Reference.load(&mixture).unwrap().sample(0..20, 1).unwrap();
        let joint = |circuit: &Circuit| Reference.load(circuit).unwrap().class_log_joint(data.view()).unwrap();
        let expected = joint(&parts[0]).mapv(|x| 0.75 * x.exp()) + joint(&parts[1]).mapv(|x| 0.25 * x.exp());
        let given = joint(&mixture);
        assert!(given.iter().zip(&expected).all(|(a, b)| (a - b.ln()).abs() < 1e-10), "{given} {expected}");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let base = || ConvPc::new(2, 2, 1, Family::bernoulli()).channels(2);
        let error = |parts: &[ConvPc], weights: &[f64]| {
            let parts: Vec<Circuit> = parts.iter().map(|part| part.build(1).unwrap()).collect();
            Circuit::mixture(&parts, weights).unwrap_err().to_string()
        };
        assert!(error(&[], &[]).contains("0 for 0 circuits"));
        assert!(error(&[base()], &[0.5, 0.5]).contains("2 for 1 circuits"));
        for weights in [[0.0, 0.0], [-1.0, 2.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0]] {
            assert!(error(&[base(), base()], &weights).contains("expected finite numbers"));
        }
        let with = |other: ConvPc| error(&[base(), other], &[0.5, 0.5]);
        assert!(
            with(base().channels(3).leaf_channels(2)).contains("Sum in the place of Sum"),
            "{}",
            with(base().channels(3).leaf_channels(2))
        );
        assert!(with(base().depth(2)).contains("7 layers"));
        assert!(with(base().num_classes(2)).contains("2 heads"));
        assert!(with(base().leaf_channels(3)).contains("a leaf layer of another"));
        assert!(with(base().use_sum_conv(true)).contains("SumConv 2×2 in the place of Sum"));
        let leaf = Leaf::new(2, 2, 1, Family::bernoulli(), 2).repetitions(2);
        let below = Structure::builder(leaf).repetition_mixing().prod_conv(ProdConv::new(2, 2)).sum(1).build().unwrap();
        let below = Circuit::random(below, 1).unwrap();
        let message = Circuit::mixture(&[below], &[1.0]).unwrap_err().to_string();
        assert!(message.contains("mixes repetitions at layer 1"), "{message}");
    }
}

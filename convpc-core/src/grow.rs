use ndarray::{ArrayD, Axis};

use crate::{
    circuit::Circuit,
    error::{Error, Result, positive},
    initialize::{disturb_leaf, normal},
    layer::Layer,
    learn::in_range,
    normalize::normalize,
    parameters::Parameters,
    rng::{self, Use},
    structure::Structure,
};

impl Circuit {
    /// A circuit with `factor` times the channels in every layer but those that make the root: each channel becomes `factor`
    /// like it, which part by log-normal noise of this standard deviation (nats) on weights and probabilities; a mean moves by
    /// as many standard deviations. Learning goes on from a circuit that knows already what the smaller one knew, which is
    /// cheaper than learning the large one from the start (Dang et al., 2022, grow circuits so).
    ///
    /// Without noise it is the same distribution.
    ///
    /// ```
    /// use convpc_core::{ConvPc, Family};
    /// let circuit = ConvPc::new(4, 4, 1, Family::bernoulli()).channels(3).build(1)?;
    /// let grown = circuit.grow(2, 0.3, 7)?;
    /// assert_eq!(grown.structure().shape(0).channels, 6);
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where the factor is 0, the noise is negative or not finite, or the circuit becomes too large.
    pub fn grow(&self, factor: usize, noise: f64, seed: u64) -> Result<Circuit> {
        positive("the factor to grow by", factor)?;
        in_range("noise", noise, noise >= 0.0 && noise.is_finite(), "a finite number of at least 0")?;
        let old = self.structure();
        let times =
            |channels: usize| channels.checked_mul(factor).ok_or(Error::TooLarge { what: "the number of channels" });
        // The last sum over channels and what follows it speak of the root; where there are classes, so do their heads.
        let is_sum = |layer: &Layer| matches!(layer, Layer::Sum(_) | Layer::SumConv(_));
        let heads = old.layers().len() - usize::from(old.num_classes().is_some());
        let top = old.layers()[..heads].iter().rposition(is_sum).unwrap_or(0);
        let mut layers = old.layers().to_vec();
        for (layer, at) in layers[..top].iter_mut().zip(0..) {
            *layer = layer.clone().with_channels(times(old.shape(at).channels)?);
        }
        let structure = Structure::new(layers)?;
        crate::initialize::check_size(&structure)?;
        let tensors = self.parameters().0.iter().enumerate().map(|(layer, tensor)| {
            let mut tensor = tensor.clone();
            let mut uniform = noise_of_layer(seed, layer);
            for &(axis, is_input) in old.layers()[layer].channel_axes() {
                if layer < top || (layer == top && is_input) {
                    tensor = repeated(&tensor, Axis(axis), factor);
                }
            }
            if noise > 0.0 {
                disturb(&structure, layer, &mut tensor, noise, &mut uniform);
            }
            if let Some(axis) = structure.layers()[layer].normalized_axis() {
                tensor.lanes_mut(Axis(axis)).into_iter().for_each(|mut lane| normalize(lane.iter_mut()));
            }
            tensor
        });
        let parameters = Parameters(tensors.collect());
        Circuit::new(structure, parameters)
    }
}

/// Every slice along an axis so many times, one after another.
fn repeated(tensor: &ArrayD<f64>, axis: Axis, times: usize) -> ArrayD<f64> {
    let slices: Vec<usize> = (0..tensor.len_of(axis)).flat_map(|slice| std::iter::repeat_n(slice, times)).collect();
    tensor.select(axis, &slices)
}

fn noise_of_layer(seed: u64, layer: usize) -> impl FnMut() -> f64 {
    let mut row = 0;
    move || {
        row += 1;
        rng::uniforms(seed, row, layer as u32, Use::Grow)[0]
    }
}

/// Adds noise to the logarithms of weights, and to the unconstrained parameters of leaves.
fn disturb(
    structure: &Structure,
    layer: usize,
    tensor: &mut ArrayD<f64>,
    noise: f64,
    uniform: &mut dyn FnMut() -> f64,
) {
    if structure.layers()[layer].normalized_axis().is_some() {
        tensor.iter_mut().for_each(|w| *w *= (noise * normal(uniform)).exp());
    }
    if let Layer::Leaf(leaf) = &structure.layers()[layer] {
        for mut theta in tensor.lanes_mut(Axis(3)) {
            disturb_leaf(&leaf.family, theta.as_slice_mut().expect("innermost axis"), noise, uniform);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis};

    use crate::{Backend, Circuit, ConvPc, Family, Leaf, ProdConv, Reference, Structure};

    fn circuits() -> Vec<Circuit> {
        let convpc = |family| ConvPc::new(3, 4, 2, family).channels(3).leaf_channels(2).depth(2);
        let chain = Structure::builder(Leaf::new(2, 2, 1, Family::bernoulli(), 2).repetitions(2))
            .sum(3)
            .repetition_mixing()
            .prod_conv(ProdConv::new(2, 2))
            .sum(1)
            .prod_conv(ProdConv::new(1, 1));
        let leaf = Structure::builder(Leaf::new(2, 1, 1, Family::normal(), 1)).prod_conv(ProdConv::new(2, 1));
        let built = [
            convpc(Family::normal()).build(1),
            convpc(Family::categorical(3)).use_sum_conv(true).repetitions(2).build(2),
            convpc(Family::binomial(3)).shared_leaves(true).build(3),
            convpc(Family::discretized_logistic(5)).build(6),
            convpc(Family::bernoulli()).num_classes(4).build(6),
            convpc(Family::bernoulli()).num_classes(4).repetitions(2).build(7),
            Circuit::random(chain.build().unwrap(), 4),
            Circuit::random(leaf.build().unwrap(), 5),
        ];
        built.map(Result::unwrap).to_vec()
    }

    fn log_likelihood(circuit: &Circuit, data: &Array2<f32>) -> Vec<f64> {
        Reference.load(circuit).unwrap().log_likelihood(data.view()).unwrap().to_vec()
    }

    #[test]
    fn without_noise_it_is_the_same_distribution() {
        for circuit in circuits() {
            let mut data = Reference.load(&circuit).unwrap().sample(0..20, 1).unwrap();
            data.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
            for factor in [1, 3] {
                let grown = circuit.grow(factor, 0.0, 1).unwrap();
                let layers = circuit.structure().layers().len();
                // Of the chain that is only leaves all belongs to the root.
                let leaves = if layers > 2 { factor } else { 1 };
                let channels = |circuit: &Circuit| circuit.structure().shape(0).channels;
                assert_eq!(channels(&grown), leaves * channels(&circuit));
                assert_eq!(grown.structure().shape(layers - 1), circuit.structure().shape(layers - 1));
                assert_eq!(grown.structure().num_classes(), circuit.structure().num_classes());
                let (before, after) = (log_likelihood(&circuit, &data), log_likelihood(&grown, &data));
                assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-9), "{before:?} {after:?}");
            }
        }
    }

    #[test]
    fn noise_parts_the_channels_and_is_a_function_of_the_seed() {
        for circuit in circuits().into_iter().filter(|circuit| circuit.structure().layers().len() > 2) {
            let grown = circuit.grow(2, 0.3, 7).unwrap();
            assert_eq!(grown, circuit.grow(2, 0.3, 7).unwrap());
            assert_ne!(grown, circuit.grow(2, 0.3, 8).unwrap());
            let [a, b] = [0, 1].map(|channel| grown.leaf_parameters(0, channel, 0).to_vec());
            let before = circuit.leaf_parameters(0, 0, 0);
            for like in [&a, &b] {
                assert!(like.iter().zip(before).all(|(p, before)| (p - before).abs() < 2.0), "{like:?} {before:?}");
            }
            assert_ne!(a, b);
        }
    }

    fn standard_deviation(values: &[f64]) -> f64 {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt()
    }

    /// Two edges that were one differ in the logarithm by two draws of noise.
    #[test]
    fn noise_has_the_standard_deviation_that_was_asked_for() {
        let leaf = Leaf::new(1, 2, 1, Family::normal(), 50);
        let chain = Structure::builder(leaf).sum(50).prod_conv(ProdConv::new(1, 2)).sum(1).build().unwrap();
        let circuit = Circuit::random(chain, 4).unwrap();
        let grown = circuit.grow(2, 0.3, 7).unwrap();
        let ratios = |layer: usize| -> Vec<f64> {
            let lanes = grown.parameters().0[layer].lanes(Axis(1)).into_iter();
            lanes.flat_map(|w| (0..w.len()).step_by(2).map(move |c| (w[c] / w[c + 1]).ln())).collect()
        };
        for (layer, slack) in [(1, 0.01), (3, 0.1)] {
            let given = standard_deviation(&ratios(layer)) / 2_f64.sqrt();
            assert!((given - 0.3).abs() < slack, "layer {layer}: {given}");
        }
        // A mean moves in standard deviations, a standard deviation by its logarithm.
        let leaves = |circuit: &Circuit, k| (0..100).map(|c| circuit.leaf_parameters(0, c, 0)[k]).collect::<Vec<f64>>();
        let before = circuit.grow(2, 0.0, 7).unwrap();
        let std = leaves(&before, 1);
        let moved = leaves(&grown, 0).iter().zip(leaves(&before, 0)).zip(&std).map(|((a, b), s)| (a - b) / s).collect();
        let scaled = leaves(&grown, 1).iter().zip(&std).map(|(a, b)| (a / b).ln()).collect();
        for given in [moved, scaled].map(|values: Vec<f64>| standard_deviation(&values)) {
            assert!((given - 0.3).abs() < 0.08, "{given}");
        }
    }

    #[test]
    fn layers_have_noise_of_their_own() {
        let one = || ProdConv::new(1, 1);
        let chain = Structure::builder(Leaf::new(1, 1, 1, Family::bernoulli(), 3));
        let chain = chain.sum(3).prod_conv(one()).sum(3).prod_conv(one()).sum(1).build().unwrap();
        let (structure, mut parameters) = Circuit::random(chain, 4).unwrap().into_parts();
        parameters.0[1..].iter_mut().for_each(|w| w.fill(1.0 / 3.0));
        let grown = Circuit::new(structure, parameters).unwrap().grow(2, 0.3, 7).unwrap();
        let [lower, upper] = [1, 3].map(|layer| &grown.parameters().0[layer]);
        assert_eq!(lower.shape(), upper.shape());
        assert_ne!(lower, upper);
    }

    #[test]
    fn what_cannot_grow_is_refused() {
        let circuit = &circuits()[0];
        let refused = [(0, 0.1, "factor"), (2, -0.1, "noise"), (2, f64::NAN, "noise"), (usize::MAX, 0.1, "channels")];
        for (factor, noise, expected) in refused {
            let error = circuit.grow(factor, noise, 1).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

use std::collections::BTreeSet;

use ndarray::Axis;

use crate::{
    circuit::Circuit,
    error::Result,
    layer::{Layer, Leaf, ProdConv, WeightMatrices},
    learn::in_range,
    normalize::normalize,
    parameters::Parameters,
    shape::Paddings,
    structure::Structure,
};

impl Circuit {
    /// The circuit without the repetitions that the mixture gives a weight of zero, at every feature and channel, and without the
    /// channels that cannot be reached from the root: those that all sums above give a weight of zero, at every feature and in
    /// every repetition. They cost time and memory and change nothing. At least one repetition stays.
    ///
    /// Classes stay, those of prior probability zero too. First, weights below `least` become zero, the largest of a sum never, and
    /// what is left of a sum is scaled to sum to one: with 0 the distribution stays what it was.
    ///
    /// ```
    /// use convpc_core::{ConvPc, Family};
    /// let circuit = ConvPc::new(4, 4, 1, Family::bernoulli()).channels(8).use_sum_conv(true).build(1)?;
    /// let pruned = circuit.prune(0.3)?;
    /// assert!(pruned.parameter_count() < circuit.parameter_count());
    /// assert_eq!(pruned.prune(0.0)?, pruned);
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where `least` is not a number from 0 to 1.
    pub fn prune(&self, least: f64) -> Result<Circuit> {
        in_range("the least weight", least, (0.0..=1.0).contains(&least), "a number from 0 to 1")?;
        self.without_small_weights(least)?.without_unused_repetitions()?.without_unreached_channels()
    }

    /// The circuit whose weights below `least` are zero, but for the largest of each sum and the prior of the classes.
    fn without_small_weights(&self, least: f64) -> Result<Circuit> {
        let structure = self.structure();
        let mut parameters = self.parameters().clone();
        let inner = structure.layers().len() - usize::from(structure.num_classes().is_some());
        for (layer, tensor) in structure.layers()[..inner].iter().zip(&mut parameters.0) {
            let Some(axis) = layer.normalized_axis().filter(|_| least > 0.0) else { continue };
            for mut weights in tensor.lanes_mut(Axis(axis)) {
                let largest = weights.iter().copied().fold(0.0, f64::max);
                weights.iter_mut().filter(|w| **w < least && **w < largest).for_each(|w| *w = 0.0);
                normalize(weights.iter_mut());
            }
        }
        Circuit::new(structure.clone(), parameters)
    }

    /// The circuit with only those repetitions that the mixture uses.
    fn without_unused_repetitions(&self) -> Result<Circuit> {
        let old = self.structure();
        let mixes = |layer: &Layer| matches!(layer, Layer::RepetitionMixing(_));
        let Some(mixing) = old.layers().iter().position(mixes) else { return Ok(self.clone()) };
        let used = self.used_repetitions(mixing);
        if used.len() == old.input_shape(mixing).repetitions {
            return Ok(self.clone());
        }
        let mut layers = old.layers().to_vec();
        layers[..mixing].iter_mut().for_each(|layer| *layer = of_repetitions(layer, &used));
        let mut tensors = self.parameters().0.clone();
        for (layer, tensor) in old.layers()[..=mixing].iter().zip(&mut tensors) {
            if let Some(axis) = if mixes(layer) { Some(2) } else { layer.repetition_axis() } {
                *tensor = tensor.select(Axis(axis), &used);
            }
        }
        // Mixtures that nothing reaches may have had all their weight elsewhere.
        tensors[mixing].lanes_mut(Axis(2)).into_iter().for_each(|mut lane| normalize(lane.iter_mut()));
        Circuit::new(Structure::new(layers)?, Parameters(tensors))
    }

    /// The repetitions to which the mixture at this layer gives weight, at some feature with a scope and for some channel that the
    /// root reaches. There is one at least, since weights sum to one.
    fn used_repetitions(&self, mixing: usize) -> Vec<usize> {
        let structure = self.structure();
        let (weights, channels) = (&self.parameters().0[mixing], &self.reached_channels()[mixing]);
        let has_weight = |r: &usize| {
            let mut features = structure.occupied(mixing, 0);
            features.any(|feature| channels.iter().any(|&channel| weights[[feature, channel, *r]] > 0.0))
        };
        (0..structure.input_shape(mixing).repetitions).filter(has_weight).collect()
    }

    /// For each layer the channels that the root reaches.
    fn reached_channels(&self) -> Vec<Vec<usize>> {
        self.structure().reached_channels(|layer, matrices, matrix, output, input| {
            self.parameters().slice(layer)[matrices.offset(matrix, output, input)] > 0.0
        })
    }

    /// The circuit with only those channels that the root reaches.
    fn without_unreached_channels(&self) -> Result<Circuit> {
        let old = self.structure();
        let mut parameters = self.parameters().clone();
        let reached = self.reached_channels();
        let mut layers = old.layers().to_vec();
        for (layer, reached) in layers.iter_mut().zip(&reached) {
            *layer = layer.clone().with_channels(reached.len());
        }
        let structure = Structure::new(layers)?;
        for (index, layer) in old.layers().iter().enumerate().filter(|(index, _)| !reached[*index].is_empty()) {
            let tensor = &mut parameters.0[index];
            for &(axis, is_input) in layer.channel_axes() {
                let channels = if is_input { &reached[index - 1] } else { &reached[index] };
                if channels.len() < tensor.len_of(Axis(axis)) {
                    *tensor = tensor.select(Axis(axis), channels);
                    // Sums above nothing but padding may have had their weights elsewhere.
                    if let Some(sums) = layer.normalized_axis() {
                        tensor.lanes_mut(Axis(sums)).into_iter().for_each(|mut lane| normalize(lane.iter_mut()));
                    }
                }
            }
        }
        Circuit::new(structure, parameters)
    }
}

/// A layer below the mixture of repetitions with only some of its repetitions. Paddings that no longer differ become one.
fn of_repetitions(layer: &Layer, repetitions: &[usize]) -> Layer {
    match layer {
        Layer::Leaf(leaf) => Layer::Leaf(Leaf { repetitions: repetitions.len(), ..leaf.clone() }),
        Layer::ProdConv(product) => {
            let paddings: Vec<_> = repetitions.iter().map(|&repetition| product.padding.of(repetition)).collect();
            let differ = paddings.windows(2).any(|pair| pair[0] != pair[1]);
            let padding = if differ { Paddings::from(paddings) } else { Paddings::from(paddings[0]) };
            Layer::ProdConv(ProdConv { padding, ..*product })
        }
        sum => sum.clone(),
    }
}

impl Structure {
    /// For each layer the channels that the root reaches, at some feature with a scope and in some repetition, by weights that are
    /// not zero: `has_weight(layer, matrices, (group, repetition), output, input)` says which those are. Classes are all reached.
    ///
    /// Where no weight is zero few are asked for.
    pub fn reached_channels(
        &self,
        has_weight: impl Fn(usize, &WeightMatrices, (usize, usize), usize, usize) -> bool,
    ) -> Vec<Vec<usize>> {
        let layers = self.layers().len();
        let mut above = vec![true; self.shape(layers - 1).channels];
        let mut all = Vec::with_capacity(layers);
        for layer in (0..layers).rev() {
            all.push((0..above.len()).filter(|&channel| above[channel]).collect());
            let Some(matrices) = WeightMatrices::new(self, layer) else { continue };
            if matrices.mixes_repetitions() {
                continue;
            }
            if layer + 1 == layers && self.num_classes().is_some() {
                above = vec![true; matrices.inputs];
                continue;
            }
            let of_repetition = |r| self.occupied(layer, r).map(move |feature| (matrices.group(feature), r));
            let used: BTreeSet<(usize, usize)> = (0..matrices.repetitions).flat_map(of_repetition).collect();
            let mut missing: Vec<usize> = (0..matrices.inputs).collect();
            'sums: for matrix in used {
                for output in (0..matrices.outputs).filter(|&output| above[output]) {
                    missing.retain(|&input| !has_weight(layer, &matrices, matrix, output, input));
                    if missing.is_empty() {
                        break 'sums;
                    }
                }
            }
            above = vec![true; matrices.inputs];
            missing.into_iter().for_each(|input| above[input] = false);
        }
        all.reverse();
        all
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use crate::{Backend, Circuit, ConvPc, Family, Layer, Leaf, ProdConv, Reference, Structure};

    fn circuits() -> Vec<Circuit> {
        let convpc = |family| ConvPc::new(3, 4, 1, family).channels(5).leaf_channels(4).depth(2);
        let built = [
            convpc(Family::normal()).build(1),
            convpc(Family::categorical(3)).use_sum_conv(true).repetitions(2).build(2),
            convpc(Family::binomial(3)).shared_leaves(true).leaf_sums(3).build(3),
            convpc(Family::normal()).shifts([(0, 0), (1, 0)]).build(4),
        ];
        built.map(Result::unwrap).to_vec()
    }

    /// Takes the weights of these input channels of a layer.
    fn without(circuit: &Circuit, layer: usize, channels: &[usize]) -> Circuit {
        let (structure, mut parameters) = circuit.clone().into_parts();
        let axis = ndarray::Axis(structure.layers()[layer].normalized_axis().unwrap());
        for mut weights in parameters.0[layer].lanes_mut(axis) {
            channels.iter().for_each(|&channel| weights[channel] = 0.0);
            let sum = weights.sum();
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        Circuit::new(structure, parameters).unwrap()
    }

    fn channels(structure: &Structure) -> Vec<usize> {
        (0..structure.layers().len()).map(|layer| structure.shape(layer).channels).collect()
    }

    fn log_likelihood(circuit: &Circuit, data: &Array2<f32>) -> Vec<f64> {
        Reference.load(circuit).unwrap().log_likelihood(data.view()).unwrap().to_vec()
    }

    #[test]
    fn what_the_root_does_not_reach_goes_and_nothing_else_changes() {
        for circuit in circuits() {
            assert_eq!(circuit.prune(0.0).unwrap(), circuit, "all is reached");
            let structure = circuit.structure();
            let sums: Vec<usize> = (1..structure.layers().len()).filter(|&l| structure.edges(l).is_some()).collect();
            let top = *sums.iter().rfind(|&&l| structure.input_shape(l).channels > 1).unwrap();
            let sparse = without(&without(&circuit, sums[0], &[1]), top, &[0, 3]);
            let pruned = sparse.prune(0.0).unwrap();
            let mut expected = channels(structure);
            expected[..sums[0]].iter_mut().for_each(|channels| *channels -= 1);
            expected[sums[sums.iter().position(|&l| l == top).unwrap() - 1]..top].iter_mut().for_each(|c| *c -= 2);
            assert_eq!(channels(pruned.structure()), expected);
            let mut data = Reference.load(&circuit).unwrap().sample(0..30, 1).unwrap();
            data.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
            let (before, after) = (log_likelihood(&sparse, &data), log_likelihood(&pruned, &data));
            assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-9), "{before:?} {after:?}");
        }
    }

    #[test]
    fn channels_go_with_the_sums_that_reached_them() {
        // The top reaches one channel, whose sums reach one channel each.
        let circuit = &circuits()[1];
        let pruned = circuit.prune(1.0).unwrap();
        let structure = pruned.structure();
        let weights = |layer: usize| pruned.parameters().0[layer].iter().all(|w| *w == 0.0 || *w == 1.0);
        assert!((1..structure.layers().len()).all(weights), "{pruned}");
        // One channel in each of two repetitions, and what four features with patterns of their own reach from there.
        assert!(structure.shape(4).channels <= 2 && structure.shape(2).channels <= 4, "{pruned}");
    }

    /// Takes these repetitions out of the mixture, at every feature and channel.
    fn without_repetitions(circuit: &Circuit, repetitions: &[usize]) -> Circuit {
        let mixing = |layer: &Layer| matches!(layer, Layer::RepetitionMixing(_));
        without(circuit, circuit.structure().layers().iter().position(mixing).unwrap(), repetitions)
    }

    /// A mixture of repetitions on a grid, with more layers above it.
    fn mixed_below() -> Circuit {
        let chain = Structure::builder(Leaf::new(2, 2, 1, Family::bernoulli(), 2).repetitions(3))
            .sum_conv(3, 2)
            .repetition_mixing()
            .prod_conv(ProdConv::new(2, 2))
            .sum(1);
        Circuit::random(chain.build().unwrap(), 4).unwrap()
    }

    #[test]
    fn repetitions_of_no_weight_go_and_nothing_else_changes() {
        let convpc = |family| ConvPc::new(3, 4, 1, family).channels(3).leaf_channels(2).depth(3);
        let built = [
            convpc(Family::normal()).repetitions(3).build(1),
            convpc(Family::categorical(3)).use_sum_conv(true).shared_leaves(true).repetitions(3).build(2),
            convpc(Family::binomial(3)).shifts([(0, 0), (1, 2), (-1, 1)]).build(4),
            convpc(Family::bernoulli()).shifts([(0, 0), (1, 2), (-1, 1)]).num_classes(4).build(5),
        ];
        for circuit in built.map(Result::unwrap).into_iter().chain([mixed_below()]) {
            assert_eq!(circuit.prune(0.0).unwrap(), circuit, "all have weight");
            for dropped in [&[0][..], &[1], &[0, 2], &[1, 2]] {
                let sparse = without_repetitions(&circuit, dropped);
                let pruned = sparse.prune(0.0).unwrap();
                assert_eq!(pruned.structure().shape(0).repetitions, 3 - dropped.len(), "{pruned}");
                assert_eq!(pruned.prune(0.0).unwrap(), pruned);
                let mut data = Reference.load(&circuit).unwrap().sample(0..30, 1).unwrap();
                data.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
                let (before, after) = (log_likelihood(&sparse, &data), log_likelihood(&pruned, &data));
                assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-9), "{before:?} {after:?}");
                if circuit.structure().num_classes().is_some() {
                    let joint = |circuit| Reference.load(circuit).unwrap().class_log_joint(data.view()).unwrap();
                    assert!((joint(&sparse) - joint(&pruned)).iter().all(|d| d.abs() < 1e-9));
                }
            }
        }
    }

    #[test]
    fn a_repetition_that_some_class_needs_stays_and_one_stays_always() {
        let convpc = ConvPc::new(3, 4, 1, Family::bernoulli()).channels(3).depth(2).repetitions(3).num_classes(2);
        let (structure, mut parameters) = convpc.build(1).unwrap().into_parts();
        let mixing = structure.layers().len() - 2;
        // Class 0 takes only the first repetition, class 1 only the last.
        parameters.0[mixing].assign(&ndarray::arr3(&[[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]).into_dyn());
        let circuit = Circuit::new(structure, parameters).unwrap();
        assert_eq!(circuit.prune(0.0).unwrap().structure().shape(0).repetitions, 2);
        let one = mixed_below().prune(1.0).unwrap();
        assert!((1..=3).contains(&one.structure().shape(0).repetitions));
    }

    /// Channels that only a repetition without weight used are not reached either.
    #[test]
    fn channels_go_with_their_repetition() {
        let circuit = ConvPc::new(3, 4, 1, Family::bernoulli()).channels(4).depth(2).repetitions(2).build(3).unwrap();
        let (structure, mut parameters) = without_repetitions(&circuit, &[1]).into_parts();
        let top = structure.layers().len() - 2;
        assert_eq!(parameters.0[top].shape(), [1, 4, 1, 2]);
        for (repetition, channel) in [(0, 2), (1, 0)] {
            (0..4).for_each(|c| parameters.0[top][[0, c, 0, repetition]] = if c == channel { 1.0 } else { 0.0 });
        }
        let pruned = Circuit::new(structure, parameters).unwrap().prune(0.0).unwrap();
        assert_eq!((pruned.structure().shape(top - 1).channels, pruned.structure().shape(0).repetitions), (1, 1));
    }

    #[test]
    fn small_weights_are_left_out_and_the_others_sum_to_one() {
        let circuit = &circuits()[0];
        let pruned = circuit.prune(0.1).unwrap();
        let weights = |circuit: &Circuit| {
            let tensors =
                circuit.parameters().0[1..].iter().flat_map(|tensor| tensor.iter().copied().collect::<Vec<_>>());
            tensors.filter(|w| *w > 0.0).collect::<Vec<f64>>()
        };
        let (before, after) = (weights(circuit), weights(&pruned));
        assert!(before.iter().any(|w| *w < 0.1) && after.iter().all(|w| *w >= 0.1));
        assert!(after.len() < before.len());
    }

    #[test]
    fn classes_stay() {
        let convpc = ConvPc::new(3, 4, 1, Family::bernoulli()).channels(4).depth(2).repetitions(2).num_classes(3);
        let circuit = convpc.build(1).unwrap();
        let root = circuit.structure().layers().len() - 1;
        let circuit = without(&circuit, root, &[1]);
        let pruned = circuit.prune(0.9).unwrap();
        assert_eq!(pruned.structure().num_classes(), Some(3));
        assert_eq!(pruned.class_prior().unwrap(), circuit.class_prior().unwrap());
    }

    #[test]
    fn thresholds_that_are_no_share_are_refused() {
        for least in [-0.1, 1.5, f64::NAN] {
            let error = circuits()[0].prune(least).unwrap_err().to_string();
            assert!(error.contains("the least weight"), "{error}");
        }
    }
}

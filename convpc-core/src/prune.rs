use std::collections::BTreeSet;

use ndarray::Axis;

use crate::{
    circuit::Circuit, error::Result, layer::WeightMatrices, learn::in_range, normalize::normalize, structure::Structure,
};

impl Circuit {
    /// The circuit without the channels that cannot be reached from the root: those that all sums above give a weight of zero,
    /// at every feature and in every repetition. They cost time and memory and change nothing.
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
        let old = self.structure();
        let mut parameters = self.parameters().clone();
        let inner = old.layers().len() - usize::from(old.num_classes().is_some());
        for (layer, tensor) in old.layers()[..inner].iter().zip(&mut parameters.0) {
            let Some(axis) = layer.normalized_axis().filter(|_| least > 0.0) else { continue };
            for mut weights in tensor.lanes_mut(Axis(axis)) {
                let largest = weights.iter().copied().fold(0.0, f64::max);
                weights.iter_mut().filter(|w| **w < least && **w < largest).for_each(|w| *w = 0.0);
                normalize(weights.iter_mut());
            }
        }
        let reached = old.reached_channels(|layer, matrices, matrix, output, input| {
            parameters.slice(layer)[matrices.offset(matrix, output, input)] > 0.0
        });
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

    use crate::{Backend, Circuit, ConvPc, Family, Reference, Structure};

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

use std::{ops::Deref, sync::OnceLock};

use convpc_core::{Structure, WeightMatrices};

/// The weights of a sum-like layer as the SIMD loops read them: f32, linear.
#[derive(Debug)]
pub(crate) struct Weights {
    matrices: WeightMatrices,
    values: Vec<f32>,
    /// For each output the sums of its first weights, once something was drawn.
    cumulative: OnceLock<Vec<f64>>,
}

impl Deref for Weights {
    type Target = WeightMatrices;

    fn deref(&self) -> &WeightMatrices {
        &self.matrices
    }
}

impl Weights {
    /// `None` for leaves and products.
    pub(crate) fn new(structure: &Structure, layer: usize, tensor: &[f64]) -> Option<Self> {
        let matrices = WeightMatrices::new(structure, layer)?;
        let values = matrices.offsets().map(|offset| tensor[offset] as f32).collect();
        Some(Weights { matrices, values, cumulative: OnceLock::new() })
    }

    /// `[matrix][output][input]`
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// To be replaced.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        self.cumulative = OnceLock::new();
        &mut self.values
    }

    /// The input that the uniform `u` draws in proportion to the weights of an output: what `rng::pick` finds, which adds in
    /// the same order, by bisection.
    pub(crate) fn draw(&self, feature: usize, repetition: usize, output: usize, u: f64) -> usize {
        let cumulative = self.cumulative.get_or_init(|| {
            let mut sums: Vec<f64> = self.values.iter().map(|w| f64::from(*w)).collect();
            for sums in sums.chunks_exact_mut(self.inputs) {
                (1..sums.len()).for_each(|k| sums[k] += sums[k - 1]);
            }
            sums
        });
        let sums = &cumulative[self.start(feature, repetition) + output * self.inputs..][..self.inputs];
        let total = sums[self.inputs - 1];
        // An input of weight zero adds nothing and is never the first beyond; rounding may let u · total reach the total.
        let found = sums.partition_point(|sum| *sum <= u * total);
        if found < self.inputs { found } else { sums.partition_point(|sum| *sum < total) }
    }

    /// The number of a feature's matrix.
    pub(crate) fn matrix(&self, feature: usize, repetition: usize) -> usize {
        self.group(feature) * self.repetitions + repetition
    }

    /// Where the `outputs × inputs` weights of a feature begin.
    pub(crate) fn start(&self, feature: usize, repetition: usize) -> usize {
        self.matrix(feature, repetition) * self.outputs * self.inputs
    }

    /// The `[outputs][inputs]` weights of a feature.
    pub(crate) fn of(&self, feature: usize, repetition: usize) -> &[f32] {
        let start = self.start(feature, repetition);
        &self.values[start..start + self.outputs * self.inputs]
    }
}

#[cfg(test)]
mod tests {
    use convpc_core::{Circuit, ConvPc, Family, rng};

    use super::*;

    /// By bisection as by adding up, at every step of the sums and beside it; weights of zero are never drawn.
    #[test]
    fn draws_are_those_of_rng() {
        let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(9).depth(1).build(3).unwrap();
        let (structure, mut parameters) = circuit.into_parts();
        parameters.0[2].indexed_iter_mut().filter(|(at, _)| at[1] % 3 == at[2] % 2).for_each(|(_, w)| *w = 0.0);
        for mut lane in parameters.0[2].lanes_mut(ndarray::Axis(1)) {
            let sum = lane.sum();
            lane.mapv_inplace(|w| w / sum);
        }
        let circuit = Circuit::new(structure, parameters).unwrap();
        let weights = Weights::new(circuit.structure(), 2, circuit.parameters().slice(2)).unwrap();
        let mut seen = 0;
        for feature in 0..4 {
            for output in 0..9 {
                let of = &weights.of(feature, 0)[output * 9..][..9];
                let w = || of.iter().map(|w| f64::from(*w));
                let total: f64 = w().sum();
                let steps = w().scan(0.0, |sum, w| {
                    *sum += w;
                    Some(*sum / total)
                });
                for u in steps.flat_map(|u| [u - 1e-9, u - 1e-16, u, u + 1e-16, u + 1e-9]) {
                    let u = u.clamp(0.0, 1.0);
                    let k = weights.draw(feature, 0, output, u);
                    assert_eq!(k, rng::pick(w(), u), "{u} of {of:?}");
                    assert!(of[k] > 0.0);
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 4 * 9 * 9 * 5);
    }
}

use ndarray::{Axis, aview1};
use serde::{Deserialize, Serialize};

use super::{OptimizerState, in_range, rows};
use crate::{
    error::Result, normalize::shift_logits, parameters::Parameters, statistics::Statistics, structure::Structure,
};

/// Adam (Kingma and Ba, 2015) on the unconstrained parameters, up the gradient of the mean log-likelihood of a row in nats.
///
/// Logits of the sum weights; at the leaves logits of probabilities, or mean (in units of the current std) and log std.
/// Weight decay is decoupled (Loshchilov and Hutter, 2019) and draws logits, thus distributions towards even ones; means and
/// stds are left out. A weight or a probability of 0 stays.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adam {
    /// How much of the gradient's running mean stays; at least 0, below 1.
    pub beta1: f64,
    /// How much of the running mean of its square stays; at least 0, below 1.
    pub beta2: f64,
    /// Added to the root of the mean square; positive.
    pub epsilon: f64,
    /// Each step multiplies logits by `1 − step · weight_decay`; at least 0.
    pub weight_decay: f64,
    /// The largest norm of the gradient of all parameters together; a longer one is shortened to it.
    pub clip: Option<f64>,
    /// Smallest standard deviation of a Normal or discretized logistic leaf, in the units of the data.
    pub minimum_std: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, clip: None, minimum_std: 1e-3 }
    }
}

impl Adam {
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where an option is out of range.
    pub fn check(&self) -> Result<()> {
        for (what, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            in_range(what, beta, (0.0..1.0).contains(&beta), "a number from 0 up to but below 1")?;
        }
        for (what, value) in [("epsilon", self.epsilon), ("clip", self.clip.unwrap_or(1.0))] {
            in_range(what, value, value > 0.0 && value.is_finite(), "a finite number above 0")?;
        }
        for (what, value) in [("weight_decay", self.weight_decay), ("minimum_std", self.minimum_std)] {
            in_range(what, value, value >= 0.0 && value.is_finite(), "a finite number of at least 0")?;
        }
        Ok(())
    }

    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where an option or the step size is out of range.
    pub fn check_step(&self, step: f64) -> Result<()> {
        self.check()?;
        let legal = step >= 0.0 && step.is_finite() && step * self.weight_decay <= 1.0;
        in_range("the step size of Adam", step, legal, "a finite number of at least 0, at most 1 / weight decay")
    }

    pub(super) fn apply(
        &self,
        structure: &Structure,
        parameters: &mut Parameters,
        statistics: &Statistics,
        step: f64,
        state: &mut OptimizerState,
    ) -> Result<()> {
        self.check_step(step)?;
        let scale = 1.0 / rows(statistics)?;
        let mut gradient = statistics.gradient(structure, parameters);
        let units = units(structure, parameters);
        gradient.0[0] *= &units;
        gradient.0.iter_mut().for_each(|tensor| *tensor *= scale);
        if let Some(clip) = self.clip {
            let norm = gradient.0.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
            if norm > clip {
                gradient.0.iter_mut().for_each(|tensor| *tensor *= clip / norm);
            }
        }
        let (bias1, bias2) = (state.next_bias(self.beta1), state.next_bias(self.beta2));
        let (first, second) = state.memory.moments(structure)?;
        // The gradient is no longer needed: its place takes the step.
        for (layer, g) in gradient.0.iter_mut().enumerate() {
            let (m, v) = (&mut first.0[layer], &mut second.0[layer]);
            ndarray::Zip::from(g).and(m).and(v).for_each(|g, m, v| {
                *m = self.beta1 * *m + (1.0 - self.beta1) * *g;
                *v = self.beta2 * *v + (1.0 - self.beta2) * *g * *g;
                *g = step * (*m / bias1) / ((*v / bias2).sqrt() + self.epsilon);
            });
        }
        gradient.0[0] *= &units;
        self.shift(structure, parameters, &gradient, 1.0 - step * self.weight_decay);
        Ok(())
    }

    /// Moves the unconstrained parameters, logits multiplied by `keep` before.
    fn shift(&self, structure: &Structure, parameters: &mut Parameters, by: &Parameters, keep: f64) {
        let family = &structure.leaf().family;
        for (index, layer) in structure.layers().iter().enumerate() {
            let (theta, by) = (&mut parameters.0[index], &by.0[index]);
            if let Some(axis) = layer.normalized_axis() {
                let lanes = theta.lanes_mut(Axis(axis)).into_iter().zip(by.lanes(Axis(axis)));
                for (mut w, by) in lanes {
                    let mut own = w.to_vec();
                    shift_logits(&mut own, &by.to_vec(), keep);
                    w.assign(&aview1(&own));
                }
            }
            if index == 0 {
                for (mut theta, by) in theta.lanes_mut(Axis(3)).into_iter().zip(by.lanes(Axis(3))) {
                    let (theta, by) = (theta.as_slice_mut(), by.to_slice());
                    family.shift(theta.expect("innermost axis"), by.expect("innermost axis"), keep, self.minimum_std);
                }
            }
        }
    }
}

/// The units that each leaf parameter moves in.
fn units(structure: &Structure, parameters: &Parameters) -> ndarray::ArrayD<f64> {
    let mut units = parameters.0[0].clone();
    for (mut units, theta) in units.lanes_mut(Axis(3)).into_iter().zip(parameters.0[0].lanes(Axis(3))) {
        let (units, theta) = (units.as_slice_mut().expect("innermost axis"), theta.to_slice().expect("innermost axis"));
        structure.leaf().family.units(theta, units);
    }
    units
}

//! Expectation maximisation: exact, over any number of mini-batches.

use std::ops::ControlFlow;

use ndarray::{ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use crate::{
    backend::{Accumulated, Executable},
    error::{Error, Result, positive},
    family::LeafStep,
    layer::Layer,
    normalize::kept_possible,
    parameters::Parameters,
    statistics::Statistics,
    structure::Structure,
};

/// How an EM step turns expected counts into parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Dirichlet pseudocount added to the expected count of every sum edge and of every value of a discrete leaf.
    ///
    /// 0 gives the exact step: the mean log-likelihood never falls. It is the default, and has a price: a value that a
    /// discrete leaf did not see gets probability 0 for good, so that an image with that value there may have probability
    /// 0. The weights of sums are safe: one that was positive stays at least
    /// [`SMALLEST_WEIGHT`](crate::SMALLEST_WEIGHT). Use 0.01 or so to score images that were not learned from.
    pub pseudocount: f64,
    /// Smallest standard deviation of a Normal or discretized logistic leaf, in the units of the data. Below
    /// [`Normal::SMALLEST_STD`](crate::Normal::SMALLEST_STD), the smallest legal one, it counts as that.
    pub minimum_std: f64,
    /// Normal leaves: variance times n/(n−1), n the expected count of the leaf, only where n > 2. Breaks the monotone
    /// guarantee.
    pub bias_correction: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { pseudocount: 0.0, minimum_std: 1e-3, bias_correction: false }
    }
}

impl Options {
    /// An error where a number is negative or not finite, or the pseudocount is so large that sums over it may not be finite.
    pub fn check(&self) -> Result<()> {
        const LARGEST_PSEUDOCOUNT: f64 = 1e30;
        for (what, value) in [("pseudocount", self.pseudocount), ("minimum_std", self.minimum_std)] {
            if !(value >= 0.0 && value.is_finite()) {
                let expected = "a finite number of at least 0".to_string();
                return Err(Error::Argument { what, given: value.to_string(), expected });
            }
        }
        if self.pseudocount > LARGEST_PSEUDOCOUNT {
            let (given, expected) = (format!("{:e}", self.pseudocount), format!("at most {LARGEST_PSEUDOCOUNT:e}"));
            return Err(Error::Argument { what: "pseudocount", given, expected });
        }
        Ok(())
    }

    /// What the leaves take.
    pub fn leaf_step(&self) -> LeafStep {
        let Options { pseudocount, minimum_std, bias_correction } = *self;
        LeafStep { pseudocount, minimum_std, bias_correction }
    }
}

/// The EM step: `w = (count + α) / Σ (count + α)` at the sums, the maximum-likelihood step at the leaves. What saw no flow
/// stays as it is (with α = 0). A weight that was positive stays at least [`SMALLEST_WEIGHT`](crate::SMALLEST_WEIGHT).
///
/// # Errors
/// [`Error::NoStatistics`] where the statistics are empty, [`Error::Argument`] where an option is out of range.
pub fn step(
    structure: &Structure,
    parameters: &mut Parameters,
    statistics: &Statistics,
    options: &Options,
) -> Result<()> {
    options.check()?;
    if statistics.rows == statistics.impossible_rows {
        return Err(Error::NoStatistics);
    }
    for ((layer, theta), counts) in structure.layers().iter().zip(&mut parameters.0).zip(&statistics.counts) {
        if let Layer::Leaf(leaf) = layer {
            for (mut theta, counts) in theta.rows_mut().into_iter().zip(counts.rows()) {
                let theta = theta.as_slice_mut().expect("innermost axis");
                let counts = counts.to_vec();
                leaf.family.maximum_likelihood(theta, counts[0], &counts[1..], &options.leaf_step());
            }
        }
        if let Some(axis) = layer.normalized_axis() {
            for (mut w, counts) in theta.lanes_mut(Axis(axis)).into_iter().zip(counts.lanes(Axis(axis))) {
                let total = counts.sum() + options.pseudocount * counts.len() as f64;
                if total > 0.0 {
                    let weights = w.iter_mut().zip(counts);
                    weights.for_each(|(w, n)| *w = kept_possible((n + options.pseudocount) / total, *w));
                }
            }
        }
    }
    Ok(())
}

/// What [`fit`] reports after each batch and after each epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// A batch was added to the statistics.
    Batch {
        /// Epoch, 0 the first.
        epoch: usize,
        /// Rows of the epoch so far.
        rows: usize,
    },
    /// All data were seen and the step was taken.
    Epoch {
        /// Epoch, 0 the first.
        epoch: usize,
        /// Mean log-likelihood of the data before the step, nats.
        mean_log_likelihood: f64,
        /// Rows of probability zero.
        impossible_rows: u64,
    },
}

/// Full-batch EM: `epochs` times, gathers the counts of all data in batches of `batch_size` rows, then takes one step.
/// The result does not depend on the batch size but for rounding. `observe` sees the progress and may stop.
///
/// ```
/// use convpc_core::{Backend, ConvPc, Family, Reference, em};
/// use ndarray::array;
/// let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(2).build(1)?;
/// let mut executable = Reference.load(&circuit)?;
/// let data = array![[0., 0., 1., 1.], [1., 1., 0., f32::NAN]];
/// let before = executable.log_likelihood(data.view())?.mean();
/// em::fit(&mut *executable, data.view(), 10, 100, &em::Options::default(), &mut |_| std::ops::ControlFlow::Continue(()))?;
/// assert!(executable.log_likelihood(data.view())?.mean() > before);
/// # Ok::<(), convpc_core::Error>(())
/// ```
///
/// # Errors
/// Where the data do not fit the circuit, the batch size is 0, or an option is out of range.
pub fn fit(
    executable: &mut dyn Executable,
    data: ArrayView2<f32>,
    epochs: usize,
    batch_size: usize,
    options: &Options,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<()> {
    options.check()?;
    positive("batch_size", batch_size)?;
    crate::evidence::check(executable.structure(), data)?;
    for epoch in 0..epochs {
        executable.reset_statistics();
        let mut total = Accumulated::default();
        for batch in data.axis_chunks_iter(Axis(0), batch_size) {
            total.add(&executable.accumulate(batch)?);
            if observe(Progress::Batch { epoch, rows: total.rows as usize }).is_break() {
                executable.reset_statistics();
                return Ok(());
            }
        }
        executable.em_step(options)?;
        let mean_log_likelihood = total.log_likelihood / total.rows as f64;
        let impossible_rows = total.impossible_rows;
        if observe(Progress::Epoch { epoch, mean_log_likelihood, impossible_rows }).is_break() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, Blend, ConvPc, Family, MiniBatchEm, OptimizerState, Reference, Rule, SMALLEST_WEIGHT};

    /// Nothing flows to a channel whose leaves exclude the image.
    #[test]
    fn a_weight_that_was_positive_stays_so_and_one_that_was_zero_too() {
        let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(3).build(1).unwrap();
        let (structure, mut parameters) = circuit.into_parts();
        parameters.0[2].lanes_mut(Axis(1)).into_iter().for_each(|mut w| {
            w[0] = 0.0;
            let sum = w.sum();
            w /= sum;
        });
        parameters.0[0][[1, 1, 0, 0]] = 0.0;
        let rules = [
            Rule::Em(Options::default()),
            Rule::MiniBatchEm(MiniBatchEm::default()),
            Rule::MiniBatchEm(MiniBatchEm { blend: Blend::Parameters, ..MiniBatchEm::default() }),
        ];
        for rule in rules {
            let circuit = crate::Circuit::new(structure.clone(), parameters.clone()).unwrap();
            let mut executable = Reference.load(&circuit).unwrap();
            let mut state = OptimizerState::default();
            for _ in 0..3 {
                executable.accumulate(ndarray::array![[0.0, 1.0, 1.0, 0.0]].view()).unwrap();
                executable.update(&rule, 1.0, &mut state).unwrap();
            }
            let learned = executable.parameters().unwrap();
            let weights = learned.0[2].iter().zip(parameters.0[2].iter());
            assert!(weights.clone().all(|(new, old)| (*new > 0.0) == (*old > 0.0)), "{rule:?}: {learned:?}");
            assert!(weights.into_iter().any(|(new, _)| *new == SMALLEST_WEIGHT), "{rule:?}: {learned:?}");
        }
    }
}

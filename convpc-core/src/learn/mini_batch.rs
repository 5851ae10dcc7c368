use ndarray::{ArrayD, Axis, Zip};
use serde::{Deserialize, Serialize};

use super::{OptimizerState, em, in_range, rows};
use crate::{
    error::Result,
    family::{Family, LeafStep},
    normalize::kept_possible,
    parameters::Parameters,
    statistics::Statistics,
    structure::Structure,
};

/// What a mini-batch is blended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blend {
    /// Expected counts with those of the circuit's own draws: `EM(step · counts + (1 − step) · expected)`, where an edge's
    /// expected count is the top-down probability of its sum times its weight. A node that the batch uses more than the
    /// model foresees takes a longer step, one that it does not use takes none: the form known as Anemone.
    #[default]
    TopDown,
    /// New parameters with old ones: `(1 − step) · θ + step · EM(counts)`, the mean parameters `E[T]` at the leaves.
    /// A node takes the same step whether it was used often or hardly at all; one without use stays.
    Parameters,
}

/// EM on the counts of mini-batches, with a step size between 0 and 1.
///
/// With step size 1, no momentum and all data in one batch it is exactly [`em::step`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiniBatchEm {
    /// What the batch is blended with.
    pub blend: Blend,
    /// How much of the earlier counts stays: the counts are a running mean over batches, corrected for its start at zero.
    /// At least 0 (each batch by itself) and below 1.
    pub momentum: f64,
    /// As in [`em::Options`], added to the counts of `data_rows` rows.
    pub pseudocount: f64,
    /// As in [`em::Options`].
    pub minimum_std: f64,
    /// Rows that the pseudocount is relative to: those of all data. `None`: those of the batch.
    pub data_rows: Option<u64>,
}

impl Default for MiniBatchEm {
    fn default() -> Self {
        let em::Options { pseudocount, minimum_std, .. } = em::Options::default();
        MiniBatchEm { blend: Blend::TopDown, momentum: 0.0, pseudocount, minimum_std, data_rows: None }
    }
}

impl MiniBatchEm {
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where an option is out of range.
    pub fn check(&self) -> Result<()> {
        self.em_options().check()?;
        in_range("momentum", self.momentum, (0.0..1.0).contains(&self.momentum), "a number from 0 up to but below 1")?;
        let data_rows = self.data_rows.unwrap_or(1);
        in_range("data_rows", data_rows as f64, data_rows > 0, "at least 1 row")
    }

    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where an option or the step size is out of range.
    pub fn check_step(&self, step: f64) -> Result<()> {
        self.check()?;
        in_range("the step size of mini-batch EM", step, (0.0..=1.0).contains(&step), "a number between 0 and 1")
    }

    /// The full step that this one is a part of. There is no bias correction: it would be repeated at every step.
    pub(super) fn em_options(&self) -> em::Options {
        let MiniBatchEm { pseudocount, minimum_std, .. } = *self;
        em::Options { pseudocount, minimum_std, bias_correction: false }
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
        if self.momentum == 0.0 {
            state.memory.none()?;
        }
        let seen = rows(statistics)?;
        let mut counts: Vec<ArrayD<f64>> = statistics.counts.iter().map(|counts| counts / seen).collect();
        if self.momentum > 0.0 {
            let bias = state.next_bias(self.momentum);
            let running = state.memory.running(structure)?;
            for (running, new) in running.iter_mut().zip(&mut counts) {
                Zip::from(running).and(new).for_each(|mean, new| {
                    *mean = self.momentum * *mean + (1.0 - self.momentum) * *new;
                    *new = *mean / bias;
                });
            }
        }
        let scale = self.data_rows.map_or(seen, |rows| rows as f64);
        let before = parameters.0[0].clone();
        match self.blend {
            Blend::TopDown => {
                let expected = Statistics::expected(structure, parameters);
                for (counts, expected) in counts.iter_mut().zip(&expected.counts) {
                    counts.zip_mut_with(expected, |n, e| *n = scale * (step * *n + (1.0 - step) * e));
                }
                // The pseudocount belongs to the data: the resting point must not depend on the step size.
                let options = em::Options { pseudocount: step * self.pseudocount, ..self.em_options() };
                em::step(structure, parameters, &Statistics { counts, ..one_row() }, &options)?;
            }
            Blend::Parameters => {
                counts.iter_mut().for_each(|counts| *counts *= scale);
                let mut target = parameters.clone();
                em::step(structure, &mut target, &Statistics { counts, ..one_row() }, &self.em_options())?;
                blend(structure, parameters, &target, step);
            }
        }
        if let super::Memory::Running(running) = &mut state.memory {
            rebase(&structure.leaf().family, &before, &parameters.0[0], &mut running[0]);
        }
        Ok(())
    }
}

/// Statistics that are not empty, to be filled in.
fn one_row() -> Statistics {
    Statistics { rows: 1, impossible_rows: 0, log_likelihood: 0.0, counts: vec![] }
}

/// Moves parameters towards others by a share `step` of the way: weights on a straight line, leaves with their `E[T]`.
fn blend(structure: &Structure, parameters: &mut Parameters, target: &Parameters, step: f64) {
    for (layer, (theta, target)) in structure.layers().iter().zip(parameters.0.iter_mut().zip(&target.0)) {
        if layer.normalized_axis().is_some() {
            theta.zip_mut_with(target, |w, new| *w = kept_possible((1.0 - step) * *w + step * new, *w));
        }
    }
    let family = &structure.leaf().family;
    let exact = LeafStep { pseudocount: 0.0, minimum_std: 0.0, bias_correction: false };
    let (mut old, mut new) = (vec![0.0; family.statistics()], vec![0.0; family.statistics()]);
    for (mut theta, target) in parameters.0[0].lanes_mut(Axis(3)).into_iter().zip(target.0[0].lanes(Axis(3))) {
        let theta = theta.as_slice_mut().expect("innermost axis");
        let target = target.to_slice().expect("innermost axis");
        family.expected(theta, &mut old);
        family.expected(target, &mut new);
        family.rebase(target, theta, 1.0, &mut new);
        new.iter_mut().zip(&old).for_each(|(new, old)| *new = (1.0 - step) * old + step * *new);
        family.maximum_likelihood(theta, 1.0, &new, &exact);
    }
}

/// Brings leaf statistics (the flow first) from the parameters that they were gathered at to others.
fn rebase(family: &Family, from: &ArrayD<f64>, to: &ArrayD<f64>, statistics: &mut ArrayD<f64>) {
    let parameters = from.lanes(Axis(3)).into_iter().zip(to.lanes(Axis(3)));
    for (mut statistics, (from, to)) in statistics.lanes_mut(Axis(3)).into_iter().zip(parameters) {
        let (from, to) = (from.to_slice().expect("innermost axis"), to.to_slice().expect("innermost axis"));
        if let Some((count, t)) = statistics.as_slice_mut().expect("innermost axis").split_first_mut() {
            family.rebase(from, to, *count, t);
        }
    }
}

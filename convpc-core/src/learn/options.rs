use serde::{Deserialize, Serialize};

use super::{Rule, Schedule, em, in_range};
use crate::error::{Error, Result, positive};

/// Everything about a training run but the data and the circuit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// How counts become parameters. EM takes one step an epoch, the other rules one a batch.
    pub rule: Rule,
    /// The step size over the epochs; EM has none.
    pub step: Schedule,
    /// The share of the epochs, 0 to below 1, in which repetitions learn to part: the inverse temperature of their posterior
    /// grows from one over the number of variables to 1, in equal factors; see
    /// [`Executable::set_inverse_temperature`](crate::Executable::set_inverse_temperature).
    #[serde(default)]
    pub annealing: f64,
    /// Times that all rows are seen, at least 1.
    pub epochs: usize,
    /// The most rows of a batch, at least 1.
    pub batch_size: usize,
    /// The share of the rows that is held out for validation, above 0 and below 1. `None`: none, or data of their own.
    pub valid_fraction: Option<f64>,
    /// Epochs without a better mean log-likelihood of the validation data after which it is enough; at least 1.
    pub patience: Option<usize>,
    /// Full-batch EM steps after the last epoch, from the best parameters if there are validation data. Each is an epoch.
    pub final_em_steps: usize,
    /// What these steps take.
    pub final_em: em::Options,
    /// Seed of the order of the rows and of the choice of those held out.
    pub seed: u64,
    /// Batches between two checkpoints inside an epoch, for rules that take a step a batch; there is always one after each
    /// epoch.
    pub checkpoint_batches: Option<usize>,
    /// Epochs from one validation and checkpoint to the next, at least 1: both cost as much as several steps, which is long
    /// where an epoch is short. The last epoch always has them.
    #[serde(default = "every_epoch")]
    pub evaluate_every: usize,
}

fn every_epoch() -> usize {
    1
}

impl Options {
    /// The usual run of a rule: 20 epochs in batches of 512 rows; mini-batch EM with a step size that falls from 0.4 to 0.02
    /// on a straight line, Adam from 0.1 to 0.01 on a cosine, both with annealing in the first fifth; exact EM without.
    pub fn new(rule: Rule) -> Self {
        let step = match rule {
            Rule::Em(_) => Schedule::constant(1.0),
            Rule::MiniBatchEm(_) => Schedule::linear(0.4, 0.02),
            Rule::Adam(_) => Schedule::cosine(0.1, 0.01),
        };
        let annealing = if rule.is_full_batch() { 0.0 } else { 0.2 };
        let final_em = match rule {
            Rule::Em(options) => options,
            Rule::MiniBatchEm(rule) => rule.em_options(),
            Rule::Adam(adam) => em::Options { minimum_std: adam.minimum_std, ..em::Options::default() },
        };
        Options {
            rule,
            step,
            annealing,
            epochs: 20,
            batch_size: 512,
            valid_fraction: None,
            patience: None,
            final_em_steps: 0,
            final_em,
            seed: 0,
            checkpoint_batches: None,
            evaluate_every: 1,
        }
    }

    /// The most epochs of a run: those of the rule, and the final EM steps.
    pub fn all_epochs(&self) -> usize {
        self.epochs.saturating_add(self.final_em_steps)
    }

    /// # Errors
    /// [`Error::Zero`](crate::Error::Zero) and [`Error::Argument`](crate::Error::Argument) where a number is out of range.
    pub fn check(&self) -> Result<()> {
        self.rule.check()?;
        self.step.check()?;
        self.final_em.check()?;
        let legal = (0.0..1.0).contains(&self.annealing);
        in_range("the annealing", self.annealing, legal, "a share of the training of at least 0 and below 1")?;
        positive("epochs", self.epochs)?;
        if self.epochs.checked_add(self.final_em_steps).is_none() {
            let (given, expected) = (self.final_em_steps.to_string(), usize::MAX - self.epochs);
            let expected = format!("at most {expected}, so that all epochs can be counted");
            return Err(Error::Argument { what: "final_em_steps", given, expected });
        }
        positive("batch_size", self.batch_size)?;
        positive("patience", self.patience.unwrap_or(1))?;
        positive("checkpoint_batches", self.checkpoint_batches.unwrap_or(1))?;
        positive("evaluate_every", self.evaluate_every)?;
        let fraction = self.valid_fraction.unwrap_or(0.5);
        in_range("valid_fraction", fraction, fraction > 0.0 && fraction < 1.0, "a share between 0 and 1")?;
        if let (Rule::MiniBatchEm(_), Schedule { from, to, .. }) = (self.rule, self.step) {
            in_range("the step size of mini-batch EM", from.max(to), from.max(to) <= 1.0, "a number between 0 and 1")?;
        }
        Ok(())
    }
}

//! The reports of a training run.

use super::State;
use crate::parameters::Parameters;

/// The report of an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// Its number, 0 the first.
    pub epoch: usize,
    /// True for a final EM step.
    pub is_final_em: bool,
    /// Steps that were taken since the beginning of the run.
    pub steps: u64,
    /// Rows trained on.
    pub rows: u64,
    /// Rows of probability zero among them.
    pub impossible_rows: u64,
    /// Mean log-likelihood of the rows, nats: each batch before the step on it; all data before the step for EM.
    pub mean_log_likelihood: f64,
    /// Mean log-likelihood of the validation data after the epoch, nats, where they were scored.
    pub validation: Option<f64>,
    /// The share of the validation data whose most probable class is their label, where they were scored and have labels.
    pub accuracy: Option<f64>,
    /// True if this epoch is the best so far.
    pub is_best: bool,
    /// The last step size; 1 for EM.
    pub step_size: f64,
}

/// The mean number of observed variables of a row: those that are not NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// The mean over the training rows.
    pub train: f64,
    /// The mean over the validation data, if there are any.
    pub valid: Option<f64>,
}

/// A report of [`Trainer::run`](super::Trainer::run).
#[derive(Debug)]
pub enum Event<'a> {
    /// A batch is over.
    Batch {
        /// The epoch, 0 the first.
        epoch: usize,
        /// Rows of the epoch so far.
        rows: usize,
        /// Rows of a whole epoch.
        of: usize,
        /// Mean log-likelihood of the rows of the epoch so far, nats.
        mean_log_likelihood: f64,
    },
    /// An epoch is over.
    Epoch(Epoch),
    /// A place from which the run can go on: there is one before the first step, one after each epoch (or every few), more where
    /// the options ask for them, and one where the observer stops the run.
    Checkpoint {
        /// The parameters.
        parameters: &'a Parameters,
        /// The state.
        state: &'a State,
    },
}

//! The state of a training run, and the check that a run can have left it.

use super::{Options, Trainer};
use crate::{
    backend::{Accumulated, Executable},
    error::{Error, Result},
    learn::{OptimizerState, batches},
    parameters::Parameters,
};

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// What the rule remembers.
    pub optimizer: OptimizerState,
    /// Epochs that are over.
    pub epoch: usize,
    /// Batches of the epoch that are over.
    pub batch: usize,
    /// What was seen in the epoch so far.
    pub seen: Accumulated,
    /// The epochs of the rule, once it has had its last; what follows are final EM steps.
    pub main_epochs: Option<usize>,
    /// The best parameters so far, if there are validation data.
    pub best: Option<Best>,
    /// Whether there is nothing left to do.
    pub finished: bool,
}

/// The parameters that did best on the validation data.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// The epoch that they came from, 0 the first.
    pub epoch: usize,
    /// Mean log-likelihood of the validation data, nats.
    pub mean_log_likelihood: f64,
    /// The parameters.
    pub parameters: Parameters,
}

impl Trainer<'_> {
    /// An error unless a run of these options on these data could have left the state.
    pub(super) fn check_state(&self, executable: &dyn Executable, state: &State) -> Result<()> {
        state.optimizer.memory.check(executable.structure())?;
        let Options { epochs, final_em_steps, batch_size, .. } = self.options;
        let batches = batches::count(self.rows.len(), batch_size);
        if self.is_after_whole_epochs(state) && self.is_after_whole_batches(state, batches) {
            return Ok(());
        }
        let State { epoch, batch, seen, main_epochs, best, finished, .. } = state;
        let best = best.as_ref().map_or("none".into(), |best| best.epoch.to_string());
        let last = main_epochs.map_or("none".into(), |epochs| epochs.to_string());
        Err(Error::Argument {
            what: "the state of the run",
            given: format!(
                "at batch {batch} of epoch {epoch}, with {} rows of it seen (best epoch: {best}, epochs before the final EM \
                 steps: {last}, finished: {finished})",
                seen.rows
            ),
            expected: format!(
                "one that a run of {} rows in {batches} batches and {epochs} + {final_em_steps} epochs leaves; give the \
                 options and data of the run",
                self.rows.len()
            ),
        })
    }

    /// Whether the state's numbers of epochs can be those of a run.
    fn is_after_whole_epochs(&self, state: &State) -> bool {
        let Options { epochs, final_em_steps, .. } = self.options;
        let best_is_over = state.best.as_ref().is_none_or(|best| best.epoch < state.epoch);
        let is_in_run = match state.main_epochs {
            None => state.epoch < epochs && !state.finished,
            Some(main) => {
                let is_possible = (1..=epochs).contains(&main) && main <= state.epoch;
                let final_steps = state.epoch.saturating_sub(main);
                is_possible && final_steps <= final_em_steps && state.finished == (final_steps == final_em_steps)
            }
        };
        best_is_over && is_in_run
    }

    /// Whether the state's numbers of batches and rows can be those of a run. Where the rule takes all data at once, the epoch
    /// begins again in any case.
    fn is_after_whole_batches(&self, state: &State, batches: usize) -> bool {
        if self.rule(state).is_full_batch() {
            return state.batch == 0;
        }
        let Accumulated { rows, impossible_rows, .. } = state.seen;
        let seen = |batch| batches::range(batch, batches, self.rows.len()).start as u64;
        state.batch <= batches && rows == seen(state.batch) && impossible_rows <= rows
    }
}

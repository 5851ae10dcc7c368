//! Learning: update rules over the same expected counts, and the loop that applies them.

mod adam;
mod batches;
pub mod em;
mod labels;
mod mini_batch;
mod options;
mod schedule;
mod state;
pub mod train;

pub use adam::Adam;
pub use mini_batch::{Blend, MiniBatchEm};
pub use schedule::{Curve, Schedule};
use serde::{Deserialize, Serialize};
pub use state::{DeviceMemory, Memory, Named, OptimizerState, Resident};

use crate::{
    backend::Accumulated,
    error::{Error, Result},
    parameters::Parameters,
    statistics::Statistics,
    structure::Structure,
};

/// How expected counts become new parameters.
///
/// ```
/// use convpc_core::{Adam, Backend, ConvPc, Family, OptimizerState, Reference, Rule};
/// use ndarray::array;
/// let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(2).build(1)?;
/// let mut executable = Reference.load(&circuit)?;
/// let data = array![[0., 0., 1., 1.], [1., 1., 0., f32::NAN]];
/// let (rule, mut state) = (Rule::Adam(Adam::default()), OptimizerState::default());
/// let before = executable.accumulate(data.view())?.log_likelihood;
/// executable.update(&rule, 0.1, &mut state)?;
/// assert!(executable.log_likelihood(data.view())?.sum() > before);
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Rule {
    /// The exact EM step, for counts of all data; it has no step size.
    Em(em::Options),
    /// EM on counts of a part of the data, with a step size.
    MiniBatchEm(MiniBatchEm),
    /// Adam on the unconstrained parameters.
    Adam(Adam),
}

impl Rule {
    /// Whether the rule is meant for the counts of all data, not of a batch.
    pub fn is_full_batch(&self) -> bool {
        matches!(self, Rule::Em(_))
    }

    /// # Errors
    /// [`Error::Argument`] where an option is out of range.
    pub fn check(&self) -> Result<()> {
        match self {
            Rule::Em(options) => options.check(),
            Rule::MiniBatchEm(rule) => rule.check(),
            Rule::Adam(rule) => rule.check(),
        }
    }

    /// The reference implementation, in float64: `parameters` are those that the statistics were gathered at.
    ///
    /// # Errors
    /// [`Error::NoStatistics`] where no row of positive probability was seen; [`Error::Argument`] where an option or the
    /// step size is out of range, or the state is that of another rule or circuit.
    pub fn apply(
        &self,
        structure: &Structure,
        parameters: &mut Parameters,
        statistics: &Statistics,
        step: f64,
        state: &mut OptimizerState,
    ) -> Result<()> {
        match self {
            Rule::Em(options) => em::step(structure, parameters, statistics, options)?,
            Rule::MiniBatchEm(rule) => rule.apply(structure, parameters, statistics, step, state)?,
            Rule::Adam(rule) => rule.apply(structure, parameters, statistics, step, state)?,
        }
        state.count_step();
        Ok(())
    }
}

/// An error unless the value is legal.
pub(crate) fn in_range(what: &'static str, value: f64, legal: bool, expected: &str) -> Result<()> {
    if legal { Ok(()) } else { Err(Error::Argument { what, given: value.to_string(), expected: expected.into() }) }
}

/// The rows that counts come from; an error where there are none.
fn rows(statistics: &Statistics) -> Result<f64> {
    let Statistics { rows, impossible_rows, log_likelihood, .. } = *statistics;
    Accumulated { rows, impossible_rows, log_likelihood }.counted_rows()
}

//! Training runs: epochs of an update rule over shuffled batches, validation, early stopping, checkpoints.
//!
//! A run is a function of its data, its [`Options`] and the circuit it begins with. What changes on the way is a [`State`]
//! and the parameters; a run that goes on from a checkpoint of both ends as one that was never interrupted, to the last bit
//! wherever the backend computes alike twice.

mod event;
mod state;

use std::ops::{ControlFlow, Range};

use ndarray::{ArrayView2, Axis, CowArray, Ix2};

pub use self::{
    event::{Epoch, Event, Observed},
    state::{Best, State},
};
pub use super::options::Options;
use super::{MiniBatchEm, Rule, batches, labels::Labels};
use crate::{
    backend::{Accumulated, Executable},
    error::{Error, Result},
    evidence,
    parameters::Parameters,
    rng::{self, Use},
};

/// Where an observer stopped a run.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    /// It has just been told of a checkpoint.
    AtCheckpoint,
    /// Steps have been taken, or rows counted, since the last checkpoint.
    BetweenCheckpoints,
}

/// A training run.
///
/// ```
/// use std::ops::ControlFlow::Continue;
///
/// use convpc_core::{Backend, ConvPc, Family, MiniBatchEm, Reference, Rule, train};
/// use ndarray::Array2;
/// let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(2).build(1)?;
/// let data = Array2::from_shape_fn((40, 4), |(row, v)| ((row + v / 2) % 2) as f32);
/// let rule = Rule::MiniBatchEm(MiniBatchEm { momentum: 0.5, ..Default::default() });
/// let options = train::Options { epochs: 10, batch_size: 8, valid_fraction: Some(0.25), ..train::Options::new(rule) };
/// let mut executable = Reference.load(&circuit)?;
/// let mut state = train::State::default();
/// let mut curve = Vec::new();
/// train::Trainer::new(options, data.view(), None)?.run(&mut *executable, &mut state, &mut |event| {
///     if let train::Event::Epoch(epoch) = event {
///         curve.extend(epoch.validation);
///     }
///     Continue(())
/// })?;
/// assert_eq!(curve.len(), 10);
/// assert!(curve[9] > curve[0]);
/// # Ok::<(), convpc_core::Error>(())
/// ```
pub struct Trainer<'a> {
    options: Options,
    data: ArrayView2<'a, f32>,
    /// The rows of the data that are trained on.
    rows: Vec<usize>,
    valid: Option<CowArray<'a, f32, Ix2>>,
    labels: Option<Labels<'a>>,
}

impl<'a> Trainer<'a> {
    /// Data are rows × variables, NaN = missing. Validation data are these, or a share of the data if the options say so.
    ///
    /// # Errors
    /// [`Error::EmptyBatch`] where there are no rows; [`Error::Zero`] and [`Error::Argument`] where an option is out of
    /// range, validation data are asked for twice, or there is patience without any.
    pub fn new(options: Options, data: ArrayView2<'a, f32>, valid: Option<ArrayView2<'a, f32>>) -> Result<Self> {
        options.check()?;
        if data.nrows() == 0 || valid.is_some_and(|valid| valid.nrows() == 0) {
            return Err(Error::EmptyBatch);
        }
        let refused =
            |what, given: String, expected: &str| Err(Error::Argument { what, given, expected: expected.to_string() });
        let (rows, valid) = match (options.valid_fraction, valid) {
            (Some(fraction), Some(_)) => {
                return refused("valid_fraction", fraction.to_string(), "none beside validation data; leave one out");
            }
            (Some(fraction), None) if data.nrows() < 2 => {
                return refused("valid_fraction", fraction.to_string(), "none for data of a single row");
            }
            (Some(fraction), None) => {
                let (train, held_out) = batches::split(data.nrows(), fraction, options.seed);
                (train, Some(data.select(Axis(0), &held_out).into()))
            }
            (None, valid) => ((0..data.nrows()).collect(), valid.map(CowArray::from)),
        };
        if let (Some(patience), None) = (options.patience, &valid) {
            return refused("patience", patience.to_string(), "none without validation data; give some, or a fraction");
        }
        Ok(Trainer { options, data, rows, valid, labels: None })
    }

    /// Training with the classes of the rows, one label for each, from 0 on: what is learned, reported and validated is then the
    /// joint log-likelihood `log p(x, class)`. `valid` are the labels of validation data of their own; those that are held out
    /// of the data have theirs.
    ///
    /// ```
    /// use convpc_core::{Backend, ConvPc, Family, Reference, Rule, em, train};
    /// let circuit = ConvPc::new(1, 2, 1, Family::bernoulli()).channels(2).num_classes(2).build(1)?;
    /// let (data, labels) = (ndarray::array![[0., 0.], [1., 1.], [1., 0.], [1., 1.]], [0, 1, 0, 1]);
    /// let options = train::Options::new(Rule::Em(em::Options::default()));
    /// let mut executable = Reference.load(&circuit)?;
    /// let trainer = train::Trainer::new(options, data.view(), None)?.labeled(&labels, None)?;
    /// trainer.run(&mut *executable, &mut train::State::default(), &mut |_| std::ops::ControlFlow::Continue(()))?;
    /// assert!(executable.class_posterior(data.view())?[[1, 1]] > 0.9);
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LabelCount`] if the labels are not as many as the rows. [`run`](Self::run) checks that they fit the circuit.
    pub fn labeled(self, labels: &'a [usize], valid: Option<&'a [usize]>) -> Result<Self> {
        let rows = (self.data.nrows(), self.valid.as_ref().map_or(0, |valid| valid.nrows()));
        let labels = Labels::new(&self.options, rows, labels, valid)?;
        Ok(Trainer { labels: Some(labels), ..self })
    }

    /// The rows of the data that are trained on: those that are not held out.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Returns the mean number of observed variables per row, the divisor of bits per dimension.
    pub fn observed(&self) -> Observed {
        let of_row = |&row: &usize| evidence::observed(self.data.row(row).insert_axis(Axis(0)));
        let train = self.rows.iter().map(of_row).sum::<usize>() as f64 / self.rows.len() as f64;
        let of_rows = |rows: &CowArray<f32, Ix2>| evidence::observed(rows.view()) as f64 / rows.nrows() as f64;
        Observed { train, valid: self.valid.as_ref().map(of_rows) }
    }

    /// Trains until the run is over or `observe` says that it is enough. The last event of a run that is stopped is a
    /// [checkpoint](Event::Checkpoint), from which it goes on as if it had not been stopped: after the batch that `observe` was told
    /// of, which ends the epoch if it is the last one, or, where the rule takes all data at once, at the beginning of the epoch.
    ///
    /// A new run begins with [`State::default`]. To go on with one, load the circuit of a checkpoint into a backend and pass
    /// its state.
    ///
    /// # Errors
    /// Where the data do not fit the circuit, a batch has no row of positive probability, or the state belongs to another
    /// run: it has more epochs or batches, or is that of another rule or circuit.
    pub fn run(
        &self,
        executable: &mut dyn Executable,
        state: &mut State,
        observe: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<()> {
        evidence::check(executable.structure(), self.data)?;
        if let Some(valid) = &self.valid {
            evidence::check(executable.structure(), valid.view())?;
        }
        if let Some(labels) = &self.labels {
            labels.check(executable.structure())?;
        }
        self.check_state(executable, state)?;
        if (state.epoch, state.batch) == (0, 0) {
            // Not settled, because a run that goes on from here comes here again.
            let parameters = executable.held_parameters()?;
            if observe(Event::Checkpoint { parameters: &parameters, state }).is_break() {
                return Ok(());
            }
        }
        while !state.finished {
            let ControlFlow::Break(stop) = self.epoch(executable, state, observe)? else { continue };
            executable.reset_statistics();
            if state.batch == 0 {
                state.seen = Accumulated::default();
            }
            // Before the first step nothing has changed since the first checkpoint.
            if stop == Stop::BetweenCheckpoints && (state.epoch, state.batch) != (0, 0) {
                state.optimizer.memory.fetch()?;
                // Not settled: a run that is not stopped here computes with these.
                let _ = observe(Event::Checkpoint { parameters: &executable.held_parameters()?, state });
            }
            break;
        }
        Ok(())
    }

    /// The rule of the epoch.
    fn rule(&self, state: &State) -> Rule {
        match (state.main_epochs, self.options.rule) {
            (Some(_), _) => Rule::Em(self.options.final_em),
            (None, Rule::MiniBatchEm(rule)) => {
                let data_rows = rule.data_rows.or(Some(self.rows.len() as u64));
                Rule::MiniBatchEm(MiniBatchEm { data_rows, ..rule })
            }
            (None, rule) => rule,
        }
    }

    /// The step size of a batch: that of the schedule in the middle of it.
    fn step_size(&self, rule: &Rule, epoch: usize, batch: usize, batches: usize) -> f64 {
        if rule.is_full_batch() {
            return 1.0;
        }
        let done = epoch as f64 * batches as f64 + batch as f64 + 0.5;
        self.options.step.at(done / (self.options.epochs as f64 * batches as f64))
    }

    /// The inverse temperature of a batch.
    fn inverse_temperature(&self, state: &State, variables: usize, batches: usize) -> f64 {
        let Options { annealing, epochs, .. } = self.options;
        let done = (state.epoch as f64 * batches as f64 + state.batch as f64) / (epochs as f64 * batches as f64);
        if done >= annealing || state.main_epochs.is_some() {
            1.0
        } else {
            (variables as f64).powf(done / annealing - 1.0)
        }
    }

    /// Counts a batch at an inverse temperature, and sets it back to 1 before any callback runs.
    fn count(
        &self,
        executable: &mut dyn Executable,
        rows: &[usize],
        batch: ArrayView2<f32>,
        inverse_temperature: f64,
    ) -> Result<Accumulated> {
        executable.set_inverse_temperature(inverse_temperature)?;
        let counted = match &self.labels {
            None => executable.accumulate(batch),
            Some(labels) => labels.accumulate(executable, rows, batch),
        };
        let exact = executable.set_inverse_temperature(1.0);
        // Rows of the data, not of the shuffled batch.
        let counted = counted.map_err(|error| error.map_row(|row| rows.get(row).copied().unwrap_or(row)));
        counted.and_then(|counted| exact.map(|()| counted))
    }

    fn epoch(
        &self,
        executable: &mut dyn Executable,
        state: &mut State,
        observe: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<Stop>> {
        executable.reset_statistics();
        let rule = self.rule(state);
        let (rows, by_batch) = (self.rows.len(), !rule.is_full_batch());
        let batches = batches::count(rows, self.options.batch_size);
        let mut order = self.rows.clone();
        if by_batch {
            let node = state.epoch as u32;
            order = rng::permutation(rows, self.options.seed, node, Use::Shuffle).iter().map(|&i| order[i]).collect();
        } else {
            // Counts of a part of the data are in no checkpoint.
            (state.batch, state.seen) = (0, Accumulated::default());
        }
        let mut flow = ControlFlow::Continue(());
        let ranges = (state.batch..batches).map(|batch| -> Range<usize> { batches::range(batch, batches, rows) });
        batches::for_each(self.data, &order, ranges, |rows_of_batch, batch| {
            let variables = executable.structure().variables();
            let inverse_temperature = self.inverse_temperature(state, variables, batches);
            let counted = self.count(executable, rows_of_batch, batch.view(), inverse_temperature)?;
            if by_batch {
                let step_size = self.step_size(&rule, state.epoch, state.batch, batches);
                executable.update(&rule, step_size, &mut state.optimizer)?;
                state.batch += 1;
            }
            state.seen.add(&counted);
            let Accumulated { rows: seen, log_likelihood, .. } = state.seen;
            let batch = Event::Batch {
                epoch: state.epoch,
                rows: seen as usize,
                of: rows,
                mean_log_likelihood: log_likelihood / seen as f64,
            };
            flow = observe(batch).map_break(|()| Stop::BetweenCheckpoints);
            let due = |every: usize| by_batch && state.batch < batches && state.batch.is_multiple_of(every);
            if flow.is_continue() && self.options.checkpoint_batches.is_some_and(due) {
                state.optimizer.memory.fetch()?;
                let checkpoint = Event::Checkpoint { parameters: &settle(executable)?, state };
                flow = observe(checkpoint).map_break(|()| Stop::AtCheckpoint);
            }
            Ok(flow.is_continue())
        })?;
        if flow.is_break() && state.seen.rows < rows as u64 {
            return Ok(flow);
        }
        let step_size = self.step_size(&rule, state.epoch, batches - 1, batches);
        if !by_batch {
            executable.update(&rule, step_size, &mut state.optimizer)?;
        }
        self.finish_epoch(executable, state, step_size, flow.is_break(), observe)
    }

    /// Validation, the decision whether to go on, and the checkpoint. `is_stopped` says that the observer has had enough already.
    fn finish_epoch(
        &self,
        executable: &mut dyn Executable,
        state: &mut State,
        step_size: f64,
        mut is_stopped: bool,
        observe: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<Stop>> {
        let Options { epochs, patience, final_em_steps, evaluate_every, .. } = self.options;
        let ended = state.epoch + 1;
        let due = ended.is_multiple_of(evaluate_every) || ended >= epochs || state.main_epochs.is_some();
        let mut parameters = due.then(|| settle(executable)).transpose()?;
        let (validation, accuracy) = if due { self.validate(executable)? } else { (None, None) };
        let is_best = validation.is_some_and(|score| match &state.best {
            Some(best) => score > best.mean_log_likelihood,
            None => true,
        });
        if let (true, Some(mean_log_likelihood), Some(parameters)) = (is_best, validation, &parameters) {
            state.best = Some(Best { epoch: state.epoch, mean_log_likelihood, parameters: parameters.clone() });
        }
        let Accumulated { rows, impossible_rows, log_likelihood } = std::mem::take(&mut state.seen);
        let epoch = Epoch {
            epoch: state.epoch,
            is_final_em: state.main_epochs.is_some(),
            steps: state.optimizer.steps,
            rows,
            impossible_rows,
            mean_log_likelihood: log_likelihood / rows as f64,
            validation,
            accuracy,
            is_best,
            step_size,
        };
        (state.epoch, state.batch) = (state.epoch + 1, 0);
        let since_best = state.best.as_ref().map_or(0, |best| ended - 1 - best.epoch);
        let is_enough = state.epoch >= epochs || due && patience.is_some_and(|p| since_best >= p);
        if state.main_epochs.is_none() && is_enough {
            state.main_epochs = Some(state.epoch);
            if let (Some(best), 1.., Some(parameters)) = (&state.best, final_em_steps, &mut parameters) {
                parameters.clone_from(&best.parameters);
                executable.set_parameters(parameters)?;
            }
        }
        state.finished = state.main_epochs.is_some_and(|main| state.epoch - main >= final_em_steps);
        is_stopped |= observe(Event::Epoch(epoch)).is_break();
        let flow = |is_stopped, stop| if is_stopped { ControlFlow::Break(stop) } else { ControlFlow::Continue(()) };
        let Some(parameters) = parameters else { return Ok(flow(is_stopped, Stop::BetweenCheckpoints)) };
        state.optimizer.memory.fetch()?;
        // Both are reported, whatever the answer to the first.
        is_stopped |= observe(Event::Checkpoint { parameters: &parameters, state }).is_break();
        Ok(flow(is_stopped, Stop::AtCheckpoint))
    }

    /// The mean log-likelihood of the validation data, and where they have labels how often these are right.
    fn validate(&self, executable: &dyn Executable) -> Result<(Option<f64>, Option<f64>)> {
        let (Some(valid), batch_size) = (&self.valid, self.options.batch_size) else { return Ok((None, None)) };
        if let Some(labels) = &self.labels {
            let (mean, accuracy) = labels.validate(executable, valid.view(), batch_size)?;
            return Ok((Some(mean), Some(accuracy)));
        }
        let mut sum = 0.0;
        for batch in valid.axis_chunks_iter(Axis(0), batch_size) {
            sum += executable.log_likelihood(batch)?.sum();
        }
        Ok((Some(sum / valid.nrows() as f64), None))
    }
}

/// Brings what the backend computes with to what it says its parameters are: rounding to f32 and scaling to sums of one makes
/// them differ in the last bit, and a run that goes on from a file must compute with the same.
fn settle(executable: &mut dyn Executable) -> Result<Parameters> {
    let parameters = executable.parameters()?;
    executable.set_parameters(&parameters)?;
    Ok(parameters)
}

#[cfg(test)]
mod tests;

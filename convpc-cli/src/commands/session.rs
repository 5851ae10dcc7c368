//! A run of `train`: it prints progress and writes the model, its metrics and its checkpoints while it learns.

use std::{
    io::{Stdout, Write, stdout},
    path::Path,
    time::Instant,
};

use convpc::{
    Circuit, Parameters,
    checkpoint::{self, Run},
    metrics::{Log, Record, bits_per_dimension},
    model,
    train::{Epoch, Event, Observed, State, Trainer},
};
use indicatif::ProgressBar;

use crate::{
    Outcome,
    curve::{self, Line},
    number::fixed,
    progress,
};

/// Formats a mean log-likelihood; `observed` is the mean number of observed variables of a row.
fn score(mean: f64, observed: f64) -> String {
    let bits = match bits_per_dimension(mean, observed) {
        Some(bits) => format!("{} bits per dimension", fixed(bits, 4)),
        None => "no variable was observed".into(),
    };
    format!("{} nats, {bits}", fixed(mean, 3))
}

/// The files that a run writes besides its metrics.
#[derive(Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) model: &'a Path,
    pub(crate) checkpoint: &'a Path,
    pub(crate) curve: Option<&'a Path>,
}

/// A run of the command: what it writes while it learns.
pub(crate) struct Session<'a> {
    files: Written<'a>,
    run: Run,
    circuit: &'a Circuit,
    out: Stdout,
    /// The line that describes the training images; taken when it has been printed.
    read: Option<String>,
    bar: ProgressBar,
    /// The number of rows in an epoch.
    rows: usize,
    /// The number of variables in a row.
    observed: Observed,
    log: Log,
    /// Seconds that the run took before it was interrupted.
    before: f64,
    began: Instant,
    /// The time at which this part of the epoch began, and the number of rows before it.
    epoch_began: (Instant, u64),
    /// True once the model file has been written by this run.
    model_is_current: bool,
}

impl<'a> Session<'a> {
    /// Begins to watch a run that has come as far as `state`. `read` describes the training images.
    pub(crate) fn new(
        files: Written<'a>,
        (run, circuit): (Run, &'a Circuit),
        (trainer, state): (&Trainer, &State),
        log: Log,
        read: String,
    ) -> Self {
        let rows = trainer.rows().len();
        let bar = progress::bar(run.options.all_epochs().saturating_mul(rows), "learning");
        bar.set_position((state.epoch.saturating_mul(rows) as u64).saturating_add(state.seen.rows));
        bar.reset_eta();
        Session {
            files,
            run,
            circuit,
            out: stdout(),
            read: Some(read),
            bar,
            rows,
            observed: trainer.observed(),
            before: log.records().last().map_or(0.0, |record| record.seconds),
            log,
            began: Instant::now(),
            epoch_began: (Instant::now(), state.seen.rows),
            model_is_current: false,
        }
    }

    /// Ends the progress bar.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }

    /// Prints and writes what an event brings.
    pub(crate) fn observe(&mut self, event: Event) -> Outcome {
        match event {
            Event::Batch { epoch, rows, mean_log_likelihood, .. } => {
                if let Some(read) = self.read.take() {
                    let mut out = &self.out;
                    self.bar.suspend(|| writeln!(out, "{read}"))?;
                }
                self.bar.set_position(epoch.saturating_mul(self.rows).saturating_add(rows) as u64);
                let epochs = self.run.options.all_epochs();
                let nats = fixed(mean_log_likelihood, 2);
                self.bar.set_message(format!("epoch {}/{epochs}  {nats} nats", epoch + 1));
                Ok(())
            }
            Event::Epoch(epoch) => {
                let (began, rows) = self.epoch_began;
                let rate = (epoch.rows - rows) as f64 / began.elapsed().as_secs_f64().max(1e-9);
                let seconds = self.before + self.began.elapsed().as_secs_f64();
                self.log.push(Record::new(&epoch, self.observed, rate, seconds))?;
                let line = self.line(&epoch);
                let mut out = &self.out;
                self.bar.suspend(|| writeln!(out, "{line}"))?;
                self.epoch_began = (Instant::now(), 0);
                self.files.curve.map_or(Ok(()), |path| self.draw(path))
            }
            Event::Checkpoint { parameters, state } => {
                checkpoint::save(self.files.checkpoint, &self.run, self.circuit.structure(), parameters, state)?;
                if state.epoch > 0 {
                    self.write_model(parameters, state)?;
                }
                if state.batch == 0 {
                    self.epoch_began = (Instant::now(), 0);
                }
                Ok(())
            }
        }
    }

    fn line(&self, epoch: &Epoch) -> String {
        let when = if epoch.is_final_em || self.run.options.rule.is_full_batch() {
            "before the step"
        } else {
            "before each step"
        };
        let mut line =
            format!("epoch {}  {when} {}", epoch.epoch + 1, score(epoch.mean_log_likelihood, self.observed.train));
        if let Some(validation) = epoch.validation {
            line += &format!("  held-out after it {}", score(validation, self.observed.valid.unwrap_or(0.0)));
        }
        if let Some(accuracy) = epoch.accuracy {
            line += &format!(", accuracy {}", fixed(accuracy, 4));
        }
        line
    }

    /// Writes the best parameters so far, or the last ones if nothing is held out.
    fn write_model(&mut self, last: &Parameters, state: &State) -> Outcome {
        let (parameters, is_new) = match &state.best {
            Some(best) => (&best.parameters, state.batch == 0 && best.epoch + 1 == state.epoch),
            None => (last, state.batch == 0),
        };
        if is_new || !self.model_is_current {
            model::save(self.files.model, &Circuit::new(self.circuit.structure().clone(), parameters.clone())?)?;
            self.model_is_current = true;
        }
        Ok(())
    }

    fn draw(&self, path: &Path) -> Outcome {
        let records = self.log.records();
        let line = |name, value: fn(&Record) -> Option<f64>| {
            Line::of_epochs(
                name,
                records.iter().filter_map(|record| Some((record.epoch.saturating_sub(1), value(record)?))),
            )
        };
        let lines = [line("train", |record| record.train_bits), line("held out", |record| record.valid_bits)];
        curve::draw(path, ("epoch", "bits per dimension"), &lines)
    }
}

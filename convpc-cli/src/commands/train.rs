use std::{
    error::Error,
    io::{Stdout, Write, stdout},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use convpc::{
    Circuit, Parameters,
    checkpoint::{self, Fingerprint, Run},
    data::{self, Images},
    metrics::{Log, Record, bits_per_dimension},
    model,
    train::{Event, State, Trainer},
};
use indicatif::ProgressBar;
use ndarray::Axis;

use super::{architecture::Architecture, run_flags::RunFlags};
use crate::{
    Outcome, Shared,
    curve::{self, Line},
    io, progress,
};

/// Arguments of `train`.
#[derive(Args)]
pub(crate) struct Train {
    /// Images to learn from: .npy, .npz, IDX, or a folder of PNGs.
    #[arg(long)]
    data: PathBuf,
    /// Held-out images, scored after each epoch.
    #[arg(long)]
    valid: Option<PathBuf>,
    /// Go on: with the run that was interrupted, as if it had not been, else with a new one from the model that is there.
    /// Flags must agree with those of the run, and of the model's structure.
    #[arg(long)]
    resume: bool,
    /// The model file, written after each epoch: the best on the held-out images, if there are any, else the last. Beside it
    /// lies a checkpoint of the run, with `.checkpoint` behind the name.
    #[arg(short)]
    output: PathBuf,
    /// A file for the metrics of each epoch, as JSON lines.
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// A picture of the learning curve, .png or .svg, drawn after each epoch.
    #[arg(long, value_name = "FILE")]
    curve: Option<PathBuf>,
    #[command(flatten)]
    run: RunFlags,
    #[command(flatten)]
    architecture: Architecture,
}

/// What to begin with.
struct Start {
    run: Run,
    circuit: Circuit,
    state: State,
}

impl Train {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        self.curve.as_deref().map(curve::check_name).transpose()?;
        let checkpoint = checkpoint::beside(&self.output);
        let interrupted = if self.resume && checkpoint.exists() {
            let (run, circuit, state) = checkpoint::load(&checkpoint)?;
            (!state.finished).then_some(Start { run, circuit, state })
        } else {
            None
        };
        let (images, valid, start) = match interrupted {
            Some(start) => {
                self.run.check(shared.seed, &start.run.options, &checkpoint)?;
                self.architecture.check(&start.circuit, &self.output)?;
                let images = io::read_images(&self.data, &start.circuit)?;
                let valid = self.valid(&start.circuit)?;
                self.check_data(&start.run, &images, valid.as_ref())?;
                (images, valid, start)
            }
            None => self.begin(shared)?,
        };
        let trainer =
            Trainer::new(start.run.options, images.values.view(), valid.as_ref().map(|images| images.values.view()))?;
        let Start { run, circuit, mut state } = start;
        let log = match (state.epoch, state.batch) {
            (0, 0) => Log::create(self.metrics.as_deref())?,
            _ => Log::resume(self.metrics.as_deref(), state.epoch)?,
        };
        let mut executable = shared.backend()?.load(&circuit)?;
        let length = (run.options.epochs + run.options.final_em_steps) * trainer.rows().len();
        let bar = progress::bar(length, "learning");
        bar.set_position((state.epoch * trainer.rows().len()) as u64 + state.seen.rows);
        bar.reset_eta();
        let mut session = Session {
            train: &self,
            run,
            circuit: &circuit,
            checkpoint: &checkpoint,
            out: stdout(),
            bar,
            rows: trainer.rows().len(),
            before: log.records().last().map_or(0.0, |record| record.seconds),
            log,
            began: Instant::now(),
            epoch_began: (Instant::now(), state.seen.rows),
            model_is_current: false,
        };
        let mut problem = None;
        trainer.run(&mut *executable, &mut state, &mut |event| match session.observe(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                problem = Some(error);
                ControlFlow::Break(())
            }
        })?;
        session.bar.finish_and_clear();
        problem.map_or(Ok(()), Err)
    }

    /// A new run, of a new circuit or of the model that is there.
    fn begin(&self, shared: &Shared) -> Result<(Images, Option<Images>, Start), Box<dyn Error>> {
        let options = self.run.options(shared.seed())?;
        let (images, circuit) = if self.resume {
            let circuit = model::load(&self.output)?;
            self.architecture.check(&circuit, &self.output)?;
            (io::read_images(&self.data, &circuit)?, circuit)
        } else {
            let images = data::read(&self.data)?;
            let circuit = if options.valid_fraction.is_some() && self.valid.is_none() {
                // What is held out must not be known to the leaves either.
                let trainer = Trainer::new(options, images.values.view(), None)?;
                let rows = images.values.select(Axis(0), trainer.rows());
                self.architecture.build(&images, rows.view(), options.seed)?
            } else {
                self.architecture.build(&images, images.values.view(), options.seed)?
            };
            (images, circuit)
        };
        let valid = self.valid(&circuit)?;
        let fingerprint = |images: &Images| Fingerprint::of(images.values.view());
        let run = Run { options, data: fingerprint(&images), valid: valid.as_ref().map(fingerprint) };
        Ok((images, valid, Start { run, circuit, state: State::default() }))
    }

    fn valid(&self, circuit: &Circuit) -> Result<Option<Images>, Box<dyn Error>> {
        self.valid.as_deref().map(|path| io::read_images(path, circuit)).transpose()
    }

    /// An error where the data are not those that the run has seen.
    fn check_data(&self, run: &Run, images: &Images, valid: Option<&Images>) -> Outcome {
        let given = [("--data", Some(images), Some(run.data)), ("--valid", valid, run.valid)];
        for (flag, images, expected) in given {
            let given = images.map(|images| Fingerprint::of(images.values.view()));
            if given == expected {
                continue;
            }
            let of = |fingerprint: Option<Fingerprint>| match fingerprint {
                Some(Fingerprint { rows, checksum }) => format!("{rows} images with the checksum {checksum:08x}"),
                None => "none".into(),
            };
            let (given, expected) = (of(given), of(expected));
            return Err(format!(
                "--resume: {flag} has {given}, the unfinished run has {expected}; give the same images, or train anew, \
                 without --resume"
            )
            .into());
        }
        Ok(())
    }
}

/// A run of the command: what it writes while it learns.
struct Session<'a> {
    train: &'a Train,
    run: Run,
    circuit: &'a Circuit,
    checkpoint: &'a Path,
    out: Stdout,
    bar: ProgressBar,
    /// Of an epoch.
    rows: usize,
    log: Log,
    /// Seconds that the run took before it was interrupted.
    before: f64,
    began: Instant,
    /// When, and after which rows of the epoch.
    epoch_began: (Instant, u64),
    /// Whether the model file has been written since the command began.
    model_is_current: bool,
}

impl Session<'_> {
    fn observe(&mut self, event: Event) -> Outcome {
        match event {
            Event::Batch { epoch, rows, mean_log_likelihood, .. } => {
                self.bar.set_position((epoch * self.rows + rows) as u64);
                let epochs = self.run.options.epochs + self.run.options.final_em_steps;
                self.bar.set_message(format!("epoch {}/{epochs}  {mean_log_likelihood:.2} nats", epoch + 1));
                Ok(())
            }
            Event::Epoch(epoch) => {
                let (began, rows) = self.epoch_began;
                let rate = (epoch.rows - rows) as f64 / began.elapsed().as_secs_f64().max(1e-9);
                let seconds = self.before + self.began.elapsed().as_secs_f64();
                self.log.push(Record::new(&epoch, self.circuit.variables(), rate, seconds))?;
                let line = self.line(&epoch);
                let mut out = &self.out;
                self.bar.suspend(|| writeln!(out, "{line}"))?;
                self.epoch_began = (Instant::now(), 0);
                self.train.curve.as_deref().map_or(Ok(()), |path| self.draw(path))
            }
            Event::Checkpoint { parameters, state } => {
                checkpoint::save(self.checkpoint, &self.run, self.circuit.structure(), parameters, state)?;
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

    fn line(&self, epoch: &convpc::train::Epoch) -> String {
        let score = |mean: f64| {
            let bits = bits_per_dimension(mean, self.circuit.variables());
            format!("{mean:.3} nats, {bits:.4} bits per dimension")
        };
        let when = if epoch.is_final_em || self.run.options.rule.is_full_batch() {
            "before the step"
        } else {
            "before each step"
        };
        let mut line = format!("epoch {}  {when} {}", epoch.epoch + 1, score(epoch.mean_log_likelihood));
        if let Some(validation) = epoch.validation {
            line += &format!("  held-out after it {}", score(validation));
        }
        line
    }

    /// The best parameters so far; the last ones where nothing is held out.
    fn write_model(&mut self, last: &Parameters, state: &State) -> Outcome {
        let (parameters, is_new) = match &state.best {
            Some(best) => (&best.parameters, state.batch == 0 && best.epoch + 1 == state.epoch),
            None => (last, state.batch == 0),
        };
        if is_new || !self.model_is_current {
            model::save(&self.train.output, &Circuit::new(self.circuit.structure().clone(), parameters.clone())?)?;
            self.model_is_current = true;
        }
        Ok(())
    }

    fn draw(&self, path: &Path) -> Outcome {
        let records = self.log.records();
        let line = |name, value: fn(&Record) -> Option<f64>| {
            Line::of_epochs(name, records.iter().filter_map(|record| Some((record.epoch - 1, value(record)?))))
        };
        let lines = [line("train", |record| record.train_bits), line("held out", |record| record.valid_bits)];
        curve::draw(path, ("epoch", "bits per dimension"), &lines)
    }
}

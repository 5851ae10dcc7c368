use std::{
    error::Error,
    io::{Stdout, Write, stdout},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use convpc::{
    Circuit, Layer, Parameters,
    checkpoint::{self, Fingerprint, Run},
    data::{self, DataError, Images},
    lock::Lock,
    metrics::{Log, Record, bits_per_dimension},
    model,
    train::{Event, Observed, Options, State, Trainer},
};
use indicatif::ProgressBar;
use ndarray::Axis;

use super::{architecture::Architecture, run_flags::RunFlags};
use crate::{
    Outcome, Shared,
    curve::{self, Line},
    failure::{Usage, note},
    files::{self, Files},
    input::{Input, Leaves, check_classes, check_support, describe},
    number::fixed,
    progress,
};

/// Arguments of `train`.
#[derive(Args)]
pub(crate) struct Train {
    /// Images to learn from: .npy, .npz, IDX, a picture, a folder of pictures, or one of class folders. FILE.npz:NAME names one of
    /// several arrays.
    #[arg(long)]
    data: PathBuf,
    /// The classes of the images, numbered from 0: IDX (MNIST's labels), .npy, .npz, or the folder of class folders. The model then learns images and classes
    /// together, and all scores are those of the two together.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Held-out images, scored after each epoch. Bits per dimension, here as everywhere, are those for each variable that was
    /// observed (not NaN).
    #[arg(long)]
    valid: Option<PathBuf>,
    /// The classes of the held-out images, where there are --labels.
    #[arg(long, value_name = "FILE", requires_all = ["labels", "valid"])]
    valid_labels: Option<PathBuf>,
    /// Go on: with the run that was interrupted, as if it had not been, else with a new one from the model that is there.
    /// Flags must agree with those of the run, and of the model's structure.
    #[arg(long)]
    resume: bool,
    /// Replace a model that is there, and the checkpoint of its run.
    #[arg(long, conflicts_with = "resume")]
    force: bool,
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
    input: Input,
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

/// What to learn from, or to be judged by.
struct Data {
    images: Images,
    labels: Option<Vec<usize>>,
}

impl Data {
    fn new(images: Images, labels: Option<&Path>) -> Result<Self, DataError> {
        Ok(Data { images, labels: labels.map(data::read_labels).transpose()? })
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.images.values.view())
    }

    fn fingerprint_of_labels(&self) -> Option<Fingerprint> {
        self.labels.as_deref().map(Fingerprint::of_labels)
    }
}

/// The run of these options on these data.
fn trainer<'a>(options: Options, data: &'a Data, valid: Option<&'a Data>) -> Result<Trainer<'a>, convpc::Error> {
    let trainer = Trainer::new(options, data.images.values.view(), valid.map(|valid| valid.images.values.view()))?;
    match &data.labels {
        Some(labels) => trainer.labeled(labels, valid.and_then(|valid| valid.labels.as_deref())),
        None => Ok(trainer),
    }
}

/// Of how many repetitions hardly anything is in the mixture.
fn unused_repetitions(circuit: &Circuit, parameters: &Parameters) -> usize {
    /// Less than a pseudocount makes of an image.
    const LEAST: f64 = 1e-6;
    let mixes = |layer: &Layer| matches!(layer, Layer::RepetitionMixing(_));
    let Some(mixture) = circuit.structure().layers().iter().position(mixes) else { return 0 };
    let weights = &parameters.0[mixture];
    weights.axis_iter(Axis(2)).filter(|of_repetition| of_repetition.iter().all(|w| *w < LEAST)).count()
}

impl Train {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        self.curve.as_deref().map(|path| curve::check_name("--curve", path)).transpose()?;
        if self.labels.is_some() && self.valid.is_some() && self.valid_labels.is_none() {
            return Err(Usage("--labels: the held-out images need theirs too; give --valid-labels".into()).into());
        }
        check_classes(self.labels.as_deref(), self.valid_labels.as_deref())?;
        let checkpoint = checkpoint::beside(&self.output);
        self.check_files(&checkpoint)?;
        let _lock = Lock::acquire(&self.output)?;
        let interrupted = if self.resume && checkpoint.exists() {
            let (run, circuit, state) = checkpoint::load(&checkpoint)?;
            (!state.finished).then_some(Start { run, circuit, state })
        } else {
            None
        };
        let (data, valid, start) = match interrupted {
            Some(start) => {
                self.run.check(shared.seed, &start.run.options, &checkpoint)?;
                self.architecture.check(&start.circuit, &self.output)?;
                let data = Data::new(self.input.read_for(&self.data, &start.circuit)?, self.labels.as_deref())?;
                let valid = self.valid(&start.circuit)?;
                self.check_data(&start.run, &data, valid.as_ref())?;
                (data, valid, start)
            }
            None => self.begin(shared)?,
        };
        let trainer = trainer(start.run.options, &data, valid.as_ref())?;
        let Start { run, circuit, mut state } = start;
        let log = match (state.epoch, state.batch) {
            (0, 0) => Log::create(self.metrics.as_deref())?,
            _ => Log::resume(self.metrics.as_deref(), state.epoch)?,
        };
        let mut executable = shared.backend()?.load(&circuit)?;
        let length = run.options.all_epochs().saturating_mul(trainer.rows().len());
        let bar = progress::bar(length, "learning");
        bar.set_position((state.epoch.saturating_mul(trainer.rows().len()) as u64).saturating_add(state.seen.rows));
        bar.reset_eta();
        let mut session = Session {
            train: &self,
            run,
            circuit: &circuit,
            checkpoint: &checkpoint,
            out: stdout(),
            read: Some(describe(&data.images)),
            bar,
            rows: trainer.rows().len(),
            observed: trainer.observed(),
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
        problem.map_or(Ok(()), Err)?;
        let unused = unused_repetitions(&circuit, &executable.parameters()?);
        if unused > 0 {
            note(format_args!(
                "note: {unused} of {} repetitions explain no image; choose a longer --annealing, or let each learn alone, as a model \
                 of one with another --seed or --shifts, then join the models with `convpc mix` and go on with --resume",
                circuit.structure().leaf().repetitions
            ));
        }
        Ok(())
    }

    /// An error where a file cannot be written, or would replace one that is needed.
    fn check_files(&self, checkpoint: &Path) -> Outcome {
        let inputs = Files::default().input("--data", &self.data).inputs("--labels", &self.labels);
        let inputs = inputs.inputs("--valid", &self.valid).inputs("--valid-labels", &self.valid_labels);
        let outputs = inputs.output("-o", &self.output).output("the checkpoint", checkpoint);
        outputs.outputs("--metrics", &self.metrics).outputs("--curve", &self.curve).check()?;
        [self.output.as_path(), checkpoint]
            .into_iter()
            .try_for_each(|path| files::check_new(path, self.force || self.resume, "--resume to go on with it, "))
    }

    /// A new run, of a new circuit or of the model that is there.
    fn begin(&self, shared: &Shared) -> Result<(Data, Option<Data>, Start), Box<dyn Error>> {
        self.run.check_held_out(self.valid.is_some())?;
        let options = self.run.options(shared.seed())?;
        options.check()?;
        let labels = self.labels.as_deref();
        let (data, circuit) = if self.resume {
            let circuit = model::load(&self.output)?;
            self.architecture.check(&circuit, &self.output)?;
            (Data::new(self.input.read_for(&self.data, &circuit)?, labels)?, circuit)
        } else {
            let data = Data::new(self.input.read(&self.data)?, labels)?;
            check_support(&self.data, &data.images, &self.architecture.family(), Leaves::ToBeChosen)?;
            let (images, labels) = (&data.images, data.labels.as_deref());
            let circuit = if options.valid_fraction.is_some() && self.valid.is_none() {
                // What is held out must not be known to the leaves either.
                let trainer = trainer(options, &data, None)?;
                let rows = images.values.select(Axis(0), trainer.rows());
                self.architecture.build(images, labels, rows.view(), options.seed)?
            } else {
                self.architecture.build(images, labels, images.values.view(), options.seed)?
            };
            (data, circuit)
        };
        let valid = self.valid(&circuit)?;
        let run = Run {
            valid: valid.as_ref().map(Data::fingerprint),
            labels: data.fingerprint_of_labels(),
            valid_labels: valid.as_ref().and_then(Data::fingerprint_of_labels),
            ..Run::new(options, data.fingerprint())
        };
        Ok((data, valid, Start { run, circuit, state: State::default() }))
    }

    fn valid(&self, circuit: &Circuit) -> Result<Option<Data>, Box<dyn Error>> {
        let Some(path) = &self.valid else { return Ok(None) };
        Ok(Some(Data::new(self.input.read_for(path, circuit)?, self.valid_labels.as_deref())?))
    }

    /// An error where the data are not those that the run has seen.
    fn check_data(&self, run: &Run, data: &Data, valid: Option<&Data>) -> Outcome {
        let given = [
            ("--data", "images", Some(data.fingerprint()), Some(run.data)),
            ("--valid", "images", valid.map(Data::fingerprint), run.valid),
            ("--labels", "labels", data.fingerprint_of_labels(), run.labels),
            ("--valid-labels", "labels", valid.and_then(Data::fingerprint_of_labels), run.valid_labels),
        ];
        for (flag, what, given, expected) in given {
            if given == expected {
                continue;
            }
            let of = |fingerprint: Option<Fingerprint>| match fingerprint {
                Some(Fingerprint { rows, checksum }) => format!("{rows} {what} with the checksum {checksum:08x}"),
                None => "none".into(),
            };
            let (given, expected) = (of(given), of(expected));
            return Err(format!(
                "--resume: {flag} has {given}, the unfinished run has {expected}; give the same {what}, or train anew, \
                 with --force in the place of --resume"
            )
            .into());
        }
        Ok(())
    }
}

/// A mean log-likelihood for people, of rows of which so many variables were observed on average.
fn score(mean: f64, observed: f64) -> String {
    let bits = match bits_per_dimension(mean, observed) {
        Some(bits) => format!("{} bits per dimension", fixed(bits, 4)),
        None => "no variable was observed".into(),
    };
    format!("{} nats, {bits}", fixed(mean, 3))
}

/// A run of the command: what it writes while it learns.
struct Session<'a> {
    train: &'a Train,
    run: Run,
    circuit: &'a Circuit,
    checkpoint: &'a Path,
    out: Stdout,
    /// The line that describes the training images; taken when it has been printed.
    read: Option<String>,
    bar: ProgressBar,
    /// Of an epoch.
    rows: usize,
    /// Variables of a row.
    observed: Observed,
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
            Line::of_epochs(
                name,
                records.iter().filter_map(|record| Some((record.epoch.saturating_sub(1), value(record)?))),
            )
        };
        let lines = [line("train", |record| record.train_bits), line("held out", |record| record.valid_bits)];
        curve::draw(path, ("epoch", "bits per dimension"), &lines)
    }
}

use std::{
    error::Error,
    ffi::OsString,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use clap::Args;
use convpc::{
    Circuit, Layer, Parameters,
    checkpoint::{self, Fingerprint, Run},
    data::{self, DataError, Images},
    lock::Lock,
    metrics::Log,
    model,
    train::{Options, State, Trainer},
};
use ndarray::Axis;

use super::{
    architecture::Architecture,
    run_flags::RunFlags,
    session::{Session, Written},
};
use crate::{
    Outcome, Shared, curve,
    failure::{Stopped, Usage, note},
    files::{self, Files},
    input::{Input, Leaves, check_classes, check_stdin, check_support, describe},
    signals::{self, Signal},
};

/// Arguments of `train`.
#[derive(Args)]
pub(crate) struct Train {
    /// Images to learn from: .npy, .npz, IDX, a picture, a folder of pictures, or one of class folders; - for .npy on standard input.
    /// FILE.npz:NAME names one of several arrays.
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
    /// The model file, written after each epoch: the best on the held-out images, if there are any, else the last. While the run
    /// lasts, a checkpoint of it lies beside the model, with `.checkpoint` behind the name.
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
    fn new(images: Images, labels: Option<&Path>, input: &Input) -> Result<Self, DataError> {
        let labels = labels.map(|path| data::read_labels_with(path, &input.options())).transpose()?;
        Ok(Data { images, labels })
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
        check_stdin([Some(&self.data), self.valid.as_ref()].into_iter().flatten().map(PathBuf::as_path))?;
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
                let data =
                    Data::new(self.input.read_for(&self.data, &start.circuit)?, self.labels.as_deref(), &self.input)?;
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
        let files = Written { model: &self.output, checkpoint: &checkpoint, curve: self.curve.as_deref() };
        let read = describe(&data.images);
        let mut session = Session::new(files, (run, &circuit), (&trainer, &state), log, read);
        let mut problem: Option<Box<dyn Error>> = None;
        signals::let_work_finish();
        trainer.run(&mut *executable, &mut state, &mut |event| {
            // After an error, too, what was learned goes into the checkpoint.
            let written = session.observe(event);
            if problem.is_none() {
                problem = written.err();
            }
            if problem.is_some() || signals::received().is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        session.finish();
        problem.map_or(Ok(()), Err)?;
        if state.finished {
            // The model is written, and nothing is left to go on with.
            fs::remove_file(&checkpoint).map_err(|e| format!("{} cannot be removed: {e}", checkpoint.display()))?;
        }
        if let Some(signal) = signals::received() {
            return Err(stopped(signal, &state).into());
        }
        signals::end_at_once();
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
            (Data::new(self.input.read_for(&self.data, &circuit)?, labels, &self.input)?, circuit)
        } else {
            let data = Data::new(self.input.read(&self.data)?, labels, &self.input)?;
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
        Ok(Some(Data::new(self.input.read_for(path, circuit)?, self.valid_labels.as_deref(), &self.input)?))
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

/// Says where a run was stopped, and how to go on with it.
fn stopped(signal: Signal, state: &State) -> Stopped {
    let Signal { number, name } = signal;
    let place = match (state.epoch, state.batch) {
        _ if state.finished => {
            return Stopped {
                signal: number,
                message: format!("{name} came when the training was over; the model is complete"),
            };
        }
        (0, 0) => "in the first epoch, which will begin anew".to_owned(),
        (epoch, 0) => format!("after epoch {epoch}"),
        (epoch, batch) => format!("after batch {batch} of epoch {}", epoch + 1),
    };
    let message = format!("stopped by {name} {place}; go on with: {}", resuming(std::env::args_os()));
    Stopped { signal: number, message }
}

/// The command line that goes on with a run that was begun or gone on with by this one.
fn resuming(arguments: impl Iterator<Item = OsString>) -> String {
    let arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
    let mut arguments: Vec<String> = arguments.filter(|argument| argument != "--force").collect();
    if !arguments.iter().any(|argument| argument == "--resume") {
        arguments.push("--resume".into());
    }
    shlex::try_join(arguments.iter().map(String::as_str)).unwrap_or_else(|_| arguments.join(" "))
}

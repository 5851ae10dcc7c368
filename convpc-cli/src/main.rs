//! The `convpc` command.
#![forbid(unsafe_code)]

mod commands;
mod curve;
mod failure;
mod files;
mod input;
mod memory;
mod number;
mod output;
mod pictures;
mod progress;
mod refused;
mod report;
mod signals;

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use convpc::{Backend, BackendChoice, Precision};

/// The result of every command. [`failure::report`] prints an error and chooses the exit status.
type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Learns images with convolutional probabilistic circuits: scores, samples and completes them exactly.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

/// The flags of all commands.
#[derive(Args)]
struct Shared {
    /// What computes: cpu, reference, cuda, cuda:N for GPU number N, or cuda:N,M for several.
    #[arg(long, global = true, default_value_t = BackendChoice::Cpu)]
    backend: BackendChoice,
    /// What a GPU multiplies: f32, tf32 or bf16; and the cpu where it scores: f32 or bf16.
    #[arg(long, global = true, default_value_t = Precision::F32)]
    precision: Precision,
    /// Threads of the cpu backend; all cores unless given.
    #[arg(long, global = true)]
    threads: Option<NonZeroUsize>,
    /// Seed of all random numbers [default: 0]
    #[arg(long, global = true)]
    seed: Option<u64>,
}

impl Shared {
    fn backend(&self) -> Result<Box<dyn Backend>, convpc::Error> {
        self.backend.open(self.threads(), self.precision)
    }

    fn threads(&self) -> Option<usize> {
        self.threads.map(NonZeroUsize::get)
    }

    fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Learns the digits that are built in: scores, dreams and completes them.
    Demo(commands::demo::Demo),
    /// Learns a circuit from images by EM, mini-batch EM or Adam.
    Train(Box<commands::train::Train>),
    /// Prints the mean log-likelihood of images under a model, and the bits for each variable that was observed (not NaN).
    Score(commands::score::Score),
    /// Draws images from a model.
    Sample(commands::sample::Sample),
    /// Completes the missing part of images.
    Complete(commands::complete::Complete),
    /// Makes a model of fewer variables.
    Marginalize(commands::edit::Marginalize),
    /// Makes a model with more channels, each like one that was there, to go on learning with.
    Grow(commands::edit::Grow),
    /// Makes a mixture of models one model, whose repetitions they become, to go on learning with.
    Mix(commands::edit::Mix),
    /// Makes a model without the channels that the root cannot reach and the repetitions of weight 0: smaller and faster, the same
    /// distribution.
    Prune(commands::edit::Prune),
    /// Draws training runs side by side over time.
    Curve(commands::compare::Curve),
    /// Prints the layers of a model.
    Info {
        /// The model file.
        model: PathBuf,
    },
    /// Reads a SPFlow ConvPc, a state_dict saved as safetensors.
    ImportSpflow(commands::edit::ImportSpflow),
    /// Measures this machine: what it can do at most, and how near every operation on a circuit comes.
    Bench(commands::bench::Bench),
}

fn main() -> ExitCode {
    let Arguments { shared, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and the version come as errors too.
        Err(message) => return failure::report_parsing(&message),
    };
    signals::watch();
    let outcome = match command {
        Command::Demo(demo) => demo.run(&shared),
        Command::Train(train) => train.run(&shared),
        Command::Score(score) => score.run(&shared),
        Command::Sample(sample) => sample.run(&shared),
        Command::Complete(complete) => complete.run(&shared),
        Command::Marginalize(marginalize) => marginalize.run(),
        Command::Grow(grow) => grow.run(&shared),
        Command::Mix(mix) => mix.run(),
        Command::Prune(prune) => prune.run(),
        Command::Curve(curve) => curve.run(),
        Command::Info { model } => commands::edit::info(&model),
        Command::ImportSpflow(import) => import.run(),
        Command::Bench(bench) => bench.run(&shared),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(error),
    }
}

//! Chores of the workspace: `cargo xtask ci` checks everything, `cargo xtask ptx` compiles the kernels.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

mod bindings;
mod ci;
mod gpu;
mod mutants;
mod nvrtc;
mod ptx;
mod ptxas;
mod table;
mod testrun;
mod tools;
mod workspace;

/// Chores of the convpc workspace.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Tests, format, lints, documentation, PTX and bindings, as the continuous integration checks them.
    Ci {
        /// Leave out the tests, where they were run before.
        #[arg(long)]
        skip_tests: bool,
    },
    /// Compile kernels/*.cu into convpc-cuda/ptx and rewrite the table of registers, kernels/ptxas.md.
    Ptx(PtxArguments),
    /// Write convpc-cuda/src/params.rs from kernels/include/params.h.
    Bindings {
        /// Write nothing; fail if the committed file differs.
        #[arg(long)]
        check: bool,
    },
    /// Break the kernels one way at a time, as kernels/mutants.toml says, and see that the tests notice.
    Mutants {
        /// Run this one only.
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// List them, run none.
        #[arg(long)]
        list: bool,
    },
    /// Build what a machine with a GPU needs to test and measure, into target/gpu-pack, and run it here.
    Gpu {
        /// Build only.
        action: Option<GpuAction>,
        #[command(flatten)]
        extras: gpu::Extras,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum GpuAction {
    /// Build only.
    Pack,
}

#[derive(clap::Args)]
struct PtxArguments {
    /// Write nothing; fail if what is committed differs or a kernel spills registers.
    #[arg(long, conflicts_with_all = ["defines", "out", "kernel"])]
    check: bool,
    /// Compile this file only: the name of kernels/NAME.cu.
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// A macro for the compiler, for experiments.
    #[arg(long = "define", value_name = "NAME=VALUE", requires = "out")]
    defines: Vec<String>,
    /// Write the PTX into this folder and print the table, for experiments.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Ci { skip_tests } => ci::run_all(skip_tests),
        Chore::Ptx(PtxArguments { check: true, .. }) => ptx::check(),
        Chore::Ptx(PtxArguments { kernel, defines, out, .. }) => {
            ptx::write(kernel.as_deref(), &defines, out.as_deref())
        }
        Chore::Bindings { check } => bindings::run(check),
        Chore::Gpu { action: Some(GpuAction::Pack), extras } => gpu::pack(&extras).map(drop),
        Chore::Gpu { action: None, extras } => gpu::pack_and_run(&extras),
        Chore::Mutants { only, list } => mutants::run(only.as_deref(), list),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

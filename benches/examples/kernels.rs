//! Times changed kernels beside those built into the library, without building it anew for each.
//!
//! ```text
//! cargo xtask ptx --kernel lse_fused --define NAME=VALUE --out tried
//! cargo run --release --package benches --features cuda --example kernels -- --batch 4096 tried
//! ```
#![forbid(unsafe_code)]

use std::{error::Error, num::NonZeroUsize, path::PathBuf, process::ExitCode};

use clap::Parser;
use convpc::{
    Backend, Circuit, CudaBackend, Executable, Limits, Precision,
    bench::{Case, Query},
};
use ndarray::Array1;

/// Time the kernels of folders beside those that are built in, in turns.
#[derive(Parser)]
struct Arguments {
    /// Folders of PTX; a file takes the place of the built-in one of its name.
    folders: Vec<PathBuf>,
    /// The circuit: small, mnist32, mnist64, mnist128.
    #[arg(long, default_value = "mnist64")]
    circuit: String,
    /// Images in a batch.
    #[arg(long, default_value = "4096")]
    batch: NonZeroUsize,
    /// What the GPU multiplies; all unless given.
    #[arg(long)]
    precision: Vec<Precision>,
    /// Operations; log_likelihood and em_step unless given.
    #[arg(long, value_parser = |name: &str| name.parse::<Query>())]
    op: Vec<Query>,
    /// Repetitions to take the median of.
    #[arg(long, default_value = "7")]
    runs: NonZeroUsize,
    /// Bytes of shared memory of a block to plan with, besides what the GPU has: less of it fuses fewer levels.
    #[arg(long, value_name = "BYTES")]
    shared_memory: Vec<usize>,
    /// Turns: each measures everything once.
    #[arg(long, default_value = "2")]
    turns: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let case = Case::named(&arguments.circuit)?;
    let circuit = case.circuit()?;
    let given =
        |precision: &Vec<Precision>| if precision.is_empty() { Precision::ALL.to_vec() } else { precision.clone() };
    let queries =
        if arguments.op.is_empty() { vec![Query::LogLikelihood, Query::EmStep] } else { arguments.op.clone() };
    println!("| kernels | precision | query | images/s, by turn | largest difference, nats |");
    println!("|---|---|---|--:|--:|");
    for precision in given(&arguments.precision) {
        let mut variants = vec![("built in".to_string(), CudaBackend::new(0)?)];
        for folder in &arguments.folders {
            variants.push((folder.display().to_string(), CudaBackend::with_kernels(0, folder)?));
        }
        for (name, backend) in variants.clone() {
            for &shared_memory in &arguments.shared_memory {
                let limits = Limits { shared_memory, ..backend.limits() };
                variants.push((format!("{name}, {shared_memory} B"), backend.clone().with_limits(limits)));
            }
        }
        let mut loaded = Vec::new();
        for (name, backend) in variants {
            let mut executable = backend.with_precision(precision).load(&circuit)?;
            let scores = scores(&mut *executable, &circuit)?;
            loaded.push((name, executable, scores));
        }
        let expected = loaded[0].2.clone();
        for &query in &queries {
            let mut rates = vec![String::new(); loaded.len()];
            for _ in 0..arguments.turns {
                for (rates, (_, executable, _)) in rates.iter_mut().zip(&mut loaded) {
                    let measured =
                        query.measure(&mut **executable, &circuit, arguments.batch.get(), arguments.runs.get())?;
                    *rates += &format!(" {:.0}", measured.images_per_second);
                }
            }
            for (rates, (name, _, scores)) in rates.iter().zip(&loaded) {
                let difference = (scores - &expected).mapv(f64::abs).fold(0.0, |a: f64, &b| a.max(b));
                println!("| {name} | {precision} | {query} |{rates} | {difference:.1e} |");
            }
        }
    }
    Ok(())
}

/// Log-likelihoods before and after an EM step: what both ways compute.
fn scores(executable: &mut dyn Executable, circuit: &Circuit) -> Result<Array1<f64>, Box<dyn Error>> {
    let images = Query::LogLikelihood.images(circuit, 200)?;
    let before = executable.log_likelihood(images.view())?;
    Query::EmStep.time(executable, circuit, images.view())?;
    let after = executable.log_likelihood(images.view())?;
    executable.set_parameters(circuit.parameters())?;
    Ok(ndarray::concatenate(ndarray::Axis(0), &[before.view(), after.view()])?)
}

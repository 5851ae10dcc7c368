//! Prints a line of JSON for each circuit and query, in the form of the scripts that time the peers.
#![forbid(unsafe_code)]

use std::{error::Error, num::NonZeroUsize, path::PathBuf, process::ExitCode};

use benches::{named, skipped, write};
use clap::Parser;
use convpc::{BackendChoice, Precision, bench::Query};

/// Time convpc on the circuits that its peers are timed on.
#[derive(Parser)]
struct Arguments {
    /// What computes: cpu, reference, cuda, or cuda:N for GPU number N.
    #[arg(long, default_value_t = BackendChoice::Cpu)]
    backend: BackendChoice,
    /// What a GPU multiplies: f32, tf32 or bf16.
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// Threads of the CPU backend.
    #[arg(long, default_value = "2")]
    threads: NonZeroUsize,
    /// Only the circuit of this name: small, mnist32, mnist64, mnist128; may be given again.
    #[arg(long)]
    only: Vec<String>,
    /// Repetitions to take the median of.
    #[arg(long, default_value = "5")]
    runs: NonZeroUsize,
    /// Write what the peers need to do the same into this folder.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { backend, precision, threads, only, runs, write: folder } = arguments;
    let device = backend;
    let backend = device.open(Some(threads.get()), precision)?;
    eprintln!("{}", backend.description());
    for case in named().iter().filter(|case| only.is_empty() || only.contains(&case.name)) {
        let circuit = case.circuit()?;
        let mut executable = backend.load(&circuit)?;
        if let Some(folder) = &folder {
            write(case, folder, &circuit, &mut *executable)?;
        }
        for query in Query::ALL {
            let what = format!("{} {}", case.name, query.name());
            let measured = match query.measure(&mut *executable, &circuit, case.batch, runs.get()) {
                Ok(measured) => measured,
                Err(error) => {
                    skipped(&what, backend.name(), &error);
                    continue;
                }
            };
            let gflops = measured.gflops.map_or("null".to_string(), |gflops| format!("{gflops:.2}"));
            println!(
                r#"{{"circuit": "{}", "peer": "convpc", "op": "{}", "device": "{device}", "precision": "{precision}", "threads": {threads}, "batch": {}, "seconds": {:.6}, "images_per_second": {:.1}, "gflops": {gflops}}}"#,
                case.name,
                query.name(),
                case.batch,
                measured.seconds,
                measured.images_per_second,
            );
        }
    }
    Ok(())
}

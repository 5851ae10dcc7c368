//! Prints a table of the GPU beside the CPU.
#![forbid(unsafe_code)]

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use benches::{least_bytes, named, skipped, sweep};
use clap::Parser;
use convpc::{
    Backend, BackendChoice, Circuit, Precision,
    bench::{Case, Measured, Query},
};
use serde_json::Value;

/// Time the GPU beside the CPU, and beside what the GPU can do at most.
#[derive(Parser)]
struct Arguments {
    /// What the GPU multiplies: f32, tf32 or bf16.
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// Threads of the CPU backend; all cores unless given.
    #[arg(long)]
    threads: Option<usize>,
    /// Only the circuits whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Repetitions to take the median of.
    #[arg(long, default_value = "5")]
    runs: usize,
    /// What xtask/gpu/ceilings.cu printed on this GPU, or a JSON file of benches/results.
    #[arg(long, value_name = "FILE")]
    ceilings: Option<PathBuf>,
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
    let Arguments { precision, threads, only, runs, ceilings } = arguments;
    let ceilings = ceilings.map(|path| {
        let read = || Ceilings::read(&fs::read_to_string(&path)?, precision);
        read().map_err(|error| format!("{}: {error}", path.display()))
    });
    let ceilings = ceilings.transpose()?;
    let cpu = BackendChoice::Cpu.open(threads, Precision::F32)?;
    let gpu = match (BackendChoice::Cuda { devices: vec![0] }).open(None, precision) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            skipped("everything", "cuda", &error);
            None
        }
    };
    println!("CPU: {}", cpu.description());
    println!("GPU: {}\n", gpu.as_ref().map_or("none".into(), |gpu| gpu.description()));
    println!(
        "| circuit, query | CPU images/s | GPU images/s | GPU / CPU | CPU GFLOP/s | GPU GFLOP/s | % of matrix rate | % of bandwidth |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for case in named().iter().chain(&sweep()).filter(|case| case.name.contains(&only)) {
        let circuit = case.circuit()?;
        let on_cpu = measure(&*cpu, case, &circuit, runs);
        let on_gpu = gpu.as_ref().map_or([None; QUERIES], |gpu| measure(&**gpu, case, &circuit, runs));
        for (query, (cpu, gpu)) in Query::ALL.into_iter().zip(on_cpu.into_iter().zip(on_gpu)) {
            let rate = |measured: Option<Measured>| measured.map(|m| m.images_per_second);
            let gflops = |measured: Option<Measured>| measured.and_then(|m| m.gflops);
            let ratio = rate(gpu).zip(rate(cpu)).map(|(gpu, cpu)| gpu / cpu);
            let matrix = gflops(gpu).zip(ceilings.as_ref()).map(|(gflops, at_most)| 100.0 * gflops / at_most.gflops);
            let bandwidth =
                gpu.filter(|_| query == Query::LogLikelihood).zip(ceilings.as_ref()).map(|(gpu, at_most)| {
                    100.0 * least_bytes(&circuit, case.batch, precision) / gpu.seconds / at_most.bytes_per_second
                });
            let cells = [rate(cpu), rate(gpu), ratio, gflops(cpu), gflops(gpu), matrix, bandwidth].map(shown);
            println!("| {} {} | {} |", case.name, query.name(), cells.join(" | "));
        }
    }
    Ok(())
}

const QUERIES: usize = Query::ALL.len();

/// All queries on one circuit; `None` where the backend cannot, after a line that says why.
fn measure(backend: &dyn Backend, case: &Case, circuit: &Circuit, runs: usize) -> [Option<Measured>; QUERIES] {
    let skipped = |what: &str, error| skipped(&format!("{}{what}", case.name), backend.name(), &error);
    match backend.load(circuit) {
        Ok(mut executable) => Query::ALL.map(|query| {
            let measured = query.measure(&mut *executable, circuit, case.batch, runs);
            measured.map_err(|error| skipped(&format!(" {}", query.name()), error)).ok()
        }),
        Err(error) => {
            skipped("", error);
            [None; QUERIES]
        }
    }
}

/// What the GPU can do at most.
struct Ceilings {
    /// Of the tensor cores at the precision, in billions of operations a second.
    gflops: f64,
    bytes_per_second: f64,
}

impl Ceilings {
    fn read(text: &str, precision: Precision) -> Result<Self, Box<dyn Error>> {
        let lines: Vec<Value> = match serde_json::from_str::<Value>(text) {
            Ok(results) if results["ceilings"].is_array() => {
                results["ceilings"].as_array().into_iter().flatten().cloned().collect()
            }
            _ => text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?,
        };
        let find = |name: &str| {
            let line = lines.iter().find(|line| line["ceiling"] == name);
            line.and_then(|line| line["value"].as_f64()).ok_or_else(|| format!("the ceilings lack \"{name}\""))
        };
        let teraflops = match precision {
            Precision::Bf16 => find("mma.sync bf16")?,
            Precision::Tf32 => find("mma.sync tf32")?,
            // A product of f32 is three of tf32.
            Precision::F32 => find("mma.sync tf32")? / 3.0,
        };
        Ok(Ceilings { gflops: 1e3 * teraflops, bytes_per_second: 1e9 * find("copy, kernel")? })
    }
}

/// Three digits, or a dash.
fn shown(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".into() };
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

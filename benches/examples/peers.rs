//! Prints a line of JSON for each circuit and query, in the form of the script that times the peers.
#![forbid(unsafe_code)]

use std::{num::NonZeroUsize, time::Duration};

use benches::{CASES, Query, flop_per_image};
use clap::Parser;
use convpc_core::{Backend, Result};
use convpc_cpu::Cpu;

/// Time convpc on the circuits that its peers are timed on.
#[derive(Parser)]
struct Arguments {
    /// Threads of the CPU backend.
    #[arg(long, default_value = "2")]
    threads: NonZeroUsize,
    /// Only the circuit of this name.
    #[arg(long, value_parser = CASES.map(|case| case.name))]
    only: Option<String>,
    /// Repetitions to take the median of.
    #[arg(long, default_value = "5")]
    runs: NonZeroUsize,
}

fn main() -> Result<()> {
    let Arguments { threads, only, runs } = Arguments::parse();
    let backend = Cpu::new(Some(threads.get()))?;
    eprintln!("{}", backend.description());
    for case in CASES.iter().filter(|case| only.as_ref().is_none_or(|name| name == case.name)) {
        let circuit = case.circuit()?;
        let mut executable = backend.load(&circuit)?;
        for query in Query::ALL {
            let images = query.images(case);
            let mut time = || query.time(&mut *executable, &circuit, images.view());
            time()?;
            let mut times = (0..runs.get()).map(|_| time()).collect::<Result<Vec<Duration>>>()?;
            let seconds = median(&mut times);
            let flop = query.passes().map(|passes| passes * flop_per_image(&circuit) * case.batch as f64);
            let gflops = flop.map_or("null".to_string(), |flop| format!("{:.2}", flop / seconds / 1e9));
            println!(
                r#"{{"circuit": "{}", "peer": "convpc", "op": "{}", "device": "{}", "threads": {threads}, "batch": {}, "seconds": {seconds:.6}, "images_per_second": {:.1}, "gflops": {gflops}}}"#,
                case.name,
                query.name(),
                backend.name(),
                case.batch,
                case.batch as f64 / seconds,
            );
        }
    }
    Ok(())
}

/// The median in seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let n = times.len();
    (times[(n - 1) / 2] + times[n / 2]).as_secs_f64() / 2.0
}

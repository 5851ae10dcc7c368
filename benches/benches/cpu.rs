//! Criterion benchmarks of the CPU backend; the documentation of this crate says how to run them.
#![forbid(unsafe_code)]

use std::time::Duration;

use benches::{CASES, Query};
use convpc_core::{Backend, Result};
use convpc_cpu::Cpu;
use criterion::{Criterion, Throughput};

/// The backends to measure.
fn backends() -> Result<Vec<Box<dyn Backend>>> {
    Ok(vec![Box::new(Cpu::new(None)?)])
}

fn measure(criterion: &mut Criterion, backend: &dyn Backend) -> Result<()> {
    for case in &CASES {
        let circuit = case.circuit()?;
        let mut executable = backend.load(&circuit)?;
        let mut group = criterion.benchmark_group(case.name);
        group.sample_size(10).throughput(Throughput::Elements(case.batch as u64));
        for query in Query::ALL {
            let images = query.images(case);
            // Errors end up here, not in the measured loop.
            query.time(&mut *executable, &circuit, images.view())?;
            group.bench_function(format!("{}/{}", query.name(), backend.name()), |bencher| {
                bencher.iter_custom(|runs| {
                    let mut run = || query.time(&mut *executable, &circuit, images.view()).expect("it ran before");
                    (0..runs).map(|_| run()).sum::<Duration>()
                });
            });
        }
        group.finish();
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    for backend in backends()? {
        eprintln!("{}: {}", backend.name(), backend.description());
        measure(&mut criterion, &*backend)?;
    }
    criterion.final_summary();
    Ok(())
}

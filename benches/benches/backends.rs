//! Criterion benchmarks of the backends that this machine has; the documentation of the crate says how to run them.
#![forbid(unsafe_code)]

use std::time::Duration;

use benches::{named, refused, skipped, sweep};
use convpc::{
    Backend, BackendChoice, Circuit, Executable, Precision,
    bench::{Case, Query},
};
use criterion::{Criterion, Throughput};

/// A circuit in a backend: made when its first benchmark runs, since a filter may leave out all.
#[derive(Default)]
struct Loaded(Option<(Circuit, Box<dyn Executable>)>);

impl Loaded {
    fn get(&mut self, case: &Case, backend: &dyn Backend) -> (&Circuit, &mut dyn Executable) {
        let (circuit, executable) = self.0.get_or_insert_with(|| {
            let circuit = case.circuit().expect("a legal case");
            let executable = backend.load(&circuit).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            (circuit, executable)
        });
        (circuit, &mut **executable)
    }
}

fn measure(criterion: &mut Criterion, backend: &dyn Backend, queries: &[Query]) {
    for case in named().iter().chain(&sweep()) {
        let mut loaded = Loaded::default();
        let mut group = criterion.benchmark_group(&case.name);
        group.sample_size(10).throughput(Throughput::Elements(case.batch as u64));
        for &query in queries {
            let mut images = None;
            group.bench_function(format!("{}/{}", query.name(), backend.name()), |bencher| {
                let (circuit, executable) = loaded.get(case, backend);
                let images =
                    images.get_or_insert_with(|| query.images(circuit, case.batch).expect("a batch that fits"));
                bencher.iter_custom(|runs| {
                    let mut run =
                        || query.time(executable, circuit, images.view()).expect("a query that a tiny circuit passed");
                    (0..runs).map(|_| run()).sum::<Duration>()
                });
            });
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for choice in [BackendChoice::Cpu, BackendChoice::Cuda { devices: vec![0] }] {
        let backend = match choice.open(None, Precision::F32) {
            Ok(backend) => backend,
            Err(error) => {
                skipped("everything", &choice.to_string(), &error);
                continue;
            }
        };
        eprintln!("{}: {}", backend.name(), backend.description());
        let mut queries = Query::ALL.to_vec();
        queries.retain(|query| {
            let refused = refused(*query, &*backend);
            refused.iter().for_each(|error| skipped(query.name(), backend.name(), error));
            refused.is_none()
        });
        measure(&mut criterion, &*backend, &queries);
    }
    criterion.final_summary();
}

//! Benchmarks of convpc. The queries and the circuits that the peers have too are those of [`convpc::bench`], as in the command
//! `convpc bench`, which measures one machine.
//!
//! ```sh
//! cargo bench -p benches                          # criterion: all circuits and queries, all cores
//! cargo bench -p benches -- mnist64/em_step       # one of them
//! python3 benches/peers/run.py                    # convpc beside SPFlow and PyTorch: the table of the README
//! cargo run --release -p benches --example peers -- --threads 2
//! cargo run --release -p benches --features cuda --example compare -- --precision bf16 --ceilings ceilings.json
//! cargo run --release -p benches --features cuda --example kernels -- --batch 4096 FOLDER...    # changed kernels, as PTX
//! ```
//!
//! With `--features cuda` the first measure the GPU too, if there is one. What a backend does not do yet is left out, with a
//! line that says so. Times are those of a caller: data come from and go to the host's memory.
//!
//! The example `peers` prints one line of JSON for each circuit and query; with `--write` it hands its circuits, images and
//! log-likelihoods to the peers. `benches/peers/run.py` runs it and then, in one session on one machine, SPFlow, a version in
//! PyTorch and, on a GPU, PyJuice: each has the same parameters, and is measured once its log-likelihoods agree. The example
//! `compare` prints a table of the GPU beside the CPU; with the ceilings that `xtask/gpu/ceilings.cu` measures (its output, or
//! a JSON file of `benches/results`) it says how near the GPU's own limits are. Both examples take the median over `--runs`
//! repetitions after one to warm up, or over fewer where those take long. Compare only numbers taken with the same number of
//! threads.
#![forbid(unsafe_code)]

mod case;
mod handover;

pub use case::{least_bytes, named, refused, skipped, sweep};
pub use handover::write;

//! What the kernels execute for an image, counted on the software device, and what an H100 would make of it if one resource
//! alone limited it: the static estimate of kernels/TUNING.md.
//!
//! `cargo run --release -p testsuite --example estimate`

use std::collections::BTreeMap;

use convpc::{Backend, Circuit, ConvPc, CudaBackend, Executable, Family, Limits, Precision, Reference, Result};
use emulator::{Exclusive, KernelStats};
use ndarray::{Array2, s};

/// What these rows cost more than half of them is what the rows of a large batch cost.
const ROWS: usize = 128;

/// As many levels in a launch as an H100 gets at batch 4096: what is counted for an image is then the same.
const LIMITS: Limits = Limits { multiprocessors: 8, shared_memory: 227 * 1024 };

/// H100 SXM: multiprocessors times clock.
const CLOCKS: f64 = 132.0 * 1.755e9;

/// The columns' names.
const HEAD: &str = "| precision | query | kernel | instructions | mma | ex2 + lg2 | bytes loaded | stored | shared | issue \
                    | ex2, lg2 | shared memory | tensor cores |\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

#[derive(Clone, Copy)]
enum Query {
    LogLikelihood,
    /// Log-likelihoods, flows and counts of a batch; the step itself does not depend on it.
    Accumulate,
    Sample,
    Complete,
}

impl Query {
    fn name(self) -> &'static str {
        match self {
            Query::LogLikelihood => "log_likelihood",
            Query::Accumulate => "accumulate",
            Query::Sample => "sample",
            Query::Complete => "complete",
        }
    }

    fn run(self, executable: &mut dyn Executable, data: &Array2<f32>) -> Result<()> {
        match self {
            Query::LogLikelihood => executable.log_likelihood(data.view()).map(|_| ()),
            Query::Accumulate => executable.accumulate(data.view()).map(|_| ()),
            Query::Sample => executable.sample(0..data.nrows() as u64, 1).map(|_| ()),
            Query::Complete => {
                let mut half = data.clone();
                half.iter_mut().step_by(2).for_each(|x| *x = f32::NAN);
                executable.sample_conditional(half.view(), 1, 0).map(|_| ())
            }
        }
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let device = emulator::install()?.exclusive();
    println!("28×28 pixels, Normal leaves, 64 channels, depth 5; counts for an image of a large batch.");
    println!(
        "Limits in millions of images a second: issue (4 warp instructions a clock), ex2 and lg2 (16 a clock), shared"
    );
    println!("memory (128 bytes a clock), tensor cores (a clock for m16n8k8 tf32 or m16n8k16 bf16).\n");
    println!("{HEAD}");
    let circuit = ConvPc::new(28, 28, 1, Family::normal()).channels(64).depth(5).build(1)?;
    let data = Reference.load(&circuit)?.sample(0..ROWS as u64, 1)?;
    for precision in Precision::ALL {
        for query in [Query::LogLikelihood, Query::Accumulate] {
            table(&device, precision, query, &circuit, &data)?;
        }
    }
    // Choices are made in float64 whatever the precision.
    for query in [Query::Sample, Query::Complete] {
        table(&device, Precision::F32, query, &circuit, &data)?;
    }
    Ok(())
}

/// What an image costs a kernel.
#[derive(Clone, Copy, Default)]
struct Cost {
    instructions: f64,
    mma: f64,
    special: f64,
    loaded: f64,
    stored: f64,
    shared: f64,
}

impl Cost {
    /// The cost of an image whose rows, `images` more, made the difference.
    fn between(fewer: &KernelStats, more: &KernelStats, images: usize) -> Self {
        let of_image = |a: u64, b: u64| (b as f64 - a as f64) / images as f64;
        Cost {
            instructions: of_image(fewer.instructions, more.instructions),
            mma: of_image(fewer.mma, more.mma),
            special: of_image(fewer.ex2 + fewer.lg2, more.ex2 + more.lg2),
            loaded: of_image(fewer.global_load_bytes, more.global_load_bytes),
            stored: of_image(fewer.global_store_bytes, more.global_store_bytes),
            shared: of_image(fewer.shared_bytes, more.shared_bytes),
        }
    }

    fn plus(self, other: Self) -> Self {
        Cost {
            instructions: self.instructions + other.instructions,
            mma: self.mma + other.mma,
            special: self.special + other.special,
            loaded: self.loaded + other.loaded,
            stored: self.stored + other.stored,
            shared: self.shared + other.shared,
        }
    }
}

/// A line for each kernel that a query launches, and one for all.
fn table(device: &Exclusive, precision: Precision, query: Query, circuit: &Circuit, data: &Array2<f32>) -> Result<()> {
    let mut executable = CudaBackend::new(0)?.with_precision(precision).with_limits(LIMITS).load(circuit)?;
    let mut count = |rows: usize| {
        let data = data.slice(s![..rows, ..]).to_owned();
        // What is done once for a circuit is not counted.
        query.run(&mut *executable, &data)?;
        device.clear_counts();
        query.run(&mut *executable, &data)?;
        Ok::<_, convpc::Error>(device.counts().into_iter().collect::<BTreeMap<_, _>>())
    };
    let (fewer, more) = (count(ROWS / 2)?, count(ROWS)?);
    let cost = |(kernel, more): (&String, &KernelStats)| {
        let fewer = fewer.get(kernel).copied().unwrap_or_default();
        (format!("`{kernel}`"), Cost::between(&fewer, more, ROWS / 2))
    };
    let mut costs: Vec<_> = more.iter().map(cost).filter(|(_, cost)| cost.instructions > 0.0).collect();
    costs.sort_by(|(_, a), (_, b)| b.instructions.total_cmp(&a.instructions));
    let all = costs.iter().fold(Cost::default(), |all, (_, cost)| all.plus(*cost));
    for (kernel, c) in costs.into_iter().chain([("all".to_string(), all)]) {
        let millions = |clocks: f64| CLOCKS / clocks / 1e6;
        println!(
            "| {precision} | {} | {kernel} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} |",
            query.name(),
            c.instructions,
            c.mma,
            c.special,
            c.loaded,
            c.stored,
            c.shared,
            millions(c.instructions / 32.0 / 4.0),
            millions(c.special / 16.0),
            millions(c.shared / 128.0),
            millions(c.mma),
        );
    }
    Ok(())
}

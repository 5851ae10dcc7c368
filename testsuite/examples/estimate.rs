//! What the kernels of the upward pass execute for an image, counted on the software device, and what an H100 would make of
//! it if one resource alone limited it: the static estimate of kernels/TUNING.md.
//!
//! `cargo run --release -p testsuite --example estimate`

use convpc::{Backend, ConvPc, CudaBackend, Family, Limits, Precision, Reference};

const ROWS: u64 = 64;

/// As many levels in a launch as an H100 gets at batch 4096: what is counted for an image is then the same.
const LIMITS: Limits = Limits { multiprocessors: 8, shared_memory: 227 * 1024 };

/// H100 SXM: multiprocessors times clock.
const CLOCKS: f64 = 132.0 * 1.755e9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = emulator::install()?.exclusive();
    println!("28×28 pixels, Normal leaves, 64 channels, depth 5; counts for an image of a large batch.");
    println!(
        "Limits in millions of images a second: issue (4 warp instructions a clock), ex2 and lg2 (16 a clock), shared"
    );
    println!("memory (128 bytes a clock), tensor cores (a clock for m16n8k8 tf32 or m16n8k16 bf16).\n");
    println!(
        "| precision | kernel | instructions | mma | ex2 + lg2 | bytes loaded | stored | shared | issue | ex2, lg2 | shared memory | tensor cores |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for precision in Precision::ALL {
        let convpc = ConvPc::new(28, 28, 1, Family::normal()).channels(64).depth(5);
        let circuit = convpc.build(1)?;
        let data = Reference.load(&circuit)?.sample(0..ROWS, 1)?;
        let executable = CudaBackend::new(0)?.with_precision(precision).with_limits(LIMITS).load(&circuit)?;
        device.clear_counts();
        executable.log_likelihood(data.view())?;
        let mut counts = device.counts();
        counts.sort_by_key(|(_, stats)| std::cmp::Reverse(stats.instructions));
        for (kernel, s) in counts.into_iter().filter(|(_, s)| s.instructions > 0) {
            let of_image = |n: u64| n as f64 / ROWS as f64;
            let millions = |clocks: f64| CLOCKS / clocks / 1e6;
            let special = of_image(s.ex2 + s.lg2);
            println!(
                "| {precision} | `{kernel}` | {:.0} | {:.0} | {special:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} |",
                of_image(s.instructions),
                of_image(s.mma),
                of_image(s.global_load_bytes),
                of_image(s.global_store_bytes),
                of_image(s.shared_bytes),
                millions(of_image(s.instructions) / 32.0 / 4.0),
                millions(special / 16.0),
                millions(of_image(s.shared_bytes) / 128.0),
                millions(of_image(s.mma)),
            );
        }
    }
    Ok(())
}

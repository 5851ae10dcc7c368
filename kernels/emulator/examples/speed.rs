//! How fast kernels run: `cargo run --release -p emulator --example speed [PART OF A LINE]`.

use std::time::Instant;

use emulator::launch::{Shape, SymbolTable, launch};
use emulator::machine::memory::Memory;
use emulator::machine::settings::{Order, Settings};
use emulator::ptx::Module;
use emulator::stats::KernelStats;

const SIZE: u32 = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let module = Module::parse(include_str!("../tests/ptx/samples.ptx"))?;
    let mut memory = Memory::new(1 << 30);
    let elements = u64::from(SIZE * SIZE);
    let matrices = [memory.allocate(4 * elements)?, memory.allocate(4 * elements)?, memory.allocate(4 * elements)?];
    for matrix in matrices {
        let (buffer, _) = memory.range(matrix, 4 * elements)?;
        let bytes: Vec<u8> = (0..elements).flat_map(|i| (i as f32 * 1e-6).to_le_bytes()).collect();
        buffer.write(0, &bytes);
    }
    let [a, b, c] = matrices;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let pointers = |pointers: &[u64]| pointers.iter().flat_map(|pointer| pointer.to_le_bytes()).collect::<Vec<u8>>();
    let cases = [
        ("tile_f32", [SIZE / 64, SIZE / 64], 256, 0, [pointers(&[a, b, c]), words(&[SIZE, SIZE, SIZE])].concat()),
        ("tile_tf32", [64, 1], 32, 16 * 8 * 4 + 8 * 8 * 4, [pointers(&[a, b, c]), words(&[SIZE])].concat()),
        ("log_sum_exp", [SIZE / 128, 1], 128, 0, [pointers(&[a, c]), words(&[SIZE, SIZE])].concat()),
    ];
    let mut symbols = SymbolTable::default();
    for variable in &module.variables {
        symbols.0.insert(variable.name.clone(), memory.allocate(u64::from(variable.bytes))?);
    }
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!("millions of PTX instructions of threads a second, one worker, the best of five runs");
    for (what, settings) in [
        ("lockstep, strict", Settings::default()),
        ("lockstep, strict, races", Settings { races: true, ..Settings::default() }),
        ("by thread, strict", Settings { order: Order::Ascending, ..Settings::default() }),
    ] {
        let settings = Settings { workers: 1, ..settings };
        for (name, [x, y], threads, dynamic_shared, parameters) in &cases {
            let shape = Shape { grid: [*x, *y, 1], block: [*threads, 1, 1], dynamic_shared: *dynamic_shared };
            if !format!("{what:24} {name}").contains(&wanted) {
                continue;
            }
            let mut seconds = f64::INFINITY;
            let mut stats = KernelStats::default();
            for _ in 0..5 {
                let start = Instant::now();
                stats = launch(&module.kernels[*name], &memory, &symbols, parameters, shape, &settings)?;
                seconds = seconds.min(start.elapsed().as_secs_f64());
            }
            let rate = stats.instructions as f64 / seconds / 1e6;
            println!(
                "{what:24} {name:12} {rate:7.0}  ({:.1} M in {:.0} ms)",
                stats.instructions as f64 / 1e6,
                seconds * 1e3
            );
        }
    }
    Ok(())
}

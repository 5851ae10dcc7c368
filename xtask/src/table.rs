//! `kernels/ptxas.md`: what each kernel takes, and how many threads that leaves on a multiprocessor.

use std::fmt::Write;

use crate::ptxas::{ARCHITECTURES, Kernel};

/// Of a multiprocessor, both architectures alike (CUDA C++ Programming Guide, technical specifications).
const REGISTERS: u32 = 65_536;
const THREADS: u32 = 2_048;
const BLOCKS: u32 = 32;
/// A warp takes registers in units of this many, from one of four partitions.
const UNIT: u32 = 256;
const PARTITIONS: u32 = 4;
const WARP: u32 = 32;

/// The threads that fit on a multiprocessor by registers; in whole blocks where the block's size is known.
fn resident_threads(registers: u32, block: Option<u32>) -> u32 {
    let warp_registers = (registers * WARP).next_multiple_of(UNIT).max(UNIT);
    let warps = (REGISTERS / PARTITIONS / warp_registers * PARTITIONS).min(THREADS / WARP);
    match block {
        None => warps * WARP,
        Some(threads) => {
            let block_warps = threads.div_ceil(WARP).max(1);
            (warps / block_warps).min(BLOCKS) * block_warps * WARP
        }
    }
}

/// The table in Markdown, with what stands around it.
pub(crate) fn render(kernels: &[Kernel]) -> String {
    let [first, second] = ARCHITECTURES;
    let mut text = format!(
        "# What the kernels take\n\n\
         Written by `cargo xtask ptx` from what `ptxas -v` says of the committed PTX. Spill: bytes of spill stores and \
         loads, the\nworse of {first} and {second}; stack: bytes of a thread's memory outside registers. Threads: how \
         many fit on a multiprocessor\n({THREADS} at most), limited by registers alone; shared memory may leave \
         fewer.\n\n\
         | kernel | file | registers {first} | registers {second} | static shared | spill | stack | block | \
         threads {first} | threads {second} |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    );
    for kernel in kernels {
        let [a, b] = kernel.usage;
        let block = kernel.max_threads.map_or_else(|| "any".to_owned(), |threads| threads.to_string());
        let resident = |registers| resident_threads(registers, kernel.max_threads);
        writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {} | {block} | {} | {} |",
            kernel.name,
            kernel.file,
            a.registers,
            b.registers,
            a.shared.max(b.shared),
            kernel.spill_bytes(),
            a.stack.max(b.stack),
            resident(a.registers),
            resident(b.registers),
        )
        .expect("a string takes any text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptxas::Usage;

    #[test]
    fn residency_by_registers() {
        assert_eq!(resident_threads(32, Some(256)), 2048);
        assert_eq!(resident_threads(64, Some(256)), 1024);
        // 65 registers are given out as 72: 28 warps, of which three blocks of eight fit.
        assert_eq!(resident_threads(65, Some(256)), 768);
        assert_eq!(resident_threads(65, None), 28 * 32);
        // 255 as 256: two warps in each partition.
        assert_eq!(resident_threads(255, Some(256)), 256);
        assert_eq!(resident_threads(255, Some(512)), 0);
        // No more than 32 blocks.
        assert_eq!(resident_threads(16, Some(32)), 1024);
    }

    #[test]
    fn a_row_for_each_kernel() {
        let usage = |registers| Usage { registers, shared: 9472, spills: 0, stack: 0 };
        let kernel = |name: &str, max_threads| Kernel {
            name: name.to_owned(),
            file: "sum".to_owned(),
            max_threads,
            usage: [usage(64), Usage { spills: 8, ..usage(72) }],
        };
        let table = render(&[kernel("lse_sum", Some(128)), kernel("lse_free", None)]);
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(
            rows,
            [
                "| `lse_sum` | sum | 64 | 72 | 9472 | 8 | 0 | 128 | 1024 | 896 |",
                "| `lse_free` | sum | 64 | 72 | 9472 | 8 | 0 | any | 1024 | 896 |"
            ]
        );
    }
}

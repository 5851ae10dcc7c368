//! What the machine does at most: kernels that do one thing alone.

use std::hint::black_box;

use super::{InstructionSet, Isa, Kernel, Lanes};

/// Steps of [`MultiplyAdds`]: some tens of microseconds.
const STEPS: usize = 10_000;

/// Independent sums: enough to cover the latency of two fused units, few enough for 16 registers.
const SUMS: usize = 12;

/// Registers that [`Read`] adds to in turn.
const READING_SUMS: usize = 8;

/// Multiply-adds on registers alone. Returns how many floating-point operations they were: a multiply-add is two.
///
/// `None` for the portable set: its sums outnumber the registers of some targets, and what the compiler then makes of them is
/// slower than the matrix product.
pub fn multiply_adds(isa: Isa) -> Option<f64> {
    (isa.instruction_set() != InstructionSet::Portable).then(|| isa.dispatch(MultiplyAdds))
}

struct MultiplyAdds;

impl Kernel for MultiplyAdds {
    type Output = f64;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f64 {
        // SAFETY: the caller's contract.
        unsafe {
            let factor = L::splat(black_box(0.999));
            let summand = L::splat(black_box(1e-3));
            let mut sums = [L::splat(black_box(1.0)); SUMS];
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(L::splat(i as f32));
            }
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = sum.mul_add(factor, summand);
                }
            }
            let mut total = 0.0;
            for sum in sums {
                total += sum.reduce_add();
            }
            black_box(total);
        }
        (2 * SUMS * STEPS * L::LEN) as f64
    }
}

/// Reads all values but the last few, and returns how many bytes that were.
pub fn read(isa: Isa, values: &[f32]) -> f64 {
    isa.dispatch(Read(values))
}

struct Read<'a>(&'a [f32]);

impl Kernel for Read<'_> {
    type Output = f64;

    #[allow(clippy::needless_range_loop, reason = "only loops over indices keep the sums in registers")]
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f64 {
        let blocks = self.0.chunks_exact(READING_SUMS * L::LEN);
        let count = blocks.len() * READING_SUMS * L::LEN;
        // SAFETY: every load lies within its block; the instruction set is the caller's contract.
        unsafe {
            let mut sums = [L::splat(0.0); READING_SUMS];
            for block in blocks {
                for i in 0..READING_SUMS {
                    sums[i] = sums[i].add(L::load(block.as_ptr().add(i * L::LEN)));
                }
            }
            let mut total = 0.0;
            for sum in sums {
                total += sum.reduce_add();
            }
            black_box(total);
        }
        (count * size_of::<f32>()) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_counted() {
        for set in InstructionSet::available() {
            let isa = Isa::new(set).unwrap();
            let lanes = if set == InstructionSet::Avx512 { 16.0 } else { 8.0 };
            let counted = (set != InstructionSet::Portable).then_some(2.0 * SUMS as f64 * STEPS as f64 * lanes);
            assert_eq!(multiply_adds(isa), counted);
            let block = READING_SUMS * lanes as usize;
            for (len, blocks) in [(0, 0), (block - 1, 0), (block, 1), (3 * block + 1, 3)] {
                assert_eq!(read(isa, &vec![1.0; len]), (4 * blocks * block) as f64, "{set}, {len} values");
            }
        }
    }
}

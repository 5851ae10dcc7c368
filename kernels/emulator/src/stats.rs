//! What kernels did.

use crate::ptx::op::{Float, FloatUnary, Op};
use crate::ptx::program::Program;
use crate::ptx::types::Space;

/// Counts of one kernel over all its launches. Instructions are counted by threads: a warp counts as 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KernelStats {
    /// Launches.
    pub launches: u64,
    /// Instructions that threads executed.
    pub instructions: u64,
    /// Fused and plain multiplications and additions of `f32`.
    pub f32_arithmetic: u64,
    /// Of these, fused ones.
    pub fma: u64,
    /// Matrix products of whole warps.
    pub mma: u64,
    /// Multiplications and additions in matrix products, two operations each counted once.
    pub mma_macs: u64,
    /// `ex2`.
    pub ex2: u64,
    /// `lg2`.
    pub lg2: u64,
    /// Bytes loaded from global memory, asynchronous copies included.
    pub global_load_bytes: u64,
    /// Bytes stored to global memory.
    pub global_store_bytes: u64,
    /// Bytes loaded from and stored to shared memory.
    pub shared_bytes: u64,
    /// Atomic operations.
    pub atomics: u64,
    /// Arrivals at barriers of the block.
    pub barriers: u64,
}

impl KernelStats {
    /// Adds how often each instruction of a program was executed.
    pub(crate) fn add_counts(&mut self, program: &Program, counts: &[u64]) {
        for (inst, &count) in program.code.iter().zip(counts) {
            if count != 0 {
                self.add(&inst.op, program, count);
            }
        }
    }

    /// Adds another kernel's counts.
    pub fn merge(&mut self, other: &Self) {
        self.launches += other.launches;
        self.instructions += other.instructions;
        self.f32_arithmetic += other.f32_arithmetic;
        self.fma += other.fma;
        self.mma += other.mma;
        self.mma_macs += other.mma_macs;
        self.ex2 += other.ex2;
        self.lg2 += other.lg2;
        self.global_load_bytes += other.global_load_bytes;
        self.global_store_bytes += other.global_store_bytes;
        self.shared_bytes += other.shared_bytes;
        self.atomics += other.atomics;
        self.barriers += other.barriers;
    }

    fn add(&mut self, op: &Op, program: &Program, count: u64) {
        self.instructions += count;
        match op {
            Op::Fma32 { .. } => {
                self.f32_arithmetic += count;
                self.fma += count;
            }
            Op::Float32 { f: Float::Add | Float::Sub | Float::Mul, .. } => self.f32_arithmetic += count,
            Op::FloatUnary32 { f: FloatUnary::Ex2, .. } => self.ex2 += count,
            Op::FloatUnary32 { f: FloatUnary::Lg2, .. } => self.lg2 += count,
            Op::Mma { index } => {
                self.mma += count / 32;
                self.mma_macs += count / 32 * 128 * u64::from(program.products[usize::from(*index)].k);
            }
            Op::Load { space, elem, count: width, .. } => {
                let bytes = count * u64::from(elem.bytes) * u64::from(*width);
                match space {
                    Space::Global | Space::Generic => self.global_load_bytes += bytes,
                    Space::Shared => self.shared_bytes += bytes,
                    _ => {}
                }
            }
            Op::Store { space, elem, count: width, .. } => {
                let bytes = count * u64::from(elem.bytes) * u64::from(*width);
                match space {
                    Space::Global | Space::Generic => self.global_store_bytes += bytes,
                    Space::Shared => self.shared_bytes += bytes,
                    _ => {}
                }
            }
            Op::LoadMatrix { count: matrices, .. } => self.shared_bytes += count / 32 * 128 * u64::from(*matrices),
            Op::CopyAsync { bytes, .. } => {
                self.global_load_bytes += count * u64::from(*bytes);
                self.shared_bytes += count * u64::from(*bytes);
            }
            Op::Atomic { .. } => self.atomics += count,
            Op::Barrier { .. } | Op::BarrierReduce { .. } => self.barriers += count,
            _ => {}
        }
    }
}

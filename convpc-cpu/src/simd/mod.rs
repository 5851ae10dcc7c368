//! Single instruction, multiple data: one generic body per computation, one entry point per instruction set.
//!
//! A computation is a [`Kernel`] whose `run` is generic over [`Lanes`], a register of `f32`. [`Isa::dispatch`] enters
//! it through one `#[target_feature]` function per instruction set. Everything below that entry point is
//! `#[inline(always)]`, which is how the generic body comes to be compiled with the features of its caller; the two
//! attributes cannot be put on one function.
//!
//! An [`Isa`] exists only for an instruction set that this machine runs, so `dispatch` is safe to call.
//!
//! The portable set rounds after each product of a `mul_add` where the target has no fused instruction, and sums over
//! lanes follow the width of a register: results of two instruction sets may differ by rounding.
#![allow(
    unsafe_code,
    reason = "vector intrinsics and raw pointers into checked slices; the rest of the crate stays safe"
)]
#![allow(unreachable_pub, reason = "`pub` marks what the module offers; how far it is seen is the parent's choice")]

pub mod bf16;
mod ceilings;
mod gemm;
mod lanes;
pub mod math;
mod matvec;
pub mod ops;
mod portable;
mod random;
mod steps;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod numbers;

use std::fmt;

pub use ceilings::{multiply_adds, read};
pub use gemm::{MatMul, Matrix, Store};
pub use lanes::{Lanes, MOST_LANES};
pub use matvec::MatVec;
pub use random::{box_muller, uniforms};
pub use steps::Steps;

/// The most rows of a panel: two registers.
pub const MOST_WIDTH: usize = 2 * MOST_LANES;

/// A set of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// avx512f, avx512bw, avx512dq and avx512vl: 32 registers of 16 lanes.
    Avx512,
    /// avx2 and fma: 16 registers of 8 lanes.
    Avx2,
    /// What the compiler makes of arrays of 8 lanes for the target it was given.
    Portable,
}

impl InstructionSet {
    /// The widest set that this machine runs.
    pub fn detect() -> Self {
        if Self::Avx512.is_available() {
            Self::Avx512
        } else if Self::Avx2.is_available() {
            Self::Avx2
        } else {
            Self::Portable
        }
    }

    /// Every set that this machine runs, the widest first.
    pub fn available() -> Vec<Self> {
        [Self::Avx512, Self::Avx2, Self::Portable].into_iter().filter(|set| set.is_available()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Portable => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Avx512 => "AVX-512",
            Self::Avx2 => "AVX2+FMA",
            Self::Portable => "portable",
        })
    }
}

/// The permission to run an instruction set: it can be made only where the machine has the instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(InstructionSet);

impl Isa {
    /// The widest instruction set that this machine runs.
    pub fn detect() -> Self {
        Self(InstructionSet::detect())
    }

    /// The given instruction set, or `None` where this machine does not run it.
    pub fn new(set: InstructionSet) -> Option<Self> {
        set.is_available().then_some(Self(set))
    }

    /// The instruction set that [`Isa::dispatch`] runs.
    pub fn instruction_set(self) -> InstructionSet {
        self.0
    }

    /// The `f32` lanes of a register.
    pub fn lanes(self) -> usize {
        if self.0 == InstructionSet::Avx512 { 16 } else { 8 }
    }

    /// Runs a kernel with this instruction set.
    pub fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: `self` was made after the features of its set had been detected.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => unsafe { run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: portable lanes need no instruction beyond those of the target.
            _ => unsafe { kernel.run::<portable::Lanes8>() },
        }
    }
}

/// A computation over [`Lanes`] of any instruction set.
pub trait Kernel {
    /// What the computation returns.
    type Output;

    /// Computes. Implementations are `#[inline(always)]`, and so is all they call that uses `L`; a closure counts as
    /// a call.
    ///
    /// # Safety
    ///
    /// The instruction set of `L` is available, and the caller is compiled with its features.
    unsafe fn run<L: Lanes>(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here.
    unsafe { kernel.run::<avx512::Lanes16>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here.
    unsafe { kernel.run::<avx2::Lanes8>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct CountLanes;

    impl Kernel for CountLanes {
        type Output = usize;

        #[inline(always)]
        unsafe fn run<L: Lanes>(self) -> usize {
            L::LEN
        }
    }

    #[test]
    fn the_detected_set_is_the_first_available() {
        let available = InstructionSet::available();
        assert_eq!(InstructionSet::detect(), available[0]);
        assert_eq!(Isa::detect().instruction_set(), available[0]);
        assert_eq!(available.last(), Some(&InstructionSet::Portable));
    }

    #[test]
    fn a_token_exists_exactly_for_the_available_sets() {
        for set in [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Portable] {
            let isa = Isa::new(set);
            assert_eq!(isa.is_some(), InstructionSet::available().contains(&set));
            if let Some(isa) = isa {
                let lanes = if set == InstructionSet::Avx512 { 16 } else { 8 };
                assert_eq!(isa.instruction_set(), set);
                assert_eq!((isa.dispatch(CountLanes), isa.lanes()), (lanes, lanes));
            }
        }
    }

    #[test]
    fn names() {
        let names = [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Portable].map(|set| set.to_string());
        assert_eq!(names, ["AVX-512", "AVX2+FMA", "portable"]);
    }
}

//! The CPU backend of convpc: the whole circuit in one depth-first walk over tiles of rows, products fused into the sums
//! that follow, every sum a matrix product in SIMD (AVX-512, AVX2 with FMA, or portable), tiles spread over threads.
//!
//! Log-likelihoods are within `1e-5 · |ll| + 1e-4` nats of the float64 reference, for every legal circuit and row: what f32
//! cannot hold is computed in float64. Learning from a row and completing it need f32 throughout; where the distributions near
//! a value have weight 0 and all others are more than about 1e19 standard deviations away, they are refused
//! ([`Error::TooFar`]), and the statistics are empty afterwards. A row's result does not depend on
//! the batch it is in, nor on the number of threads.

mod caches;
mod ceilings;
mod executable;
mod leaf;
mod memory;
mod model;
mod plan;
mod product;
mod reach;
mod scores;
mod shares;
mod simd;
mod unobserved;
mod update;
mod walk;
mod weights;

use std::sync::Arc;

pub use ceilings::Ceilings;
use convpc_core::{Backend, Circuit, Error, Executable, Precision, Result, Structure};
use rayon::{ThreadPool, ThreadPoolBuilder};
pub use simd::InstructionSet;
use simd::{Isa, bf16::Bf16};

/// The CPU as a backend.
///
/// ```
/// use convpc_core::{Backend, ConvPc, Family};
/// use convpc_cpu::Cpu;
/// let circuit = ConvPc::new(4, 4, 1, Family::normal()).channels(8).build(1)?;
/// let executable = Cpu::new(Some(1))?.load(&circuit)?;
/// let samples = executable.sample(0..3, 7)?;
/// assert_eq!(executable.log_likelihood(samples.view())?.len(), 3);
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cpu {
    pool: Arc<ThreadPool>,
    isa: Isa,
    bf16: Option<Bf16>,
}

impl Cpu {
    /// The CPU with a pool of `threads` threads of its own, as many as the machine has cores for `None`, and the widest
    /// instruction set that the machine runs.
    ///
    /// # Errors
    /// Where `threads` is 0 or the threads cannot be started.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        if threads == Some(0) {
            return Err(Error::Zero { what: "the number of threads" });
        }
        let pool = ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build();
        let pool = pool.map_err(|e| Error::Backend {
            backend: "cpu".into(),
            problem: format!("the thread pool could not be started ({e}); ask for fewer threads"),
        })?;
        Ok(Self::with_pool(Arc::new(pool)))
    }

    /// The CPU with a pool of the caller's.
    pub fn with_pool(pool: Arc<ThreadPool>) -> Self {
        Cpu { pool, isa: Isa::detect(), bf16: None }
    }

    /// How the work on a circuit is cut on this machine, in words: tiles of rows from the sizes of the caches, the tree into
    /// shares for threads.
    ///
    /// ```
    /// use convpc_core::{ConvPc, Family};
    /// let structure = ConvPc::new(28, 28, 1, Family::normal()).channels(64).structure()?;
    /// println!("{}", convpc_cpu::Cpu::new(Some(1))?.plan(&structure));
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    pub fn plan(&self, structure: &Structure) -> String {
        let leaf_counts = (1 + structure.leaf().family.statistics()) * structure.shape(0).channels;
        plan::Plan::new(structure, leaf_counts, self.isa.lanes(), caches::Caches::detect()).to_string()
    }

    /// The same with another instruction set than the widest: for tests and for comparing.
    ///
    /// # Errors
    /// Where the machine does not run it.
    pub fn with_instruction_set(self, set: InstructionSet) -> Result<Self> {
        let isa = Isa::new(set).ok_or_else(|| Error::Backend {
            backend: "cpu".into(),
            problem: format!("this machine does not run {set}; it runs {:?}", InstructionSet::available()),
        })?;
        Ok(Cpu { isa, ..self })
    }

    /// The same with another precision of what scores: log-likelihoods and activations of the sum-product semiring. Learning,
    /// completing and sampling stay [`Precision::F32`]. [`Precision::Bf16`] multiplies at twice the rate, where the machine has
    /// the dot products of AVX-512 BF16, and adds an error of at most [`Precision::error_per_sum`] nats for each sum layer.
    ///
    /// ```
    /// use convpc_core::Precision;
    /// use convpc_cpu::Cpu;
    /// match Cpu::new(Some(1))?.with_precision(Precision::Bf16) {
    ///     Ok(cpu) => assert_eq!(cpu.precision(), Precision::Bf16),
    ///     Err(error) => println!("{error}"),
    /// }
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where the machine does not have the precision: [`Precision::Tf32`] is a GPU's.
    pub fn with_precision(self, precision: Precision) -> Result<Self> {
        let lacks = |problem: &str| Error::Backend { backend: "cpu".into(), problem: problem.into() };
        let bf16 = match precision {
            Precision::F32 => None,
            Precision::Bf16 => Some(Bf16::detect().ok_or_else(|| {
                lacks("this machine has no dot products of bf16 (AVX-512 BF16); leave the precision out")
            })?),
            Precision::Tf32 => {
                return Err(lacks("it does not compute in tf32; leave the precision out, or choose the backend cuda"));
            }
        };
        Ok(Cpu { bf16, ..self })
    }

    /// The precision of what scores.
    pub fn precision(&self) -> Precision {
        self.bf16.map_or(Precision::F32, |_| Precision::Bf16)
    }

    /// The number of threads that compute.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}

impl Backend for Cpu {
    fn name(&self) -> &str {
        "cpu"
    }

    fn description(&self) -> String {
        let precision = self.bf16.map_or("", |_| ", scores in bf16");
        format!("{}, {} threads{precision}", self.isa.instruction_set(), self.threads())
    }

    fn load(&self, circuit: &Circuit) -> Result<Box<dyn Executable>> {
        Ok(Box::new(executable::CpuExecutable::new(circuit, self.pool.clone(), self.isa, self.bf16)))
    }
}

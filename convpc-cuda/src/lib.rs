//! The CUDA backend of convpc: hand-written fused kernels, compiled to PTX beforehand and loaded by the driver at run time.
//!
//! Nothing of CUDA is needed to build this crate, and nothing but NVIDIA's driver (535 or newer) to run it, on GPUs from
//! compute capability 8.0 (A100, RTX 30) on. Without them [`CudaBackend::new`] says what is missing.
//!
//! What is launched for a batch is first described as plain data that can be printed and compared without a device, a
//! [`Plan`] for the way up and [`Descents`] for the way down, and then executed: fused launches, replayed as CUDA graphs.
//! Statistics and parameters stay on the device until they are asked for, and so does what update rules remember of their steps
//! ([`Memory::Device`](convpc_core::Memory::Device)).
//!
//! # Precision
//!
//! In [`Precision::F32`](convpc_core::Precision::F32) a log-likelihood is within `1e-5 · |ll| + 1e-4` nats of the float64
//! reference. Where a single float is short of digits or of range the kernels take two, or logarithms, or float64: means far
//! from zero against small standard deviations, sum weights down to 5e-324, variances of data that are far from the leaves.
//! These cases return an error:
//!
//! - A value more than about 1e19 standard deviations from the leaves: [`Error::TooFar`](convpc_core::Error::TooFar) names the
//!   row. If the row was to be counted, the statistics are empty afterwards.
//! - Binomial leaves of more than 262144 trials: [`CudaError::TooManyTrials`].
//!
//! The log-densities of a row's variables are added as floats. Where large ones of both signs cancel, which takes standard
//! deviations far below 1, the error is relative to the sum of their sizes, not to what is left of it. If one step makes a
//! standard deviation less than about 1e-6 of the old one, the new one is not accurate; the next step corrects it.
//!
//! Discretized logistic leaves are looked up and counted as categorical ones are; their values are drawn from a table of
//! probabilities in float64, which takes as much memory as a categorical leaf's parameters.

mod ascend;
mod backend;
mod choices;
mod compiled;
mod driver;
mod error;
mod executable;
mod host;
mod learn;
mod memory;
mod model;
#[rustfmt::skip]
mod params;
mod plan;
mod session;
mod statistics;
mod tensors;
mod top_down;
mod tree;
mod update;

pub use backend::CudaBackend;
pub use choices::{Branches, Choices};
pub use error::CudaError;
pub use plan::{Descent, Descents, Flow, Kernel, Launch, LeafCounts, Level, Limits, Plan, Purpose, Tile};
pub use tree::Input;

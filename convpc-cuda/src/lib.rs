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
//! Log-densities of Normal leaves may be large, of both signs, and cancel, which takes standard deviations far below 1. The node of each
//! sum therefore has a float64 offset: at the leaves it is the log-density of the row's most probable channel, computed in float64, and
//! above them the offsets are added. Floats hold only how far the other channels are below. Where all channels are so far from a row that
//! a float would not tell them apart, they are all computed in float64. Other families have no such log-densities: they only have the
//! float64 offsets.
//!
//! Two errors can still add up where a row's log-likelihood is near zero although its parts are not. A weight below 1.2e-38 is kept
//! with a relative error of 4.4e-5, and each sum that goes through one is off by as many nats. A sum that gives no weight at all to the
//! input that explains a row best is off by 6e-8 of the distance between this input and the best one that has weight.
//!
//! If one step makes a standard deviation less than about 1e-6 of the old one, the new one is not accurate; the next step corrects it.
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

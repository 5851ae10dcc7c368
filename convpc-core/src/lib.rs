//! The core of convpc: what a convolutional probabilistic circuit is and what can be asked of it.
//!
//! A [`Circuit`] is a validated chain of [`Layer`]s with parameters; [`ConvPc`] builds the usual one for an image size. A
//! [`Backend`] turns it into an [`Executable`] that computes likelihoods, samples, completions and EM steps. The
//! [`Reference`] backend does so in textbook loops; the fast ones live in crates of their own.
//!
//! # Limits
//!
//! Numbers beyond these limits are refused with an error that names them. Within them the CPU agrees with the reference:
//! log-likelihoods differ by at most `1e-5 · |ll| + 1e-4` nats where it computes in f32. What holds on a GPU, the crate
//! `convpc-cuda` says.
//!
//! | | limit |
//! |---|---|
//! | continuous values, means of Normal leaves | from −1e38 to 1e38 ([`Normal::LARGEST`]) |
//! | standard deviations of Normal leaves | from 1e-30 ([`Normal::SMALLEST_STD`]) to 1e38 |
//! | values of a discrete variable | at most 2^24, as far as f32 counts; a binomial has at most 2^24 − 1 trials |
//! | weights of sums | 0, or any positive float64 number; learning leaves none below 1e-30 ([`SMALLEST_WEIGHT`]) that was positive |
//! | variables, features of all layers together, layers | at most 2^26, 2^26, 1024 |
//! | rows of a count | at most 2^53, as far as float64 counts; any number of batches may be accumulated before a step |
//!
//! A backend that computes in f32 may refuse a row whose values are more than about 1e19 standard deviations from the leaves:
//! [`Error::TooFar`] names the row. The reference refuses none.
#![forbid(unsafe_code)]

mod backend;
mod circuit;
pub mod classes;
mod conv_pc;
mod descent;
mod error;
mod evaluation;
pub mod evidence;
mod family;
mod grow;
mod initialize;
mod layer;
mod learn;
mod marginalize;
mod mixture;
mod normalize;
mod parameters;
mod precision;
mod prune;
mod reference;
mod replicas;
pub mod rng;
mod scope;
mod shape;
mod statistics;
mod structure;
mod top_down;

pub use backend::{Accumulated, Backend, Executable, check_inverse_temperature, update_on_host};
pub use circuit::Circuit;
pub use conv_pc::{ConvPc, Split};
pub use descent::{Choice, Descending, Inputs, descend};
pub use error::{Error, Result};
pub use evaluation::{Evaluation, Mpe, Semiring};
pub use family::{
    Bernoulli, Binomial, Categorical, DiscretizedLogistic, ExponentialFamily, Family, Form, LeafStep, Normal,
};
pub use initialize::{Initialization, LeafInitialization, fit_leaves};
pub use layer::{Column, Edge, Edges, Layer, Leaf, ProdConv, RepetitionMixing, Sum, SumConv, WeightMatrices};
pub use learn::{
    Adam, Blend, Curve, DeviceMemory, Memory, MiniBatchEm, Named, OptimizerState, Resident, Rule, Schedule, em, train,
};
pub use normalize::{SMALLEST_WEIGHT, kept_possible};
pub use parameters::Parameters;
pub use precision::Precision;
pub use reference::Reference;
pub use replicas::Replicas;
pub use scope::Scope;
pub use shape::{Padding, Paddings, Shape};
pub use statistics::Statistics;
pub use structure::{Structure, StructureBuilder};
pub use top_down::top_down;

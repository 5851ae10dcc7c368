//! Convolutional probabilistic circuits for images: exact likelihoods, marginals, conditionals, samples and completions
//! from one model.
//!
//! ```
//! use convpc::{Backend, ConvPc, Cpu, Family, em};
//! let circuit = ConvPc::new(8, 8, 1, Family::bernoulli()).channels(8).depth(3).build(1)?;
//! let mut model = Cpu::new(None)?.load(&circuit)?;
//! let mut images = model.sample(0..100, 7)?; // rows × variables
//! let go_on = &mut |_| std::ops::ControlFlow::Continue(());
//! em::fit(&mut *model, images.view(), 5, 64, &em::Options::default(), go_on)?;
//! println!("{} nats", model.log_likelihood(images.view())?.mean().unwrap());
//! images.fill(f32::NAN); // missing
//! let dreamt = model.sample_conditional(images.view(), 3, 0)?;
//! # assert_eq!(dreamt.dim(), (100, 64));
//! # Ok::<(), convpc::Error>(())
//! ```
#![forbid(unsafe_code)]

pub mod atomic;
pub mod bench;
pub mod checkpoint;
mod choice;
pub mod data;
pub mod lock;
mod memory;
pub mod metrics;
pub mod model;
pub mod picture;
pub mod spflow;
mod unfinished;

pub use choice::BackendChoice;
pub use convpc_core::*;
#[cfg(feature = "cpu")]
pub use convpc_cpu::{Ceilings, Cpu};
#[cfg(feature = "cuda")]
pub use convpc_cuda::{CudaBackend, CudaError, Limits};

#[cfg(all(doctest, feature = "cpu"))]
#[doc = include_str!("../../README.md")]
struct Readme;

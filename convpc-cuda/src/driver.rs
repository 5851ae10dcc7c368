//! The only place that talks to the driver, behind functions that are safe to call.
#![allow(unsafe_code, reason = "the driver's C interface; the rest of the crate stays safe")]

mod device;
mod graph;
mod memory;
mod queue;

pub(crate) use device::Device;
pub(crate) use graph::Graph;
pub(crate) use memory::{Buffer, Need, Pinned};
pub(crate) use queue::{Mark, Queue};

//! The test double of the driver: the functions that a CUDA program calls in libcuda.
//!
//! Operations are carried out before the call returns, in the order of the calls, which is an order that a device may
//! choose as well; [`order`] tells whether the program has relied on it.
//!
//! Parameters are of types that only C callers make ([`call::Out`] and others), so that what is done with a caller's
//! pointers stands in one place. A handle is a number and never followed; one that is unknown is an error as it is in
//! the driver.

#![allow(unsafe_code, reason = "a C interface: exported names, pointers from callers")]
#![allow(non_snake_case, reason = "the names are the driver's")]

mod call;
mod codes;
pub(crate) mod control;
mod device;
mod graphs;
mod launches;
mod memory;
mod modules;
mod order;
mod settings;
mod state;
mod streams;
mod work;

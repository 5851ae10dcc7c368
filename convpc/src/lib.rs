//! convpc

pub mod atomic;
pub mod data;
pub mod picture;

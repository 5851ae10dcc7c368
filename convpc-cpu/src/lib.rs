//! convpc-cpu

pub mod simd;

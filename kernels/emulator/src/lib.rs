#![doc = include_str!("../README.md")]

pub mod launch;
pub mod machine;
pub mod ptx;
pub mod stats;

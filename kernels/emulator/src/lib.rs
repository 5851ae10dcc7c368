#![doc = include_str!("../README.md")]

mod device;
mod driver;
pub mod launch;
pub mod machine;
pub mod ptx;
pub mod stats;

pub use device::{Device, Exclusive, InstallError, MemoryUse, Shared, install, library};
pub use machine::settings::{Order, Settings};
pub use stats::KernelStats;

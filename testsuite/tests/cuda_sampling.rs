//! Sampling and completion by the CUDA backend on the software device, which executes the committed PTX and checks every
//! access.
//!
//! The tests share one device: each takes it for itself while it runs, because some change its settings.
#![cfg(target_os = "linux")]

use convpc::{Backend, Circuit, ConvPc, Cpu, CudaBackend, Executable, Family, Mpe, Precision, Reference};
use emulator::{Exclusive, Order, Settings};
use ndarray::{Array2, Axis};
use statrs::distribution::{ChiSquared, ContinuousCDF};
use testsuite::{
    Subject,
    circuits,
    downward::{self, ROWS, different, evidence},
};

fn device() -> Exclusive {
    emulator::install().expect("the software device").exclusive()
}

fn subject() -> Subject {
    Subject::single(CudaBackend::new(0).expect("the software device"), Precision::F32)
}

#[test]
fn the_same_samples_as_on_the_cpu() {
    let _device = device();
    let cpu = Cpu::new(Some(2)).unwrap();
    for circuit in downward::families().iter().chain(&circuits::all()) {
        downward::like(&subject(), &cpu, circuit);
    }
}

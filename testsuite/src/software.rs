//! CUDA on the software device, which executes the committed PTX and checks every access.

use convpc::{CudaBackend, Precision};
use emulator::Exclusive;

use crate::Subject;

/// The software device for a test alone, which may change its settings and counts what kernels do.
///
/// # Panics
/// Where the operating system does not let it take the driver's place.
pub fn device() -> Exclusive {
    emulator::install().expect("the software device").exclusive()
}

/// The CUDA backend on it.
///
/// # Panics
/// As [`device`].
pub fn subject(precision: Precision) -> Subject {
    emulator::install().expect("the software device");
    Subject::single(CudaBackend::new(0).expect("the software device").with_precision(precision), precision)
}

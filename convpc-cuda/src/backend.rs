use std::sync::Arc;

use convpc_core::{Backend, Circuit, Executable, Precision, Result};

use crate::{driver::Device, error::CudaError, executable::CudaExecutable, plan::Limits};

/// A GPU.
///
/// ```no_run
/// use convpc_core::{Backend, ConvPc, Family, Precision};
/// use convpc_cuda::CudaBackend;
/// use ndarray::Array2;
/// let circuit = ConvPc::new(28, 28, 1, Family::categorical(256)).channels(64).build(1)?;
/// let gpu = CudaBackend::new(0)?.with_precision(Precision::Bf16);
/// let model = gpu.load(&circuit)?;
/// println!("{} nats", model.log_likelihood(Array2::zeros((1000, 784)).view())?.mean().unwrap());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct CudaBackend {
    device: Arc<Device>,
    precision: Precision,
    limits: Limits,
}

impl CudaBackend {
    /// Opens the device with the given number, 0 the first, and loads the kernels.
    ///
    /// # Errors
    /// Where there is no driver, no such device, or either is too old: a [`CudaError`] that says which and what to do.
    pub fn new(ordinal: usize) -> Result<Self, CudaError> {
        let device = Arc::new(Device::open(ordinal)?);
        Ok(CudaBackend { limits: device.limits(), device, precision: Precision::default() })
    }

    /// The same device with another precision of the matrix products. [`Precision::F32`] takes each operand as a sum of two
    /// tf32 numbers and three products, a third of the rate of [`Precision::Tf32`]; [`Precision::Bf16`] moves half the
    /// bytes at twice that rate.
    pub fn with_precision(self, precision: Precision) -> Self {
        CudaBackend { precision, ..self }
    }

    /// The same device with plans as for a smaller one: fewer multiprocessors fuse more levels, less shared memory fuses
    /// fewer. For experiments; results are the same to the last bit. What the device does not have is not promised.
    pub fn with_limits(self, limits: Limits) -> Self {
        let shared_memory = limits.shared_memory.min(self.device.limits().shared_memory);
        CudaBackend { limits: Limits { shared_memory, ..limits }, ..self }
    }

    /// The precision of the matrix products.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

impl Backend for CudaBackend {
    fn name(&self) -> &str {
        "cuda"
    }

    fn description(&self) -> String {
        format!("{}, {}", self.device.description(), self.precision.name())
    }

    fn load(&self, circuit: &Circuit) -> Result<Box<dyn Executable>> {
        Ok(Box::new(CudaExecutable::new(self.device.clone(), circuit, self.precision, self.limits)?))
    }
}

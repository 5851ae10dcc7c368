use std::{num::NonZeroUsize, path::Path, sync::Arc};

use convpc_core::{Backend, Circuit, Executable, Precision, Result};

use crate::{driver::Device, error::CudaError, executable::CudaExecutable, host::Host, plan::Limits};

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
    /// Of the host; all cores for `None`.
    threads: Option<NonZeroUsize>,
    precision: Precision,
    limits: Limits,
}

impl CudaBackend {
    /// Opens the device with the given number, 0 the first, and loads the kernels.
    ///
    /// # Errors
    /// Where there is no driver, no such device, or either is too old: a [`CudaError`] that says which and what to do.
    pub fn new(ordinal: usize) -> Result<Self, CudaError> {
        Self::open(ordinal, None)
    }

    /// Opens a device with other kernels: each PTX file of `folder` takes the place of the built-in one of its name, such as
    /// `lse_fused.ptx`. For trying a changed kernel without building the library anew; it has to take the same parameters
    /// (`kernels/include/params.h`) and to have the same names.
    ///
    /// # Errors
    /// As [`CudaBackend::new`], and where the folder or a file cannot be read.
    pub fn with_kernels(ordinal: usize, folder: impl AsRef<Path>) -> Result<Self, CudaError> {
        Self::open(ordinal, Some(folder.as_ref()))
    }

    fn open(ordinal: usize, kernels: Option<&Path>) -> Result<Self, CudaError> {
        let device = Arc::new(Device::open(ordinal, kernels)?);
        Ok(CudaBackend { limits: device.limits(), device, threads: None, precision: Precision::default() })
    }

    /// The same device with another precision of the matrix products. [`Precision::F32`] takes each operand as a sum of two
    /// tf32 numbers and three products, a third of the rate of [`Precision::Tf32`]; [`Precision::Bf16`] moves half the
    /// bytes at twice that rate.
    pub fn with_precision(self, precision: Precision) -> Self {
        CudaBackend { precision, ..self }
    }

    /// The same device with so many threads of the host to check and to copy data; as many as there are cores otherwise.
    pub fn with_threads(self, threads: NonZeroUsize) -> Self {
        CudaBackend { threads: Some(threads), ..self }
    }

    /// The same device with plans as for a smaller one: fewer multiprocessors fuse more levels, less shared memory fuses
    /// fewer. For experiments; results are the same to the last bit. What the device does not have is not promised.
    pub fn with_limits(self, limits: Limits) -> Self {
        let shared_memory = limits.shared_memory.min(self.device.limits().shared_memory);
        CudaBackend { limits: Limits { shared_memory, ..limits }, ..self }
    }

    /// What plans are made for.
    pub fn limits(&self) -> Limits {
        self.limits
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
        Ok(Box::new(CudaExecutable::new(
            self.device.clone(),
            Host::new(self.threads)?,
            circuit,
            self.precision,
            self.limits,
        )?))
    }
}

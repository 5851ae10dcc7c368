use std::sync::Arc;

use convpc_core::{Backend, Circuit, Executable, Result};

use crate::{driver::Device, error::CudaError, executable::CudaExecutable, params};

/// What the tensor cores multiply. Everything else is f32 in every precision: maxima, exponentials, logarithms, sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Each operand as a sum of two tf32 numbers, three products: as exact as f32 arithmetic, a third of the rate of
    /// [`Tf32`](Self::Tf32). Meets the contract for f32: a log-likelihood differs from float64 by at most
    /// 1e-5 · |log-likelihood| + 1e-4.
    #[default]
    F32,
    /// Operands rounded to 11 bits: a sum layer adds an error of at most 2^-10 nats.
    Tf32,
    /// Operands rounded to 8 bits, half the bytes, twice the rate of [`Tf32`](Self::Tf32): a sum layer adds an error of at
    /// most 2^-7 nats.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

    /// Its name in commands and kernels: `f32`, `tf32`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }

    /// The largest error of one sum's output, in nats, beside f32 arithmetic: both operands of a product of positive numbers
    /// are off by half a unit of their last place at most, and so is their sum, relatively.
    pub fn error_per_sum(self) -> f64 {
        match self {
            Precision::F32 => 0.0,
            Precision::Tf32 => (-10f64).exp2(),
            Precision::Bf16 => (-7f64).exp2(),
        }
    }

    /// Words of a packed weight fragment: 16 outputs, one step of inputs.
    pub(crate) fn fragment_words(self) -> usize {
        let parts = if self == Precision::F32 { 2 } else { 1 };
        parts * 32 * 4
    }

    /// Inputs of a step.
    pub(crate) fn step_inputs(self) -> usize {
        params::CONVPC_STEP_ROWS as usize * if self == Precision::Bf16 { 2 } else { 1 }
    }
}

/// A GPU.
///
/// ```no_run
/// use convpc_core::{Backend, ConvPc, Family};
/// use convpc_cuda::{CudaBackend, Precision};
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
}

impl CudaBackend {
    /// Opens the device with the given number, 0 the first, and loads the kernels.
    ///
    /// # Errors
    /// Where there is no driver, no such device, or either is too old: a [`CudaError`] that says which and what to do.
    pub fn new(ordinal: usize) -> Result<Self, CudaError> {
        Ok(CudaBackend { device: Arc::new(Device::open(ordinal)?), precision: Precision::default() })
    }

    /// The same device with another precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        CudaBackend { precision, ..self }
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
        Ok(Box::new(CudaExecutable::new(self.device.clone(), circuit, self.precision)?))
    }
}

use std::{fmt, str::FromStr};

use convpc_core::{Backend, Error, Precision, Reference, Result};

/// A backend by name: `reference`, `cpu`, `cuda` or `cuda:N` for GPU number N.
///
/// ```
/// use convpc::{BackendChoice, Precision};
/// let choice: BackendChoice = "reference".parse()?;
/// let backend = choice.open(None, Precision::F32)?;
/// assert_eq!(backend.name(), "reference");
/// # Ok::<(), convpc::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// Textbook loops in float64.
    Reference,
    /// SIMD and threads; needs the feature `cpu`.
    Cpu,
    /// An NVIDIA GPU; needs the feature `cuda`.
    Cuda {
        /// Which one, 0 the first.
        ordinal: usize,
    },
}

impl BackendChoice {
    /// Opens the backend. `threads` are those of the CPU backend, all cores if not given; `precision` is that of a GPU's
    /// matrix products.
    ///
    /// # Errors
    /// Where the backend was left out of this build, lacks its device, or does not have the precision.
    pub fn open(self, threads: Option<usize>, precision: Precision) -> Result<Box<dyn Backend>> {
        let _ = threads; // not read in a build without the CPU backend
        match self {
            BackendChoice::Cuda { ordinal } => open_cuda(ordinal, precision),
            _ if precision != Precision::F32 => Err(Error::Backend {
                backend: self.to_string(),
                problem: format!(
                    "it does not compute in {precision}; leave the precision out, or choose the backend cuda"
                ),
            }),
            BackendChoice::Reference => Ok(Box::new(Reference)),
            #[cfg(feature = "cpu")]
            BackendChoice::Cpu => Ok(Box::new(crate::Cpu::new(threads)?)),
            #[cfg(not(feature = "cpu"))]
            BackendChoice::Cpu => Err(left_out("cpu")),
        }
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(ordinal: usize, precision: Precision) -> Result<Box<dyn Backend>> {
    Ok(Box::new(crate::CudaBackend::new(ordinal)?.with_precision(precision)))
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_ordinal: usize, _precision: Precision) -> Result<Box<dyn Backend>> {
    Err(left_out("cuda"))
}

#[cfg(not(all(feature = "cpu", feature = "cuda")))]
fn left_out(feature: &str) -> Error {
    let problem =
        format!("this build was made without it; build with `--features {feature}`, or choose another backend");
    Error::Backend { backend: feature.to_string(), problem }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendChoice::Reference => f.write_str("reference"),
            BackendChoice::Cpu => f.write_str("cpu"),
            BackendChoice::Cuda { ordinal: 0 } => f.write_str("cuda"),
            BackendChoice::Cuda { ordinal } => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for BackendChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let ordinal = |rest: &str| match rest.strip_prefix(':') {
            Some(number) => number.parse().ok(),
            None => rest.is_empty().then_some(0),
        };
        match name {
            "reference" => Ok(BackendChoice::Reference),
            "cpu" => Ok(BackendChoice::Cpu),
            _ => name.strip_prefix("cuda").and_then(ordinal).map(|ordinal| BackendChoice::Cuda { ordinal }).ok_or_else(
                || Error::Argument {
                    what: "backend",
                    given: name.to_string(),
                    expected: "cpu, reference, cuda, or cuda:N for GPU number N".into(),
                },
            ),
        }
    }
}

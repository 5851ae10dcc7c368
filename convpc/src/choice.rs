#[cfg(feature = "cuda")]
use std::num::NonZeroUsize;
use std::{fmt, str::FromStr};

use convpc_core::{Backend, Error, Precision, Reference, Result};

/// A backend by name: `reference`, `cpu`, `cuda`, `cuda:N` for GPU number N, or `cuda:N,M` for several, which share the rows.
///
/// ```
/// use convpc::{BackendChoice, Precision};
/// let choice: BackendChoice = "reference".parse()?;
/// let backend = choice.open(None, Precision::F32)?;
/// assert_eq!(backend.name(), "reference");
/// # Ok::<(), convpc::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendChoice {
    /// Textbook loops in float64.
    Reference,
    /// SIMD and threads; needs the feature `cpu`.
    Cpu,
    /// NVIDIA GPUs; needs the feature `cuda`.
    Cuda {
        /// Which ones, 0 the first; at least one.
        devices: Vec<usize>,
    },
}

impl BackendChoice {
    /// Opens the backend. `threads` are those of the CPU backend, and of the host where it hands data to a GPU, all
    /// cores if not given; `precision` is that of matrix products: a GPU's, or where the CPU scores.
    ///
    /// # Errors
    /// Where the backend was left out of this build, lacks its device, or does not have the precision.
    pub fn open(&self, threads: Option<usize>, precision: Precision) -> Result<Box<dyn Backend>> {
        match self {
            BackendChoice::Cuda { devices } => open_cuda(devices, threads, precision),
            #[cfg(feature = "cpu")]
            BackendChoice::Cpu => Ok(Box::new(crate::Cpu::new(threads)?.with_precision(precision)?)),
            BackendChoice::Reference if precision != Precision::F32 => Err(Error::Backend {
                backend: self.to_string(),
                problem: format!("it computes in float64, not in {precision}; leave the precision out"),
            }),
            BackendChoice::Reference => Ok(Box::new(Reference)),
            #[cfg(not(feature = "cpu"))]
            BackendChoice::Cpu => Err(left_out("cpu")),
        }
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(devices: &[usize], threads: Option<usize>, precision: Precision) -> Result<Box<dyn Backend>> {
    let open = |&ordinal: &usize| -> Result<Box<dyn Backend>> {
        let gpu = crate::CudaBackend::new(ordinal)?.with_precision(precision);
        match threads.map(NonZeroUsize::new) {
            None => Ok(Box::new(gpu)),
            Some(Some(threads)) => Ok(Box::new(gpu.with_threads(threads))),
            Some(None) => Err(Error::Zero { what: "the number of threads" }),
        }
    };
    match devices {
        [one] => open(one),
        several => Ok(Box::new(convpc_core::Replicas::new(several.iter().map(open).collect::<Result<_>>()?)?)),
    }
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_devices: &[usize], _threads: Option<usize>, _precision: Precision) -> Result<Box<dyn Backend>> {
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
            BackendChoice::Cuda { devices } if devices[..] == [0] => f.write_str("cuda"),
            BackendChoice::Cuda { devices } => {
                f.write_str("cuda:")?;
                devices.iter().enumerate().try_for_each(|(at, n)| write!(f, "{}{n}", if at > 0 { "," } else { "" }))
            }
        }
    }
}

impl FromStr for BackendChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let devices = |rest: &str| match rest.strip_prefix(':') {
            Some(numbers) => numbers.split(',').map(|number| number.parse().ok()).collect(),
            None => rest.is_empty().then(|| vec![0]),
        };
        let unknown = || Error::Argument {
            what: "backend",
            given: name.to_string(),
            expected: "cpu, reference, cuda, cuda:N for GPU number N, or cuda:N,M for several".into(),
        };
        match name {
            "reference" => Ok(BackendChoice::Reference),
            "cpu" => Ok(BackendChoice::Cpu),
            _ => {
                let devices = name.strip_prefix("cuda").and_then(devices).ok_or_else(unknown)?;
                Ok(BackendChoice::Cuda { devices })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["cpu", "reference", "cuda", "cuda:3", "cuda:0,2,1"] {
            assert_eq!(name.parse::<BackendChoice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda:0".parse::<BackendChoice>().unwrap().to_string(), "cuda");
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:0,", "cuda,1", "cuda:-1", "cuda1"] {
            assert!(name.parse::<BackendChoice>().is_err(), "{name}");
        }
    }
}

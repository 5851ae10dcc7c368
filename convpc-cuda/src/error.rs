use std::path::PathBuf;

/// What can go wrong with a CUDA device, each with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no CUDA driver library on this machine.
    #[error(
        "no NVIDIA driver: the library libcuda could not be loaded; install NVIDIA's driver (535 or newer), or choose the \
         backend cpu"
    )]
    NoDriver,
    /// The driver is there, a GPU is not.
    #[error(
        "no NVIDIA GPU: the driver reports {count} usable device(s), number {ordinal} was asked for; choose one from 0 on, \
         see that nvidia-smi lists it, or choose the backend cpu"
    )]
    NoDevice {
        /// The device asked for.
        ordinal: usize,
        /// Devices that there are.
        count: usize,
    },
    /// The driver cannot load this library's kernels.
    #[error(
        "the NVIDIA driver is too old: it supports CUDA {found}, these kernels need CUDA {needed}; install driver 535 or \
         newer, or choose the backend cpu"
    )]
    DriverTooOld {
        /// The driver's CUDA version.
        found: String,
        /// The version needed.
        needed: String,
    },
    /// The GPU lacks instructions that the kernels use.
    #[error(
        "{name} has compute capability {found}; these kernels need 8.0 (A100, RTX 30) or newer: choose another device with \
         cuda:N, or the backend cpu"
    )]
    UnsupportedDevice {
        /// The device's name.
        name: String,
        /// Its compute capability.
        found: String,
    },
    /// Not enough memory on the device.
    #[error(
        "out of device memory: {needed} bytes are needed for {what}, {free} are free; {advice}, free memory on the device, \
         or choose the backend cpu"
    )]
    OutOfMemory {
        /// What the memory is for.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// What would fit.
        advice: String,
    },
    /// The driver refuses a kernel file.
    #[error(
        "the driver refuses the kernels of {module} ({code}); they are built for drivers of CUDA 12.2 or newer: update the \
         driver, and report it if that does not help"
    )]
    Kernels {
        /// The file.
        module: &'static str,
        /// The driver's error code.
        code: String,
    },
    /// A file of kernels that was to take the place of a built-in one could not be read.
    #[error("{} could not be read: {problem}", path.display())]
    KernelFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// The threads that hand data over could not be started.
    #[error("the thread pool could not be started ({problem}); ask for fewer threads")]
    Threads {
        /// What the system says.
        problem: String,
    },
    /// A call to the driver failed.
    #[error("the CUDA driver failed to {what}: {code}")]
    Driver {
        /// What was attempted.
        what: &'static str,
        /// The driver's error code.
        code: String,
    },
    /// A leaf family that the kernels do not know.
    #[error("{family} leaves are not supported on cuda yet; choose the backend cpu")]
    UnsupportedFamily {
        /// The family.
        family: &'static str,
    },
    /// A row of a circuit with Normal leaves whose log-likelihood f32 cannot hold: it comes out infinite.
    #[error("{}", convpc_core::Error::TooFar { row: *row })]
    TooFar {
        /// The row's number in the batch given.
        row: usize,
    },
    /// Binomial leaves of more trials than f32 has digits for.
    #[error(
        "binomial leaves of {trials} trials are not supported on cuda, which is exact to {most} trials at most: use fewer \
         levels, or choose the backend cpu"
    )]
    TooManyTrials {
        /// The trials of a leaf.
        trials: usize,
        /// The most that are supported.
        most: usize,
    },
    /// A circuit whose numbers do not fit the kernels' 32-bit indices.
    #[error("{what} does not fit the kernels' 32-bit indices; choose fewer channels or a smaller image")]
    TooLarge {
        /// What is too large.
        what: &'static str,
    },
}

impl From<CudaError> for convpc_core::Error {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::TooFar { row } => convpc_core::Error::TooFar { row },
            error => convpc_core::Error::Backend { backend: "cuda".into(), problem: error.to_string() },
        }
    }
}

use std::{borrow::Cow, collections::HashMap, io::ErrorKind, path::Path, sync::Arc};

use cudarc::{
    driver::{CudaContext, CudaFunction, DriverError, result, sys},
    nvrtc::Ptx,
};

use crate::{error::CudaError, plan::Limits};

/// The kernels, compiled beforehand. Each file is a module of the driver.
const MODULES: [(&str, &str); 10] = [
    ("choose", include_str!("../../ptx/choose.ptx")),
    ("counts", include_str!("../../ptx/counts.ptx")),
    ("flow", include_str!("../../ptx/flow.ptx")),
    ("leaf_statistics", include_str!("../../ptx/leaf_statistics.ptx")),
    ("logistic", include_str!("../../ptx/logistic.ptx")),
    ("lse_fused", include_str!("../../ptx/lse_fused.ptx")),
    ("mix", include_str!("../../ptx/mix.ptx")),
    ("prepare", include_str!("../../ptx/prepare.ptx")),
    ("rows", include_str!("../../ptx/rows.ptx")),
    ("update", include_str!("../../ptx/update.ptx")),
];

/// The files whose kernels are told at the launch how much shared memory they get.
const DYNAMIC_SHARED_MEMORY: [&str; 3] = ["flow", "leaf_statistics", "lse_fused"];

/// The CUDA version whose drivers load them (PTX ISA 8.2), as the driver counts versions.
const CUDA_VERSION: i32 = 12020;

/// An open GPU with the kernels loaded.
pub(crate) struct Device {
    context: Arc<CudaContext>,
    functions: HashMap<String, CudaFunction>,
    name: String,
    capability: (i32, i32),
    limits: Limits,
    total_memory: usize,
}

/// An error of a driver call with what was attempted.
pub(super) fn failed(what: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Driver { what, code: code(error) }
}

/// The name of an error code; looking it up needs the driver, which has just answered.
pub(super) fn code(error: DriverError) -> String {
    error.error_name().map_or_else(|_| format!("{:?}", error.0), |name| name.to_string_lossy().into_owned())
}

fn version(cuda: i32) -> String {
    format!("{}.{}", cuda / 1000, cuda % 1000 / 10)
}

impl Device {
    /// Opens a device with the kernels that are built in, or those of a folder in the place of the ones of their names.
    pub(crate) fn open(ordinal: usize, folder: Option<&Path>) -> Result<Self, CudaError> {
        // SAFETY: only looks for the library; everything else in cudarc panics where there is none.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let no_device = |count| CudaError::NoDevice { ordinal, count };
        result::init().map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => no_device(0),
            // What toolkits install in the place of a driver.
            sys::CUresult::CUDA_ERROR_STUB_LIBRARY => CudaError::NoDriver,
            _ => failed("initialise")(error),
        })?;
        let mut found = 0;
        // SAFETY: the driver writes one integer.
        unsafe { sys::cuDriverGetVersion(&mut found) }.result().map_err(failed("tell its version"))?;
        if found < CUDA_VERSION {
            return Err(CudaError::DriverTooOld { found: version(found), needed: version(CUDA_VERSION) });
        }
        let count = CudaContext::device_count().map_err(failed("count devices"))?.max(0) as usize;
        if ordinal >= count {
            return Err(no_device(count));
        }
        let context = CudaContext::new(ordinal).map_err(failed("open the device"))?;
        let name = context.name().map_err(failed("name the device"))?;
        let capability = context.compute_capability().map_err(failed("describe the device"))?;
        if capability < (8, 0) {
            let found = format!("{}.{}", capability.0, capability.1);
            return Err(CudaError::UnsupportedDevice { name, found });
        }
        // SAFETY: nothing is allocated yet. Streams are ordered by the events that this crate records.
        unsafe { context.disable_event_tracking() };
        let attribute = |which| context.attribute(which).map_err(failed("describe the device"));
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED,
            CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
        };
        let limits = Limits {
            multiprocessors: attribute(MULTIPROCESSORS)?.max(1) as usize,
            shared_memory: attribute(SHARED)?.max(0) as usize,
        };
        let functions = load(&context, folder, limits.shared_memory)?;
        Ok(Device {
            total_memory: context.total_mem().map_err(failed("describe the device"))?,
            context,
            functions,
            name,
            capability,
            limits,
        })
    }

    pub(crate) fn description(&self) -> String {
        let ((major, minor), gib) = (self.capability, self.total_memory as f64 / f64::from(1 << 30));
        format!(
            "{} (compute capability {major}.{minor}, {} multiprocessors, {gib:.0} GiB)",
            self.name, self.limits.multiprocessors
        )
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Bytes of memory that are free now.
    pub(crate) fn free_memory(&self) -> Result<u64, CudaError> {
        self.context.bind_to_thread().map_err(failed("bind the device to the thread"))?;
        Ok(self.context.mem_get_info().map_err(failed("tell its free memory"))?.0 as u64)
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    pub(super) fn function(&self, kernel: &str) -> &CudaFunction {
        &self.functions[kernel]
    }
}

fn load(
    context: &Arc<CudaContext>,
    folder: Option<&Path>,
    shared_memory: usize,
) -> Result<HashMap<String, CudaFunction>, CudaError> {
    let mut functions = HashMap::new();
    for (module, built_in) in MODULES {
        let refused = |error| CudaError::Kernels { module, code: code(error) };
        let text = folder.map_or(Ok(built_in.into()), |folder| given(folder, module, built_in))?;
        let loaded = context.load_module(Ptx::from_src(&*text)).map_err(refused)?;
        for entry in entries(built_in) {
            let function = loaded.load_function(entry).map_err(refused)?;
            if DYNAMIC_SHARED_MEMORY.contains(&module) {
                use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as DYNAMIC;
                function.set_attribute(DYNAMIC, shared_memory as i32).map_err(refused)?;
            }
            functions.insert(entry.to_string(), function);
        }
    }
    Ok(functions)
}

/// The kernels of a module.
fn entries(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.lines().filter_map(|line| line.strip_prefix(".visible .entry ")).map(|line| line.trim_end_matches('('))
}

/// The folder's text of a module, the built-in one where it has none.
fn given<'a>(folder: &Path, module: &'static str, built_in: &'a str) -> Result<Cow<'a, str>, CudaError> {
    let path = folder.join(format!("{module}.ptx"));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.into()),
        Err(error) if error.kind() == ErrorKind::NotFound && folder.is_dir() => Ok(built_in.into()),
        Err(error) => Err(CudaError::KernelFile { path, problem: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_takes_the_place_of_what_is_built_in() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(given(folder.path(), "rows", "built in"), Ok("built in".into()));
        std::fs::write(folder.path().join("rows.ptx"), "changed").unwrap();
        assert_eq!(given(folder.path(), "rows", "built in"), Ok("changed".into()));
        assert_eq!(given(folder.path(), "mix", "built in"), Ok("built in".into()));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = given(&missing, "rows", "built in").unwrap_err();
        assert!(matches!(&error, CudaError::KernelFile { path, .. } if *path == missing.join("rows.ptx")));
        assert!(error.to_string().contains("could not be read"), "{error}");
        // A file that is no text.
        std::fs::write(folder.path().join("rows.ptx"), [0xff, 0xfe]).unwrap();
        assert!(matches!(given(folder.path(), "rows", "built in"), Err(CudaError::KernelFile { .. })));
    }

    #[test]
    fn every_module_has_kernels() {
        for (module, text) in MODULES {
            assert!(entries(text).next().is_some(), "{module}");
        }
    }
}

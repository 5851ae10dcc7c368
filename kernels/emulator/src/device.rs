//! The device as a test sees it: where it is installed, configured and asked.

#![allow(unsafe_code, reason = "loads a shared library and calls it")]

use std::ffi::c_void;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use libloading::Library;

use crate::driver::control::{CountSink, FlatSettings, Setting, Sink, VERSION};
use crate::machine::settings::Settings;
use crate::stats::KernelStats;

/// Why the software device could not be installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// The operating system finds libraries in another way.
    #[error("the software device needs Linux")]
    Platform,
    /// The program has opened the driver of the machine already.
    #[error("{0} is loaded already: install the software device before anything uses CUDA")]
    DriverLoaded(&'static str),
    /// Cargo has put the library elsewhere.
    #[error("libemulator.so was not found; it is built with the tests of a crate that depends on `emulator`: {0}")]
    NotFound(String),
    /// The library is of another version.
    #[error("{0} does not belong to this version of the crate: build again")]
    Version(PathBuf),
}

/// What the program holds on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MemoryUse {
    /// Bytes allocated, variables of modules aside.
    pub in_use: u64,
    /// The most bytes at once since the start or the last [`Device::reset`].
    pub peak: u64,
    /// Allocations that live.
    pub allocations: u64,
    /// Allocations since the start of the process.
    pub allocated_ever: u64,
    /// Bytes of page-locked host memory.
    pub pinned: u64,
    /// Streams, events, modules and graphs that live.
    pub objects: u64,
}

/// The software device of this process.
///
/// There is one. The tests of a program run on several threads and share it: hold [`Self::exclusive`] in a test that
/// changes settings or counts anything, [`Self::shared`] in others of the same program. Either is declared before the
/// objects of the program under test, so that it is dropped after them.
#[derive(Clone, Copy, Debug)]
pub struct Device(&'static Functions);

/// The functions of the library that are not the driver's.
#[derive(Debug)]
struct Functions {
    configure: extern "C" fn(FlatSettings),
    set: extern "C" fn(u32, u64),
    fail_call: extern "C" fn(*const u8, usize, u64, i32),
    reset: extern "C" fn(),
    report: extern "C" fn(Sink, *mut c_void),
    memory: extern "C" fn() -> MemoryUse,
    counts: extern "C" fn(CountSink, *mut c_void),
    clear_counts: extern "C" fn(),
}

/// Loads the software device, once per process. From then on a program that opens `libcuda.so` gets it.
///
/// # Errors
/// Where there is no such library, or the machine's own driver is loaded already.
///
/// ```
/// let device = emulator::install()?;
/// assert_eq!(device.memory().allocations, 0);
/// # Ok::<(), emulator::InstallError>(())
/// ```
pub fn install() -> Result<Device, InstallError> {
    static FUNCTIONS: OnceLock<Result<Functions, InstallError>> = OnceLock::new();
    match FUNCTIONS.get_or_init(load) {
        Ok(functions) => Ok(Device(functions)),
        Err(error) => Err(error.clone()),
    }
}

/// The names under which CUDA programs open the driver.
#[cfg(target_os = "linux")]
const DRIVER: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

#[cfg(target_os = "linux")]
fn load() -> Result<Functions, InstallError> {
    use libloading::os::unix::{Library as Unix, RTLD_LOCAL, RTLD_NOW};
    /// Finds a library only if it is loaded.
    const RTLD_NOLOAD: i32 = 4;

    for name in DRIVER {
        // SAFETY: nothing is loaded, so nothing is run.
        if unsafe { Unix::open(Some(name), RTLD_NOW | RTLD_NOLOAD) }.is_ok() {
            return Err(InstallError::DriverLoaded(name));
        }
    }
    let mut failures = Vec::new();
    for path in candidates() {
        // SAFETY: the library is this crate; loading it runs nothing but Rust's own start.
        match unsafe { Unix::open(Some(&path), RTLD_NOW | RTLD_LOCAL) } {
            Ok(library) => return functions(&path, library.into()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    Err(InstallError::NotFound(failures.join("; ")))
}

#[cfg(not(target_os = "linux"))]
fn load() -> Result<Functions, InstallError> {
    Err(InstallError::Platform)
}

/// Where the library may lie: beside the test, where Cargo puts it, or where the linker is told to look.
/// The library in a file, which another program takes for the driver's where it finds it by the name `libcuda.so`: in a folder
/// of its `LD_LIBRARY_PATH`.
///
/// # Errors
/// Where there is no such library.
pub fn library() -> Result<PathBuf, InstallError> {
    let found = candidates().into_iter().find(|path| path.exists());
    found.ok_or_else(|| InstallError::NotFound("not beside the test program".into()))
}

fn candidates() -> Vec<PathBuf> {
    const FILE: &str = "libemulator.so";
    let program = std::env::current_exe().unwrap_or_default();
    let beside = program.parent().unwrap_or(Path::new("."));
    let folders = [beside.to_owned(), beside.join("deps"), beside.join("../deps"), beside.join("..")];
    let found = folders.into_iter().map(|folder| folder.join(FILE)).filter(|path| path.exists());
    // Cargo tells the linker about its folder when it runs documentation tests, which lie elsewhere.
    found.chain([PathBuf::from(FILE)]).collect()
}

fn functions(path: &Path, library: Library) -> Result<Functions, InstallError> {
    // The library stays for the life of the process, because the program under test keeps pointers into it.
    let library: &'static Library = Box::leak(Box::new(library));
    /// A function of the library by name.
    macro_rules! function {
        ($name:literal) => {
            // SAFETY: `driver::control` defines it with this type, of which the version is checked first.
            *unsafe { library.get(concat!("convpc_emulator_", $name).as_bytes()) }
                .map_err(|_| InstallError::Version(path.to_owned()))?
        };
    }
    let version: extern "C" fn() -> u32 = function!("version");
    if version() != VERSION {
        return Err(InstallError::Version(path.to_owned()));
    }
    Ok(Functions {
        configure: function!("configure"),
        set: function!("set"),
        fail_call: function!("fail_call"),
        reset: function!("reset"),
        report: function!("report"),
        memory: function!("memory"),
        counts: function!("counts"),
        clear_counts: function!("clear_counts"),
    })
}

impl Device {
    /// How kernels run from now on.
    pub fn configure(&self, settings: &Settings) {
        (self.0.configure)(settings.into());
    }

    /// The CUDA version of the driver, 12020 (12.2) unless set. It decides which PTX is understood.
    pub fn set_driver_version(&self, version: i32) {
        self.set(Setting::DriverVersion, version as u64);
    }

    /// What `cuInit` returns: 0, or for example 100 (no device) or 34 (a stub in the driver's place).
    pub fn set_init_error(&self, code: i32) {
        self.set(Setting::InitError, code as u64);
    }

    /// How many devices there are, 1 unless set. They share their memory.
    pub fn set_device_count(&self, count: i32) {
        self.set(Setting::DeviceCount, count as u64);
    }

    /// The compute capability, 9.0 unless set. Limits and the number of multiprocessors follow it.
    pub fn set_compute_capability(&self, major: i32, minor: i32) {
        self.set(Setting::CapabilityMajor, major as u64);
        self.set(Setting::CapabilityMinor, minor as u64);
    }

    /// The memory in bytes, 8 GiB unless set. The host needs one and a quarter of what is allocated.
    pub fn set_memory(&self, bytes: u64) {
        self.set(Setting::Memory, bytes);
    }

    fn set(&self, setting: Setting, value: u64) {
        (self.0.set)(setting as u32, value);
    }

    /// Lets the `nth` call from now (counted from 1) of a driver function such as `cuMemAllocAsync` fail, once.
    pub fn fail_call(&self, function: &str, nth: u64, code: i32) {
        (self.0.fail_call)(function.as_ptr(), function.len(), nth, code);
    }

    /// Forgets faults, reports and planned failures, and sets everything to what it is at first. Memory and objects
    /// stay, and so do the counts of kernels.
    pub fn reset(&self) {
        (self.0.reset)();
    }

    /// What went wrong last, in more words than the driver's code: the place of a kernel's fault, the line of a PTX
    /// text, the allocation that a copy exceeds.
    pub fn last_report(&self) -> Option<String> {
        extern "C" fn sink(context: *mut c_void, text: *const u8, len: usize) {
            // SAFETY: the context is that given below, which outlives the call; the library gives text of that length.
            let (out, text) =
                unsafe { (&mut *context.cast::<Option<String>>(), std::slice::from_raw_parts(text, len)) };
            *out = Some(String::from_utf8_lossy(text).into_owned());
        }
        let mut report: Option<String> = None;
        (self.0.report)(sink, (&raw mut report).cast());
        report
    }

    /// What the program holds.
    pub fn memory(&self) -> MemoryUse {
        (self.0.memory)()
    }

    /// What each kernel did since the last [`Self::clear_counts`], by name. Launches that failed are left out.
    pub fn counts(&self) -> Vec<(String, KernelStats)> {
        extern "C" fn sink(context: *mut c_void, name: *const u8, len: usize, stats: &KernelStats) {
            // SAFETY: as in `last_report`.
            let (out, name) =
                unsafe { (&mut *context.cast::<Vec<(String, KernelStats)>>(), std::slice::from_raw_parts(name, len)) };
            out.push((String::from_utf8_lossy(name).into_owned(), *stats));
        }
        let mut counts: Vec<(String, KernelStats)> = Vec::new();
        (self.0.counts)(sink, (&raw mut counts).cast());
        counts
    }

    /// Sets the counts of all kernels to zero.
    pub fn clear_counts(&self) {
        (self.0.clear_counts)();
    }

    /// Waits until no other test holds the device, and keeps them out. The device is [reset](Self::reset) now and at
    /// the end, and its counts are cleared.
    pub fn exclusive(&self) -> Exclusive {
        let lock = LOCK.write().unwrap_or_else(PoisonError::into_inner);
        self.reset();
        self.clear_counts();
        Exclusive { device: *self, _lock: lock }
    }

    /// Waits until no test holds the device exclusively, and keeps those out.
    pub fn shared(&self) -> Shared {
        Shared { device: *self, _lock: LOCK.read().unwrap_or_else(PoisonError::into_inner) }
    }
}

static LOCK: RwLock<()> = RwLock::new(());

/// The device for one test alone; see [`Device::exclusive`].
#[derive(Debug)]
pub struct Exclusive {
    device: Device,
    _lock: RwLockWriteGuard<'static, ()>,
}

impl Deref for Exclusive {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.device.reset();
    }
}

/// The device for tests that leave its settings alone; see [`Device::shared`].
#[derive(Debug)]
pub struct Shared {
    device: Device,
    _lock: RwLockReadGuard<'static, ()>,
}

impl Deref for Shared {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}

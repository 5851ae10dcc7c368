//! The memory that files may take, and files that are read whole.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    sync::OnceLock,
};

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Returns the bytes of memory that this machine has, or that its container has been given,
/// whichever is less; the largest number if the system does not say. Limits of a single process or of a nested control group do not
/// count.
pub(crate) fn of_machine() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let Ok(system) = System::new_with_specifics(memory) else { return u64::MAX };
        let granted = system.cgroup_limits().map(|limits| limits.total_memory);
        let known = [Some(system.total_memory()), granted].into_iter().flatten().filter(|bytes| *bytes > 0);
        known.min().unwrap_or(u64::MAX)
    })
}

/// Reads a regular file: not a device or a pipe, whose end may never come, and none that is larger than memory.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let refused = |problem: String| io::Error::new(io::ErrorKind::InvalidInput, problem);
    // Asked before opening, because opening a pipe waits for its writer.
    let found = fs::metadata(path)?;
    if !found.is_file() {
        let what = if found.is_dir() { "a folder" } else { "a device or a pipe" };
        return Err(refused(format!("it is {what}; give a regular file")));
    }
    if found.len() > of_machine() {
        let problem = format!("its {} bytes do not fit into the {} bytes of memory", found.len(), of_machine());
        return Err(refused(format!("{problem}; use a machine that has more")));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(found.len() as usize).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

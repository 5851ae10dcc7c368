//! The files that must not outlast this process: those that are being written, and locks.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The paths of these files.
static FILES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file in the list. Dropping this value takes the file off the list and does not remove it.
#[derive(Debug)]
pub(crate) struct Unfinished(PathBuf);

impl Unfinished {
    /// Makes a file and lists it. [`remove`] waits until both have happened.
    pub(crate) fn make<T>(make: impl FnOnce() -> io::Result<(T, PathBuf)>) -> io::Result<(T, Self)> {
        let mut files = lock();
        let (file, path) = make()?;
        files.insert(path.clone());
        Ok((file, Unfinished(path)))
    }

    /// Takes the file off the list after `finish` has given it its last name. [`remove`] waits until both have happened.
    pub(crate) fn finish<T>(&self, finish: impl FnOnce() -> T) -> T {
        let mut files = lock();
        let result = finish();
        files.remove(&self.0);
        result
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        lock().remove(&self.0);
    }
}

/// Keeps other threads from beginning or finishing a file while it lives.
#[derive(Debug)]
#[must_use = "other threads go on writing files when this is dropped"]
pub struct Ended {
    _files: MutexGuard<'static, BTreeSet<PathBuf>>,
}

/// Removes the files that this process has begun and not finished: temporary files of [`atomic`](crate::atomic) and
/// [locks](crate::lock).
///
/// It is for a process that is about to end without returning from its functions, for example after a signal. Until the
/// result is dropped, every other thread that begins or finishes such a file waits, so that no new one appears.
///
/// ```
/// use std::io::Write;
/// let folder = tempfile::tempdir()?;
/// let mut file = convpc::atomic::Writer::create(&folder.path().join("scores.txt"))?;
/// writeln!(file, "-1.5")?;
/// assert_eq!(std::fs::read_dir(folder.path())?.count(), 1);
/// drop(convpc::atomic::remove_unfinished());
/// assert_eq!(std::fs::read_dir(folder.path())?.count(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn remove_unfinished() -> Ended {
    let mut files = lock();
    for path in std::mem::take(&mut *files) {
        // Nobody is left to tell of a file that cannot be removed.
        let _ = fs::remove_file(path);
    }
    Ended { _files: files }
}

fn lock() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

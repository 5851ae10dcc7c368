//! One process at a time: locks on names of files.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process,
};

use crate::unfinished::Unfinished;

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error("{path} is in use by {owner}; wait for it to end, or name another file")]
    Held {
        /// The file that is locked.
        path: PathBuf,
        /// Who has it.
        owner: String,
    },
    /// The file beside it cannot be made.
    #[error("{path} cannot be locked: {source}; choose a folder that exists and is writable")]
    File {
        /// The file that is locked.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The right to a file while this value lives. It is a file with `.lock` behind the name, which holds the number of its process and
/// is removed at the end. One that a killed process left behind is free: the system holds the lock, not the file.
#[derive(Debug)]
pub struct Lock {
    /// Holds the lock of the system.
    _file: File,
    listed: Unfinished,
}

impl Lock {
    /// Takes the lock of a file, which need not be there.
    ///
    /// # Errors
    /// [`LockError::Held`] where another process has it, with its number.
    ///
    /// ```
    /// use convpc::lock::Lock;
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("model");
    /// let lock = Lock::acquire(&path)?;
    /// assert!(Lock::acquire(&path).unwrap_err().to_string().contains("in use by process"));
    /// drop(lock);
    /// Lock::acquire(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::File { path: path.to_path_buf(), source };
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        loop {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held { path: path.to_path_buf(), owner: owner(&mut file) });
                }
                // Some network file systems have no locks.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            if is_still_there(&file, &lock) {
                file.set_len(0).map_err(failed)?;
                writeln!(file, "process {}", process::id()).map_err(failed)?;
                let (file, listed) = Unfinished::make(|| Ok((file, lock))).map_err(failed)?;
                return Ok(Lock { _file: file, listed });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A file that cannot be removed stays behind; it holds no lock, so the next process can take it.
        let _ = self.listed.finish(|| fs::remove_file(self.listed.path()));
    }
}

/// What the owner of a lock has written into it.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(100).read_to_string(&mut text) {
        Ok(1..) => text.trim().to_owned(),
        _ => "another process".into(),
    }
}

/// Whether a name still is that of an open file: its last owner may have removed it before the lock was taken.
pub(crate) fn is_still_there(file: &File, path: &Path) -> bool {
    let open = file.try_clone().and_then(same_file::Handle::from_file);
    matches!((open, same_file::Handle::from_path(path)), (Ok(open), Ok(named)) if open == named)
}

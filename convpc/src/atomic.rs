//! Files that are either complete or not there.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// Writes a file so that a reader sees the old contents or all of the new, never a part.
///
/// `fill` receives a buffered writer to a temporary file in the folder of `path`. When it returns `Ok` the temporary
/// file is flushed, synchronised with the disk and renamed to `path`; when anything fails `path` is left as it was and
/// the temporary file is removed.
///
/// A file that is replaced hands its permissions on; a new one gets the usual ones (on Unix 0666 less the umask).
/// A symbolic link stays, and the file that it names is replaced. Devices and pipes (`/dev/stdout`) cannot be
/// replaced by a rename, so they are written directly.
///
/// # Errors
///
/// The error of `fill`; any error of the file system; `InvalidInput` if `path` names no file; `IsADirectory` if it is
/// a folder; `PermissionDenied` if the file is there and read-only.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("scores.txt");
/// convpc::atomic::write(&path, |file| writeln!(file, "-1.5"))?;
/// assert_eq!(std::fs::read_to_string(&path)?, "-1.5\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write<F>(path: &Path, fill: F) -> io::Result<()>
where
    F: FnOnce(&mut dyn Write) -> io::Result<()>,
{
    let (target, permissions) = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(is_a_folder(path)),
        Ok(found) if !found.is_file() => {
            return fill_file(&OpenOptions::new().write(true).open(path)?, fill);
        }
        Ok(found) if found.permissions().readonly() => return Err(is_read_only(path)),
        Ok(found) => (fs::canonicalize(path)?, Some(found.permissions())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_path_buf(), None),
        Err(error) => return Err(error),
    };
    let temporary = create_beside(&target)?;
    fill_file(temporary.as_file(), fill)?;
    if let Some(permissions) = permissions {
        temporary.as_file().set_permissions(permissions)?;
    }
    temporary.as_file().sync_all()?;
    temporary.persist(&target).map_err(|error| error.error)?;
    Ok(())
}

fn fill_file<F>(file: &File, fill: F) -> io::Result<()>
where
    F: FnOnce(&mut dyn Write) -> io::Result<()>,
{
    let mut writer = BufWriter::new(file);
    fill(&mut writer)?;
    writer.flush()
}

/// A temporary file in the folder of `target`: a rename is atomic only within one file system.
fn create_beside(target: &Path) -> io::Result<NamedTempFile> {
    if target.file_name().is_none() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("'{}' does not end in a file name; give one to write to", target.display()),
        ));
    }
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut builder = Builder::new();
    builder.prefix(".convpc-").suffix(".tmp");
    if let Some(permissions) = permissions_of_a_new_file() {
        builder.permissions(permissions);
    }
    builder.tempfile_in(folder)
}

/// Temporary files are private by default, which surprises in a file that stays. The system takes the umask off.
#[cfg(unix)]
fn permissions_of_a_new_file() -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    Some(Permissions::from_mode(0o666))
}

#[cfg(not(unix))]
fn permissions_of_a_new_file() -> Option<Permissions> {
    None
}

fn is_a_folder(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::IsADirectory, format!("'{}' is a folder; name a file inside it", path.display()))
}

fn is_read_only(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("'{}' is read-only; make it writable or choose another name", path.display()),
    )
}

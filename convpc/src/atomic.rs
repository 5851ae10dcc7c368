//! Files that are either complete or not there.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::{lock::is_still_there, unfinished::Unfinished};

pub use crate::unfinished::{Ended, remove_unfinished};

/// The beginnings and endings of the names of temporary files.
const TEMPORARY: (&str, &str) = (".convpc-", ".tmp");

/// More symbolic links in a row than any system follows.
const MAX_LINKS: usize = 40;

/// Writes a file so that a reader sees the old contents or all of the new, never a part.
///
/// `fill` receives a [`Writer`]. When it returns `Ok` the file is [finished](Writer::finish); when anything fails `path` is
/// left as it was.
///
/// # Errors
///
/// The error of `fill`, and those of [`Writer`].
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
    let mut writer = Writer::create(path)?;
    fill(&mut writer)?;
    writer.finish()
}

/// A file that appears under its name only when it is complete.
///
/// What is written goes through a buffer to a temporary file in the same folder. [`finish`](Self::finish) gives that file its
/// name. If the writer is dropped before, the temporary file is removed and `path` is left as it was.
///
/// A file that is replaced hands its permissions on, and nobody else can read the new contents for a moment; a new one gets
/// the usual ones (on Unix 0666 less the umask). A symbolic link stays, and the file that it names is replaced or made.
/// Devices and pipes (`/dev/stdout`) cannot be replaced by a rename, so they are written directly.
///
/// ```
/// use std::io::Write;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("scores.txt");
/// let mut file = convpc::atomic::Writer::create(&path)?;
/// writeln!(file, "-1.5")?;
/// assert!(!path.exists());
/// file.finish()?;
/// assert!(path.exists());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer(BufWriter<Destination>);

/// The destination of the bytes.
#[derive(Debug)]
enum Destination {
    Device(File),
    Temporary { file: NamedTempFile, listed: Unfinished, target: PathBuf, permissions: Option<Permissions> },
}

impl Writer {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// Any error of the file system; `InvalidInput` if `path` names no file; `IsADirectory` if it is a folder;
    /// `PermissionDenied` if the file is there and read-only.
    pub fn create(path: &Path) -> io::Result<Self> {
        let destination = match target(path)? {
            Target::Device => Destination::Device(OpenOptions::new().write(true).open(path)?),
            Target::File { path: target, permissions } => {
                let (file, listed) = create_beside(&target, permissions.clone())?;
                Destination::Temporary { file, listed, target, permissions }
            }
        };
        Ok(Writer(BufWriter::new(destination)))
    }

    /// Writes what is in the buffer, synchronises the file with the disk, renames it and synchronises the folder.
    ///
    /// # Errors
    ///
    /// Any error of the file system; the file of this name is then as it was.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()?;
        let destination = self.0.into_inner().map_err(|error| error.into_error())?;
        let Destination::Temporary { file, listed, target, permissions } = destination else { return Ok(()) };
        if let Some(permissions) = permissions {
            file.as_file().set_permissions(permissions)?;
        }
        file.as_file().sync_all()?;
        // A file that cannot be renamed is removed before another thread may think that it is finished.
        listed.finish(|| file.persist(&target).map_err(|error| error.error))?;
        sync_folder(&target);
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Write for Destination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Destination::Device(file) => file.write(bytes),
            Destination::Temporary { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Destination::Device(file) => file.flush(),
            Destination::Temporary { file, .. } => file.flush(),
        }
    }
}

/// Fails where [`Writer::create`] would fail; to be asked before long work. It makes a temporary
/// file and removes it, and those that killed processes left in the folder.
///
/// # Errors
///
/// As [`Writer::create`].
///
/// ```
/// let folder = tempfile::tempdir()?;
/// assert!(convpc::atomic::check(&folder.path().join("scores.txt")).is_ok());
/// assert!(convpc::atomic::check(folder.path()).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn check(path: &Path) -> io::Result<()> {
    let Target::File { path: target, permissions } = target(path)? else { return Ok(()) };
    create_beside(&target, permissions)?.0.close()?;
    remove_orphans(folder(&target));
    Ok(())
}

/// The file that a name stands for: symbolic links are followed, also to a file that is not there.
///
/// # Errors
///
/// Any error of the file system; links that go round in a circle.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = folder(&path).join(link),
            Err(_) => {
                let name = path.file_name().ok_or_else(|| is_no_file(&path))?;
                return Ok(fs::canonicalize(folder(&path))?.join(name));
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("'{}' is a link that leads to itself; name a file", path.display()),
    ))
}

/// The kind of file that is written.
enum Target {
    /// It is written directly.
    Device,
    /// It is replaced; the permissions are those of the file that is there.
    File { path: PathBuf, permissions: Option<Permissions> },
}

fn target(path: &Path) -> io::Result<Target> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(is_a_folder(path)),
        Ok(found) if !found.is_file() => Ok(Target::Device),
        Ok(found) if found.permissions().readonly() => Err(is_read_only(path)),
        Ok(found) => Ok(Target::File { path: fs::canonicalize(path)?, permissions: Some(found.permissions()) }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Target::File { path: resolve(path)?, permissions: None })
        }
        Err(error) => Err(error),
    }
}

/// The folder that a file lies in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// A temporary file in the folder of `target`: a rename is atomic only within one file system. Its process has a lock on it, by which
/// [`remove_orphans`] knows that it is in use.
fn create_beside(target: &Path, permissions: Option<Permissions>) -> io::Result<(NamedTempFile, Unfinished)> {
    let mut builder = Builder::new();
    builder.prefix(TEMPORARY.0).suffix(TEMPORARY.1);
    if let Some(permissions) = permissions.or_else(permissions_of_a_new_file) {
        builder.permissions(permissions);
    }
    loop {
        let (temporary, listed) = Unfinished::make(|| {
            let temporary = builder.tempfile_in(folder(target))?;
            let path = temporary.path().to_path_buf();
            Ok((temporary, path))
        })?;
        // Where there are no locks, no orphans are removed either.
        let locked = temporary.as_file().lock().is_ok();
        if !locked || is_still_there(temporary.as_file(), temporary.path()) {
            return Ok((temporary, listed));
        }
    }
}

/// Removes temporary files that no process writes any more, as far as that is possible.
fn remove_orphans(folder: &Path) {
    let is_temporary =
        |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|e| is_temporary(&e.file_name())) {
        // Asked before opening, because opening a pipe waits for its writer.
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(file) = OpenOptions::new().write(true).open(entry.path()) else { continue };
        if file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes a rename last through a loss of power. Not every file system can, and the file is whole in any case.
fn sync_folder(target: &Path) {
    if let Ok(folder) = File::open(folder(target)) {
        let _ = folder.sync_all();
    }
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

fn is_no_file(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("'{}' does not end in a file name; give one to write to", path.display()),
    )
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

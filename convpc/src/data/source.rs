//! Finds the array in a file: the format is recognised by the first bytes, compressed or not, in an archive or alone.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use super::{DataError, array::Unread, format, gzip, idx, npy, npz};

/// Enough to tell the formats apart.
const START: u64 = 12;

/// What a user names: a file, and with `FILE:NAME` an array of it.
pub(super) struct Name {
    pub(super) file: PathBuf,
    pub(super) array: Option<String>,
}

impl Name {
    /// Takes the part behind the last colon for the name of an array, unless there is a file of the whole name.
    pub(super) fn new(path: &Path) -> Self {
        let parts = path.to_str().and_then(|text| text.rsplit_once(':'));
        match parts {
            Some((file, array)) if !path.exists() && Path::new(file).is_file() => {
                Self { file: file.into(), array: Some(array.to_owned()) }
            }
            _ => Self { file: path.to_path_buf(), array: None },
        }
    }
}

/// Hands the array that `path` names to `read`. Of an archive's arrays, those of the `usual` names are taken unless another is
/// named.
pub(super) fn with_array<T>(
    path: &Path,
    usual: &[&str],
    memory: u64,
    read: impl FnOnce(Unread<'_>) -> Result<T, DataError>,
) -> Result<T, DataError> {
    let Name { file, array } = Name::new(path);
    let (mut file, length) = open(&file)?;
    let start = read_up_to(path, &mut file, START)?;
    file.rewind().map_err(|error| DataError::reading(path, error))?;
    let mut reader = BufReader::new(file);
    if start.starts_with(npz::MAGIC) {
        return npz::with_entry(path, reader, length, array.as_deref(), usual, |entry, size| {
            with_stream(path, &mut BufReader::new(entry), Some(size), memory, read)
        });
    }
    match array {
        Some(name) => Err(DataError::NoArchive { path: path.to_path_buf(), name }),
        None => with_stream(path, &mut reader, Some(length), memory, read),
    }
}

/// Reads an array of which `limit` bytes follow at most, or a compressed one, into no more than `memory` bytes. Where there is no
/// limit, memory is reserved as the bytes come.
pub(super) fn with_stream<T>(
    path: &Path,
    reader: &mut dyn BufRead,
    limit: Option<u64>,
    memory: u64,
    read: impl FnOnce(Unread<'_>) -> Result<T, DataError>,
) -> Result<T, DataError> {
    let start = read_up_to(path, reader, START)?;
    if start.is_empty() {
        return Err(DataError::EmptyFile { path: path.to_path_buf() });
    }
    if start.starts_with(gzip::MAGIC) {
        let mut reader = gzip::Gunzip::new(start.chain(reader));
        let start = read_up_to(path, &mut reader, START)?;
        let limit = limit.map(|limit| limit.saturating_mul(gzip::MAX_DEFLATE_RATIO));
        return with_plain(path, &start, &mut reader, limit, memory, read);
    }
    with_plain(path, &start, reader, limit, memory, read)
}

/// Reads an array that is not compressed, of which `start` has been read.
fn with_plain<T>(
    path: &Path,
    start: &[u8],
    reader: &mut dyn Read,
    limit: Option<u64>,
    memory: u64,
    read: impl FnOnce(Unread<'_>) -> Result<T, DataError>,
) -> Result<T, DataError> {
    let mut reader = start.chain(reader);
    let header = if start.starts_with(npy::MAGIC) {
        npy::read_header(path, &mut reader)?
    } else if idx::is_idx(start) {
        idx::read_header(path, &mut reader)?
    } else {
        return Err(format::unknown(path, start));
    };
    let limit = limit.map(|limit| limit.saturating_sub(header.length));
    read(Unread { path, header, limit, memory, reader: &mut reader })
}

pub(super) fn read_up_to(path: &Path, mut reader: &mut (impl Read + ?Sized), limit: u64) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    (&mut reader).take(limit).read_to_end(&mut bytes).map_err(|error| DataError::reading(path, error))?;
    Ok(bytes)
}

/// Opens a file that holds something; also gives its length.
pub(super) fn open(path: &Path) -> Result<(File, u64), DataError> {
    let reading = |error| DataError::reading(path, error);
    // Asked before opening, because opening a pipe waits for its writer.
    if !fs::metadata(path).map_err(reading)?.is_file() {
        return Err(DataError::NotAFile { path: path.to_path_buf() });
    }
    let file = File::open(path).map_err(reading)?;
    let length = file.metadata().map_err(reading)?.len();
    if length == 0 {
        return Err(DataError::EmptyFile { path: path.to_path_buf() });
    }
    Ok((file, length))
}

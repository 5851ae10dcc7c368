//! `.npz`: a ZIP archive of `.npy` arrays. `zip` opens it; here an entry's length is checked first, because it bounds
//! the memory that an array may ask for.

use std::io::{Read, Seek};
use std::path::Path;

use zip::read::{ArchiveOffset, Config, ZipFile};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::{DataError, gzip::MAX_DEFLATE_RATIO};

pub(super) const MAGIC: &[u8] = b"PK";

/// Hands an array's entry, and its length, to `read`: the entry that is `wanted`, else the only one, else the first of the `usual`
/// names that is there. The archive is `length` bytes long.
pub(super) fn with_entry<T, R: Read + Seek>(
    path: &Path,
    file: R,
    length: u64,
    wanted: Option<&str>,
    usual: &[&str],
    read: impl FnOnce(ZipFile<'_, R>, u64) -> Result<T, DataError>,
) -> Result<T, DataError> {
    // Nothing stands before an archive that begins like one; to search for its directory would only find a false one.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, file)
        .map_err(|error| refused(path, "its ZIP directory is missing or invalid", error))?;
    let names: Vec<_> = archive.file_names_raw().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let index = choose(path, &names, wanted, usual)?;
    let entry = open(path, &mut archive, index, &names[index], length)?;
    let size = entry.size();
    // The array is read to the end of the entry, where `zip` compares the checksum.
    read(entry, size)
}

/// The index of the array that is meant.
fn choose(path: &Path, names: &[String], wanted: Option<&str>, usual: &[&str]) -> Result<usize, DataError> {
    let path = path.to_path_buf();
    let arrays: Vec<_> = names.iter().enumerate().filter(|(_, name)| !is_clutter(name)).collect();
    let named = |known: &str| arrays.iter().find(|(_, name)| array_name(name) == known || *name == known);
    let listed = || arrays.iter().map(|(_, name)| array_name(name).to_owned()).collect();
    if let Some(name) = wanted {
        let found = named(name).map(|(index, _)| *index);
        return found.ok_or_else(|| DataError::NoSuchArray { path, name: name.to_owned(), names: listed() });
    }
    match arrays[..] {
        [] => Err(DataError::NoArray { path }),
        [(index, _)] => Ok(index),
        _ => {
            let found = usual.iter().find_map(|known| named(known)).map(|(index, _)| *index);
            let usual = || usual.iter().map(|&name| name.to_owned()).collect();
            found.ok_or_else(|| DataError::AmbiguousArray { path, names: listed(), usual: usual() })
        }
    }
}

/// Folders, and what macOS adds.
fn is_clutter(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    file.is_empty() || file.starts_with("._") || file == ".DS_Store" || name.starts_with("__MACOSX/")
}

fn array_name(name: &str) -> &str {
    name.strip_suffix(".npy").unwrap_or(name)
}

/// Opens an entry whose length is one that its bytes in the file can have.
fn open<'a, R: Read + Seek>(
    path: &Path,
    archive: &'a mut ZipArchive<R>,
    index: usize,
    name: &str,
    length: u64,
) -> Result<ZipFile<'a, R>, DataError> {
    let corrupt = |reason: &str| Err(DataError::corrupt(path, format!("its entry '{name}' {reason}")));
    let packed = |method: String| DataError::Packed { path: path.to_path_buf(), entry: name.to_owned(), method };
    let unreadable = |error| refused(path, &format!("its entry '{name}' does not begin with a ZIP header"), error);
    let entry = archive.by_index_data(index).map_err(unreadable)?;
    let (size, compressed) = (entry.size(), entry.compressed_size());
    if entry.encrypted() {
        return Err(packed("encrypted".to_owned()));
    }
    if entry.header_start().saturating_add(compressed) > length {
        return corrupt("goes on after the end of the file");
    }
    let possible = match entry.compression() {
        CompressionMethod::Stored => size == compressed,
        CompressionMethod::Deflated => size <= compressed.saturating_mul(MAX_DEFLATE_RATIO),
        other => return Err(packed(format!("compressed by {}", method_name(other)))),
    };
    if !possible {
        return corrupt("claims a length that it cannot have");
    }
    archive.by_index(index).map_err(unreadable)
}

fn method_name(method: CompressionMethod) -> String {
    let known = [
        (CompressionMethod::BZIP2, "bzip2"),
        (CompressionMethod::LZMA, "lzma"),
        (CompressionMethod::XZ, "xz (lzma)"),
        (CompressionMethod::ZSTD, "zstd"),
        (CompressionMethod::ZSTD_DEPRECATED, "zstd"),
        (CompressionMethod::DEFLATE64, "Deflate64"),
    ];
    let name = known.iter().find(|(known, _)| *known == method).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| format!("another method, {method:?}"))
}

/// The error of a file that `zip` refuses, or that the system cannot read.
fn refused(path: &Path, reason: &str, error: ZipError) -> DataError {
    match error {
        ZipError::Io(error) => DataError::reading(path, error),
        _ => DataError::corrupt(path, reason),
    }
}

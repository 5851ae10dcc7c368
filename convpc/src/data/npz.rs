//! `.npz`: a ZIP archive of `.npy` arrays. `zip` opens it; here an entry's length is checked first, because it bounds
//! the memory that an array may ask for.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use zip::read::{ArchiveOffset, Config, ZipFile};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::{DataError, Images, npy};

pub(super) const MAGIC: &[u8] = b"PK";

/// The names by which images are known, the first that is there wins.
const NAMES: [&str; 3] = ["x", "data", "images"];

/// The best that deflate can do is 258 bytes from two bits.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Reads images from an archive that is `length` bytes long.
pub(super) fn read(path: &Path, file: File, length: u64) -> Result<Images, DataError> {
    // Nothing stands before an archive that begins like one; to search for its directory would only find a false one.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, BufReader::new(file))
        .map_err(|error| refused(path, "its ZIP directory is missing or invalid", error))?;
    let names: Vec<_> = archive.file_names_raw().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let index = choose(path, &names)?;
    let entry = open(path, &mut archive, index, &names[index], length)?;
    let size = entry.size();
    // The array is read to the end of the entry, where `zip` compares the checksum.
    npy::read_images(path, entry, size)
}

/// The index of the array that holds the images.
fn choose(path: &Path, names: &[String]) -> Result<usize, DataError> {
    let path = || path.to_path_buf();
    match names {
        [] => Err(DataError::NoArray { path: path() }),
        [_] => Ok(0),
        _ => {
            let named = |known: &&str| names.iter().position(|name| array_name(name) == *known);
            NAMES.iter().find_map(named).ok_or_else(|| DataError::AmbiguousArray {
                path: path(),
                names: names.iter().map(|name| array_name(name).to_owned()).collect(),
            })
        }
    }
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
    let unreadable = |error| refused(path, &format!("its entry '{name}' does not begin with a ZIP header"), error);
    let entry = archive.by_index_data(index).map_err(unreadable)?;
    let (size, compressed) = (entry.size(), entry.compressed_size());
    if entry.encrypted() {
        return corrupt("is encrypted, which .npz files never are");
    }
    if entry.header_start().saturating_add(compressed) > length {
        return corrupt("goes on after the end of the file");
    }
    let possible = match entry.compression() {
        CompressionMethod::Stored => size == compressed,
        CompressionMethod::Deflated => size <= compressed.saturating_mul(MAX_DEFLATE_RATIO),
        _ => return corrupt("is compressed by a method other than deflate, the one that numpy uses"),
    };
    if !possible {
        return corrupt("claims a length that it cannot have");
    }
    archive.by_index(index).map_err(unreadable)
}

/// The error of a file that `zip` refuses, or that the system cannot read.
fn refused(path: &Path, reason: &str, error: ZipError) -> DataError {
    match error {
        ZipError::Io(error) => DataError::reading(path, error),
        _ => DataError::corrupt(path, reason),
    }
}

//! Files for the tests, written byte by byte where no library would write them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use convpc::data::{DataError, ImageShape, Images, read};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

/// A folder that holds one file of the given contents.
pub(crate) struct Stored {
    _folder: TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn store(name: &str, contents: &[u8]) -> Stored {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, contents).unwrap();
    Stored { _folder: folder, path }
}

/// Reads contents by way of a file.
pub(crate) fn read_bytes(name: &str, contents: &[u8]) -> Result<Images, DataError> {
    read(&store(name, contents).path)
}

pub(crate) fn shape(height: usize, width: usize, colors: usize) -> Option<ImageShape> {
    Some(ImageShape { height, width, colors })
}

/// A `.npy` file with this dictionary for a header.
pub(crate) fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len() + 1).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.push(b'\n');
    bytes.extend(data);
    bytes
}

/// A `.npy` file in C order; `shape` as Python writes it.
pub(crate) fn npy_of(descriptor: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    npy(&format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': {shape}, }}"), data)
}

/// An IDX file of unsigned bytes.
pub(crate) fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, u8::try_from(sizes.len()).unwrap()];
    bytes.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

pub(crate) fn gzip(contents: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(contents).unwrap();
    encoder.finish().unwrap()
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

/// Fails unless the text of an error contains all the parts.
pub(crate) fn assert_says(error: &impl std::error::Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "'{part}' is missing in: {text}");
    }
}

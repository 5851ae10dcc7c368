//! Files for the tests, written byte by byte where no library would write them.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use convpc::data::{DataError, ImageShape, Images, read};
use flate2::Compression;
use flate2::write::GzEncoder;
use half::f16;
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

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

/// How a type is written: numpy's name without the order of bytes, the code of IDX (if it has one), and a small number.
pub(crate) type Row = (&'static str, Option<u8>, fn(u8) -> Vec<u8>);

/// Little-endian bytes of each type.
pub(crate) const TYPES: [Row; 12] = [
    ("b1", None, |n| vec![n]),
    ("u1", Some(0x08), |n| vec![n]),
    ("i1", Some(0x09), |n| vec![n]),
    ("u2", None, |n| u16::from(n).to_le_bytes().to_vec()),
    ("i2", Some(0x0b), |n| i16::from(n).to_le_bytes().to_vec()),
    ("u4", None, |n| u32::from(n).to_le_bytes().to_vec()),
    ("i4", Some(0x0c), |n| i32::from(n).to_le_bytes().to_vec()),
    ("u8", None, |n| u64::from(n).to_le_bytes().to_vec()),
    ("i8", None, |n| i64::from(n).to_le_bytes().to_vec()),
    ("f2", None, |n| f16::from(n).to_le_bytes().to_vec()),
    ("f4", Some(0x0d), |n| f32::from(n).to_le_bytes().to_vec()),
    ("f8", Some(0x0e), |n| f64::from(n).to_le_bytes().to_vec()),
];

/// The numbers of each type, in the order of bytes that is asked for.
pub(crate) fn data_of(of: fn(u8) -> Vec<u8>, numbers: &[u8], big_endian: bool) -> Vec<u8> {
    let one = |&number: &u8| {
        let mut bytes = of(number);
        if big_endian {
            bytes.reverse();
        }
        bytes
    };
    numbers.iter().flat_map(one).collect()
}

/// A `.npy` file in C order.
pub(crate) fn npy_of_sizes(descriptor: &str, sizes: &[usize], data: &[u8]) -> Vec<u8> {
    let tuple: String = sizes.iter().map(|size| format!("{size}, ")).collect();
    npy_of(descriptor, &format!("({tuple})"), data)
}

/// An IDX file of unsigned bytes.
pub(crate) fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    idx_of(0x08, sizes, data)
}

/// An IDX file of numbers of this type.
pub(crate) fn idx_of(code: u8, sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, code, u8::try_from(sizes.len()).unwrap()];
    bytes.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

pub(crate) fn gzip(contents: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(contents).unwrap();
    encoder.finish().unwrap()
}

/// A ZIP archive of entries that are deflated, as `np.savez_compressed` makes it.
pub(crate) fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, contents) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(contents).unwrap();
    }
    writer.finish().unwrap().into_inner()
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

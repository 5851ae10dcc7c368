//! The classes of images.

use std::{io::BufReader, path::Path};

use flate2::bufread::MultiGzDecoder;

use super::{DataError, Format, idx, npy, open_format};

/// Reads labels, one for each image in the order of the images, numbered from 0.
///
/// They come as an IDX file with one axis (MNIST's labels), plain or gzip, or as a `.npy` array with one axis of u8, i32 or i64.
///
/// # Errors
///
/// A [`DataError`] that names the file and the remedy.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("labels-idx1-ubyte");
/// std::fs::write(&path, [0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 9])?;
/// assert_eq!(convpc::data::read_labels(&path)?, [7, 2, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_labels(path: &Path) -> Result<Vec<usize>, DataError> {
    let (file, length, format) = open_format(path)?;
    let reader = BufReader::new(file);
    match format {
        Format::Npy => npy::read_labels(path, reader, length),
        Format::Npz => Err(DataError::UnknownFormat {
            path: path.to_path_buf(),
            found: "50 4b 03 04 (.npz)".into(),
            expected: "labels as a .npy array or an IDX file (plain or gzip)",
        }),
        Format::Gzip => idx::read_labels(path, MultiGzDecoder::new(reader)),
        Format::Idx => idx::read_labels(path, reader),
    }
}

/// The size of the only axis of an array of labels.
pub(super) fn number_of_labels(path: &Path, sizes: &[usize]) -> Result<usize, DataError> {
    match *sizes {
        [0] => Err(DataError::NoValues { path: path.to_path_buf(), shape: sizes.to_vec() }),
        [count] => Ok(count),
        _ => Err(DataError::Axes {
            path: path.to_path_buf(),
            shape: sizes.to_vec(),
            expected: "one axis, a label for each image",
        }),
    }
}

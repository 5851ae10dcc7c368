//! The classes of images.

use std::path::Path;

use super::{DataError, Options, array::Unread, element::Number, folder, source::with_array};

/// The names by which labels are known in an archive, the first that is there wins.
const NAMES: [&str; 4] = ["y", "labels", "targets", "label"];

/// Reads labels, one for each image in the order of the images, numbered from 0.
///
/// They come in any container and of any type that images have, floats being whole numbers, as one axis or as a column
/// (N × 1); or as a folder of class folders, whose pictures [`read`](super::read) reads in the same order: the first
/// class folder is class 0.
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
    read_labels_with(path, &Options::default())
}

/// Reads labels as [`read_labels`] does, within the memory that the options allow.
///
/// # Errors
///
/// As [`read_labels`].
pub fn read_labels_with(path: &Path, options: &Options) -> Result<Vec<usize>, DataError> {
    if path.is_dir() { folder::read_labels(path) } else { with_array(path, &NAMES, options.memory(), read_array) }
}

fn read_array(array: Unread<'_>) -> Result<Vec<usize>, DataError> {
    let path = array.path;
    let sizes = array.header.sizes.clone();
    match sizes[..] {
        [0] | [0, 1] => return Err(DataError::NoValues { path: path.to_path_buf(), shape: sizes }),
        [_] | [_, 1] => {}
        _ => {
            let expected =
                "one axis, or a column, a label for each image (of several columns the one with the classes, a[:, 0])";
            return Err(DataError::Axes { path: path.to_path_buf(), shape: sizes, expected });
        }
    }
    let fail = |index: &[usize], value: Number| DataError::NoLabel {
        path: path.to_path_buf(),
        row: index[0],
        value: value.to_string(),
    };
    Ok(array.load(class, fail)?.into_iter().collect())
}

/// The class that a number is.
fn class(number: Number) -> Option<usize> {
    /// Up to here floats count one by one.
    const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    match number {
        Number::Whole(number) => usize::try_from(number).ok(),
        Number::Float(number) if (0.0..=EXACT).contains(&number) && number.fract() == 0.0 => Some(number as usize),
        Number::Float(_) => None,
    }
}

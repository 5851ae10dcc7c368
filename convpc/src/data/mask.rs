//! Masks: which variables of an image are to be completed.

use std::path::Path;

use super::{DataError, ImageShape, Options, array::Unread, element::Number, source::with_array};

/// The names by which masks are known in an archive, the first that is there wins.
const NAMES: [&str; 2] = ["mask", "x"];

/// Reads a mask: for each variable of an image, whether it is missing and to be completed.
///
/// It comes in any container and of any type that images have. The array has one axis, a value for each of the `variables`, or
/// the axes of the image's `shape`: height × width [× colors], and without colors only where the image has one color. What is
/// not zero (NaN too) counts as missing. The mask is in the order of the variables: (row * width + column) * colors + color.
///
/// # Errors
///
/// A [`DataError`] that names the file and the remedy.
///
/// ```
/// use convpc::data::{ImageShape, read_mask, write_npy_f32};
/// use ndarray::array;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("mask.npy");
/// write_npy_f32(&path, array![[0.0, 1.0], [0.0, 1.0]].view().into_dyn())?;
/// let shape = ImageShape { height: 2, width: 2, colors: 1 };
/// assert_eq!(read_mask(&path, 4, Some(shape))?, [false, true, false, true]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_mask(path: &Path, variables: usize, shape: Option<ImageShape>) -> Result<Vec<bool>, DataError> {
    read_mask_with(path, variables, shape, &Options::default())
}

/// Reads a mask as [`read_mask`] does, within the memory that the options allow.
///
/// # Errors
///
/// As [`read_mask`].
pub fn read_mask_with(
    path: &Path,
    variables: usize,
    shape: Option<ImageShape>,
    options: &Options,
) -> Result<Vec<bool>, DataError> {
    with_array(path, &NAMES, options.memory(), |array| read_array(array, variables, shape))
}

fn read_array(array: Unread<'_>, variables: usize, shape: Option<ImageShape>) -> Result<Vec<bool>, DataError> {
    let sizes = &array.header.sizes;
    let axes = shape.map(|shape| [shape.height, shape.width, shape.colors]);
    let fits = match (&sizes[..], axes) {
        ([size], _) => *size == variables,
        (sizes, Some([height, width, 1])) if sizes == [height, width] => true,
        (sizes, Some(axes)) => sizes == axes,
        _ => false,
    };
    if !fits {
        return Err(DataError::MaskShape {
            path: array.path.to_path_buf(),
            found: sizes.clone(),
            variables,
            shape: shape.map(|shape| format!(" or {shape} (height x width x colors)")).unwrap_or_default(),
        });
    }
    let missing = |number: Number| Some(number.to_f64() != 0.0);
    let path = array.path;
    // Every number says whether it is zero.
    let mask = array.load(missing, |_, _| DataError::corrupt(path, "a value is no number"))?;
    // An array iterates in the order of its indices, whatever its order in memory.
    Ok(mask.iter().copied().collect())
}

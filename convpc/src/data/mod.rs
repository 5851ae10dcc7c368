//! Images, their labels and masks from files, and arrays to files.
//!
//! [`read`] takes whatever the field keeps its images in and returns rows × variables. The format is recognised by
//! the contents, so a wrong or missing ending does no harm:
//!
//! | format | contents | shape known |
//! |---|---|---|
//! | `.npy`, plain or gzip | rows × variables; C or Fortran order | no |
//! | `.npy`, plain or gzip | rows × height × width [× colors], or rows × colors × height × width | yes |
//! | `.npz` | the array of `FILE.npz:NAME`, else the only one, else the one named `x`, `data` or `images` | as in `.npy` |
//! | IDX (MNIST), plain, gzip or ZIP | the same axes as `.npy` | as in `.npy` |
//! | picture | PNG (8 or 16 bits), JPEG or WebP, grey or RGB | yes |
//! | folder of pictures | all alike, in the order of their names, 2 before 10 | yes |
//! | folder of class folders | the pictures of the first class, the second, …; [`read_labels`] gives their classes | yes |
//!
//! Arrays hold bool, integers of 8 to 64 bits or floats of 16, 32 or 64 bits, in either order of bytes ([`Element`]).
//! [`Options`] turn values into two or more levels, name the order of axes where it is not clear, and limit the memory that is
//! taken.

mod array;
mod element;
mod error;
mod failures;
mod folder;
mod format;
mod gzip;
mod idx;
mod images;
mod labels;
mod layout;
mod mask;
mod npy;
mod npy_writer;
mod npz;
mod picture;
mod source;
mod values;

use std::io::{self, Write};
use std::path::Path;

use ndarray::{ArrayView1, ArrayViewD};
use ndarray_npy::{WriteNpyError, WriteNpyExt};

use crate::atomic;

pub use element::Element;
pub use error::DataError;
pub use folder::class_names;
pub use images::{Batch, ImageShape, Images, Options, read, read_batches, read_from, read_with};
pub use labels::{read_labels, read_labels_with};
pub use layout::AxisOrder;
pub use mask::{read_mask, read_mask_with};
pub use npy_writer::NpyWriter;
pub use values::Values;

/// Fails, in place of aborting the process, where `count` numbers of type `T` find no memory.
fn check_memory<T>(path: &Path, count: usize, sizes: &[usize]) -> Result<(), DataError> {
    Vec::<T>::new().try_reserve_exact(count).map_err(|_| DataError::too_large(path, sizes))
}

/// Writes a vector as a `.npy` file of f64, [atomically](crate::atomic::write).
///
/// # Errors
///
/// [`DataError::Write`]; the file is then as it was.
///
/// ```
/// use ndarray::array;
/// let folder = tempfile::tempdir()?;
/// convpc::data::write_npy_f64(&folder.path().join("scores.npy"), array![-1.5, -2.5].view())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_npy_f64(path: &Path, values: ArrayView1<'_, f64>) -> Result<(), DataError> {
    write_npy(path, |file| values.write_npy(file))
}

/// Writes an array of any shape as a `.npy` file of f32, [atomically](crate::atomic::write).
///
/// # Errors
///
/// [`DataError::Write`]; the file is then as it was.
///
/// ```
/// use ndarray::Array3;
/// let folder = tempfile::tempdir()?;
/// let samples = Array3::zeros((10, 28, 28));
/// convpc::data::write_npy_f32(&folder.path().join("samples.npy"), samples.view().into_dyn())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_npy_f32(path: &Path, values: ArrayViewD<'_, f32>) -> Result<(), DataError> {
    write_npy(path, |file| values.write_npy(file))
}

fn write_npy<F>(path: &Path, fill: F) -> Result<(), DataError>
where
    F: FnOnce(&mut dyn Write) -> Result<(), WriteNpyError>,
{
    let fill = |file: &mut dyn Write| {
        fill(file).map_err(|error| match error {
            WriteNpyError::Io(error) => error,
            other => io::Error::other(other),
        })
    };
    atomic::write(path, fill).map_err(|source| DataError::Write { path: path.to_path_buf(), source })
}

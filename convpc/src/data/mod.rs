//! Images, their labels and masks from files, and arrays to files.
//!
//! [`read`] takes whatever the field keeps its images in and returns rows × variables. The format is recognised by
//! the contents, so a wrong or missing ending does no harm:
//!
//! | format | contents | shape known |
//! |---|---|---|
//! | `.npy` | rows × variables; u8, f32 or f64; C or Fortran order | no |
//! | `.npy` | rows × height × width [× colors] | yes |
//! | `.npz` | the only array, else the one named `x`, `data` or `images`, in that order | as in `.npy` |
//! | IDX (MNIST), plain or gzip | bytes, the same axes as `.npy` | as in `.npy` |
//! | folder of PNG files | 8-bit grey or RGB, all alike, in the order of their names | yes |

mod error;
mod idx;
mod labels;
mod npy;
mod npz;
mod png;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use ndarray::{Array2, ArrayView1, ArrayViewD};
use ndarray_npy::{WriteNpyError, WriteNpyExt};

use crate::atomic;

pub use error::DataError;
pub use labels::read_labels;
pub use npy::read_mask;

/// A set of images, one a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// Rows × variables; variable = (row * width + column) * colors + color. NaN marks a missing value.
    pub values: Array2<f32>,
    /// How the variables lie in an image; `None` if the file does not say (rows × variables only).
    pub shape: Option<ImageShape>,
    /// Whether the source held unsigned bytes, so that every value is a whole number from 0 to 255.
    pub eight_bit: bool,
}

/// The size of an image. Displayed as height x width x colors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// The number of rows of pixels.
    pub height: usize,
    /// The number of pixels in a row.
    pub width: usize,
    /// The numbers in a pixel: 1 for grey, 3 for RGB.
    pub colors: usize,
}

impl ImageShape {
    /// The number of variables of an image, height * width * colors; `None` if it overflows.
    ///
    /// ```
    /// use convpc::data::ImageShape;
    /// let shape = ImageShape { height: 28, width: 28, colors: 1 };
    /// assert_eq!(shape.variables(), Some(784));
    /// ```
    pub fn variables(&self) -> Option<usize> {
        self.height.checked_mul(self.width)?.checked_mul(self.colors)
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} x {}", self.height, self.width, self.colors)
    }
}

/// Reads images from a file or from a folder of PNG files.
///
/// See the [module](self) for the formats. f64 is rounded to f32. Infinities and NaN pass: NaN means missing, and
/// whether an infinity is legal is the leaf's to say. In a folder, hidden files and files that do not end in `.png`
/// (in either case) are passed over; an alpha channel is dropped if it is opaque everywhere.
///
/// # Errors
///
/// A [`DataError`] that names the file and the remedy; no file, however damaged, makes this function panic or
/// reserve much more memory than its contents need.
///
/// ```
/// use convpc::data::{read, write_npy_f32};
/// use ndarray::array;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("images.npy");
/// write_npy_f32(&path, array![[0.0, f32::NAN], [0.5, 1.0]].view().into_dyn())?;
/// let images = read(&path)?;
/// assert_eq!(images.values.dim(), (2, 2));
/// assert_eq!(images.shape, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read(path: &Path) -> Result<Images, DataError> {
    let metadata = fs::metadata(path).map_err(|error| DataError::reading(path, error))?;
    if metadata.is_dir() { png::read_folder(path) } else { read_file(path) }
}

fn read_file(path: &Path) -> Result<Images, DataError> {
    let (file, length, format) = open_format(path)?;
    match format {
        Format::Npy => npy::read_images(path, BufReader::new(file), length),
        Format::Npz => npz::read(path, file, length),
        Format::Gzip => idx::read(path, MultiGzDecoder::new(BufReader::new(file))),
        Format::Idx => idx::read(path, BufReader::new(file)),
    }
}

/// What a file's first bytes say that it is; those of an IDX file are looked at when it is read.
#[derive(Clone, Copy)]
enum Format {
    Npy,
    Npz,
    Gzip,
    Idx,
}

/// Opens a file at its beginning; also gives its length.
fn open_format(path: &Path) -> Result<(File, u64, Format), DataError> {
    let (mut file, length) = open(path)?;
    let mut start = Vec::new();
    let reading = |error| DataError::reading(path, error);
    (&mut file).take(npy::MAGIC.len() as u64).read_to_end(&mut start).map_err(reading)?;
    file.rewind().map_err(reading)?;
    let formats = [(npy::MAGIC, Format::Npy), (npz::MAGIC, Format::Npz), (&GZIP_MAGIC, Format::Gzip)];
    let format = formats.into_iter().find(|(magic, _)| start.starts_with(magic));
    Ok((file, length, format.map_or(Format::Idx, |(_, format)| format)))
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Opens a file that holds something; also gives its length.
fn open(path: &Path) -> Result<(File, u64), DataError> {
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

/// How an array of images lies in memory.
struct Layout {
    rows: usize,
    variables: usize,
    shape: Option<ImageShape>,
}

impl Layout {
    /// Interprets the sizes along the axes of an array: rows x variables, or rows x height x width [x colors].
    fn new(path: &Path, sizes: &[usize]) -> Result<Self, DataError> {
        let image = |height, width, colors| ImageShape { height, width, colors };
        let (rows, shape, variables) = match *sizes {
            [rows, variables] => (rows, None, Some(variables)),
            [rows, height, width] => (rows, Some(image(height, width, 1)), height.checked_mul(width)),
            [rows, height, width, colors] => {
                let shape = image(height, width, colors);
                (rows, Some(shape), shape.variables())
            }
            _ => {
                return Err(DataError::Axes {
                    path: path.to_path_buf(),
                    shape: sizes.to_vec(),
                    expected: "rows x variables, rows x height x width or rows x height x width x colors",
                });
            }
        };
        if sizes.contains(&0) {
            return Err(DataError::NoValues { path: path.to_path_buf(), shape: sizes.to_vec() });
        }
        let variables = variables.ok_or_else(|| DataError::too_large(path, sizes))?;
        Ok(Self { rows, variables, shape })
    }
}

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

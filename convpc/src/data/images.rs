//! Images from arrays and pictures.

use std::fmt;
use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayD, Axis};

use crate::memory;

use super::{
    DataError,
    array::Unread,
    element::{Element, Number},
    folder,
    layout::{AxisOrder, Layout},
    picture,
    source::{with_array, with_stream},
    values::{Conversion, Values},
};

/// The names by which images are known in an archive, the first that is there wins.
const NAMES: [&str; 3] = ["x", "data", "images"];

/// A set of images, one a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// Rows × variables; variable = (row * width + column) * colors + color. NaN marks a missing value.
    pub values: Array2<f32>,
    /// How the variables lie in an image; `None` if the file does not say (rows × variables only).
    pub shape: Option<ImageShape>,
    /// The type of the numbers in the file.
    pub element: Element,
    /// The files of a folder that were not read, since they are no pictures, hidden ones left out.
    pub passed_over: Vec<PathBuf>,
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

/// How images are read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// The order of the axes of arrays of four axes; found by the shape or by their sizes unless given.
    pub axes: Option<AxisOrder>,
    /// The shape that the images should have, if it is known. It tells in which order the axes of an array are.
    pub shape: Option<ImageShape>,
    /// What becomes of the values.
    pub values: Values,
    /// The most bytes that the values of a file or folder may take in memory; half of the machine's memory unless given.
    pub memory: Option<u64>,
}

impl Options {
    /// The most bytes that values may take in memory.
    pub(super) fn memory(&self) -> u64 {
        self.memory.unwrap_or_else(|| memory::of_machine() / 2)
    }
}

/// Reads images from a file, a picture or a folder of pictures, with the default [`Options`].
///
/// See the [module](super) for the formats. Infinities and NaN pass: NaN means missing, and whether an infinity is legal is
/// the leaf's to say. In a folder, hidden files and files that do not end like pictures are passed over; an alpha channel is
/// dropped if it is opaque everywhere.
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
    read_with(path, &Options::default())
}

/// Reads images as [`read`] does, with these options.
///
/// # Errors
///
/// As [`read`].
///
/// ```
/// use convpc::data::{Options, Values, read_with, write_npy_f32};
/// use ndarray::array;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("images.npy");
/// write_npy_f32(&path, array![[0.0, 0.4], [0.6, 1.0]].view().into_dyn())?;
/// let mut options = Options::default();
/// options.values = Values::Quantize { levels: 256, range: None };
/// assert_eq!(read_with(&path, &options)?.values, array![[0.0, 102.0], [153.0, 255.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_with(path: &Path, options: &Options) -> Result<Images, DataError> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return folder::read(path, options);
    }
    if picture::is_picture(path) {
        return folder::read_one(path, options);
    }
    with_array(path, &NAMES, options.memory(), |array| read_array(array, options))
}

/// Reads images from a stream, such as a pipe: a `.npy` or IDX array, plain or gzip. Errors call the stream by `name`.
///
/// # Errors
///
/// As [`read`].
///
/// ```
/// use std::path::Path;
/// use convpc::data::{Options, read_from, write_npy_f32};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("images.npy");
/// write_npy_f32(&path, ndarray::array![[0.0, 0.4], [0.6, 1.0]].view().into_dyn())?;
/// let mut stream = std::io::BufReader::new(std::fs::File::open(&path)?);
/// let images = read_from(Path::new("standard input"), &mut stream, &Options::default())?;
/// assert_eq!(images.values.dim(), (2, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_from(name: &Path, stream: &mut dyn BufRead, options: &Options) -> Result<Images, DataError> {
    with_stream(name, stream, None, options.memory(), |array| read_array(array, options))
}

fn read_array(array: Unread<'_>, options: &Options) -> Result<Images, DataError> {
    let path = array.path;
    let layout = Layout::new(path, &array.header.sizes, options.axes, options.shape)?;
    let (is_copied, memory) = (layout.is_rearranged(array.header.is_fortran), array.memory);
    let element = array.header.encoding.element;
    let conversion = Conversion::new(path, options.values, element)?;
    let fail = |index: &[usize], value: Number| out_of_range(path, layout.place(index), value, conversion);
    let values = array.load(|number| conversion.apply(number), fail)?;
    if is_copied {
        // For a moment there are two copies.
        DataError::check_limit(path, values.shape(), 2 * size_of::<f32>(), memory)?;
    }
    Ok(Images { values: layout.arrange(path, values)?, shape: layout.shape, element, passed_over: vec![] })
}

/// Some images of a file, one a row, that follow one another.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Batch {
    /// The images.
    pub images: Images,
    /// The number of the first one in the file, counted from 0.
    pub first: usize,
    /// The number of images in the file.
    pub of: usize,
}

/// Reads images as [`read_with`] does, and hands them to `each` in batches of so many rows, so that a file of any number of rows
/// takes the memory of one batch. Arrays in Fortran order, pictures and folders are read as a whole before. A damaged file may
/// be noticed only after its last batch.
///
/// # Errors
///
/// As [`read`], and the error of `each`, which ends the reading.
///
/// ```
/// use convpc::data::{DataError, Options, read_batches, write_npy_f32};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("images.npy");
/// write_npy_f32(&path, ndarray::Array2::zeros((10, 4)).view().into_dyn())?;
/// let mut batches = vec![];
/// read_batches(&path, &Options::default(), 4, &mut |batch| {
///     batches.push((batch.first, batch.images.values.nrows(), batch.of));
///     Ok::<(), DataError>(())
/// })?;
/// assert_eq!(batches, [(0, 4, 10), (4, 4, 10), (8, 2, 10)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_batches<E: From<DataError>>(
    path: &Path,
    options: &Options,
    rows: usize,
    each: &mut dyn FnMut(Batch) -> Result<(), E>,
) -> Result<(), E> {
    let rows = rows.max(1);
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) || picture::is_picture(path) {
        return read_with(path, options)?.in_batches(rows, each);
    }
    with_array(path, &NAMES, options.memory(), |array| {
        if array.header.is_fortran {
            return Ok(read_array(array, options)?.in_batches(rows, each));
        }
        let path = array.path;
        let (layout, element) =
            (Layout::new(path, &array.header.sizes, options.axes, options.shape)?, array.header.encoding.element);
        let conversion = Conversion::new(path, options.values, element)?;
        let fail = |index: &[usize], value: Number| out_of_range(path, layout.place(index), value, conversion);
        let mut sizes = array.header.sizes.clone();
        let mut first = 0;
        let of_part = &mut |values: Vec<f32>| {
            sizes[0] = values.len() / layout.variables;
            let values =
                ArrayD::from_shape_vec(sizes.clone(), values).map_err(|e| DataError::corrupt(path, e.to_string()))?;
            let values = layout.arrange(path, values)?;
            let images = Images { values, shape: layout.shape, element, passed_over: vec![] };
            first += sizes[0];
            each(Batch { first: first - sizes[0], images, of: layout.rows })
        };
        array.parts(rows.saturating_mul(layout.variables), |number| conversion.apply(number), fail, of_part)
    })?
}

impl Images {
    /// Hands the images to `each` in batches of so many rows, at least 1. The first batch has the files that were passed over.
    ///
    /// # Errors
    /// The error of `each`, which ends the work.
    pub fn in_batches<E>(&self, rows: usize, each: &mut dyn FnMut(Batch) -> Result<(), E>) -> Result<(), E> {
        let rows = rows.max(1);
        for (first, values) in (0..).step_by(rows).zip(self.values.axis_chunks_iter(Axis(0), rows)) {
            let passed_over = if first == 0 { self.passed_over.clone() } else { vec![] };
            let images = Images { values: values.to_owned(), passed_over, ..*self };
            each(Batch { images, first, of: self.values.nrows() })?;
        }
        Ok(())
    }
}

/// The error of a value that has no counterpart in f32.
pub(super) fn out_of_range(
    path: &Path,
    (row, variable): (usize, usize),
    value: Number,
    conversion: Conversion,
) -> DataError {
    let (path, value, expected) = (path.to_path_buf(), value.to_string(), conversion.expected());
    DataError::OutOfRange { path, row, variable, value, expected }
}

//! Images from arrays and pictures.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::{
    DataError,
    array::Unread,
    element::{Element, Number},
    folder,
    layout::{AxisOrder, Layout},
    picture,
    source::with_array,
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
pub struct Options {
    /// The order of the axes of arrays of four axes; found by their sizes unless given.
    pub axes: Option<AxisOrder>,
    /// What becomes of the values.
    pub values: Values,
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
/// let options = Options { values: Values::Quantize { levels: 256, range: None }, ..Options::default() };
/// assert_eq!(read_with(&path, &options)?.values, array![[0.0, 102.0], [153.0, 255.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_with(path: &Path, options: &Options) -> Result<Images, DataError> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return folder::read(path, options.values);
    }
    if picture::is_picture(path) {
        return folder::read_one(path, options.values);
    }
    with_array(path, &NAMES, |array| read_array(array, options))
}

fn read_array(array: Unread<'_>, options: &Options) -> Result<Images, DataError> {
    let path = array.path;
    let layout = Layout::new(path, &array.header.sizes, options.axes)?;
    let element = array.header.encoding.element;
    let conversion = Conversion::new(path, options.values, element)?;
    let fail = |index: &[usize], value: Number| {
        let (row, variable) = layout.place(index);
        out_of_range(path, (row, variable), value, conversion)
    };
    let values = array.load(|number| conversion.apply(number), fail)?;
    Ok(Images { values: layout.arrange(path, values)?, shape: layout.shape, element, passed_over: vec![] })
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

//! `.npy` arrays. `ndarray-npy` decodes them; here the header is checked first, because the decoder trusts it:
//! it reserves whatever memory a header claims, and its parser descends as deep as a header is nested.

use std::io::{Cursor, Read};
use std::path::Path;

use ndarray::{Array2, ArrayD};
use ndarray_npy::npy::header::{Header, ReadHeaderError};
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};

use super::{DataError, Images, Layout, check_memory, labels::number_of_labels, open};

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that numpy itself reads from an untrusted file.
const MAX_HEADER: usize = 10_000;

/// Enough for any type that numpy writes; the time of the parser grows exponentially with the nesting.
const MAX_NESTING: usize = 6;

/// Reads images from the beginning of an array that is `length` bytes long with its header.
pub(super) fn read_images(path: &Path, reader: impl Read, length: u64) -> Result<Images, DataError> {
    let array = Unread::open(path, reader, length)?;
    let layout = Layout::new(path, &array.sizes)?;
    let size = (layout.rows, layout.variables);
    let (values, eight_bit) = match array.element {
        Element::Byte => (table(path, array.load::<u8>()?, size)?.mapv(f32::from), true),
        Element::Single => (table(path, array.load::<f32>()?, size)?, false),
        Element::Double => (rounded(path, &table(path, array.load::<f64>()?, size)?)?, false),
        _ => return Err(array.wrong_element("u8, f32 or f64")),
    };
    Ok(Images { values, shape: layout.shape, eight_bit })
}

/// Reads a mask from a `.npy` file: for each variable of an image, whether it is missing and to be completed.
///
/// The array has the shape variables, height × width or height × width × colors and holds bool, u8, f32 or f64, in C
/// or Fortran order. What is not zero (NaN too) counts as missing. The mask is in the order of the variables:
/// (row * width + column) * colors + color.
///
/// # Errors
///
/// A [`DataError`] that names the file and the remedy.
///
/// ```
/// use convpc::data::{read_mask, write_npy_f32};
/// use ndarray::array;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("mask.npy");
/// write_npy_f32(&path, array![[0.0, 1.0], [0.0, 1.0]].view().into_dyn())?;
/// assert_eq!(read_mask(&path)?, [false, true, false, true]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_mask(path: &Path) -> Result<Vec<bool>, DataError> {
    let (mut file, length) = open(path)?;
    let array = Unread::open(path, &mut file, length)?;
    if !(1..=3).contains(&array.sizes.len()) {
        return Err(DataError::Axes {
            path: path.to_path_buf(),
            shape: array.sizes,
            expected: "variables, height x width or height x width x colors",
        });
    }
    if array.sizes.contains(&0) {
        return Err(DataError::NoValues { path: path.to_path_buf(), shape: array.sizes });
    }
    // An array iterates in the order of its indices, whatever its order in memory.
    Ok(match array.element {
        Element::Bool => array.load::<bool>()?.iter().copied().collect(),
        Element::Byte => array.load::<u8>()?.iter().map(|&value| value != 0).collect(),
        Element::Single => array.load::<f32>()?.iter().map(|&value| value != 0.0).collect(),
        Element::Double => array.load::<f64>()?.iter().map(|&value| value != 0.0).collect(),
        _ => return Err(array.wrong_element("bool, u8, f32 or f64")),
    })
}

/// Reads labels from the beginning of an array that is `length` bytes long with its header.
pub(super) fn read_labels(path: &Path, reader: impl Read, length: u64) -> Result<Vec<usize>, DataError> {
    let array = Unread::open(path, reader, length)?;
    number_of_labels(path, &array.sizes)?;
    let labels: Vec<i64> = match array.element {
        Element::Byte => array.load::<u8>()?.iter().map(|&label| label.into()).collect(),
        Element::Int => array.load::<i32>()?.iter().map(|&label| label.into()).collect(),
        Element::Long => array.load::<i64>()?.iter().copied().collect(),
        _ => return Err(array.wrong_element("u8, i32 or i64")),
    };
    let label = |(row, &value): (usize, &i64)| {
        usize::try_from(value).map_err(|_| DataError::NoLabel { path: path.to_path_buf(), row, value })
    };
    labels.iter().enumerate().map(label).collect()
}

/// The types of numbers that are read here.
#[derive(Clone, Copy)]
enum Element {
    Bool,
    Byte,
    Int,
    Long,
    Single,
    Double,
    Other,
}

/// An array whose header has been read.
struct Unread<'a, R> {
    path: &'a Path,
    header: Vec<u8>,
    sizes: Vec<usize>,
    element: Element,
    /// The type as the file calls it.
    descriptor: String,
    /// The bytes after the header.
    available: u64,
    reader: R,
}

impl<'a, R: Read> Unread<'a, R> {
    fn open(path: &'a Path, mut reader: R, length: u64) -> Result<Self, DataError> {
        let bytes = read_header(path, &mut reader)?;
        let header = Header::from_reader(&mut &bytes[..]).map_err(|error| match error {
            ReadHeaderError::Io(error) => DataError::reading(path, error),
            ReadHeaderError::Parse(error) => DataError::corrupt(path, format!("its .npy header is invalid ({error})")),
        })?;
        let descriptor = header.type_descriptor.to_string();
        let element = match header.type_descriptor.as_string().map(String::as_str) {
            Some("|b1") => Element::Bool,
            Some("|u1" | "u1" | "B") => Element::Byte,
            Some("<i4" | ">i4") => Element::Int,
            Some("<i8" | ">i8") => Element::Long,
            Some("<f4" | ">f4") => Element::Single,
            Some("<f8" | ">f8") => Element::Double,
            _ => Element::Other,
        };
        Ok(Self {
            path,
            available: length.saturating_sub(bytes.len() as u64),
            header: bytes,
            sizes: header.shape,
            element,
            descriptor,
            reader,
        })
    }

    fn wrong_element(self, expected: &'static str) -> DataError {
        DataError::ElementType { path: self.path.to_path_buf(), found: self.descriptor, expected }
    }

    fn load<T: ReadableElement>(self) -> Result<ArrayD<T>, DataError> {
        let Self { path, sizes, available, .. } = self;
        let too_large = || DataError::too_large(path, &sizes);
        let count = sizes.iter().try_fold(1_usize, |count, &size| count.checked_mul(size));
        let count = count.ok_or_else(too_large)?;
        let declared = count.checked_mul(size_of::<T>()).ok_or_else(too_large)? as u64;
        if declared > available {
            return Err(DataError::Truncated { path: path.to_path_buf(), declared, found: available });
        }
        check_memory::<T>(path, count, &sizes)?;
        // The decoder reads to the end to see whether there is more; one more byte tells it.
        let data = self.reader.take(declared.saturating_add(1));
        ArrayD::read_npy(Cursor::new(self.header).chain(data)).map_err(|error| match error {
            ReadNpyError::Io(error) => DataError::reading(path, error),
            ReadNpyError::ExtraBytes(_) => DataError::TooLong { path: path.to_path_buf(), declared },
            other => DataError::corrupt(path, other.to_string()),
        })
    }
}

/// The bytes of a header that is safe to parse, from the magic to its end.
fn read_header(path: &Path, reader: &mut impl Read) -> Result<Vec<u8>, DataError> {
    let mut header = vec![0; MAGIC.len() + 2];
    let reading = |error| DataError::reading(path, error);
    reader.read_exact(&mut header).map_err(reading)?;
    if !header.starts_with(MAGIC) {
        return Err(DataError::corrupt(path, "it is not a .npy array"));
    }
    // Version 1 has a length of two bytes, the later ones of four.
    let length_bytes = if header[MAGIC.len()] == 1 { 2 } else { 4 };
    let mut length = [0; 4];
    reader.read_exact(&mut length[..length_bytes]).map_err(reading)?;
    header.extend_from_slice(&length[..length_bytes]);
    let length = u32::from_le_bytes(length);
    let prefix = header.len();
    match usize::try_from(length) {
        Ok(length) if length <= MAX_HEADER => header.resize(prefix + length, 0),
        _ => {
            let reason = format!("its .npy header claims {length} bytes, expected at most {MAX_HEADER}");
            return Err(DataError::corrupt(path, reason));
        }
    }
    reader.read_exact(&mut header[prefix..]).map_err(reading)?;
    if nesting(&header[prefix..]) > MAX_NESTING {
        return Err(DataError::corrupt(path, "its .npy header is nested too deeply"));
    }
    Ok(header)
}

fn nesting(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Brings an array into rows × variables, in C order.
fn table<T: Clone>(path: &Path, array: ArrayD<T>, size: (usize, usize)) -> Result<Array2<T>, DataError> {
    let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
    array.into_shape_with_order(size).map_err(|error| DataError::corrupt(path, error.to_string()))
}

fn rounded(path: &Path, values: &Array2<f64>) -> Result<Array2<f32>, DataError> {
    let rounded = values.mapv(|value| value as f32);
    let mut pairs = values.indexed_iter().zip(&rounded);
    match pairs.find(|((_, wide), narrow)| wide.is_finite() && narrow.is_infinite()) {
        None => Ok(rounded),
        Some((((row, variable), &value), _)) => {
            Err(DataError::OutOfRange { path: path.to_path_buf(), row, variable, value })
        }
    }
}

//! Arrays that are written while they are made.

use std::io::{self, Write};

use ndarray_npy::{
    WritableElement, WriteDataError,
    npy::header::{Header, Layout, WriteHeaderError},
};

use super::{Element, error::dims};

/// Writes a `.npy` array part by part, so that an array of any size needs little memory.
///
/// The header comes first, so the output may be a pipe. Numbers follow in the order of their indices, the last index fastest.
///
/// ```
/// use convpc::{atomic, data::{Element, NpyWriter, read}};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("images.npy");
/// let mut images = NpyWriter::new(atomic::Writer::create(&path)?, Element::U8, &[3, 2, 2])?;
/// for image in 0..3 {
///     images.write([0.0, 1.0, 2.0, f64::from(image)])?;
/// }
/// images.finish()?.finish()?;
/// assert_eq!(read(&path)?.values.dim(), (3, 4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NpyWriter<W> {
    to: W,
    element: Element,
    sizes: Vec<usize>,
    /// The numbers that are still to come.
    left: u64,
}

impl<W: Write> NpyWriter<W> {
    /// Writes the header of an array of this size along each axis.
    ///
    /// # Errors
    /// `InvalidInput` if the element is none of u8, u16, u32, f32 and f64, or the array has more numbers than can be counted; any
    /// error of the output.
    pub fn new(mut to: W, element: Element, sizes: &[usize]) -> io::Result<Self> {
        let type_descriptor = match element {
            Element::U8 => u8::type_descriptor(),
            Element::U16 => u16::type_descriptor(),
            Element::U32 => u32::type_descriptor(),
            Element::F32 => f32::type_descriptor(),
            Element::F64 => f64::type_descriptor(),
            other => return Err(refused(format!("{other} is not written; choose u8, u16, u32, f32 or f64"))),
        };
        let count = sizes.iter().try_fold(1_u64, |count, &size| count.checked_mul(size as u64));
        let left =
            count.ok_or_else(|| refused(format!("an array of {} is too large; write fewer rows", dims(sizes))))?;
        let header = Header { type_descriptor, layout: Layout::Standard, shape: sizes.to_vec() };
        header.write(&mut to).map_err(|error| match error {
            WriteHeaderError::Io(error) => error,
            WriteHeaderError::Format(error) => refused(error.to_string()),
        })?;
        Ok(NpyWriter { to, element, sizes: sizes.to_vec(), left })
    }

    /// Writes the next numbers.
    ///
    /// # Errors
    /// `InvalidData` if the element cannot hold a number: whole numbers up to the largest of its type, where it is an integer;
    /// `InvalidInput` if the array is full; any error of the output.
    pub fn write(&mut self, values: impl IntoIterator<Item = f64>) -> io::Result<()> {
        let values: Vec<f64> = values.into_iter().collect();
        let too_many = || refused(format!("an array of {} has no room for more numbers", dims(&self.sizes)));
        self.left = self.left.checked_sub(values.len() as u64).ok_or_else(too_many)?;
        let to = &mut self.to;
        match self.element {
            Element::U8 => put(to, &whole(&values, u8::MAX, |value| value as u8)?),
            Element::U16 => put(to, &whole(&values, u16::MAX, |value| value as u16)?),
            Element::U32 => put(to, &whole(&values, u32::MAX, |value| value as u32)?),
            Element::F32 => put(to, &values.iter().map(|value| *value as f32).collect::<Vec<_>>()),
            _ => put(to, &values),
        }
    }

    /// Flushes the output and returns it.
    ///
    /// # Errors
    /// `InvalidInput` if numbers are missing; any error of the output.
    pub fn finish(mut self) -> io::Result<W> {
        if self.left > 0 {
            return Err(refused(format!("an array of {} lacks its last {} numbers", dims(&self.sizes), self.left)));
        }
        self.to.flush()?;
        Ok(self.to)
    }
}

/// The numbers as integers, of which `most` is the largest.
fn whole<T>(values: &[f64], most: impl Into<f64>, cast: impl Fn(f64) -> T) -> io::Result<Vec<T>> {
    let most = most.into();
    let one = |&value: &f64| {
        if value.fract() == 0.0 && (0.0..=most).contains(&value) {
            return Ok(cast(value));
        }
        let problem = format!(
            "the value {value} is no whole number from 0 to {most}, which the element type of this file can hold"
        );
        Err(io::Error::new(io::ErrorKind::InvalidData, problem))
    };
    values.iter().map(one).collect()
}

fn put<T: WritableElement>(to: &mut impl Write, values: &[T]) -> io::Result<()> {
    T::write_slice(values, to).map_err(|error| match error {
        WriteDataError::Io(error) => error,
        other => io::Error::other(other),
    })
}

fn refused(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

//! An array whose header has been read and whose numbers have not.

use std::io::Read;
use std::path::Path;

use ndarray::{ArrayD, IxDyn, ShapeBuilder};

use super::{
    DataError,
    element::{Element, Encoding, Number},
};

/// The bytes that are decoded at a time: whole numbers of every type.
const CHUNK: usize = 1 << 16;

/// What the header of an array says, in any format.
pub(super) struct Header {
    /// The size along each axis.
    pub(super) sizes: Vec<usize>,
    pub(super) encoding: Encoding,
    /// Whether the first index runs fastest.
    pub(super) is_fortran: bool,
    /// The bytes of the header itself.
    pub(super) length: u64,
}

/// An array whose numbers follow in `reader`.
pub(super) struct Unread<'a> {
    /// As the user named it.
    pub(super) path: &'a Path,
    pub(super) header: Header,
    /// No more bytes than these can follow the header; `None` if nobody knows how many.
    pub(super) limit: Option<u64>,
    /// No more bytes of memory than these may be taken.
    pub(super) memory: u64,
    pub(super) reader: &'a mut dyn Read,
}

impl Unread<'_> {
    /// Reads all numbers. Where `convert` has no value for one, `fail` makes the error from its index along each axis.
    ///
    /// Memory is reserved for what can be there, so that a false header costs nothing.
    pub(super) fn load<T>(
        mut self,
        convert: impl Fn(Number) -> Option<T>,
        fail: impl Fn(&[usize], Number) -> DataError,
    ) -> Result<ArrayD<T>, DataError> {
        let Header { sizes, encoding, is_fortran, .. } = &self.header;
        let too_large = || DataError::too_large(self.path, sizes);
        let count = sizes.iter().try_fold(1_usize, |count, &size| count.checked_mul(size)).ok_or_else(too_large)?;
        let declared = count.checked_mul(encoding.size()).ok_or_else(too_large)? as u64;
        let over_limit = |count: usize| {
            let needed = (count as u64).saturating_mul(size_of::<T>() as u64);
            if needed > self.memory {
                Err(DataError::over_limit(self.path, sizes, size_of::<T>(), self.memory))
            } else {
                Ok(())
            }
        };
        let mut values = Vec::new();
        if self.limit.is_none_or(|limit| declared <= limit) {
            over_limit(count)?;
        }
        if self.limit.is_some_and(|limit| declared <= limit) {
            values.try_reserve_exact(count).map_err(|_| too_large())?;
        }
        let mut buffer = vec![0; declared.min(CHUNK as u64) as usize];
        let mut left = declared;
        while left > 0 {
            let wanted = left.min(CHUNK as u64) as usize;
            let found = read_fully(self.path, self.reader, &mut buffer[..wanted])?;
            if found < wanted {
                let found = declared - left + found as u64;
                return Err(DataError::Truncated { path: self.path.to_path_buf(), declared, found });
            }
            let bytes = &buffer[..wanted];
            if encoding.element == Element::Bool && bytes.iter().any(|&byte| byte > 1) {
                return Err(DataError::corrupt(self.path, "a value of type bool is neither 0 nor 1"));
            }
            over_limit(values.len() + wanted / encoding.size())?;
            values.try_reserve(wanted / encoding.size()).map_err(|_| too_large())?;
            encoding.decode(bytes, |number| match convert(number) {
                Some(value) => {
                    values.push(value);
                    Ok(())
                }
                None => Err(fail(&index(values.len(), sizes, *is_fortran), number)),
            })?;
            left -= wanted as u64;
        }
        // One more byte shows whether the file goes on; it also takes decompressors to their checksum.
        if read_fully(self.path, &mut self.reader, &mut [0])? > 0 {
            return Err(DataError::TooLong { path: self.path.to_path_buf(), declared });
        }
        ArrayD::from_shape_vec(IxDyn(sizes).set_f(*is_fortran), values)
            .map_err(|error| DataError::corrupt(self.path, error.to_string()))
    }
}

/// Fills the buffer as far as the bytes go.
fn read_fully(path: &Path, reader: &mut dyn Read, mut buffer: &mut [u8]) -> Result<usize, DataError> {
    let wanted = buffer.len();
    while !buffer.is_empty() {
        match reader.read(buffer) {
            Ok(0) => break,
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DataError::reading(path, error)),
        }
    }
    Ok(wanted - buffer.len())
}

/// The index along each axis of the number at this position in the file.
fn index(mut position: usize, sizes: &[usize], is_fortran: bool) -> Vec<usize> {
    let mut index = vec![0; sizes.len()];
    let mut step = |axis: usize| {
        index[axis] = position % sizes[axis];
        position /= sizes[axis];
    };
    if is_fortran {
        (0..sizes.len()).for_each(&mut step);
    } else {
        (0..sizes.len()).rev().for_each(&mut step);
    }
    index
}

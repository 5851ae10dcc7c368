//! An array whose header has been read and whose numbers have not.

use std::convert::Infallible;
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
    /// True if the first index runs fastest.
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
        self,
        convert: impl Fn(Number) -> Option<T>,
        fail: impl Fn(&[usize], Number) -> DataError,
    ) -> Result<ArrayD<T>, DataError> {
        let (path, sizes, is_fortran) = (self.path, self.header.sizes.clone(), self.header.is_fortran);
        let mut all = Vec::new();
        let keep = &mut |values| {
            all = values;
            Ok::<_, Infallible>(())
        };
        self.parts(usize::MAX, convert, fail, keep)?.unwrap_or_else(|never| match never {});
        ArrayD::from_shape_vec(IxDyn(&sizes).set_f(is_fortran), all)
            .map_err(|error| DataError::corrupt(path, error.to_string()))
    }

    /// Hands all numbers to `each`, `size` at a time in the order of the file, the last ones perhaps fewer. The error of `each` ends
    /// the reading and is the inner result.
    pub(super) fn parts<T, E>(
        mut self,
        size: usize,
        convert: impl Fn(Number) -> Option<T>,
        fail: impl Fn(&[usize], Number) -> DataError,
        each: &mut dyn FnMut(Vec<T>) -> Result<(), E>,
    ) -> Result<Result<(), E>, DataError> {
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
        let size = size.min(count);
        if self.limit.is_none_or(|limit| declared <= limit) {
            over_limit(size)?;
        }
        let mut values = Vec::new();
        let mut buffer = vec![0; declared.min(CHUNK as u64) as usize];
        let (mut left, mut before) = (count, 0);
        while left > 0 {
            if values.is_empty() && self.limit.is_some_and(|limit| declared <= limit) {
                values.try_reserve_exact(size.min(left)).map_err(|_| too_large())?;
            }
            let wanted = left.min(size - values.len()).min(CHUNK / encoding.size());
            let bytes = &mut buffer[..wanted * encoding.size()];
            let found = read_fully(self.path, self.reader, bytes)?;
            if found < bytes.len() {
                let found = declared - (left * encoding.size()) as u64 + found as u64;
                return Err(DataError::Truncated { path: self.path.to_path_buf(), declared, found });
            }
            if encoding.element == Element::Bool && bytes.iter().any(|&byte| byte > 1) {
                return Err(DataError::corrupt(self.path, "a value of type bool is neither 0 nor 1"));
            }
            over_limit(values.len() + wanted)?;
            values.try_reserve(wanted).map_err(|_| too_large())?;
            encoding.decode(bytes, |number| match convert(number) {
                Some(value) => {
                    values.push(value);
                    Ok(())
                }
                None => Err(fail(&index(before + values.len(), sizes, *is_fortran), number)),
            })?;
            left -= wanted;
            if values.len() == size || left == 0 {
                before += values.len();
                if let Err(error) = each(std::mem::take(&mut values)) {
                    return Ok(Err(error));
                }
            }
        }
        // One more byte shows whether the file goes on; it also takes decompressors to their checksum.
        if read_fully(self.path, &mut self.reader, &mut [0])? > 0 {
            return Err(DataError::TooLong { path: self.path.to_path_buf(), declared });
        }
        Ok(Ok(()))
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

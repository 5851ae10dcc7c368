//! The header of IDX, the format of MNIST: two zero bytes, the type, the number of axes, their sizes as big-endian u32.

use std::io::Read;
use std::path::Path;

use super::{DataError, array::Header, element::Encoding, source::read_up_to};

/// Whether a file begins like IDX.
pub(super) fn is_idx(start: &[u8]) -> bool {
    matches!(start, [0, 0, 0x08..=0x0e, ..])
}

/// Reads the type and the size along each axis.
pub(super) fn read_header(path: &Path, reader: &mut impl Read) -> Result<Header, DataError> {
    let cut = || DataError::corrupt(path, "it ends inside its header");
    let magic = read_up_to(path, reader, 4)?;
    let [_, _, code, axes] = magic[..] else { return Err(cut()) };
    let encoding = Encoding::of_idx(code).ok_or_else(|| DataError::ElementType {
        path: path.to_path_buf(),
        found: format!("0x{code:02x}"),
        expected: "one of the types of IDX, 0x08, 0x09 or 0x0b to 0x0e",
    })?;
    let axes = usize::from(axes);
    let sizes = read_up_to(path, reader, 4 * axes as u64)?;
    if sizes.len() != 4 * axes {
        return Err(cut());
    }
    let sizes = sizes.as_chunks().0.iter();
    // No u32 is lost: std has files only where a pointer has at least 32 bits.
    let sizes = sizes.map(|&size| u32::from_be_bytes(size) as usize).collect();
    Ok(Header { sizes, encoding, is_fortran: false, length: 4 + 4 * axes as u64 })
}

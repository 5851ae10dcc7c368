//! IDX, the format of MNIST: two zero bytes, the type, the number of axes, their sizes as big-endian u32, the data.

use std::io::Read;
use std::path::Path;

use ndarray::Array2;

use super::{DataError, Images, Layout, check_memory, labels::number_of_labels};

const UNSIGNED_BYTE: u8 = 0x08;

/// Reads from the beginning of the (decompressed) file to its end.
pub(super) fn read(path: &Path, mut reader: impl Read) -> Result<Images, DataError> {
    let sizes = read_header(path, &mut reader)?;
    if let [count] = sizes[..] {
        return Err(DataError::Labels { path: path.to_path_buf(), count });
    }
    let layout = Layout::new(path, &sizes)?;
    let count = layout.rows.checked_mul(layout.variables).ok_or_else(|| DataError::too_large(path, &sizes))?;
    let bytes = read_bytes(path, reader, count as u64)?;
    check_memory::<f32>(path, count, &sizes)?;
    let values = bytes.into_iter().map(f32::from).collect();
    let values = Array2::from_shape_vec((layout.rows, layout.variables), values)
        .map_err(|error| DataError::corrupt(path, error.to_string()))?;
    Ok(Images { values, shape: layout.shape, eight_bit: true })
}

/// Reads labels, a byte each.
pub(super) fn read_labels(path: &Path, mut reader: impl Read) -> Result<Vec<usize>, DataError> {
    let sizes = read_header(path, &mut reader)?;
    let count = number_of_labels(path, &sizes)?;
    let bytes = read_bytes(path, reader, count as u64)?;
    Ok(bytes.into_iter().map(usize::from).collect())
}

/// The size along each axis.
fn read_header(path: &Path, reader: &mut impl Read) -> Result<Vec<usize>, DataError> {
    let magic = read_up_to(path, reader, 4)?;
    let (element, axes) = match magic[..] {
        [0, 0, element @ (0x08 | 0x09 | 0x0b..=0x0e), axes] => (element, usize::from(axes)),
        _ => {
            return Err(DataError::UnknownFormat {
                path: path.to_path_buf(),
                found: hexadecimal(&magic),
                expected: "a .npy or .npz file, an IDX file (plain or gzip) or a folder of PNG files",
            });
        }
    };
    if element != UNSIGNED_BYTE {
        return Err(DataError::ElementType {
            path: path.to_path_buf(),
            found: element_name(element).to_owned(),
            expected: "unsigned bytes (IDX type 0x08)",
        });
    }
    let sizes = read_up_to(path, reader, 4 * axes as u64)?;
    if sizes.len() != 4 * axes {
        return Err(DataError::corrupt(path, "it ends inside its header"));
    }
    let sizes = sizes.as_chunks().0.iter();
    // No u32 is lost: std has files only where a pointer has at least 32 bits.
    Ok(sizes.map(|&size| u32::from_be_bytes(size) as usize).collect())
}

fn read_up_to(path: &Path, reader: &mut impl Read, limit: u64) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    reader.take(limit).read_to_end(&mut bytes).map_err(|error| DataError::reading(path, error))?;
    Ok(bytes)
}

/// All the data. The memory grows with what is really there, so that a false header costs nothing.
fn read_bytes(path: &Path, mut reader: impl Read, declared: u64) -> Result<Vec<u8>, DataError> {
    // One more than declared shows whether the file goes on; it also takes gzip to its checksum.
    let bytes = read_up_to(path, &mut reader, declared.saturating_add(1))?;
    let path = path.to_path_buf();
    match bytes.len() as u64 {
        found if found < declared => Err(DataError::Truncated { path, declared, found }),
        found if found > declared => Err(DataError::TooLong { path, declared }),
        _ => Ok(bytes),
    }
}

fn element_name(element: u8) -> &'static str {
    match element {
        0x09 => "signed byte (IDX type 0x09)",
        0x0b => "16-bit integer (IDX type 0x0b)",
        0x0c => "32-bit integer (IDX type 0x0c)",
        0x0d => "f32 (IDX type 0x0d)",
        _ => "f64 (IDX type 0x0e)",
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "(none)".to_owned();
    }
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

//! The header of `.npy`. `ndarray-npy` parses it; here it is checked first, because the parser descends as deep as a
//! header is nested and knows neither Python 2 nor what a user should do.

use std::io::Read;
use std::path::Path;

use ndarray_npy::npy::header::{Header as NpyHeader, ReadHeaderError};

use super::{
    DataError,
    array::Header,
    element::{Encoding, TYPES},
    source::read_up_to,
};

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that numpy itself reads from an untrusted file.
const MAX_HEADER: usize = 10_000;

/// The longest with the spaces that some writers leave room by.
const MAX_PADDED: u32 = 1 << 20;

/// Enough for any type that numpy writes; the time of the parser grows exponentially with the nesting.
const MAX_NESTING: usize = 6;

/// Reads the type and the size along each axis.
pub(super) fn read_header(path: &Path, reader: &mut impl Read) -> Result<Header, DataError> {
    let (version, text, length) = read_text(path, reader)?;
    if has_fields(&text) {
        return Err(DataError::Fields { path: path.to_path_buf() });
    }
    if text.len() > MAX_HEADER {
        return Err(DataError::Header { path: path.to_path_buf(), found: text.len() as u64, expected: MAX_HEADER });
    }
    if nesting(&text) > MAX_NESTING {
        return Err(DataError::corrupt(path, "its .npy header is nested too deeply"));
    }
    let header = parse(version, without_longs(text)).map_err(|error| match error {
        ReadHeaderError::Io(error) => DataError::reading(path, error),
        // The parser draws where it stands on further lines.
        ReadHeaderError::Parse(error) => {
            let error = error.to_string();
            let line = error.lines().next().unwrap_or_default();
            DataError::corrupt(path, format!("its .npy header is invalid ({line})"))
        }
    })?;
    let descriptor = header.type_descriptor.as_string();
    let encoding = descriptor.and_then(|descriptor| Encoding::of_numpy(descriptor));
    let encoding = encoding.ok_or_else(|| DataError::ElementType {
        path: path.to_path_buf(),
        found: header.type_descriptor.to_string(),
        expected: TYPES,
    })?;
    Ok(Header { sizes: header.shape, encoding, is_fortran: header.layout.is_fortran(), length })
}

/// The version and the dictionary of a header, without the spaces around it; and the bytes that all of it takes.
fn read_text(path: &Path, reader: &mut impl Read) -> Result<([u8; 2], Vec<u8>, u64), DataError> {
    let reading = |error| DataError::reading(path, error);
    let mut magic = [0; MAGIC.len()];
    reader.read_exact(&mut magic).map_err(reading)?;
    let mut version = [0; 2];
    reader.read_exact(&mut version).map_err(reading)?;
    let mut length = [0; 4];
    let of_length = length_bytes(version);
    reader.read_exact(&mut length[..of_length]).map_err(reading)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_PADDED {
        return Err(DataError::Header { path: path.to_path_buf(), found: length.into(), expected: MAX_HEADER });
    }
    let text = read_up_to(path, reader, length.into())?;
    if text.len() as u64 != u64::from(length) {
        return Err(DataError::corrupt(path, "it ends inside its header"));
    }
    let taken = (magic.len() + version.len() + of_length) as u64 + u64::from(length);
    Ok((version, text.trim_ascii().to_vec(), taken))
}

/// Version 1 has a length of two bytes, the later ones of four.
fn length_bytes(version: [u8; 2]) -> usize {
    if version[0] == 1 { 2 } else { 4 }
}

fn parse(version: [u8; 2], text: Vec<u8>) -> Result<NpyHeader, ReadHeaderError> {
    let length = (text.len() as u32 + 1).to_le_bytes();
    let header = [MAGIC, &version, &length[..length_bytes(version)], &text, b"\n"].concat();
    NpyHeader::from_reader(&mut &header[..])
}

/// Whether the type is a list: that of a table of several fields.
fn has_fields(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let descriptor = text.split_once("'descr'").map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    descriptor.is_some_and(|descriptor| descriptor.starts_with('['))
}

/// Python 2 wrote `40L` for 40: an L behind a digit becomes a space, unless it is quoted.
fn without_longs(mut text: Vec<u8>) -> Vec<u8> {
    let mut quoted = false;
    for at in 1..text.len() {
        quoted ^= text[at] == b'\'';
        if text[at] == b'L' && text[at - 1].is_ascii_digit() && !quoted {
            text[at] = b' ';
        }
    }
    text
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

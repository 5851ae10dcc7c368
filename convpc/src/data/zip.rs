//! As much of ZIP as `.npz` needs: the directory with its 64-bit extension, stored and deflated entries, checksums.
//!
//! `ndarray-npy` opens archives too, but it gives no view of an array's header before it reserves what that claims.
//! Offsets below are those of the ZIP specification, APPNOTE 6.3, sections 4.3.7 to 4.3.16.

use std::io::{self, BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

use flate2::CrcReader;
use flate2::bufread::DeflateDecoder;

use super::DataError;

pub(super) const MAGIC: &[u8] = b"PK";

const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const DIRECTORY_END: &[u8] = b"PK\x05\x06";
const DIRECTORY_END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";

/// The end record and the longest comment that may follow it.
const MAX_END: u64 = 22 + 0xffff;
/// The value of a 32-bit field whose real value is in the 64-bit extension.
const IN_EXTENSION: u64 = 0xffff_ffff;
/// The best that deflate can do is 258 bytes from two bits.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// A file in the archive.
pub(super) struct Entry {
    /// Its name, with its ending.
    pub(super) name: String,
    /// Its length once decompressed.
    pub(super) size: u64,
    compressed: u64,
    encrypted: bool,
    method: u16,
    checksum: u32,
    offset: u64,
}

/// Lists the files of an archive that is `length` bytes long.
pub(super) fn entries(path: &Path, file: &mut (impl Read + Seek), length: u64) -> Result<Vec<Entry>, DataError> {
    let damaged = || DataError::corrupt(path, "its ZIP directory is missing or invalid");
    let directory =
        read_directory(file, length).map_err(|error| DataError::reading(path, error))?.ok_or_else(damaged)?;
    let mut entries = Vec::new();
    let mut rest = &directory[..];
    while !rest.is_empty() {
        let (entry, length) = parse_entry(rest).ok_or_else(damaged)?;
        entries.push(entry);
        rest = rest.get(length..).ok_or_else(damaged)?;
    }
    Ok(entries)
}

/// The bytes of the directory, or `None` if the file has none.
fn read_directory(file: &mut (impl Read + Seek), length: u64) -> io::Result<Option<Vec<u8>>> {
    let start = length.saturating_sub(MAX_END);
    let tail = read_at(file, start, length - start)?;
    let Some(end) = find_end(&tail) else {
        return Ok(None);
    };
    let field = |at| number(&tail, end + at, 4);
    let (mut size, mut offset) = (field(12), field(16));
    if size == Some(IN_EXTENSION) || offset == Some(IN_EXTENSION) || number(&tail, end + 10, 2) == Some(0xffff) {
        let locator = end.checked_sub(20).filter(|&at| tail[at..].starts_with(LOCATOR_64));
        let Some(at) = locator.and_then(|locator| number(&tail, locator + 8, 8)) else {
            return Ok(None);
        };
        let record = read_at(file, at, 56)?;
        if !record.starts_with(DIRECTORY_END_64) {
            return Ok(None);
        }
        (size, offset) = (number(&record, 40, 8), number(&record, 48, 8));
    }
    let (Some(size), Some(offset)) = (size, offset) else {
        return Ok(None);
    };
    let directory = read_at(file, offset, size)?;
    Ok((directory.len() as u64 == size).then_some(directory))
}

/// The position of the end record: the last one whose comment fills the file exactly.
fn find_end(tail: &[u8]) -> Option<usize> {
    let fits = |&at: &usize| {
        tail[at..].starts_with(DIRECTORY_END)
            && number(tail, at + 20, 2).is_some_and(|comment| comment == (tail.len() - at - 22) as u64)
    };
    (0..=tail.len().checked_sub(22)?).rev().find(fits)
}

/// The entry at the beginning of `bytes` and the length of its record.
fn parse_entry(bytes: &[u8]) -> Option<(Entry, usize)> {
    if !bytes.starts_with(DIRECTORY_ENTRY) {
        return None;
    }
    let field = |at, length| number(bytes, at, length);
    let name_end = 46 + field(28, 2)? as usize;
    let extra_end = name_end + field(30, 2)? as usize;
    let name = bytes.get(46..name_end)?;
    let mut extension = extension_64(bytes.get(name_end..extra_end)?).chunks_exact(8);
    // The extension holds only the fields that do not fit, in this order.
    let mut wide = |value| match value {
        IN_EXTENSION => extension.next().and_then(|bytes| number(bytes, 0, 8)),
        _ => Some(value),
    };
    let size = wide(field(24, 4)?)?;
    let compressed = wide(field(20, 4)?)?;
    let offset = wide(field(42, 4)?)?;
    let entry = Entry {
        name: String::from_utf8_lossy(name).into_owned(),
        size,
        compressed,
        encrypted: field(8, 2)? & 1 != 0,
        method: field(10, 2)? as u16,
        checksum: field(16, 4)? as u32,
        offset,
    };
    Some((entry, extra_end + field(32, 2)? as usize))
}

/// The 64-bit extension among the extra fields of an entry, each an id and a length of two bytes; empty if not there.
fn extension_64(mut extra: &[u8]) -> &[u8] {
    while let (Some(id), Some(length)) = (number(extra, 0, 2), number(extra, 2, 2)) {
        let end = 4 + length as usize;
        let Some(field) = extra.get(4..end) else {
            break;
        };
        if id == 1 {
            return field;
        }
        extra = &extra[end..];
    }
    &[]
}

/// The little-endian number of `length` <= 8 bytes at `at`.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// Up to `length` bytes; fewer at the end of the file.
fn read_at(file: &mut (impl Read + Seek), offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // No file is longer than this, and to seek there is an error.
    if i64::try_from(offset).is_err() {
        return Ok(bytes);
    }
    file.seek(SeekFrom::Start(offset))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file of an archive that is `length` bytes long.
pub(super) fn open<R: Read + Seek>(
    path: &Path,
    mut file: R,
    length: u64,
    entry: &Entry,
) -> Result<Contents<R>, DataError> {
    let corrupt = |reason: &str| DataError::corrupt(path, format!("its entry '{}' {reason}", entry.name));
    if entry.encrypted {
        return Err(corrupt("is encrypted, which .npz files never are"));
    }
    let header = read_at(&mut file, entry.offset, 30).map_err(|error| DataError::reading(path, error))?;
    let (Some(name), Some(extra)) = (number(&header, 26, 2), number(&header, 28, 2)) else {
        return Err(corrupt("lies outside the file"));
    };
    if !header.starts_with(LOCAL_HEADER) {
        return Err(corrupt("does not begin with a ZIP header"));
    }
    // The header was read from there, so that these small numbers cannot overflow.
    let start = entry.offset + 30 + name + extra;
    if start.saturating_add(entry.compressed) > length {
        return Err(corrupt("goes on after the end of the file"));
    }
    file.seek(SeekFrom::Start(start)).map_err(|error| DataError::reading(path, error))?;
    let stored = BufReader::new(file.take(entry.compressed));
    let unpacked = match entry.method {
        0 if entry.size == entry.compressed => Unpacked::Stored(stored),
        8 if entry.size <= entry.compressed.saturating_mul(MAX_DEFLATE_RATIO) => {
            Unpacked::Deflated(DeflateDecoder::new(stored))
        }
        0 | 8 => return Err(corrupt("claims a length that it cannot have")),
        _ => {
            return Err(corrupt("is compressed by a method other than deflate, the one that numpy uses"));
        }
    };
    Ok(Contents { reader: CrcReader::new(unpacked), checksum: entry.checksum })
}

/// The decompressed bytes of an entry.
pub(super) struct Contents<R> {
    reader: CrcReader<Unpacked<R>>,
    checksum: u32,
}

enum Unpacked<R> {
    Stored(BufReader<Take<R>>),
    Deflated(DeflateDecoder<BufReader<Take<R>>>),
}

impl<R: Read> Contents<R> {
    /// Checks what was read, which has to be everything, against the checksum.
    pub(super) fn finish(self, path: &Path) -> Result<(), DataError> {
        if self.reader.crc().sum() == self.checksum {
            Ok(())
        } else {
            Err(DataError::corrupt(path, "its checksum does not match its contents"))
        }
    }
}

impl<R: Read> Read for Contents<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stored(reader) => reader.read(buffer),
            Self::Deflated(reader) => reader.read(buffer),
        }
    }
}

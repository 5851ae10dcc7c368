//! Names the formats that are not read here, so that an error can say what to do.

use std::path::Path;

use super::DataError;

const UNPACK: &str = "unpack it and give the file that was inside";
const CONVERT: &str = "convert it to PNG";
const SAVE: &str = "load it in Python and write it with numpy.save";

/// How files of other formats begin, what they are, and the remedy.
const OTHERS: [(&[u8], &str, &str); 16] = [
    (b"BZh", "compressed by bzip2", UNPACK),
    (b"\xfd7zXZ\0", "compressed by xz (lzma)", UNPACK),
    (b"\x5d\0\0", "compressed by lzma", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", UNPACK),
    (b"\x1f\x8b", "compressed twice by gzip", UNPACK),
    (b"PK", "a ZIP archive in another file", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (b"\x89HDF", "an HDF5 file", SAVE),
    (b"PAR1", "a Parquet file", SAVE),
    (b"MATLAB", "a MATLAB file", SAVE),
    (b"\x80", "a Python pickle", SAVE),
    (b"GIF8", "a GIF picture", CONVERT),
    (b"BM", "a BMP picture", CONVERT),
    (b"II*\0", "a TIFF picture", CONVERT),
    (b"MM\0*", "a TIFF picture", CONVERT),
    (b"%PDF", "a PDF document", CONVERT),
];

/// The error of contents that begin so.
pub(super) fn unknown(path: &Path, start: &[u8]) -> DataError {
    let path = path.to_path_buf();
    let other = OTHERS.iter().find(|(magic, ..)| start.starts_with(magic)).map(|&(_, what, remedy)| (what, remedy));
    let is_text = !start.is_empty() && start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let text = ("text, such as CSV", "load it with numpy.loadtxt and write it with numpy.save");
    match other.or(is_text.then_some(text)) {
        Some((what, remedy)) => DataError::OtherFormat { path, what, remedy },
        None => DataError::UnknownFormat { path, found: hexadecimal(start) },
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "(none)".to_owned();
    }
    let bytes: Vec<String> = bytes.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}

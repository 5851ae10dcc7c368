//! What can go wrong with a data file.

use std::io;
use std::path::{Path, PathBuf};

use super::ImageShape;

/// Why data could not be read or written. The text names the file, what it holds, what was expected and a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Nothing has this name.
    #[error("there is no file or folder '{path}'; check the spelling and the folder that you are in")]
    NotFound {
        /// The name that was given.
        path: PathBuf,
    },
    /// The system refuses access.
    #[error("permission to read '{path}' is denied; make it readable for this user")]
    PermissionDenied {
        /// The file or folder.
        path: PathBuf,
    },
    /// A device, a pipe or another thing that is neither a file nor a folder.
    #[error("'{path}' is neither a file nor a folder; save its contents to a file first")]
    NotAFile {
        /// The name that was given.
        path: PathBuf,
    },
    /// Reading failed for another reason.
    #[error("cannot read '{path}': {source}; check the disk or the connection and try again")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Writing failed; nothing was changed.
    #[error("cannot write '{path}': {source}; check that the folder exists, is writable and has room")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("'{path}' is empty (0 bytes); an earlier download or export probably failed: repeat it")]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// The contents begin like none of the known formats.
    #[error(
        "'{path}' begins with the bytes {found}, which is no known format; expected {expected}: convert it to one of these"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its first bytes (after decompression), in hexadecimal.
        found: String,
        /// The formats that are known here.
        expected: &'static str,
    },
    /// The file is damaged.
    #[error("'{path}' is damaged or not what it seems: {reason}; download or export it again")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file ends before its data do.
    #[error(
        "'{path}' is cut short: its header declares {declared} bytes of data, but there are {found}; download or export it again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The bytes of data that the header declares.
        declared: u64,
        /// The bytes of data that are there.
        found: u64,
    },
    /// The file goes on after its data.
    #[error(
        "'{path}' is too long: its header declares {declared} bytes of data, but more follow; download or export it again"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bytes of data that the header declares.
        declared: u64,
    },
    /// The array does not fit in memory (or in the address space).
    #[error("the array of shape {} in '{path}' does not fit in memory; split it into smaller files", dims(.shape))]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// The size along each axis.
        shape: Vec<usize>,
    },
    /// The numbers have a type that is not read here.
    #[error("'{path}' holds numbers of type {found}; expected {expected}: convert them, in numpy with .astype(...)")]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The type, as the file calls it.
        found: String,
        /// The types that are accepted.
        expected: &'static str,
    },
    /// The array has the wrong number of axes.
    #[error("'{path}' holds an array of {} axes (shape {}); expected {expected}: reshape it", .shape.len(), dims(.shape))]
    Axes {
        /// The file.
        path: PathBuf,
        /// The size along each axis.
        shape: Vec<usize>,
        /// The axes that are accepted.
        expected: &'static str,
    },
    /// An array with an axis of size zero.
    #[error("'{path}' holds no values (shape {}); expected at least one row of at least one variable: check its export", dims(.shape))]
    NoValues {
        /// The file.
        path: PathBuf,
        /// The size along each axis.
        shape: Vec<usize>,
    },
    /// An IDX file of labels in place of images.
    #[error("'{path}' holds {count} labels, not images; expected the images file, whose name has 'images-idx3'")]
    Labels {
        /// The file.
        path: PathBuf,
        /// The number of labels.
        count: usize,
    },
    /// A number that cannot be a class.
    #[error("'{path}' holds the label {value} at row {row}; expected whole numbers from 0: renumber the classes")]
    NoLabel {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: usize,
        /// The value.
        value: i64,
    },
    /// A 64-bit number that has no 32-bit counterpart.
    #[error(
        "'{path}' holds the value {value} at row {row}, variable {variable}; expected at most 3.4e38 in size, since data are 32-bit: rescale them"
    )]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: usize,
        /// The variable, counted from 0.
        variable: usize,
        /// The value.
        value: f64,
    },
    /// An `.npz` file without arrays.
    #[error("'{path}' holds no array; expected one, or one named x, data or images: save it again")]
    NoArray {
        /// The file.
        path: PathBuf,
    },
    /// An `.npz` file with several arrays, none of which is known to be the images.
    #[error(
        "'{path}' holds several arrays ({}); expected one, or one named x, data or images: rename it, or save it alone",
        .names.join(", ")
    )]
    AmbiguousArray {
        /// The file.
        path: PathBuf,
        /// The names of the arrays.
        names: Vec<String>,
    },
    /// A folder without PNG files.
    #[error("the folder '{path}' holds no PNG file; expected images whose names end in .png: check the folder")]
    NoPng {
        /// The folder.
        path: PathBuf,
    },
    /// PNG files of different sizes or colors in one folder.
    #[error(
        "'{first}' is {first_shape} but '{other}' is {other_shape} (height x width x colors); expected all images of a folder alike: resize or convert one"
    )]
    ShapesDiffer {
        /// The first image of the folder.
        first: PathBuf,
        /// Its shape.
        first_shape: ImageShape,
        /// The first image that differs.
        other: PathBuf,
        /// Its shape.
        other_shape: ImageShape,
    },
    /// A PNG file whose samples are not 8-bit.
    #[error("'{path}' has samples of {found}; expected 8-bit grey or RGB: convert it")]
    PngSamples {
        /// The file.
        path: PathBuf,
        /// The kind of samples.
        found: String,
    },
    /// A PNG file that one can see through.
    #[error(
        "'{path}' is transparent at row {row}, column {column} (alpha {alpha}); expected opaque images (alpha 255): flatten it onto a background"
    )]
    Transparent {
        /// The file.
        path: PathBuf,
        /// The row of the pixel, counted from 0.
        row: usize,
        /// The column of the pixel, counted from 0.
        column: usize,
        /// Its alpha.
        alpha: u8,
    },
}

impl DataError {
    /// Sorts an error that came up while reading `path`.
    pub(super) fn reading(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { path },
            // Decompressors report damaged data with these kinds.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::corrupt(&path, source.to_string()),
            io::ErrorKind::UnexpectedEof => Self::corrupt(&path, "it ends in the middle"),
            _ => Self::Read { path, source },
        }
    }

    pub(super) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), reason: reason.into() }
    }

    pub(super) fn too_large(path: &Path, shape: &[usize]) -> Self {
        Self::TooLarge { path: path.to_path_buf(), shape: shape.to_vec() }
    }
}

/// A shape as people write it: 60000 x 28 x 28.
pub(super) fn dims(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "of a single number".to_owned();
    }
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    sizes.join(" x ")
}

#[cfg(test)]
mod tests {
    use super::*;

    // A superuser may read everything, so a refusal cannot be staged with real files.
    #[test]
    fn a_refusal_of_the_system_is_told_apart_from_damage() {
        let sort = |kind: io::ErrorKind| DataError::reading(Path::new("a.npy"), kind.into());
        assert!(matches!(sort(io::ErrorKind::PermissionDenied), DataError::PermissionDenied { .. }));
        assert!(matches!(sort(io::ErrorKind::NotFound), DataError::NotFound { .. }));
        assert!(matches!(sort(io::ErrorKind::InvalidData), DataError::Corrupt { .. }));
        assert!(matches!(sort(io::ErrorKind::TimedOut), DataError::Read { .. }));
    }

    #[test]
    fn texts_name_the_file_and_the_remedy() {
        let text = DataError::reading(Path::new("a.npy"), io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(text.contains("'a.npy'") && text.contains("make it readable"), "{text}");
        let text = DataError::too_large(Path::new("b.npy"), &[3, 4]).to_string();
        assert!(text.contains("3 x 4") && text.contains("split it"), "{text}");
    }
}

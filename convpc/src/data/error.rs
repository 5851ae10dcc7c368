//! What can go wrong with a data file.

use std::io;
use std::path::PathBuf;

use super::Element;

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
        "'{path}' begins with the bytes {found}, which is no known format; expected {READ_HERE}: convert it to one of these"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its first bytes (after decompression), in hexadecimal.
        found: String,
    },
    /// The contents are of a format that is known, but not read here.
    #[error("'{path}' is {what}, which is not read here; {remedy}; expected {READ_HERE}")]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// An entry of an archive that is compressed by a method that is not supported, or encrypted.
    #[error(
        "'{path}': its entry '{entry}' is {method}, which is not read here; expected deflate or no compression: save it again with numpy.savez_compressed"
    )]
    Packed {
        /// The archive.
        path: PathBuf,
        /// The name of the entry.
        entry: String,
        /// What was done to it.
        method: String,
    },
    /// A table whose columns have types of their own.
    #[error(
        "'{path}' holds records of several fields, not numbers of one type; save one field alone: numpy.save(file, a['field'])"
    )]
    Fields {
        /// The file.
        path: PathBuf,
    },
    /// The header of an `.npy` file is longer than is safe to parse.
    #[error(
        "'{path}' has a .npy header of {found} bytes; expected at most {expected}, as numpy does: load it with numpy.load(…, max_header_size={found}) and save it again"
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// The length of the header.
        found: u64,
        /// The longest that is read.
        expected: usize,
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
    /// The values would take more memory than they may.
    #[error(
        "the array of shape {} in '{path}' needs {needed} bytes of memory; expected at most {limit}: split it into smaller files, or raise Options::memory",
        dims(.shape)
    )]
    OverLimit {
        /// The file or folder.
        path: PathBuf,
        /// The size along each axis.
        shape: Vec<usize>,
        /// The bytes that the values take in memory.
        needed: u64,
        /// The bytes that they may take.
        limit: u64,
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
    /// An array of one axis, as labels are, in place of images.
    #[error(
        "'{path}' holds one axis of {count} numbers, as labels do; expected images (of MNIST, the file whose name has 'images-idx3')"
    )]
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
        value: String,
    },
    /// A number that f32, or the range of the levels, does not have.
    #[error("'{path}' holds the value {value} at row {row}, variable {variable}; expected {expected}")]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: usize,
        /// The variable, counted from 0.
        variable: usize,
        /// The value.
        value: String,
        /// The values that are accepted, and the remedy.
        expected: String,
    },
    /// A threshold that nothing can be compared with.
    #[error("the threshold is NaN; expected a number: values above it become 1")]
    Threshold,
    /// A number of levels that no leaf has.
    #[error("the number of levels is {levels}; expected 2 to 16777216")]
    Levels {
        /// The number of levels.
        levels: usize,
    },
    /// A range without extent.
    #[error("the range of values is from {low} to {high}; expected two finite numbers, the first one smaller")]
    Range {
        /// The lowest value.
        low: f64,
        /// The highest value.
        high: f64,
    },
    /// Numbers of a type whose range says nothing about the data.
    #[error(
        "'{path}' holds numbers of type {element}, which have no usual range; give the lowest and the highest value (--range LOW:HIGH)"
    )]
    UnknownRange {
        /// The file.
        path: PathBuf,
        /// The type.
        element: Element,
    },
    /// An array of four axes, two of which could be the colors.
    #[error(
        "'{path}' holds an array of shape {}, whose colors may be the second axis or the last; say which (--layout chw or --layout hwc)",
        dims(.shape)
    )]
    AmbiguousAxes {
        /// The file.
        path: PathBuf,
        /// The size along each axis.
        shape: Vec<usize>,
    },
    /// A mask that does not have the axes of the images.
    #[error(
        "the mask '{path}' has the shape {}; expected one axis of {variables} values{shape}: transpose or reshape it (numpy.transpose, numpy.moveaxis)",
        dims(.found)
    )]
    MaskShape {
        /// The file.
        path: PathBuf,
        /// The size along each axis.
        found: Vec<usize>,
        /// The number of variables of an image.
        variables: usize,
        /// The axes that are accepted too, in words.
        shape: String,
    },
    /// An `.npz` file without arrays.
    #[error("'{path}' holds no array; expected at least one: save it again")]
    NoArray {
        /// The file.
        path: PathBuf,
    },
    /// An `.npz` file with several arrays, none of which has a usual name.
    #[error(
        "'{path}' holds several arrays ({}), none named {}; say which: {path}:{}",
        .names.join(", "), .usual.join(", "), .names[0]
    )]
    AmbiguousArray {
        /// The file.
        path: PathBuf,
        /// The names of the arrays.
        names: Vec<String>,
        /// The names that are taken unasked.
        usual: Vec<String>,
    },
    /// An `.npz` file without the array that was asked for.
    #[error("'{path}': there is no array '{name}' in it; expected one of {}", .names.join(", "))]
    NoSuchArray {
        /// The file, with the name of the array.
        path: PathBuf,
        /// The name of the array.
        name: String,
        /// The names of the arrays that are there.
        names: Vec<String>,
    },
    /// The name of an array in a file that holds only one.
    #[error("'{path}' asks for the array '{name}', but the file is no .npz archive; leave out ':{name}'")]
    NoArchive {
        /// The file, with the name of the array.
        path: PathBuf,
        /// The name of the array.
        name: String,
    },
    /// A folder without pictures.
    #[error(
        "the folder '{path}' holds no picture; expected names that end in .png, .jpg, .jpeg or .webp, in it or in class folders: check the folder"
    )]
    NoPicture {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that was asked for classes and has none.
    #[error(
        "the folder '{path}' holds no class folders; expected a folder of pictures for each class: sort them so, or give a file of labels"
    )]
    NoClasses {
        /// The folder.
        path: PathBuf,
    },
    /// Pictures of different sizes, colors or types in one folder.
    #[error(
        "'{first}' is {first_kind} but '{other}' is {other_kind} (height x width x colors); expected all pictures alike: resize or convert one"
    )]
    PicturesDiffer {
        /// The first picture.
        first: PathBuf,
        /// Its shape and type.
        first_kind: String,
        /// The first picture that differs.
        other: PathBuf,
        /// Its shape and type.
        other_kind: String,
    },
    /// A picture of floats.
    #[error("'{path}' has samples of the type {found}; expected grey or RGB of 8 or 16 bits: convert it")]
    Samples {
        /// The file.
        path: PathBuf,
        /// The kind of samples.
        found: String,
    },
    /// A picture that one can see through.
    #[error(
        "'{path}' is transparent at row {row}, column {column} (alpha {alpha}); expected opaque pictures (alpha {opaque}): flatten it onto a background"
    )]
    Transparent {
        /// The file.
        path: PathBuf,
        /// The row of the pixel, counted from 0.
        row: usize,
        /// The column of the pixel, counted from 0.
        column: usize,
        /// Its alpha.
        alpha: u16,
        /// The alpha of an opaque pixel.
        opaque: u16,
    },
}

/// The formats that are read here, for people.
const READ_HERE: &str =
    "a .npy or .npz array, an IDX file (each plain or gzip), a PNG, JPEG or WebP picture or a folder of pictures";

/// A shape as people write it: 60000 x 28 x 28.
pub(super) fn dims(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "of a single number".to_owned();
    }
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    sizes.join(" x ")
}

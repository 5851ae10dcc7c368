//! `.npz` archives.

use std::io::Cursor;

use convpc::data::{self, DataError, Element, Images};
use ndarray::{Array2, array};
use ndarray_npy::NpzWriter;

use crate::tools::{assert_says, npy_of, read_bytes, shape, store, zip_of};

fn archive(compressed: bool, names: &[&str]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = if compressed { NpzWriter::new_compressed(&mut bytes) } else { NpzWriter::new(&mut bytes) };
    for (index, name) in names.iter().enumerate() {
        writer.add_array(*name, &Array2::from_elem((2, 3), index as f32)).unwrap();
    }
    writer.finish().unwrap();
    bytes.into_inner()
}

fn read(bytes: &[u8]) -> Result<Images, DataError> {
    read_bytes("a.npz", bytes)
}

#[test]
fn the_only_array_is_read_whatever_its_name() {
    for compressed in [false, true] {
        let images = read(&archive(compressed, &["anything"])).unwrap();
        assert_eq!(images.values, Array2::<f32>::zeros((2, 3)));
        assert_eq!(images.shape, None);
    }
}

#[test]
fn the_known_name_is_chosen() {
    for (names, chosen) in [
        (["labels", "x"], 1.0),
        (["data", "labels"], 0.0),
        (["labels", "images"], 1.0),
        (["images", "data"], 1.0),
        (["data", "x"], 1.0),
    ] {
        let images = read(&archive(true, &names)).unwrap();
        assert_eq!(images.values[(0, 0)], chosen, "{names:?}");
    }
}

#[test]
fn axes_and_bytes_are_as_in_npy() {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = NpzWriter::new_compressed(&mut bytes);
    writer.add_array("x", &array![[[1_u8, 2], [3, 4]]]).unwrap();
    writer.finish().unwrap();
    let images = read(bytes.get_ref()).unwrap();
    assert_eq!((images.shape, images.element), (shape(2, 2, 1), Element::U8));
    assert_eq!(images.values, array![[1.0, 2.0, 3.0, 4.0]]);
}

#[test]
fn unknown_names_are_listed() {
    let error = read(&archive(false, &["x_train", "y_train"])).unwrap_err();
    assert!(matches!(&error, DataError::AmbiguousArray { names, .. } if names == &["x_train", "y_train"]));
    assert_says(&error, &["x_train, y_train", "x, data, images", "a.npz:x_train"]);
}

#[test]
fn an_archive_without_arrays_is_an_error() {
    let error = read(&archive(false, &[])).unwrap_err();
    assert!(matches!(error, DataError::NoArray { .. }), "{error}");
}

/// One stored entry, described by the 64-bit extension as numpy does for large arrays; `edit` changes the fields.
fn zip64(contents: &[u8], edit: impl FnOnce(&mut Fields)) -> Vec<u8> {
    let mut checksum = flate2::Crc::new();
    checksum.update(contents);
    let mut fields = Fields {
        flags: 0,
        method: 0,
        checksum: checksum.sum(),
        size: contents.len() as u64,
        compressed: contents.len() as u64,
        offset: 0,
        entries: 1,
    };
    edit(&mut fields);
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.extend([0; 22]);
    bytes.extend([5, 0, 0, 0]);
    bytes.extend(b"x.npy");
    bytes.extend(contents);
    let directory = bytes.len() as u64;
    bytes.extend(b"PK\x01\x02\x2d\0\x2d\0");
    bytes.extend(fields.flags.to_le_bytes());
    bytes.extend(fields.method.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(fields.checksum.to_le_bytes());
    bytes.extend([0xff; 8]);
    // Lengths of the name, the extra fields and the comment.
    bytes.extend([5, 0, 34, 0, 1, 0]);
    bytes.extend([0; 8]);
    bytes.extend([0xff; 4]);
    bytes.extend(b"x.npy");
    // An unknown extra field, then the extension.
    bytes.extend([9, 0, 2, 0, 0, 0, 1, 0, 24, 0]);
    for field in [fields.size, fields.compressed, fields.offset] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.push(b'!');
    let end = bytes.len() as u64;
    bytes.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0");
    bytes.extend([0; 8]);
    // The number of entries, on this disk and on all.
    bytes.extend([fields.entries.to_le_bytes(); 2].concat());
    bytes.extend((end - directory).to_le_bytes());
    bytes.extend(directory.to_le_bytes());
    bytes.extend(b"PK\x06\x07\0\0\0\0");
    bytes.extend(end.to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([0xff; 12]);
    bytes.extend([3, 0]);
    bytes.extend(b"end");
    bytes
}

struct Fields {
    flags: u16,
    method: u16,
    checksum: u32,
    size: u64,
    compressed: u64,
    offset: u64,
    entries: u64,
}

#[test]
fn the_64_bit_extension_is_read() {
    let images = read(&zip64(&npy_of("|u1", "(1, 2)", &[3, 4]), |_| ())).unwrap();
    assert_eq!(images.values, array![[3.0, 4.0]]);
}

#[test]
fn damage_and_false_claims_are_errors() {
    let array = npy_of("|u1", "(1, 2)", &[3, 4]);
    let edit = |edit: fn(&mut Fields)| read(&zip64(&array, edit)).unwrap_err();
    assert_says(&edit(|fields| fields.checksum ^= 1), &["checksum"]);
    assert_says(&edit(|fields| fields.flags = 1), &["encrypted"]);
    for (method, name) in [(12, "bzip2"), (14, "lzma"), (93, "zstd"), (95, "xz"), (9, "Deflate64"), (98, "another")] {
        let error = read(&zip64(&array, |fields| fields.method = method)).unwrap_err();
        assert_says(&error, &["'x.npy'", name, "deflate", "savez"]);
        assert!(!error.to_string().contains("damaged"), "{error}");
    }
    assert_says(&edit(|fields| fields.size += 1), &["claims a length"]);
    assert_says(&edit(|fields| fields.offset = 1), &["does not begin"]);
    assert_says(&edit(|fields| fields.offset = 1 << 62), &["x.npy", "after the end of the file"]);
    assert_says(&edit(|fields| fields.offset = u64::MAX - 3), &["ZIP directory"]);
    let error = edit(|fields| fields.compressed = u64::MAX);
    assert_says(&error, &["after the end of the file"]);
    // A deflated entry cannot expand by more than a thousandfold.
    let error = edit(|fields| (fields.method, fields.size) = (8, 1 << 40));
    assert_says(&error, &["claims a length"]);
    assert_says(&edit(|fields| fields.entries = 1 << 40), &["ZIP directory"]);
    assert_says(&read(b"PK\x03\x04").unwrap_err(), &["ZIP directory"]);
}

#[test]
fn checksums_are_compared() {
    for compressed in [false, true] {
        let mut bytes = archive(compressed, &["x"]);
        let entry = bytes.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        bytes[entry + 16] ^= 1;
        assert_says(&read(&bytes).unwrap_err(), &["checksum"]);
    }
}

#[test]
fn an_array_that_claims_too_much_is_an_error() {
    let error = read(&zip64(&npy_of("<f4", "(1099511627776, 1)", &[0; 4]), |_| ())).unwrap_err();
    assert!(matches!(error, DataError::Truncated { found: 4, .. }), "{error}");
    let error = read(&zip64(&npy_of("|u1", "(1, 1)", &[0; 4]), |_| ())).unwrap_err();
    assert!(matches!(error, DataError::TooLong { declared: 1, .. }), "{error}");
    let error = read(&zip64(b"no array at all", |_| ())).unwrap_err();
    assert_says(&error, &["text"]);
}

#[test]
fn an_array_is_chosen_by_name() {
    let stored = store("a.npz", &archive(true, &["x_train", "y_train", "x"]));
    let choose = |name: &str| data::read(&stored.path.with_file_name(format!("a.npz:{name}")));
    for (name, value) in [("x_train", 0.0), ("y_train", 1.0), ("x", 2.0), ("x.npy", 2.0)] {
        assert_eq!(choose(name).unwrap().values[(0, 0)], value, "{name}");
    }
    let error = choose("x_test").unwrap_err();
    assert!(matches!(error, DataError::NoSuchArray { .. }), "{error}");
    assert_says(&error, &["a.npz", "'x_test'", "x_train, y_train, x"]);
    let lone = store("a.npy", &npy_of("|u1", "(1, 2)", &[3, 4]));
    let error = data::read(&lone.path.with_file_name("a.npy:x")).unwrap_err();
    assert!(matches!(error, DataError::NoArchive { .. }), "{error}");
    // A file whose own name has a colon is that file.
    let colon = store("a:x", &npy_of("|u1", "(1, 2)", &[3, 4]));
    assert!(data::read(&colon.path).is_ok());
}

#[test]
fn labels_and_masks_are_chosen_too() {
    let array = |data: &[u8]| npy_of("|u1", &format!("({},)", data.len()), data);
    let stored =
        store("a.npz", &zip_of(&[("x.npy", &array(&[0])), ("y.npy", &array(&[2, 1])), ("m.npy", &array(&[0, 1]))]));
    assert_eq!(data::read_labels(&stored.path).unwrap(), [2, 1]);
    assert_eq!(data::read_labels(&stored.path.with_file_name("a.npz:m")).unwrap(), [0, 1]);
    assert_eq!(data::read_mask(&stored.path.with_file_name("a.npz:m"), 2, None).unwrap(), [false, true]);
}

#[test]
fn folders_and_what_macos_adds_are_not_arrays() {
    let array = npy_of("|u1", "(1, 2)", &[3, 4]);
    for clutter in ["__MACOSX/._a.npy", "d/", "d/._a.npy", ".DS_Store", "__MACOSX/d/a.npy"] {
        let images = read(&zip_of(&[(clutter, b"\0\x05\x16\x07"), ("a.npy", &array)])).unwrap();
        assert_eq!(images.values, array![[3.0, 4.0]], "{clutter}");
    }
}

//! IDX, the format of MNIST, and files that are of no known format.

use convpc::data::{DataError, Element, read};
use ndarray::array;

use crate::tools::{assert_says, gzip, idx, idx_of, npy_of, read_bytes, shape};

#[test]
fn images_plain_and_compressed() {
    let file = idx(&[2, 1, 3], &[0, 1, 2, 253, 254, 255]);
    // The ending of the name does not matter.
    for (name, bytes) in [("images-idx3-ubyte", file.clone()), ("images.npy", gzip(&file))] {
        let images = read_bytes(name, &bytes).unwrap();
        assert_eq!(images.values, array![[0.0, 1.0, 2.0], [253.0, 254.0, 255.0]]);
        assert_eq!(images.shape, shape(1, 3, 1));
        assert_eq!(images.element, Element::U8);
    }
}

#[test]
fn two_and_four_axes() {
    let images = read_bytes("a", &idx(&[1, 2], &[7, 8])).unwrap();
    assert_eq!((images.values, images.shape), (array![[7.0, 8.0]], None));
    let images = read_bytes("a", &idx(&[1, 5, 1, 2], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])).unwrap();
    assert_eq!(images.shape, shape(5, 1, 2));
    assert_eq!(images.values, array![[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]]);
}

#[test]
fn gzip_in_several_parts_is_one_file() {
    let file = idx(&[1, 2], &[7, 8]);
    let parts = [gzip(&file[..5]), gzip(&file[5..])].concat();
    assert_eq!(read_bytes("a.gz", &parts).unwrap().values, array![[7.0, 8.0]]);
}

#[test]
fn labels_are_told_apart() {
    let error = read_bytes("labels", &idx(&[3], &[1, 2, 3])).unwrap_err();
    assert!(matches!(error, DataError::Labels { count: 3, .. }));
    assert_says(&error, &["3 numbers", "labels", "images-idx3"]);
}

#[test]
fn other_types_and_axes_are_errors() {
    for code in [0x0a, 0x0f] {
        let error = read_bytes("a", &idx_of(code, &[1, 1], &[0; 4])).unwrap_err();
        match code {
            0x0a => assert_says(&error, &["0x0a", "0x08, 0x09 or 0x0b to 0x0e"]),
            _ => assert_says(&error, &["00 00 0f 02", "no known format"]),
        }
    }
    let error = read_bytes("a", &idx(&[1, 1, 1, 1, 1], &[0])).unwrap_err();
    assert!(matches!(error, DataError::Axes { .. }), "{error}");
    let error = read_bytes("a", &idx(&[0, 28, 28], &[])).unwrap_err();
    assert!(matches!(error, DataError::NoValues { .. }), "{error}");
    assert_says(&error, &["0 x 28 x 28"]);
}

#[test]
fn too_few_and_too_many_bytes_are_errors() {
    for compress in [|bytes: &[u8]| bytes.to_vec(), gzip as fn(&[u8]) -> Vec<u8>] {
        let error = read_bytes("a", &compress(&idx(&[2, 2], &[0; 3]))).unwrap_err();
        assert!(matches!(error, DataError::Truncated { declared: 4, found: 3, .. }), "{error}");
        let error = read_bytes("a", &compress(&idx(&[2, 2], &[0; 5]))).unwrap_err();
        assert!(matches!(error, DataError::TooLong { declared: 4, .. }), "{error}");
        let error = read_bytes("a", &compress(&[0, 0, 8, 3, 0, 0])).unwrap_err();
        assert_says(&error, &["inside its header"]);
    }
}

#[test]
fn a_header_that_claims_too_much_is_an_error() {
    let error = read_bytes("a", &idx(&[u32::MAX, u32::MAX, 1], &[0; 8])).unwrap_err();
    assert!(matches!(error, DataError::Truncated { found: 8, .. }), "{error}");
    let error = read_bytes("a", &idx(&[u32::MAX; 4], &[0; 8])).unwrap_err();
    assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
}

#[test]
fn decompression_stops_where_the_header_ends_the_data() {
    // 64 MiB of zeros behind an image of four bytes: one byte too many is as far as it is read.
    let mut file = idx(&[1, 4], &[0; 4]);
    file.resize(64 << 20, 0);
    let mut packed = gzip(&file);
    // Damage behind that byte stays unseen.
    let end = packed.len();
    packed[end - 8..].fill(0xff);
    let error = read_bytes("a.gz", &packed).unwrap_err();
    assert!(matches!(error, DataError::TooLong { declared: 4, .. }), "{error}");
}

#[test]
fn damaged_gzip_is_an_error() {
    let packed = gzip(&idx(&[2, 2], &[1, 2, 3, 4]));
    let end = packed.len();
    let mut wrong_checksum = packed.clone();
    wrong_checksum[end - 8] ^= 1;
    for bytes in [&wrong_checksum[..], &packed[..end - 1], &packed[..12]] {
        let error = read_bytes("a.gz", bytes).unwrap_err();
        assert!(matches!(error, DataError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn unknown_formats_are_errors_that_show_the_beginning() {
    for (bytes, begin) in [
        (gzip(b""), "(none)"),
        (vec![0], "00"),
        (vec![0, 0, 1, 3], "00 00 01 03"),
        (b"\xfe\xed\xfa\xce".to_vec(), "fe ed fa ce"),
    ] {
        let error = read_bytes("a.npy", &bytes).unwrap_err();
        assert!(matches!(error, DataError::UnknownFormat { .. }), "{error}");
        assert_says(&error, &[begin, "folder of pictures"]);
    }
}

#[test]
fn formats_that_are_not_read_here_are_named_with_a_remedy() {
    for (bytes, what, remedy) in [
        (&b"1,2,3\n4,5,6\n"[..], "CSV", "numpy.loadtxt"),
        (b"label", "text", "numpy.loadtxt"),
        (b"BZh91AY&SY", "bzip2", "unpack"),
        (b"\xfd7zXZ\0\0", "xz (lzma)", "unpack"),
        (b"\x5d\0\0\x80\0", "lzma", "unpack"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd", "unpack"),
        (b"\x89HDF\r\n\x1a\n", "HDF5", "numpy.save"),
        (b"PAR1\x15", "Parquet", "numpy.save"),
        (b"\x80\x04\x95", "pickle", "numpy.save"),
        (b"GIF89a", "GIF", "PNG"),
        (b"II*\0\x08\0\0\0", "TIFF", "PNG"),
    ] {
        for bytes in [bytes.to_vec(), gzip(bytes)] {
            let error = read_bytes("a.npy", &bytes).unwrap_err();
            assert!(matches!(error, DataError::OtherFormat { .. }), "{error}");
            assert_says(&error, &["a.npy", what, remedy]);
            assert!(!error.to_string().contains("damaged"), "{error}");
        }
    }
    assert_says(&read_bytes("a", &gzip(&gzip(b"12"))).unwrap_err(), &["twice by gzip"]);
}

#[test]
fn what_follows_a_gzip_stream_is_passed_over() {
    for file in [idx(&[1, 2], &[7, 8]), npy_of("|u1", "(1, 2)", &[7, 8])] {
        // Zeros that fill a block of any size, and other words.
        for length in [1, 7, 512, 100_000] {
            let padded = [gzip(&file), vec![0; length]].concat();
            assert_eq!(read_bytes("a.gz", &padded).unwrap().values, array![[7.0, 8.0]], "{length} zeros");
        }
        let words = [gzip(&file), b"<!-- mirror -->".to_vec()].concat();
        assert_eq!(read_bytes("a.gz", &words).unwrap().values, array![[7.0, 8.0]]);
        // A wrong checksum before the padding is still found.
        let mut wrong = gzip(&file);
        let end = wrong.len();
        wrong[end - 8] ^= 1;
        wrong.resize(end + 512, 0);
        assert!(matches!(read_bytes("a.gz", &wrong), Err(DataError::Corrupt { .. })));
    }
}

#[test]
fn what_is_no_file_is_an_error() {
    let error = read_bytes("a.npy", b"").unwrap_err();
    assert!(matches!(error, DataError::EmptyFile { .. }));
    assert_says(&error, &["a.npy", "0 bytes"]);
    let folder = tempfile::tempdir().unwrap();
    let error = read(&folder.path().join("none.npy")).unwrap_err();
    assert!(matches!(error, DataError::NotFound { .. }));
    assert_says(&error, &["none.npy", "check the spelling"]);
}

#[cfg(unix)]
#[test]
fn a_device_is_an_error() {
    let error = read("/dev/zero".as_ref()).unwrap_err();
    assert!(matches!(error, DataError::NotAFile { .. }));
}

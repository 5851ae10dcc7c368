//! Masks: which variables of an image are missing.

use convpc::data::{DataError, ImageShape, read_mask};

use crate::tools::{TYPES, assert_says, data_of, npy_of, npy_of_sizes, store};

const SHAPE: Option<ImageShape> = Some(ImageShape { height: 2, width: 3, colors: 1 });
const COLOR: Option<ImageShape> = Some(ImageShape { height: 2, width: 3, colors: 3 });

#[test]
fn every_type_is_read() {
    let numbers = [0, 1, 1, 0, 0, 1];
    for (name, _, of) in TYPES {
        for (order, big_endian) in [("<", false), (">", true)] {
            let file = npy_of(&format!("{order}{name}"), "(2, 3)", &data_of(of, &numbers, big_endian));
            let mask = read_mask(&store("mask.npy", &file).path, 6, SHAPE).unwrap();
            assert_eq!(mask, numbers.map(|number| number == 1), "{order}{name}");
        }
    }
}

#[test]
fn what_is_not_zero_is_missing() {
    let values = [0.5_f64, 0.0, -0.0, f64::NAN, -1.0, 1e-300];
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mask = read_mask(&store("mask.npy", &npy_of("<f8", "(6,)", &bytes)).path, 6, None).unwrap();
    assert_eq!(mask, [true, false, false, true, true, true]);
}

#[test]
fn axes_are_compared_one_by_one() {
    // The sizes of a mask, of an image, and whether they fit.
    let cases: [(&[usize], _, bool); 12] = [
        (&[6], SHAPE, true),
        (&[2, 3], SHAPE, true),
        (&[2, 3, 1], SHAPE, true),
        (&[3, 2], SHAPE, false),
        (&[1, 2, 3], SHAPE, false),
        (&[6, 1], SHAPE, false),
        (&[18], COLOR, true),
        (&[2, 3, 3], COLOR, true),
        (&[3, 2, 3], COLOR, false),
        (&[2, 9], COLOR, false),
        (&[6], None, true),
        (&[2, 3], None, false),
    ];
    for (sizes, shape, fits) in cases {
        let count = sizes.iter().product();
        let variables = shape.and_then(|shape| shape.variables()).unwrap_or(6);
        let stored = store("mask.npy", &npy_of_sizes("|b1", sizes, &vec![1; count]));
        match read_mask(&stored.path, variables, shape) {
            Ok(mask) => assert!(fits && mask == vec![true; count], "{sizes:?} for {shape:?}"),
            Err(error) => {
                assert!(!fits && matches!(error, DataError::MaskShape { .. }), "{sizes:?} for {shape:?}: {error}");
                assert_says(&error, &["mask.npy", &sizes[0].to_string(), "transpose"]);
            }
        }
    }
}

#[test]
fn fortran_order_gives_the_same_mask() {
    let header = "{'descr': '|b1', 'fortran_order': True, 'shape': (2, 3), }";
    let mask = read_mask(&store("mask.npy", &crate::tools::npy(header, &[0, 1, 0, 1, 0, 0])).path, 6, SHAPE).unwrap();
    assert_eq!(mask, [false, false, false, true, true, false]);
}

#[test]
fn what_is_no_mask_is_an_error() {
    let mask = |bytes: &[u8]| read_mask(&store("mask.npy", bytes).path, 2, None).unwrap_err();
    assert!(matches!(mask(&npy_of("|b1", "()", &[1])), DataError::MaskShape { .. }));
    assert!(matches!(mask(&npy_of("|b1", "(0, 2)", &[])), DataError::MaskShape { .. }));
    assert!(matches!(mask(&npy_of("|b1", "(2,)", &[1])), DataError::Truncated { .. }));
    assert!(matches!(mask(&npy_of("|b1", "(2,)", &[2, 0])), DataError::Corrupt { .. }));
    assert!(matches!(mask(b""), DataError::EmptyFile { .. }));
    assert_says(&mask(b"nothing that is an array"), &["text", "numpy.save"]);
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read_mask(folder.path(), 2, None), Err(DataError::NotAFile { .. })));
    let missing = read_mask(&folder.path().join("mask.npy"), 2, None);
    assert!(matches!(missing, Err(DataError::NotFound { .. })));
}

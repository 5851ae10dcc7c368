//! Labels: one for each image.

use convpc::data::{DataError, read_labels};
use ndarray::{Array1, array};
use ndarray_npy::WriteNpyExt;

use crate::tools::{assert_says, gzip, idx, npy_of, store};

fn labels(name: &str, contents: &[u8]) -> Result<Vec<usize>, DataError> {
    read_labels(&store(name, contents).path)
}

#[test]
fn idx_plain_and_compressed() {
    let file = idx(&[4], &[7, 0, 255, 1]);
    for bytes in [file.clone(), gzip(&file)] {
        // The ending of the name does not matter.
        assert_eq!(labels("labels.npy", &bytes).unwrap(), [7, 0, 255, 1]);
    }
}

#[test]
fn numbers_of_numpy() {
    let mut bytes = Vec::new();
    array![3_i64, 0, 300].write_npy(&mut bytes).unwrap();
    assert_eq!(labels("a", &bytes).unwrap(), [3, 0, 300]);
    assert_eq!(labels("a", &npy_of("|u1", "(2,)", &[9, 8])).unwrap(), [9, 8]);
    assert_eq!(labels("a", &npy_of(">i4", "(1,)", &[0, 0, 1, 2])).unwrap(), [258]);
}

#[test]
fn what_is_no_list_of_labels_is_an_error() {
    let images = labels("images", &idx(&[2, 1, 3], &[0; 6])).unwrap_err();
    assert!(matches!(images, DataError::Axes { .. }), "{images}");
    assert_says(&images, &["2 x 1 x 3", "a label for each image"]);
    assert!(matches!(labels("a", &idx(&[0], &[])), Err(DataError::NoValues { .. })));
    assert!(matches!(labels("a", &idx(&[3], &[1, 2])), Err(DataError::Truncated { declared: 3, found: 2, .. })));
    assert!(matches!(labels("a", &gzip(&idx(&[1], &[1, 2]))), Err(DataError::TooLong { .. })));
    let mut negative = Vec::new();
    Array1::from(vec![2_i64, -1]).write_npy(&mut negative).unwrap();
    let negative = labels("a", &negative).unwrap_err();
    assert!(matches!(negative, DataError::NoLabel { row: 1, .. }));
    assert_says(&negative, &["label -1 at row 1", "renumber"]);
    let column = labels("a", &npy_of("|u1", "(2, 2)", &[0; 4])).unwrap_err();
    assert!(matches!(column, DataError::Axes { .. }), "{column}");
    assert_says(&column, &["2 x 2", "a column"]);
    assert!(matches!(labels("a", b"text"), Err(DataError::OtherFormat { .. })));
    let words = labels("a", &npy_of("<U5", "(1,)", &[0; 20])).unwrap_err();
    assert_says(&words, &["<U5", "integers of 8 to 64 bits"]);
}

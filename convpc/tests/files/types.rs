//! Every type of number in every container: one table for images, masks and labels.

use convpc::data::{DataError, read_labels};

use crate::tools::{TYPES, assert_says, data_of, gzip, idx_of, npy, npy_of, npy_of_sizes, read_bytes, store, zip_of};

/// Numbers that every type has.
const NUMBERS: [u8; 6] = [0, 1, 1, 0, 1, 0];

/// Files of these sizes that hold the numbers: each type, order and container, with its name for messages.
fn files(sizes: &[u32], numbers: &[u8]) -> Vec<(String, Vec<u8>)> {
    let axes: Vec<usize> = sizes.iter().map(|&size| size as usize).collect();
    let mut files = Vec::new();
    for (name, code, of) in TYPES {
        for (order, big_endian) in [("<", false), (">", true), ("|", false), ("=", cfg!(target_endian = "big"))] {
            let descriptor = format!("{order}{name}");
            let array = npy_of_sizes(&descriptor, &axes, &data_of(of, numbers, big_endian));
            files.push((format!("{descriptor} npy.gz"), gzip(&array)));
            files.push((format!("{descriptor} npz"), zip_of(&[("anything.npy", &array)])));
            files.push((format!("{descriptor} npy"), array));
        }
        if let Some(code) = code {
            let array = idx_of(code, sizes, &data_of(of, numbers, true));
            files.push((format!("IDX {code:#x} gz"), gzip(&array)));
            files.push((format!("IDX {code:#x} zip"), zip_of(&[("images-idx3-ubyte", &array)])));
            files.push((format!("IDX {code:#x}"), array));
        }
    }
    files
}

#[test]
fn images_of_every_type() {
    for (name, file) in files(&[2, 3], &NUMBERS) {
        let images = read_bytes("a", &file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(images.values.as_slice().unwrap(), NUMBERS.map(f32::from), "{name}");
    }
}

#[test]
fn labels_of_every_type_in_a_list_or_a_column() {
    for sizes in [&[6][..], &[6, 1]] {
        for (name, file) in files(sizes, &NUMBERS) {
            let labels = read_labels(&store("a", &file).path).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(labels, NUMBERS.map(usize::from), "{name}");
        }
    }
}

#[test]
fn labels_that_are_no_classes_are_errors_that_name_the_row() {
    let negative = |bits: &[u8]| [&[0; 8][..], bits].concat();
    for (descriptor, bits, text) in [
        ("<f8", 1.5_f64.to_le_bytes(), "1.5"),
        ("<f8", f64::NAN.to_le_bytes(), "NaN"),
        ("<f8", f64::INFINITY.to_le_bytes(), "inf"),
        ("<f8", 1e300_f64.to_le_bytes(), "1e300"),
        ("<i8", (-1_i64).to_le_bytes(), "-1"),
    ] {
        let file = npy_of(descriptor, "(2,)", &negative(&bits));
        let error = read_labels(&store("a", &file).path).unwrap_err();
        assert!(matches!(error, DataError::NoLabel { row: 1, .. }), "{error}");
        assert_says(&error, &[text, "row 1", "whole numbers from 0"]);
    }
}

#[test]
fn whole_numbers_that_f32_does_not_hold_are_errors_by_value() {
    let wide = |value: i64| read_bytes("a", &npy_of("<i8", "(1, 2)", &[[0; 8], value.to_le_bytes()].concat()));
    for value in [1 << 24, -(1 << 24), 1 << 40, 3 << 23] {
        assert_eq!(wide(value).unwrap().values[(0, 1)], value as f32);
    }
    for value in [(1 << 24) + 1, i64::MAX, i64::MIN + 1] {
        let error = wide(value).unwrap_err();
        assert!(matches!(error, DataError::OutOfRange { row: 0, variable: 1, .. }), "{error}");
        assert_says(&error, &["row 0, variable 1", "16777216"]);
    }
}

#[test]
fn headers_of_python_2() {
    for shape in ["(1L, 2L)", "(1L,2)", "(1, 2L,)"] {
        let images = read_bytes("a", &npy_of("|u1", shape, &[7, 8])).unwrap();
        assert_eq!(images.values.as_slice().unwrap(), [7.0, 8.0]);
    }
    // In a text it is a letter: the type is unknown, not '<f4 '.
    assert_says(&read_bytes("a", &npy_of("<f4L", "(1, 1)", &[0; 4])).unwrap_err(), &["<f4L"]);
}

#[test]
fn tables_of_several_fields_are_told_apart_from_damage() {
    for fields in [2, 1024] {
        let fields: String = (0..fields).map(|field| format!("('column_of_a_table_{field}', '<f4'), ")).collect();
        let header = format!("{{'descr': [{fields}], 'fortran_order': False, 'shape': (40,), }}");
        let error = read_bytes("a", &npy(&header, &[0; 160])).unwrap_err();
        assert!(matches!(error, DataError::Fields { .. }), "{error}");
        assert_says(&error, &["fields", "one field"]);
    }
}

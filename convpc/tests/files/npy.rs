//! `.npy` files of images and masks, and those that are written.

use convpc::data::{DataError, Element, NpyWriter, read, write_npy_f32, write_npy_f64};
use ndarray::{Array, Array1, Array2, Array4, ArrayD, Axis, ShapeBuilder, arr0, array};
use ndarray_npy::{WritableElement, WriteNpyExt};

use crate::tools::{assert_says, npy, npy_of, read_bytes, shape};

fn saved<A: WritableElement, D: ndarray::Dimension>(array: &Array<A, D>) -> Vec<u8> {
    let mut bytes = Vec::new();
    array.write_npy(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_of_two_axes_have_no_shape() {
    let images = read_bytes("a.npy", &saved(&array![[0_u8, 1, 255], [3, 4, 5]])).unwrap();
    assert_eq!(images.values, array![[0.0, 1.0, 255.0], [3.0, 4.0, 5.0]]);
    assert_eq!(images.shape, None);
    assert_eq!(images.element, Element::U8);
}

#[test]
fn three_and_four_axes_give_the_shape() {
    let values = Array::from_iter((0..24_u8).map(f32::from));
    let grey = values.into_shape_with_order((2, 3, 4)).unwrap();
    let images = read_bytes("a.npy", &saved(&grey)).unwrap();
    assert_eq!((images.values.dim(), images.shape), ((2, 12), shape(3, 4, 1)));
    assert_eq!(images.values[(1, 4 + 2)], grey[(1, 1, 2)]);
    assert!(matches!(images.element, Element::F32 | Element::F64));

    let color = Array4::from_shape_fn((2, 5, 2, 3), |(n, i, j, c)| (100 * n + 20 * i + 5 * j + c) as f32);
    let images = read_bytes("a.npy", &saved(&color)).unwrap();
    assert_eq!((images.values.dim(), images.shape), ((2, 30), shape(5, 2, 3)));
    // variable = (row * width + column) * colors + color
    assert_eq!(images.values[(1, (2 + 1) * 3 + 2)], color[(1, 1, 1, 2)]);
}

#[test]
fn fortran_order_gives_the_same_values() {
    let index = |(n, i, j, c): (usize, usize, usize, usize)| (1000 * n + 100 * i + 10 * j + c) as f64;
    let c_order = Array4::from_shape_fn((2, 5, 4, 3), index);
    let fortran = Array4::from_shape_fn((2, 5, 4, 3).f(), index);
    let bytes = saved(&fortran);
    assert!(String::from_utf8_lossy(&bytes).contains("'fortran_order': True"));
    assert_eq!(read_bytes("a.npy", &bytes).unwrap(), read_bytes("a.npy", &saved(&c_order)).unwrap());
    let bytes = saved(&Array2::from_shape_fn((2, 3).f(), |(n, v)| (10 * n + v) as u8));
    let images = read_bytes("a.npy", &bytes).unwrap();
    assert_eq!(images.values, array![[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]);
    assert!(images.values.is_standard_layout());
}

#[test]
fn big_endian_is_read() {
    let data: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_be_bytes()).collect();
    let images = read_bytes("a.npy", &npy_of(">f4", "(1, 2)", &data)).unwrap();
    assert_eq!(images.values, array![[1.5, -2.0]]);
}

#[test]
fn f64_is_rounded_and_what_is_not_finite_passes() {
    let images = read_bytes("a.npy", &saved(&array![[0.1_f64, f64::NAN], [f64::INFINITY, 1e-300]])).unwrap();
    assert_eq!(images.values[(0, 0)], 0.1_f32);
    assert!(images.values[(0, 1)].is_nan());
    assert_eq!(images.values[(1, 0)], f32::INFINITY);
    assert_eq!(images.values[(1, 1)], 0.0);
    assert!(matches!(images.element, Element::F32 | Element::F64));
}

#[test]
fn f64_beyond_f32_is_an_error_that_names_the_place() {
    let error = read_bytes("a.npy", &saved(&array![[0.0, 0.0, 0.0], [0.0, 0.0, -1e39]])).unwrap_err();
    assert!(matches!(error, DataError::OutOfRange { row: 1, variable: 2, .. }));
    assert_says(&error, &["-1e39 at row 1", "variable 2", "rescale"]);
    // The largest f32 is not beyond.
    assert!(read_bytes("a.npy", &saved(&array![[f64::from(f32::MAX)]])).is_ok());
}

#[test]
fn other_types_are_errors_that_name_the_type() {
    for name in ["|O", "<c8", "<U4", "|S3", "<M8[ns]", "<f16", "<u3"] {
        let error = read_bytes("a.npy", &npy_of(name, "(1, 1)", &[0; 16])).unwrap_err();
        assert!(matches!(error, DataError::ElementType { .. }), "{error}");
        assert_says(&error, &[name, "floats of 16, 32 or 64 bits", "astype"]);
    }
}

#[test]
fn other_numbers_of_axes_are_errors() {
    for array in [arr0(1.0).into_dyn(), ArrayD::zeros(vec![1, 1, 1, 1, 1])] {
        let error = read_bytes("a.npy", &saved(&array)).unwrap_err();
        assert!(matches!(&error, DataError::Axes { shape, .. } if shape == array.shape()), "{error}");
        assert_says(&error, &[&format!("{} axes", array.ndim()), "rows x variables", "reshape"]);
    }
    let error = read_bytes("a.npy", &saved(&Array1::<f64>::zeros(3))).unwrap_err();
    assert!(matches!(error, DataError::Labels { count: 3, .. }), "{error}");
}

#[test]
fn an_axis_of_size_zero_is_an_error() {
    for sizes in [vec![0, 4], vec![3, 0], vec![0, 2, 2], vec![1, 2, 0, 3]] {
        let error = read_bytes("a.npy", &saved(&ArrayD::<f32>::zeros(sizes.clone()))).unwrap_err();
        assert!(matches!(&error, DataError::NoValues { shape, .. } if *shape == sizes), "{error}");
    }
    // The other sizes do not fit in memory, which must not matter.
    let error = read_bytes("a.npy", &npy_of("<f4", "(0, 4611686018427387904, 8)", &[])).unwrap_err();
    assert!(matches!(error, DataError::NoValues { .. }), "{error}");
}

#[test]
fn too_few_and_too_many_bytes_are_errors() {
    let error = read_bytes("a.npy", &npy_of("<f4", "(2, 2)", &[0; 15])).unwrap_err();
    assert!(matches!(error, DataError::Truncated { declared: 16, found: 15, .. }), "{error}");
    let error = read_bytes("a.npy", &npy_of("|u1", "(2, 2)", &[0; 5])).unwrap_err();
    assert!(matches!(error, DataError::TooLong { declared: 4, .. }), "{error}");
}

#[test]
fn a_header_that_claims_too_much_is_an_error() {
    let error = read_bytes("a.npy", &npy_of("<f8", "(1099511627776, 1)", &[0; 8])).unwrap_err();
    assert!(matches!(error, DataError::Truncated { found: 8, .. }), "{error}");
    for sizes in ["(4294967296, 4294967296)", "(1, 4294967296, 4294967296)", "(2305843009213693952, 8, 2, 2)"] {
        let error = read_bytes("a.npy", &npy_of("<f8", sizes, &[0; 8])).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn hostile_headers_are_errors() {
    let nested = npy(&"{".repeat(60), &[]);
    assert_says(&read_bytes("a.npy", &nested).unwrap_err(), &["nested"]);
    let deep = npy(&"(".repeat(9_000), &[]);
    assert_says(&read_bytes("a.npy", &deep).unwrap_err(), &["nested"]);
    let long = npy(&"'".repeat(20_000), &[]);
    assert_says(&read_bytes("a.npy", &long).unwrap_err(), &["20000 bytes", "10000", "max_header_size"]);
    // Room that a writer left is no harm.
    let roomy = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2)}}{}", " ".repeat(30_000));
    assert!(read_bytes("a.npy", &npy(&roomy, &[7, 8])).is_ok());
    let mut longer = b"\x93NUMPY\x02\x00".to_vec();
    longer.extend(u32::MAX.to_le_bytes());
    assert_says(&read_bytes("a.npy", &longer).unwrap_err(), &["4294967295 bytes"]);
    assert_says(&read_bytes("a.npy", &npy("{'shape': 3}", &[])).unwrap_err(), &["header"]);
    assert_says(&read_bytes("a.npy", &npy_of("|u1", "(-1, 2)", &[])).unwrap_err(), &["header"]);
    assert_says(&read_bytes("a.npy", b"\x93NUMPY\x09\x00\0\0\0\0").unwrap_err(), &["version"]);
}

#[test]
fn written_arrays_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let scores = array![-1.0, 1.0 / 3.0, f64::NEG_INFINITY];
    write_npy_f64(&path, scores.view()).unwrap();
    let read_back: Array1<f64> = ndarray_npy::read_npy(&path).unwrap();
    assert_eq!(read_back, scores);

    let samples = Array4::from_shape_fn((2, 3, 5, 3), |(n, i, j, c)| (1000 * n + 100 * i + 10 * j + c) as f32);
    // A view that is in neither order in memory.
    let mut view = samples.view();
    view.swap_axes(1, 2);
    view.invert_axis(Axis(0));
    write_npy_f32(&path, view.into_dyn()).unwrap();
    let images = read(&path).unwrap();
    assert_eq!(images.shape, shape(5, 3, 3));
    assert_eq!(images.values[(0, (3 * 3 + 2) * 3 + 1)], 1231.0);
}

#[test]
fn an_array_that_is_written_in_parts_has_all_its_numbers_and_no_others() {
    for element in [Element::U8, Element::U16, Element::U32, Element::F32, Element::F64] {
        let mut file = NpyWriter::new(Vec::new(), element, &[2, 2, 1]).unwrap();
        file.write([0.0, 255.0, 3.0]).unwrap();
        file.write([7.0]).unwrap();
        assert!(file.write([1.0]).unwrap_err().to_string().contains("no room for more"), "{element}");
        let images = read_bytes("a", &file.finish().unwrap()).unwrap();
        assert_eq!((images.shape, images.element), (shape(2, 1, 1), element));
        assert_eq!(images.values, array![[0.0, 255.0], [3.0, 7.0]]);
    }
    let mut file = NpyWriter::new(Vec::new(), Element::U8, &[4]).unwrap();
    for outside in [256.0, -1.0, 0.5, f64::NAN] {
        let error = file.write([outside]).unwrap_err();
        assert!(error.to_string().contains(&format!("{outside} is no whole number from 0 to 255")), "{error}");
    }
    let mut file = NpyWriter::new(Vec::new(), Element::F32, &[4]).unwrap();
    file.write([1.0, 2.0]).unwrap();
    assert!(file.finish().unwrap_err().to_string().contains("lacks its last 2 numbers"));
}

#[test]
fn writing_into_a_missing_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none").join("a.npy");
    let error = write_npy_f64(&path, array![1.0].view()).unwrap_err();
    assert!(matches!(error, DataError::Write { .. }));
    assert_says(&error, &["a.npy", "check that the folder exists"]);
}

//! A random array in every container, type, order of bytes and layout is the same images.

use convpc::data::{Options, Values, read_with};
use ndarray::{Array4, ArrayD};
use proptest::prelude::*;

use crate::tools::{Row, TYPES, data_of, gzip, idx_of, npy, store, zip_of};

/// How the axes of the images lie in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Flat,
    Grey,
    ColorsLast,
    ColorsFirst,
}

/// Images of numbers that a type has: those of bool are 0 and 1.
fn images() -> impl Strategy<Value = (Array4<u8>, Row, Form)> {
    let sizes = (1_usize..4, 5_usize..9, 5_usize..9, 1_usize..5);
    let form = prop_oneof![Just(Form::Flat), Just(Form::Grey), Just(Form::ColorsLast), Just(Form::ColorsFirst)];
    (sizes, 0..TYPES.len(), form).prop_flat_map(|((rows, height, width, colors), row, form)| {
        let colors = if form == Form::Grey { 1 } else { colors };
        let largest = if TYPES[row].0 == "b1" { 1 } else { 127_u8 };
        prop::collection::vec(0..=largest, rows * height * width * colors).prop_map(move |values| {
            (Array4::from_shape_vec((rows, height, width, colors), values).unwrap(), TYPES[row], form)
        })
    })
}

fn arranged(images: &Array4<u8>, form: Form) -> ArrayD<u8> {
    let (rows, height, width, colors) = images.dim();
    let array = match form {
        Form::Flat => images.to_shape((rows, height * width * colors)).unwrap().to_owned().into_dyn(),
        Form::Grey => images.to_shape((rows, height, width)).unwrap().to_owned().into_dyn(),
        Form::ColorsLast => images.clone().into_dyn(),
        Form::ColorsFirst => images.view().permuted_axes([0, 3, 1, 2]).to_owned().into_dyn(),
    };
    array.as_standard_layout().into_owned()
}

/// The array in every container, with its name for messages.
fn files(array: &ArrayD<u8>, (name, code, of): Row) -> Vec<(String, Vec<u8>)> {
    let sizes: String = array.shape().iter().map(|size| format!("{size}, ")).collect();
    let c_order: Vec<u8> = array.iter().copied().collect();
    let fortran: Vec<u8> = array.t().iter().copied().collect();
    let mut files = Vec::new();
    for (order, is_fortran, values) in [("C", "False", &c_order), ("Fortran", "True", &fortran)] {
        for (endian, big_endian) in [('<', false), ('>', true)] {
            let header = format!("{{'descr': '{endian}{name}', 'fortran_order': {is_fortran}, 'shape': ({sizes}), }}");
            files.push((format!("{endian}{name}, {order}"), npy(&header, &data_of(of, values, big_endian))));
        }
    }
    if let Some(code) = code {
        let sizes: Vec<u32> = array.shape().iter().map(|&size| size as u32).collect();
        files.push((format!("IDX {code:#x}"), idx_of(code, &sizes, &data_of(of, &c_order, true))));
    }
    let packed = |(name, file): &(String, Vec<u8>)| {
        [(format!("{name}, gzip"), gzip(file)), (format!("{name}, ZIP"), zip_of(&[("array.npy", file)]))]
    };
    let packed: Vec<_> = files.iter().flat_map(packed).collect();
    files.extend(packed);
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_images_are_read_from_every_file((images, row, form) in images()) {
        let (rows, height, width, colors) = images.dim();
        let expected = images.mapv(f32::from).into_shape_with_order((rows, height * width * colors)).unwrap();
        let shape = crate::tools::shape(height, width, colors).filter(|_| form != Form::Flat);
        for (name, file) in files(&arranged(&images, form), row) {
            let stored = store("a", &file);
            let read = read_with(&stored.path, &Options::default()).unwrap();
            prop_assert_eq!((&read.values, read.shape), (&expected, shape), "{}", name);
            prop_assert!(read.values.is_standard_layout());
            let mut options = Options::default();
            options.values = Values::Quantize { levels: 128, range: Some((0.0, 127.0)) };
            let levels = read_with(&stored.path, &options).unwrap();
            prop_assert_eq!(&levels.values, &expected, "{} in levels", name);
        }
    }
}

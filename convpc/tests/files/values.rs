//! What becomes of values: two levels, or several.

use convpc::data::{DataError, Images, Options, Values, read_with};

use crate::tools::{TYPES, assert_says, data_of, npy_of, store};

fn read(file: &[u8], values: Values) -> Result<Images, DataError> {
    let mut options = Options::default();
    options.values = values;
    read_with(&store("a", file).path, &options)
}

fn floats(values: &[f64]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    npy_of("<f8", &format!("(1, {})", values.len()), &bytes)
}

fn row(images: Images) -> Vec<f32> {
    images.values.into_iter().collect()
}

#[test]
fn two_levels_of_every_type() {
    for (name, _, of) in TYPES {
        let file = npy_of(&format!(">{name}"), "(1, 3)", &data_of(of, &[0, 1, 1], true));
        let images = read(&file, Values::Binarize { threshold: 0.5 }).unwrap();
        assert_eq!(row(images), [0.0, 1.0, 1.0], "{name}");
    }
    // The threshold itself is 0, numbers beyond f32 are no matter, and what is missing stays so.
    let images =
        read(&floats(&[127.0, 127.1, 1e300, -1e300, f64::NAN]), Values::Binarize { threshold: 127.0 }).unwrap();
    let row = row(images);
    assert_eq!(row[..4], [0.0, 1.0, 1.0, 0.0]);
    assert!(row[4].is_nan());
    let error = read(&floats(&[1.0]), Values::Binarize { threshold: f64::NAN }).unwrap_err();
    assert!(matches!(error, DataError::Threshold), "{error}");
}

#[test]
fn levels_of_the_usual_ranges() {
    let quantize = |levels| Values::Quantize { levels, range: None };
    // Bytes that were divided by 255 come back.
    let bytes: Vec<f64> = (0..=255).map(f64::from).collect();
    let images = read(&floats(&bytes.iter().map(|byte| byte / 255.0).collect::<Vec<_>>()), quantize(256)).unwrap();
    assert_eq!(row(images), bytes.iter().map(|&byte| byte as f32).collect::<Vec<_>>());
    let eight_bit = read(&npy_of("|u1", "(1, 4)", &[0, 127, 128, 255]), quantize(2)).unwrap();
    assert_eq!(row(eight_bit), [0.0, 0.0, 1.0, 1.0]);
    let sixteen_bit = read(&npy_of("<u2", "(1, 3)", &[0, 0, 1, 1, 255, 255]), quantize(256)).unwrap();
    assert_eq!(row(sixteen_bit), [0.0, 1.0, 255.0]);
    assert!(read(&floats(&[f64::NAN]), quantize(4)).unwrap().values[(0, 0)].is_nan());
}

#[test]
fn levels_of_a_given_range() {
    let range = Some((-1.0, 1.0));
    let images = read(&floats(&[-1.0, 0.0, 1.0, -0.6]), Values::Quantize { levels: 3, range }).unwrap();
    assert_eq!(row(images), [0.0, 1.0, 2.0, 0.0]);
    // A range whose extent is beyond f64, and numbers beyond f32.
    let all = Some((f64::MIN, f64::MAX));
    let images = read(&floats(&[f64::MIN, 0.0, f64::MAX]), Values::Quantize { levels: 3, range: all }).unwrap();
    assert_eq!(row(images), [0.0, 1.0, 2.0]);
    let wide = npy_of("<i8", "(1, 2)", &[(1_i64 << 40).to_le_bytes(), ((1_i64 << 40) + 1).to_le_bytes()].concat());
    let range = Some(((1_i64 << 40) as f64, ((1_i64 << 40) + 1) as f64));
    assert_eq!(row(read(&wide, Values::Quantize { levels: 2, range }).unwrap()), [0.0, 1.0]);
}

#[test]
fn what_has_no_level_is_an_error() {
    let quantize = |levels, range| Values::Quantize { levels, range };
    for value in [1.5, -0.1, f64::INFINITY] {
        let error = read(&floats(&[0.5, value]), quantize(4, None)).unwrap_err();
        assert!(matches!(error, DataError::OutOfRange { row: 0, variable: 1, .. }), "{error}");
        assert_says(&error, &["from 0 to 1", "--range"]);
    }
    let error = read(&npy_of("<i4", "(1, 1)", &[0; 4]), quantize(4, None)).unwrap_err();
    assert!(matches!(error, DataError::UnknownRange { .. }), "{error}");
    assert_says(&error, &["i32", "--range LOW:HIGH"]);
    for (low, high) in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
        let error = read(&floats(&[0.5]), quantize(4, Some((low, high)))).unwrap_err();
        assert!(matches!(error, DataError::Range { .. }), "{error}");
    }
    for levels in [0, 1, (1 << 24) + 1] {
        let error = read(&floats(&[0.5]), quantize(levels, None)).unwrap_err();
        assert!(matches!(error, DataError::Levels { .. }), "{error}");
    }
}

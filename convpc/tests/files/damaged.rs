//! Files of every format, damaged in every place: an error or other numbers, never a panic or an endless read.

use std::fs;
use std::io::Cursor;

use convpc::data::{DataError, read, read_mask};
use image::{DynamicImage, ImageFormat, RgbImage};
use ndarray::Array3;
use ndarray_npy::{NpzWriter, WriteNpyExt};

use crate::tools::{gzip, idx, store};

fn npz(compressed: bool) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = if compressed { NpzWriter::new_compressed(&mut bytes) } else { NpzWriter::new(&mut bytes) };
    writer.add_array("x", &Array3::from_elem((2, 2, 3), 0.5_f32)).unwrap();
    writer.add_array("labels", &Array3::from_elem((1, 1, 1), 1.0_f64)).unwrap();
    writer.finish().unwrap();
    bytes.into_inner()
}

fn files() -> Vec<Vec<u8>> {
    let mut npy = Vec::new();
    Array3::from_elem((2, 2, 3), 0.5_f64).write_npy(&mut npy).unwrap();
    let idx = idx(&[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    vec![gzip(&npy), npy, npz(false), npz(true), gzip(&idx), idx]
}

/// A picture of so many rows and columns in each format.
fn pictures(side: u32) -> Vec<Vec<u8>> {
    let pixels = (0..side * side * 3).map(|value| (value * 37 % 251) as u8).collect();
    let picture = DynamicImage::from(RgbImage::from_raw(side, side, pixels).unwrap());
    let encode = |format| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP].map(encode).to_vec()
}

#[test]
fn half_a_picture_is_an_error() {
    for file in pictures(32) {
        let stored = store("a", &file);
        assert!(read(&stored.path).is_ok());
        for length in 0..file.len() - 20 {
            fs::write(&stored.path, &file[..length]).unwrap();
            assert!(read(&stored.path).is_err(), "{length} of {} bytes of {:?}", file.len(), &file[..4]);
        }
    }
}

#[test]
fn every_beginning_of_a_file_is_an_error() {
    for file in files() {
        let stored = store("a", &file);
        assert!(read(&stored.path).is_ok());
        for length in 0..file.len() {
            fs::write(&stored.path, &file[..length]).unwrap();
            let result = read(&stored.path);
            assert!(result.is_err(), "{length} of {} bytes", file.len());
        }
    }
}

#[test]
fn every_changed_byte_is_survived() {
    for mut file in [files(), pictures(8)].concat() {
        let stored = store("a", &file);
        for at in 0..file.len() {
            let original = file[at];
            for change in [0x01, 0x80, 0xff] {
                file[at] = original ^ change;
                fs::write(&stored.path, &file).unwrap();
                match read(&stored.path) {
                    Ok(images) => assert!(!images.values.is_empty()),
                    // Refused by name, never by a failure of the system.
                    Err(DataError::Read { source, .. }) => panic!("byte {at}: {source}"),
                    Err(_) => {}
                }
                let _ = read_mask(&stored.path, 6, None);
            }
            file[at] = original;
        }
    }
}

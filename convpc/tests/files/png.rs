//! Folders of PNG files.

use std::fs;
use std::path::Path;

use convpc::data::{DataError, read};
use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, Luma, RgbImage, RgbaImage};
use ndarray::array;
use tempfile::TempDir;

use crate::tools::{assert_says, shape};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn save(folder: &TempDir, name: &str, image: impl Into<DynamicImage>) {
    let path = folder.path().join(name);
    image.into().save_with_format(path, image::ImageFormat::Png).unwrap();
}

fn grey(width: u32, height: u32, samples: &[u8]) -> GrayImage {
    GrayImage::from_raw(width, height, samples.to_vec()).unwrap()
}

fn failure(folder: &TempDir) -> DataError {
    read(folder.path()).unwrap_err()
}

#[test]
fn grey_images_in_the_order_of_their_names() {
    let folder = folder();
    save(&folder, "b.png", grey(3, 1, &[4, 5, 6]));
    save(&folder, "c.PNG", grey(3, 1, &[7, 8, 255]));
    save(&folder, "a.png", grey(3, 1, &[1, 2, 3]));
    // Passed over: another ending, a hidden file and a folder.
    fs::write(folder.path().join("notes.txt"), "no image").unwrap();
    fs::write(folder.path().join("._a.png"), "no image").unwrap();
    fs::create_dir(folder.path().join("d.png")).unwrap();
    let images = read(folder.path()).unwrap();
    assert_eq!(images.values, array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 255.0]]);
    assert_eq!(images.shape, shape(1, 3, 1));
    assert!(images.eight_bit);
}

#[test]
fn rgb_images_keep_the_colors_of_a_pixel_together() {
    let folder = folder();
    save(&folder, "a.png", RgbImage::from_raw(1, 2, vec![1, 2, 3, 4, 5, 6]).unwrap());
    let images = read(folder.path()).unwrap();
    assert_eq!(images.values, array![[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]);
    assert_eq!(images.shape, shape(2, 1, 3));
}

#[test]
fn opaque_alpha_is_dropped() {
    let opaque = folder();
    save(&opaque, "a.png", RgbaImage::from_raw(1, 1, vec![1, 2, 3, 255]).unwrap());
    save(&opaque, "b.png", RgbImage::from_raw(1, 1, vec![4, 5, 6]).unwrap());
    assert_eq!(read(opaque.path()).unwrap().values, array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    let grey_opaque = folder();
    save(&grey_opaque, "a.png", GrayAlphaImage::from_raw(2, 1, vec![1, 255, 2, 255]).unwrap());
    assert_eq!(read(grey_opaque.path()).unwrap().values, array![[1.0, 2.0]]);
}

#[test]
fn transparency_is_an_error_that_names_the_pixel() {
    let folder = folder();
    let pixels = [1, 255, 2, 255, 3, 254, 4, 255];
    save(&folder, "a.png", GrayAlphaImage::from_raw(2, 2, pixels.to_vec()).unwrap());
    let error = failure(&folder);
    assert!(matches!(error, DataError::Transparent { row: 1, column: 0, alpha: 254, .. }), "{error}");
    assert_says(&error, &["a.png", "row 1, column 0", "flatten"]);
}

#[test]
fn sixteen_bits_are_an_error() {
    let folder = folder();
    save(&folder, "a.png", ImageBuffer::<Luma<u16>, _>::from_raw(1, 1, vec![1_u16]).unwrap());
    let error = failure(&folder);
    assert!(matches!(error, DataError::PngSamples { .. }), "{error}");
    assert_says(&error, &["a.png", "16 bits", "8-bit"]);
}

#[test]
fn different_shapes_are_an_error_that_names_both() {
    let sizes = folder();
    save(&sizes, "a.png", grey(3, 1, &[1, 2, 3]));
    save(&sizes, "b.png", grey(3, 1, &[1, 2, 3]));
    save(&sizes, "c.png", grey(1, 3, &[1, 2, 3]));
    let error = failure(&sizes);
    assert!(matches!(error, DataError::ShapesDiffer { .. }), "{error}");
    assert_says(&error, &["a.png", "1 x 3 x 1", "c.png", "3 x 1 x 1"]);
    let colors = folder();
    save(&colors, "a.png", grey(3, 1, &[1, 2, 3]));
    save(&colors, "b.png", RgbImage::from_raw(1, 1, vec![1, 2, 3]).unwrap());
    assert_says(&failure(&colors), &["1 x 3 x 1", "1 x 1 x 3"]);
}

#[test]
fn a_folder_without_images_is_an_error() {
    let folder = folder();
    assert!(matches!(failure(&folder), DataError::NoPng { .. }));
    fs::write(folder.path().join("a.jpg"), "no image").unwrap();
    assert_says(&failure(&folder), &["no PNG", ".png"]);
}

#[test]
fn damaged_images_are_errors_that_name_the_file() {
    let folder = folder();
    save(&folder, "a.png", grey(3, 1, &[1, 2, 3]));
    save(&folder, "b.png", grey(3, 1, &[1, 2, 3]));
    let path = folder.path().join("b.png");
    let bytes = fs::read(&path).unwrap();
    let mut wrong_checksum = bytes.clone();
    wrong_checksum[8 + 8 + 13] ^= 1;
    for damaged in [&b""[..], b"no image", &bytes[..20], &bytes[..bytes.len() / 2], &wrong_checksum] {
        fs::write(&path, damaged).unwrap();
        let error = failure(&folder);
        assert!(matches!(error, DataError::Corrupt { .. }), "{error}");
        assert_says(&error, &["b.png"]);
    }
}

#[test]
fn a_header_that_claims_too_much_is_an_error() {
    let folder = folder();
    // First a row alone is too much, then only all rows together.
    for side in [1 << 30, 1 << 16] {
        save(&folder, "a.png", grey(3, 1, &[1, 2, 3]));
        enlarge(&folder.path().join("a.png"), side);
        assert_says(&failure(&folder), &["a.png", "512 MiB"]);
    }
}

/// Sets the width and height of a PNG file and corrects the checksum of its header.
fn enlarge(path: &Path, side: u32) {
    let mut bytes = fs::read(path).unwrap();
    for at in [16, 20] {
        bytes[at..at + 4].copy_from_slice(&side.to_be_bytes());
    }
    let mut checksum = flate2::Crc::new();
    checksum.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    fs::write(path, bytes).unwrap();
}

//! Pictures, folders of them, and folders of class folders.

use std::fs;
use std::path::Path;

use convpc::data::{DataError, Element, Options, Values, class_names, read, read_labels, read_with};
use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, Luma, RgbImage, Rgba, RgbaImage};
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
    assert_eq!(images.element, Element::U8);
    assert_eq!(images.passed_over, ["d.png", "notes.txt"].map(|name| folder.path().join(name)));
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
fn sixteen_bits_keep_their_values() {
    let folder = folder();
    save(&folder, "a.png", ImageBuffer::<Luma<u16>, _>::from_raw(2, 1, vec![258_u16, 65_535]).unwrap());
    let images = read(folder.path()).unwrap();
    assert_eq!((images.values, images.element), (array![[258.0, 65_535.0]], Element::U16));
    let mut options = Options::default();
    options.values = Values::Quantize { levels: 256, range: None };
    assert_eq!(read_with(folder.path(), &options).unwrap().values, array![[1.0, 255.0]]);
    let color = folder_of("a.png", ImageBuffer::<Rgba<u16>, _>::from_raw(1, 1, vec![1_u16, 2, 3, 65_535]).unwrap());
    assert_eq!(read(color.path()).unwrap().values, array![[1.0, 2.0, 3.0]]);
    let clear = folder_of("a.png", ImageBuffer::<Rgba<u16>, _>::from_raw(1, 1, vec![1_u16, 2, 3, 65_534]).unwrap());
    assert_says(&failure(&clear), &["alpha 65534", "alpha 65535"]);
}

/// Writes a picture of the format, of which a file may hold something near these samples.
fn save_as(folder: &TempDir, name: &str, image: impl Into<DynamicImage>, format: ImageFormat) {
    image.into().save_with_format(folder.path().join(name), format).unwrap();
}

#[test]
fn every_format_is_read_by_its_contents() {
    use ImageFormat::{Jpeg, Png, WebP};
    let flat = RgbImage::from_pixel(8, 8, image::Rgb([90, 90, 90]));
    for (format, name) in
        [(Png, "a.png"), (WebP, "a.webp"), (Jpeg, "a.jpg"), (Jpeg, "a.JPEG"), (Jpeg, "a.png"), (Png, "a.jpg")]
    {
        let folder = folder();
        save_as(&folder, name, flat.clone(), format);
        for path in [folder.path().to_path_buf(), folder.path().join(name)] {
            let images = read(&path).unwrap();
            assert_eq!(
                (images.values.dim(), images.shape, images.element),
                ((1, 192), shape(8, 8, 3), Element::U8),
                "{name}"
            );
            // JPEG is not exact.
            assert!(images.values.iter().all(|value| (value - 90.0).abs() <= 2.0), "{name}: {}", images.values);
        }
    }
    // Lossless.
    let exact = folder();
    let pixels: Vec<u8> = (0..192).collect();
    save_as(&exact, "a.webp", RgbImage::from_raw(8, 8, pixels.clone()).unwrap(), WebP);
    assert_eq!(
        read(exact.path()).unwrap().values.as_slice().unwrap(),
        pixels.iter().map(|&p| p.into()).collect::<Vec<f32>>()
    );
}

#[test]
fn a_lone_picture_is_a_row_whatever_its_name() {
    let folder = folder();
    save(&folder, "picture", grey(3, 1, &[1, 2, 3]));
    let images = read(&folder.path().join("picture")).unwrap();
    assert_eq!((images.values, images.shape), (array![[1.0, 2.0, 3.0]], shape(1, 3, 1)));
}

#[test]
fn numbers_in_names_count_as_numbers() {
    let names =
        ["1.png", "2.png", "10.png", "a1b9.png", "a1b10.png", "a2.png", "x007.png", "x08.png", "x9.png", "x10.png"];
    let folder = folder();
    for (at, name) in names.iter().enumerate() {
        save(&folder, name, grey(1, 1, &[at as u8]));
    }
    let order: Vec<f32> = read(folder.path()).unwrap().values.into_iter().collect();
    assert_eq!(order, (0..names.len()).map(|at| at as f32).collect::<Vec<_>>());
}

#[test]
fn class_folders_give_images_and_labels() {
    let folder = folder();
    for (class, name) in ["0", "2", "10"].iter().enumerate() {
        fs::create_dir(folder.path().join(name)).unwrap();
        for at in 0..=class {
            save(&folder, &format!("{name}/{at}.png"), grey(1, 1, &[(10 * class + at) as u8]));
        }
    }
    for clutter in [".ipynb_checkpoints", "__MACOSX"] {
        fs::create_dir(folder.path().join(clutter)).unwrap();
    }
    fs::write(folder.path().join("0/labels.csv"), "no picture").unwrap();
    let images = read(folder.path()).unwrap();
    assert_eq!(images.values.into_iter().collect::<Vec<_>>(), [0.0, 10.0, 11.0, 20.0, 21.0, 22.0]);
    assert_eq!(read_labels(folder.path()).unwrap(), [0, 1, 1, 2, 2, 2]);
    assert_eq!(class_names(folder.path()).unwrap(), ["0", "2", "10"]);
    assert!(class_names(&folder.path().join("0")).unwrap().is_empty());
    assert!(class_names(&folder.path().join("0/0.png")).unwrap().is_empty());
    assert_eq!(images.passed_over, [folder.path().join("0/labels.csv")]);
    // A class without pictures, and a folder without classes.
    fs::create_dir(folder.path().join("11")).unwrap();
    assert_says(&failure(&folder), &["/11'", "no picture"]);
    let error = read_labels(&folder.path().join("0")).unwrap_err();
    assert!(matches!(error, DataError::NoClasses { .. }), "{error}");
}

fn folder_of(name: &str, image: impl Into<DynamicImage>) -> TempDir {
    let folder = folder();
    save(&folder, name, image);
    folder
}

#[test]
fn different_shapes_are_an_error_that_names_both() {
    let sizes = folder();
    save(&sizes, "a.png", grey(3, 1, &[1, 2, 3]));
    save(&sizes, "b.png", grey(3, 1, &[1, 2, 3]));
    save(&sizes, "c.png", grey(1, 3, &[1, 2, 3]));
    let error = failure(&sizes);
    assert!(matches!(error, DataError::PicturesDiffer { .. }), "{error}");
    assert_says(&error, &["a.png", "1 x 3 x 1", "c.png", "3 x 1 x 1"]);
    let colors = folder();
    save(&colors, "a.png", grey(3, 1, &[1, 2, 3]));
    save(&colors, "b.png", RgbImage::from_raw(1, 1, vec![1, 2, 3]).unwrap());
    assert_says(&failure(&colors), &["1 x 3 x 1", "1 x 1 x 3"]);
    let types = folder();
    save(&types, "a.png", grey(1, 1, &[1]));
    save(&types, "b.png", ImageBuffer::<Luma<u16>, _>::from_raw(1, 1, vec![1_u16]).unwrap());
    assert_says(&failure(&types), &["of u8", "of u16"]);
}

#[test]
fn a_folder_without_images_is_an_error() {
    let folder = folder();
    assert!(matches!(failure(&folder), DataError::NoPicture { .. }));
    fs::write(folder.path().join("a.gif"), "no image").unwrap();
    assert_says(&failure(&folder), &["no picture", ".png, .jpg, .jpeg or .webp"]);
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
    fs::write(&path, b"").unwrap();
    assert!(matches!(failure(&folder), DataError::EmptyFile { .. }));
    for (other, what) in
        [(&b"no image at all"[..], "text"), (b"GIF89a\x01\0\x01\0", "GIF"), (b"\0\x01\x02", "00 01 02")]
    {
        fs::write(&path, other).unwrap();
        assert_says(&failure(&folder), &["b.png", what]);
    }
    for damaged in [&bytes[..20], &bytes[..bytes.len() / 2], &wrong_checksum] {
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

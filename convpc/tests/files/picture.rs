//! Pictures of images.

use convpc::data::ImageShape;
use convpc::picture::{BACKGROUND, GAP, MISSING, Picture, PictureError};
use ndarray::{Array2, array, aview0};

use crate::tools::{assert_says, names};

const BLACK: [u8; 3] = [0; 3];
const WHITE: [u8; 3] = [255; 3];

fn shape(height: usize, width: usize, colors: usize) -> ImageShape {
    ImageShape { height, width, colors }
}

fn pixel(picture: &Picture, row: usize, column: usize) -> [u8; 3] {
    let start = (row * picture.width() + column) * 3;
    picture.rgb()[start..start + 3].try_into().unwrap()
}

/// The row of the picture as its pixels.
fn line(picture: &Picture, row: usize) -> Vec<[u8; 3]> {
    (0..picture.width()).map(|column| pixel(picture, row, column)).collect()
}

#[test]
fn images_lie_in_lines_with_gaps_between() {
    assert_eq!(GAP, 2);
    let grey = [128; 3];
    let images = array![[0.0, 0.5], [1.0, 0.0], [f32::NAN, 1.0]];
    let picture = Picture::grid(images.view(), shape(1, 2, 1), (0.0, 1.0), 2, 1).unwrap();
    assert_eq!((picture.height(), picture.width()), (1 + 2 + 1, 2 + 2 + 2));
    let gap = BACKGROUND;
    assert_eq!(line(&picture, 0), [BLACK, grey, gap, gap, WHITE, BLACK]);
    assert_eq!(line(&picture, 1), [gap; 6]);
    assert_eq!(line(&picture, 2), [gap; 6]);
    assert_eq!(line(&picture, 3), [MISSING, WHITE, gap, gap, gap, gap]);
}

#[test]
fn a_pixel_is_drawn_as_a_square() {
    let images = array![[0.0, 1.0, f32::NAN, 0.0]];
    let picture = Picture::grid(images.view(), shape(2, 2, 1), (0.0, 1.0), 5, 3).unwrap();
    assert_eq!((picture.height(), picture.width()), (6, 6));
    for row in 0..6 {
        let (left, right) = if row < 3 { (BLACK, WHITE) } else { (MISSING, BLACK) };
        assert_eq!(line(&picture, row), [left, left, left, right, right, right], "row {row}");
    }
}

#[test]
fn values_are_clamped_to_the_range() {
    let images = array![[-7.0, -1.0, 0.0, 3.0, 9.0, f32::INFINITY, f32::NEG_INFINITY]];
    let picture = Picture::grid(images.view(), shape(1, 7, 1), (-1.0, 3.0), 1, 1).unwrap();
    let levels: Vec<u8> = line(&picture, 0).iter().map(|pixel| pixel[0]).collect();
    assert_eq!(levels, [0, 0, 64, 255, 255, 255, 0]);
    // The extent of this range is beyond f32.
    let images = array![[f32::MIN, 0.0, f32::MAX]];
    let picture = Picture::grid(images.view(), shape(1, 3, 1), (f32::MIN, f32::MAX), 1, 1).unwrap();
    assert_eq!(line(&picture, 0), [BLACK, [128; 3], WHITE]);
}

#[test]
fn three_colors_are_red_green_and_blue() {
    let images = array![[0.0, 1.0, 2.0, 255.0, f32::NAN, 255.0]];
    let picture = Picture::grid(images.view(), shape(2, 1, 3), (0.0, 255.0), 1, 1).unwrap();
    assert_eq!(pixel(&picture, 0, 0), [0, 1, 2]);
    assert_eq!(pixel(&picture, 1, 0), MISSING);
}

#[test]
fn the_file_holds_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let images = Array2::from_shape_fn((5, 6), |(row, variable)| (row + variable) as f32);
    let picture = Picture::grid(images.view(), shape(3, 2, 1), (0.0, 10.0), 2, 2).unwrap();
    picture.write_png(&path).unwrap();
    assert_eq!(names(folder.path()), ["a.png"]);
    let read = image::open(&path).unwrap();
    assert_eq!(read.color(), image::ColorType::Rgb8);
    assert_eq!((read.height() as usize, read.width() as usize), (picture.height(), picture.width()));
    assert_eq!(read.as_bytes(), picture.rgb());
    let error = picture.write_png(&folder.path().join("none").join("a.png")).unwrap_err();
    assert!(matches!(error, PictureError::Write { .. }));
    assert_says(&error, &["a.png", "check that the folder exists"]);
}

#[test]
fn what_cannot_be_shown_is_an_error() {
    let images = Array2::zeros((2, 4));
    let grid = |shape, range, columns, scale| Picture::grid(images.view(), shape, range, columns, scale).unwrap_err();
    let (square, unit) = (shape(2, 2, 1), (0.0, 1.0));
    assert_says(&grid(shape(1, 2, 2), unit, 1, 1), &["2 colors", "1 (grey) or 3 (RGB)"]);
    assert_says(&grid(shape(2, 3, 1), unit, 1, 1), &["4 variables", "2 x 3 x 1"]);
    assert_says(&grid(shape(usize::MAX, 3, 1), unit, 1, 1), &["4 variables"]);
    for range in [(1.0, 1.0), (1.0, 0.0), (f32::NAN, 1.0), (0.0, f32::INFINITY)] {
        let error = grid(square, range, 1, 1);
        assert!(matches!(error, PictureError::Range { .. }), "{error}");
    }
    for (columns, scale) in [(0, 1), (1, 0)] {
        let error = grid(square, unit, columns, scale);
        assert!(matches!(error, PictureError::Layout { .. }), "{error}");
    }
    for scale in [usize::MAX, 1 << 31, 1 << 29] {
        let error = grid(square, unit, 1, scale);
        assert!(matches!(error, PictureError::TooLarge { .. }), "{error}");
    }
    // One line of pixels that would fit in memory, but not in a PNG file. It takes none: all its values are one.
    let wide = aview0(&0.0);
    let wide = wide.broadcast((1, 1 << 31)).unwrap();
    let error = Picture::grid(wide, shape(1, 1 << 31, 1), unit, 1, 1).unwrap_err();
    assert!(matches!(error, PictureError::TooLarge { .. }), "{error}");
    for (rows, variables, shape) in [(0, 4, square), (1, 0, shape(2, 0, 1))] {
        let none = Array2::zeros((rows, variables));
        let error = Picture::grid(none.view(), shape, unit, 1, 1).unwrap_err();
        assert!(matches!(error, PictureError::Empty { .. }), "{error}");
    }
}

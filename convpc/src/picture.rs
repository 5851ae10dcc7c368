//! Pictures of images: samples, completions or data side by side, as a PNG file.

use std::io;
use std::path::{Path, PathBuf};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageError};
use ndarray::{ArrayView1, ArrayView2};

use crate::atomic;
use crate::data::ImageShape;

/// The RGB colour of a missing value: a blue-grey, which stands out from grey images and from most photographs.
pub const MISSING: [u8; 3] = [96, 125, 150];

/// The RGB colour between the images, and of the places that are left over in the last line.
pub const BACKGROUND: [u8; 3] = [255, 255, 255];

/// The space between neighbouring images, in pixels of the picture, whatever the scale.
pub const GAP: usize = 2;

/// The largest height and width of a PNG file.
const MAX_SIDE: usize = i32::MAX as usize;

/// Why a picture could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// Images with a number of colors that cannot be shown.
    #[error("the images have {colors} colors; expected 1 (grey) or 3 (RGB): choose the colors to be shown")]
    Colors {
        /// The number of colors.
        colors: usize,
    },
    /// The rows do not fit the shape.
    #[error(
        "the rows have {variables} variables; expected {shape} of them (height x width x colors): give the shape of these rows"
    )]
    Variables {
        /// The length of a row.
        variables: usize,
        /// The shape that was given.
        shape: ImageShape,
    },
    /// Nothing to show.
    #[error(
        "there is nothing to show: {rows} rows of shape {shape} (height x width x colors); expected at least one pixel: give more rows"
    )]
    Empty {
        /// The number of rows.
        rows: usize,
        /// The shape that was given.
        shape: ImageShape,
    },
    /// A range without extent.
    #[error(
        "the range of values is from {min} to {max}; expected two finite numbers, the first one smaller: for bytes give 0 and 255"
    )]
    Range {
        /// The value to be shown black.
        min: f32,
        /// The value to be shown white.
        max: f32,
    },
    /// No column, or no pixel for a pixel.
    #[error(
        "the number of columns is {columns} and the scale is {scale}; expected at least 1 for both: raise the one that is 0"
    )]
    Layout {
        /// The number of images side by side.
        columns: usize,
        /// The size at which a pixel is drawn.
        scale: usize,
    },
    /// The picture fits neither memory nor a PNG file.
    #[error(
        "a picture of {rows} images of shape {shape} at scale {scale} is too large; show fewer images or lower the scale"
    )]
    TooLarge {
        /// The number of images.
        rows: usize,
        /// Their shape.
        shape: ImageShape,
        /// The size at which a pixel is drawn.
        scale: usize,
    },
    /// Writing failed; the file is as it was.
    #[error("cannot write '{path}': {source}; check that the folder exists, is writable and has room")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// An 8-bit RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    height: usize,
    width: usize,
    /// [row][column][color]
    rgb: Vec<u8>,
}

impl Picture {
    /// Lays out images, each a row of variables, in lines of `columns` images, and draws each pixel `scale` x `scale`.
    ///
    /// `range` holds the value that is shown black and the one that is shown white; values outside are clamped to it.
    /// Missing values (NaN) are shown in the colour [`MISSING`], the whole pixel if it has three colors of which any is
    /// missing. Fewer images than `columns` make a line that is shorter.
    ///
    /// # Errors
    ///
    /// A [`PictureError`] if there is no image, the rows do not have the given shape, the images have neither 1 nor 3
    /// colors, the range, the columns or the scale is empty, or the picture is too large.
    ///
    /// ```
    /// use convpc::data::ImageShape;
    /// use convpc::picture::Picture;
    /// use ndarray::array;
    ///
    /// let images = array![[0.0, 1.0], [f32::NAN, 0.5]];
    /// let shape = ImageShape { height: 1, width: 2, colors: 1 };
    /// let picture = Picture::grid(images.view(), shape, (0.0, 1.0), 2, 4)?;
    /// let folder = tempfile::tempdir()?;
    /// picture.write_png(&folder.path().join("picture.png"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn grid(
        images: ArrayView2<'_, f32>,
        shape: ImageShape,
        range: (f32, f32),
        columns: usize,
        scale: usize,
    ) -> Result<Self, PictureError> {
        check(images, shape, range, columns, scale)?;
        let rows = images.nrows();
        let columns = columns.min(rows);
        let mut picture =
            Self::blank(rows, shape, columns, scale).ok_or(PictureError::TooLarge { rows, shape, scale })?;
        // The step from an image to the next; it fits, since the picture does.
        let down = shape.height * scale + GAP;
        let right = shape.width * scale + GAP;
        for (index, image) in images.outer_iter().enumerate() {
            let corner = (index / columns * down, index % columns * right);
            picture.draw(image, shape, range, scale, corner);
        }
        Ok(picture)
    }

    /// The number of rows of pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The number of pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The colours: height × width × 3 bytes.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Writes the picture as a PNG file, [atomically](crate::atomic::write).
    ///
    /// # Errors
    ///
    /// [`PictureError::Write`]; the file is then as it was.
    pub fn write_png(&self, path: &Path) -> Result<(), PictureError> {
        let size = |side| u32::try_from(side).map_err(io::Error::other);
        let fill = |file: &mut dyn io::Write| {
            PngEncoder::new(file)
                .write_image(&self.rgb, size(self.width)?, size(self.height)?, ExtendedColorType::Rgb8)
                .map_err(|error| match error {
                    ImageError::IoError(error) => error,
                    other => io::Error::other(other),
                })
        };
        atomic::write(path, fill).map_err(|source| PictureError::Write { path: path.to_path_buf(), source })
    }

    /// A picture for so many images, all background; `None` if it is too large.
    fn blank(rows: usize, shape: ImageShape, columns: usize, scale: usize) -> Option<Self> {
        let side = |count: usize, size: usize| {
            let images = count.checked_mul(size)?.checked_mul(scale)?;
            let side = images.checked_add((count - 1).checked_mul(GAP)?)?;
            (side <= MAX_SIDE).then_some(side)
        };
        let height = side(rows.div_ceil(columns), shape.height)?;
        let width = side(columns, shape.width)?;
        let pixels = height.checked_mul(width)?;
        let mut rgb = Vec::new();
        rgb.try_reserve_exact(pixels.checked_mul(3)?).ok()?;
        rgb.extend(BACKGROUND.iter().cycle().take(pixels * 3));
        Some(Self { height, width, rgb })
    }

    /// Draws one image, its upper left corner at (row, column).
    fn draw(
        &mut self,
        image: ArrayView1<'_, f32>,
        shape: ImageShape,
        range: (f32, f32),
        scale: usize,
        corner: (usize, usize),
    ) {
        for row in 0..shape.height {
            for column in 0..shape.width {
                let first = (row * shape.width + column) * shape.colors;
                let color = |color| image[first + if shape.colors == 3 { color } else { 0 }];
                let rgb = rgb([color(0), color(1), color(2)], range);
                let left = corner.1 + column * scale;
                for y in (corner.0 + row * scale..).take(scale) {
                    let line = &mut self.rgb[y * self.width * 3..][left * 3..][..scale * 3];
                    line.as_chunks_mut().0.fill(rgb);
                }
            }
        }
    }
}

fn check(
    images: ArrayView2<'_, f32>,
    shape: ImageShape,
    (min, max): (f32, f32),
    columns: usize,
    scale: usize,
) -> Result<(), PictureError> {
    let (rows, variables) = images.dim();
    if shape.colors != 1 && shape.colors != 3 {
        return Err(PictureError::Colors { colors: shape.colors });
    }
    if shape.variables() != Some(variables) {
        return Err(PictureError::Variables { variables, shape });
    }
    if rows == 0 || variables == 0 {
        return Err(PictureError::Empty { rows, shape });
    }
    if !(min.is_finite() && max.is_finite() && min < max) {
        return Err(PictureError::Range { min, max });
    }
    if columns == 0 || scale == 0 {
        return Err(PictureError::Layout { columns, scale });
    }
    Ok(())
}

fn rgb(values: [f32; 3], range: (f32, f32)) -> [u8; 3] {
    if values.iter().any(|value| value.is_nan()) {
        return MISSING;
    }
    values.map(|value| level(value, range))
}

/// In f64, since the difference of two f32 may overflow f32.
fn level(value: f32, (min, max): (f32, f32)) -> u8 {
    let (value, min, max) = (f64::from(value.clamp(min, max)), f64::from(min), f64::from(max));
    ((value - min) / (max - min) * 255.0).round() as u8
}

//! A folder of PNG files, one image each.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder, ImageError, Limits};
use ndarray::Array2;

use super::{DataError, ImageShape, Images, check_memory};

/// Reads all PNG files of a folder, in the order of their names.
pub(super) fn read_folder(folder: &Path) -> Result<Images, DataError> {
    let paths = png_files(folder)?;
    let Some(first) = paths.first() else {
        return Err(DataError::NoPng { path: folder.to_path_buf() });
    };
    let mut shape = None;
    let mut values: Vec<f32> = Vec::new();
    for path in &paths {
        let (pixels, this) = read_image(path)?;
        let expected = *shape.get_or_insert(this);
        if this != expected {
            return Err(DataError::ShapesDiffer {
                first: first.clone(),
                first_shape: expected,
                other: path.clone(),
                other_shape: this,
            });
        }
        if values.try_reserve(pixels.len()).is_err() {
            let sizes = [paths.len(), this.height, this.width, this.colors];
            return Err(DataError::too_large(folder, &sizes));
        }
        values.extend(pixels.into_iter().map(f32::from));
    }
    let values = Array2::from_shape_vec((paths.len(), values.len() / paths.len()), values)
        .map_err(|error| DataError::corrupt(folder, error.to_string()))?;
    Ok(Images { values, shape, eight_bit: true })
}

/// The visible PNG files, sorted by name.
fn png_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let reading = |error| DataError::reading(folder, error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        if has_png_name(&path) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Hidden files are left out: some systems put a `._name.png` that is no image beside each `name.png`.
fn has_png_name(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"))
}

/// The bytes of an image, without its alpha, and its shape.
fn read_image(path: &Path) -> Result<(Vec<u8>, ImageShape), DataError> {
    let decoding = |error| decoding_error(path, error);
    let file = File::open(path).map_err(|error| DataError::reading(path, error))?;
    // The default limits keep a false header from reserving all memory.
    let mut limits = Limits::default();
    let decoder = PngDecoder::with_limits(BufReader::new(file), limits.clone()).map_err(decoding)?;
    // Grey of less than 8 bits and palettes come out of the decoder as 8-bit grey and RGB.
    let (colors, has_alpha) = match decoder.color_type() {
        ColorType::L8 => (1, false),
        ColorType::La8 => (1, true),
        ColorType::Rgb8 => (3, false),
        ColorType::Rgba8 => (3, true),
        other => {
            return Err(DataError::PngSamples {
                path: path.to_path_buf(),
                found: format!("{} bits", other.bits_per_pixel() / u16::from(other.channel_count())),
            });
        }
    };
    let (width, height) = decoder.dimensions();
    let shape = ImageShape { height: height as usize, width: width as usize, colors };
    limits.reserve(decoder.total_bytes()).map_err(decoding)?;
    let length = decoder.total_bytes() as usize;
    check_memory::<u8>(path, length, &[shape.height, shape.width, colors])?;
    let mut pixels = vec![0; length];
    decoder.read_image(&mut pixels).map_err(decoding)?;
    if has_alpha {
        pixels = without_alpha(path, &pixels, shape)?;
    }
    Ok((pixels, shape))
}

fn without_alpha(path: &Path, pixels: &[u8], shape: ImageShape) -> Result<Vec<u8>, DataError> {
    let samples = shape.colors + 1;
    let mut opaque = Vec::with_capacity(pixels.len() / samples * shape.colors);
    for (index, pixel) in pixels.chunks_exact(samples).enumerate() {
        let alpha = pixel[shape.colors];
        if alpha != u8::MAX {
            return Err(DataError::Transparent {
                path: path.to_path_buf(),
                row: index / shape.width,
                column: index % shape.width,
                alpha,
            });
        }
        opaque.extend_from_slice(&pixel[..shape.colors]);
    }
    Ok(opaque)
}

fn decoding_error(path: &Path, error: ImageError) -> DataError {
    match error {
        ImageError::IoError(error) => DataError::reading(path, error),
        ImageError::Limits(_) => DataError::corrupt(path, "it claims to need more than 512 MiB"),
        other => DataError::corrupt(path, other.to_string()),
    }
}

//! One picture: PNG, JPEG or WebP, whatever its name ends in.

use std::io::Cursor;
use std::path::Path;

use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::{
    DataError, ImageShape, Options, check_memory,
    element::{Element, Encoding, Number},
    format,
    images::out_of_range,
    source::{open, read_up_to},
    values::Conversion,
};

/// The endings of names by which the pictures of a folder are known.
pub(super) const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

const FORMATS: [ImageFormat; 3] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];

/// A picture, in the order of variables.
pub(super) struct Pixels {
    pub(super) values: Vec<f32>,
    pub(super) shape: ImageShape,
    pub(super) element: Element,
}

/// Whether the file begins like a picture that is read here.
pub(super) fn is_picture(path: &Path) -> bool {
    let start = open(path).and_then(|(mut file, _)| read_up_to(path, &mut file, 16));
    let format = start.ok().and_then(|start| image::guess_format(&start).ok());
    format.is_some_and(|format| FORMATS.contains(&format))
}

/// Reads a picture, without its alpha.
pub(super) fn read(path: &Path, options: &Options) -> Result<Pixels, DataError> {
    let decoding = |error| decoding_error(path, error);
    let mut limits = Limits::default();
    let decoder = decoder(path, limits.clone())?;
    // Grey of less than 8 bits and palettes come out of the decoder as 8-bit grey and RGB.
    let (colors, has_alpha, element) = match decoder.color_type() {
        ColorType::L8 => (1, false, Element::U8),
        ColorType::La8 => (1, true, Element::U8),
        ColorType::Rgb8 => (3, false, Element::U8),
        ColorType::Rgba8 => (3, true, Element::U8),
        ColorType::L16 => (1, false, Element::U16),
        ColorType::La16 => (1, true, Element::U16),
        ColorType::Rgb16 => (3, false, Element::U16),
        ColorType::Rgba16 => (3, true, Element::U16),
        other => return Err(DataError::Samples { path: path.to_path_buf(), found: format!("{other:?}") }),
    };
    let (width, height) = decoder.dimensions();
    let shape = ImageShape { height: height as usize, width: width as usize, colors };
    // The default limits keep a false header from reserving all memory.
    limits.reserve(decoder.total_bytes()).map_err(decoding)?;
    // The bytes of the picture and the values that they become are there together.
    let of_sample = Encoding { element, big_endian: false }.size();
    let samples = colors + usize::from(has_alpha);
    let of_pixel = samples * of_sample + colors * size_of::<f32>();
    let sizes = [shape.height, shape.width, colors];
    DataError::check_limit(path, &sizes, of_pixel.div_ceil(colors), options.memory())?;
    let length = decoder.total_bytes() as usize;
    check_memory::<u8>(path, length, &[shape.height, shape.width, colors])?;
    let mut bytes = vec![0; length];
    decoder.read_image(&mut bytes).map_err(decoding)?;
    let samples = Samples { path, shape, has_alpha, conversion: Conversion::new(path, options.values, element)? };
    let encoding = Encoding { element, big_endian: cfg!(target_endian = "big") };
    Ok(Pixels { values: samples.convert(encoding, &bytes)?, shape, element })
}

/// The decoder that the contents ask for.
fn decoder(path: &Path, limits: Limits) -> Result<impl ImageDecoder + use<>, DataError> {
    let (mut file, length) = open(path)?;
    let bytes = read_up_to(path, &mut file, length)?;
    let start = &bytes[..bytes.len().min(16)];
    let format = image::guess_format(start).ok().filter(|format| FORMATS.contains(format));
    let format = format.ok_or_else(|| format::unknown(path, start))?;
    if format == ImageFormat::Jpeg && !has_end(&bytes) {
        return Err(DataError::corrupt(path, "it ends in the middle"));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    reader.into_decoder().map_err(|error| decoding_error(path, error))
}

/// Whether a JPEG's last scan is followed by the marker of the end: the decoder draws what is missing in grey.
fn has_end(jpeg: &[u8]) -> bool {
    let last = |marker: [u8; 2]| jpeg.windows(2).rposition(|bytes| bytes == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}

/// How the samples of a picture lie.
struct Samples<'a> {
    path: &'a Path,
    shape: ImageShape,
    has_alpha: bool,
    conversion: Conversion,
}

impl Samples<'_> {
    /// The values of all pixels, which must be opaque.
    fn convert(&self, encoding: Encoding, bytes: &[u8]) -> Result<Vec<f32>, DataError> {
        let ImageShape { height, width, colors } = self.shape;
        let in_pixel = colors + usize::from(self.has_alpha);
        let opaque = if encoding.element == Element::U16 { u16::MAX.into() } else { u8::MAX.into() };
        check_memory::<f32>(self.path, height * width * colors, &[height, width, colors])?;
        let mut values = Vec::with_capacity(height * width * colors);
        let mut at = 0;
        encoding.decode(bytes, |sample| {
            let (pixel, color) = (at / in_pixel, at % in_pixel);
            at += 1;
            if color < colors {
                let place = (0, pixel * colors + color);
                let fail = || out_of_range(self.path, place, sample, self.conversion);
                values.push(self.conversion.apply(sample).ok_or_else(fail)?);
                return Ok(());
            }
            match sample {
                Number::Whole(alpha) if alpha != opaque => Err(DataError::Transparent {
                    path: self.path.to_path_buf(),
                    row: pixel / width,
                    column: pixel % width,
                    alpha: alpha as u16,
                    opaque: opaque as u16,
                }),
                _ => Ok(()),
            }
        })?;
        Ok(values)
    }
}

fn decoding_error(path: &Path, error: ImageError) -> DataError {
    match error {
        ImageError::IoError(error) => DataError::reading(path, error),
        ImageError::Limits(_) => DataError::corrupt(path, "it claims to need more than 512 MiB"),
        // Some decoders write several lines.
        other => DataError::corrupt(path, other.to_string().split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

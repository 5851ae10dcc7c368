//! What becomes of the numbers of a file on their way to f32.

use std::path::Path;

use super::{
    DataError,
    element::{Element, Number},
};

/// Up to here f32 counts one by one, and so do the levels of leaves.
const MAX_LEVELS: usize = 1 << 24;

/// What becomes of the values of images while they are read. NaN stays: it means missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Values {
    /// They stay as they are. Whole numbers that f32 does not hold exactly are an error; f64 is rounded.
    #[default]
    AsTheyAre,
    /// 1 where a value is larger than the threshold, else 0.
    Binarize {
        /// The largest value that becomes 0.
        threshold: f64,
    },
    /// The nearest of so many levels, 0 to `levels` - 1, which are spread evenly from the lowest value to the highest.
    Quantize {
        /// The number of levels.
        levels: usize,
        /// The lowest and the highest value. Unless given: 0 and 255 for u8, 0 and 65535 for u16, 0 and 1 for bool and floats;
        /// other types have no usual range.
        range: Option<(f64, f64)>,
    },
}

/// How the values of one file become f32.
#[derive(Clone, Copy, Debug)]
pub(super) enum Conversion {
    AsTheyAre,
    Binarize { threshold: f64 },
    Quantize { most: f64, low: f64, high: f64 },
}

impl Conversion {
    pub(super) fn new(path: &Path, values: Values, element: Element) -> Result<Self, DataError> {
        match values {
            Values::AsTheyAre => Ok(Self::AsTheyAre),
            Values::Binarize { threshold } if threshold.is_nan() => Err(DataError::Threshold),
            Values::Binarize { threshold } => Ok(Self::Binarize { threshold }),
            Values::Quantize { levels, .. } if !(2..=MAX_LEVELS).contains(&levels) => Err(DataError::Levels { levels }),
            Values::Quantize { levels, range } => {
                let unknown = || DataError::UnknownRange { path: path.to_path_buf(), element };
                let (low, high) = range.or_else(|| usual_range(element)).ok_or_else(unknown)?;
                if !(low.is_finite() && high.is_finite() && low < high) {
                    return Err(DataError::Range { low, high });
                }
                Ok(Self::Quantize { most: (levels - 1) as f64, low, high })
            }
        }
    }

    /// `None` where the number has no counterpart.
    pub(super) fn apply(self, number: Number) -> Option<f32> {
        match (self, number) {
            (_, Number::Float(value)) if value.is_nan() => Some(f32::NAN),
            (Self::AsTheyAre, Number::Whole(value)) => whole(value),
            (Self::AsTheyAre, Number::Float(value)) => {
                let rounded = value as f32;
                Some(rounded).filter(|_| rounded.is_finite() || value.is_infinite())
            }
            (Self::Binarize { threshold }, number) => Some(f32::from(number.to_f64() > threshold)),
            (Self::Quantize { most, low, high }, number) => {
                let value = number.to_f64();
                let share = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
                (low..=high).contains(&value).then(|| (share * most).round() as f32)
            }
        }
    }

    /// What a number must be to have a counterpart, and the remedy.
    pub(super) fn expected(self) -> String {
        match self {
            Self::AsTheyAre | Self::Binarize { .. } => {
                "a number that f32 holds (whole ones all up to 16777216, sizes up to \
                3.4e38): rescale the data, or quantize them (--quantize N)"
                    .to_owned()
            }
            Self::Quantize { low, high, .. } => {
                format!("values from {low} to {high}: give the range of the data (--range LOW:HIGH)")
            }
        }
    }
}

/// The f32 that is this number. Most are small, and arithmetic on i128 is slow.
fn whole(value: i128) -> Option<f32> {
    match i16::try_from(value) {
        Ok(small) => Some(f32::from(small)),
        Err(_) => Some(value as f32).filter(|&rounded| rounded as i128 == value),
    }
}

fn usual_range(element: Element) -> Option<(f64, f64)> {
    match element {
        Element::U8 => Some((0.0, 255.0)),
        Element::U16 => Some((0.0, 65_535.0)),
        Element::Bool | Element::F16 | Element::F32 | Element::F64 => Some((0.0, 1.0)),
        _ => None,
    }
}

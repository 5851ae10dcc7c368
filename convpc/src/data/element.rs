//! The types of numbers that files hold, and how their bytes are read: one table for every container and every use.

use std::fmt;

use half::f16;

/// A type of numbers in a file. Displayed as in Rust: `u8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Element {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

/// The types as an error lists them.
pub(super) const TYPES: &str = "bool, integers of 8 to 64 bits, or floats of 16, 32 or 64 bits";

/// The element, its name in Rust, its name in numpy (kind and bytes), and its code in IDX.
const TABLE: [(Element, &str, &str, Option<u8>); 12] = [
    (Element::Bool, "bool", "b1", None),
    (Element::U8, "u8", "u1", Some(0x08)),
    (Element::I8, "i8", "i1", Some(0x09)),
    (Element::U16, "u16", "u2", None),
    (Element::I16, "i16", "i2", Some(0x0b)),
    (Element::U32, "u32", "u4", None),
    (Element::I32, "i32", "i4", Some(0x0c)),
    (Element::U64, "u64", "u8", None),
    (Element::I64, "i64", "i8", None),
    (Element::F16, "f16", "f2", None),
    (Element::F32, "f32", "f4", Some(0x0d)),
    (Element::F64, "f64", "f8", Some(0x0e)),
];

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = TABLE.iter().find(|row| row.0 == *self);
        f.write_str(row.map_or("", |row| row.1))
    }
}

/// A type of numbers and the order of its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Encoding {
    pub(super) element: Element,
    pub(super) big_endian: bool,
}

/// A number as a file holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i128),
    Float(f64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(number) => number.fmt(f),
            // As in Rust's code, so that 1e300 does not take three hundred digits.
            Number::Float(number) => write!(f, "{number:?}"),
        }
    }
}

impl Number {
    pub(super) fn to_f64(self) -> f64 {
        match self {
            Number::Whole(number) => number as f64,
            Number::Float(number) => number,
        }
    }
}

impl Encoding {
    /// The type that numpy calls so: `<f4`, `|u1`.
    pub(super) fn of_numpy(descriptor: &str) -> Option<Self> {
        let (big_endian, name) = match descriptor.as_bytes().first()? {
            b'>' => (true, &descriptor[1..]),
            b'<' | b'|' => (false, &descriptor[1..]),
            b'=' => (cfg!(target_endian = "big"), &descriptor[1..]),
            _ => (false, descriptor),
        };
        let element = TABLE.iter().find(|row| row.2 == name)?.0;
        Some(Self { element, big_endian })
    }

    /// The type with this code in the header of an IDX file.
    pub(super) fn of_idx(code: u8) -> Option<Self> {
        let element = TABLE.iter().find(|row| row.3 == Some(code))?.0;
        Some(Self { element, big_endian: true })
    }

    /// The bytes of a number.
    pub(super) fn size(self) -> usize {
        match self.element {
            Element::Bool | Element::U8 | Element::I8 => 1,
            Element::U16 | Element::I16 | Element::F16 => 2,
            Element::U32 | Element::I32 | Element::F32 => 4,
            Element::U64 | Element::I64 | Element::F64 => 8,
        }
    }

    /// Hands each number in `bytes` to `each`, until that fails.
    pub(super) fn decode<E>(self, bytes: &[u8], mut each: impl FnMut(Number) -> Result<(), E>) -> Result<(), E> {
        // The loop is inside the choice of the type, so that each type has a loop of its own.
        macro_rules! numbers {
            ($type:ty, $number:expr) => {{
                let (numbers, _) = bytes.as_chunks();
                let number = $number;
                if self.big_endian {
                    numbers.iter().try_for_each(|&bytes| each(number(<$type>::from_be_bytes(bytes))))
                } else {
                    numbers.iter().try_for_each(|&bytes| each(number(<$type>::from_le_bytes(bytes))))
                }
            }};
        }
        match self.element {
            Element::Bool | Element::U8 => numbers!(u8, |number| Number::Whole(i128::from(number))),
            Element::I8 => numbers!(i8, |number| Number::Whole(i128::from(number))),
            Element::U16 => numbers!(u16, |number| Number::Whole(i128::from(number))),
            Element::I16 => numbers!(i16, |number| Number::Whole(i128::from(number))),
            Element::U32 => numbers!(u32, |number| Number::Whole(i128::from(number))),
            Element::I32 => numbers!(i32, |number| Number::Whole(i128::from(number))),
            Element::U64 => numbers!(u64, |number| Number::Whole(i128::from(number))),
            Element::I64 => numbers!(i64, |number| Number::Whole(i128::from(number))),
            Element::F16 => numbers!(f16, |number| Number::Float(f64::from(number))),
            Element::F32 => numbers!(f32, |number| Number::Float(f64::from(number))),
            Element::F64 => numbers!(f64, |number| Number::Float(number)),
        }
    }
}

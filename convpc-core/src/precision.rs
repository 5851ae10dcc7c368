use std::{fmt, str::FromStr};

use crate::error::Error;

/// What a backend's matrix products multiply. Everything else is as exact in every precision: maxima, exponentials,
/// logarithms, sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// As exact as f32 arithmetic. Meets the contract for f32: a log-likelihood differs from float64 by at most
    /// 1e-5 · |log-likelihood| + 1e-4.
    #[default]
    F32,
    /// Operands rounded to tf32, 11 significant bits: a sum layer adds an error of at most 2^-10 nats.
    Tf32,
    /// Operands rounded to bf16, 8 significant bits: a sum layer adds an error of at most 2^-7 nats.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::Tf32, Precision::Bf16];

    /// The name: `f32`, `tf32`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }

    /// The most that rounding the operands changes one sum's output by, in nats: a product of positive numbers is off by
    /// half a unit in the last place of each factor at most, relatively, and so is a sum of such products.
    pub fn error_per_sum(self) -> f64 {
        match self {
            Precision::F32 => 0.0,
            Precision::Tf32 => (-10f64).exp2(),
            Precision::Bf16 => (-7f64).exp2(),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Precision::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| Error::Argument {
            what: "precision",
            given: name.to_string(),
            expected: "f32, tf32 or bf16".into(),
        })
    }
}

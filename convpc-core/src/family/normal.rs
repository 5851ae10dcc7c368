use std::f64::consts::{PI, TAU};

use serde::{Deserialize, Serialize};

use super::{ExponentialFamily, Form, LARGEST_VALUE, LeafStep};
use crate::error::Result;

/// Normal distributions. Parameters: mean, standard deviation.
///
/// The density keeps its own formula, `−z²/2 − log std − log(2π)/2` with `z = (x − mean)/std`: the natural form
/// subtracts large numbers when std is small against the mean. For the same reason the statistics are `(z, z²)`.
///
/// Limits: values and means lie between −[`LARGEST`](Self::LARGEST) and [`LARGEST`](Self::LARGEST), so that differences of two such
/// values are finite in f32; a standard deviation lies between [`SMALLEST_STD`](Self::SMALLEST_STD) and
/// [`LARGEST`](Self::LARGEST). Values and parameters outside the limits are refused with an error. Within them every
/// log-density is a finite float64 number. Learning stays within them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Normal {}

/// The variance is the difference of the mean square and the squared mean. Below this fraction of the mean square it is only
/// rounding error, so it is raised to that fraction; the next step, whose sums are relative to the new mean, measures it.
const VARIANCE_ROUNDING: f64 = 1.0 / (1_u64 << 46) as f64;

impl Normal {
    /// The smallest standard deviation.
    pub const SMALLEST_STD: f64 = 1e-30;

    /// The largest value and the largest mean, of either sign, and the largest standard deviation.
    pub const LARGEST: f64 = LARGEST_VALUE;

    /// The standard deviation that learning takes for `std`, which is never below `minimum_std` and within the limits.
    fn legal_std(std: f64, minimum_std: f64) -> f64 {
        std.max(minimum_std).clamp(Self::SMALLEST_STD, Self::LARGEST)
    }
}

/// A number in a message: with few digits where it is very large or small.
fn shown(x: f64) -> String {
    let is_ordinary = x == 0.0 || (1e-4..1e7).contains(&x.abs());
    if is_ordinary { x.to_string() } else { format!("{x:.5e}") }
}

impl ExponentialFamily for Normal {
    fn name(&self) -> &'static str {
        "normal"
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn parameters(&self) -> usize {
        2
    }

    fn statistics(&self) -> usize {
        2
    }

    fn form(&self) -> Form {
        Form::LocationScale
    }

    fn cardinality(&self) -> Option<usize> {
        None
    }

    fn support(&self) -> String {
        "the numbers from -1e38 to 1e38".into()
    }

    fn problem(&self, p: &[f64]) -> Option<String> {
        let (least, most) = (Self::SMALLEST_STD, Self::LARGEST);
        if !(-most..=most).contains(&p[0]) {
            Some(format!("mean {} is not between -1e38 and 1e38", shown(p[0])))
        } else if !(least..=most).contains(&p[1]) {
            Some(format!("standard deviation {} is not between {least:e} and 1e38", shown(p[1])))
        } else {
            None
        }
    }

    fn sufficient(&self, p: &[f64], x: f64, t: &mut [f64]) {
        let z = (x - p[0]) / p[1];
        t[0] = z;
        t[1] = z * z;
    }

    /// With respect to `(z, z²)`.
    fn natural(&self, _p: &[f64], eta: &mut [f64]) {
        eta.copy_from_slice(&[0.0, -0.5]);
    }

    fn log_normalizer(&self, p: &[f64]) -> f64 {
        p[1].ln() + 0.5 * (2.0 * PI).ln()
    }

    fn log_density(&self, p: &[f64], x: f64) -> f64 {
        let z = (x - p[0]) / p[1];
        -0.5 * z * z - self.log_normalizer(p)
    }

    fn maximum_likelihood(&self, p: &mut [f64], count: f64, t: &[f64], step: &LeafStep) {
        if count > 0.0 {
            let (shift, square) = (t[0] / count, t[1] / count);
            let correction = if step.bias_correction && count > 2.0 { count / (count - 1.0) } else { 1.0 };
            let variance = (square - shift * shift).max(square * VARIANCE_ROUNDING) * correction;
            p[0] = (p[0] + p[1] * shift).clamp(-Self::LARGEST, Self::LARGEST);
            p[1] = Self::legal_std(p[1] * variance.sqrt(), step.minimum_std);
        }
    }

    /// With respect to the mean and the logarithm of the standard deviation.
    fn gradient(&self, p: &[f64], count: f64, t: &[f64], gradient: &mut [f64]) {
        gradient[0] = t[0] / p[1];
        gradient[1] = t[1] - count;
    }

    /// Of the distribution's own `z`.
    fn expected(&self, _p: &[f64], t: &mut [f64]) {
        t.copy_from_slice(&[0.0, 1.0]);
    }

    /// `z` at one base is a linear function of `z` at another.
    fn rebase(&self, from: &[f64], to: &[f64], count: f64, t: &mut [f64]) {
        let (scale, shift) = (from[1] / to[1], (from[0] - to[0]) / to[1]);
        let [sum, squares] = [t[0], t[1]];
        t[0] = scale * sum + count * shift;
        t[1] = scale * scale * squares + 2.0 * scale * shift * sum + count * shift * shift;
    }

    fn units(&self, p: &[f64], units: &mut [f64]) {
        units.copy_from_slice(&[p[1], 1.0]);
    }

    /// Mean and std have no origin to shrink to, so that `keep` does nothing.
    fn shift(&self, p: &mut [f64], by: &[f64], _keep: f64, minimum_std: f64) {
        p[0] += by[0];
        p[1] = Self::legal_std(p[1] * by[1].exp(), minimum_std);
    }

    /// Box and Muller (1958). A draw beyond the largest value is that value.
    fn sample(&self, p: &[f64], [u, v]: [f64; 2]) -> f64 {
        let draw = p[0] + p[1] * (-2.0 * u.ln()).sqrt() * (TAU * v).cos();
        draw.clamp(-Self::LARGEST, Self::LARGEST)
    }

    fn mode(&self, p: &[f64]) -> f64 {
        p[0]
    }

    /// Means from a standard normal, standard deviation one.
    fn random(&self, uniform: &mut dyn FnMut() -> f64, p: &mut [f64]) {
        let uniforms = [uniform(), uniform()];
        p[0] = self.sample(&[0.0, 1.0], uniforms);
        p[1] = 1.0;
    }
}

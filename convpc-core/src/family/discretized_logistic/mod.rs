mod boundaries;
mod fit;

use serde::{Deserialize, Serialize};

use self::{
    boundaries::each_boundary,
    fit::{Bounds, fit},
};
use super::{ExponentialFamily, Form, LeafStep, check_values};
use crate::error::{Error, Result};

/// Discretized logistic distributions over the grey values `0..levels`. Parameters: mean μ and scale s, both in levels.
///
/// `P(x) = σ((x + ½ − μ)/s) − σ((x − ½ − μ)/s)`, where the first value takes all of the lower tail and the last all of the
/// upper one (Kingma et al., 2016; Salimans et al., 2017). With the boundaries `t_k = (k − ½ − μ)/s` this is
///
/// `log P(x) = log(1 − e^(−1/s)) + log σ(t_(x+1)) + log σ(−t_x)`,
///
/// which subtracts no two numbers that are alike; the first value has no third term, the last no second one, and neither
/// has the first. Two numbers say what a categorical distribution says with `levels`, and neighbouring values are alike. To
/// backends it is a table. A mixture of several is a sum on the leaves.
///
/// μ is between −4 and 5 times `levels`: far outside of the values there is one of them with nearly all the probability and a
/// tail. s is at least [`SMALLEST_SCALE`](Self::SMALLEST_SCALE) and at most 4 times `levels`. No value is impossible.
///
/// ```
/// use convpc_core::{Backend, ConvPc, Family, Reference, em};
/// use ndarray::array;
/// let circuit = ConvPc::new(1, 2, 1, Family::discretized_logistic(256)).channels(2).build(1)?;
/// let mut executable = Reference.load(&circuit)?;
/// let data = array![[3., 250.], [7., f32::NAN], [4., 255.]];
/// let before = executable.accumulate(data.view())?.log_likelihood;
/// executable.em_step(&em::Options::default())?;
/// assert!(executable.log_likelihood(data.view())?.sum() > before);
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscretizedLogistic {
    /// Number of values, at least 2 and at most 2^24.
    pub levels: usize,
}

/// The logarithm of `σ(t) = 1/(1 + e^(−t))`.
fn log_sigmoid(t: f64) -> f64 {
    t.min(0.0) - (-t.abs()).exp().ln_1p()
}

impl DiscretizedLogistic {
    /// The smallest scale: a value at the mean then has all but 1e-4 of the probability, and the next one e^(−10).
    pub const SMALLEST_SCALE: f64 = 0.05;

    /// What parameters may be, where the standard deviation, `π/√3` scales, has a minimum.
    fn bounds(&self, minimum_std: f64) -> Bounds {
        let n = self.levels as f64;
        let (least, most) = (minimum_std * 3_f64.sqrt() / std::f64::consts::PI, 4.0 * n);
        Bounds { mean: [-4.0 * n, 5.0 * n], scale: [least.clamp(Self::SMALLEST_SCALE, most), most] }
    }

    /// `log(1 − e^(−1/s))`: what a value between the tails has less than the two logistic functions beside it.
    fn log_width(scale: f64) -> f64 {
        (-(-1.0 / scale).exp_m1()).ln()
    }
}

impl ExponentialFamily for DiscretizedLogistic {
    fn name(&self) -> &'static str {
        "discretized-logistic"
    }

    fn check(&self) -> Result<()> {
        let what = "the number of levels of a discretized logistic leaf";
        if self.levels < 2 {
            return Err(Error::Argument { what, given: self.levels.to_string(), expected: "at least 2".into() });
        }
        check_values(what, self.levels)
    }

    fn parameters(&self) -> usize {
        2
    }

    /// The indicator of each value: no shorter statistics suffice for a mean and a scale.
    fn statistics(&self) -> usize {
        self.levels
    }

    fn form(&self) -> Form {
        Form::Table { size: self.levels, free: false }
    }

    fn cardinality(&self) -> Option<usize> {
        Some(self.levels)
    }

    fn support(&self) -> String {
        format!("the whole numbers 0 to {}", self.levels - 1)
    }

    fn problem(&self, p: &[f64]) -> Option<String> {
        let Bounds { mean, scale } = self.bounds(0.0);
        let outside = |what: &str, x: f64, [least, most]: [f64; 2]| {
            (!(least..=most).contains(&x)).then(|| format!("{what} {x} is not between {least} and {most}"))
        };
        outside("mean", p[0], mean).or_else(|| outside("scale", p[1], scale))
    }

    fn sufficient(&self, _p: &[f64], x: f64, t: &mut [f64]) {
        t.fill(0.0);
        t[x as usize] = 1.0;
    }

    /// The log-density of each value: the table.
    fn natural(&self, p: &[f64], eta: &mut [f64]) {
        let last = self.levels - 1;
        eta.fill(Self::log_width(p[1]));
        (eta[0], eta[last]) = (0.0, 0.0);
        // A boundary belongs to the values on both sides: log σ(−t) = log σ(t) − t.
        each_boundary(self.levels, p[0], p[1], |k, t, below, above| {
            let tail = (-below.min(above)).ln_1p();
            eta[k - 1] += t.min(0.0) + tail;
            eta[k] += tail - t.max(0.0);
        });
    }

    fn log_density(&self, p: &[f64], x: f64) -> f64 {
        let t = |boundary: f64| (boundary - p[0]) / p[1];
        let (first, last) = (x == 0.0, x == (self.levels - 1) as f64);
        let below = if first { 0.0 } else { log_sigmoid(-t(x - 0.5)) };
        let above = if last { 0.0 } else { log_sigmoid(t(x + 0.5)) };
        below + above + if first || last { 0.0 } else { Self::log_width(p[1]) }
    }

    fn maximum_likelihood(&self, p: &mut [f64], _count: f64, t: &[f64], step: &LeafStep) {
        fit(p, t, step.pseudocount, &self.bounds(step.minimum_std));
    }

    /// With respect to the mean and the logarithm of the scale.
    fn gradient(&self, p: &[f64], _count: f64, t: &[f64], gradient: &mut [f64]) {
        let (inverse, mut mean, mut log_scale) = (1.0 / p[1], 0.0, 0.0);
        each_boundary(self.levels, p[0], p[1], |k, at, below, above| {
            // The derivative by the boundary: t[k − 1] log σ(at) + t[k] log σ(−at).
            let slope = t[k - 1] * above - t[k] * below;
            mean -= slope * inverse;
            log_scale -= slope * at;
        });
        let between: f64 = t[1..t.len() - 1].iter().sum();
        gradient[0] = mean;
        gradient[1] = log_scale - between * inverse / inverse.exp_m1();
    }

    fn expected(&self, p: &[f64], t: &mut [f64]) {
        let last = self.levels - 1;
        t.fill(-(-1.0 / p[1]).exp_m1());
        (t[0], t[last]) = (1.0, 1.0);
        each_boundary(self.levels, p[0], p[1], |k, _, below, above| {
            t[k - 1] *= below;
            t[k] *= above;
        });
    }

    /// A mean moves in scales.
    fn units(&self, p: &[f64], units: &mut [f64]) {
        units.copy_from_slice(&[p[1], 1.0]);
    }

    /// Mean and scale have no origin to shrink to, so that `keep` does nothing. They stay within what is legal.
    fn shift(&self, p: &mut [f64], by: &[f64], _keep: f64, minimum_std: f64) {
        let Bounds { mean, scale } = self.bounds(minimum_std);
        p[0] = (p[0] + by[0]).clamp(mean[0], mean[1]);
        p[1] = (p[1] * by[1].exp()).clamp(scale[0], scale[1]);
    }

    /// Inversion of the distribution function: the smallest value above whose boundary the logistic variable is not.
    fn sample(&self, p: &[f64], [u, _]: [f64; 2]) -> f64 {
        let y = p[0] + p[1] * (u.ln() - (-u).ln_1p());
        (y - 0.5).ceil().clamp(0.0, (self.levels - 1) as f64)
    }

    /// The value next to the mean, or one that a tail belongs to.
    fn mode(&self, p: &[f64]) -> f64 {
        let last = (self.levels - 1) as f64;
        let values = [0.0, (p[0] - 0.5).ceil().clamp(0.0, last), last];
        values[crate::rng::arg_max(values.iter().map(|x| self.log_density(p, *x)))]
    }

    /// The mean uniform over the values, the scale between a twentieth and a sixth of them.
    fn random(&self, uniform: &mut dyn FnMut() -> f64, p: &mut [f64]) {
        let n = self.levels as f64;
        p[0] = (n - 1.0) * uniform();
        p[1] = (n * (0.05 + 0.12 * uniform())).max(Self::SMALLEST_SCALE);
    }
}

#[cfg(test)]
mod tests;

//! Leaf families. A new family is one file with an [`ExponentialFamily`] and one line in [`Family`]; backends evaluate
//! it through its [`Form`] and need no change.

mod bernoulli;
mod binomial;
mod categorical;
mod discretized_logistic;
mod normal;

pub use bernoulli::Bernoulli;
pub use binomial::Binomial;
pub use categorical::Categorical;
pub use discretized_logistic::DiscretizedLogistic;
pub use normal::Normal;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How a backend evaluates a family's log-density.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Parameters are (location, scale), the density is that of [`Normal`], the statistics are `z` and `z²` of
    /// `z = (x − location) / scale`.
    LocationScale,
    /// `<eta, T(x)> − A(eta) + h(x)`, with `0 · (−inf) = 0` in the inner product; T does not depend on parameters.
    Natural,
    /// The leaf's table, `eta[x] = log p(x)` for x in `0..size`, which is looked up; T is the indicator of x.
    Table {
        /// Number of values.
        size: usize,
        /// Whether the parameters are the table, a free probability for each value, so that a step is a division. Else they are
        /// what the family makes the table from, and each step is the family's own.
        free: bool,
    },
}

/// What the maximum-likelihood step of a leaf takes besides the statistics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeafStep {
    /// Dirichlet (Beta) pseudocount of each value of a discrete variable; 0 for maximum likelihood.
    pub pseudocount: f64,
    /// Smallest standard deviation of a Normal or a discretized logistic.
    pub minimum_std: f64,
    /// Normal: variance times n/(n−1), n the expected count, only where n > 2.
    pub bias_correction: bool,
}

/// The most values that a discrete variable can have: data are f32, which counts exactly up to 2^24.
const MOST_VALUES: usize = 1 << 24;

/// An error where a discrete variable has more than [`MOST_VALUES`] values.
fn check_values(what: &'static str, values: usize) -> Result<()> {
    if values <= MOST_VALUES {
        return Ok(());
    }
    let expected = format!("at most {MOST_VALUES} values of a variable, which is as far as float32 counts");
    Err(Error::Argument { what, given: values.to_string(), expected })
}

/// The largest continuous value, of either sign: differences of two such values are finite in f32.
const LARGEST_VALUE: f64 = 1e38;

/// Values of a row that are checked together.
const BLOCK: usize = 64;

/// A family of distributions `log p(x) = <eta, T(x)> − A(eta) + h(x)` of one variable.
///
/// `parameters` are the family's usual ones (mean and std, probabilities), as slices of length
/// [`parameters()`](Self::parameters). The natural parameters need not be minimal: Bernoulli has `T = (x, 1−x)`,
/// `eta = (log p, log(1−p))`, `A = 0`, which stays exact at p = 0 and p = 1.
pub trait ExponentialFamily {
    /// The name in messages, in lower case.
    fn name(&self) -> &'static str;

    /// An error where the family's own arguments are not legal.
    fn check(&self) -> Result<()>;

    /// The number of parameters of one distribution.
    fn parameters(&self) -> usize;

    /// The number of sufficient statistics.
    fn statistics(&self) -> usize;

    /// How backends evaluate it.
    fn form(&self) -> Form;

    /// The number of values `0, 1, …` that a discrete variable takes; `None` for a continuous one.
    fn cardinality(&self) -> Option<usize>;

    /// The support in words.
    fn support(&self) -> String;

    /// Whether `x` is in the support.
    fn contains(&self, x: f64) -> bool {
        match self.cardinality() {
            Some(n) => x >= 0.0 && x < n as f64 && x.fract() == 0.0,
            None => x.abs() <= LARGEST_VALUE,
        }
    }

    /// The position of the first value that is neither NaN nor in the support.
    fn first_outside(&self, row: &[f32]) -> Option<usize> {
        let cardinality = self.cardinality().map(|n| n as f32);
        row.chunks(BLOCK).enumerate().find_map(|(block, values)| {
            // Without a branch a value, which lets the compiler take many at a time; true for all outside, and rarely else.
            let suspicious = match cardinality {
                Some(n) => values
                    .iter()
                    .fold(false, |any, &x| any | (!x.is_nan() & !((x >= 0.0) & (x < n) & ((x as i32) as f32 == x)))),
                None => values.iter().fold(false, |any, &x| any | (x.abs() > LARGEST_VALUE as f32)),
            };
            let outside = |&x: &f32| !x.is_nan() && !self.contains(f64::from(x));
            suspicious.then(|| values.iter().position(outside)).flatten().map(|at| block * BLOCK + at)
        })
    }

    /// What is wrong with a parameter vector, if anything is.
    fn problem(&self, parameters: &[f64]) -> Option<String>;

    /// The sufficient statistics `T(x)`.
    fn sufficient(&self, parameters: &[f64], x: f64, statistics: &mut [f64]);

    /// The natural parameters `eta`, as many as statistics.
    fn natural(&self, parameters: &[f64], eta: &mut [f64]);

    /// The log-normaliser `A(eta)`.
    fn log_normalizer(&self, _parameters: &[f64]) -> f64 {
        0.0
    }

    /// The logarithm of the base measure, `h(x)`.
    fn log_base(&self, _x: f64) -> f64 {
        0.0
    }

    /// `log p(x)` in nats; x is in the support.
    fn log_density(&self, parameters: &[f64], x: f64) -> f64 {
        let mut t = vec![0.0; self.statistics()];
        let mut eta = t.clone();
        self.sufficient(parameters, x, &mut t);
        self.natural(parameters, &mut eta);
        let inner: f64 = eta.iter().zip(&t).filter(|(_, t)| **t != 0.0).map(|(eta, t)| eta * t).sum();
        inner - self.log_normalizer(parameters) + self.log_base(x)
    }

    /// What a backend evaluates the log-density with, appended to `coefficients`; see [`coefficient_count`](Self::coefficient_count).
    fn coefficients(&self, parameters: &[f64], coefficients: &mut Vec<f64>) {
        let mode = self.log_density(parameters, self.mode(parameters));
        if self.form() == Form::LocationScale {
            coefficients.extend([parameters[0], 1.0 / parameters[1], mode]);
            return;
        }
        let mut eta = vec![0.0; self.statistics()];
        self.natural(parameters, &mut eta);
        coefficients.extend(eta);
        if self.form() == Form::Natural {
            coefficients.push(-self.log_normalizer(parameters));
        }
        coefficients.push(mode);
    }

    /// The number of [`coefficients`](Self::coefficients). LocationScale: mean, 1/std, log-density at the mean. Natural:
    /// eta, −A, log-density of the mode. Table: the log-density of each value, then that of the mode.
    fn coefficient_count(&self) -> usize {
        match self.form() {
            Form::LocationScale => 3,
            Form::Natural => self.statistics() + 2,
            Form::Table { size, .. } => size + 1,
        }
    }

    /// For a discrete family in natural form: the statistics and then `h` of each value, row by row.
    fn sufficient_table(&self) -> Option<Vec<f64>> {
        let n = self.cardinality().filter(|_| self.form() == Form::Natural)?;
        let mut table = Vec::with_capacity(n * (self.statistics() + 1));
        let mut t = vec![0.0; self.statistics()];
        for x in 0..n {
            self.sufficient(&[], x as f64, &mut t);
            table.extend_from_slice(&t);
            table.push(self.log_base(x as f64));
        }
        Some(table)
    }

    /// The maximum-likelihood (with a pseudocount: maximum-a-posteriori) step. `parameters` holds the current
    /// parameters, which the statistics were gathered at, and receives the new ones; they stay as they are where
    /// nothing was seen. `count` is the sum of flows, `statistics` the flow-weighted sum of `T(x)`.
    fn maximum_likelihood(&self, parameters: &mut [f64], count: f64, statistics: &[f64], step: &LeafStep);

    /// The gradient of the flow-weighted log-likelihood with respect to the unconstrained parameters: mean and log std,
    /// logits.
    fn gradient(&self, parameters: &[f64], count: f64, statistics: &[f64], gradient: &mut [f64]);

    /// The expected sufficient statistics `E[T(X)]` of the distribution itself: what one of its own draws adds on average.
    fn expected(&self, parameters: &[f64], statistics: &mut [f64]);

    /// Turns the summed statistics of `count` values, gathered at the parameters `from`, into those of the same values at
    /// `to`. Nothing is to be done where T does not depend on the parameters.
    fn rebase(&self, _from: &[f64], _to: &[f64], _count: f64, _statistics: &mut [f64]) {}

    /// The units of a step in the unconstrained parameters. A mean moves in standard deviations, so that learning does not
    /// depend on the scale of the data; logits and the log of a std are pure numbers.
    fn units(&self, _parameters: &[f64], units: &mut [f64]) {
        units.fill(1.0);
    }

    /// Moves the unconstrained parameters, those of [`gradient`](Self::gradient), by `by`; logits are first multiplied by
    /// `keep`. No probability that is possible becomes impossible, and none that is 0 or 1 moves.
    fn shift(&self, parameters: &mut [f64], by: &[f64], keep: f64, minimum_std: f64);

    /// A draw, from two independent uniforms in the open interval (0, 1).
    fn sample(&self, parameters: &[f64], uniform: [f64; 2]) -> f64;

    /// The most probable value; the smallest of several.
    fn mode(&self, parameters: &[f64]) -> f64;

    /// Random parameters to begin learning from, made from uniforms in (0, 1).
    fn random(&self, uniform: &mut dyn FnMut() -> f64, parameters: &mut [f64]);
}

/// The families that a circuit's leaves can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Family {
    /// Continuous, bell-shaped.
    Normal(Normal),
    /// 0 or 1.
    Bernoulli(Bernoulli),
    /// One of K values.
    Categorical(Categorical),
    /// Successes of n trials.
    Binomial(Binomial),
    /// One of n grey values, neighbouring ones alike.
    DiscretizedLogistic(DiscretizedLogistic),
}

impl Family {
    /// Normal distributions.
    pub fn normal() -> Self {
        Family::Normal(Normal {})
    }

    /// Bernoulli distributions.
    pub fn bernoulli() -> Self {
        Family::Bernoulli(Bernoulli {})
    }

    /// Categorical distributions over `0..categories`.
    pub fn categorical(categories: usize) -> Self {
        Family::Categorical(Categorical { categories })
    }

    /// Binomial distributions over `0..=trials`.
    pub fn binomial(trials: usize) -> Self {
        Family::Binomial(Binomial { trials })
    }

    /// Discretized logistic distributions over `0..levels`.
    pub fn discretized_logistic(levels: usize) -> Self {
        Family::DiscretizedLogistic(DiscretizedLogistic { levels })
    }
}

impl std::ops::Deref for Family {
    type Target = dyn ExponentialFamily + Send + Sync;

    fn deref(&self) -> &Self::Target {
        match self {
            Family::Normal(f) => f,
            Family::Bernoulli(f) => f,
            Family::Categorical(f) => f,
            Family::Binomial(f) => f,
            Family::DiscretizedLogistic(f) => f,
        }
    }
}

/// The largest size of a logit that [`ExponentialFamily::shift`] leaves: the probability is then 1e-13 away from 0 or 1.
const LARGEST_LOGIT: f64 = 30.0;

/// A probability whose logit is multiplied by `keep` and moved by `by`; 0 and 1 stay.
fn shifted_probability(p: f64, by: f64, keep: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return p;
    }
    let logit = (p.ln() - (-p).ln_1p()) * keep + by;
    1.0 / (1.0 + (-logit.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)).exp())
}

/// The problem with a probability, if there is one.
fn probability_problem(p: f64) -> Option<String> {
    (!(0.0..=1.0).contains(&p)).then(|| format!("probability {p} is not between 0 and 1"))
}

#[cfg(test)]
mod tests;

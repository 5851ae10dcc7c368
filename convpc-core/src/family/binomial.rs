use serde::{Deserialize, Serialize};

use super::{ExponentialFamily, Form, LeafStep, check_values, probability_problem, shifted_probability};
use crate::error::{Result, positive};

/// Binomial distributions: successes of `trials` trials. Parameter: the probability p of a success. There are at least one and
/// fewer than 2^24 trials.
///
/// `T(x) = (x, n−x)`, `eta = (log p, log(1−p))`, `A = 0`, `h(x) = log C(n, x)`: exact at p = 0 and p = 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binomial {
    /// Number of trials n.
    pub trials: usize,
}

impl ExponentialFamily for Binomial {
    fn name(&self) -> &'static str {
        "binomial"
    }

    fn check(&self) -> Result<()> {
        positive("the number of trials of a binomial leaf", self.trials)?;
        check_values("the number of trials of a binomial leaf, plus one", self.trials.saturating_add(1))
    }

    fn parameters(&self) -> usize {
        1
    }

    fn statistics(&self) -> usize {
        2
    }

    fn form(&self) -> Form {
        Form::Natural
    }

    fn cardinality(&self) -> Option<usize> {
        Some(self.trials + 1)
    }

    fn support(&self) -> String {
        format!("the whole numbers 0 to {}", self.trials)
    }

    fn problem(&self, p: &[f64]) -> Option<String> {
        probability_problem(p[0])
    }

    fn sufficient(&self, _p: &[f64], x: f64, t: &mut [f64]) {
        t[0] = x;
        t[1] = self.trials as f64 - x;
    }

    fn natural(&self, p: &[f64], eta: &mut [f64]) {
        eta[0] = p[0].ln();
        eta[1] = (-p[0]).ln_1p();
    }

    fn log_base(&self, x: f64) -> f64 {
        /// Factors that are multiplied one by one; more of them are faster, and as exact, by the gamma function.
        const FACTORS: f64 = 256.0;
        let n = self.trials as f64;
        let k = x.min(n - x);
        if k <= FACTORS {
            return (1..=k as usize).map(|i| ((n - k + i as f64) / i as f64).ln()).sum();
        }
        libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0)
    }

    fn maximum_likelihood(&self, p: &mut [f64], _count: f64, t: &[f64], step: &LeafStep) {
        let (successes, failures) = (t[0] + step.pseudocount, t[1] + step.pseudocount);
        if successes + failures > 0.0 {
            p[0] = successes / (successes + failures);
        }
    }

    /// With respect to the logit of p.
    fn gradient(&self, p: &[f64], count: f64, t: &[f64], gradient: &mut [f64]) {
        gradient[0] = t[0] - self.trials as f64 * p[0] * count;
    }

    fn expected(&self, p: &[f64], t: &mut [f64]) {
        let n = self.trials as f64;
        t[0] = n * p[0];
        t[1] = n * (1.0 - p[0]);
    }

    fn shift(&self, p: &mut [f64], by: &[f64], keep: f64, _minimum_std: f64) {
        p[0] = shifted_probability(p[0], by[0], keep);
    }

    /// Inversion of the distribution function.
    fn sample(&self, p: &[f64], [u, _]: [f64; 2]) -> f64 {
        let mut below = 0.0;
        for x in 0..self.trials {
            below += self.log_density(p, x as f64).exp();
            if u < below {
                return x as f64;
            }
        }
        // Reached by rounding too, when the probabilities sum to a little less than u.
        if p[0] > 0.0 { self.trials as f64 } else { 0.0 }
    }

    fn mode(&self, p: &[f64]) -> f64 {
        // At a whole (n+1)p the value below it is as probable, and smaller.
        (((self.trials + 1) as f64 * p[0]).ceil() - 1.0).clamp(0.0, self.trials as f64)
    }

    /// Uniform in (0.1, 0.9).
    fn random(&self, uniform: &mut dyn FnMut() -> f64, p: &mut [f64]) {
        p[0] = 0.1 + 0.8 * uniform();
    }
}

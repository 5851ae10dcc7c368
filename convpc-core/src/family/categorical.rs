use serde::{Deserialize, Serialize};

use super::{ExponentialFamily, Form, LeafStep, check_values, probability_problem};
use crate::{
    error::{Result, positive},
    normalize::{normalize, shift_logits},
};

/// Categorical distributions over `0..categories`. Parameters: the probability of each value. There are at least one and at
/// most 2^24 categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Categorical {
    /// Number of values K.
    pub categories: usize,
}

impl ExponentialFamily for Categorical {
    fn name(&self) -> &'static str {
        "categorical"
    }

    fn check(&self) -> Result<()> {
        positive("the number of categories of a categorical leaf", self.categories)?;
        check_values("the number of categories of a categorical leaf", self.categories)
    }

    fn parameters(&self) -> usize {
        self.categories
    }

    fn statistics(&self) -> usize {
        self.categories
    }

    fn form(&self) -> Form {
        Form::Table { size: self.categories, free: true }
    }

    fn cardinality(&self) -> Option<usize> {
        Some(self.categories)
    }

    fn support(&self) -> String {
        format!("the whole numbers 0 to {}", self.categories - 1)
    }

    fn problem(&self, p: &[f64]) -> Option<String> {
        let sum = ndarray::aview1(p).sum();
        p.iter()
            .find_map(|&p| probability_problem(p))
            .or_else(|| ((sum - 1.0).abs() > 1e-6).then(|| format!("the probabilities sum to {sum}, not to 1")))
    }

    fn sufficient(&self, _p: &[f64], x: f64, t: &mut [f64]) {
        t.fill(0.0);
        t[x as usize] = 1.0;
    }

    fn natural(&self, p: &[f64], eta: &mut [f64]) {
        eta.iter_mut().zip(p).for_each(|(eta, p)| *eta = p.ln());
    }

    fn log_density(&self, p: &[f64], x: f64) -> f64 {
        p[x as usize].ln()
    }

    fn maximum_likelihood(&self, p: &mut [f64], _count: f64, t: &[f64], step: &LeafStep) {
        let total = ndarray::aview1(t).sum() + step.pseudocount * t.len() as f64;
        if total > 0.0 {
            p.iter_mut().zip(t).for_each(|(p, t)| *p = (t + step.pseudocount) / total);
        }
    }

    /// With respect to the logits (softmax).
    fn gradient(&self, p: &[f64], count: f64, t: &[f64], gradient: &mut [f64]) {
        gradient.iter_mut().zip(t.iter().zip(p)).for_each(|(g, (t, p))| *g = t - p * count);
    }

    fn expected(&self, p: &[f64], t: &mut [f64]) {
        t.copy_from_slice(p);
    }

    fn shift(&self, p: &mut [f64], by: &[f64], keep: f64, _minimum_std: f64) {
        shift_logits(p, by, keep);
    }

    /// Inversion of the distribution function.
    fn sample(&self, p: &[f64], [u, _]: [f64; 2]) -> f64 {
        crate::rng::pick(p.iter().copied(), u) as f64
    }

    fn mode(&self, p: &[f64]) -> f64 {
        crate::rng::arg_max(p.iter().copied()) as f64
    }

    /// Uniform on the simplex.
    fn random(&self, uniform: &mut dyn FnMut() -> f64, p: &mut [f64]) {
        p.iter_mut().for_each(|p| *p = -uniform().ln());
        normalize(p.iter_mut());
    }
}

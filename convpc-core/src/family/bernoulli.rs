use serde::{Deserialize, Serialize};

use super::{Binomial, ExponentialFamily, Form, LeafStep};
use crate::error::Result;

/// Bernoulli distributions over 0 and 1: a [`Binomial`] of one trial. Parameter: the probability of 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bernoulli {}

const ONE_TRIAL: Binomial = Binomial { trials: 1 };

impl ExponentialFamily for Bernoulli {
    fn name(&self) -> &'static str {
        "bernoulli"
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn parameters(&self) -> usize {
        ONE_TRIAL.parameters()
    }

    fn statistics(&self) -> usize {
        ONE_TRIAL.statistics()
    }

    fn form(&self) -> Form {
        ONE_TRIAL.form()
    }

    fn cardinality(&self) -> Option<usize> {
        Some(2)
    }

    fn support(&self) -> String {
        "0 or 1".into()
    }

    fn problem(&self, p: &[f64]) -> Option<String> {
        ONE_TRIAL.problem(p)
    }

    fn sufficient(&self, p: &[f64], x: f64, t: &mut [f64]) {
        ONE_TRIAL.sufficient(p, x, t);
    }

    fn natural(&self, p: &[f64], eta: &mut [f64]) {
        ONE_TRIAL.natural(p, eta);
    }

    fn maximum_likelihood(&self, p: &mut [f64], count: f64, t: &[f64], step: &LeafStep) {
        ONE_TRIAL.maximum_likelihood(p, count, t, step);
    }

    fn gradient(&self, p: &[f64], count: f64, t: &[f64], gradient: &mut [f64]) {
        ONE_TRIAL.gradient(p, count, t, gradient);
    }

    fn expected(&self, p: &[f64], t: &mut [f64]) {
        ONE_TRIAL.expected(p, t);
    }

    fn shift(&self, p: &mut [f64], by: &[f64], keep: f64, minimum_std: f64) {
        ONE_TRIAL.shift(p, by, keep, minimum_std);
    }

    fn sample(&self, p: &[f64], uniform: [f64; 2]) -> f64 {
        ONE_TRIAL.sample(p, uniform)
    }

    fn mode(&self, p: &[f64]) -> f64 {
        ONE_TRIAL.mode(p)
    }

    fn random(&self, uniform: &mut dyn FnMut() -> f64, p: &mut [f64]) {
        ONE_TRIAL.random(uniform, p);
    }
}

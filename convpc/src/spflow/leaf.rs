//! SPFlow's leaves as those of convpc.

use std::fmt;

use convpc_core::{Error, Family};
use ndarray::{ArrayD, Axis, IxDyn};

use super::Note;

/// The leaf families that SPFlow's leaves are imported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafKind {
    /// `loc`, `log_scale`. SPFlow's Laplace and LogNormal leaves have these as well: the tensors do not tell.
    Normal,
    /// `_logits` with 3 axes: log-odds.
    Bernoulli,
    /// `_logits` with 4 axes: softmax over the last.
    Categorical,
    /// `_logits` with 3 axes: log-odds, and `_total_count` where it was saved.
    Binomial,
}

impl fmt::Display for LeafKind {
    /// The name that `convpc import-spflow --leaf` knows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeafKind::Normal => "normal",
            LeafKind::Bernoulli => "bernoulli",
            LeafKind::Categorical => "categorical",
            LeafKind::Binomial => "binomial",
        })
    }
}

/// The largest log-odds `x` of which the probability `1 / (1 + e^-x)` still says in float64, within 1e-5 relative, what the
/// logarithm of its complement is: the rounding of the probability, 1.7e-16 at most, is `e^x / x` times as much of that.
pub(super) const LARGEST_LOGIT: f64 = 28.0;

/// A leaf tensor `[variables, channels, repetitions, parameters]`, its family, and what there is to say.
pub(super) struct Leaves {
    pub(super) tensor: ArrayD<f64>,
    pub(super) family: Family,
    pub(super) notes: Vec<Note>,
}

/// Leaves that count so many trials, of which each succeeds with the log-odds given: as `family` has them where its probabilities
/// say enough, else as a table of the probabilities of all values.
pub(super) fn of_trials(logits: ArrayD<f64>, trials: usize, family: Family) -> Result<Leaves, Error> {
    let largest = logits.iter().copied().filter(|x| x.is_finite()).fold(f64::NEG_INFINITY, f64::max);
    if largest <= LARGEST_LOGIT {
        let tensor = logits.mapv(|x| probability(log_sigmoid(x))).insert_axis(Axis(3));
        return Ok(Leaves { tensor, family, notes: vec![] });
    }
    let values = trials.saturating_add(1);
    let tensor = table(&logits, trials)?;
    let note = Note::AsCategorical { family: family.name(), values, largest_logit: largest };
    Ok(Leaves { tensor, family: Family::categorical(values), notes: vec![note] })
}

/// The probabilities of 0 to `trials` successes, along a new last axis.
fn table(logits: &ArrayD<f64>, trials: usize) -> Result<ArrayD<f64>, Error> {
    let too_large = || Error::TooLarge { what: "the number of probabilities of the leaves" };
    let values = trials.checked_add(1).ok_or_else(too_large)?;
    let mut all = Vec::new();
    all.try_reserve_exact(logits.len().checked_mul(values).ok_or_else(too_large)?).map_err(|_| too_large())?;
    for &logit in logits {
        let (success, failure) = (log_sigmoid(logit), log_sigmoid(-logit));
        let mut log_ways = 0.0;
        for x in 0..values {
            all.push(probability(log_ways + times(x, success) + times(trials - x, failure)));
            log_ways += ((trials - x) as f64 / (x + 1) as f64).ln();
        }
    }
    let shape = [logits.shape(), &[values]].concat();
    ArrayD::from_shape_vec(IxDyn(&shape), all).map_err(|_| too_large())
}

/// `n · log p`, which is 0 for none of the impossible.
fn times(n: usize, log_p: f64) -> f64 {
    if n == 0 { 0.0 } else { n as f64 * log_p }
}

/// `log 1 / (1 + e^-x)`.
fn log_sigmoid(x: f64) -> f64 {
    if x < 0.0 { x - x.exp().ln_1p() } else { -(-x).exp().ln_1p() }
}

/// The probability of this logarithm.
fn probability(log_p: f64) -> f64 {
    held(log_p.exp(), log_p)
}

/// A probability that was computed from a logarithm or a logit: at least the smallest that float64 holds in full, unless it is zero.
pub(super) fn held(p: f64, logarithm: f64) -> f64 {
    if p < f64::MIN_POSITIVE && logarithm > f64::NEG_INFINITY { f64::MIN_POSITIVE } else { p }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_say_enough_up_to_the_largest_logit() {
        for step in 1..=28_000 {
            let logit = LARGEST_LOGIT * f64::from(step) / 28_000.0;
            let (given, exact) = ((1.0 - probability(log_sigmoid(logit))).ln(), log_sigmoid(-logit));
            assert!((given - exact).abs() <= 1e-5 * exact.abs(), "{logit}: {given} {exact}");
        }
    }

    #[test]
    fn what_float64_cannot_hold_is_its_smallest_and_nothing_stays_nothing() {
        assert_eq!([-800.0, f64::NEG_INFINITY].map(probability), [f64::MIN_POSITIVE, 0.0]);
        assert!(probability(f64::NAN).is_nan());
        let certain = table(&ndarray::arr1(&[f64::INFINITY]).into_dyn(), 2).unwrap();
        assert_eq!(certain.into_raw_vec_and_offset().0, [0.0, 0.0, 1.0]);
        assert!(table(&ndarray::arr1(&[50.0]).into_dyn(), usize::MAX - 1).is_err());
    }
}

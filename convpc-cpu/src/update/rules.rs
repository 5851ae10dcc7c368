//! What the rules of [`convpc_core::Rule`] do to one distribution.

use convpc_core::{Adam, Blend, Family, Form, LeafStep, SMALLEST_WEIGHT};
use ndarray::aview1;

use super::distributions::{Distribution, Visit};
use crate::{
    leaf::log_table,
    simd::{
        Isa,
        ops::{Moments, ShiftLogits},
    },
};

/// The exact EM step.
pub(crate) struct Full {
    pub(crate) step: LeafStep,
}

/// Quotients by their own sum, which free tables are, are legal wherever counts are finite.
fn may_be_no_density(family: &Family) -> bool {
    !matches!(family.form(), Form::Table { free: true, .. })
}

impl Visit for Full {
    fn replaces_weights(&self) -> Option<f64> {
        Some(self.step.pseudocount)
    }

    fn goes_astray(&self, family: &Family) -> bool {
        may_be_no_density(family)
    }

    fn visit(&self, it: Distribution, _: &mut [Vec<f64>; 2]) -> f64 {
        it.family.maximum_likelihood(it.theta, it.counts[0], &it.counts[1..], &self.step);
        0.0
    }
}

/// [`convpc_core::MiniBatchEm`].
pub(super) struct Blending {
    pub(super) blend: Blend,
    pub(super) step: f64,
    pub(super) momentum: f64,
    /// What the running mean is too small by.
    pub(super) bias: f64,
    /// Rows that the counts come from.
    pub(super) rows: f64,
    /// Rows that the pseudocount belongs to.
    pub(super) scale: f64,
    pub(super) full: LeafStep,
}

impl Visit for Blending {
    fn goes_astray(&self, family: &Family) -> bool {
        may_be_no_density(family)
    }

    fn needs_top_down(&self) -> bool {
        self.blend == Blend::TopDown
    }

    fn visit(&self, it: Distribution, [expected, target]: &mut [Vec<f64>; 2]) -> f64 {
        let Distribution { family, before, theta, counts, used, memory: [running, _] } = it;
        let mut per_count = self.scale / self.rows;
        if !running.is_empty() {
            // Those of sums begin with their first weight, those of leaves with the flow.
            let remembered = counts.len() - running.len();
            for (mean, new) in running.iter_mut().zip(&mut counts[remembered..]) {
                *mean = self.momentum * *mean + (1.0 - self.momentum) * (*new / self.rows);
                *new = *mean;
            }
            per_count = self.scale / self.bias;
        }
        expected.resize(family.statistics(), 0.0);
        family.expected(before, expected);
        match self.blend {
            Blend::TopDown => {
                let (new, old) = (self.step * per_count, self.scale * (1.0 - self.step) * used);
                counts[0] = new * counts[0] + old;
                counts.iter_mut().skip(1).zip(&*expected).for_each(|(n, t)| *n = new * *n + old * t);
                family.maximum_likelihood(theta, counts[0], &counts[1..], &self.full);
            }
            Blend::Parameters => {
                counts.iter_mut().for_each(|n| *n *= per_count);
                family.maximum_likelihood(theta, counts[0], &counts[1..], &self.full);
                target.resize(expected.len(), 0.0);
                family.expected(theta, target);
                family.rebase(theta, before, 1.0, target);
                let step = self.step;
                target.iter_mut().zip(&*expected).for_each(|(new, old)| *new = (1.0 - step) * old + step * *new);
                theta.copy_from_slice(before);
                let exact = LeafStep { pseudocount: 0.0, minimum_std: 0.0, bias_correction: false };
                family.maximum_likelihood(theta, 1.0, target, &exact);
            }
        }
        // The statistics of a sum, or of a table, do not depend on the parameters.
        if running.len() == counts.len()
            && let Some((count, t)) = running.split_first_mut()
        {
            family.rebase(before, theta, *count, t);
        }
        0.0
    }
}

/// The gradient of the mean log-likelihood with respect to the unconstrained parameters in their units: the sum of its squares.
pub(super) struct Slope {
    /// What a count is multiplied with.
    pub(super) scale: f64,
}

impl Slope {
    fn of(&self, it: &Distribution, gradient: &mut Vec<f64>, units: &mut Vec<f64>) {
        gradient.resize(it.before.len(), 0.0);
        units.resize(it.before.len(), 0.0);
        it.family.gradient(it.before, it.counts[0], &it.counts[1..], gradient);
        it.family.units(it.before, units);
        gradient.iter_mut().zip(units).for_each(|(g, unit)| *g *= *unit * self.scale);
    }
}

impl Visit for Slope {
    fn moves(&self) -> bool {
        false
    }

    fn goes_astray(&self, _: &Family) -> bool {
        false
    }

    fn visit(&self, it: Distribution, [gradient, units]: &mut [Vec<f64>; 2]) -> f64 {
        self.of(&it, gradient, units);
        aview1(gradient).dot(&aview1(gradient))
    }
}

/// [`Adam`].
pub(super) struct Ascent {
    pub(super) slope: Slope,
    pub(super) rule: Adam,
    pub(super) step: f64,
    /// What the running means are too small by.
    pub(super) bias: [f64; 2],
    pub(super) keep: f64,
    pub(super) isa: Isa,
}

impl Visit for Ascent {
    fn goes_astray(&self, _: &Family) -> bool {
        true
    }

    fn visit(&self, it: Distribution, [gradient, units]: &mut [Vec<f64>; 2]) -> f64 {
        self.slope.of(&it, gradient, units);
        let Distribution { family, theta, memory: [first, second], .. } = it;
        let (Adam { beta1, beta2, epsilon, minimum_std, .. }, bias) = (self.rule, self.bias);
        let (beta, size) = ([beta1, beta2], self.step);
        self.isa.dispatch(Moments { g: gradient, first, second, beta, bias, epsilon, size });
        if let Form::Table { free: true, .. } = family.form() {
            self.shift_logits(theta, gradient);
        } else {
            gradient.iter_mut().zip(&*units).for_each(|(g, unit)| *g *= unit);
            family.shift(theta, gradient, self.keep, minimum_std);
        }
        0.0
    }
}

impl Ascent {
    /// Moves a free table; the units of logits are one.
    fn shift_logits(&self, p: &mut [f64], by: &mut [f64]) {
        let decay = 1.0 - self.keep;
        if decay > 0.0 {
            // Times a decay, which is small, the logarithms of f32 are near enough: p^keep = p exp(−decay log p).
            let mut logarithms = vec![0.0; p.len()];
            log_table(self.isa, p, &mut logarithms);
            let shifts = by.iter_mut().zip(&logarithms).filter(|(_, log)| log.is_finite());
            shifts.for_each(|(by, log)| *by -= decay * f64::from(*log));
        }
        self.isa.dispatch(ShiftLogits { w: p, by, least: SMALLEST_WEIGHT });
    }
}

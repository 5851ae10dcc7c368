//! Leaves in float64, for values and parameters that f32 cannot hold: slower, and rarely needed.

use convpc_core::{Form, Semiring, Structure};

use super::{LeafScratch, Leaves, PEAK_ROW};
use crate::simd::{Isa, ops::ExactLocationScale};

impl Leaves {
    /// The largest absolute log-density, in nats, for which a row is computed in f32.
    pub(crate) fn trusted(&self) -> f32 {
        self.trusted
    }

    /// The most that positive log-densities of all columns can add to a log-likelihood, nats. It is 0 for families other than those
    /// of a location and a scale, whose log-densities are never positive.
    pub(crate) fn gains(&self, structure: &Structure) -> f64 {
        if self.family.form() != Form::LocationScale {
            return 0.0;
        }
        let peak = |leaf: usize, repetition: usize| f64::from(self.of(leaf, repetition)[PEAK_ROW * self.channels]);
        let largest = |column: usize| {
            let leaf = structure.leaf_row(column);
            (0..self.repetitions).map(|repetition| peak(leaf, repetition)).fold(0.0, f64::max)
        };
        (0..structure.variables()).map(largest).sum()
    }

    /// [`upward`](Self::upward) in float64: `out` is `[channels][width]`, `theta` are the leaf's own parameters,
    /// `[channels][repetitions][parameters]`.
    pub(crate) fn upward_exact(
        &self,
        isa: Isa,
        (leaf, repetition, theta): (usize, usize, &[f64]),
        x: &[f32],
        semiring: Semiring,
        scratch: &mut LeafScratch,
        out: &mut [f64],
    ) {
        let (family, channels) = (self.family, self.channels);
        let of_missing = |mode: f64| if semiring == Semiring::MaxProduct { mode } else { 0.0 };
        if let Form::Table { size, .. } = family.form() {
            let p = self.of(leaf, repetition);
            for (c, out) in out.chunks_exact_mut(x.len()).enumerate() {
                let at = |value: usize| f64::from(p[value * channels + c]);
                let add = |(out, x): (&mut f64, &f32)| {
                    *out += if x.is_nan() { of_missing(at(size)) } else { at(*x as usize) };
                };
                out.iter_mut().zip(x).for_each(add);
            }
            return;
        }
        let size = family.parameters();
        let (coefficients, statistics) = (&mut scratch.coefficients, &mut scratch.statistics);
        statistics.resize(family.statistics(), 0.0);
        let leaves = theta.chunks_exact(size * self.repetitions).map(|theta| &theta[repetition * size..][..size]);
        for (theta, out) in leaves.zip(out.chunks_exact_mut(x.len())) {
            coefficients.clear();
            family.coefficients(theta, coefficients);
            let mode = coefficients[coefficients.len() - 1];
            if family.form() == Form::LocationScale {
                let (mean, inv_std, missing) = (coefficients[0], coefficients[1], of_missing(mode));
                isa.dispatch(ExactLocationScale { x, mean, inv_std, mode, missing, out });
                continue;
            }
            for (out, x) in out.iter_mut().zip(x) {
                *out += if x.is_nan() {
                    of_missing(mode)
                } else {
                    family.sufficient(theta, f64::from(*x), statistics);
                    let terms = coefficients.iter().zip(&*statistics).filter(|(_, t)| **t != 0.0);
                    let inner: f64 = terms.map(|(eta, t)| eta * t).sum();
                    inner + coefficients[statistics.len()] + family.log_base(f64::from(*x))
                };
            }
        }
    }
}

/// The sums over observed rows of flow, flow·z and flow·z² of channel `c` of so many, in float64.
pub(super) fn location_scale_sums(
    theta: &[f64],
    (x, width): (&[f32], usize),
    flow: &[f32],
    (c, channels): (usize, usize),
) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for (x, flow) in x.chunks_exact(width).zip(flow.chunks_exact(channels * width)) {
        let flows = flow[c * width..][..width].iter().map(|f| f64::from(*f));
        for (x, f) in x.iter().zip(flows).filter(|(x, f)| *f > 0.0 && !x.is_nan()) {
            let z = (f64::from(*x) - theta[0]) / theta[1];
            sums = [sums[0] + f, sums[1] + f * z, sums[2] + f * z * z];
        }
    }
    sums
}

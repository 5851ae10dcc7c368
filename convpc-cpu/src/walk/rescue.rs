//! Sums that f32 cannot be trusted with, computed anew with mantissas and exponents.

use convpc_core::Semiring;

use super::PanelScratch;
use crate::{
    simd::{
        Isa,
        ops::{Rescue, SMALLEST_SUM, SplitLogarithms, Widen},
    },
    weights::{Weights, WideWeights},
};

/// A sum node.
pub(super) struct Sum<'a> {
    pub(super) weights: &'a Weights,
    pub(super) feature: usize,
    pub(super) repetition: usize,
}

/// What a sum's inputs were before they became relative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inputs {
    Logarithms,
    Plain,
    /// Already split.
    Wide,
}

impl Sum<'_> {
    /// Computes outputs that are not trusted anew; returns whether there are some whose values f32 does not hold. Inputs and
    /// outputs are in `scratch` then; otherwise the zeros among the sums are true.
    pub(super) fn rescue(
        &self,
        isa: Isa,
        given: Inputs,
        semiring: Semiring,
        e: &[f32],
        sums: &mut [f32],
        scratch: &mut PanelScratch,
    ) -> bool {
        let Sum { weights, feature, repetition } = *self;
        let width = sums.len() / weights.outputs;
        let PanelScratch { logarithms, row, inputs, outputs, .. } = scratch;
        let [mantissas, exponents] = inputs.each_mut().map(|to| to.at_least(e.len()));
        match given {
            Inputs::Logarithms => {
                let (x, max) = (&logarithms.as_ref()[..e.len()], &row.as_ref()[..width]);
                isa.dispatch(SplitLogarithms { x, max, values: mantissas, exponents });
            }
            Inputs::Plain => {
                mantissas.copy_from_slice(e);
                isa.dispatch(Widen { values: mantissas, exponents });
            }
            Inputs::Wide => (),
        }
        let [out, out_exponents] = outputs.each_mut().map(|to| to.at_least(sums.len()));
        let largest = semiring == Semiring::MaxProduct;
        let outs = out.chunks_exact_mut(width).zip(out_exponents.chunks_exact_mut(width));
        let (mut wide, mut wide_weights) = (false, WideWeights::default());
        for ((output, sum), (out, out_exponents)) in sums.chunks_exact(width).enumerate().zip(outs) {
            let (w, w_exponents) = wide_weights.of(weights, (feature, repetition), output);
            let (mantissas, exponents) = (&*mantissas, &*exponents);
            wide |= isa.dispatch(Rescue { w, w_exponents, mantissas, exponents, sum, out, out_exponents, largest });
        }
        if !wide {
            sums.iter_mut().filter(|s| **s < SMALLEST_SUM).for_each(|s| *s = 0.0);
        }
        wide
    }
}

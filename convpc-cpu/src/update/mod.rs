//! The update rules, on the backend's own tensors: each distribution of the circuit is read, moved and laid out anew in one
//! pass, on all threads of the pool. What becomes of it does not depend on their number.

mod distributions;
mod rules;

use convpc_core::{Adam, Blend, Executable, LeafStep, MiniBatchEm, OptimizerState, Result, top_down};
use ndarray::{Array3, ArrayD};

pub(crate) use self::rules::Full;
use self::{
    distributions::{Visit, each},
    rules::{Ascent, Blending, Slope},
};
use crate::executable::CpuExecutable;

impl CpuExecutable {
    /// Shows every distribution to `visit`, with what is remembered of it; the sum of its answers. Where it moves them the
    /// statistics are forgotten, which belong to the parameters before, also if some could not be moved.
    pub(crate) fn step<V: Visit>(&mut self, visit: &V, memory: [Option<&mut Vec<ArrayD<f64>>>; 2]) -> Result<f64> {
        let used = if visit.needs_top_down() { self.top_down() } else { Vec::new() };
        let (model, counts) = (&mut self.model, &self.counts);
        let sum = self.pool.install(|| each(model, counts, &used, memory, visit));
        if visit.moves() {
            self.moved();
        }
        sum
    }

    /// The top-down probability of each node, `[repetition, feature, channel]` for each layer.
    fn top_down(&self) -> Vec<Array3<f64>> {
        let sums = &self.model.sums;
        top_down(self.structure(), |layer, outputs, inputs| {
            sums[layer].as_ref().expect("a sum-like layer").mix(outputs, inputs);
        })
    }

    pub(crate) fn mini_batch_step(&mut self, rule: &MiniBatchEm, step: f64, state: &mut OptimizerState) -> Result<()> {
        rule.check_step(step)?;
        let (rows, bias) = (self.seen.counted_rows()?, state.next_bias(rule.momentum));
        let MiniBatchEm { blend, momentum, pseudocount, minimum_std, data_rows } = *rule;
        let running = match momentum > 0.0 {
            true => Some(state.memory.running(self.structure())?),
            false => state.memory.none().map(|()| None)?,
        };
        // The pseudocount belongs to the data: the resting point must not depend on the step size.
        let pseudocount = if blend == Blend::TopDown { step * pseudocount } else { pseudocount };
        let blending = Blending {
            blend,
            step,
            momentum,
            bias,
            rows,
            scale: data_rows.map_or(rows, |rows| rows as f64),
            full: LeafStep { pseudocount, minimum_std, bias_correction: false },
        };
        self.step(&blending, [running, None])?;
        Ok(())
    }

    pub(crate) fn adam_step(&mut self, rule: &Adam, step: f64, state: &mut OptimizerState) -> Result<()> {
        rule.check_step(step)?;
        let mut slope = Slope { scale: 1.0 / self.seen.counted_rows()? };
        let bias = [rule.beta1, rule.beta2].map(|beta| state.next_bias(beta));
        let (first, second) = state.memory.moments(self.structure())?;
        if let Some(clip) = rule.clip {
            let norm = self.step(&slope, [None, None])?.sqrt();
            if norm > clip {
                slope.scale *= clip / norm;
            }
        }
        let ascent =
            Ascent { slope, rule: *rule, step, bias, keep: 1.0 - step * rule.weight_decay, isa: self.model.isa };
        self.step(&ascent, [Some(&mut first.0), Some(&mut second.0)])?;
        Ok(())
    }
}

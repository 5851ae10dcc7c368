//! Steps of Adam on the device.

use std::sync::Arc;

use convpc_core::{Accumulated, Adam, Circuit, Form, Structure, WeightMatrices};
use ndarray::{Axis, s};

use crate::{
    driver::{Buffer, Need, Queue},
    model::{self, Model},
    params::{ConvpcAscent, ConvpcLeafUpdate, ConvpcSquares, ConvpcWeightUpdate},
    statistics::Counts,
    tensors::Tensors,
    update::{Leaves, WARPS, weight_update},
};

/// A step of the rule, and the moments that it remembers.
#[derive(Clone, Copy)]
pub(crate) struct Ascent<'a> {
    pub(crate) rule: &'a Adam,
    pub(crate) step: f64,
    /// Of the gradient, and of its square.
    pub(crate) moments: [&'a Tensors; 2],
    /// What they are too small by.
    pub(crate) bias: [f64; 2],
}

impl Counts {
    /// Takes a step; the counts are forgotten.
    ///
    /// # Errors
    /// [`NoStatistics`](convpc_core::Error::NoStatistics) where no row of positive probability was seen; the first distribution that the step would have
    /// made illegal, which stays; where the device fails.
    pub(crate) fn ascend(
        &mut self,
        queue: &Queue,
        structure: &Arc<Structure>,
        model: &mut Model,
        seen: &Accumulated,
        ascent: Ascent,
    ) -> convpc_core::Result<()> {
        let Ascent { rule, step, bias: [bias1, bias2], .. } = ascent;
        let Adam { beta1, beta2, epsilon, weight_decay, .. } = *rule;
        let mut astray = queue.allocate::<u32>(1, Need::Circuit)?;
        queue.clear(&mut astray)?;
        let scale = 1.0 / seen.counted_rows()?;
        let keep = 1.0 - step * weight_decay;
        let astray_at = astray.address();
        let rule_of_step = ConvpcAscent {
            astray: astray_at,
            scale,
            beta1,
            beta2,
            bias1,
            bias2,
            epsilon,
            step,
            keep,
            ..Default::default()
        };
        // The norm is that of all parameters together: squares of each distribution first, then their sum.
        let norm = match rule.clip {
            Some(clip) => Some((clip, self.squares(queue, structure, model, ascent, rule_of_step)?)),
            None => None,
        };
        let clipped = match &norm {
            Some((clip, sum)) => ConvpcAscent { clip: *clip, all_squares: sum.address(), ..rule_of_step },
            None => rule_of_step,
        };
        self.launch(queue, structure, model, ascent, |_| clipped)?;
        model.lay_leaves(queue, structure)?;
        model.pack(queue)?;
        let legal = match queue.download(&astray, 1)?[..] {
            [0] => Ok(()),
            _ => self.astray(queue, structure, model),
        };
        self.clear(queue)?;
        legal
    }

    /// The sum of the squares of the gradient.
    fn squares(
        &self,
        queue: &Queue,
        structure: &Structure,
        model: &Model,
        ascent: Ascent,
        rule: ConvpcAscent,
    ) -> convpc_core::Result<Buffer<f64>> {
        let rows = |layer| WeightMatrices::new(structure, layer).map_or(0, |m| m.weights() / m.inputs);
        let mut starts = vec![0, model::leaf_count(structure)];
        for layer in 1..structure.layers().len() {
            starts.push(starts[layer] + rows(layer));
        }
        let count = starts[structure.layers().len()];
        let squares = queue.allocate::<f64>(count, Need::Circuit)?;
        let sum = queue.allocate::<f64>(1, Need::Circuit)?;
        let of_layer = |layer: usize| ConvpcAscent { squares: squares.address() + 8 * starts[layer] as u64, ..rule };
        self.launch(queue, structure, model, ascent, of_layer)?;
        let all = ConvpcSquares { squares: squares.address(), sum: sum.address(), count: count as u64 };
        queue.launch("add_squares", all, 1, 0)?;
        Ok(sum)
    }

    /// Launches the kernels of all layers.
    fn launch(
        &self,
        queue: &Queue,
        structure: &Structure,
        model: &Model,
        ascent: Ascent,
        of_layer: impl Fn(usize) -> ConvpcAscent,
    ) -> convpc_core::Result<()> {
        let leaves = Leaves::of(structure.leaf().family)?;
        let [first, second] = ascent.moments;
        for (layer, counts) in self.sums.iter().enumerate() {
            let arguments = weight_update(structure, layer, counts.as_ref(), model);
            let Some((arguments, (first, second))) =
                arguments.zip(first.sums[layer].as_ref().zip(second.sums[layer].as_ref()))
            else {
                continue;
            };
            let moments = ConvpcAscent { first: first.address(), second: second.address(), ..of_layer(layer) };
            let arguments = ConvpcWeightUpdate { ascent: moments, ..arguments };
            queue.launch("ascend_weights", arguments, (arguments.rows as usize).div_ceil(WARPS), 0)?;
        }
        let moments = ConvpcAscent { first: first.leaves.address(), second: second.leaves.address(), ..of_layer(0) };
        let arguments = ConvpcLeafUpdate {
            ascent: moments,
            minimum_std: ascent.rule.minimum_std,
            ..self.leaf_update(structure, model, leaves)
        };
        let blocks = leaves.blocks(model::leaf_count(structure));
        Ok(queue.launch(&format!("ascend_{}", leaves.name()), arguments, blocks, 0)?)
    }

    /// The error of the first distribution that a step was too long for: its first count is none.
    fn astray(&self, queue: &Queue, structure: &Arc<Structure>, model: &Model) -> convpc_core::Result<()> {
        let (marked, mut parameters) = (self.download(queue, structure)?, model.parameters(queue, structure)?);
        let family = structure.leaf().family;
        for (counts, mut theta) in marked[0].rows().into_iter().zip(parameters.0[0].rows_mut()) {
            match family.form() {
                _ if !counts[0].is_nan() => {}
                // The kernel leaves a Normal's parameters where its statistics were.
                Form::LocationScale => theta.assign(&counts.slice(s![1..])),
                _ => theta.fill(f64::NAN),
            }
        }
        for ((layer, counts), weights) in structure.layers().iter().zip(&marked).zip(&mut parameters.0).skip(1) {
            let Some(axis) = layer.normalized_axis().map(Axis) else { continue };
            for (counts, mut weights) in counts.lanes(axis).into_iter().zip(weights.lanes_mut(axis)) {
                if counts[0].is_nan() {
                    weights.fill(f64::NAN);
                }
            }
        }
        Circuit::new(structure.clone(), parameters).map(|_| ())
    }
}

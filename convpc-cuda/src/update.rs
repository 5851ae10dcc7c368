//! Steps and gradients on the device, from counts that are there to parameters that are there.

use convpc_core::{Accumulated, Binomial, Blend, Family, Form, MiniBatchEm, Parameters, Structure, WeightMatrices, em};

use crate::{
    driver::{Buffer, Queue},
    error::CudaError,
    model::{self, Model},
    params::{self, ConvpcAverage, ConvpcBlend, ConvpcLeafUpdate, ConvpcWeightUpdate},
    statistics::Counts,
    tensors::Tensors,
    top_down::TopDown,
};

/// Threads and warps of a block.
const THREADS: usize = params::CONVPC_THREADS as usize;
pub(crate) const WARPS: usize = THREADS / 32;

/// The leaf families that the kernels know.
#[derive(Clone, Copy)]
pub(crate) enum Leaves {
    LocationScale,
    Binomial { trials: usize },
    Table { values: usize },
    Logistic { values: usize },
}

impl Leaves {
    pub(crate) fn of(family: Family) -> Result<Self, CudaError> {
        Ok(match (family.form(), family) {
            (Form::LocationScale, _) => Leaves::LocationScale,
            (Form::Table { size, free: true }, _) => Leaves::Table { values: size },
            (Form::Natural, Family::Bernoulli(_)) => Leaves::Binomial { trials: 1 },
            (Form::Natural, Family::Binomial(Binomial { trials })) if trials > params::CONVPC_MOST_TRIALS as usize => {
                return Err(CudaError::TooManyTrials { trials, most: params::CONVPC_MOST_TRIALS as usize });
            }
            (Form::Natural, Family::Binomial(Binomial { trials })) => Leaves::Binomial { trials },
            (Form::Table { size, .. }, Family::DiscretizedLogistic(_)) => Leaves::Logistic { values: size },
            (Form::Natural | Form::Table { .. }, _) => {
                return Err(CudaError::UnsupportedFamily { family: family.name() });
            }
        })
    }

    /// The end of its kernels' names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Leaves::LocationScale => "location_scale",
            Leaves::Binomial { .. } => "binomial",
            Leaves::Table { .. } => "table",
            Leaves::Logistic { .. } => "logistic",
        }
    }

    /// Blocks for so many leaves.
    pub(crate) fn blocks(self, count: usize) -> usize {
        count.div_ceil(match self {
            Leaves::Table { .. } | Leaves::Logistic { .. } => WARPS,
            Leaves::LocationScale | Leaves::Binomial { .. } => THREADS,
        })
    }
}

/// A step of EM on the device.
#[derive(Clone, Copy)]
pub(crate) enum Step<'a> {
    /// [`em::step`].
    Em(&'a em::Options),
    /// [`MiniBatchEm`], with a step size and what is remembered of the steps before, where there is momentum.
    MiniBatchEm(&'a MiniBatchEm, f64, Option<Running<'a>>),
}

/// The running mean of the expected counts of a row.
#[derive(Clone, Copy)]
pub(crate) struct Running<'a> {
    pub(crate) mean: &'a Tensors,
    /// What it is too small by.
    pub(crate) bias: f64,
}

impl Step<'_> {
    /// Whether it takes the top-down probabilities.
    pub(crate) fn needs_top_down(&self) -> bool {
        matches!(self, Step::MiniBatchEm(MiniBatchEm { blend: Blend::TopDown, .. }, ..))
    }

    /// What the kernels do with counts of so many rows, and the options of the step that it is a part of.
    fn blend(&self, rows: f64) -> (ConvpcBlend, em::Options) {
        let whole = ConvpcBlend { counts: 1.0, kind: params::CONVPC_BLEND_COUNTS, ..ConvpcBlend::default() };
        let (rule, step, seen) = match *self {
            Step::Em(options) => return (whole, *options),
            // The running mean is that of one row.
            Step::MiniBatchEm(rule, step, Some(running)) => (rule, step, running.bias),
            Step::MiniBatchEm(rule, step, None) => (rule, step, rows),
        };
        let scale = rule.data_rows.map_or(rows, |rows| rows as f64);
        let MiniBatchEm { pseudocount, minimum_std, .. } = *rule;
        let options = em::Options { pseudocount, minimum_std, bias_correction: false };
        match rule.blend {
            Blend::TopDown => {
                let blend = ConvpcBlend { counts: scale * step / seen, expected: scale * (1.0 - step), ..whole };
                // The pseudocount belongs to the data: the resting point must not depend on the step size.
                (blend, em::Options { pseudocount: step * pseudocount, ..options })
            }
            Blend::Parameters => {
                let kind = params::CONVPC_BLEND_PARAMETERS;
                (ConvpcBlend { counts: scale / seen, step, kind, ..whole }, options)
            }
        }
    }
}

impl Counts {
    /// Takes a step; the counts are forgotten. `top_down` are the probabilities where the step needs them.
    ///
    /// # Errors
    /// [`NoStatistics`](convpc_core::Error::NoStatistics) where no row of positive probability was seen; where the device fails.
    pub(crate) fn step(
        &mut self,
        queue: &Queue,
        structure: &Structure,
        model: &mut Model,
        seen: &Accumulated,
        step: Step,
        top_down: Option<&TopDown>,
    ) -> convpc_core::Result<()> {
        let rows = seen.counted_rows()?;
        let leaves = Leaves::of(structure.leaf().family)?;
        let (blend, options) = step.blend(rows);
        let running = match step {
            Step::MiniBatchEm(rule, _, Some(running)) => {
                self.average(queue, running.mean, rule.momentum, rows)?;
                running.mean.leaves.address()
            }
            _ => 0,
        };
        if let Some(top_down) = top_down {
            top_down.compute(queue, model)?;
        }
        for (layer, counts) in self.sums.iter().enumerate() {
            let arguments = weight_update(structure, layer, counts.as_ref(), model);
            let Some(arguments) = arguments else { continue };
            let blend = ConvpcBlend { used: top_down.map_or(0, |top_down| top_down.of_sums(layer)), ..blend };
            let arguments = ConvpcWeightUpdate { pseudocount: options.pseudocount, blend, ..arguments };
            queue.launch("step_weights", arguments, (arguments.rows as usize).div_ceil(WARPS), 0)?;
        }
        let em::Options { pseudocount, minimum_std, bias_correction } = options;
        let blend = ConvpcBlend { used: top_down.map_or(0, TopDown::of_leaves), ..blend };
        let bias_correction = u32::from(bias_correction);
        let arguments = self.leaf_update(structure, model, leaves);
        let arguments = ConvpcLeafUpdate { pseudocount, minimum_std, bias_correction, blend, running, ..arguments };
        let blocks = leaves.blocks(model::leaf_count(structure));
        queue.launch(&format!("step_{}", leaves.name()), arguments, blocks, 0)?;
        model.lay_leaves(queue, structure)?;
        model.pack(queue)?;
        Ok(self.clear(queue)?)
    }

    /// The gradient with respect to the unconstrained parameters, as [`convpc_core::Statistics::gradient`].
    pub(crate) fn gradient(
        &self,
        queue: &Queue,
        structure: &Structure,
        model: &Model,
    ) -> Result<Parameters, CudaError> {
        let leaves = Leaves::of(structure.leaf().family)?;
        let gradient = Tensors::new(queue, structure, structure.leaf().family.parameters())?;
        let arguments = self.leaf_update(structure, model, leaves);
        let arguments = ConvpcLeafUpdate { gradient: gradient.leaves.address(), ..arguments };
        let blocks = leaves.blocks(model::leaf_count(structure));
        queue.launch(&format!("gradient_{}", leaves.name()), arguments, blocks, 0)?;
        for (layer, to) in gradient.sums.iter().enumerate() {
            let arguments = weight_update(structure, layer, self.sums[layer].as_ref(), model);
            let Some((arguments, to)) = arguments.zip(to.as_ref()) else { continue };
            let arguments = ConvpcWeightUpdate { gradient: to.address(), ..arguments };
            queue.launch("gradient_weights", arguments, (arguments.rows as usize).div_ceil(WARPS), 0)?;
        }
        Ok(Parameters(gradient.download(queue, structure)?))
    }

    /// Makes the counts the running mean of those of a row.
    fn average(&self, queue: &Queue, running: &Tensors, momentum: f64, rows: f64) -> Result<(), CudaError> {
        for (counts, running) in self.buffers().zip(running.buffers()) {
            let count = counts.len();
            let (counts, running) = (counts.address(), running.address());
            let arguments = ConvpcAverage { counts, running, count: count as u64, momentum, rows };
            queue.launch("average_counts", arguments, count.div_ceil(THREADS), 0)?;
        }
        Ok(())
    }

    pub(crate) fn leaf_update(&self, structure: &Structure, model: &Model, leaves: Leaves) -> ConvpcLeafUpdate {
        let common = ConvpcLeafUpdate {
            counts: self.leaves.address(),
            theta: model.theta.address(),
            leaves: model.leaves.address(),
            log_base: self.log_base.as_ref().map_or(0, Buffer::address),
            leaf_count: model::leaf_count(structure) as u64,
            ..ConvpcLeafUpdate::default()
        };
        match leaves {
            Leaves::LocationScale => common,
            Leaves::Binomial { trials } => ConvpcLeafUpdate { trials: trials as u32, ..common },
            Leaves::Table { values } => ConvpcLeafUpdate { values: values as u32, ..common },
            Leaves::Logistic { values } => {
                ConvpcLeafUpdate { values: values as u32, probabilities: model.drawn_from(), ..common }
            }
        }
    }
}

/// What the kernels of a sum layer take.
pub(crate) fn weight_update(
    structure: &Structure,
    layer: usize,
    counts: Option<&Buffer<f64>>,
    model: &Model,
) -> Option<ConvpcWeightUpdate> {
    let matrices = WeightMatrices::new(structure, layer)?;
    Some(ConvpcWeightUpdate {
        counts: counts?.address(),
        linear: model.sums[layer].as_ref()?.linear.address(),
        rows: (matrices.weights() / matrices.inputs) as u64,
        inputs: matrices.inputs as u32,
        ..ConvpcWeightUpdate::default()
    })
}

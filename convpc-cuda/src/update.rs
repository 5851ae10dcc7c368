//! Steps and gradients on the device, from counts that are there to parameters that are there.

use convpc_core::{Accumulated, Blend, Error, Family, Form, MiniBatchEm, Parameters, Structure, WeightMatrices, em};

use crate::{
    driver::{Buffer, Need, Queue},
    error::CudaError,
    model::{self, Model},
    params::{self, ConvpcBlend, ConvpcLeafUpdate, ConvpcWeightUpdate},
    statistics::Counts,
    top_down::TopDown,
};

/// Threads and warps of a block.
const THREADS: usize = params::CONVPC_THREADS as usize;
const WARPS: usize = THREADS / 32;

/// Whether the kernels know a family's steps and gradients. Those of a table that is made of fewer parameters are the host's, from
/// counts and to tables that the device has.
pub(crate) fn on_device(family: Family) -> bool {
    Leaves::of(family).is_ok()
}

/// The leaf families that the kernels know.
#[derive(Clone, Copy)]
enum Leaves {
    LocationScale,
    Binomial { trials: usize },
    Table { values: usize },
}

impl Leaves {
    fn of(family: Family) -> Result<Self, CudaError> {
        Ok(match (family.form(), family) {
            (Form::LocationScale, _) => Leaves::LocationScale,
            (Form::Table { size, free: true }, _) => Leaves::Table { values: size },
            (Form::Natural, Family::Bernoulli(_)) => Leaves::Binomial { trials: 1 },
            (Form::Natural, Family::Binomial(binomial)) => Leaves::Binomial { trials: binomial.trials },
            (Form::Natural | Form::Table { free: false, .. }, _) => {
                return Err(CudaError::UnsupportedFamily { family: family.name() });
            }
        })
    }

    /// The end of its kernels' names.
    fn name(self) -> &'static str {
        match self {
            Leaves::LocationScale => "location_scale",
            Leaves::Binomial { .. } => "binomial",
            Leaves::Table { .. } => "table",
        }
    }

    /// Blocks for so many leaves.
    fn blocks(self, count: usize) -> usize {
        count.div_ceil(if matches!(self, Leaves::Table { .. }) { WARPS } else { THREADS })
    }
}

/// A step on the device.
#[derive(Clone, Copy)]
pub(crate) enum Step<'a> {
    /// [`em::step`].
    Em(&'a em::Options),
    /// [`MiniBatchEm`] without momentum, with a step size.
    MiniBatchEm(&'a MiniBatchEm, f64),
}

impl Step<'_> {
    /// An error where an option is out of range.
    pub(crate) fn check(&self) -> convpc_core::Result<()> {
        match self {
            Step::Em(options) => options.check(),
            Step::MiniBatchEm(rule, step) => rule.check_step(*step),
        }
    }

    /// Whether it takes the top-down probabilities.
    pub(crate) fn needs_top_down(&self) -> bool {
        matches!(self, Step::MiniBatchEm(MiniBatchEm { blend: Blend::TopDown, .. }, _))
    }

    /// What the kernels do with counts of so many rows, and the options of the step that it is a part of.
    fn blend(&self, rows: f64) -> (ConvpcBlend, em::Options) {
        let whole = ConvpcBlend { counts: 1.0, kind: params::CONVPC_BLEND_COUNTS, ..ConvpcBlend::default() };
        let (rule, step) = match *self {
            Step::Em(options) => return (whole, *options),
            Step::MiniBatchEm(rule, step) => (rule, step),
        };
        let scale = rule.data_rows.map_or(rows, |rows| rows as f64);
        let MiniBatchEm { pseudocount, minimum_std, .. } = *rule;
        let options = em::Options { pseudocount, minimum_std, bias_correction: false };
        match rule.blend {
            Blend::TopDown => {
                let blend = ConvpcBlend { counts: scale * step / rows, expected: scale * (1.0 - step), ..whole };
                // The pseudocount belongs to the data: the resting point must not depend on the step size.
                (blend, em::Options { pseudocount: step * pseudocount, ..options })
            }
            Blend::Parameters => {
                let kind = params::CONVPC_BLEND_PARAMETERS;
                (ConvpcBlend { counts: scale / rows, step, kind, ..whole }, options)
            }
        }
    }
}

impl Counts {
    /// Takes a step; the counts are forgotten. `top_down` are the probabilities where the step needs them.
    ///
    /// # Errors
    /// [`Error::NoStatistics`] where no row of positive probability was seen; where the device fails.
    pub(crate) fn step(
        &mut self,
        queue: &Queue,
        structure: &Structure,
        model: &mut Model,
        seen: &Accumulated,
        step: Step,
        top_down: Option<&TopDown>,
    ) -> convpc_core::Result<()> {
        if seen.rows == seen.impossible_rows {
            return Err(Error::NoStatistics);
        }
        let leaves = Leaves::of(structure.leaf().family)?;
        let (blend, options) = step.blend((seen.rows - seen.impossible_rows) as f64);
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
        let arguments = ConvpcLeafUpdate { pseudocount, minimum_std, bias_correction, blend, ..arguments };
        let blocks = leaves.blocks(model::leaf_count(structure));
        queue.launch(&format!("step_{}", leaves.name()), arguments, blocks, 0)?;
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
        let mut gradient = Parameters::zeros(structure);
        let (count, size) = (model::leaf_count(structure), structure.leaf().family.parameters());
        let buffer = queue.allocate::<f64>(count * size, Need::Circuit)?;
        let arguments = ConvpcLeafUpdate { gradient: buffer.address(), ..self.leaf_update(structure, model, leaves) };
        queue.launch(&format!("gradient_{}", leaves.name()), arguments, leaves.blocks(count), 0)?;
        let values = model::by_channel(structure, size, &queue.download(&buffer, count * size)?);
        gradient.0[0].iter_mut().zip(values).for_each(|(to, from)| *to = from);
        for (layer, counts) in self.sums.iter().enumerate() {
            let arguments = weight_update(structure, layer, counts.as_ref(), model);
            let Some((arguments, matrices)) = arguments.zip(WeightMatrices::new(structure, layer)) else { continue };
            let buffer = queue.allocate::<f64>(matrices.weights(), Need::Circuit)?;
            let arguments = ConvpcWeightUpdate { gradient: buffer.address(), ..arguments };
            queue.launch("gradient_weights", arguments, (arguments.rows as usize).div_ceil(WARPS), 0)?;
            let values = queue.download(&buffer, matrices.weights())?;
            let Some(tensor) = gradient.0[layer].as_slice_mut() else { continue };
            matrices.offsets().zip(values).for_each(|(offset, value)| tensor[offset] = value);
        }
        Ok(gradient)
    }

    fn leaf_update(&self, structure: &Structure, model: &Model, leaves: Leaves) -> ConvpcLeafUpdate {
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
        }
    }
}

/// What both kernels of a sum layer take.
fn weight_update(
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

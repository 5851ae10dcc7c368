//! The way down on the device: its tables, and its launches for a batch.

use convpc_core::{Choice, Family, Form, Semiring, Structure};

use super::{Branches, Choices};
use crate::{
    compiled::{self, Memory},
    driver::{Buffer, Need, Queue},
    error::CudaError,
    params::{self, ConvpcBranch, ConvpcChoose, ConvpcDraw, ConvpcMixture, ConvpcRandom, ConvpcSource},
};

/// A choices's tables in device memory.
pub(crate) struct Tables {
    layers: Vec<Layer>,
    columns: Buffer<u32>,
    mixture: ConvpcMixture,
    /// The logarithm of the base measure of each value, where the family draws with it.
    base: Option<Buffer<f64>>,
    pub(crate) places: usize,
}

struct Layer {
    branches: Branches,
    list: Buffer<u32>,
    nodes: Buffer<u32>,
}

/// Rows that go down.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// What the way up left of the evidence; none where nothing is observed.
    pub(crate) observed: Option<(&'a Memory<'a>, Semiring)>,
    pub(crate) choice: Choice,
    /// The number of the first row in the random numbers' counter.
    pub(crate) first_row: u64,
    pub(crate) rows: usize,
    /// Rows filled up to every tile.
    pub(crate) stride: usize,
    /// `[place][row]`
    pub(crate) choices: &'a Buffer<u32>,
    /// Weights and leaf parameters.
    pub(crate) model: &'a crate::model::Model,
    /// `[row][column]`
    pub(crate) to: &'a Buffer<f32>,
}

impl Tables {
    pub(crate) fn new(queue: &Queue, structure: &Structure) -> Result<Self, CudaError> {
        let Choices { layers, columns, mixture, places } = Choices::new(structure);
        let layer = |branches: Branches| {
            let words = |n: &ConvpcBranch| [n.place, n.from, n.group, n.first, n.count, n.number];
            let nodes: Vec<u32> = branches.nodes.iter().flat_map(words).collect();
            let list = queue.upload_new(&branches.list, Need::Circuit)?;
            Ok(Layer { list, nodes: queue.upload_new(&nodes, Need::Circuit)?, branches })
        };
        let family = structure.leaf().family;
        let base: Option<Vec<f64>> = (draw_family(family)? == params::CONVPC_FAMILY_BINOMIAL)
            .then(|| (0..family.cardinality().unwrap_or(0)).map(|x| family.log_base(x as f64)).collect());
        Ok(Tables {
            layers: layers.into_iter().map(layer).collect::<Result<_, _>>()?,
            columns: queue.upload_new(&columns, Need::Circuit)?,
            mixture,
            base: base.map(|base| queue.upload_new(&base, Need::Circuit)).transpose()?,
            places,
        })
    }

    /// Starts the kernels that take rows down and write them completed.
    pub(crate) fn launch(&self, queue: &Queue, structure: &Structure, call: Call) -> Result<(), CudaError> {
        let kernel = match (call.choice, call.observed) {
            (Choice::ArgMax, _) => "choose_largest",
            (Choice::Sample { .. }, Some(_)) => "choose_posterior",
            (Choice::Sample { .. }, None) => "choose_prior",
        };
        for layer in &self.layers {
            let arguments = layer.arguments(structure, self.mixture, call);
            queue.launch(kernel, arguments, (arguments.row_tiles * arguments.node_count) as usize, 0)?;
        }
        let tile = params::CONVPC_TRANSPOSE_TILE as usize;
        let blocks = call.rows.div_ceil(tile) * structure.variables().div_ceil(tile);
        let kernel = if call.choice == Choice::ArgMax { "fill_modes" } else { "draw" };
        queue.launch(kernel, self.leaves(structure, call)?, blocks, 0)
    }

    fn leaves(&self, structure: &Structure, call: Call) -> Result<ConvpcDraw, CudaError> {
        let (family, shape) = (structure.leaf().family, structure.shape(0));
        Ok(ConvpcDraw {
            random: call.random(),
            mixture: self.mixture,
            parameters: call.model.drawn_from(),
            leaf_rows: call.model.leaf_rows(),
            base: self.base.as_ref().map_or(0, Buffer::address),
            data: call.observed.map_or(0, |(memory, _)| memory.data.address()),
            choices: call.choices.address(),
            from: self.columns.address(),
            to: call.to.address(),
            family: draw_family(family)?,
            size: drawn_size(family) as u32,
            values: family.cardinality().unwrap_or(0) as u32,
            channels: shape.channels as u32,
            repetitions: shape.repetitions as u32,
            columns: structure.variables() as u32,
            rows: call.rows as u32,
            stride: call.stride as u32,
        })
    }
}

impl Layer {
    fn arguments(&self, structure: &Structure, mixture: ConvpcMixture, call: Call) -> ConvpcChoose {
        let Branches { layer, input, repetitions, .. } = self.branches;
        // Rows have no repetition of their own before they are through the mixture.
        let place = if repetitions > 1 { mixture.place } else { params::CONVPC_NO_PLACE };
        let weights = call.model.sums[layer].as_ref().expect("a sum-like layer");
        let of_memory = |(memory, semiring)| {
            compiled::source(structure, input, call.stride as u32, semiring, memory, self.list.address())
        };
        ConvpcChoose {
            source: call.observed.map_or_else(ConvpcSource::default, of_memory),
            random: call.random(),
            mixture: ConvpcMixture { place, ..mixture },
            nodes: self.nodes.address(),
            linear: weights.linear.address(),
            choices: call.choices.address(),
            inputs: weights.matrices.inputs as u32,
            outputs: weights.matrices.outputs as u32,
            repetitions: weights.matrices.repetitions as u32,
            mixes: u32::from(weights.matrices.mixes_repetitions()),
            node_count: (self.branches.nodes.len() / repetitions) as u32,
            row_tiles: call.rows.div_ceil(params::CONVPC_THREADS as usize) as u32,
            rows: call.rows as u32,
            stride: call.stride as u32,
        }
    }
}

impl Call<'_> {
    fn random(&self) -> ConvpcRandom {
        let seed = match self.choice {
            Choice::Sample { seed } => seed,
            Choice::ArgMax => 0,
        };
        ConvpcRandom { seed, first_row: self.first_row }
    }
}

/// How the kernels are told the family that they draw from.
pub(crate) fn draw_family(family: Family) -> Result<u32, CudaError> {
    match family {
        Family::Normal(_) => Ok(params::CONVPC_FAMILY_NORMAL),
        // From the probabilities that the parameters make.
        Family::Categorical(_) | Family::DiscretizedLogistic(_) => Ok(params::CONVPC_FAMILY_CATEGORICAL),
        Family::Bernoulli(_) | Family::Binomial(_) => Ok(params::CONVPC_FAMILY_BINOMIAL),
        #[allow(
            unreachable_patterns,
            reason = "a new family needs no change here: it is refused until the kernels know it"
        )]
        other => Err(CudaError::UnsupportedFamily { family: other.name() }),
    }
}

/// Numbers of a leaf that values are drawn from: its parameters, or the table that they make.
fn drawn_size(family: Family) -> usize {
    match family.form() {
        Form::Table { size, .. } => size,
        Form::LocationScale | Form::Natural => family.parameters(),
    }
}

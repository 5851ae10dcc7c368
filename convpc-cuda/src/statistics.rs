//! Expected counts in device memory: where batches are added, and from where parameters are learned.

use convpc_core::{Accumulated, Form, Statistics, Structure, WeightMatrices};

use crate::{
    driver::{Buffer, Need, Queue},
    error::CudaError,
    model::{self, Model},
    params::{self, ConvpcLeafCounts},
    tree,
};

/// Blocks that should find room on a multiprocessor, where they need much shared memory.
const BLOCKS: usize = 3;

/// Expected counts in float64.
pub(crate) struct Counts {
    /// One a layer, `None` for leaves and products: `[matrix][output][input]` as [`WeightMatrices`].
    pub(crate) sums: Vec<Option<Buffer<f64>>>,
    /// `[column][repetition][channel][1 + statistics]`: the flow, then the flow-weighted `T(x)`.
    pub(crate) leaves: Buffer<f64>,
    /// For each column the feature of the flow that its leaves get.
    parents: Buffer<u32>,
    /// Of a discrete family in natural form: for each value the logarithm of the base measure.
    pub(super) log_base: Option<Buffer<f64>>,
}

/// What a batch brings to the leaves.
#[derive(Clone, Copy)]
pub(crate) struct LeafFlow<'a> {
    /// `[column][row]`, NaN = missing.
    pub(crate) data: &'a Buffer<f32>,
    /// `[repetition][feature][channel][row]`: the flow into the inputs of the lowest sum, or of the root where there is no
    /// sum: one feature.
    pub(crate) flow: &'a Buffer<f32>,
    /// Rows, filled up, of both.
    pub(crate) stride: usize,
    /// Rows whose flow was computed.
    pub(crate) rows: usize,
}

impl Counts {
    /// Memory for the counts of a circuit, all zero.
    pub(crate) fn new(queue: &Queue, structure: &Structure) -> Result<Self, CudaError> {
        let family = structure.leaf().family;
        let sum = |layer| {
            let matrices = WeightMatrices::new(structure, layer);
            matrices.map(|m| queue.allocate(m.weights(), Need::Circuit)).transpose()
        };
        let base = family.cardinality().filter(|_| family.form() == Form::Natural);
        let base = base.map(|n| (0..n).map(|x| family.log_base(x as f64)).collect::<Vec<_>>());
        let mut counts = Counts {
            sums: (0..structure.layers().len()).map(sum).collect::<Result<_, _>>()?,
            leaves: queue.allocate(model::leaf_count(structure) * (1 + family.statistics()), Need::Circuit)?,
            parents: queue.upload_new(&parents(structure), Need::Circuit)?,
            log_base: base.map(|base| queue.upload_new(&base, Need::Circuit)).transpose()?,
        };
        counts.clear(queue)?;
        Ok(counts)
    }

    /// Forgets all that was counted.
    pub(crate) fn clear(&mut self, queue: &Queue) -> Result<(), CudaError> {
        self.sums.iter_mut().flatten().try_for_each(|sum| queue.clear(sum))?;
        queue.clear(&mut self.leaves)
    }

    /// Adds a batch's leaf statistics; `shared_memory` is what a block may have, in bytes.
    pub(crate) fn add_leaves(
        &mut self,
        queue: &Queue,
        structure: &Structure,
        model: &Model,
        batch: LeafFlow,
        shared_memory: usize,
    ) -> Result<(), CudaError> {
        let (shape, family) = (structure.shape(0), structure.leaf().family);
        let lowest = tree::sums(structure).first().copied();
        let places = structure.variables() * shape.repetitions;
        let arguments = ConvpcLeafCounts {
            flow: batch.flow.address(),
            data: batch.data.address(),
            parents: self.parents.address(),
            theta: model.theta.address(),
            leaves: model.leaves.address(),
            sufficient: model.sufficient.as_ref().map_or(0, Buffer::address),
            counts: self.leaves.address(),
            features: lowest.map_or(1, |sum| structure.input_shape(sum).features()) as u32,
            channels: shape.channels as u32,
            repetitions: shape.repetitions as u32,
            stride: batch.stride as u32,
            rows: batch.rows as u32,
            statistics: family.statistics() as u32,
            ..ConvpcLeafCounts::default()
        };
        let warps = params::CONVPC_THREADS as usize / 32;
        let Form::Table { size } = family.form() else {
            let natural = family.form() == Form::Natural;
            let entry = if natural { "count_natural" } else { "count_location_scale" };
            return queue.launch(entry, arguments, places * shape.channels.div_ceil(warps), 0);
        };
        let value_bytes = warps * params::CONVPC_HISTOGRAM_LANES as usize * size_of::<f32>();
        // One value more is the flow of all.
        let most = (shared_memory / BLOCKS / value_bytes).saturating_sub(1).max(1);
        let ranges = size.div_ceil(most);
        let (values, width) = (size.div_ceil(ranges), shape.channels.next_power_of_two().min(32));
        let (width_word, values_word, ranges_word) = (width as u32, values as u32, ranges as u32);
        let arguments = ConvpcLeafCounts { width: width_word, values: values_word, ranges: ranges_word, ..arguments };
        let blocks = places * shape.channels.div_ceil(width) * ranges;
        queue.launch("count_table", arguments, blocks, (values + 1) * value_bytes)
    }

    /// The counts in core's tensors, with the rows that they come from.
    pub(crate) fn statistics(
        &self,
        queue: &Queue,
        structure: &Structure,
        seen: &Accumulated,
    ) -> Result<Statistics, CudaError> {
        let Accumulated { rows, impossible_rows, log_likelihood } = *seen;
        let mut statistics = Statistics { rows, impossible_rows, log_likelihood, ..Statistics::zeros(structure) };
        let size = 1 + structure.leaf().family.statistics();
        let leaves = queue.download(&self.leaves, model::leaf_count(structure) * size)?;
        let leaves = model::by_channel(structure, size, &leaves);
        statistics.counts[0].iter_mut().zip(leaves).for_each(|(to, from)| *to = from);
        for (layer, sum) in self.sums.iter().enumerate() {
            let Some((sum, matrices)) = sum.as_ref().zip(WeightMatrices::new(structure, layer)) else { continue };
            let counts = queue.download(sum, matrices.weights())?;
            let Some(tensor) = statistics.counts[layer].as_slice_mut() else { continue };
            matrices.offsets().zip(counts).for_each(|(offset, count)| tensor[offset] = count);
        }
        Ok(statistics)
    }
}

/// For each column the feature, on the grid that feeds the lowest sum, whose flow its leaves get. A circuit without sums is
/// a product of all its leaves.
fn parents(structure: &Structure) -> Vec<u32> {
    let Some(&lowest) = tree::sums(structure).first() else { return vec![0; structure.variables()] };
    let mut parents = vec![params::CONVPC_NO_FEATURE; structure.variables()];
    for feature in 0..structure.input_shape(lowest).features() {
        for column in tree::children(structure, lowest, feature) {
            parents[column] = feature as u32;
        }
    }
    parents
}

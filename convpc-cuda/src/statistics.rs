//! Expected counts in device memory: where batches are added, and from where parameters are learned.

use convpc_core::{Accumulated, Form, Statistics, Structure, WeightMatrices};

use crate::{
    driver::{Buffer, Need, Queue},
    error::CudaError,
    model,
};

/// Expected counts in float64.
pub(crate) struct Counts {
    /// One a layer, `None` for leaves and products: `[matrix][output][input]` as [`WeightMatrices`].
    pub(crate) sums: Vec<Option<Buffer<f64>>>,
    /// `[leaf row][repetition][channel][1 + statistics]`: the flow, then the flow-weighted `T(x)`.
    pub(crate) leaves: Buffer<f64>,
    /// Where columns share leaves: what each counts of a batch by itself, zero between batches.
    pub(crate) columns: Option<Buffer<f64>>,
    /// Of a discrete family in natural form: for each value the logarithm of the base measure.
    pub(crate) log_base: Option<Buffer<f64>>,
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
        let leaves = model::leaf_count(structure) * (1 + family.statistics());
        let columns = structure.leaf().shared.then(|| structure.variables() * (leaves / structure.leaf_rows()));
        let mut counts = Counts {
            sums: (0..structure.layers().len()).map(sum).collect::<Result<_, _>>()?,
            leaves: queue.allocate(leaves, Need::Circuit)?,
            columns: columns.map(|len| queue.allocate(len, Need::Circuit)).transpose()?,
            log_base: base.map(|base| queue.upload_new(&base, Need::Circuit)).transpose()?,
        };
        counts.clear(queue)?;
        Ok(counts)
    }

    /// Forgets all that was counted.
    pub(crate) fn clear(&mut self, queue: &Queue) -> Result<(), CudaError> {
        self.sums.iter_mut().flatten().try_for_each(|sum| queue.clear(sum))?;
        self.columns.iter_mut().try_for_each(|columns| queue.clear(columns))?;
        queue.clear(&mut self.leaves)
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

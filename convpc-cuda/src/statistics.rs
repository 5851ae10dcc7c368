//! Expected counts in device memory: where batches are added, and from where parameters are learned.

use std::ops::Deref;

use convpc_core::{Accumulated, Form, Statistics, Structure};

use crate::{
    driver::{Buffer, Need, Queue},
    error::CudaError,
    tensors::Tensors,
};

/// Expected counts in float64.
pub(crate) struct Counts {
    /// Of weights; of leaves the flow, then the flow-weighted `T(x)`.
    tensors: Tensors,
    /// Where columns share leaves: what each counts of a batch by itself, zero between batches.
    pub(crate) columns: Option<Buffer<f64>>,
    /// Of a discrete family in natural form: for each value the logarithm of the base measure.
    pub(crate) log_base: Option<Buffer<f64>>,
}

impl Deref for Counts {
    type Target = Tensors;

    fn deref(&self) -> &Tensors {
        &self.tensors
    }
}

impl Counts {
    /// Memory for the counts of a circuit, all zero.
    pub(crate) fn new(queue: &Queue, structure: &Structure) -> Result<Self, CudaError> {
        let family = structure.leaf().family;
        let base = family.cardinality().filter(|_| family.form() == Form::Natural);
        let base = base.map(|n| (0..n).map(|x| family.log_base(x as f64)).collect::<Vec<_>>());
        let tensors = Tensors::new(queue, structure, 1 + family.statistics())?;
        let columns = structure.variables() * (tensors.leaves.len() / structure.leaf_rows());
        let columns = structure.leaf().shared.then(|| queue.allocate(columns, Need::Circuit)).transpose()?;
        let log_base = base.map(|base| queue.upload_new(&base, Need::Circuit)).transpose()?;
        let mut counts = Counts { tensors, columns, log_base };
        counts.clear(queue)?;
        Ok(counts)
    }

    /// Forgets all that was counted.
    pub(crate) fn clear(&mut self, queue: &Queue) -> Result<(), CudaError> {
        self.columns.iter_mut().try_for_each(|columns| queue.clear(columns))?;
        self.tensors.clear(queue)
    }

    /// The counts in core's tensors, with the rows that they come from.
    pub(crate) fn statistics(
        &self,
        queue: &Queue,
        structure: &Structure,
        seen: &Accumulated,
    ) -> Result<Statistics, CudaError> {
        let Accumulated { rows, impossible_rows, log_likelihood } = *seen;
        let counts = self.tensors.download(queue, structure)?;
        Ok(Statistics { rows, impossible_rows, log_likelihood, counts })
    }
}

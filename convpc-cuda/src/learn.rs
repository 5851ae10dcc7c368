//! Statistics on the device, and what is done with them.

use convpc_core::{Accumulated, Statistics, Structure, WeightMatrices};

use crate::{
    driver::{Buffer, Need, Queue},
    error::CudaError,
    model::Model,
};

/// What rows were seen, and their expected counts in device memory.
pub(crate) struct Learning {
    pub(crate) seen: Accumulated,
    /// For each sum layer, `[matrix][output][input]`.
    pub(crate) counts: Vec<Option<Buffer<f64>>>,
}

impl Learning {
    pub(crate) fn new(queue: &Queue, model: &Model) -> Result<Self, CudaError> {
        let zeros = |m: &WeightMatrices| queue.upload_new(&vec![0.0; m.weights()], Need::Circuit);
        let layer = |weights: &Option<crate::model::Weights>| weights.as_ref().map(|w| zeros(&w.matrices)).transpose();
        Ok(Learning { seen: Accumulated::default(), counts: model.sums.iter().map(layer).collect::<Result<_, _>>()? })
    }

    /// Notes the rows of a batch whose log-likelihoods are given.
    pub(crate) fn see(&mut self, log_likelihoods: &[f64]) -> Accumulated {
        let batch = Accumulated {
            rows: log_likelihoods.len() as u64,
            impossible_rows: log_likelihoods.iter().filter(|ll| **ll == f64::NEG_INFINITY).count() as u64,
            log_likelihood: log_likelihoods.iter().sum(),
        };
        self.seen.rows += batch.rows;
        self.seen.impossible_rows += batch.impossible_rows;
        self.seen.log_likelihood += batch.log_likelihood;
        batch
    }

    pub(crate) fn statistics(&self, queue: &Queue, structure: &Structure) -> Result<Statistics, CudaError> {
        let mut statistics = Statistics::zeros(structure);
        let Accumulated { rows, impossible_rows, log_likelihood } = self.seen;
        (statistics.rows, statistics.impossible_rows, statistics.log_likelihood) =
            (rows, impossible_rows, log_likelihood);
        for (layer, counts) in self.counts.iter().enumerate() {
            let (Some(counts), Some(m)) = (counts, WeightMatrices::new(structure, layer)) else { continue };
            let values = queue.download(counts, m.weights())?;
            let tensor = statistics.counts[layer].as_slice_mut().expect("standard layout");
            m.offsets().zip(values).for_each(|(offset, count)| tensor[offset] = count);
        }
        Ok(statistics)
    }
}

//! What was seen, and where it is counted.

use convpc_core::{Accumulated, Statistics, Structure};

use crate::{driver::Queue, error::CudaError, statistics::Counts, top_down::TopDown};

/// What rows were seen, and their expected counts in device memory.
pub(crate) struct Learning {
    pub(crate) seen: Accumulated,
    pub(crate) counts: Counts,
    /// Once a step took them.
    pub(crate) top_down: Option<TopDown>,
}

impl Learning {
    pub(crate) fn new(queue: &Queue, structure: &Structure) -> Result<Self, CudaError> {
        Ok(Learning { seen: Accumulated::default(), counts: Counts::new(queue, structure)?, top_down: None })
    }

    /// Forgets all; the memory stays where it is, since recorded launches point to it.
    pub(crate) fn clear(&mut self, queue: &Queue) -> Result<(), CudaError> {
        self.seen = Accumulated::default();
        self.counts.clear(queue)
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
        self.counts.statistics(queue, structure, &self.seen)
    }
}

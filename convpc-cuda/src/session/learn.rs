//! Rows that are learned from: batches go up, and their flows down again.

use ndarray::{ArrayView2, Axis};

use super::{Context, Key, Session, Slot, WayMemory, check_range};
use crate::{
    compiled::Outputs,
    driver::Buffer,
    error::CudaError,
    learn::Learning,
    params::{self, ConvpcAddRows, ConvpcLabelFlow, ConvpcRootFlow},
    plan::{Purpose, stride},
};

const THREADS: usize = params::CONVPC_THREADS as usize;

/// The probability of each class.
fn prior<'a>(on: Context<'a>) -> &'a Buffer<f32> {
    &on.model.sums[on.structure.layers().len() - 1].as_ref().expect("the root of classes is a sum").linear
}

impl Session {
    /// Adds the expected counts of rows, so many at a time, to the statistics; returns the log-likelihood of each row, where
    /// labels are given the joint one of row and class.
    pub(crate) fn accumulate(
        &mut self,
        on: Context,
        data: ArrayView2<f32>,
        labels: Option<&[usize]>,
        rows: usize,
        learning: &Learning,
    ) -> Result<Vec<f64>, CudaError> {
        let mut all = vec![0.0; data.nrows()];
        let purpose = if labels.is_some() { Purpose::LearnLabeled } else { Purpose::Learn };
        for (index, batch) in data.axis_chunks_iter(Axis(0), rows).enumerate() {
            let (slot, first_row) = (index % 2, index * rows);
            self.finish(slot, &mut all)?;
            let key = self.start(on, slot, batch, purpose, Some(learning))?;
            match labels {
                Some(labels) => self.begin_at_heads(on, slot, key, &labels[first_row..][..batch.nrows()], learning)?,
                None => self.begin_at_root(on, key, batch.nrows())?,
            }
            self.fetch_root(on, slot, first_row, batch.nrows())?;
            let ready = self.plans.get_mut(&key).expect("just prepared");
            ready.down.as_mut().map_or(Ok(()), |down| down.launch(on.queue, slot))?;
        }
        self.finish(0, &mut all)?;
        self.finish(1, &mut all)?;
        if all.iter().any(|ll| !ll.is_finite()) {
            // A class of prior probability zero is impossible, however near the row.
            let prior = match labels {
                Some(_) => on.queue.download(prior(on), on.structure.num_classes().unwrap_or(0))?,
                None => Vec::new(),
            };
            let possible = |row: usize| labels.is_none_or(|labels| prior[labels[row]] != 0.0);
            check_range(on.structure, all.iter().copied().enumerate().filter(|(row, _)| possible(*row)))?;
        }
        Ok(all)
    }

    /// The flow that the way down of a batch begins with, where every row's is the root's.
    fn begin_at_root(&self, on: Context, key: Key, given: usize) -> Result<(), CudaError> {
        let top = on.structure.layers().len() - 1;
        let Outputs { values, offsets, .. } = &self.outputs[&top];
        let Some(WayMemory { flows, .. }) = &self.way else { return Ok(()) };
        let arguments = ConvpcRootFlow {
            values: values.address(),
            offsets: offsets.address(),
            flow: flows[0].address(),
            given: given as u32,
            rows: key.rows as u32,
        };
        on.queue.launch("root_flow", arguments, key.rows.div_ceil(THREADS), 0)
    }

    /// The same where every row's is that of its class: counts the root's edges and leaves joint log-likelihoods at the root.
    fn begin_at_heads(
        &mut self,
        on: Context,
        slot: usize,
        key: Key,
        labels: &[usize],
        learning: &Learning,
    ) -> Result<(), CudaError> {
        let Slot { staged_labels, labels: to, .. } = &mut self.slots[slot];
        staged_labels.values()?.iter_mut().zip(labels).for_each(|(to, label)| *to = *label as u32);
        on.queue.upload_pinned(to, staged_labels, labels.len())?;
        on.queue.compute_after_upload()?;
        let root = on.structure.layers().len() - 1;
        let (heads, joint) = (&self.outputs[&(root - 1)], &self.outputs[&root]);
        let Some(WayMemory { flows, .. }) = &self.way else { return Ok(()) };
        let (classes, rows, stride) = (on.structure.shape(root - 1).channels, key.rows as u32, stride(key.rows) as u32);
        let arguments = ConvpcLabelFlow {
            values: heads.values.address(),
            offsets: heads.offsets.address(),
            prior: prior(on).address(),
            labels: to.address(),
            joint: joint.values.address(),
            joint_offsets: joint.offsets.address(),
            flow: flows[0].address(),
            classes: classes as u32,
            given: labels.len() as u32,
            rows,
            stride,
        };
        on.queue.launch("label_flow", arguments, key.rows.div_ceil(THREADS), 0)?;
        let arguments = ConvpcAddRows {
            flow: flows[0].address(),
            total: learning.counts.sums[root].as_ref().expect("a sum is counted").address(),
            features: 1,
            channels: classes as u32,
            repetitions: 1,
            rows,
            stride,
        };
        on.queue.launch("add_rows", arguments, classes.div_ceil(THREADS / 32), 0)
    }
}

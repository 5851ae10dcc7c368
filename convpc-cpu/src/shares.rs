//! What the shares of a circuit keep while statistics are gathered; all threads of the current pool help.

use rayon::prelude::*;

use crate::{model::Model, plan::Plan, walk::Tape};

/// Rows whose counts are added in f32 before they join the float64 ones.
const ROWS: usize = 4096;

/// Values that one thread sets to zero at a time.
const PIECE: usize = 1 << 16;

/// A part of the tree that one thread walks.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) tape: Tape,
    /// Of the matrices and leaves that [`Plan::counts`] names.
    pub(crate) counts: Vec<f32>,
}

/// Expected counts.
///
/// Every matrix of weights that belongs to one place of the image has one share that adds to it, tile by tile; those that
/// several shares have in common are added share by share. So nothing depends on which thread came first.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    shares: Vec<Share>,
    /// Rows since the float64 counts were added to.
    rows: usize,
    /// For each layer the counts in the order of the model's tensors; empty where none were moved here yet.
    total: Vec<Vec<f64>>,
}

impl Counts {
    /// Makes room for a plan's shares.
    pub(crate) fn prepare(&mut self, plan: &Plan) {
        if self.shares.is_empty() {
            let share = |len: &usize| Share { tape: Tape::default(), counts: vec![0.0; *len] };
            self.shares = plan.counts_len.iter().map(share).collect();
        }
    }

    pub(crate) fn shares_mut(&mut self) -> &mut [Share] {
        &mut self.shares
    }

    /// Forgets all counts.
    pub(crate) fn clear(&mut self) {
        if self.rows > 0 {
            self.empty_shares();
        }
        self.total.clear();
    }

    fn empty_shares(&mut self) {
        let empty = |share: &mut Share| share.counts.par_chunks_mut(PIECE).for_each(|piece| piece.fill(0.0));
        self.shares.par_iter_mut().for_each(empty);
        self.rows = 0;
    }

    /// Says that rows were added; moves the counts to float64 where they are many.
    pub(crate) fn rows_added(&mut self, rows: usize, model: &Model) {
        self.rows += rows;
        if self.rows >= ROWS {
            let mut total = std::mem::take(&mut self.total);
            total.resize(model.sums.len(), Vec::new());
            for (layer, total) in total.iter_mut().enumerate() {
                let (matrices, len) = (model.plan.counts(layer).len(), model.counts_len(layer));
                total.resize(matrices * len, 0.0);
                let add = |(matrix, to): (usize, &mut [f64])| self.add_recent(model, layer, matrix, to);
                total.par_chunks_exact_mut(len).enumerate().for_each(add);
            }
            self.total = total;
            self.empty_shares();
        }
    }

    /// Adds what the shares hold of a matrix to its counts.
    fn add_recent(&self, model: &Model, layer: usize, matrix: usize, to: &mut [f64]) {
        for new in self.recent(&model.plan, layer, matrix, to.len()) {
            to.iter_mut().zip(new).for_each(|(to, n)| *to += f64::from(*n));
        }
    }

    /// The `len` counts of a matrix (for the leaf, of a column and repetition) in the shares that add to it, in order.
    pub(crate) fn recent(
        &self,
        plan: &Plan,
        layer: usize,
        matrix: usize,
        len: usize,
    ) -> impl Iterator<Item = &[f32]> + use<'_> {
        let start = plan.counts(layer)[matrix];
        let shares = if self.shares.is_empty() { 0..0 } else { plan.shares_of(layer, matrix) };
        shares.map(move |share| &self.shares[share].counts[start..start + len])
    }

    /// The `len` counts of a matrix that are in float64 already, if any are.
    pub(crate) fn total(&self, layer: usize, matrix: usize, len: usize) -> Option<&[f64]> {
        self.total.get(layer).map(|total| &total[matrix * len..][..len])
    }

    /// The counts of a layer, in the order of the model's tensors.
    pub(crate) fn of_layer(&self, model: &Model, layer: usize) -> Vec<f64> {
        let (matrices, len) = (model.plan.counts(layer).len(), model.counts_len(layer));
        let mut counts = self.total.get(layer).cloned().unwrap_or_else(|| vec![0.0; matrices * len]);
        let add = |(matrix, to): (usize, &mut [f64])| self.add_recent(model, layer, matrix, to);
        counts.chunks_exact_mut(len).enumerate().for_each(add);
        counts
    }
}

//! What the shares of a circuit keep while statistics are gathered.

use rayon::{ThreadPool, prelude::*};

use crate::{model::Model, plan::Plan, walk::Tape};

/// Rows whose counts are added in f32 before they join the float64 ones.
const ROWS: usize = 4096;

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
        self.shares.iter_mut().for_each(|share| share.counts.fill(0.0));
        self.total.clear();
        self.rows = 0;
    }

    /// Says that rows were added; moves the counts to float64 where they are many.
    pub(crate) fn rows_added(&mut self, rows: usize, model: &Model, pool: &ThreadPool) {
        self.rows += rows;
        if self.rows >= ROWS {
            self.total =
                pool.install(|| (0..model.sums.len()).into_par_iter().map(|l| self.of_layer(model, l)).collect());
            self.shares.par_iter_mut().for_each(|share| share.counts.fill(0.0));
            self.rows = 0;
        }
    }

    /// The counts of a layer, in the order of the model's tensors.
    pub(crate) fn of_layer(&self, model: &Model, layer: usize) -> Vec<f64> {
        let (starts, shares) = (model.plan.counts(layer), &self.shares);
        let len = match &model.sums[layer] {
            Some(w) => w.outputs * w.inputs,
            None => model.leaves.counts_len(),
        };
        let mut counts = self.total.get(layer).cloned().unwrap_or_else(|| vec![0.0; starts.len() * len]);
        if shares.is_empty() {
            return counts;
        }
        for (matrix, (to, &start)) in counts.chunks_exact_mut(len).zip(starts).enumerate() {
            for share in model.plan.shares_of(layer, matrix) {
                let new = &shares[share].counts[start..start + len];
                to.iter_mut().zip(new).for_each(|(to, n)| *to += f64::from(*n));
            }
        }
        counts
    }
}

//! Expected counts, while statistics are gathered; all threads of the current pool help.

use rayon::prelude::*;

use crate::{
    model::Model,
    plan::{CountsLen, Plan},
    walk::Tape,
};

/// Number of additions to an f32 count before it is moved to float64. More would lose precision, and in the end the count would
/// stop growing.
const MOST_ADDITIONS: usize = 4096;

/// Values that one thread sets to zero at a time.
const PIECE: usize = 1 << 16;

/// The recorded upward pass and the counts of one share of the tree, which one thread walks.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) tape: Tape,
    pub(crate) counts: ShareCounts,
}

/// Counts of the matrices and leaves that [`Plan::counts`] names.
#[derive(Debug, Default)]
pub(crate) struct ShareCounts {
    /// Of sums; also of leaves, where `leaves` is empty.
    pub(crate) sums: Vec<f32>,
    /// Of leaves that are counted in float64.
    pub(crate) leaves: Vec<f64>,
}

/// Expected counts.
///
/// Every matrix of weights that belongs to one place of the image has one share that adds to it, tile by tile; those that
/// several shares have in common are added share by share. So nothing depends on which thread came first.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    shares: Vec<Share>,
    /// Whether anything was counted.
    some: bool,
    /// The most numbers that were added to one f32 count since it was empty; see [`Plan::additions`].
    additions: usize,
    /// For each layer the counts in the order of the model's tensors; empty where none were moved here yet.
    total: Vec<Vec<f64>>,
}

impl Counts {
    /// Makes room for the shares of a plan, before something is added to them.
    pub(crate) fn prepare(&mut self, plan: &Plan) {
        self.some = true;
        if self.shares.is_empty() {
            let counts = |len: &CountsLen| ShareCounts { sums: vec![0.0; len.sums], leaves: vec![0.0; len.leaves] };
            let share = |len| Share { tape: Tape::default(), counts: counts(len) };
            self.shares = plan.counts_len.iter().map(share).collect();
        }
    }

    pub(crate) fn shares_mut(&mut self) -> &mut [Share] {
        &mut self.shares
    }

    /// Forgets all counts.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.some) {
            self.empty_sums();
            let empty = |share: &mut Share| share.counts.leaves.par_chunks_mut(PIECE).for_each(|piece| piece.fill(0.0));
            self.shares.par_iter_mut().for_each(empty);
        }
        self.total.clear();
    }

    fn empty_sums(&mut self) {
        let empty = |share: &mut Share| share.counts.sums.par_chunks_mut(PIECE).for_each(|piece| piece.fill(0.0));
        self.shares.par_iter_mut().for_each(empty);
        self.additions = 0;
    }

    /// To be called after each tile of rows: adds the f32 counts to the float64 ones when so much was added that they would lose
    /// precision.
    pub(crate) fn rows_added(&mut self, rows: usize, model: &Model) {
        self.additions += model.plan.additions(rows);
        if self.additions >= MOST_ADDITIONS {
            let mut total = std::mem::take(&mut self.total);
            total.resize(model.sums.len(), Vec::new());
            let first = usize::from(model.plan.leaves_in_float64);
            for (layer, total) in total.iter_mut().enumerate().skip(first) {
                let (matrices, len) = (model.plan.counts(layer).len(), model.counts_len(layer));
                total.resize(matrices * len, 0.0);
                let add = |(matrix, to): (usize, &mut [f64])| self.add_recent(model, layer, matrix, to);
                total.par_chunks_exact_mut(len).enumerate().for_each(add);
            }
            self.total = total;
            self.empty_sums();
        }
    }

    /// Adds the counts of a matrix in all shares to `to`.
    fn add_recent(&self, model: &Model, layer: usize, matrix: usize, to: &mut [f64]) {
        for counts in self.recent(&model.plan, layer, matrix, to.len()) {
            counts.add_to(to);
        }
    }

    /// The counts of a matrix (for the leaf, of a column and repetition) in each share that has some, in order.
    pub(crate) fn recent(
        &self,
        plan: &Plan,
        layer: usize,
        matrix: usize,
        len: usize,
    ) -> impl Iterator<Item = Recent<'_>> + use<'_> {
        let (start, in_float64) = (plan.counts(layer)[matrix], layer == 0 && plan.leaves_in_float64);
        let shares = if self.shares.is_empty() { 0..0 } else { plan.shares_of(layer, matrix) };
        shares.map(move |share| {
            let counts = &self.shares[share].counts;
            match in_float64 {
                true => Recent::Double(&counts.leaves[start..start + len]),
                false => Recent::Single(&counts.sums[start..start + len]),
            }
        })
    }

    /// The counts of a matrix that were moved from the shares to float64, if any were.
    pub(crate) fn total(&self, layer: usize, matrix: usize, len: usize) -> Option<&[f64]> {
        self.total.get(layer).filter(|total| !total.is_empty()).map(|total| &total[matrix * len..][..len])
    }

    /// The counts of a layer, in the order of the model's tensors.
    pub(crate) fn of_layer(&self, model: &Model, layer: usize) -> Vec<f64> {
        let (matrices, len) = (model.plan.counts(layer).len(), model.counts_len(layer));
        let total = self.total.get(layer).filter(|total| !total.is_empty());
        let mut counts = total.cloned().unwrap_or_else(|| vec![0.0; matrices * len]);
        let add = |(matrix, to): (usize, &mut [f64])| self.add_recent(model, layer, matrix, to);
        counts.chunks_exact_mut(len).enumerate().for_each(add);
        counts
    }
}

/// Counts of one matrix in one share.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Recent<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
}

impl Recent<'_> {
    /// Adds the counts to as many float64 ones.
    pub(crate) fn add_to(self, to: &mut [f64]) {
        match self {
            Recent::Single(counts) => to.iter_mut().zip(counts).for_each(|(to, n)| *to += f64::from(*n)),
            Recent::Double(counts) => to.iter_mut().zip(counts).for_each(|(to, n)| *to += n),
        }
    }

    /// A part of the counts.
    pub(crate) fn part(self, part: std::ops::Range<usize>) -> Self {
        match self {
            Recent::Single(counts) => Recent::Single(&counts[part]),
            Recent::Double(counts) => Recent::Double(&counts[part]),
        }
    }
}

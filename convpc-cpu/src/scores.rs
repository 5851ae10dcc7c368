//! Log-likelihoods of many rows: they are computed in f32, and the rows for which that is not enough once more.

use convpc_core::{Backend, Executable, Form, Reference, Result, Semiring, classes};
use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::{
    executable::CpuExecutable,
    walk::{Tile, Walk},
};

/// The largest error of the leaves' log-densities below a sum, relative to what they lie below their peaks: half a unit in the last
/// place of f32 for the rate and for `u`, both twice since `u` is squared, for the log-density, and for the sums of a few of them.
const LEAF_ERROR: f64 = 4e-7;

/// The error of a score that leaves may cause, in nats. The contract of f32 promises 1e-4.
const ALLOWED: f64 = 8e-5;

/// The error that leaves may cause relative to the score. The contract of f32 promises 1e-5.
const ALLOWED_SHARE: f64 = 8e-6;

/// True if rounding the leaves' log-densities to f32 may leave too great an error in a score, because they are large beside it and of
/// both signs. The positive ones add `gains` at most.
pub(crate) fn may_cancel(score: f64, gains: f64) -> bool {
    let size = score.abs();
    (size + gains) * LEAF_ERROR > ALLOWED + ALLOWED_SHARE * size
}

impl CpuExecutable {
    /// Computes for parts of the rows on all threads, a tile each.
    fn by_tiles<T: Send>(&self, data: ArrayView2<f32>, exact: bool, ask: impl Fn(&mut Walk) -> T + Sync) -> Vec<T> {
        let plan = &self.model.plan;
        let share = data.nrows().div_ceil(self.pool.current_num_threads());
        let rows = share.next_multiple_of(plan.width_for(share)).min(plan.tile);
        let walk = |data: &ArrayView2<f32>| {
            let (model, tile) = (&self.model, Tile { exact, ..Tile::new(plan, data.view()) });
            self.with_workspace(|work| {
                ask(&mut Walk { model, tile, semiring: Semiring::SumProduct, work, tape: None, cut: None })
            })
        };
        let tiles: Vec<_> = data.axis_chunks_iter(Axis(0), rows).collect();
        tiles.par_iter().map(walk).collect()
    }

    /// Computes for parts of the rows: all threads on one tile where rows are too few to give each thread a panel, else a tile each.
    fn by_rows<T: Send>(&self, data: ArrayView2<f32>, exact: bool, ask: impl Fn(&mut Walk) -> T + Sync) -> Vec<T> {
        let plan = &self.model.plan;
        let few = data.nrows().div_ceil(plan.narrow) < self.pool.current_num_threads() && plan.cut.is_some();
        let tile = match data.nrows() {
            rows if rows <= plan.singly => Some(Tile::singly(data)),
            _ => few.then(|| Tile::new(plan, data)),
        };
        self.pool.install(|| match tile {
            Some(tile) => vec![self.by_shares(Tile { exact, ..tile }, Semiring::SumProduct, None, &ask)],
            None => self.by_tiles(data, exact, &ask),
        })
    }

    /// The log-likelihoods of the rows under each channel of the only node of a layer, `[rows, channels]`, nats. `reference` asks the
    /// float64 backend for the same.
    ///
    /// Rows whose log-densities may cancel are computed a second time, with leaves in float64, and rows beyond the range of f32 by
    /// the float64 backend.
    pub(crate) fn scores(
        &self,
        data: ArrayView2<f32>,
        layer: usize,
        reference: impl Fn(&dyn Executable, ArrayView2<f32>) -> Result<Array2<f64>>,
    ) -> Result<Array2<f64>> {
        let reached = self.reached()?;
        let ask = |walk: &mut Walk| walk.class_log_likelihood(layer);
        let mut scores = classes::joined(&reached.by_rows(data, false, ask));
        let gains = reached.model.leaves.gains(&reached.model.structure);
        if may_cancel(0.0, gains) && reached.model.bf16.is_none() {
            let doubtful = rows_with(&scores, |score| may_cancel(score, gains));
            again(&mut scores, data, &doubtful, |rows| Ok(classes::joined(&reached.by_rows(rows, true, ask))))?;
        }
        if self.is_never_impossible() {
            let far = rows_with(&scores, |score| score == f64::NEG_INFINITY);
            again(&mut scores, data, &far, |rows| reference(&*Reference.load(&self.circuit()?)?, rows))?;
        }
        Ok(scores)
    }

    /// The rows whose log-likelihood came out as −∞ though none can be impossible, so that f32 was out of range.
    pub(crate) fn out_of_range(&self, log_likelihood: impl IntoIterator<Item = f64>) -> impl Iterator<Item = usize> {
        let never_impossible = self.is_never_impossible();
        let rows = log_likelihood.into_iter().enumerate();
        rows.filter(move |(_, ll)| never_impossible && *ll == f64::NEG_INFINITY).map(|(row, _)| row)
    }

    /// True if no row can have probability zero under the leaves: a Normal density is never zero.
    fn is_never_impossible(&self) -> bool {
        self.model.structure.leaf().family.form() == Form::LocationScale
    }
}

/// The rows that have a score for which the answer is yes.
fn rows_with(scores: &Array2<f64>, is: impl Fn(f64) -> bool) -> Vec<usize> {
    let rows = scores.outer_iter().enumerate();
    rows.filter(|(_, row)| row.iter().any(|score| is(*score))).map(|(number, _)| number).collect()
}

/// Replaces the scores of some rows.
fn again(
    scores: &mut Array2<f64>,
    data: ArrayView2<f32>,
    rows: &[usize],
    score: impl Fn(ArrayView2<f32>) -> Result<Array2<f64>>,
) -> Result<()> {
    if !rows.is_empty() {
        let better = score(data.select(Axis(0), rows).view())?;
        rows.iter().zip(better.outer_iter()).for_each(|(row, better)| scores.row_mut(*row).assign(&better));
    }
    Ok(())
}

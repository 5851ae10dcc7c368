//! The rows of an epoch in an order of their own, gathered ahead of the computation.

use std::{ops::Range, sync::mpsc::sync_channel, thread};

use ndarray::{Array2, ArrayView2, Axis};

use crate::{
    error::Result,
    rng::{self, Use},
};

/// Batches that are gathered before they are asked for.
const AHEAD: usize = 2;

/// The rows of `0..rows` that are trained on, and those that are held out: a share of all, at least one of each.
pub(super) fn split(rows: usize, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order = rng::permutation(rows, seed, 0, Use::Split);
    let held_out = ((rows as f64 * fraction).round() as usize).clamp(1, rows.saturating_sub(1).max(1));
    let mut train = order.split_off(held_out.min(rows));
    train.sort_unstable();
    order.sort_unstable();
    (train, order)
}

/// The number of batches of at most `size` rows.
pub(super) fn count(rows: usize, size: usize) -> usize {
    rows.div_ceil(size)
}

/// The rows of a batch in the epoch's order. Sizes differ by one at most: a small last batch would be a noisy one.
pub(super) fn range(batch: usize, batches: usize, rows: usize) -> Range<usize> {
    let start = |batch: usize| (batch as u128 * rows as u128 / batches as u128) as usize;
    start(batch)..start(batch + 1)
}

/// Calls `f` with the rows `order[range]` of `data`, and their numbers, for each range in turn until it fails or says that it is
/// enough; another thread gathers the next ones meanwhile.
pub(super) fn for_each(
    data: ArrayView2<f32>,
    order: &[usize],
    ranges: impl Iterator<Item = Range<usize>> + Send,
    mut f: impl FnMut(&[usize], Array2<f32>) -> Result<bool>,
) -> Result<()> {
    thread::scope(|scope| {
        // Inside the scope, so that it is gone, and the other thread ends, when `f` fails or has enough.
        let (sender, receiver) = sync_channel(AHEAD);
        scope.spawn(move || {
            for range in ranges {
                let rows = &order[range];
                if sender.send((rows, data.select(Axis(0), rows))).is_err() {
                    break;
                }
            }
        });
        for (rows, batch) in receiver {
            if !f(rows, batch)? {
                break;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn every_row_is_in_one_batch_and_sizes_differ_by_one() {
        for (rows, size) in [(10, 3), (10, 10), (10, 99), (1, 1), (60_000, 512), (7, 2)] {
            let batches = count(rows, size);
            let all: Vec<usize> = (0..batches).flat_map(|b| range(b, batches, rows)).collect();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
            let sizes: Vec<usize> = (0..batches).map(|b| range(b, batches, rows).len()).collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(*most <= size && most - least <= 1, "{rows} {size}: {sizes:?}");
        }
    }

    #[test]
    fn splits_share_no_row_and_leave_none_out() {
        for (rows, fraction, held_out) in [(10, 0.3, 3), (10, 0.001, 1), (10, 0.999, 9), (2, 0.5, 1)] {
            let (train, valid) = split(rows, fraction, 5);
            assert_eq!(valid.len(), held_out);
            let mut all = [train.clone(), valid].concat();
            all.sort();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
        }
        assert_ne!(split(100, 0.5, 1), split(100, 0.5, 2));
    }

    #[test]
    fn batches_come_in_order_and_stop_when_told() {
        let data = Array2::from_shape_fn((6, 2), |(row, v)| (10 * row + v) as f32);
        let order = [5, 0, 3, 1, 4, 2];
        let mut seen = Vec::new();
        let mut gather = |enough: usize| {
            seen.clear();
            let ranges = (0..3).map(|b| range(b, 3, 6));
            for_each(data.view(), &order, ranges, |rows, batch| {
                assert!(rows.iter().eq(batch.column(0).iter().map(|x| *x as usize / 10).collect::<Vec<_>>().iter()));
                seen.extend(batch.column(1).iter().map(|x| (*x as usize - 1) / 10));
                Ok(seen.len() < enough)
            })
            .unwrap();
            seen.clone()
        };
        assert_eq!(gather(99), order);
        assert_eq!(gather(1), order[..2]);
        // More batches than are gathered ahead, so that the other thread waits when the error comes.
        let ranges = (0..6).map(|b| range(b, 6, 6));
        assert_eq!(for_each(data.view(), &order, ranges, |_, _| Err(Error::EmptyBatch)), Err(Error::EmptyBatch));
    }
}

//! What the host does with a batch before the device gets it: a device takes rows faster than one thread hands them over.

use std::num::NonZeroUsize;

use convpc_core::{Result, Structure, evidence};
use ndarray::{ArrayView2, Axis};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use crate::error::CudaError;

/// Values that a thread takes at a time: enough to be worth waking it.
const PIECE: usize = 1 << 18;

/// Threads of the host.
pub(crate) struct Host(ThreadPool);

impl Host {
    /// A pool of so many threads, as many as there are cores for `None`.
    pub(crate) fn new(threads: Option<NonZeroUsize>) -> Result<Self, CudaError> {
        let pool = ThreadPoolBuilder::new().num_threads(threads.map_or(0, NonZeroUsize::get)).build();
        Ok(Host(pool.map_err(|error| CudaError::Threads { problem: error.to_string() })?))
    }

    /// What [`evidence::check`] says of the data.
    pub(crate) fn check(&self, structure: &Structure, data: ArrayView2<f32>) -> Result<()> {
        let rows = rows_of_a_piece(data);
        if data.nrows() <= rows {
            return evidence::check(structure, data);
        }
        let pieces: Vec<_> = data.axis_chunks_iter(Axis(0), rows).collect();
        let check =
            |(piece, data): (usize, &ArrayView2<f32>)| evidence::check_rows(structure, *data, piece * rows).err();
        // The first, whichever thread finds one.
        self.0.install(|| pieces.par_iter().enumerate().find_map_first(check)).map_or(Ok(()), Err)
    }

    /// Copies rows one after another to the beginning of `to`.
    pub(crate) fn copy(&self, data: ArrayView2<f32>, to: &mut [f32]) {
        let rows = rows_of_a_piece(data);
        let to = &mut to[..data.len()];
        if data.nrows() <= rows {
            return copy(data, to);
        }
        let pieces: Vec<_> = data.axis_chunks_iter(Axis(0), rows).collect();
        let to = to.par_chunks_mut(rows * data.ncols());
        self.0.install(|| to.zip(&pieces).for_each(|(to, from)| copy(*from, to)));
    }
}

fn rows_of_a_piece(data: ArrayView2<f32>) -> usize {
    (PIECE / data.ncols().max(1)).max(1)
}

fn copy(data: ArrayView2<f32>, to: &mut [f32]) {
    match data.as_slice() {
        Some(values) => to.copy_from_slice(values),
        None => to.iter_mut().zip(data).for_each(|(to, from)| *to = *from),
    }
}

#[cfg(test)]
mod tests {
    use convpc_core::{ConvPc, Error, Family};
    use ndarray::{Array2, s};

    use super::*;

    fn many() -> Array2<f32> {
        Array2::from_shape_fn((70, 10_000), |(row, column)| ((row * 7 + column) % 5) as f32)
    }

    #[test]
    fn pieces_are_one_copy() {
        let (host, data) = (Host::new(NonZeroUsize::new(3)).unwrap(), many());
        for view in [data.view(), data.slice(s![..;-1, ..]), data.slice(s![..2, ..]), data.slice(s![.., ..;2])] {
            let mut to = vec![-1.0; view.len() + 3];
            host.copy(view, &mut to);
            assert!(to[..view.len()].iter().eq(view.iter()));
            assert_eq!(to[view.len()..], [-1.0; 3]);
        }
    }

    #[test]
    fn the_first_wrong_row_is_reported() {
        let (host, mut data) = (Host::new(NonZeroUsize::new(3)).unwrap(), many());
        let structure = ConvPc::new(100, 100, 1, Family::categorical(5)).channels(2).structure().unwrap();
        assert_eq!(host.check(&structure, data.view()), Ok(()));
        (data[[61, 9]], data[[40, 17]], data[[40, 9_999]]) = (-1.0, 7.5, 9.0);
        let found = host.check(&structure, data.view());
        assert!(matches!(found, Err(Error::OutsideSupport { row: 40, variable: 17, .. })), "{found:?}");
        assert_eq!(found, evidence::check(&structure, data.view()));
    }
}

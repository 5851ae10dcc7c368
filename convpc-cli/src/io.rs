//! What several commands read and write.

use std::path::Path;

use convpc::{
    Circuit, Executable, Leaf,
    data::{self, ImageShape},
    picture::Picture,
};
use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate};

use crate::{Outcome, failure::Usage, files, progress};

/// Rows that are computed between two steps of the progress bar.
pub(crate) const BATCH: usize = 1024;

/// The log-likelihood of each row.
pub(crate) fn log_likelihood(model: &dyn Executable, data: ArrayView2<f32>) -> convpc::Result<Array1<f64>> {
    Ok(by_batch(data, |rows| model.log_likelihood(rows))?.into_iter().flatten().collect())
}

/// The joint log-likelihood of each row and each class.
pub(crate) fn log_joint(model: &dyn Executable, data: ArrayView2<f32>) -> convpc::Result<Array2<f64>> {
    let parts = by_batch(data, |rows| model.class_log_joint(rows))?;
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    Ok(concatenate(Axis(0), &views).expect("rows of one circuit"))
}

/// What `score` says of the rows, batch by batch.
fn by_batch<T>(data: ArrayView2<f32>, score: impl Fn(ArrayView2<f32>) -> convpc::Result<T>) -> convpc::Result<Vec<T>> {
    let bar = progress::bar(data.nrows(), "scoring");
    let mut all = Vec::new();
    for (first, batch) in (0..).step_by(BATCH).zip(data.axis_chunks_iter(Axis(0), BATCH)) {
        all.push(score(batch).map_err(|error| error.map_row(|row| row + first))?);
        bar.inc(batch.nrows() as u64);
    }
    bar.finish_and_clear();
    Ok(all)
}

/// Data columns spread over the whole grid of the leaf; variables that the circuit lacks are missing.
fn on_grid(circuit: &Circuit, rows: ArrayView2<f32>) -> Array2<f32> {
    let structure = circuit.structure();
    let leaf = structure.leaf();
    let mut grid = Array2::from_elem((rows.nrows(), leaf.height * leaf.width * leaf.colors), f32::NAN);
    for (column, at) in structure.columns().iter().enumerate() {
        grid.column_mut(at.slot).assign(&rows.column(column));
    }
    grid
}

/// The values that are drawn black and white.
fn range(leaf: &Leaf, rows: ArrayView2<f32>) -> (f32, f32) {
    match leaf.family.cardinality() {
        Some(n) => (0.0, (n - 1).max(1) as f32),
        None => {
            let finite = || rows.iter().copied().filter(|x| x.is_finite());
            let (low, high) = (finite().fold(f32::MAX, f32::min), finite().fold(f32::MIN, f32::max));
            if low < high { (low, high) } else { (low - 0.5, low + 0.5) }
        }
    }
}

/// Writes a picture of the rows.
pub(crate) fn write_picture(path: &Path, circuit: &Circuit, rows: ArrayView2<f32>, columns: usize) -> Outcome {
    let leaf = circuit.structure().leaf();
    let shape = ImageShape { height: leaf.height, width: leaf.width, colors: leaf.colors };
    let scale = (64 / leaf.height.max(leaf.width)).max(1);
    let grid = on_grid(circuit, rows);
    Picture::grid(grid.view(), shape, range(leaf, rows), columns, scale)?.write_png(path)?;
    Ok(())
}

/// An error unless [`write_rows`] can write to this name: asked before long work.
pub(crate) fn check_output(path: &Path) -> Result<(), Usage> {
    files::check_ending("-o", path, &["npy", "png"])
}

/// Writes rows as .npy, or as a picture where the name ends in .png.
pub(crate) fn write_rows(path: &Path, circuit: &Circuit, rows: ArrayView2<f32>) -> Outcome {
    if files::ends_in(path, &["npy"]) {
        return Ok(data::write_npy_f32(path, rows.into_dyn())?);
    }
    let columns = (rows.nrows() as f64).sqrt().ceil() as usize;
    write_picture(path, circuit, rows, columns)
}

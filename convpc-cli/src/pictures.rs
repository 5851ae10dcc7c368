//! Pictures of the images that a command makes.

use std::path::Path;

use convpc::{Circuit, Leaf, data::ImageShape, picture::Picture};
use ndarray::{Array2, ArrayView2};

use crate::Outcome;

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

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result, positive},
    shape::{Padding, Shape},
};

/// Products over non-overlapping patches of `kernel` = (rows, columns) features:
/// `y[(i,j),c,r] = sum of x[(i·kh+a−top, j·kw+b−left),c,r]` over the kernel positions (a,b) that lie inside the grid.
///
/// The padded size must be a multiple of the kernel. A feature that covers only padding has an empty scope and is the
/// constant 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProdConv {
    /// Patch size (rows, columns).
    pub kernel: (usize, usize),
    /// Padding around the input grid.
    #[serde(default)]
    pub padding: Padding,
}

impl ProdConv {
    /// A product over patches of `rows × columns` features, without padding.
    pub fn new(rows: usize, columns: usize) -> Self {
        ProdConv { kernel: (rows, columns), padding: Padding::default() }
    }

    /// The same with padding.
    pub fn padding(self, padding: Padding) -> Self {
        ProdConv { padding, ..self }
    }

    pub(crate) fn output(&self, layer: usize, input: Shape) -> Result<Shape> {
        positive("product kernel height", self.kernel.0)?;
        positive("product kernel width", self.kernel.1)?;
        let Padding { top, left, bottom, right } = self.padding;
        let along = |axis, size: usize, before: usize, after: usize, kernel: usize| {
            let padding = before.checked_add(after).ok_or(Error::TooLarge { what: "the padding" })?;
            let padded = size.checked_add(padding).ok_or(Error::TooLarge { what: "the padded size" })?;
            if !padded.is_multiple_of(kernel) {
                let suggestion = padded.next_multiple_of(kernel);
                return Err(Error::KernelDoesNotDivide { layer, axis, size, padding, padded, kernel, suggestion });
            }
            Ok(padded / kernel)
        };
        let height = along("height", input.height, top, bottom, self.kernel.0)?;
        let width = along("width", input.width, left, right, self.kernel.1)?;
        let shape = Shape { height, width, ..input };
        shape.check_size()?;
        Ok(shape)
    }

    /// The input features of output feature `feature` that lie inside the grid, row-major.
    pub fn children(&self, feature: usize, input: Shape, output: Shape) -> impl Iterator<Item = usize> + use<> {
        let (i, j) = output.position(feature);
        let inside = |position: usize, kernel: usize, before: usize, size: usize| {
            let start = position * kernel;
            start.saturating_sub(before)..(start + kernel).saturating_sub(before).min(size)
        };
        let rows = inside(i, self.kernel.0, self.padding.top, input.height);
        let columns = inside(j, self.kernel.1, self.padding.left, input.width);
        rows.flat_map(move |row| columns.clone().map(move |column| row * input.width + column))
    }
}

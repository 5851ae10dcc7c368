use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result, positive},
    shape::{Padding, Paddings, Shape},
};

/// Products over non-overlapping patches of `kernel` = (rows, columns) features:
/// `y[(i,j),c,r] = sum of x[(i·kh+a−top, j·kw+b−left),c,r]` over the kernel positions (a,b) that lie inside the grid.
///
/// The padded size must be a multiple of the kernel. A feature that covers only padding has an empty scope and is the
/// constant 0. Repetitions may be padded differently, each by its own top and left, where the padded size is the same: what the
/// border of a patch cuts apart in one then lies within a patch of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProdConv {
    /// Patch size (rows, columns).
    pub kernel: (usize, usize),
    /// Padding around the input grid.
    #[serde(default)]
    pub padding: Paddings,
}

impl ProdConv {
    /// A product over patches of `rows × columns` features, without padding.
    pub fn new(rows: usize, columns: usize) -> Self {
        ProdConv { kernel: (rows, columns), padding: Paddings::default() }
    }

    /// The same with padding: one for all repetitions, or a vector of one for each.
    ///
    /// ```
    /// use convpc_core::{Family, Leaf, Padding, ProdConv, Structure};
    /// // Pairs of three pixels in a row: the last is alone in one repetition, the first in the other.
    /// let paddings = [Padding { right: 1, ..Padding::default() }, Padding { left: 1, ..Padding::default() }];
    /// let structure = Structure::builder(Leaf::new(1, 3, 1, Family::bernoulli(), 2).repetitions(2))
    ///     .prod_conv(ProdConv::new(1, 2).padding(paddings.to_vec()))
    ///     .sum(2)
    ///     .prod_conv(ProdConv::new(1, 2))
    ///     .sum(1)
    ///     .repetition_mixing()
    ///     .build()?;
    /// assert_eq!([0, 1].map(|repetition| structure.scope(1, 0, repetition).to_string()), ["{0–1}", "{0}"]);
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    pub fn padding(self, padding: impl Into<Paddings>) -> Self {
        ProdConv { padding: padding.into(), ..self }
    }

    /// Whether repetitions differ in their padding.
    pub(crate) fn shifts(&self) -> bool {
        self.padding.as_slice().windows(2).any(|pair| pair[0] != pair[1])
    }

    pub(crate) fn output(&self, layer: usize, input: Shape) -> Result<Shape> {
        positive("product kernel height", self.kernel.0)?;
        positive("product kernel width", self.kernel.1)?;
        if let Paddings::Each(paddings) = &self.padding
            && paddings.len() != input.repetitions
        {
            let given = format!("{} (layer {layer})", paddings.len());
            let expected = format!("{}, one for each repetition, or a single padding for all", input.repetitions);
            return Err(Error::Argument { what: "the number of a product layer's paddings", given, expected });
        }
        let shapes = self.padding.as_slice().iter().map(|padding| self.padded(layer, input, *padding));
        let shapes = shapes.collect::<Result<Vec<_>>>()?;
        if let Some(at) = shapes.iter().position(|shape| *shape != shapes[0]) {
            let (kh, kw) = self.kernel;
            let padded = |at: usize| format!("{}×{}", shapes[at].height * kh, shapes[at].width * kw);
            return Err(Error::Argument {
                what: "the padded size of a repetition",
                given: format!("{} (repetition {at} at layer {layer})", padded(at)),
                expected: format!("{}, as of repetition 0", padded(0)),
            });
        }
        Ok(shapes[0])
    }

    /// The shape of what one padding makes.
    fn padded(&self, layer: usize, input: Shape, padding: Padding) -> Result<Shape> {
        let Padding { top, left, bottom, right } = padding;
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

    /// The input features of output feature `feature` of a repetition that lie inside the grid, row-major.
    pub fn children(
        &self,
        feature: usize,
        repetition: usize,
        input: Shape,
        output: Shape,
    ) -> impl Iterator<Item = usize> + use<> {
        let (i, j) = output.position(feature);
        let inside = |position: usize, kernel: usize, before: usize, size: usize| {
            let start = position * kernel;
            start.saturating_sub(before)..(start + kernel).saturating_sub(before).min(size)
        };
        let Padding { top, left, .. } = self.padding.of(repetition);
        let rows = inside(i, self.kernel.0, top, input.height);
        let columns = inside(j, self.kernel.1, left, input.width);
        rows.flat_map(move |row| columns.clone().map(move |column| row * input.width + column))
    }
}

//! The order of an image's axes in an array.

use std::path::Path;

use ndarray::{Array2, ArrayD};

use super::{DataError, ImageShape};

/// The order of the axes of an image with colors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisOrder {
    /// Height × width × colors.
    ColorsLast,
    /// Colors × height × width, as PyTorch has it.
    ColorsFirst,
}

/// How an array of images lies in memory.
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) variables: usize,
    pub(super) shape: Option<ImageShape>,
    order: AxisOrder,
}

impl Layout {
    /// Interprets the sizes along the axes of an array: rows × variables, rows × height × width, or these with colors, whose
    /// place is found if it is not given, by the shape that is expected or by the sizes.
    pub(super) fn new(
        path: &Path,
        sizes: &[usize],
        order: Option<AxisOrder>,
        shape: Option<ImageShape>,
    ) -> Result<Self, DataError> {
        let expected =
            "rows x variables, rows x height x width, or rows x height x width x colors (or colors x height x width)";
        if let [count] = *sizes {
            return Err(DataError::Labels { path: path.to_path_buf(), count });
        }
        if !(2..=4).contains(&sizes.len()) {
            return Err(DataError::Axes { path: path.to_path_buf(), shape: sizes.to_vec(), expected });
        }
        if sizes.contains(&0) {
            return Err(DataError::NoValues { path: path.to_path_buf(), shape: sizes.to_vec() });
        }
        let order = match *sizes {
            [_, first, second, third] => order
                .or_else(|| of_shape([first, second, third], shape?))
                .or_else(|| find([first, second, third]))
                .ok_or_else(|| DataError::AmbiguousAxes { path: path.to_path_buf(), shape: sizes.to_vec() })?,
            _ => AxisOrder::ColorsLast,
        };
        let image = |height, width, colors| Some(ImageShape { height, width, colors });
        let shape = match (sizes, order) {
            (&[_, height, width], _) => image(height, width, 1),
            (&[_, height, width, colors], AxisOrder::ColorsLast) => image(height, width, colors),
            (&[_, colors, height, width], AxisOrder::ColorsFirst) => image(height, width, colors),
            _ => None,
        };
        let variables = shape.map_or(Some(sizes[1]), |shape| shape.variables());
        let variables = variables.ok_or_else(|| DataError::too_large(path, sizes))?;
        Ok(Self { rows: sizes[0], variables, shape, order })
    }

    /// Returns true if the values have to be copied into another order.
    pub(super) fn is_rearranged(&self, is_fortran: bool) -> bool {
        let is_colors_first = self.order == AxisOrder::ColorsFirst && self.shape.is_some_and(|shape| shape.colors > 1);
        is_fortran || is_colors_first
    }

    /// Brings an array of some of the rows into rows × variables, in C order.
    pub(super) fn arrange(&self, path: &Path, array: ArrayD<f32>) -> Result<Array2<f32>, DataError> {
        let rows = array.shape()[0];
        let array = match (array.ndim(), self.order) {
            (4, AxisOrder::ColorsFirst) => array.permuted_axes(&[0, 2, 3, 1][..]),
            _ => array,
        };
        let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
        let size = (rows, self.variables);
        array.into_shape_with_order(size).map_err(|error| DataError::corrupt(path, error.to_string()))
    }

    /// The row and the variable of an index along each axis of the array.
    pub(super) fn place(&self, index: &[usize]) -> (usize, usize) {
        let variable = match (index, self.order, self.shape) {
            (&[_, row, column], _, Some(shape)) => row * shape.width + column,
            (&[_, row, column, color], AxisOrder::ColorsLast, Some(shape))
            | (&[_, color, row, column], AxisOrder::ColorsFirst, Some(shape)) => {
                (row * shape.width + column) * shape.colors + color
            }
            _ => index[1],
        };
        (index[0], variable)
    }
}

/// The only order in which axes of these sizes hold images of this shape.
fn of_shape(sizes: [usize; 3], ImageShape { height, width, colors }: ImageShape) -> Option<AxisOrder> {
    match (sizes == [height, width, colors], sizes == [colors, height, width]) {
        (true, false) => Some(AxisOrder::ColorsLast),
        (false, true) => Some(AxisOrder::ColorsFirst),
        _ => None,
    }
}

/// Where the colors are: on the side that has so few sizes that they can be colors. If both have, nobody can tell; if neither
/// has, the usual order is taken.
fn find([first, _, third]: [usize; 3]) -> Option<AxisOrder> {
    const MOST_COLORS: usize = 4;
    match (first <= MOST_COLORS, third <= MOST_COLORS) {
        (true, true) => None,
        (true, false) => Some(AxisOrder::ColorsFirst),
        (false, _) => Some(AxisOrder::ColorsLast),
    }
}

//! Checks of data that every backend makes before it computes.

use ndarray::ArrayView2;

use crate::{
    error::{Error, Result},
    structure::Structure,
};

/// Checks that `data` (rows × variables, NaN = missing) fit `structure`: the number of variables, at least one row, and
/// every value in the support of its leaf family.
///
/// # Errors
/// Which row, variable and value is wrong, and what would be right.
pub fn check(structure: &Structure, data: ArrayView2<f32>) -> Result<()> {
    check_rows(structure, data, 0)
}

/// The same for rows whose first has the number `first_row` in errors: for checking parts of the data side by side.
///
/// # Errors
/// As [`check`].
pub fn check_rows(structure: &Structure, data: ArrayView2<f32>, first_row: usize) -> Result<()> {
    check_columns(structure, data.ncols())?;
    if data.nrows() == 0 {
        return Err(Error::EmptyBatch);
    }
    let family = &structure.leaf().family;
    for (row, values) in (first_row..).zip(data.outer_iter()) {
        let outside = match values.as_slice() {
            Some(values) => family.first_outside(values),
            None => family.first_outside(&values.to_vec()),
        };
        if let Some(variable) = outside {
            let value = values[variable].to_string();
            return Err(Error::OutsideSupport {
                row,
                variable,
                value,
                family: family.name(),
                support: family.support(),
            });
        }
    }
    Ok(())
}

/// The number of observed values: those that are not NaN. Bits per dimension are relative to it.
pub fn observed(data: ArrayView2<f32>) -> usize {
    data.iter().filter(|x| !x.is_nan()).count()
}

/// An error unless `given` data columns fit.
fn check_columns(structure: &Structure, given: usize) -> Result<()> {
    let expected = structure.variables();
    if given == expected {
        return Ok(());
    }
    let leaf = structure.leaf();
    let hint = format!(
        "a row holds the variables of a {}×{} image with {} colors, (row · width + column) · colors + color{}",
        leaf.height,
        leaf.width,
        leaf.colors,
        if leaf.kept.is_some() { ", less the marginalised ones" } else { "" }
    );
    Err(Error::VariableCount { given, expected, hint })
}

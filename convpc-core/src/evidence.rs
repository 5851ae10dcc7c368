//! Checks of data that every backend makes before it computes.

use ndarray::ArrayView2;

use crate::{
    circuit::Circuit,
    error::{Error, Result},
    structure::Structure,
};

/// Checks that `data` (rows × variables, NaN = missing) fit `structure`: the number of variables, at least one row, and
/// every value in the support of its leaf family.
///
/// # Errors
/// Which row, variable and value is wrong, and what would be right.
pub fn check(structure: &Structure, data: ArrayView2<f32>) -> Result<()> {
    Circuit::check_columns(structure, data.ncols())?;
    if data.nrows() == 0 {
        return Err(Error::EmptyBatch);
    }
    let family = &structure.leaf().family;
    for (row, values) in data.outer_iter().enumerate() {
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

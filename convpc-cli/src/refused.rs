//! Rows that a query refuses, among others that it answers.

use convpc::Error;
use ndarray::{ArrayView2, Axis};

/// The numbers of the rows that were refused, by the reason.
#[derive(Default)]
pub(crate) struct Refused {
    /// Rows of probability 0.
    pub(crate) impossible: Vec<usize>,
    /// Rows beyond the range of float32.
    pub(crate) far: Vec<usize>,
}

impl Refused {
    /// Returns how many rows were refused.
    pub(crate) fn count(&self) -> usize {
        self.impossible.len() + self.far.len()
    }

    /// Describes the rows that were refused among so many, one line for each reason. `what` says what became of one row, and of
    /// several.
    pub(crate) fn warnings(&self, of: usize, what: (&str, &str)) -> Vec<String> {
        let line = |rows: &[usize], reason: (&str, &str)| {
            let (reason, what) = if rows.len() == 1 { (reason.0, what.0) } else { (reason.1, what.1) };
            format!("warning: {} of {of} rows {reason}{what}: {}", rows.len(), listed(rows))
        };
        let mut lines = Vec::new();
        if !self.impossible.is_empty() {
            lines.push(line(
                &self.impossible,
                ("has probability 0 under the model", "have probability 0 under the model"),
            ));
        }
        if !self.far.is_empty() {
            let far = "too far from the leaves for float32 (the backend reference takes such rows)";
            lines.push(line(&self.far, (&format!("is {far}"), &format!("are {far}"))));
        }
        lines
    }
}

/// The numbers of the first few rows.
fn listed(rows: &[usize]) -> String {
    const SHOWN: usize = 5;
    let numbers: Vec<String> = rows.iter().take(SHOWN).map(usize::to_string).collect();
    let name = if rows.len() == 1 { "row" } else { "rows" };
    let more = if rows.len() > SHOWN { ", …" } else { "" };
    format!("{name} {}{more} (the first is row 0)", numbers.join(", "))
}

/// Asks `query` about rows, of which the first has the number `first`. It gets all rows at once; where it refuses one of them, it
/// gets each half of the rows by itself, and so on, so that the other rows are answered. Returns the
/// answers in the order of the rows, `None` for each row that was refused.
///
/// # Errors
/// Any error of the query that is not about a single row.
pub(crate) fn ask<T>(
    rows: ArrayView2<f32>,
    first: usize,
    query: &impl Fn(ArrayView2<f32>, usize) -> convpc::Result<T>,
    refused: &mut Refused,
) -> convpc::Result<Vec<Option<T>>> {
    let list = match query(rows, first) {
        Ok(answers) => return Ok(vec![Some(answers)]),
        Err(Error::ImpossibleEvidence { .. }) => &mut refused.impossible,
        Err(Error::TooFar { .. }) => &mut refused.far,
        Err(error) => return Err(error.map_row(|row| row + first)),
    };
    if rows.nrows() == 1 {
        list.push(first);
        return Ok(vec![None]);
    }
    let half = rows.nrows() / 2;
    let (upper, lower) = rows.split_at(Axis(0), half);
    let mut parts = ask(upper, first, query, refused)?;
    parts.extend(ask(lower, first + half, query, refused)?);
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn every_row_but_those_that_are_refused_is_answered_in_order() {
        let rows = Array2::from_shape_fn((13, 1), |(row, _)| row as f32);
        let query = |rows: ArrayView2<f32>, first: usize| {
            assert_eq!(rows[[0, 0]] as usize + 100, first);
            match rows.iter().position(|x| [0.0, 5.0, 12.0].contains(x)) {
                Some(row) if rows[[row, 0]] == 5.0 => Err(Error::TooFar { row }),
                Some(row) => Err(Error::ImpossibleEvidence { row }),
                None => Ok(rows.iter().copied().collect::<Vec<_>>()),
            }
        };
        let mut refused = Refused::default();
        let parts = ask(rows.view(), 100, &query, &mut refused).unwrap();
        let answers: Vec<f32> = parts.into_iter().flat_map(|part| part.unwrap_or_else(|| vec![-1.0])).collect();
        assert_eq!(answers, [-1.0, 1.0, 2.0, 3.0, 4.0, -1.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, -1.0]);
        assert_eq!((refused.impossible, refused.far), (vec![100, 112], vec![105]));
    }

    #[test]
    fn an_error_about_more_than_a_row_ends_the_work() {
        let rows = Array2::zeros((4, 1));
        let query = |_: ArrayView2<f32>, _| Err::<(), _>(Error::NoStatistics);
        assert!(ask(rows.view(), 0, &query, &mut Refused::default()).is_err());
    }

    #[test]
    fn warnings_name_the_first_rows() {
        let refused = Refused { impossible: (3..10).collect(), far: vec![2] };
        insta::assert_snapshot!(refused.warnings(40, (" and was left", " and were left")).join("\n"), @r"
        warning: 7 of 40 rows have probability 0 under the model and were left: rows 3, 4, 5, 6, 7, … (the first is row 0)
        warning: 1 of 40 rows is too far from the leaves for float32 (the backend reference takes such rows) and was left: row 2 (the first is row 0)
        ");
    }
}

//! The classes of the rows that are learned from.

use std::borrow::Cow;

use ndarray::{ArrayView2, Axis};

use super::{batches, train::Options};
use crate::{
    backend::{Accumulated, Executable},
    classes,
    error::{Error, Result},
    structure::Structure,
};

/// One label for each row of the data, and of the validation data.
pub(super) struct Labels<'a> {
    data: &'a [usize],
    /// None where there are no validation data.
    valid: Cow<'a, [usize]>,
}

impl<'a> Labels<'a> {
    /// Labels of so many rows and validation rows; those that are held out of the data have the data's labels.
    pub(super) fn new(
        options: &Options,
        (rows, valid_rows): (usize, usize),
        labels: &'a [usize],
        valid: Option<&'a [usize]>,
    ) -> Result<Self> {
        let fitting = |given, rows| if given == rows { Ok(()) } else { Err(Error::LabelCount { given, rows }) };
        fitting(labels.len(), rows)?;
        let valid = match (options.valid_fraction, valid) {
            (Some(fraction), None) => {
                let (_, held_out) = batches::split(rows, fraction, options.seed);
                held_out.into_iter().map(|row| labels[row]).collect()
            }
            (_, valid) => Cow::from(valid.unwrap_or_default()),
        };
        fitting(valid.len(), valid_rows)?;
        Ok(Labels { data: labels, valid })
    }

    /// An error where a label is no class of the circuit.
    pub(super) fn check(&self, structure: &Structure) -> Result<()> {
        [self.data, &self.valid].iter().try_for_each(|labels| classes::check_labels(structure, labels.len(), labels))
    }

    /// Counts a batch of the rows with these numbers.
    pub(super) fn accumulate(
        &self,
        executable: &mut dyn Executable,
        rows: &[usize],
        batch: ArrayView2<f32>,
    ) -> Result<Accumulated> {
        let labels: Vec<usize> = rows.iter().map(|&row| self.data[row]).collect();
        executable.accumulate_labeled(batch, &labels)
    }

    /// The mean joint log-likelihood of the validation data and their labels, and the share of the rows whose most probable class
    /// is theirs.
    pub(super) fn validate(
        &self,
        executable: &dyn Executable,
        valid: ArrayView2<f32>,
        batch_size: usize,
    ) -> Result<(f64, f64)> {
        let (mut sum, mut right) = (0.0, 0);
        for (batch, labels) in valid.axis_chunks_iter(Axis(0), batch_size).zip(self.valid.chunks(batch_size)) {
            let joint = executable.class_log_joint(batch)?;
            sum += classes::of_labels(joint.view(), labels).sum();
            right += classes::right(joint.view(), labels);
        }
        let rows = valid.nrows() as f64;
        Ok((sum / rows, right as f64 / rows))
    }
}

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result, positive},
    family::Family,
    shape::Shape,
};

/// One data column: where its variable sits on the leaf's grid and what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// `(row · width + column) · colors + color` on the leaf's grid.
    pub slot: usize,
    /// The variable's number in scopes: its slot in the image that the circuit was first built for.
    pub variable: usize,
}

/// Leaf distributions on a pixel grid:
/// `y[f,c,r] = sum over the variables v of pixel f of log p(x_v | theta[v,c,r])`; a missing variable adds 0.
///
/// Parameters have the shape `[rows, channels, repetitions, family.parameters()]`, where each data column has a row of its own,
/// or all pixels share one for each color.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Variables at each pixel.
    pub colors: usize,
    /// Distributions at each variable.
    pub channels: usize,
    /// Independent copies.
    pub repetitions: usize,
    /// The family that all distributions belong to.
    pub family: Family,
    /// The data columns in ascending slot order, where some variables were marginalised; `None` if all are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Vec<Column>>,
    /// Whether all pixels have the same distributions; what is theirs alone is then said by the sums above.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

impl Leaf {
    /// A leaf layer over all variables of an image, with one repetition.
    pub fn new(height: usize, width: usize, colors: usize, family: impl Into<Family>, channels: usize) -> Self {
        Leaf { height, width, colors, channels, repetitions: 1, family: family.into(), kept: None, shared: false }
    }

    /// The same with `repetitions` independent copies.
    pub fn repetitions(self, repetitions: usize) -> Self {
        Leaf { repetitions, ..self }
    }

    /// The same with one set of distributions for all pixels (one a color), or with a set for each.
    pub fn shared(self, shared: bool) -> Self {
        Leaf { shared, ..self }
    }

    /// The number of rows of the parameter tensor.
    pub(crate) fn rows(&self) -> usize {
        if self.shared { self.colors } else { self.columns().len() }
    }

    /// The data columns in order.
    pub fn columns(&self) -> Cow<'_, [Column]> {
        match &self.kept {
            Some(columns) => Cow::Borrowed(columns),
            None => (0..self.height * self.width * self.colors).map(|v| Column { slot: v, variable: v }).collect(),
        }
    }

    pub(crate) fn output(&self) -> Result<Shape> {
        let Leaf { height, width, channels, repetitions, .. } = *self;
        positive("height", height)?;
        positive("width", width)?;
        positive("colors", self.colors)?;
        positive("leaf channels", channels)?;
        positive("repetitions", repetitions)?;
        self.family.check()?;
        let shape = Shape { height, width, channels, repetitions };
        Shape { channels: channels.saturating_mul(self.colors).saturating_mul(self.family.statistics() + 1), ..shape }
            .check_size()?;
        if let Some(columns) = &self.kept {
            let slots = height * width * self.colors;
            let ascending = columns.windows(2).all(|w| w[0].slot < w[1].slot && w[0].variable < w[1].variable);
            if columns.is_empty() || !ascending || columns.last().is_some_and(|c| c.slot >= slots) {
                return Err(Error::Argument {
                    what: "the list of a leaf layer's columns",
                    given: format!("{} columns for {slots} slots", columns.len()),
                    expected: "at least one, slots and variables in ascending order, slots inside the grid".into(),
                });
            }
        }
        Ok(shape)
    }
}

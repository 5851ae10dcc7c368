use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The grid of distributions that a layer puts out: `height × width` features, each with `channels` channels, in
/// `repetitions` independent copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows of the grid.
    pub height: usize,
    /// Columns of the grid.
    pub width: usize,
    /// Parallel distributions at each feature.
    pub channels: usize,
    /// Independent copies of the stack.
    pub repetitions: usize,
}

impl Shape {
    /// The number of features, `height · width`.
    pub fn features(&self) -> usize {
        self.height * self.width
    }

    /// The number of nodes: features × channels × repetitions.
    pub fn nodes(&self) -> usize {
        self.features() * self.channels * self.repetitions
    }

    /// The (row, column) of a feature; features are numbered row-major.
    pub fn position(&self, feature: usize) -> (usize, usize) {
        (feature / self.width, feature % self.width)
    }

    /// An error where the number of nodes does not fit the address space.
    pub(crate) fn check_size(&self) -> Result<()> {
        [self.width, self.channels, self.repetitions, size_of::<f64>()]
            .iter()
            .try_fold(self.height, |n, &k| n.checked_mul(k))
            .filter(|&n| n <= isize::MAX as usize)
            .map(|_| ())
            .ok_or(Error::TooLarge { what: "the number of nodes of a layer" })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}×{}", self.height, self.width, self.channels)?;
        if self.repetitions > 1 {
            write!(f, " ×{}", self.repetitions)?;
        }
        Ok(())
    }
}

/// Rows and columns of nothing around a grid; a padded position contributes a factor of one, in logarithms 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

/// The padding of a product layer: of all repetitions, or of each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Paddings {
    /// All repetitions are padded alike.
    Same(Padding),
    /// One for each repetition, so that their patches are shifted against each other. All make the same padded size.
    Each(Vec<Padding>),
}

impl Default for Paddings {
    fn default() -> Self {
        Paddings::Same(Padding::default())
    }
}

impl From<Padding> for Paddings {
    fn from(padding: Padding) -> Self {
        Paddings::Same(padding)
    }
}

impl From<Vec<Padding>> for Paddings {
    fn from(paddings: Vec<Padding>) -> Self {
        Paddings::Each(paddings)
    }
}

impl Paddings {
    /// The padding of a repetition.
    ///
    /// # Panics
    /// If there is none for it; a [`Structure`](crate::Structure) has checked that there is.
    pub fn of(&self, repetition: usize) -> Padding {
        match self {
            Paddings::Same(padding) => *padding,
            Paddings::Each(paddings) => paddings[repetition],
        }
    }

    /// All that there are: one, or one for each repetition.
    pub fn as_slice(&self) -> &[Padding] {
        match self {
            Paddings::Same(padding) => std::slice::from_ref(padding),
            Paddings::Each(paddings) => paddings,
        }
    }

    /// The same with each padding changed.
    pub(crate) fn map(&self, change: impl Fn(Padding) -> Padding) -> Self {
        match self {
            Paddings::Same(padding) => Paddings::Same(change(*padding)),
            Paddings::Each(paddings) => Paddings::Each(paddings.iter().copied().map(change).collect()),
        }
    }
}

impl fmt::Display for Padding {
    /// Top, left, bottom, right, as in `1,1,2,2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Padding { top, left, bottom, right } = self;
        write!(f, "{top},{left},{bottom},{right}")
    }
}

impl Padding {
    /// Splits a total padding of (rows, columns): top and left get the smaller half.
    pub fn split(rows: usize, columns: usize) -> Self {
        Padding { top: rows / 2, left: columns / 2, bottom: rows - rows / 2, right: columns - columns / 2 }
    }
}

use crate::simd::MOST_WIDTH;

/// The most columns whose log-densities are added to a panel in one pass. Their values and the panel fit the first-level cache.
pub(crate) const MOST_COLUMNS: usize = 16;

/// Values that begin at a line of the cache, so that no register of them is in two lines.
#[derive(Debug)]
#[repr(align(64))]
struct Values([f32; MOST_COLUMNS * MOST_WIDTH]);

/// Columns of the data below one node, for one panel of rows: the leaf of each, and its values.
#[derive(Debug)]
pub(crate) struct Columns {
    width: usize,
    len: usize,
    leaves: [usize; MOST_COLUMNS],
    values: Values,
}

impl Columns {
    /// Forgets all columns; those to come are of panels of `width` rows.
    pub(crate) fn clear(&mut self, width: usize) {
        (self.width, self.len) = (width, 0);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == MOST_COLUMNS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a column with its row of the parameter tensor, and returns where its values belong. There must be room.
    pub(crate) fn push(&mut self, leaf: usize) -> &mut [f32] {
        self.leaves[self.len] = leaf;
        self.len += 1;
        &mut self.values.0[(self.len - 1) * self.width..][..self.width]
    }

    /// The row of the parameter tensor of each column.
    pub(crate) fn leaves(&self) -> &[usize] {
        &self.leaves[..self.len]
    }

    /// The values, `[columns][width]`.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values.0[..self.len * self.width]
    }

    /// Each column's row of the parameter tensor and its values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.leaves().iter().copied().zip(self.values().chunks_exact(self.width))
    }
}

impl Default for Columns {
    fn default() -> Self {
        Columns { width: 0, len: 0, leaves: [0; MOST_COLUMNS], values: Values([0.0; MOST_COLUMNS * MOST_WIDTH]) }
    }
}

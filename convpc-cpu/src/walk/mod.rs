//! The depth-first walk over a tile of rows: up for likelihoods ([`up`]), down for flows ([`down`]).
//!
//! Between the leaves and the first sums values are logarithms; above, they are linear, and products are products. What the
//! values of a row are relative to, its offset, is kept apart in float64, so that flows and choices, which depend on ratios
//! alone, are as exact as if likelihoods were near one.

mod down;
mod inputs;
mod rescue;
mod up;

use std::collections::BTreeMap;

use convpc_core::Semiring;
pub(crate) use inputs::Row;
use ndarray::ArrayView2;

use crate::{
    leaf::{Columns, LeafScratch, Peaks},
    memory::Aligned,
    model::Model,
    plan::Plan,
    product::{Extra, Sums},
};

/// A tile of rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile<'a> {
    /// The rows that there are, at most `n`.
    pub(crate) data: ArrayView2<'a, f32>,
    /// Rows of the tile, whole panels: those beyond the data are missing throughout.
    pub(crate) n: usize,
    /// Rows of a panel.
    pub(crate) width: usize,
    /// True if log-densities are computed in float64 for all rows, not only for those that f32 cannot be trusted with.
    pub(crate) exact: bool,
}

impl<'a> Tile<'a> {
    /// The rows with what fills up the last panel.
    pub(crate) fn new(plan: &Plan, data: ArrayView2<'a, f32>) -> Self {
        let width = plan.width_for(data.nrows());
        Tile { data, n: data.nrows().next_multiple_of(width), width, exact: false }
    }

    /// The rows one by one, for the way up of so few that most of a panel's lanes would have nothing to do.
    pub(crate) fn singly(data: ArrayView2<'a, f32>) -> Self {
        Tile { data, n: data.nrows(), width: 1, exact: false }
    }

    /// The values of a column, from row `first` on.
    fn column(&self, column: usize, first: usize, x: &mut [f32]) {
        let values = self.data.column(column);
        for (row, x) in (first..).zip(x) {
            *x = values.get(row).copied().unwrap_or(f32::NAN);
        }
    }
}

/// A way through the circuit for a tile.
pub(crate) struct Walk<'a, 'd> {
    pub(crate) model: &'a Model,
    pub(crate) tile: Tile<'d>,
    pub(crate) semiring: Semiring,
    pub(crate) work: &'a mut Workspace,
    /// What the way up leaves, where it is to be kept.
    pub(crate) tape: Option<&'a mut Tape>,
    /// What other threads do.
    pub(crate) cut: Option<Cut<'a>>,
}

/// The nodes of the layer where the tree is cut.
pub(crate) struct Cut<'a> {
    pub(crate) sums: &'a [Sums],
    /// Where their flows go, on the way down: `[panel][channel][width]` each.
    pub(crate) flows: &'a mut [Vec<f32>],
}

/// What a share's way up leaves for the way down.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    /// For each layer and node `[panel][channel][width]` of its inputs, then of its sums, both plain; of a mixture of
    /// repetitions the inputs' logarithms `[repetition][channel][row]`.
    layers: Vec<Aligned>,
    /// By layer, start of the node and panel.
    wide: BTreeMap<(usize, usize, usize), Wide>,
}

impl Tape {
    /// Fits the tape to a share and a tile, and forgets what it held.
    pub(crate) fn prepare(&mut self, plan: &Plan, share: usize, n: usize) {
        self.layers.resize_with(plan.tape_len[share].len(), Aligned::default);
        for (layer, len) in self.layers.iter_mut().zip(&plan.tape_len[share]) {
            layer.at_least(len * n);
        }
        self.wide.clear();
    }
}

/// A sum in a panel where f32 does not hold its inputs or outputs side by side: mantissas and exponents.
#[derive(Debug)]
struct Wide {
    inputs: [Vec<f32>; 2],
    outputs: [Vec<f32>; 2],
}

/// What one thread works in.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// For each layer the buffers that a node of it needs while the walk is below it.
    levels: Vec<Level>,
    panel: PanelScratch,
    columns: Columns,
    leaf: LeafScratch,
    transposed: Aligned,
    q: Aligned,
    column: Vec<f32>,
}

#[derive(Debug, Default)]
struct Level {
    product: Aligned,
    extra: Extra,
    flow: Aligned,
}

/// `[channel][width]`, and a few of one channel.
#[derive(Debug, Default)]
struct PanelScratch {
    logarithms: Aligned,
    peaks: Peaks,
    sums: Aligned,
    row: Aligned,
    /// `[channel / 2][width]`
    pairs: Aligned<u32>,
    inputs: [Aligned; 2],
    outputs: [Aligned; 2],
}

impl Workspace {
    fn prepare(&mut self, layers: usize) {
        self.levels.resize_with(layers, Level::default);
    }
}

impl Walk<'_, '_> {
    /// Whether there is no sum below a layer: the values there are logarithms.
    fn has_logarithms_below(&self, layer: usize) -> bool {
        self.model.first_sum >= layer
    }
}

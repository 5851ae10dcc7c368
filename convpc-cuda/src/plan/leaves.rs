//! How the statistics of the leaves are gathered, as data.

use convpc_core::{Form, Structure};

use super::Limits;
use crate::params;

/// Blocks that should find room on a multiprocessor, where each needs much shared memory.
const BLOCKS_PER_MULTIPROCESSOR: usize = 3;

const WARPS: usize = params::CONVPC_THREADS as usize / 32;

/// Bytes of shared memory for a value of a block's histogram.
const VALUE_BYTES: usize = WARPS * params::CONVPC_HISTOGRAM_LANES as usize * size_of::<f32>();

/// The launch that counts what a batch's flow says of the leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafCounts {
    /// The name of the kernel's entry in the PTX.
    pub entry: &'static str,
    /// `[repetition][column]`: the feature, among the inputs of the lowest sum layer, whose flow the column's leaves get.
    pub parents: Vec<u32>,
    /// Data columns.
    pub columns: usize,
    /// Tables: channels that a block takes, a power of two of at most 32.
    pub width: usize,
    /// Tables: values that a block takes.
    pub values: usize,
    /// Tables: ranges of so many values.
    pub ranges: usize,
    /// Blocks of the grid.
    pub blocks: usize,
    /// Bytes of shared memory of a block.
    pub shared_bytes: usize,
}

impl LeafCounts {
    pub(super) fn new(structure: &Structure, parents: Vec<u32>, limits: Limits) -> Self {
        let shape = structure.shape(0);
        let columns = structure.variables();
        let places = columns * shape.repetitions;
        let warps = places * shape.channels.div_ceil(WARPS);
        let each = |entry, blocks| LeafCounts {
            entry,
            parents,
            columns,
            width: 0,
            values: 0,
            ranges: 0,
            blocks,
            shared_bytes: 0,
        };
        match structure.leaf().family.form() {
            Form::LocationScale => each("count_location_scale", warps),
            Form::Natural => each("count_natural", warps),
            Form::Table { size, .. } => {
                // One value more is the flow of all.
                let most = (limits.shared_memory / BLOCKS_PER_MULTIPROCESSOR / VALUE_BYTES).saturating_sub(1).max(1);
                let ranges = size.div_ceil(most);
                let (values, width) = (size.div_ceil(ranges), shape.channels.next_power_of_two().min(32));
                let blocks = places * shape.channels.div_ceil(width) * ranges;
                let shared_bytes = (values + 1) * VALUE_BYTES;
                LeafCounts { width, values, ranges, shared_bytes, ..each("count_table", blocks) }
            }
        }
    }
}

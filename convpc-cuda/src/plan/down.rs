//! The way down as data: flows and counts of every sum layer, the root's first.

use std::fmt;

use convpc_core::{Precision, Structure, WeightMatrices};

use super::{Launch, LeafCounts, Limits, Plan, Purpose, Tile, fuse, stride};
use crate::{
    params::{self, ConvpcNode},
    tree::{self, Input},
};

/// Blocks for each multiprocessor that rows and nodes are divided into where there are enough of them.
const BLOCKS_PER_MULTIPROCESSOR: usize = 4;

/// Tiles of rows that a block adds in f32 before float64 takes over: 64 · 64 terms are off by some 1e-6 at most.
const MOST_ITEMS: usize = 64;

/// How the flow through a layer is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flow {
    /// On tensor cores.
    Product(Precision, Tile),
    /// Through a mixture of repetitions.
    Unmix,
}

impl Flow {
    /// The name of its entry in the PTX.
    pub fn entry(self) -> String {
        match self {
            Flow::Product(precision, tile) => format!("flow_{}_{}", precision.name(), tile.name()),
            Flow::Unmix => "unmix".into(),
        }
    }

    /// Columns of a block.
    pub fn columns(self) -> usize {
        match self {
            Flow::Product(_, tile) => tile.columns(),
            Flow::Unmix => params::CONVPC_THREADS as usize,
        }
    }
}

/// One sum layer on the way down.
#[derive(Debug, Clone, PartialEq)]
pub struct Descent {
    /// Its number in the circuit.
    pub layer: usize,
    /// The sum layer above it, whose inputs' flow is the flow out of this one; none above the highest, which has the root's.
    pub above: Option<usize>,
    /// The kernel for the flow.
    pub flow: Flow,
    /// What the layer reads on the way up.
    pub input: Input,
    /// Features or columns of the input, by node.
    pub list: Vec<u32>,
    /// The nodes, by matrix.
    pub nodes: Vec<ConvpcNode>,
    /// Where the nodes of each matrix begin, and where the last end.
    pub begins: Vec<u32>,
    /// `[repetition][feature]`: the feature of the layer above that reads it; `u32::MAX` where there is none.
    pub parents: Vec<u32>,
    /// The layer's weights.
    pub matrices: WeightMatrices,
    /// Outputs that the operand in shared memory has room for.
    pub at_a_time: usize,
    /// Parts into which rows and nodes are divided for the counts.
    pub parts: usize,
}

impl Descent {
    /// Blocks of the grid that computes the flow.
    pub fn blocks(&self, rows: usize) -> usize {
        rows.div_ceil(self.flow.columns()) * self.nodes.len()
    }

    /// Blocks of the grid that computes the counts; none for a mixture of repetitions.
    pub fn counts_blocks(&self) -> usize {
        match self.flow {
            Flow::Product(..) => weight_tiles(&self.matrices) * self.parts,
            Flow::Unmix => 0,
        }
    }

    /// Bytes of shared memory of a block that computes the flow.
    pub fn shared_bytes(&self) -> usize {
        match self.flow {
            Flow::Product(precision, tile) => shared_bytes(precision, tile, self.at_a_time),
            Flow::Unmix => 0,
        }
    }
}

/// The way down of a batch whose every sum layer was computed.
///
/// ```
/// use convpc_core::{ConvPc, Family, Precision};
/// use convpc_cuda::{Descents, Limits, Plan, Purpose};
/// let structure = ConvPc::new(28, 28, 1, Family::normal()).channels(64).structure()?;
/// let h100 = Limits { multiprocessors: 132, shared_memory: 227 * 1024 };
/// let up = Plan::new(&structure, 4096, Purpose::Learn, Precision::F32, h100);
/// println!("{up}{}", Descents::new(&structure, &up, Precision::F32, h100));
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Descents {
    /// Rows that are computed.
    pub rows: usize,
    /// The sum layers that flow goes through, the highest first: where classes are known from the heads on.
    pub layers: Vec<Descent>,
    /// The leaves, where the flow ends.
    pub leaves: LeafCounts,
}

impl Descents {
    /// Describes the way down from what `up` computes, a plan for [`Purpose::Learn`](super::Purpose::Learn) or
    /// [`Purpose::LearnLabeled`](super::Purpose::LearnLabeled).
    pub fn new(structure: &Structure, up: &Plan, precision: Precision, limits: Limits) -> Self {
        let sums = tree::sums(structure);
        let launch = |layer: usize| up.launches.iter().find(|launch| launch.output == layer);
        let describe = |(index, &layer): (usize, &usize)| {
            let (above, shape) = (sums.get(index + 1).copied(), structure.shape(layer));
            let parents = tree::parents(structure, &sums[index + 1..], shape.features(), shape.repetitions);
            descent(structure, launch(layer)?, above, parents, up.rows, precision, limits)
        };
        let above = usize::from(up.purpose == Purpose::LearnLabeled);
        let layers = sums.iter().enumerate().rev().skip(above).filter_map(describe).collect();
        let parents = tree::parents(structure, &sums, structure.variables(), structure.shape(0).repetitions);
        let leaves = LeafCounts::new(structure, parents, limits);
        Descents { rows: up.rows, layers, leaves }
    }

    /// Values of the largest flow between two layers, for each row.
    pub fn flow_values(&self, structure: &Structure) -> usize {
        let below = |descent: &Descent| {
            let (input, output) = (structure.input_shape(descent.layer), structure.shape(descent.layer));
            input.repetitions * output.features() * input.channels
        };
        // What comes from above the first is there too.
        let above = self.layers.first().map_or(1, |first| {
            let shape = structure.shape(first.layer);
            shape.repetitions * shape.features() * shape.channels
        });
        self.layers.iter().map(below).max().unwrap_or(1).max(above)
    }

    /// Values of the largest layer's parts of counts.
    pub fn part_values(&self) -> usize {
        let values = |descent: &Descent| match descent.flow {
            Flow::Product(..) => descent.parts * descent.matrices.weights(),
            Flow::Unmix => 0,
        };
        self.layers.iter().map(values).max().unwrap_or(0)
    }

    /// Bytes of device memory for flows and counts on their way.
    pub fn bytes(&self, structure: &Structure) -> u64 {
        let flows = 2 * self.flow_values(structure) as u64 * stride(self.rows) as u64;
        (flows + self.part_values() as u64) * size_of::<f32>() as u64
    }
}

impl fmt::Display for Descents {
    /// A line a layer: kernel, nodes, blocks and shared memory; then the blocks and parts of the counts. The leaves are last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rows, {} sum layers down", self.rows, self.layers.len())?;
        for descent in &self.layers {
            writeln!(
                f,
                "{:<18} layer {:<3} {} node(s), {} block(s), {} bytes shared; counts in {} part(s), {} block(s)",
                descent.flow.entry(),
                descent.layer,
                descent.nodes.len(),
                descent.blocks(self.rows),
                descent.shared_bytes(),
                descent.parts,
                descent.counts_blocks(),
            )?;
        }
        let LeafCounts { entry, columns, blocks, shared_bytes, .. } = &self.leaves;
        writeln!(f, "{entry:<18} leaves    {columns} column(s), {blocks} block(s), {shared_bytes} bytes shared")
    }
}

/// Rows of the batch that a block of the counts takes at a time.
pub(crate) fn counts_rows(rows: usize) -> usize {
    let base = params::CONVPC_COUNTS_ROWS_BASE as usize;
    if rows.is_multiple_of(base) { base } else { params::CONVPC_COUNTS_ROWS_SLIM as usize }
}

/// Blocks' worth of weights.
fn weight_tiles(matrices: &WeightMatrices) -> usize {
    let tile = params::CONVPC_COUNTS_TILE as usize;
    let of_matrix = matrices.outputs.div_ceil(tile) * matrices.inputs.div_ceil(tile);
    matrices.groups * matrices.repetitions * of_matrix
}

/// Products of a round of tiles, then the operand; see flow.cu.
fn shared_bytes(precision: Precision, tile: Tile, at_a_time: usize) -> usize {
    let round = match tile {
        Tile::Wide => 128,
        Tile::Base | Tile::Slim | Tile::Fold => 64,
        Tile::Thin => 16,
    };
    (round + fuse::operand_rows(precision, at_a_time)) * fuse::leading(tile) * size_of::<f32>()
}

/// The tile for a flow, and how many outputs are staged at a time.
fn choose(rows: usize, matrices: &WeightMatrices, precision: Precision, limits: Limits) -> (Tile, usize) {
    let step = params::CONVPC_TILE_OUTPUTS as usize;
    let all = matrices.outputs.next_multiple_of(step);
    let preferences = fuse::preferences(rows, matrices.inputs);
    let fits = |tile: Tile, at_a_time| shared_bytes(precision, tile, at_a_time) <= limits.shared_memory;
    if let Some(&tile) = preferences.iter().find(|&&tile| fits(tile, all)) {
        return (tile, all);
    }
    // The last takes the least memory; what it has no room for comes in several portions, at the least one step.
    let tile = preferences[preferences.len() - 1];
    let at_a_time = (1..all / step).rev().map(|steps| steps * step).find(|&n| fits(tile, n));
    (tile, at_a_time.unwrap_or(step))
}

fn descent(
    structure: &Structure,
    launch: &Launch,
    above: Option<usize>,
    parents: Vec<u32>,
    rows: usize,
    precision: Precision,
    limits: Limits,
) -> Option<Descent> {
    let layer = launch.output;
    let matrices = WeightMatrices::new(structure, layer)?;
    let mut nodes: Vec<ConvpcNode> = launch.nodes.iter().map(|n| own_inputs(launch, &matrices, n)).collect();
    let matrix = |n: &ConvpcNode| n.group as usize * matrices.repetitions + n.repetition as usize;
    nodes.sort_by_key(matrix);
    let begin = |at: usize| nodes.partition_point(|n| matrix(n) < at) as u32;
    let begins: Vec<u32> = (0..=matrices.groups * matrices.repetitions).map(begin).collect();
    let (flow, at_a_time) = if matrices.mixes_repetitions() {
        (Flow::Unmix, 0)
    } else {
        let (tile, at_a_time) = choose(rows, &matrices, precision, limits);
        (Flow::Product(precision, tile), at_a_time)
    };
    let largest = begins.windows(2).map(|g| (g[1] - g[0]) as usize).max().unwrap_or(0);
    let items = largest * rows.div_ceil(counts_rows(rows));
    let wanted = (BLOCKS_PER_MULTIPROCESSOR * limits.multiprocessors).div_ceil(weight_tiles(&matrices));
    let parts = wanted.min(items).max(items.div_ceil(MOST_ITEMS)).max(1);
    let (input, list) = (launch.input, launch.list.clone());
    Some(Descent { layer, above, flow, input, list, nodes, begins, parents, matrices, at_a_time, parts })
}

/// A node with the range of the list that it reads, whatever the launch's kernel.
fn own_inputs(launch: &Launch, matrices: &WeightMatrices, n: &ConvpcNode) -> ConvpcNode {
    let (first, count) = launch.inputs_of(n);
    ConvpcNode { group: matrices.group(n.feature as usize) as u32, first, count, ..*n }
}

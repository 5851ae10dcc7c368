//! Which levels share a launch, and how its blocks divide the work.

use convpc_core::{Layer, Precision, Structure, WeightMatrices};

use super::{Kernel, Launch, Level, Limits, Planner, SLIM_ROWS, Tile};
use crate::{
    params::{self, ConvpcNode, ConvpcStep},
    tree::{self, Input},
};

/// Levels of a launch: with four children a node the lowest of five already holds 99.6 % of the work.
const MOST_LEVELS: usize = 5;

/// Blocks for each multiprocessor below which levels are rather launched one by one: the device should be full.
const BLOCKS_PER_MULTIPROCESSOR: usize = 2;

/// Blocks of a multiprocessor for which there are registers (kernels/ptxas.md).
const BLOCKS_OF_REGISTERS: usize = 4;

/// Outputs up to which a thread a row is faster than a tensor-core tile, most of which would be empty.
const FEW_OUTPUTS: usize = params::CONVPC_ROWS_OUTPUTS as usize;

/// Distance between rows of the operand and of the accumulators, in values.
pub(super) fn leading(tile: Tile) -> usize {
    tile.columns() + params::CONVPC_OPERAND_PADDING as usize
}

/// Operand, accumulators, then the offsets of each level but the last, in float64, maxima, and partial maxima or, later, marks; see
/// lse_fused.cu.
pub(super) fn shared_bytes(tile: Tile, (operand, accumulators): (usize, usize), levels: usize) -> usize {
    let rest = (2 * (levels - 1) + 1) * tile.columns() + tile.marks().max(params::CONVPC_THREADS as usize);
    (operand + accumulators + rest) * size_of::<f32>()
}

/// Operand rows for a number of inputs: a step is 8 values of tf32 or 8 pairs of bf16.
pub(super) fn operand_rows(precision: Precision, inputs: usize) -> usize {
    let values = if precision == Precision::Bf16 { inputs.div_ceil(2) } else { inputs };
    values.next_multiple_of(params::CONVPC_STEP_ROWS as usize)
}

/// Values of (operand, accumulators).
fn shared(precision: Precision, tile: Tile, levels: &[WeightMatrices]) -> (usize, usize) {
    let operand = levels.iter().map(|m| operand_rows(precision, m.inputs)).max().unwrap_or(0);
    let accumulated: usize = levels[..levels.len() - 1].iter().map(|m| m.outputs).sum();
    (operand * leading(tile), accumulated * leading(tile))
}

/// Whether a layer is computed on tensor cores.
fn suits(structure: &Structure, layer: usize) -> Option<WeightMatrices> {
    let matrices = WeightMatrices::new(structure, layer)?;
    let sum = matches!(structure.layers()[layer], Layer::Sum(_) | Layer::SumConv(_));
    (sum && matrices.outputs > FEW_OUTPUTS).then_some(matrices)
}

/// Whether all that is computed on tensor cores has weights that patches share.
pub(super) fn shares_weights(structure: &Structure) -> bool {
    let mut sums = (0..structure.layers().len()).filter(|&layer| suits(structure, layer).is_some()).peekable();
    sums.peek().is_some() && sums.all(|layer| matches!(structure.layers()[layer], Layer::SumConv(_)))
}

/// Tiles in the order in which they would be liked for these rows and outputs. The last takes the least shared memory.
pub(super) fn preferences(rows: usize, most: usize) -> &'static [Tile] {
    match (rows, most) {
        (0..=SLIM_ROWS, _) => &[Tile::Slim],
        (_, 0..=16) => &[Tile::Thin, Tile::Slim],
        (128.., 128..) => &[Tile::Wide, Tile::Base, Tile::Slim],
        _ => &[Tile::Base, Tile::Slim],
    }
}

fn choose(rows: usize, precision: Precision, levels: &[WeightMatrices], limits: Limits) -> Option<Tile> {
    // Several levels are worth less than as many blocks on a multiprocessor as registers leave room for, of which some compute
    // while others wait.
    let share = if levels.len() > 1 { BLOCKS_OF_REGISTERS } else { 1 };
    let fits = |tile: &Tile| {
        shared_bytes(*tile, shared(precision, *tile, levels), levels.len()) <= limits.shared_memory / share
    };
    let first = if levels.len() > 1 { 1 } else { usize::MAX };
    let most = levels.iter().map(|m| m.outputs).max().unwrap_or(0);
    preferences(rows, most).iter().take(first).copied().find(fits)
}

impl Planner<'_> {
    /// The longest launch that begins with the first of `sums`, where tensor cores serve it.
    pub(super) fn fused(&self, input: Input, sums: &[usize]) -> Option<Launch> {
        let suits = |layer: &usize| suits(self.structure, *layer);
        let levels: Vec<WeightMatrices> = sums.iter().take(MOST_LEVELS).map_while(suits).collect();
        if self.rows < Tile::Fold.columns() {
            let fits = choose(self.rows, self.precision, levels.get(..1)?, self.limits).is_some();
            return fits.then(|| self.fold(input, sums[0], &levels[0]));
        }
        let choice = (1..=levels.len()).rev().find_map(|count| {
            let tile = choose(self.rows, self.precision, &levels[..count], self.limits)?;
            let nodes = tree::nodes(self.structure, sums[count - 1]).count();
            let blocks = self.rows.div_ceil(tile.columns()) * nodes;
            let full = blocks >= BLOCKS_PER_MULTIPROCESSOR * self.limits.multiprocessors;
            (count == 1 || full).then_some((count, tile))
        });
        let (count, tile) = choice?;
        Some(self.fuse(input, &sums[..count], &levels[..count], tile))
    }

    fn fuse(&self, input: Input, sums: &[usize], levels: &[WeightMatrices], tile: Tile) -> Launch {
        let mut to = 0;
        let mut described = Vec::new();
        for (at, (&layer, m)) in sums.iter().zip(levels).enumerate() {
            let from = described.last().map_or(0, |below: &Level| below.to);
            described.push(Level { layer, inputs: m.inputs, outputs: m.outputs, from, to: 0 });
            if at + 1 < sums.len() {
                described[at].to = to;
                to += m.outputs * leading(tile);
            }
        }
        let mut launch = Launch {
            kernel: Kernel::Fused(self.precision, tile),
            input,
            output: sums[sums.len() - 1],
            levels: described,
            list: vec![],
            steps: vec![],
            nodes: vec![],
            fold: 1,
            shared: shared(self.precision, tile, levels),
        };
        launch.nodes = self.nodes(launch.output, |place| {
            let first = launch.steps.len();
            self.visit(&mut launch, sums, levels, sums.len() - 1, place, true);
            (0, first, launch.steps.len() - first)
        });
        launch
    }

    /// One level whose nodes share weights: as many of a group as fill a block.
    fn fold(&self, input: Input, layer: usize, matrices: &WeightMatrices) -> Launch {
        let one = std::slice::from_ref(matrices);
        let mut launch = self.fuse(input, &[layer], one, Tile::Fold);
        launch.fold = Tile::Fold.columns() / self.rows;
        let mut nodes = Vec::new();
        for (repetition, group) in (0..matrices.repetitions).flat_map(|r| (0..matrices.groups).map(move |g| (r, g))) {
            let has_matrix =
                |n: &&ConvpcNode| (n.repetition as usize, matrices.group(n.feature as usize)) == (repetition, group);
            let members: Vec<ConvpcNode> = launch.nodes.iter().filter(has_matrix).copied().collect();
            for block in members.chunks(launch.fold) {
                nodes.extend(block);
                let filler = ConvpcNode { feature: params::CONVPC_NO_FEATURE, ..block[0] };
                nodes.extend(std::iter::repeat_n(filler, launch.fold - block.len()));
            }
        }
        launch.nodes = nodes;
        launch
    }

    /// Appends the steps of a subtree, children first.
    fn visit(
        &self,
        launch: &mut Launch,
        sums: &[usize],
        levels: &[WeightMatrices],
        level: usize,
        (repetition, feature): (usize, usize),
        fresh: bool,
    ) {
        let (mut first, mut count) = (0, 0);
        if level == 0 {
            let inputs = self.inputs(sums[0], (repetition, feature), launch.input);
            (first, count) = (launch.list.len(), inputs.len());
            launch.list.extend(inputs.into_iter().map(|i| i as u32));
        } else {
            let children = tree::children(self.structure, sums[level], feature, repetition);
            for (at, child) in children.into_iter().enumerate() {
                self.visit(launch, sums, levels, level - 1, (repetition, child), at == 0);
            }
        }
        launch.steps.push(ConvpcStep {
            level: level as u32,
            group: levels[level].group(feature) as u32,
            first: first as u32,
            count: count as u32,
            fresh: u32::from(fresh),
        });
    }
}

//! What is launched for a batch, as data: described without a device, then executed on one.

mod down;
mod fuse;
mod kernel;
mod leaves;

use std::fmt;

pub(crate) use down::counts_rows;
pub use down::{Descent, Descents, Flow};
pub use kernel::{Kernel, Tile};
pub use leaves::LeafCounts;

use convpc_core::{Layer, Precision, Semiring, Structure, WeightMatrices};

use crate::{
    params::{self, ConvpcNode, ConvpcStep},
    tree::{self, Input},
};

/// What a plan needs to know of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of shared memory that a block can have.
    pub shared_memory: usize,
}

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The root alone: levels are fused, products are never written to memory.
    Root,
    /// The outputs of every layer.
    EveryLayer(Semiring),
    /// The outputs of every sum layer, products folded into the sums: what choices on the way down are made from.
    Tape(Semiring),
    /// The same with the largest inputs of the sums, which flows need besides.
    Learn,
    /// The same where the rows' classes are known: the way down begins at the heads.
    LearnLabeled,
}

impl Purpose {
    /// What the sums do with their inputs.
    pub fn semiring(self) -> Semiring {
        match self {
            Purpose::Root | Purpose::Learn | Purpose::LearnLabeled => Semiring::SumProduct,
            Purpose::EveryLayer(semiring) | Purpose::Tape(semiring) => semiring,
        }
    }

    /// Whether there is a way down for flows, for which sums leave their largest inputs.
    pub fn has_flows(self) -> bool {
        matches!(self, Purpose::Learn | Purpose::LearnLabeled)
    }
}

/// A sum layer of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Its number in the circuit.
    pub layer: usize,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Where its inputs begin in the accumulators; level 0 has none there.
    pub from: usize,
    /// Where its outputs are added in the accumulators; the last level's go to memory.
    pub to: usize,
}

/// One launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// The kernel.
    pub kernel: Kernel,
    /// What it reads.
    pub input: Input,
    /// The layer whose outputs it writes.
    pub output: usize,
    /// The sum layers that it computes, lowest first; none for a gather.
    pub levels: Vec<Level>,
    /// Features or columns of the input, by node.
    pub list: Vec<u32>,
    /// Fused: the sums of each output node, children first.
    pub steps: Vec<ConvpcStep>,
    /// The output nodes.
    pub nodes: Vec<ConvpcNode>,
    /// Nodes of a block whose rows lie side by side; 1 but for [`Tile::Fold`].
    pub fold: usize,
    /// Values of the operand and of the accumulators in shared memory.
    pub shared: (usize, usize),
}

impl Launch {
    /// Tiles of rows that a batch of `rows` has.
    pub fn row_tiles(&self, rows: usize) -> usize {
        rows.div_ceil(self.kernel.columns() / self.fold)
    }

    /// Blocks of the grid.
    pub fn blocks(&self, rows: usize) -> usize {
        self.row_tiles(rows) * (self.nodes.len() / self.fold)
    }

    /// The range of the list that a node of a launch of one level reads.
    fn inputs_of(&self, node: &ConvpcNode) -> (u32, u32) {
        match self.steps.get(node.first as usize) {
            Some(step) => (step.first, step.count),
            None => (node.first, node.count),
        }
    }

    /// Bytes of shared memory of a block.
    pub fn shared_bytes(&self) -> usize {
        match self.kernel {
            Kernel::Fused(_, tile) => fuse::shared_bytes(tile, self.shared, self.levels.len()),
            _ => 0,
        }
    }
}

/// All launches for a batch.
///
/// ```
/// use convpc_core::{ConvPc, Family, Precision};
/// use convpc_cuda::{Limits, Plan, Purpose};
/// let structure = ConvPc::new(28, 28, 1, Family::normal()).channels(64).structure()?;
/// let h100 = Limits { multiprocessors: 132, shared_memory: 227 * 1024 };
/// println!("{}", Plan::new(&structure, 4096, Purpose::Root, Precision::F32, h100));
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it is for.
    pub purpose: Purpose,
    /// Rows that are computed: those of the batch, filled up to a tile.
    pub rows: usize,
    /// In order.
    pub launches: Vec<Launch>,
}

impl Plan {
    /// Describes the upward pass of a batch.
    pub fn new(structure: &Structure, rows: usize, purpose: Purpose, precision: Precision, limits: Limits) -> Self {
        let rows = computed_rows(structure, rows, purpose);
        let planner = Planner { structure, rows, precision, limits };
        let launches = match purpose {
            Purpose::Root => planner.root(),
            Purpose::EveryLayer(semiring) => planner.every_layer(semiring),
            Purpose::Tape(_) | Purpose::Learn | Purpose::LearnLabeled => planner.tape(purpose.semiring()),
        };
        Plan { purpose, rows, launches }
    }

    /// The distance between channels in memory: rows filled up to every tile.
    pub fn stride(&self) -> usize {
        stride(self.rows)
    }

    /// Words written for each row: activations, offsets of two words each, and maxima.
    pub fn values_per_row(&self, structure: &Structure) -> usize {
        let besides = 2 + usize::from(self.purpose.has_flows());
        let values = |launch: &Launch| {
            let shape = structure.shape(launch.output);
            shape.repetitions * shape.features() * (shape.channels + besides)
        };
        self.launches.iter().map(values).sum()
    }
}

/// Rows of a batch filled up to whole tiles: those of the few-row tiles, or of all the others. What goes down again is not
/// folded.
pub(crate) fn computed_rows(structure: &Structure, rows: usize, purpose: Purpose) -> usize {
    let folds = matches!(purpose, Purpose::Root | Purpose::EveryLayer(_));
    if folds && rows <= Tile::Fold.columns() / 2 && fuse::shares_weights(structure) {
        rows.next_power_of_two()
    } else if rows <= SLIM_ROWS {
        rows.next_multiple_of(Tile::Slim.columns())
    } else if rows <= Tile::Base.columns() {
        Tile::Base.columns()
    } else {
        stride(rows)
    }
}

/// Rows up to which tiles of few rows serve best.
pub(crate) const SLIM_ROWS: usize = 32;

/// Rows filled up to every tile.
pub(crate) fn stride(rows: usize) -> usize {
    rows.next_multiple_of(params::CONVPC_ROW_MULTIPLE as usize)
}

impl fmt::Display for Plan {
    /// A line a launch: kernel, layers, nodes, blocks and shared memory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rows, {} launches", self.rows, self.launches.len())?;
        for launch in &self.launches {
            let input = match launch.input {
                Input::Data => "data".to_string(),
                Input::Layer(layer) => format!("layer {layer}"),
            };
            writeln!(
                f,
                "{:<22} {input:>8} → layer {:<3} {} sum level(s), {} node(s), {} block(s), {} bytes shared",
                launch.kernel.entry(),
                launch.output,
                launch.levels.len(),
                launch.nodes.len(),
                launch.blocks(self.rows),
                launch.shared_bytes()
            )?;
        }
        Ok(())
    }
}

struct Planner<'a> {
    structure: &'a Structure,
    rows: usize,
    precision: Precision,
    limits: Limits,
}

impl Planner<'_> {
    fn root(&self) -> Vec<Launch> {
        let sums = tree::sums(self.structure);
        let (mut launches, mut at) = (Vec::new(), 0);
        while at < sums.len() {
            let input = tree::input_of(self.structure, sums[at]);
            match self.fused(input, &sums[at..]) {
                Some(launch) => {
                    at += launch.levels.len();
                    launches.push(launch);
                }
                None => {
                    launches.push(self.rows_of(sums[at], input, Semiring::SumProduct));
                    at += 1;
                }
            }
        }
        launches.extend(self.top());
        launches
    }

    /// The root, where it is no sum.
    fn top(&self) -> Option<Launch> {
        let top = self.structure.layers().len() - 1;
        let is_sum = tree::sums(self.structure).last() == Some(&top);
        (!is_sum).then(|| self.gather(top, tree::input_of(self.structure, top), tree::children))
    }

    fn tape(&self, semiring: Semiring) -> Vec<Launch> {
        let sums = tree::sums(self.structure).into_iter();
        let one = |layer| self.sum(layer, tree::input_of(self.structure, layer), semiring);
        sums.map(one).chain(self.top()).collect()
    }

    /// One sum layer.
    fn sum(&self, layer: usize, input: Input, semiring: Semiring) -> Launch {
        let fused = (semiring == Semiring::SumProduct).then(|| self.fused(input, &[layer])).flatten();
        fused.unwrap_or_else(|| self.rows_of(layer, input, semiring))
    }

    fn every_layer(&self, semiring: Semiring) -> Vec<Launch> {
        let one = |layer: usize| {
            let input = if layer == 0 { Input::Data } else { Input::Layer(layer - 1) };
            match &self.structure.layers()[layer] {
                Layer::Leaf(_) => self.gather(layer, input, tree::children),
                Layer::ProdConv(_) => self.gather(layer, input, |s, layer, f, r| s.children(layer, f, r).collect()),
                _ => self.sum(layer, input, semiring),
            }
        };
        (0..self.structure.layers().len()).map(one).collect()
    }

    /// The children of a sum node in a launch's input.
    fn inputs(&self, layer: usize, (repetition, feature): (usize, usize), input: Input) -> Vec<usize> {
        match input {
            Input::Layer(below) if below + 1 == layer => vec![feature],
            _ => tree::children(self.structure, layer, feature, repetition),
        }
    }

    fn gather(
        &self,
        layer: usize,
        input: Input,
        children: impl Fn(&Structure, usize, usize, usize) -> Vec<usize>,
    ) -> Launch {
        let of = |(repetition, feature)| (0, children(self.structure, layer, feature, repetition));
        self.one_level(Kernel::Gather, layer, input, vec![], of)
    }

    fn rows_of(&self, layer: usize, input: Input, semiring: Semiring) -> Launch {
        let matrices = WeightMatrices::new(self.structure, layer).expect("a sum-like layer");
        let kernel = match (matrices.mixes_repetitions(), semiring) {
            (false, Semiring::SumProduct) => Kernel::LseRows,
            (false, Semiring::MaxProduct) => Kernel::MaxRows,
            (true, Semiring::SumProduct) => Kernel::Mix,
            (true, Semiring::MaxProduct) => Kernel::MixMax,
        };
        let level = Level { layer, inputs: matrices.inputs, outputs: matrices.outputs, from: 0, to: 0 };
        let of = |place: (usize, usize)| (matrices.group(place.1), self.inputs(layer, place, input));
        self.one_level(kernel, layer, input, vec![level], of)
    }

    fn one_level(
        &self,
        kernel: Kernel,
        output: usize,
        input: Input,
        levels: Vec<Level>,
        of: impl Fn((usize, usize)) -> (usize, Vec<usize>),
    ) -> Launch {
        let mut list = Vec::new();
        let nodes = self.nodes(output, |place| {
            let ((group, inputs), first) = (of(place), list.len());
            list.extend(inputs.into_iter().map(|i| i as u32));
            (group, first, list.len() - first)
        });
        Launch { kernel, input, output, levels, list, steps: vec![], nodes, fold: 1, shared: (0, 0) }
    }

    /// The nodes of a layer, given the group, first and count of each (repetition, feature). Where repetitions are alike they
    /// have the ranges of the first.
    fn nodes(&self, layer: usize, mut of: impl FnMut((usize, usize)) -> (usize, usize, usize)) -> Vec<ConvpcNode> {
        let mut nodes: Vec<ConvpcNode> = Vec::new();
        let (alike, of_first) = (!self.structure.is_shifted(), self.structure.occupied(layer, 0).count());
        for (at, (repetition, feature)) in tree::nodes(self.structure, layer).enumerate() {
            let (feature, repetition) = (feature as u32, repetition as u32);
            nodes.push(if alike && repetition > 0 {
                ConvpcNode { repetition, ..nodes[at % of_first] }
            } else {
                let (group, first, count) = of((repetition as usize, feature as usize));
                ConvpcNode { feature, repetition, group: group as u32, first: first as u32, count: count as u32 }
            });
        }
        nodes
    }
}

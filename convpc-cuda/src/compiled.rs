//! A plan with addresses: what is left is to launch it.

use std::collections::HashMap;

use convpc_core::{Semiring, Structure};

use crate::{
    driver::{Buffer, Need, Queue},
    error::CudaError,
    model::{Model, Weights},
    params::{self, ConvpcFused, ConvpcLevel, ConvpcNode, ConvpcOutput, ConvpcRows, ConvpcSource, ConvpcStep},
    plan::{Kernel, Launch, Plan},
    tree::Input,
};

/// The outputs of a layer in device memory.
pub(crate) struct Outputs {
    /// `[repetition][feature][channel][row]`
    pub(crate) values: Buffer<f32>,
    /// `[repetition][feature][row]`
    pub(crate) offsets: Buffer<f32>,
    /// `[repetition][feature][row]`; only where there is a way down.
    pub(crate) maxima: Option<Buffer<f32>>,
}

impl Outputs {
    /// Values in memory.
    pub(crate) fn len(&self) -> usize {
        self.values.len() + self.offsets.len() + self.maxima.as_ref().map_or(0, Buffer::len)
    }
}

/// What the launches of a plan read and write.
pub(crate) struct Memory<'a> {
    pub(crate) model: &'a Model,
    /// `[column][row]`
    pub(crate) data: &'a Buffer<f32>,
    pub(crate) outputs: &'a HashMap<usize, Outputs>,
}

enum Arguments {
    Fused(ConvpcFused),
    Rows(ConvpcRows),
}

struct Prepared {
    entry: String,
    arguments: Arguments,
    blocks: usize,
    shared_bytes: usize,
    /// What the arguments point to.
    _tables: [Buffer<u32>; 4],
}

/// A plan's launches with their arguments.
pub(crate) struct Compiled {
    launches: Vec<Prepared>,
}

impl Compiled {
    pub(crate) fn new(queue: &Queue, structure: &Structure, plan: &Plan, memory: &Memory) -> Result<Self, CudaError> {
        let stride = u32::try_from(plan.stride()).map_err(|_| CudaError::TooLarge { what: "the number of rows" })?;
        let prepare = |launch: &Launch| prepare(queue, structure, launch, plan, stride, memory);
        Ok(Compiled { launches: plan.launches.iter().map(prepare).collect::<Result<_, _>>()? })
    }

    pub(crate) fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        for Prepared { entry, arguments, blocks, shared_bytes, .. } in &self.launches {
            match arguments {
                Arguments::Fused(a) => queue.launch(entry, *a, *blocks, *shared_bytes)?,
                Arguments::Rows(a) => queue.launch(entry, *a, *blocks, *shared_bytes)?,
            }
        }
        Ok(())
    }
}

fn prepare(
    queue: &Queue,
    structure: &Structure,
    launch: &Launch,
    plan: &Plan,
    stride: u32,
    memory: &Memory,
) -> Result<Prepared, CudaError> {
    let rows = plan.rows;
    let weights = |layer: usize| memory.model.sums[layer].as_ref().expect("a level is a sum-like layer");
    let nodes = launch.nodes.iter().flat_map(|n: &ConvpcNode| [n.feature, n.group, n.first, n.count]);
    let steps = launch.steps.iter().flat_map(|s: &ConvpcStep| [s.level, s.group, s.first, s.count, s.fresh]);
    let levels = launch.levels.iter().flat_map(|level| level_words(level, weights(level.layer)));
    let tables = [
        queue.upload_new(&launch.list, Need::Circuit)?,
        queue.upload_new(&nodes.collect::<Vec<u32>>(), Need::Circuit)?,
        queue.upload_new(&steps.collect::<Vec<u32>>(), Need::Circuit)?,
        queue.upload_new(&levels.collect::<Vec<u32>>(), Need::Circuit)?,
    ];
    let [list, nodes, steps, levels] = tables.each_ref().map(Buffer::address);
    let source = source(structure, launch.input, stride, plan.purpose.semiring(), memory, list);
    let output = output(structure, launch, plan.purpose.keeps_maxima(), memory);
    let (node_count, row_tiles) = ((launch.nodes.len() / launch.fold) as u32, launch.row_tiles(rows) as u32);
    let linear = launch.levels.first().map_or(0, |level| weights(level.layer).linear.address());
    let arguments = match launch.kernel {
        Kernel::Fused(..) => Arguments::Fused(ConvpcFused {
            source,
            output,
            levels,
            steps,
            nodes,
            node_count,
            fold: launch.fold as u32,
            level_count: launch.levels.len() as u32,
            row_tiles,
            operand: launch.shared.0 as u32,
            accumulators: launch.shared.1 as u32,
        }),
        _ => Arguments::Rows(ConvpcRows { source, output, nodes, linear, node_count, row_tiles, rows: rows as u32 }),
    };
    Ok(Prepared {
        entry: launch.kernel.entry(),
        arguments,
        blocks: launch.blocks(rows),
        shared_bytes: launch.shared_bytes(),
        _tables: tables,
    })
}

/// A `ConvpcLevel` as the words it consists of.
fn level_words(level: &crate::plan::Level, weights: &Weights) -> Vec<u32> {
    let ConvpcLevel { packed, linear, inputs, outputs, from, to } = ConvpcLevel {
        packed: weights.packed.as_ref().map_or(0, Buffer::address),
        linear: weights.linear.address(),
        inputs: level.inputs as u32,
        outputs: level.outputs as u32,
        from: level.from as u32,
        to: level.to as u32,
    };
    let halves = |address: u64| [address as u32, (address >> 32) as u32];
    [halves(packed), halves(linear), [inputs, outputs], [from, to]].concat()
}

/// The inputs of a node: what a launch reads on the way up, and the way down reads again.
pub(crate) fn source(
    structure: &Structure,
    input: Input,
    rows: u32,
    semiring: Semiring,
    memory: &Memory,
    list: u64,
) -> ConvpcSource {
    let below = match input {
        Input::Data => 0,
        Input::Layer(layer) => layer,
    };
    let shape = structure.shape(below);
    let common = ConvpcSource {
        list,
        channels: shape.channels as u32,
        features: shape.features() as u32,
        repetitions: shape.repetitions as u32,
        rows,
        max_product: u32::from(semiring == Semiring::MaxProduct),
        ..ConvpcSource::default()
    };
    match input {
        Input::Data => ConvpcSource {
            data: memory.data.address(),
            leaves: memory.model.leaves.address(),
            sufficient: memory.model.sufficient.as_ref().map_or(0, Buffer::address),
            kind: Model::source_kind(structure),
            leaf_stride: memory.model.leaf_stride as u32,
            statistics: structure.leaf().family.statistics() as u32,
            ..common
        },
        Input::Layer(layer) => ConvpcSource {
            values: memory.outputs[&layer].values.address(),
            offsets: memory.outputs[&layer].offsets.address(),
            kind: params::CONVPC_SOURCE_NODES,
            ..common
        },
    }
}

fn output(structure: &Structure, launch: &Launch, keeps_maxima: bool, memory: &Memory) -> ConvpcOutput {
    let (shape, outputs) = (structure.shape(launch.output), &memory.outputs[&launch.output]);
    ConvpcOutput {
        values: outputs.values.address(),
        offsets: outputs.offsets.address(),
        maxima: outputs.maxima.as_ref().filter(|_| keeps_maxima).map_or(0, Buffer::address),
        features: shape.features() as u32,
        channels: shape.channels as u32,
    }
}

//! Plans with addresses: what is left is to launch them.

mod down;
mod leaves;
mod up;

use std::collections::HashMap;

use convpc_core::{Semiring, Structure};

pub(crate) use down::Way;

use crate::{
    driver::{Buffer, Graph, Need, Queue},
    error::CudaError,
    model::{Model, Weights},
    params::{
        self, ConvpcAddParts, ConvpcAddRows, ConvpcCounts, ConvpcDown, ConvpcFoldLeaves, ConvpcFused, ConvpcLeafCounts,
        ConvpcNode, ConvpcOutput, ConvpcRows, ConvpcSource,
    },
    tree::Input,
};

/// The outputs of a layer in device memory.
pub(crate) struct Outputs {
    /// `[repetition][feature][channel][row]`
    pub(crate) values: Buffer<f32>,
    /// `[repetition][feature][row]`
    pub(crate) offsets: Buffer<f64>,
    /// `[repetition][feature][row]`; only where there is a way down.
    pub(crate) maxima: Option<Buffer<f32>>,
}

impl Outputs {
    /// Words of memory.
    pub(crate) fn len(&self) -> usize {
        self.values.len() + 2 * self.offsets.len() + self.maxima.as_ref().map_or(0, Buffer::len)
    }
}

/// What the launches of a plan read and write.
pub(crate) struct Memory<'a> {
    pub(crate) model: &'a Model,
    /// `[column][row]`
    pub(crate) data: &'a Buffer<f32>,
    pub(crate) outputs: &'a HashMap<usize, Outputs>,
}

impl Memory<'_> {
    fn weights(&self, layer: usize) -> &Weights {
        self.model.sums[layer].as_ref().expect("a level is a sum-like layer")
    }
}

#[derive(Clone, Copy)]
enum Arguments {
    Fused(ConvpcFused),
    Rows(ConvpcRows),
    Down(ConvpcDown),
    Counts(ConvpcCounts),
    AddParts(ConvpcAddParts),
    AddRows(ConvpcAddRows),
    Leaves(ConvpcLeafCounts),
    Fold(ConvpcFoldLeaves),
}

struct Prepared {
    entry: String,
    arguments: Arguments,
    blocks: usize,
    shared_bytes: usize,
}

/// Launches with their arguments.
pub(crate) struct Compiled {
    launches: Vec<Prepared>,
    /// What the arguments point to.
    _tables: Vec<Buffer<u32>>,
}

impl Compiled {
    pub(crate) fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        for Prepared { entry, arguments, blocks, shared_bytes } in &self.launches {
            match *arguments {
                Arguments::Fused(a) => queue.launch(entry, a, *blocks, *shared_bytes)?,
                Arguments::Rows(a) => queue.launch(entry, a, *blocks, *shared_bytes)?,
                Arguments::Down(a) => queue.launch(entry, a, *blocks, *shared_bytes)?,
                Arguments::Counts(a) => queue.launch(entry, a, *blocks, *shared_bytes)?,
                Arguments::AddParts(a) => queue.launch(entry, a, *blocks, *shared_bytes)?,
                Arguments::AddRows(a) => queue.launch(entry, a, *blocks, *shared_bytes)?,
                Arguments::Leaves(a) => queue.launch(entry, a, *blocks, *shared_bytes)?,
                Arguments::Fold(a) => queue.launch(entry, a, *blocks, *shared_bytes)?,
            }
        }
        Ok(())
    }
}

/// Launches that are recorded as a graph when a slot first needs them.
pub(crate) struct Recorded {
    pub(crate) compiled: Compiled,
    graphs: [Option<Graph>; 2],
}

impl Recorded {
    pub(crate) fn new(compiled: Compiled) -> Self {
        Recorded { compiled, graphs: [None, None] }
    }

    pub(crate) fn launch(&mut self, queue: &Queue, slot: usize) -> Result<(), CudaError> {
        let Recorded { compiled, graphs } = self;
        if graphs[slot].is_none() {
            graphs[slot] = Some(queue.capture(|| compiled.launch(queue))?);
        }
        graphs[slot].as_ref().map_or(Ok(()), Graph::launch)
    }
}

/// Uploads tables and keeps them.
struct Tables<'a> {
    queue: &'a Queue,
    kept: Vec<Buffer<u32>>,
}

impl Tables<'_> {
    /// The address of a copy of `words` in device memory.
    fn upload(&mut self, words: &[u32]) -> Result<u64, CudaError> {
        self.kept.push(self.queue.upload_new(words, Need::Circuit)?);
        Ok(self.kept[self.kept.len() - 1].address())
    }

    fn nodes(&mut self, nodes: &[ConvpcNode]) -> Result<u64, CudaError> {
        let words = nodes.iter().flat_map(|n| [n.feature, n.repetition, n.group, n.first, n.count]);
        self.upload(&words.collect::<Vec<u32>>())
    }
}

/// The distance between channels, as kernels count it.
fn row_stride(stride: usize) -> Result<u32, CudaError> {
    u32::try_from(stride).map_err(|_| CudaError::TooLarge { what: "the number of rows" })
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
            exact: memory.model.exact.as_ref().map_or(0, Buffer::address),
            leaf_rows: memory.model.leaf_rows(),
            base: memory.model.base.as_ref().map_or(0, Buffer::address),
            kind: Model::source_kind(structure),
            leaf_stride: memory.model.leaf_stride as u32,
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

fn output(structure: &Structure, layer: usize, keeps_maxima: bool, memory: &Memory) -> ConvpcOutput {
    let (shape, outputs) = (structure.shape(layer), &memory.outputs[&layer]);
    ConvpcOutput {
        values: outputs.values.address(),
        offsets: outputs.offsets.address(),
        maxima: outputs.maxima.as_ref().filter(|_| keeps_maxima).map_or(0, Buffer::address),
        features: shape.features() as u32,
        channels: shape.channels as u32,
    }
}

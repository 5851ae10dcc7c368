//! The way up.

use convpc_core::Structure;

use super::{Arguments, Compiled, Memory, Prepared, Tables, output, row_stride, source};
use crate::{
    driver::{Buffer, Queue},
    error::CudaError,
    model::Weights,
    params::{ConvpcFused, ConvpcLevel, ConvpcRows, ConvpcStep},
    plan::{Kernel, Launch, Level, Plan},
};

impl Compiled {
    pub(crate) fn up(queue: &Queue, structure: &Structure, plan: &Plan, memory: &Memory) -> Result<Self, CudaError> {
        let stride = row_stride(plan.stride())?;
        let mut tables = Tables { queue, kept: Vec::new() };
        let prepare = |launch: &Launch| prepare(&mut tables, structure, launch, plan, stride, memory);
        let launches = plan.launches.iter().map(prepare).collect::<Result<_, _>>()?;
        Ok(Compiled { launches, _tables: tables.kept })
    }
}

fn prepare(
    tables: &mut Tables,
    structure: &Structure,
    launch: &Launch,
    plan: &Plan,
    stride: u32,
    memory: &Memory,
) -> Result<Prepared, CudaError> {
    let rows = plan.rows;
    let steps = launch.steps.iter().flat_map(|s: &ConvpcStep| [s.level, s.group, s.first, s.count, s.fresh]);
    let levels = launch.levels.iter().flat_map(|level| level_words(level, memory.weights(level.layer)));
    let list = tables.upload(&launch.list)?;
    let nodes = tables.nodes(&launch.nodes)?;
    let steps = tables.upload(&steps.collect::<Vec<u32>>())?;
    let levels = tables.upload(&levels.collect::<Vec<u32>>())?;
    let source = source(structure, launch.input, stride, plan.purpose.semiring(), memory, list);
    let output = output(structure, launch.output, plan.purpose.has_flows(), memory);
    let row_tiles = launch.row_tiles(rows) as u32;
    let linear = launch.levels.first().map_or(0, |level| memory.weights(level.layer).linear.address());
    let arguments = match launch.kernel {
        Kernel::Fused(..) => Arguments::Fused(ConvpcFused {
            source,
            output,
            levels,
            steps,
            nodes,
            fold: launch.fold as u32,
            level_count: launch.levels.len() as u32,
            row_tiles,
            operand: launch.shared.0 as u32,
            accumulators: launch.shared.1 as u32,
        }),
        _ => Arguments::Rows(ConvpcRows { source, output, nodes, linear, row_tiles, rows: rows as u32 }),
    };
    Ok(Prepared {
        entry: launch.kernel.entry(),
        arguments,
        blocks: launch.blocks(rows),
        shared_bytes: launch.shared_bytes(),
    })
}

/// A `ConvpcLevel` as the words it consists of.
fn level_words(level: &Level, weights: &Weights) -> Vec<u32> {
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

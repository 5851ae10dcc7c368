//! The way down.

use convpc_core::{Semiring, Structure};

use super::{
    Arguments, Compiled, Memory, Prepared, Tables,
    leaves::{fold, leaves},
    output, row_stride, source,
};
use crate::{
    driver::{Buffer, Queue},
    error::CudaError,
    params::{self, ConvpcAddParts, ConvpcAddRows, ConvpcCounts, ConvpcDown},
    plan::{Descent, Descents, Flow, counts_rows, stride},
    statistics::Counts,
};

/// Memory of the way down.
pub(crate) struct Way<'a> {
    /// The flows of two neighbouring layers, in turn; the root's is in the first.
    pub(crate) flows: [&'a Buffer<f32>; 2],
    /// Counts of the parts of a layer.
    pub(crate) parts: &'a Buffer<f32>,
    /// Where all is added up.
    pub(crate) counts: &'a Counts,
}

impl Compiled {
    /// Flows and counts of all sum layers, then the statistics of the leaves.
    pub(crate) fn down(
        queue: &Queue,
        structure: &Structure,
        plan: &Descents,
        memory: &Memory,
        way: &Way,
    ) -> Result<Self, CudaError> {
        let mut tables = Tables { queue, kept: Vec::new() };
        let mut launches = Vec::new();
        for (index, descent) in plan.layers.iter().enumerate() {
            let flows = [index % 2, (index + 1) % 2].map(|at| way.flows[at].address());
            let arguments = arguments(&mut tables, structure, descent, plan.rows, memory, flows)?;
            launches.push(Prepared {
                entry: descent.flow.entry(),
                arguments: Arguments::Down(arguments),
                blocks: descent.blocks(plan.rows),
                shared_bytes: descent.shared_bytes(),
            });
            launches.extend(counts(&mut tables, structure, descent, plan.rows, arguments, way)?);
        }
        launches.push(leaves(&mut tables, structure, plan, memory, way)?);
        launches.extend(fold(structure, memory, way));
        Ok(Compiled { launches, _tables: tables.kept })
    }
}

fn arguments(
    tables: &mut Tables,
    structure: &Structure,
    descent: &Descent,
    rows: usize,
    memory: &Memory,
    [flow, below]: [u64; 2],
) -> Result<ConvpcDown, CudaError> {
    let list = tables.upload(&descent.list)?;
    let weights = memory.weights(descent.layer);
    Ok(ConvpcDown {
        source: source(structure, descent.input, row_stride(stride(rows))?, Semiring::SumProduct, memory, list),
        sums: output(structure, descent.layer, true, memory),
        flow,
        parents: tables.upload(&descent.parents)?,
        below,
        nodes: tables.nodes(&descent.nodes)?,
        linear: weights.linear.address(),
        inverse_temperature: memory.model.inverse_temperature.address(),
        transposed: weights.transposed.as_ref().map_or(0, Buffer::address),
        // The root's flow is that of one feature.
        flow_features: descent.above.map_or(1, |layer| structure.shape(layer).features()) as u32,
        row_tiles: rows.div_ceil(descent.flow.columns()) as u32,
        rows: rows as u32,
        at_a_time: descent.at_a_time as u32,
    })
}

/// The launches that add a layer's counts to the statistics.
fn counts(
    tables: &mut Tables,
    structure: &Structure,
    descent: &Descent,
    rows: usize,
    down: ConvpcDown,
    way: &Way,
) -> Result<Vec<Prepared>, CudaError> {
    let total = way.counts.sums[descent.layer].as_ref().expect("a sum layer is counted").address();
    let (matrices, threads) = (&descent.matrices, params::CONVPC_THREADS as usize);
    let Flow::Product(precision, _) = descent.flow else {
        let edges = matrices.weights();
        let arguments = Arguments::AddRows(ConvpcAddRows {
            flow: down.below,
            total,
            features: structure.shape(descent.layer).features() as u32,
            channels: matrices.outputs as u32,
            repetitions: matrices.inputs as u32,
            rows: rows as u32,
            stride: down.source.rows,
        });
        let blocks = edges.div_ceil(threads / 32);
        return Ok(vec![Prepared { entry: "add_rows".into(), arguments, blocks, shared_bytes: 0 }]);
    };
    let tile = counts_rows(rows);
    let name = if tile == params::CONVPC_COUNTS_ROWS_BASE as usize { "base" } else { "slim" };
    let partial = way.parts.address();
    let gather = Arguments::Counts(ConvpcCounts {
        down: ConvpcDown { row_tiles: (rows / tile) as u32, ..down },
        partial,
        begins: tables.upload(&descent.begins)?,
        matrices: (matrices.groups * matrices.repetitions) as u32,
        parts: descent.parts as u32,
    });
    let count = matrices.weights() as u64;
    let add = Arguments::AddParts(ConvpcAddParts { partial, total, count, parts: descent.parts as u32 });
    let entry = format!("counts_{}_{name}", precision.name());
    let blocks = descent.counts_blocks();
    Ok(vec![
        Prepared { entry, arguments: gather, blocks, shared_bytes: 0 },
        Prepared {
            entry: "add_parts".into(),
            arguments: add,
            blocks: matrices.weights().div_ceil(threads),
            shared_bytes: 0,
        },
    ])
}

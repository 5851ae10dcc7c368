//! The statistics of the leaves, where the way down ends.

use convpc_core::Structure;

use super::{Arguments, Memory, Prepared, Tables, Way, row_stride};
use crate::{
    driver::Buffer,
    error::CudaError,
    params::{self, ConvpcFoldLeaves, ConvpcLeafCounts},
    plan::{Descents, stride},
};

/// The launch that adds the leaves' statistics to the counts.
pub(super) fn leaves(
    tables: &mut Tables,
    structure: &Structure,
    plan: &Descents,
    memory: &Memory,
    way: &Way,
) -> Result<Prepared, CudaError> {
    let (shape, leaves) = (structure.shape(0), &plan.leaves);
    let arguments = ConvpcLeafCounts {
        // Each layer wrote to the other of the two; without any the root's flow is the leaves'.
        flow: way.flows[plan.layers.len() % 2].address(),
        data: memory.data.address(),
        parents: tables.upload(&leaves.parents)?,
        theta: memory.model.theta.address(),
        leaves: memory.model.leaves.address(),
        leaf_rows: memory.model.leaf_rows(),
        sufficient: memory.model.sufficient.as_ref().map_or(0, Buffer::address),
        counts: way.counts.columns.as_ref().unwrap_or(&way.counts.leaves).address(),
        features: plan.layers.last().map_or(1, |lowest| structure.shape(lowest.layer).features()) as u32,
        channels: shape.channels as u32,
        repetitions: shape.repetitions as u32,
        columns: structure.variables() as u32,
        stride: row_stride(stride(plan.rows))?,
        rows: plan.rows as u32,
        statistics: structure.leaf().family.statistics() as u32,
        width: leaves.width as u32,
        values: leaves.values as u32,
        ranges: leaves.ranges as u32,
    };
    Ok(Prepared {
        entry: leaves.entry.into(),
        arguments: Arguments::Leaves(arguments),
        blocks: leaves.blocks,
        shared_bytes: leaves.shared_bytes,
    })
}

/// The launch that brings the counts of columns together, where they share leaves.
pub(super) fn fold(structure: &Structure, memory: &Memory, way: &Way) -> Option<Prepared> {
    let (from, to) = (way.counts.columns.as_ref()?, &way.counts.leaves);
    let values = to.len() / structure.leaf_rows();
    let arguments = ConvpcFoldLeaves {
        from: from.address(),
        to: to.address(),
        leaf_rows: memory.model.leaf_rows(),
        values: values as u64,
        rows: structure.leaf_rows() as u32,
        columns: structure.variables() as u32,
    };
    Some(Prepared {
        entry: "fold_leaves".into(),
        arguments: Arguments::Fold(arguments),
        blocks: to.len().div_ceil(params::CONVPC_THREADS as usize),
        shared_bytes: 0,
    })
}

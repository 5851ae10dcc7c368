//! The statistics of the leaves, where the way down ends.

use convpc_core::Structure;

use super::{Arguments, Memory, Prepared, Tables, Way, row_stride};
use crate::{
    driver::Buffer,
    error::CudaError,
    params::ConvpcLeafCounts,
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
        sufficient: memory.model.sufficient.as_ref().map_or(0, Buffer::address),
        counts: way.counts.leaves.address(),
        features: plan.layers.last().map_or(1, |lowest| structure.shape(lowest.layer).features()) as u32,
        channels: shape.channels as u32,
        repetitions: shape.repetitions as u32,
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

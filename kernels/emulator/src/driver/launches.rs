//! Launches of kernels, and how many blocks fit a multiprocessor.

use std::ffi::{c_int, c_uint};
use std::sync::Arc;

use super::call::{Array, Failure, Handle, Host, Out, Outcome, call};
use super::state::{Function, State, state};
use super::work::{Work, submit};
use crate::launch::{LaunchError, Shape};

/// Reads the parameters, given as an array of pointers or as one buffer.
fn parameters(function: &Function, pointers: Array<Host>, extra: Array<usize>) -> Outcome<Vec<u8>> {
    let program = &function.program;
    let mut all = vec![0; program.parameter_bytes as usize];
    if !extra.is_null() {
        // Keys and values in turn: 1 is the buffer, 2 points to its size, 0 is the end.
        let (mut buffer, mut size) = (Host(0), 0);
        for pair in 0.. {
            match extra.at(2 * pair)? {
                0 => break,
                1 => buffer = Host(extra.at(2 * pair + 1)?),
                2 => {
                    let bytes = Host(extra.at(2 * pair + 1)?);
                    bytes.check(8)?;
                    size = bytes.bytes(8).try_into().map_or(0, usize::from_le_bytes);
                }
                key => return Err(Failure::invalid(format!("key {key} among the extra arguments of a launch"))),
            }
        }
        if size < all.len() {
            return Err(Failure::invalid(format!("{size} bytes of parameters, {} needed", all.len())));
        }
        buffer.check(size)?;
        all.copy_from_slice(&buffer.bytes(size)[..program.parameter_bytes as usize]);
        return Ok(all);
    }
    for (index, parameter) in program.parameters.iter().enumerate() {
        let (start, bytes) = (parameter.offset as usize, parameter.bytes as usize);
        let from = pointers.at(index)?;
        from.check(bytes)?;
        all[start..start + bytes].copy_from_slice(from.bytes(bytes));
    }
    Ok(all)
}

fn submit_launch(
    function: Handle,
    shape: Shape,
    stream: Handle,
    pointers: Array<Host>,
    extra: Array<usize>,
) -> Outcome {
    let function = {
        let state = state();
        state.check()?;
        Arc::clone(state.functions.get(function)?)
    };
    shape.check(&function.program, function.shared_limit).map_err(|error| match error {
        LaunchError::Refused(message) => Failure::invalid(message),
        LaunchError::Fault(fault) => Failure::new(fault.kind.code(), fault.to_string()),
    })?;
    let parameters = parameters(&function, pointers, extra)?;
    submit(stream, Work::Launch { function, shape, parameters })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_shared: c_uint,
    stream: Handle,
    pointers: Array<Host>,
    extra: Array<usize>,
) -> c_int {
    call("cuLaunchKernel", || {
        let shape = Shape { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z], dynamic_shared };
        submit_launch(function, shape, stream, pointers, extra)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchCooperativeKernel(
    _function: Handle,
    _grid_x: c_uint,
    _grid_y: c_uint,
    _grid_z: c_uint,
    _block_x: c_uint,
    _block_y: c_uint,
    _block_z: c_uint,
    _dynamic_shared: c_uint,
    _stream: Handle,
    _pointers: Array<Host>,
) -> c_int {
    call("cuLaunchCooperativeKernel", || {
        Err(Failure::new(super::codes::NOT_SUPPORTED, "cooperative launches are not modelled"))
    })
}

/// The configuration of `cuLaunchKernelEx`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    dynamic_shared: c_uint,
    stream: Handle,
    attributes: usize,
    attribute_count: c_uint,
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernelEx(
    config: Array<LaunchConfig>,
    function: Handle,
    pointers: Array<Host>,
    extra: Array<usize>,
) -> c_int {
    call("cuLaunchKernelEx", || {
        let LaunchConfig { grid, block, dynamic_shared, stream, attribute_count, .. } = config.at(0)?;
        if attribute_count != 0 {
            return Err(Failure::new(super::codes::NOT_SUPPORTED, "attributes of a launch are not modelled"));
        }
        submit_launch(function, Shape { grid, block, dynamic_shared }, stream, pointers, extra)
    })
}

impl State {
    /// Blocks of a function that fit a multiprocessor, registers aside.
    fn active_blocks(&self, function: Handle, threads: c_int, dynamic: usize) -> Outcome<c_int> {
        self.check()?;
        let program = &self.functions.get(function)?.program;
        let limits = self.limits();
        if threads <= 0 {
            return Err(Failure::invalid(format!("blocks of {threads} threads")));
        }
        let threads = threads as u32;
        let shared = u64::from(program.static_shared) + dynamic as u64;
        if threads > program.max_threads || shared > u64::from(limits.shared_per_block) {
            return Ok(0);
        }
        let reserved = u64::from(limits.shared - limits.shared_per_block);
        let by_shared = u64::from(limits.shared) / (shared + reserved).max(1);
        let by_threads = u64::from(limits.threads / threads.next_multiple_of(32));
        Ok(by_shared.min(by_threads).min(u64::from(limits.blocks)) as c_int)
    }

    /// The smallest grid that fills the device, and the block that fills it best.
    fn best_block(
        &self,
        function: Handle,
        shared_of: Option<extern "C" fn(c_int) -> usize>,
        dynamic: usize,
        limit: c_int,
    ) -> Outcome<(c_int, c_int)> {
        let most = self.functions.get(function)?.program.max_threads.min(1024) as c_int;
        let most = if limit > 0 { most.min(limit) } else { most };
        let mut best = (0, 0, 0);
        for threads in (1..=most / 32).map(|warps| 32 * warps) {
            let blocks = self.active_blocks(function, threads, shared_of.map_or(dynamic, |f| f(threads)))?;
            if blocks * threads >= best.0 {
                best = (blocks * threads, blocks, threads);
            }
        }
        Ok((best.1 * self.limits().multiprocessors, best.2))
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: Out<c_int>,
    function: Handle,
    threads: c_int,
    dynamic: usize,
) -> c_int {
    call("cuOccupancyMaxActiveBlocksPerMultiprocessor", || {
        blocks.set(state().active_blocks(function, threads, dynamic)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    blocks: Out<c_int>,
    function: Handle,
    threads: c_int,
    dynamic: usize,
    _flags: c_uint,
) -> c_int {
    call("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", || {
        blocks.set(state().active_blocks(function, threads, dynamic)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyAvailableDynamicSMemPerBlock(
    bytes: Out<usize>,
    function: Handle,
    blocks: c_int,
    _threads: c_int,
) -> c_int {
    call("cuOccupancyAvailableDynamicSMemPerBlock", || {
        let state = state();
        state.check()?;
        let limits = state.limits();
        let taken = state.functions.get(function)?.program.static_shared + limits.shared - limits.shared_per_block;
        let share = limits.shared / blocks.max(1) as u32;
        bytes.set(share.saturating_sub(taken) as usize)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: Out<c_int>,
    block: Out<c_int>,
    function: Handle,
    shared_of: Option<extern "C" fn(c_int) -> usize>,
    dynamic: usize,
    limit: c_int,
) -> c_int {
    call("cuOccupancyMaxPotentialBlockSize", || {
        let best = state().best_block(function, shared_of, dynamic, limit)?;
        grid.set(best.0)?;
        block.set(best.1)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: Out<c_int>,
    block: Out<c_int>,
    function: Handle,
    shared_of: Option<extern "C" fn(c_int) -> usize>,
    dynamic: usize,
    limit: c_int,
    _flags: c_uint,
) -> c_int {
    call("cuOccupancyMaxPotentialBlockSizeWithFlags", || {
        let best = state().best_block(function, shared_of, dynamic, limit)?;
        grid.set(best.0)?;
        block.set(best.1)
    })
}

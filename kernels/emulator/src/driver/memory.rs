//! Device memory and page-locked host memory.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{c_int, c_uint};

use super::call::{Array, Failure, Handle, Host, Out, Outcome, call};
use super::codes::OUT_OF_MEMORY;
use super::order::{History, Use};
use super::state::{Owned, State, state};
use super::work::{Work, submit};
use crate::machine::memory::MemoryError;

/// Page-locked memory begins at pages.
const PAGE: usize = 4096;

impl State {
    fn allocate(&mut self, bytes: usize) -> Outcome<u64> {
        if bytes == 0 {
            return Err(Failure::invalid("an allocation of 0 bytes"));
        }
        let bytes = bytes as u64;
        let refused = |error: MemoryError| Failure::new(OUT_OF_MEMORY, error.to_string());
        let free = self.limit.saturating_sub(self.in_use);
        if bytes > free {
            return Err(refused(MemoryError::OutOfMemory { wanted: bytes, free }));
        }
        let base = self.memory_mut().allocate(bytes).map_err(refused)?;
        self.allocations.insert(base, Owned { bytes, history: History::default() });
        self.in_use += bytes;
        self.peak = self.peak.max(self.in_use);
        self.allocated_ever += 1;
        Ok(base)
    }

    fn free(&mut self, base: u64) -> Outcome {
        let Some(owned) = self.allocations.remove(&base) else {
            return Err(Failure::invalid(format!("not an allocation: {}", self.memory.describe(base, 0))));
        };
        self.in_use -= owned.bytes;
        self.memory_mut().free(base).map_err(|error| Failure::invalid(error.to_string()))
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) -> c_int {
    call("cuMemAlloc_v2", || {
        let mut state = state();
        state.check()?;
        address.check()?;
        state.refuse_any_capture("cuMemAlloc")?;
        address.set(state.allocate(bytes)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocManaged(address: Out<u64>, _bytes: usize, _flags: c_uint) -> c_int {
    call("cuMemAllocManaged", || {
        address.check()?;
        Err(Failure::new(super::codes::NOT_SUPPORTED, "managed memory is not modelled"))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    call("cuMemFree_v2", || {
        let mut state = state();
        state.check_initialised()?;
        state.refuse_any_capture("cuMemFree")?;
        state.free(address)?;
        state.check_fault()
    })
}

fn allocate_on(address: Out<u64>, bytes: usize, stream: Handle) -> Outcome {
    let mut state = state();
    state.check()?;
    address.check()?;
    let stream = state.stream(stream)?;
    state.refuse_capture(stream, "an allocation (not modelled)")?;
    let base = state.allocate(bytes)?;
    state.note_uses(stream, &[(Use::Write, base..base + bytes as u64)], "an allocation")?;
    address.set(base)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocAsync(address: Out<u64>, bytes: usize, stream: Handle) -> c_int {
    call("cuMemAllocAsync", || allocate_on(address, bytes, stream))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocFromPoolAsync(address: Out<u64>, bytes: usize, pool: Handle, stream: Handle) -> c_int {
    call("cuMemAllocFromPoolAsync", || {
        state().check_pool(pool)?;
        allocate_on(address, bytes, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, stream: Handle) -> c_int {
    call("cuMemFreeAsync", || {
        let mut state = state();
        state.check_initialised()?;
        let stream = state.stream(stream)?;
        state.refuse_capture(stream, "the release of memory (not modelled)")?;
        let bytes = state.allocations.get(&address).map_or(0, |owned| owned.bytes);
        let ordered = state.note_uses(stream, &[(Use::Write, address..address + bytes)], "the release of memory");
        state.free(address)?;
        ordered?;
        state.check_fault()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> c_int {
    call("cuMemGetInfo_v2", || {
        let state = state();
        state.check()?;
        free.set_if_wanted(state.limit.saturating_sub(state.in_use) as usize);
        total.set_if_wanted(state.limit as usize);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<usize>, address: u64) -> c_int {
    call("cuMemGetAddressRange_v2", || {
        let state = state();
        state.check()?;
        let found = state.memory.find(address).and_then(|index| state.memory.at(index));
        let found = found.ok_or_else(|| Failure::new(super::codes::NOT_FOUND, state.memory.describe(address, 1)))?;
        base.set_if_wanted(found.base);
        bytes.set_if_wanted(found.bytes as usize);
        Ok(())
    })
}

fn allocate_host(pointer: Out<usize>, bytes: usize) -> Outcome {
    let mut state = state();
    state.check()?;
    pointer.check()?;
    state.refuse_any_capture("page-locking memory")?;
    let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| Failure::from(OUT_OF_MEMORY))?;
    if bytes == 0 {
        return Err(Failure::invalid("an allocation of 0 bytes"));
    }
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc(layout) };
    if start.is_null() {
        return Err(OUT_OF_MEMORY.into());
    }
    // SAFETY: just allocated. The pattern is a NaN, which betrays what reads before it writes.
    unsafe { start.write_bytes(0xff, bytes) };
    state.pinned.insert(start as usize, layout);
    pointer.set(start as usize)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(pointer: Out<usize>, bytes: usize, _flags: c_uint) -> c_int {
    call("cuMemHostAlloc", || allocate_host(pointer, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAllocHost_v2(pointer: Out<usize>, bytes: usize) -> c_int {
    call("cuMemAllocHost_v2", || allocate_host(pointer, bytes))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(pointer: usize) -> c_int {
    call("cuMemFreeHost", || {
        let mut state = state();
        state.check_initialised()?;
        state.refuse_any_capture("releasing page-locked memory")?;
        let Some(layout) = state.pinned.remove(&pointer) else {
            return Err(Failure::invalid(format!("{pointer:#x} is no page-locked memory, or no longer")));
        };
        // SAFETY: allocated by `allocate_host` with this layout; the entry was taken out, so it happens once.
        unsafe { dealloc(pointer as *mut u8, layout) };
        state.check_fault()
    })
}

/// Runs work on the legacy stream and waits for it, as the functions without a stream do.
fn submit_and_wait(what: &str, work: Work) -> Outcome {
    {
        let mut state = state();
        state.check()?;
        state.refuse_any_capture(what)?;
    }
    submit(0, work)?;
    state().clocks.host_waits(0);
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: u64, from: Host, bytes: usize) -> c_int {
    call("cuMemcpyHtoD_v2", || submit_and_wait("a copy without stream", Work::ToDevice { to, from, bytes }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: Host, bytes: usize, stream: Handle) -> c_int {
    call("cuMemcpyHtoDAsync_v2", || submit(stream, Work::ToDevice { to, from, bytes }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: Host, from: u64, bytes: usize) -> c_int {
    call("cuMemcpyDtoH_v2", || submit_and_wait("a copy without stream", Work::ToHost { to, from, bytes }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: Host, from: u64, bytes: usize, stream: Handle) -> c_int {
    call("cuMemcpyDtoHAsync_v2", || submit(stream, Work::ToHost { to, from, bytes }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> c_int {
    let work = Work::OnDevice { to, from, bytes: bytes as u64 };
    call("cuMemcpyDtoD_v2", || submit_and_wait("a copy without stream", work))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) -> c_int {
    call("cuMemcpyDtoDAsync_v2", || submit(stream, Work::OnDevice { to, from, bytes: bytes as u64 }))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyPeerAsync(
    to: u64,
    to_context: Handle,
    from: u64,
    from_context: Handle,
    bytes: usize,
    stream: Handle,
) -> c_int {
    call("cuMemcpyPeerAsync", || {
        state().contexts.get(to_context)?;
        state().contexts.get(from_context)?;
        submit(stream, Work::OnDevice { to, from, bytes: bytes as u64 })
    })
}

/// A memset of `count` elements of `width` bytes.
fn fill(to: u64, value: u32, width: u64, count: usize) -> Work {
    Work::Fill { to, value, width, count: count as u64 }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(to: u64, value: u8, count: usize) -> c_int {
    call("cuMemsetD8_v2", || submit_and_wait("a memset without stream", fill(to, u32::from(value), 1, count)))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) -> c_int {
    call("cuMemsetD8Async", || submit(stream, fill(to, u32::from(value), 1, count)))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16_v2(to: u64, value: u16, count: usize) -> c_int {
    call("cuMemsetD16_v2", || submit_and_wait("a memset without stream", fill(to, u32::from(value), 2, count)))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: Handle) -> c_int {
    call("cuMemsetD16Async", || submit(stream, fill(to, u32::from(value), 2, count)))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32_v2(to: u64, value: u32, count: usize) -> c_int {
    call("cuMemsetD32_v2", || submit_and_wait("a memset without stream", fill(to, value, 4, count)))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: Handle) -> c_int {
    call("cuMemsetD32Async", || submit(stream, fill(to, value, 4, count)))
}

/// The pool that allocations come from unless they say otherwise.
const DEFAULT_POOL: Handle = 0x800;

impl State {
    fn check_pool(&self, pool: Handle) -> Outcome {
        self.check_initialised()?;
        if pool == DEFAULT_POOL { Ok(()) } else { self.pools.get(pool).copied() }
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetDefaultMemPool(pool: Out<Handle>, _device: c_int) -> c_int {
    call("cuDeviceGetDefaultMemPool", || {
        state().check_initialised()?;
        pool.set(DEFAULT_POOL)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetMemPool(pool: Out<Handle>, _device: c_int) -> c_int {
    call("cuDeviceGetMemPool", || {
        state().check_initialised()?;
        pool.set(DEFAULT_POOL)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceSetMemPool(_device: c_int, pool: Handle) -> c_int {
    call("cuDeviceSetMemPool", || state().check_pool(pool))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolCreate(pool: Out<Handle>, _properties: usize) -> c_int {
    call("cuMemPoolCreate", || {
        let mut state = state();
        state.check()?;
        let handle = state.new_handle();
        pool.set(state.pools.insert(handle, ()))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolDestroy(pool: Handle) -> c_int {
    call("cuMemPoolDestroy", || state().pools.remove(pool))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolTrimTo(pool: Handle, _bytes: usize) -> c_int {
    call("cuMemPoolTrimTo", || state().check_pool(pool))
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolGetAttribute(pool: Handle, attribute: c_uint, value: Host) -> c_int {
    call("cuMemPoolGetAttribute", || {
        let state = state();
        state.check_pool(pool)?;
        value.check(8)?;
        match attribute {
            // Flags, which are C integers; the others have 64 bits.
            1..=3 => value.write(&1u32.to_le_bytes()),
            4 => value.write(&0u64.to_le_bytes()),
            5 | 7 => value.write(&state.in_use.to_le_bytes()),
            6 | 8 => value.write(&state.peak.to_le_bytes()),
            _ => return Err(Failure::invalid(format!("pool attribute {attribute}"))),
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAttribute(pool: Handle, attribute: c_uint, value: Array<u32>) -> c_int {
    call("cuMemPoolSetAttribute", || {
        state().check_pool(pool)?;
        if value.is_null() || !(1..=8).contains(&attribute) {
            return Err(Failure::invalid(format!("pool attribute {attribute}")));
        }
        Ok(())
    })
}

//! Calls about caches, priorities, limits and profilers: accepted, and without effect.

use std::ffi::{c_int, c_uint};

use super::call::{Failure, Handle, Out, call};
use super::state::state;

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetFlags(_flags: c_uint) -> c_int {
    call("cuCtxSetFlags", || state().check())
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetFlags(flags: Out<c_uint>) -> c_int {
    call("cuCtxGetFlags", || {
        state().check()?;
        flags.set(0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetApiVersion(_context: Handle, version: Out<c_uint>) -> c_int {
    call("cuCtxGetApiVersion", || {
        state().check()?;
        version.set(3020)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetLimit(value: Out<usize>, limit: c_uint) -> c_int {
    call("cuCtxGetLimit", || {
        state().check()?;
        match limit {
            // Stack, printf, heap.
            0 => value.set(1 << 10),
            1 => value.set(1 << 20),
            2 => value.set(8 << 20),
            _ => Err(Failure::invalid(format!("limit {limit}"))),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetLimit(limit: c_uint, _value: usize) -> c_int {
    call("cuCtxSetLimit", || {
        state().check()?;
        if limit <= 6 { Ok(()) } else { Err(Failure::invalid(format!("limit {limit}"))) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCacheConfig(config: Out<c_uint>) -> c_int {
    call("cuCtxGetCacheConfig", || {
        state().check()?;
        config.set(0)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCacheConfig(_config: c_uint) -> c_int {
    call("cuCtxSetCacheConfig", || state().check())
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetStreamPriorityRange(least: Out<c_int>, greatest: Out<c_int>) -> c_int {
    call("cuCtxGetStreamPriorityRange", || {
        state().check()?;
        least.set_if_wanted(0);
        greatest.set_if_wanted(-5);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxEnablePeerAccess(context: Handle, _flags: c_uint) -> c_int {
    call("cuCtxEnablePeerAccess", || {
        let state = state();
        state.check()?;
        state.contexts.get(context).map(|_| ())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetCacheConfig(function: Handle, _config: c_uint) -> c_int {
    call("cuFuncSetCacheConfig", || {
        let state = state();
        state.check()?;
        state.functions.get(function).map(|_| ())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuProfilerStart() -> c_int {
    call("cuProfilerStart", || state().check())
}

#[unsafe(no_mangle)]
extern "C" fn cuProfilerStop() -> c_int {
    call("cuProfilerStop", || state().check())
}

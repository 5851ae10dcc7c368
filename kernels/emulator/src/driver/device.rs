//! The driver itself, devices and contexts.

use std::ffi::{c_char, c_int, c_uint};

use super::call::{Failure, Handle, Out, Outcome, call};
use super::codes::{INVALID_DEVICE, NO_DEVICE, describe};
use super::state::{Context, State, current, set_current, state};

const NAME: &[u8] = b"CUDA emulator\0";

/// The limits that depend on the compute capability.
pub(super) struct Limits {
    pub(super) multiprocessors: i32,
    /// Bytes of shared memory that a block may have on request.
    pub(super) shared_per_block: u32,
    /// Bytes of shared memory of a multiprocessor.
    pub(super) shared: u32,
    /// Threads of a multiprocessor.
    pub(super) threads: u32,
    /// Blocks of a multiprocessor.
    pub(super) blocks: u32,
}

impl Limits {
    /// What the CUDA C++ programming guide says of a compute capability, and the multiprocessors of a common device.
    pub(super) fn of(capability: (i32, i32)) -> Self {
        let (multiprocessors, shared_kib, threads, blocks) = match capability {
            (..=7, _) => (72, 64, 1024, 16),
            (8, 0) => (108, 164, 2048, 32),
            (8, 6) => (84, 100, 1536, 16),
            (8, _) => (142, 100, 1536, 24),
            (9, _) | (10, 0..=3) => (132, 228, 2048, 32),
            _ => (170, 100, 1536, 24),
        };
        // One KiB of each block is the system's, since 8.0.
        let reserved = if capability.0 < 8 { 0 } else { 1 };
        Self {
            multiprocessors,
            shared_per_block: (shared_kib - reserved) << 10,
            shared: shared_kib << 10,
            threads,
            blocks,
        }
    }
}

impl State {
    pub(super) fn limits(&self) -> Limits {
        Limits::of(self.config.capability)
    }

    fn check_device(&self, device: c_int) -> Outcome {
        self.check_initialised()?;
        if (0..self.config.device_count).contains(&device) { Ok(()) } else { Err(INVALID_DEVICE.into()) }
    }

    fn attribute(&self, attribute: c_uint) -> Outcome<i32> {
        let limits = self.limits();
        Ok(match attribute {
            // Threads of a block, in all and along two axes.
            1..=3 => 1024,
            // Threads of a block along the third.
            4 => 64,
            // Blocks of a grid along each axis.
            5 => i32::MAX,
            6 | 7 => 65535,
            // Shared memory that needs no request; constant memory.
            8 => 48 << 10,
            9 => 64 << 10,
            // Threads of a warp.
            10 => 32,
            // The longest pitch.
            11 => i32::MAX,
            // Registers of a block and of a multiprocessor.
            12 | 82 => 65536,
            // Clock rates in kHz, bits of the memory bus.
            13 => 1_980_000,
            36 => 2_619_000,
            37 => 5120,
            // Alignment of textures and surfaces, and of their pitch.
            14 | 30 => 512,
            51 => 32,
            16 => limits.multiprocessors,
            // Bytes of the second cache.
            38 => 50 << 20,
            39 => limits.threads as i32,
            // Copies that overlap kernels, engines for them.
            15 => 1,
            40 => 3,
            // Mapped host memory, concurrent kernels, error correction, one address space.
            19 | 31 | 32 | 41 => 1,
            // The bus.
            33 => 1,
            75 => self.config.capability.0,
            76 => self.config.capability.1,
            // Priorities of streams, caches.
            78..=80 => 1,
            81 => limits.shared as i32,
            // `f32` operations for one of `f64`.
            87 => 2,
            97 => limits.shared_per_block as i32,
            106 => limits.blocks as i32,
            111 => (limits.shared - limits.shared_per_block) as i32,
            // Memory pools.
            115 => 1,
            0 | 201.. => return Err(Failure::invalid(format!("device attribute {attribute}"))),
            // What is not modelled.
            _ => 0,
        })
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: c_uint) -> c_int {
    call("cuInit", || {
        let mut state = state();
        match state.config.init_error {
            0 if flags != 0 => Err(Failure::invalid("flags must be 0")),
            0 => {
                state.initialised = true;
                Ok(())
            }
            code => Err(Failure::new(code, "fails because the test wants it")),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Out<c_int>) -> c_int {
    call("cuDriverGetVersion", || version.set(state().config.driver_version))
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: c_int, name: Out<*const c_char>) -> c_int {
    call("cuGetErrorName", || match describe(code) {
        Some((text, _)) => name.set(text.as_ptr()),
        None => {
            name.set(std::ptr::null())?;
            Err(Failure::invalid(format!("no error has the code {code}")))
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(code: c_int, text: Out<*const c_char>) -> c_int {
    call("cuGetErrorString", || match describe(code) {
        Some((_, description)) => text.set(description.as_ptr()),
        None => {
            text.set(std::ptr::null())?;
            Err(Failure::invalid(format!("no error has the code {code}")))
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: Out<c_int>) -> c_int {
    call("cuDeviceGetCount", || {
        let state = state();
        state.check_initialised()?;
        count.set(state.config.device_count)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: Out<c_int>, ordinal: c_int) -> c_int {
    call("cuDeviceGet", || {
        let state = state();
        state.check_initialised()?;
        if state.config.device_count == 0 {
            return Err(NO_DEVICE.into());
        }
        state.check_device(ordinal)?;
        device.set(ordinal)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(name: Out<[u8; NAME.len()]>, len: c_int, device: c_int) -> c_int {
    call("cuDeviceGetName", || {
        state().check_device(device)?;
        if len < NAME.len() as c_int {
            return Err(Failure::invalid("too little room for the name"));
        }
        NAME.try_into().map_or(Ok(()), |text| name.set(text))
    })
}

fn uuid(out: Out<[u8; 16]>, device: c_int) -> Outcome {
    state().check_device(device)?;
    let mut uuid = *b"convpc-emulator\0";
    uuid[15] = device as u8;
    out.set(uuid)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(out: Out<[u8; 16]>, device: c_int) -> c_int {
    call("cuDeviceGetUuid", || uuid(out, device))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid_v2(out: Out<[u8; 16]>, device: c_int) -> c_int {
    call("cuDeviceGetUuid_v2", || uuid(out, device))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: c_int) -> c_int {
    call("cuDeviceTotalMem_v2", || {
        let state = state();
        state.check_device(device)?;
        bytes.set(state.limit as usize)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(value: Out<c_int>, attribute: c_uint, device: c_int) -> c_int {
    call("cuDeviceGetAttribute", || {
        let state = state();
        state.check_device(device)?;
        value.set(state.attribute(attribute)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceCanAccessPeer(possible: Out<c_int>, device: c_int, peer: c_int) -> c_int {
    call("cuDeviceCanAccessPeer", || {
        let state = state();
        state.check_device(device)?;
        state.check_device(peer)?;
        possible.set(c_int::from(device != peer))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: Out<Handle>, device: c_int) -> c_int {
    call("cuDevicePrimaryCtxRetain", || {
        let mut state = state();
        state.check_device(device)?;
        context.check()?;
        let known =
            state.contexts.iter_mut().find(|(_, context)| context.device == device && context.retained.is_some());
        if let Some((handle, Context { retained: Some(count), .. })) = known {
            *count += 1;
            return context.set(handle);
        }
        let handle = state.new_handle();
        context.set(state.contexts.insert(handle, Context { device, retained: Some(1) }))
    })
}

/// Gives the primary context back. What still lives in it is kept, so that a test can see what was forgotten.
fn release(device: c_int) -> Outcome {
    let mut state = state();
    state.check_device(device)?;
    let mut primary = state.contexts.iter_mut().filter(|(_, context)| context.device == device);
    match primary.find_map(|(_, context)| context.retained.as_mut()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            Ok(())
        }
        _ => Err(Failure::new(super::codes::INVALID_CONTEXT, "the primary context is not retained")),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> c_int {
    call("cuDevicePrimaryCtxRelease_v2", || release(device))
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease(device: c_int) -> c_int {
    call("cuDevicePrimaryCtxRelease", || release(device))
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, _flags: c_uint) -> c_int {
    call("cuDevicePrimaryCtxSetFlags_v2", || state().check_device(device))
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxGetState(device: c_int, flags: Out<c_uint>, active: Out<c_int>) -> c_int {
    call("cuDevicePrimaryCtxGetState", || {
        let state = state();
        state.check_device(device)?;
        let is_active = state.contexts.iter().any(|(_, c)| c.device == device && c.retained.is_some_and(|n| n > 0));
        flags.set(0)?;
        active.set(c_int::from(is_active))
    })
}

fn create_context(context: Out<Handle>, device: c_int) -> Outcome {
    let mut state = state();
    state.check_device(device)?;
    context.check()?;
    let handle = state.new_handle();
    state.contexts.insert(handle, Context { device, retained: None });
    set_current(handle);
    context.set(handle)
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v2(context: Out<Handle>, _flags: c_uint, device: c_int) -> c_int {
    call("cuCtxCreate_v2", || create_context(context, device))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v3(
    context: Out<Handle>,
    _affinity: usize,
    _count: c_int,
    _flags: c_uint,
    device: c_int,
) -> c_int {
    call("cuCtxCreate_v3", || create_context(context, device))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxCreate_v4(context: Out<Handle>, _parameters: usize, _flags: c_uint, device: c_int) -> c_int {
    call("cuCtxCreate_v4", || create_context(context, device))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxDestroy_v2(context: Handle) -> c_int {
    call("cuCtxDestroy_v2", || {
        let mut state = state();
        state.check_initialised()?;
        if state.contexts.get(context)?.retained.is_some() {
            return Err(Failure::invalid("the primary context is released, not destroyed"));
        }
        state.contexts.remove(context)?;
        if current() == context {
            set_current(0);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: Handle) -> c_int {
    call("cuCtxSetCurrent", || {
        let state = state();
        state.check_initialised()?;
        if context != 0 {
            state.contexts.get(context)?;
        }
        set_current(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(context: Out<Handle>) -> c_int {
    call("cuCtxGetCurrent", || {
        state().check_initialised()?;
        context.set(current())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetDevice(device: Out<c_int>) -> c_int {
    call("cuCtxGetDevice", || {
        let state = state();
        state.check_context()?;
        device.set(state.contexts.get(current())?.device)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> c_int {
    call("cuCtxSynchronize", || {
        let mut state = state();
        state.check()?;
        state.refuse_any_capture("cuCtxSynchronize")?;
        state.clocks.host_waits_for_all();
        Ok(())
    })
}

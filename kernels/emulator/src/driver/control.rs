//! Functions of the shared library for [`Device`](crate::Device), which is compiled into the test.
//!
//! The library and the test each have a copy of this crate, with statics of its own; only C types pass between them.

use std::ffi::{c_int, c_void};

use super::call::Host;
use super::state::{Planned, state};
use crate::device::MemoryUse;
use crate::machine::settings::{Order, Settings};
use crate::stats::KernelStats;

/// The version of the functions in this file.
pub(crate) const VERSION: u32 = 1;

/// What [`convpc_emulator_set`] sets.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Setting {
    DriverVersion,
    InitError,
    DeviceCount,
    CapabilityMajor,
    CapabilityMinor,
    Memory,
}

/// [`Settings`] as C types.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlatSettings {
    order: u32,
    seed: u64,
    strict: u32,
    races: u32,
    hardware_error: u32,
    workers: u64,
    budget: u64,
}

impl From<&Settings> for FlatSettings {
    fn from(settings: &Settings) -> Self {
        let (order, seed) = settings.order.to_numbers();
        Self {
            order,
            seed,
            strict: settings.strict.into(),
            races: settings.races.into(),
            hardware_error: settings.hardware_error.into(),
            workers: settings.workers as u64,
            budget: settings.budget,
        }
    }
}

impl FlatSettings {
    fn settings(self) -> Option<Settings> {
        Some(Settings {
            order: Order::from_numbers(self.order, self.seed)?,
            strict: self.strict != 0,
            races: self.races != 0,
            hardware_error: self.hardware_error != 0,
            workers: self.workers as usize,
            budget: self.budget,
        })
    }
}

/// Receives text: the context, its bytes and how many.
pub(crate) type Sink = extern "C" fn(*mut c_void, *const u8, usize);

fn send(sink: Sink, context: *mut c_void, text: &str) {
    sink(context, text.as_ptr(), text.len());
}

#[unsafe(no_mangle)]
extern "C" fn convpc_emulator_version() -> u32 {
    VERSION
}

#[unsafe(no_mangle)]
extern "C" fn convpc_emulator_configure(settings: FlatSettings) {
    if let Some(settings) = settings.settings() {
        state().config.settings = settings;
    }
}

#[unsafe(no_mangle)]
extern "C" fn convpc_emulator_set(setting: u32, value: u64) {
    let mut state = state();
    let number = value as c_int;
    match setting {
        s if s == Setting::DriverVersion as u32 => state.config.driver_version = number,
        s if s == Setting::InitError as u32 => state.config.init_error = number,
        s if s == Setting::DeviceCount as u32 => state.config.device_count = number,
        s if s == Setting::CapabilityMajor as u32 => state.config.capability.0 = number,
        s if s == Setting::CapabilityMinor as u32 => state.config.capability.1 = number,
        s if s == Setting::Memory as u32 => state.limit = value,
        _ => {}
    }
}

#[unsafe(no_mangle)]
extern "C" fn convpc_emulator_fail_call(function: Host, len: usize, nth: u64, code: c_int) {
    let function = String::from_utf8_lossy(function.bytes(len)).into_owned();
    state().planned.push(Planned { function, calls: nth.max(1), code });
}

#[unsafe(no_mangle)]
extern "C" fn convpc_emulator_reset() {
    state().reset();
}

#[unsafe(no_mangle)]
extern "C" fn convpc_emulator_report(sink: Sink, context: *mut c_void) {
    if let Some(report) = state().report.clone() {
        send(sink, context, &report);
    }
}

#[unsafe(no_mangle)]
extern "C" fn convpc_emulator_memory() -> MemoryUse {
    let state = state();
    let objects = state.events.len() + state.modules.len() + state.graphs.len() + state.executables.len();
    MemoryUse {
        in_use: state.in_use,
        peak: state.peak,
        allocations: state.allocations.len() as u64,
        allocated_ever: state.allocated_ever,
        pinned: state.pinned.values().map(|layout| layout.size() as u64).sum(),
        // Two streams are always there.
        objects: (objects + state.streams.len() - 2) as u64,
    }
}

/// Receives the counts of a kernel: the context, the name's bytes and how many, the counts.
pub(crate) type CountSink = extern "C" fn(*mut c_void, *const u8, usize, &KernelStats);

#[unsafe(no_mangle)]
extern "C" fn convpc_emulator_counts(sink: CountSink, context: *mut c_void) {
    for (name, stats) in &state().stats {
        sink(context, name.as_ptr(), name.len(), stats);
    }
}

#[unsafe(no_mangle)]
extern "C" fn convpc_emulator_clear_counts() {
    state().stats.clear();
}

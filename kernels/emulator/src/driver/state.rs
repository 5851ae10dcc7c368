//! What the device remembers.

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

use super::call::{Failure, Handle, Outcome};
use super::codes::{INVALID_CONTEXT, INVALID_HANDLE, LAUNCH_FAILED, NOT_INITIALIZED};
use super::order::{Clock, Clocks, History, Use};
use super::work::Work;
use crate::launch::SymbolTable;
use crate::machine::memory::Memory;
use crate::machine::settings::Settings;
use crate::ptx::program::Program;
use crate::stats::KernelStats;

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

/// The device, locked. Never held while a kernel runs.
pub(super) fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The current context of the thread; 0 is none.
    static CURRENT: Cell<Handle> = const { Cell::new(0) };
}

pub(super) fn current() -> Handle {
    CURRENT.get()
}

pub(super) fn set_current(context: Handle) {
    CURRENT.set(context);
}

/// What a test may change.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) settings: Settings,
    pub(super) driver_version: i32,
    pub(super) init_error: i32,
    pub(super) device_count: i32,
    pub(super) capability: (i32, i32),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            driver_version: 12020,
            init_error: 0,
            device_count: 1,
            capability: (9, 0),
        }
    }
}

/// Room for allocations unless a test says otherwise.
pub(super) const DEFAULT_MEMORY: u64 = 8 << 30;

/// A call that is to fail.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) function: String,
    /// Calls until then, that one included.
    pub(super) calls: u64,
    pub(super) code: i32,
}

/// Objects by handle.
#[derive(Debug)]
pub(super) struct Table<T>(HashMap<Handle, T>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Table<T> {
    pub(super) fn get(&self, handle: Handle) -> Outcome<&T> {
        self.0.get(&handle).ok_or_else(|| unknown(handle))
    }

    pub(super) fn get_mut(&mut self, handle: Handle) -> Outcome<&mut T> {
        self.0.get_mut(&handle).ok_or_else(|| unknown(handle))
    }

    pub(super) fn remove(&mut self, handle: Handle) -> Outcome<T> {
        self.0.remove(&handle).ok_or_else(|| unknown(handle))
    }

    pub(super) fn insert(&mut self, handle: Handle, object: T) -> Handle {
        self.0.insert(handle, object);
        handle
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Handle, &mut T)> {
        self.0.iter_mut().map(|(handle, object)| (*handle, object))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        self.0.iter().map(|(handle, object)| (*handle, object))
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&Handle, &mut T) -> bool) {
        self.0.retain(keep);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn unknown(handle: Handle) -> Failure {
    Failure::new(INVALID_HANDLE, format!("{handle:#x} is no handle of the kind, or no longer one"))
}

/// A context.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) device: i32,
    /// How often it was retained, if it is the primary one.
    pub(super) retained: Option<u64>,
}

/// A stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) non_blocking: bool,
    pub(super) priority: i32,
    /// The recording that it takes part in.
    pub(super) capture: Option<Handle>,
    /// Held by the thread of the host whose work is carried out.
    pub(super) turn: Arc<Mutex<()>>,
    /// It joined a recording and did work there that no event has brought back.
    pub(super) unjoined: bool,
}

/// What records a graph.
#[derive(Debug)]
pub(super) struct Capture {
    /// The stream on which it began.
    pub(super) origin: Handle,
    pub(super) strict: Strict,
    pub(super) work: Vec<Work>,
    /// Something happened that a recording must not contain.
    pub(super) invalid: bool,
}

/// Whom a recording keeps from calls that could disturb it: allocating, loading a module and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strict {
    Everyone,
    Thread(ThreadId),
    Nobody,
}

impl Strict {
    /// Whether the calling thread may not disturb the recording.
    pub(super) fn binds_me(self) -> bool {
        match self {
            Strict::Everyone => true,
            Strict::Thread(thread) => thread == std::thread::current().id(),
            Strict::Nobody => false,
        }
    }
}

/// An event.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) timing: bool,
    /// When it was recorded and what that comes after.
    pub(super) recorded: Option<(Instant, Clock)>,
    /// The recording and the stream in which it was recorded last.
    pub(super) captured: Option<(Handle, Handle)>,
}

/// A loaded module.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) kernels: HashMap<String, Arc<Program>>,
    /// Addresses and lengths of its variables.
    pub(super) variables: HashMap<String, (u64, u64)>,
    pub(super) symbols: Arc<SymbolTable>,
}

/// A kernel of a module.
#[derive(Clone, Debug)]
pub(super) struct Function {
    pub(super) module: Handle,
    pub(super) name: CString,
    pub(super) program: Arc<Program>,
    pub(super) symbols: Arc<SymbolTable>,
    /// Shared memory, static and dynamic, that a block may have.
    pub(super) shared_limit: u32,
    pub(super) version: i32,
}

/// An allocation that the program made.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) bytes: u64,
    pub(super) history: History,
}

/// The device.
#[derive(Debug)]
pub(super) struct State {
    pub(super) config: Config,
    pub(super) verbose: bool,
    pub(super) initialised: bool,
    /// The code of the fault after which nothing works any more.
    pub(super) fault: Option<i32>,
    pub(super) report: Option<String>,
    pub(super) planned: Vec<Planned>,
    handles: Handle,
    pub(super) contexts: Table<Context>,
    pub(super) streams: Table<Stream>,
    pub(super) captures: Table<Capture>,
    pub(super) events: Table<Event>,
    pub(super) modules: Table<Module>,
    pub(super) functions: Table<Arc<Function>>,
    pub(super) graphs: Table<Arc<[Work]>>,
    pub(super) executables: Table<Arc<[Work]>>,
    pub(super) pools: Table<()>,
    /// Shared with the kernels that run; module variables are in it as well.
    pub(super) memory: Arc<Memory>,
    pub(super) allocations: BTreeMap<u64, Owned>,
    /// Room for allocations in bytes; variables of modules take none of it.
    pub(super) limit: u64,
    pub(super) in_use: u64,
    pub(super) peak: u64,
    pub(super) allocated_ever: u64,
    /// Page-locked host memory.
    pub(super) pinned: BTreeMap<usize, Layout>,
    pub(super) clocks: Clocks,
    pub(super) stats: BTreeMap<String, KernelStats>,
}

impl Default for State {
    fn default() -> Self {
        let mut streams = Table::default();
        // The legacy stream and that of the thread, which all threads share here.
        streams.insert(0, Stream::default());
        streams.insert(2, Stream::default());
        Self {
            config: Config::default(),
            verbose: std::env::var_os("CONVPC_EMULATOR_VERBOSE").is_some(),
            initialised: false,
            fault: None,
            report: None,
            planned: Vec::new(),
            handles: 0x1000,
            contexts: Table::default(),
            streams,
            captures: Table::default(),
            events: Table::default(),
            modules: Table::default(),
            functions: Table::default(),
            graphs: Table::default(),
            executables: Table::default(),
            pools: Table::default(),
            memory: Arc::new(Memory::new(u64::MAX)),
            allocations: BTreeMap::new(),
            limit: DEFAULT_MEMORY,
            in_use: 0,
            peak: 0,
            allocated_ever: 0,
            pinned: BTreeMap::new(),
            clocks: Clocks::default(),
            stats: BTreeMap::new(),
        }
    }
}

impl State {
    /// The code with which a call is to fail, if the test has planned it.
    pub(super) fn planned_failure(&mut self, function: &str) -> Option<i32> {
        let mut found = None;
        self.planned.retain_mut(|planned| {
            if planned.function != function {
                return true;
            }
            planned.calls = planned.calls.saturating_sub(1);
            if planned.calls == 0 {
                found = found.or(Some(planned.code));
            }
            planned.calls > 0
        });
        found
    }

    /// A handle that was never given out.
    pub(super) fn new_handle(&mut self) -> Handle {
        self.handles += 0x10;
        self.handles
    }

    /// Fails unless `cuInit` has been called.
    pub(super) fn check_initialised(&self) -> Outcome {
        if self.initialised { Ok(()) } else { Err(Failure::new(NOT_INITIALIZED, "cuInit was not called")) }
    }

    /// Fails unless the thread has a context.
    pub(super) fn check_context(&self) -> Outcome {
        self.check_initialised()?;
        match self.contexts.get(current()) {
            Ok(context) if context.retained != Some(0) => Ok(()),
            _ => Err(Failure::new(INVALID_CONTEXT, "the thread has no current context, or a destroyed one")),
        }
    }

    /// Fails if a kernel has failed.
    pub(super) fn check_fault(&self) -> Outcome {
        self.fault.map_or(Ok(()), |code| Err(code.into()))
    }

    /// What nearly every call checks first.
    pub(super) fn check(&self) -> Outcome {
        self.check_context()?;
        self.check_fault()
    }

    /// The memory, to change its allocations.
    pub(super) fn memory_mut(&mut self) -> &mut Memory {
        // Kernels that run keep what they began with.
        Arc::make_mut(&mut self.memory)
    }

    /// Streams that wait for the legacy stream and it for them.
    pub(super) fn blocking_streams(&self) -> Vec<Handle> {
        self.streams.iter().filter(|(handle, stream)| *handle != 0 && !stream.non_blocking).map(|(h, _)| h).collect()
    }

    /// Starts an operation on a stream and notes what it uses.
    ///
    /// # Errors
    /// An earlier use in another stream that nothing orders before it.
    pub(super) fn note_uses(&mut self, stream: Handle, uses: &[(Use, Range<u64>)], what: &'static str) -> Outcome {
        let blocking = self.blocking_streams();
        let tick = self.clocks.start(stream, &blocking);
        let (clock, host) = (self.clocks.of(stream).clone(), self.clocks.host.clone());
        let mut found = None;
        for (how, range) in uses {
            if let Some((base, owned)) = self.allocations.range_mut(..=range.start).next_back()
                && range.start - base < owned.bytes
            {
                let problem = owned.history.add(tick, (&clock, &host), *how, range.clone(), what);
                found = found.or(problem);
            }
        }
        found.map_or(Ok(()), |problem| Err(Failure::new(LAUNCH_FAILED, problem)))
    }

    /// Brings everything to the start that does not belong to living objects.
    pub(super) fn reset(&mut self) {
        self.config = Config::default();
        self.limit = DEFAULT_MEMORY;
        self.fault = None;
        self.report = None;
        self.planned.clear();
        self.peak = self.in_use;
        self.clocks.host_waits_for_all();
    }
}

//! Launching a kernel: limits, the division of a grid among workers, statistics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::machine::block::{Job, Symbols, Worker};
use crate::machine::fault::Fault;
use crate::machine::memory::Memory;
use crate::machine::settings::{Order, Random, Settings};
use crate::ptx::program::Program;
use crate::stats::KernelStats;

/// Dynamic shared memory that a kernel may have without asking.
pub const DEFAULT_SHARED: u32 = 48 * 1024;
/// Shared memory that a kernel may have after asking, on a device of compute capability 9.0.
pub const MAX_SHARED: u32 = 227 * 1024;
/// Threads of a block.
pub const MAX_THREADS: u32 = 1024;

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block along each axis.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
}

/// Why a launch failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The shape or the parameters are not allowed.
    #[error("{0}")]
    Refused(String),
    /// The kernel did something wrong.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
}

impl Shape {
    /// Checks the limits of the device and of the kernel. `shared_limit` is what the kernel may have of shared memory
    /// in all.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Refused`] says which limit is exceeded.
    pub fn check(&self, program: &Program, shared_limit: u32) -> Result<(), LaunchError> {
        let refuse = |message: String| Err(LaunchError::Refused(format!("kernel {}: {message}", program.name)));
        let [gx, gy, gz] = self.grid;
        let [bx, by, bz] = self.block;
        if gx == 0 || gy == 0 || gz == 0 || gx > i32::MAX as u32 || gy > 65535 || gz > 65535 {
            return refuse(format!("a grid of {gx} x {gy} x {gz} blocks is not allowed"));
        }
        let threads = u64::from(bx) * u64::from(by) * u64::from(bz);
        if threads == 0 || bz > 64 || threads > u64::from(MAX_THREADS) {
            return refuse(format!("a block of {bx} x {by} x {bz} threads is not allowed"));
        }
        if threads > u64::from(program.max_threads) {
            return refuse(format!("{threads} threads, but .maxntid or .reqntid allows {}", program.max_threads));
        }
        if program.required_threads[0] != 0 && program.required_threads != self.block {
            return refuse(format!("a block of {bx} x {by} x {bz}, but .reqntid is {:?}", program.required_threads));
        }
        let shared = program.dynamic_base.max(program.static_shared).saturating_add(self.dynamic_shared);
        if shared > shared_limit {
            return refuse(format!("{shared} bytes of shared memory, but {shared_limit} are allowed"));
        }
        Ok(())
    }
}

/// Addresses of module variables by name.
#[derive(Clone, Debug, Default)]
pub struct SymbolTable(pub HashMap<String, u64>);

impl Symbols for SymbolTable {
    fn address(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }
}

/// Runs a kernel over its grid.
///
/// The first block runs on the calling thread; if it takes long enough, the others are divided among
/// [`Settings::workers`] threads. Results are the same for any number of workers unless blocks depend on each other's
/// order, as in floating-point atomics.
///
/// # Errors
///
/// A shape that is not allowed, or the first fault, which ends the launch.
pub fn launch(
    program: &Program,
    memory: &Memory,
    symbols: &dyn Symbols,
    parameters: &[u8],
    shape: Shape,
    settings: &Settings,
) -> Result<KernelStats, LaunchError> {
    shape.check(program, MAX_SHARED)?;
    if parameters.len() < program.parameter_bytes as usize {
        let message = format!("{} bytes of parameters, {} needed", parameters.len(), program.parameter_bytes);
        return Err(LaunchError::Refused(message));
    }
    let job = Job {
        program,
        memory,
        symbols,
        parameters,
        grid: shape.grid,
        block: shape.block,
        dynamic_shared: shape.dynamic_shared,
        settings,
    };
    let blocks: u64 = shape.grid.iter().map(|&count| u64::from(count)).product();
    let sequence = Sequence::new(settings.order, blocks);
    let mut worker = Worker::new(job);
    let first = worker.run(sequence.block(0));
    let mut stats = KernelStats::default();
    let first_count: u64 = worker.counts().iter().sum();
    let workers = worker_count(settings, blocks, first_count);
    let fault = match first {
        Err(fault) => Some(fault),
        Ok(()) if workers == 1 => (1..blocks).find_map(|i| worker.run(sequence.block(i)).err()),
        Ok(()) => run_parallel(job, &mut worker, &sequence, blocks, workers, &mut stats),
    };
    stats.add_counts(program, worker.counts());
    stats.launches += 1;
    match fault {
        None => Ok(stats),
        Some(fault) => Err(Box::new(fault).into()),
    }
}

/// Instructions below which another thread is not worth its start.
const WORTH_A_THREAD: u64 = 2_000_000;

fn worker_count(settings: &Settings, blocks: u64, first_count: u64) -> u64 {
    let available = match settings.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let rest = (blocks - 1).saturating_mul(first_count);
    (available as u64).min(blocks - 1).min(1 + rest / WORTH_A_THREAD).max(1)
}

fn run_parallel(
    job: Job<'_>,
    own: &mut Worker<'_>,
    sequence: &Sequence,
    blocks: u64,
    workers: u64,
    stats: &mut KernelStats,
) -> Option<Fault> {
    let next = AtomicU64::new(1);
    let failed = AtomicBool::new(false);
    // The fault of the earliest block, so that the report does not depend on timing more than it must.
    let fault: Mutex<Option<(u64, Fault)>> = Mutex::new(None);
    let work = |worker: &mut Worker<'_>| {
        while !failed.load(Relaxed) {
            let index = next.fetch_add(1, Relaxed);
            if index >= blocks {
                break;
            }
            if let Err(new) = worker.run(sequence.block(index)) {
                failed.store(true, Relaxed);
                let mut known = fault.lock().unwrap_or_else(PoisonError::into_inner);
                if known.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                    *known = Some((index, new));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (1..workers)
            .map(|_| {
                scope.spawn(|| {
                    let mut worker = Worker::new(job);
                    work(&mut worker);
                    worker.counts().to_vec()
                })
            })
            .collect();
        work(own);
        for handle in handles {
            if let Ok(counts) = handle.join() {
                stats.add_counts(job.program, &counts);
            }
        }
    });
    fault.into_inner().unwrap_or_else(PoisonError::into_inner).map(|(_, fault)| fault)
}

/// The order of the blocks of a grid.
enum Sequence {
    Ascending,
    Descending(u64),
    Listed(Vec<u64>),
}

impl Sequence {
    fn new(order: Order, blocks: u64) -> Self {
        match order {
            Order::Lockstep | Order::Ascending => Self::Ascending,
            Order::WarpsDescending | Order::Descending => Self::Descending(blocks - 1),
            Order::WarpsInterleaved(seed) | Order::Shuffled(seed) => {
                let mut list: Vec<u64> = (0..blocks).collect();
                Random(seed).shuffle(&mut list);
                Self::Listed(list)
            }
        }
    }

    fn block(&self, index: u64) -> u64 {
        match self {
            Self::Ascending => index,
            Self::Descending(last) => last - index,
            Self::Listed(list) => list[index as usize],
        }
    }
}

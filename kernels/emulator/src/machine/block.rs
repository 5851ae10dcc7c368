//! Blocks of a grid: their threads, their barriers, and the workers that run them.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::fault::{Fault, FaultKind, Trap, thread_index};
use super::memory::Memory;
use super::registers::LANES;
use super::settings::{Order, Random, Settings};
use super::shared::Shared;
use super::warp::Warp;
use crate::ptx::op::{BarRed, Op, Reg};
use crate::ptx::program::{Fixed, Program, Special};

/// A kernel with its grid and arguments.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The kernel.
    pub program: &'a Program,
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block along each axis.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The parameter buffer, laid out as [`Program::parameters`] say.
    pub parameters: &'a [u8],
    /// Addresses of module variables.
    pub symbols: &'a HashMap<String, u64>,
}

/// What was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks.
    pub blocks: u64,
    /// Instructions that warps issued.
    pub warp_instructions: u64,
    /// Instructions of single threads.
    pub instructions: u64,
    /// Matrix products of a warp.
    pub mma: u64,
    /// `ex2` of single threads.
    pub ex2: u64,
    /// `lg2` of single threads.
    pub lg2: u64,
    /// `fma` of single threads.
    pub fma: u64,
    /// Bytes that threads loaded from global memory, before any cache.
    pub global_load_bytes: u64,
    /// Bytes that threads stored to global memory.
    pub global_store_bytes: u64,
    /// Bytes to and from shared memory.
    pub shared_bytes: u64,
    /// Arrivals of warps at barriers of the block.
    pub barriers: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self { blocks, warp_instructions, instructions, mma, ex2, lg2, fma, .. } = other;
        self.blocks += blocks;
        self.warp_instructions += warp_instructions;
        self.instructions += instructions;
        self.mma += mma;
        self.ex2 += ex2;
        self.lg2 += lg2;
        self.fma += fma;
        self.global_load_bytes += other.global_load_bytes;
        self.global_store_bytes += other.global_store_bytes;
        self.shared_bytes += other.shared_bytes;
        self.barriers += other.barriers;
    }
}

/// A block while it runs. A worker uses one after the other.
pub(super) struct Block<'a> {
    pub(super) program: &'a Program,
    pub(super) memory: &'a Memory,
    pub(super) settings: &'a Settings,
    pub(super) parameters: &'a [u8],
    pub(super) wide_atomics: &'a Mutex<()>,
    pub(super) shared: Shared,
    pub(super) counts: Counts,
    /// The allocation that was accessed last.
    pub(super) nearest: usize,
    /// A register that holds a mask of all lanes.
    pub(super) full_mask: Reg,
    /// Instructions of warps that are left before the block counts as hanging.
    pub(super) budget: u64,
}

/// Runs a grid.
///
/// # Errors
/// The first fault, in the order of blocks among those that ran.
pub fn run(launch: &Launch, memory: &Memory, settings: &Settings) -> Result<Counts, Fault> {
    let [x, y, z] = launch.grid.map(u64::from);
    let blocks = x * y * z;
    let workers = match settings.workers {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    };
    let (next, first_fault) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let (faults, wide_atomics) = (Mutex::new(Vec::new()), Mutex::new(()));
    let total = Mutex::new(Counts::default());
    let work = || {
        let mut worker = Worker::new(launch, memory, settings, &wide_atomics);
        loop {
            let at = next.fetch_add(1, Relaxed);
            // Blocks after a faulty one need not run; those before it may be faulty as well.
            if at >= blocks || at > first_fault.load(Relaxed) {
                break;
            }
            let index = [at % x, at / x % y, at / x / y].map(|i| i as u32);
            if let Err(fault) = worker.run(index) {
                first_fault.fetch_min(at, Relaxed);
                faults.lock().unwrap_or_else(PoisonError::into_inner).push((at, fault));
            }
        }
        *total.lock().unwrap_or_else(PoisonError::into_inner) += worker.block.counts;
    };
    if workers.min(blocks as usize) <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..workers.min(blocks as usize) {
                scope.spawn(work);
            }
        });
    }
    let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    match faults.into_iter().min_by_key(|(at, _)| *at) {
        Some((_, fault)) => Err(fault),
        None => Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

struct Worker<'a> {
    launch: &'a Launch<'a>,
    block: Block<'a>,
    warps: Vec<Warp>,
}

impl<'a> Worker<'a> {
    fn new(launch: &'a Launch, memory: &'a Memory, settings: &'a Settings, wide_atomics: &'a Mutex<()>) -> Self {
        let program = launch.program;
        let threads: u32 = launch.block.iter().product();
        let warps = (0..threads.div_ceil(32) as usize).map(|index| {
            let mut warp = Warp { index, ..Warp::default() };
            let narrow = usize::from(program.narrow_registers) + program.narrow_fixed.len() + 1;
            warp.registers.narrow = vec![[u32::MAX; LANES]; narrow];
            warp.registers.wide =
                vec![[u64::MAX; LANES]; usize::from(program.wide_registers) + program.wide_fixed.len()];
            let fixed = program.predicate_fixed.iter().map(|truth| if *truth { u32::MAX } else { 0 });
            warp.registers.predicates = vec![0; usize::from(program.predicates)];
            warp.registers.predicates.extend(fixed);
            warp
        });
        let block = Block {
            program,
            memory,
            settings,
            parameters: launch.parameters,
            wide_atomics,
            shared: Shared::default(),
            counts: Counts::default(),
            nearest: 0,
            full_mask: program.narrow_registers + program.narrow_fixed.len() as u16,
            budget: 0,
        };
        Worker { launch, block, warps: warps.collect() }
    }

    /// Runs one block to its end.
    fn run(&mut self, index: [u32; 3]) -> Result<(), Fault> {
        let (launch, settings) = (self.launch, self.block.settings);
        let program = launch.program;
        let threads: u32 = launch.block.iter().product();
        let linear = index[0] + launch.grid[0] * (index[1] + launch.grid[1] * index[2]);
        let seed = match settings.order {
            Order::Shuffled(seed) | Order::WarpsInterleaved(seed) => seed,
            _ => 0,
        };
        let mut random = Random(seed ^ u64::from(linear) << 20);
        let shared = program.static_shared.max(program.dynamic_base) + launch.dynamic_shared;
        self.block.shared.reset(shared, settings.strict, settings.races);
        self.block.budget = settings.budget;
        self.block.counts.blocks += 1;
        for warp in &mut self.warps {
            let lanes = (threads - 32 * warp.index as u32).min(32);
            warp.reset(lanes, program.local_bytes as usize, settings.order, &mut random);
            warp.registers.poison(usize::from(program.narrow_registers), usize::from(program.wide_registers));
            fill_fixed(warp, launch, index);
        }
        loop {
            self.run_warps(&mut random).map_err(|(trap, warp)| trap.locate(program, index, launch.block, warp))?;
            if self.warps.iter().all(Warp::has_left) {
                return Ok(());
            }
            self.release().map_err(|(trap, warp)| trap.locate(program, index, launch.block, warp))?;
        }
    }

    /// Runs every warp until none can.
    fn run_warps(&mut self, random: &mut Random) -> Result<(), (Box<Trap>, usize)> {
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
        let order_of = self.block.settings.order;
        match order_of {
            Order::WarpsDescending | Order::Descending => order.reverse(),
            Order::Shuffled(_) => random.shuffle(&mut order),
            _ => {}
        }
        while self.warps.iter().any(|warp| warp.running != 0) {
            if let Order::WarpsInterleaved(_) = order_of {
                random.shuffle(&mut order);
            }
            for &at in &order {
                let most = match order_of {
                    Order::WarpsInterleaved(_) => 1 + random.next() % 64,
                    _ => u64::MAX,
                };
                self.block.run(&mut self.warps[at], most).map_err(|trap| (trap, at))?;
            }
        }
        Ok(())
    }

    /// Lets the threads of a complete barrier go on.
    fn release(&mut self) -> Result<(), (Box<Trap>, usize)> {
        let waiting: Vec<(usize, usize)> = self
            .warps
            .iter()
            .enumerate()
            .flat_map(|(at, warp)| (0..LANES).filter(|lane| warp.at_barrier >> lane & 1 != 0).map(move |lane| (at, lane)))
            .collect();
        let alive: u32 = self.warps.iter().map(|warp| (!warp.gone).count_ones()).sum();
        let ids: Vec<u32> = {
            let mut ids: Vec<u32> = waiting.iter().map(|&(at, lane)| self.warps[at].barriers[lane].id).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        for id in ids {
            let here: Vec<(usize, usize)> =
                waiting.iter().copied().filter(|&(at, lane)| self.warps[at].barriers[lane].id == id).collect();
            let (at, lane) = here[0];
            let needed = match self.warps[at].barriers[lane].threads {
                0 => alive,
                threads => threads,
            };
            let pc = self.warps[at].pcs[lane];
            if let Some(&(other, lane)) = here.iter().find(|&&(at, lane)| self.warps[at].pcs[lane] != pc) {
                let line = self.block.program.line(pc);
                let detail = format!("this thread is at a barrier while another is at the one of PTX line {line}");
                let trap = Trap::new(FaultKind::BarrierDivergence, self.warps[other].pcs[lane], lane, detail);
                return Err((trap, other));
            }
            if here.len() as u32 == needed {
                self.pass(pc, &here);
                return Ok(());
            }
        }
        Err(self.stuck(&waiting, alive))
    }

    /// Threads leave a barrier together.
    fn pass(&mut self, pc: u32, threads: &[(usize, usize)]) {
        if let Op::BarrierReduce { f, d, a, negated, .. } = self.block.program.code[pc as usize].op {
            let truth = |&&(at, lane): &&(usize, usize)| {
                let bits = self.warps[at].registers.p(a);
                (if negated { !bits } else { bits }) >> lane & 1 != 0
            };
            let count = threads.iter().filter(truth).count();
            for warp in &mut self.warps {
                let lanes = warp.at_barrier;
                match f {
                    BarRed::Popc => warp.registers.put_n(lanes, d, [count as u32; LANES]),
                    BarRed::And => warp.registers.put_p(lanes, d, if count == threads.len() { u32::MAX } else { 0 }),
                    BarRed::Or => warp.registers.put_p(lanes, d, if count > 0 { u32::MAX } else { 0 }),
                }
            }
        }
        let mut warps = 0u32;
        for &(at, lane) in threads {
            let warp = &mut self.warps[at];
            warp.pcs[lane] = pc + 1;
            warp.at_barrier &= !(1 << lane);
            warp.running |= 1 << lane;
            warps |= 1 << at;
        }
        if let Some(races) = &mut self.block.shared.races {
            races.barrier(warps);
        }
    }

    /// Why nobody can go on.
    fn stuck(&self, waiting: &[(usize, usize)], alive: u32) -> (Box<Trap>, usize) {
        let at_sync = self.warps.iter().enumerate().find(|(_, warp)| warp.at_sync != 0);
        if let Some((at, warp)) = at_sync {
            let lane = warp.at_sync.trailing_zeros() as usize;
            let detail = "this lane waits for lanes of its mask that do not come".to_string();
            return (Trap::new(FaultKind::Deadlock, warp.pcs[lane], lane, detail), at);
        }
        let (at, lane) = waiting.first().copied().unwrap_or((0, 0));
        let detail = format!("{} threads wait at barriers, {alive} are alive, and no barrier is complete", waiting.len());
        (Trap::new(FaultKind::BarrierDivergence, self.warps[at].pcs[lane], lane, detail), at)
    }
}

/// Writes constants and special registers behind the registers.
fn fill_fixed(warp: &mut Warp, launch: &Launch, block: [u32; 3]) {
    let program = launch.program;
    let value = |fixed: &Fixed| match fixed {
        Fixed::Value(value) => *value,
        Fixed::Symbol(name, distance) => launch.symbols.get(name).map_or(0, |a| a.wrapping_add_signed(*distance)),
        Fixed::Special(_) => 0,
    };
    let base = usize::from(program.narrow_registers);
    for (at, fixed) in program.narrow_fixed.iter().enumerate() {
        warp.registers.narrow[base + at] = match fixed {
            Fixed::Special(special) => {
                std::array::from_fn(|lane| special_value(*special, launch, block, warp.index, lane))
            }
            other => [value(other) as u32; LANES],
        };
    }
    warp.registers.narrow[base + program.narrow_fixed.len()] = [u32::MAX; LANES];
    let base = usize::from(program.wide_registers);
    for (at, fixed) in program.wide_fixed.iter().enumerate() {
        warp.registers.wide[base + at] = [value(fixed); LANES];
    }
}

fn special_value(special: Special, launch: &Launch, block: [u32; 3], warp: usize, lane: usize) -> u32 {
    let thread = thread_index((32 * warp + lane) as u32, launch.block);
    let threads: u32 = launch.block.iter().product();
    let shared = launch.program.dynamic_base.max(launch.program.static_shared);
    match special {
        Special::Tid(axis) => thread[usize::from(axis)],
        Special::Ntid(axis) => launch.block[usize::from(axis)],
        Special::Ctaid(axis) => block[usize::from(axis)],
        Special::Nctaid(axis) => launch.grid[usize::from(axis)],
        Special::LaneId => lane as u32,
        Special::WarpId => warp as u32,
        Special::NWarpId => threads.div_ceil(32),
        Special::SmId | Special::GridId => 0,
        Special::NSmId => 1,
        Special::LaneMaskEq => 1 << lane,
        Special::LaneMaskLe => u32::MAX >> (31 - lane),
        Special::LaneMaskLt => (1 << lane) - 1,
        Special::LaneMaskGe => u32::MAX << lane,
        Special::LaneMaskGt => (u32::MAX << lane) & !(1 << lane),
        Special::DynamicSharedBytes => launch.dynamic_shared,
        Special::TotalSharedBytes => shared + launch.dynamic_shared,
    }
}

//! A block: its warps in turn, its barriers, and the worker that runs one block after the other.

use super::exec::{BARRIERS, Env, run};
use super::fault::{Fault, FaultKind, Trap};
use super::memory::Memory;
use super::registers::{LANES, Registers};
use super::settings::{Order, Random, Settings};
use super::shared::Shared;
use super::warp::Warp;
use crate::ptx::op::{BarRed, NONE, Op, Reg};
use crate::ptx::program::{Fixed, Program, Special};

/// A kernel launch as a worker sees it.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The kernel.
    pub program: &'a Program,
    /// Global memory.
    pub memory: &'a Memory,
    /// Addresses of the module's variables.
    pub symbols: &'a dyn Symbols,
    /// The parameter buffer.
    pub parameters: &'a [u8],
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block along each axis.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// How to run.
    pub settings: &'a Settings,
}

/// Where module variables lie.
pub trait Symbols: Sync + std::fmt::Debug {
    /// The address of a variable.
    fn address(&self, name: &str) -> Option<u64>;
}

/// Runs blocks of one launch.
pub struct Worker<'a> {
    job: Job<'a>,
    env: Env<'a>,
    warps: Vec<Warp>,
    /// Places of `%ctaid` among the narrow registers.
    block_index: Vec<(usize, usize)>,
}

impl<'a> Worker<'a> {
    /// A worker with its registers' constants in place.
    pub fn new(job: Job<'a>) -> Self {
        let threads = job.block.iter().product::<u32>();
        let program = job.program;
        let mut block_index = Vec::new();
        for (index, fixed) in program.narrow_fixed.iter().enumerate() {
            if let Fixed::Special(Special::Ctaid(axis)) = fixed {
                block_index.push((usize::from(program.narrow_registers) + index, usize::from(*axis)));
            }
        }
        let warps = (0..threads.div_ceil(32))
            .map(|index| Warp { index: index as usize, registers: registers(&job, index), ..Warp::default() })
            .collect();
        // One register behind the constants holds the mask of whole-warp instructions.
        let full_mask = program.narrow_registers + program.narrow_fixed.len() as Reg;
        let env = Env {
            program,
            memory: job.memory,
            parameters: job.parameters,
            settings: job.settings,
            shared: Shared::default(),
            counts: vec![0; program.code.len()],
            hints: vec![u32::MAX; program.code.len()],
            arrived: [0; BARRIERS],
            budget: 0,
            full_mask,
        };
        Self { job, env, warps, block_index }
    }

    /// How often each instruction was executed, counted by threads.
    pub fn counts(&self) -> &[u64] {
        &self.env.counts
    }

    /// Runs a block by its number in the grid.
    ///
    /// # Errors
    ///
    /// What the block did wrong.
    pub fn run(&mut self, number: u64) -> Result<(), Fault> {
        let [gx, gy, _] = self.job.grid.map(u64::from);
        let index = [(number % gx) as u32, (number / gx % gy) as u32, (number / gx / gy) as u32];
        self.reset(number, index);
        let shape = self.job.block;
        self.run_warps(number).map_err(|(trap, warp)| trap.locate(self.job.program, index, shape, warp))
    }

    fn reset(&mut self, number: u64, index: [u32; 3]) {
        let Self { job, env, warps, block_index } = self;
        let settings = job.settings;
        let threads = job.block.iter().product::<u32>();
        let program = job.program;
        let mut random = Random(number ^ settings.order.to_numbers().1);
        env.shared.reset(
            program.dynamic_base.max(program.static_shared) + job.dynamic_shared,
            settings.strict,
            settings.races,
        );
        env.arrived = [0; BARRIERS];
        env.budget = settings.budget;
        for warp in warps {
            let first = 32 * warp.index as u32;
            warp.reset((threads - first).min(32), program.local_bytes as usize, settings.order, &mut random);
            warp.registers.poison(&program.unwritten_narrow, &program.unwritten_wide);
            for (register, axis) in block_index.iter() {
                warp.registers.narrow[*register] = [index[*axis]; LANES];
            }
        }
    }

    fn run_warps(&mut self, number: u64) -> Result<(), (Trap, usize)> {
        let order = self.job.settings.order;
        let mut random = Random(number.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ order.to_numbers().1);
        let mut sequence: Vec<usize> = (0..self.warps.len()).collect();
        if matches!(order, Order::Descending | Order::WarpsDescending) {
            sequence.reverse();
        }
        loop {
            let mut progress = false;
            if matches!(order, Order::Shuffled(_) | Order::WarpsInterleaved(_)) {
                random.shuffle(&mut sequence);
            }
            for &index in &sequence {
                let warp = &mut self.warps[index];
                if warp.running == 0 {
                    continue;
                }
                progress = true;
                let fuel = match order {
                    Order::WarpsInterleaved(_) => 1 + random.next() % 64,
                    _ => u64::MAX,
                };
                run(warp, &mut self.env, fuel).map_err(|trap| (*trap, index))?;
                if self.env.budget == 0 {
                    let pc = warp.pcs.iter().copied().min().unwrap_or(0);
                    let detail = format!("more than {} instructions of its warps", self.job.settings.budget);
                    return Err((*Trap::new(FaultKind::Hang, pc, 0, detail), index));
                }
            }
            if progress {
                continue;
            }
            if self.warps.iter().all(Warp::has_left) {
                return Ok(());
            }
            self.release()?;
        }
    }

    /// Releases a barrier at which all have arrived that take part.
    fn release(&mut self) -> Result<(), (Trap, usize)> {
        for id in 0..BARRIERS as u32 {
            let mut waiting: Vec<(usize, usize)> = Vec::new();
            for (index, warp) in self.warps.iter().enumerate() {
                waiting.extend(
                    (0..LANES)
                        .filter(|lane| warp.at_barrier >> lane & 1 != 0 && warp.barriers[*lane].id == id)
                        .map(|lane| (index, lane)),
                );
            }
            let Some(&(warp, lane)) = waiting.first() else { continue };
            let wanted = match self.warps[warp].barriers[lane].threads {
                0 => self.warps.iter().map(|warp| (!warp.gone).count_ones()).sum(),
                threads => threads,
            };
            if (waiting.len() as u32) + self.env.arrived[id as usize] < wanted {
                continue;
            }
            self.check_same(&waiting)?;
            self.env.arrived[id as usize] = 0;
            self.pass(&waiting);
            return Ok(());
        }
        Err(self.stuck())
    }

    /// All must have come to the same instruction.
    fn check_same(&self, waiting: &[(usize, usize)]) -> Result<(), (Trap, usize)> {
        let pc_of = |&(warp, lane): &(usize, usize)| self.warps[warp].pcs[lane];
        let Some(first) = waiting.first().map(pc_of) else { return Ok(()) };
        match waiting.iter().find(|place| pc_of(place) != first) {
            None => Ok(()),
            Some(&(warp, lane)) => {
                let line = |pc| self.job.program.line(pc);
                let detail = format!(
                    "threads of the block wait at different barriers, in lines {} and {}",
                    line(first),
                    line(self.warps[warp].pcs[lane])
                );
                Err((*Trap::new(FaultKind::BarrierDivergence, self.warps[warp].pcs[lane], lane, detail), warp))
            }
        }
    }

    fn pass(&mut self, waiting: &[(usize, usize)]) {
        let Some(&(warp, lane)) = waiting.first() else { return };
        let pc = self.warps[warp].pcs[lane];
        let reduction = match self.job.program.code[pc as usize].op {
            Op::BarrierReduce { f, a, negated, d, .. } => {
                let holds =
                    |&(warp, lane): &(usize, usize)| (self.warps[warp].registers.p(a) >> lane & 1 != 0) != negated;
                let count = waiting.iter().filter(|place| holds(place)).count();
                Some((f, d, count))
            }
            _ => None,
        };
        let mut met = 0u32;
        for &(index, lane) in waiting {
            let warp = &mut self.warps[index];
            met |= 1 << index;
            let bit = 1u32 << lane;
            match reduction {
                Some((_, NONE, _)) | None => {}
                Some((BarRed::Popc, d, count)) => warp.registers.narrow[usize::from(d)][lane] = count as u32,
                Some((f, d, count)) => {
                    let result = if f == BarRed::And { count == waiting.len() } else { count > 0 };
                    warp.registers.put_p(bit, d, if result { bit } else { 0 });
                }
            }
            warp.at_barrier &= !bit;
            warp.running |= bit;
            warp.pcs[lane] = pc + 1;
        }
        if let Some(races) = &mut self.env.shared.races {
            races.barrier(met);
        }
    }

    /// Nobody can run on: who waits where?
    fn stuck(&self) -> (Trap, usize) {
        let mut places: Vec<(u32, bool, u32)> = Vec::new();
        let mut first = None;
        for (index, warp) in self.warps.iter().enumerate() {
            for lane in (0..LANES).filter(|lane| (warp.at_barrier | warp.at_sync) >> lane & 1 != 0) {
                first.get_or_insert((index, lane));
                let place = (warp.pcs[lane], warp.at_barrier >> lane & 1 != 0);
                match places.iter_mut().find(|(pc, barrier, _)| (*pc, *barrier) == place) {
                    Some((_, _, count)) => *count += 1,
                    None => places.push((place.0, place.1, 1)),
                }
            }
        }
        let (warp, lane) = first.unwrap_or((0, 0));
        let list: Vec<String> = places
            .iter()
            .map(|(pc, barrier, count)| {
                let what = if *barrier { "at the barrier" } else { "for other lanes" };
                format!("{count} threads wait {what} in line {}", self.job.program.line(*pc))
            })
            .collect();
        let barriers = places.iter().filter(|(_, barrier, _)| *barrier).count();
        let kind = if barriers > 1 { FaultKind::BarrierDivergence } else { FaultKind::Deadlock };
        let pc = self.warps.get(warp).map_or(0, |warp| warp.pcs[lane]);
        (*Trap::new(kind, pc, lane, format!("no thread can go on: {}", list.join(", "))), warp)
    }
}

/// Registers with constants and special registers in place.
fn registers(job: &Job<'_>, warp: u32) -> Registers {
    let program = job.program;
    let mut registers = Registers {
        narrow: vec![[0; LANES]; usize::from(program.narrow_registers)],
        wide: vec![[0; LANES]; usize::from(program.wide_registers)],
        predicates: vec![0; usize::from(program.predicates)],
    };
    for fixed in &program.narrow_fixed {
        registers.narrow.push(std::array::from_fn(|lane| match fixed {
            Fixed::Value(value) => *value as u32,
            Fixed::Special(special) => special_value(*special, job, 32 * warp + lane as u32),
            Fixed::Symbol(..) => 0,
        }));
    }
    registers.narrow.push([u32::MAX; LANES]);
    for fixed in &program.wide_fixed {
        let value = match fixed {
            Fixed::Value(value) => *value,
            Fixed::Symbol(name, distance) => job.symbols.address(name).unwrap_or(0).wrapping_add(*distance as u64),
            Fixed::Special(_) => 0,
        };
        registers.wide.push([value; LANES]);
    }
    registers.predicates.extend(program.predicate_fixed.iter().map(|value| if *value { u32::MAX } else { 0 }));
    registers
}

fn special_value(special: Special, job: &Job<'_>, thread: u32) -> u32 {
    let lane = thread % 32;
    match special {
        Special::Tid(axis) => super::fault::thread_index(thread, job.block)[usize::from(axis)],
        Special::Ntid(axis) => job.block[usize::from(axis)],
        Special::Nctaid(axis) => job.grid[usize::from(axis)],
        Special::LaneId => lane,
        Special::WarpId => thread / 32,
        Special::NWarpId => 32,
        Special::NSmId => 1,
        Special::LaneMaskEq => 1 << lane,
        Special::LaneMaskLt => (1 << lane) - 1,
        Special::LaneMaskLe => (1 << lane) | ((1 << lane) - 1),
        Special::LaneMaskGe => !((1 << lane) - 1),
        Special::LaneMaskGt => !((1 << lane) | ((1 << lane) - 1)),
        Special::DynamicSharedBytes => job.dynamic_shared,
        Special::TotalSharedBytes => job.program.dynamic_base + job.dynamic_shared,
        // The block's index is filled in for each block; there is one multiprocessor and one grid.
        Special::Ctaid(_) | Special::SmId | Special::GridId => 0,
    }
}

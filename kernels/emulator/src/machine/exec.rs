//! The loop that runs a warp.

use super::access::{self, AsyncCopy, Transfer};
use super::alu;
use super::atomics;
use super::collective;
use super::fault::{FaultKind, Trap};
use super::memory::Memory;
use super::product;
use super::registers::LANES;
use super::settings::Settings;
use super::shared::Shared;
use super::warp::{Waiting, Warp};
use crate::ptx::op::{NONE, Op, Reg};
use crate::ptx::program::Program;

/// What the warps of a block share.
pub(super) struct Env<'a> {
    pub(super) program: &'a Program,
    pub(super) memory: &'a Memory,
    pub(super) parameters: &'a [u8],
    pub(super) settings: &'a Settings,
    pub(super) shared: Shared,
    /// Lanes that have executed each instruction.
    pub(super) counts: Vec<u64>,
    /// The allocation that each instruction accessed last.
    pub(super) hints: Vec<u32>,
    /// Threads that have arrived at each barrier without waiting.
    pub(super) arrived: [u32; BARRIERS],
    /// Warp instructions left before the block counts as hanging.
    pub(super) budget: u64,
    /// The narrow constant that is all ones: the mask of instructions that need the whole warp.
    pub(super) full_mask: Reg,
}

/// Barriers of a block.
pub(super) const BARRIERS: usize = 16;

/// Runs a warp until none of its lanes can run or `fuel` instructions have been executed.
pub(super) fn run(warp: &mut Warp, env: &mut Env<'_>, fuel: u64) -> Result<(), Box<Trap>> {
    #[cfg(target_arch = "x86_64")]
    if vector::available() {
        return vector::run(warp, env, fuel);
    }
    run_lanes(warp, env, fuel)
}

/// The same loop compiled for AVX2 and FMA, without which a fused multiply-add is a call of the C library.
#[cfg(target_arch = "x86_64")]
mod vector {
    #![allow(unsafe_code, reason = "a function compiled for instructions that are tested for at run time")]

    use super::{Env, Trap, Warp, run_lanes};

    pub(super) fn available() -> bool {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }

    pub(super) fn run(warp: &mut Warp, env: &mut Env<'_>, fuel: u64) -> Result<(), Box<Trap>> {
        // SAFETY: the caller has asked `available`.
        unsafe { run_compiled(warp, env, fuel) }
    }

    #[target_feature(enable = "avx2,fma")]
    fn run_compiled(warp: &mut Warp, env: &mut Env<'_>, fuel: u64) -> Result<(), Box<Trap>> {
        run_lanes(warp, env, fuel)
    }
}

#[inline(always)]
fn run_lanes(warp: &mut Warp, env: &mut Env<'_>, fuel: u64) -> Result<(), Box<Trap>> {
    let program = env.program;
    let hardware_error = env.settings.hardware_error;
    let by_thread = env.settings.order.is_by_thread();
    let mut fuel = fuel.min(env.budget);
    let start = fuel;
    while let Some(group) = warp.select(by_thread) {
        let (mut pc, mut active) = (group.pc, group.active);
        // Runs the group until its lanes part, meet others, or have to wait.
        loop {
            if pc >= group.stop && pc != group.pc || fuel == 0 {
                warp.set_pcs(active, pc);
                break;
            }
            fuel -= 1;
            let Some(inst) = program.code.get(pc as usize) else { break };
            let mut lanes = active;
            if inst.guard != NONE {
                let bits = warp.registers.p(inst.guard);
                lanes &= if inst.negated { !bits } else { bits };
            }
            env.counts[pc as usize] += u64::from(lanes.count_ones());
            if lanes == 0 || alu::execute(&mut warp.registers, lanes, &inst.op, program, hardware_error) {
                pc += 1;
                continue;
            }
            match step(warp, env, pc, lanes, active, &inst.op)? {
                Next::On => pc += 1,
                Next::Jump(target) => {
                    if target <= pc && target < group.pc {
                        // Behind where the group began: others may wait in between.
                        warp.set_pcs(active, target);
                        break;
                    }
                    pc = target;
                }
                Next::Select => break,
                Next::Without(gone) => {
                    active &= !gone;
                    if active == 0 {
                        break;
                    }
                    pc += 1;
                }
            }
        }
        if fuel == 0 {
            break;
        }
    }
    env.budget -= start - fuel;
    Ok(())
}

/// Where a group goes after an instruction.
pub(super) enum Next {
    /// To the next instruction.
    On,
    /// All together to another one.
    Jump(u32),
    /// The lanes' places have been written down: choose anew.
    Select,
    /// To the next instruction without these lanes.
    Without(u32),
}

/// Instructions that do more than arithmetic.
#[inline(always)]
fn step(warp: &mut Warp, env: &mut Env<'_>, pc: u32, lanes: u32, active: u32, op: &Op) -> Result<Next, Box<Trap>> {
    match *op {
        Op::Branch { target } => {
            let stay = active & !lanes;
            if stay == 0 {
                return Ok(Next::Jump(target));
            }
            warp.set_pcs(lanes, target);
            warp.set_pcs(stay, pc + 1);
            return Ok(Next::Select);
        }
        Op::Load { space, elem, count, addr, d } => {
            access::load(warp, env, pc, lanes, &Transfer { space, elem, count, addr, registers: d })?;
        }
        Op::Store { space, elem, count, addr, a } => {
            access::store(warp, env, pc, lanes, &Transfer { space, elem, count, addr, registers: a })?;
        }
        Op::Mma { index } => {
            let ready = warp.meet_all(pc, lanes, env.full_mask)?;
            let product = &env.program.products[usize::from(index)];
            if ready != 0 {
                product::multiply(&mut warp.registers, product, env.settings.hardware_error);
            }
            return Ok(after_meeting(warp, pc, lanes, active, ready));
        }
        _ => return rare_step(warp, env, pc, lanes, active, op),
    }
    Ok(Next::On)
}

#[inline(never)]
fn rare_step(warp: &mut Warp, env: &mut Env<'_>, pc: u32, lanes: u32, active: u32, op: &Op) -> Result<Next, Box<Trap>> {
    let lane = lanes.trailing_zeros() as usize;
    match *op {
        Op::Exit => {
            warp.gone |= lanes;
            warp.running &= !lanes;
            return Ok(Next::Without(lanes));
        }
        Op::Trap => return Err(Trap::new(FaultKind::Trap, pc, lane, "the kernel executed trap")),
        Op::Fence => {}
        Op::Clock32 { d } => warp.registers.put_n(lanes, d, [env.budget.wrapping_neg() as u32; LANES]),
        Op::Clock64 { d } => warp.registers.put_w(lanes, d, [env.budget.wrapping_neg(); LANES]),
        Op::ActiveMask { d } => warp.registers.put_n(lanes, d, [lanes; LANES]),
        Op::Atomic { f, wide, space, addr, d, b, c } => {
            atomics::execute(warp, env, pc, lanes, &atomics::Update { f, wide, space, addr, d, b, c })?;
        }
        Op::CopyAsync { bytes, to, from, size } => {
            access::copy_async(warp, env, pc, lanes, &AsyncCopy { bytes, to, from, size })?;
        }
        Op::CopyCommit => {
            for (lane, group) in warp.groups.iter_mut().enumerate() {
                *group += lanes >> lane & 1;
            }
        }
        Op::CopyWait { pending } => access::copy_wait(warp, env, pc, lanes, pending)?,
        Op::Shuffle { mask, .. } | Op::Vote { mask, .. } | Op::Redux { mask, .. } | Op::WarpSync { mask } => {
            let ready = warp.meet(pc, lanes, mask)?;
            collective::execute(warp, ready, op);
            if ready != 0
                && matches!(op, Op::WarpSync { .. })
                && let Some(races) = &mut env.shared.races
            {
                races.warp_sync(warp.index);
            }
            return Ok(after_meeting(warp, pc, lanes, active, ready));
        }
        Op::LoadMatrix { count, transpose, addr, d } => {
            let ready = warp.meet_all(pc, lanes, env.full_mask)?;
            if ready != 0 {
                collective::load_matrix(warp, env, pc, count, transpose, addr, d)?;
            }
            return Ok(after_meeting(warp, pc, lanes, active, ready));
        }
        Op::Barrier { id, threads, wait } => {
            arrive(warp, env, pc, lanes, id, threads, wait)?;
            if wait {
                return Ok(wait_at(warp, pc, lanes, active));
            }
        }
        Op::BarrierReduce { id, threads, .. } => {
            arrive(warp, env, pc, lanes, id, threads, true)?;
            return Ok(wait_at(warp, pc, lanes, active));
        }
        _ => return Err(Trap::new(FaultKind::Trap, pc, lane, "the instruction has no implementation")),
    }
    Ok(Next::On)
}

/// Where the group goes after its lanes met others, `ready` having executed the instruction.
fn after_meeting(warp: &mut Warp, pc: u32, lanes: u32, active: u32, ready: u32) -> Next {
    if ready == lanes {
        return Next::On;
    }
    // Lanes that were switched off go on, lanes that had been waiting are released.
    warp.set_pcs(active & !lanes | ready, pc + 1);
    Next::Select
}

/// Notes that lanes have come to a barrier of the block.
fn arrive(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    id: Reg,
    threads: Reg,
    wait: bool,
) -> Result<(), Box<Trap>> {
    for lane in (0..LANES).filter(|lane| lanes >> lane & 1 != 0) {
        let id = warp.registers.n(id)[lane];
        let threads = if threads == NONE { 0 } else { warp.registers.n(threads)[lane] };
        if id as usize >= BARRIERS {
            return Err(Trap::new(FaultKind::BarrierDivergence, pc, lane, format!("there is no barrier {id}")));
        }
        if !threads.is_multiple_of(LANES as u32) {
            let detail = format!("barrier {id} for {threads} threads, which is no number of whole warps");
            return Err(Trap::new(FaultKind::BarrierDivergence, pc, lane, detail));
        }
        if wait {
            warp.barriers[lane] = Waiting { id, threads };
        } else {
            env.arrived[id as usize] += 1;
        }
    }
    Ok(())
}

fn wait_at(warp: &mut Warp, pc: u32, lanes: u32, active: u32) -> Next {
    warp.at_barrier |= lanes;
    warp.running &= !lanes;
    warp.set_pcs(lanes, pc);
    warp.set_pcs(active & !lanes, pc + 1);
    Next::Select
}

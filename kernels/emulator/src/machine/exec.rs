//! A warp executes instructions until its lanes wait or have left.

use super::alu;
use super::block::Block;
use super::fault::{FaultKind, Trap};
use super::registers::ALL;
use super::warp::{Group, Waiting, Warp};
use crate::ptx::op::{NONE, Op, Reg};

/// What becomes of the lanes that run together after an instruction.
enum Next {
    /// They go on with the next instruction.
    Step,
    /// They go on elsewhere.
    Jump(u32),
    /// Some have gone a way of their own: the lanes to run are chosen anew.
    Select,
}

impl Block<'_> {
    /// Runs a warp until no lane can run, or for so many instructions.
    pub(super) fn run(&mut self, warp: &mut Warp, most: u64) -> Result<(), Box<Trap>> {
        let mut left = most;
        while let Some(group) = warp.select(self.settings.order.is_by_thread()) {
            if left == 0 {
                return Ok(());
            }
            self.run_group(warp, group, &mut left)?;
        }
        Ok(())
    }

    fn run_group(&mut self, warp: &mut Warp, group: Group, left: &mut u64) -> Result<(), Box<Trap>> {
        let Group { mut pc, active, stop } = group;
        let program = self.program;
        loop {
            if pc >= stop || *left == 0 {
                warp.set_pcs(active, pc);
                return Ok(());
            }
            *left -= 1;
            self.budget = self.budget.checked_sub(1).ok_or_else(|| {
                let detail = format!("the block has executed {} instructions of warps", self.settings.budget);
                Trap::new(FaultKind::Hang, pc, active.trailing_zeros() as usize, detail)
            })?;
            let inst = &program.code[pc as usize];
            let lanes = match inst.guard {
                NONE => active,
                guard if inst.negated => active & !warp.registers.p(guard),
                guard => active & warp.registers.p(guard),
            };
            self.counts.warp_instructions += 1;
            self.counts.instructions += u64::from(lanes.count_ones());
            if alu::execute(&mut warp.registers, lanes, &inst.op, program, self.settings.hardware_error) {
                self.count_arithmetic(&inst.op, lanes);
                pc += 1;
                continue;
            }
            match self.other(warp, pc, active, lanes, &inst.op)? {
                Next::Step => pc += 1,
                Next::Jump(to) => pc = to,
                Next::Select => return Ok(()),
            }
        }
    }

    fn count_arithmetic(&mut self, op: &Op, lanes: u32) {
        use crate::ptx::op::FloatUnary::{Ex2, Lg2};
        let lanes = u64::from(lanes.count_ones());
        match op {
            Op::Fma32 { .. } => self.counts.fma += lanes,
            Op::FloatUnary32 { f: Ex2, .. } => self.counts.ex2 += lanes,
            Op::FloatUnary32 { f: Lg2, .. } => self.counts.lg2 += lanes,
            _ => {}
        }
    }

    /// Everything that is not arithmetic.
    fn other(&mut self, warp: &mut Warp, pc: u32, active: u32, lanes: u32, op: &Op) -> Result<Next, Box<Trap>> {
        let rest = active & !lanes;
        match *op {
            Op::Branch { target } if lanes == active => return Ok(Next::Jump(target)),
            Op::Branch { .. } if lanes == 0 => {}
            Op::Branch { target } => {
                warp.set_pcs(lanes, target);
                warp.set_pcs(rest, pc + 1);
                return Ok(Next::Select);
            }
            Op::Exit => {
                if lanes != 0 {
                    warp.leave(lanes);
                    warp.set_pcs(rest, pc + 1);
                    return Ok(Next::Select);
                }
            }
            Op::Trap if lanes != 0 => {
                let lane = lanes.trailing_zeros() as usize;
                return Err(Trap::new(FaultKind::Trap, pc, lane, "the kernel executed trap"));
            }
            Op::Barrier { wait: false, .. } => {
                let lane = active.trailing_zeros() as usize;
                return Err(Trap::new(FaultKind::Trap, pc, lane, "bar.arrive is not supported"));
            }
            Op::Barrier { id, threads, .. } | Op::BarrierReduce { id, threads, .. } => {
                if lanes != 0 {
                    self.counts.barriers += 1;
                    wait_at_barrier(warp, pc, lanes, id, threads);
                    warp.set_pcs(rest, pc + 1);
                    return Ok(Next::Select);
                }
            }
            Op::Shuffle { mask, .. } | Op::Vote { mask, .. } | Op::Redux { mask, .. } | Op::WarpSync { mask } => {
                return self.together(warp, pc, active, lanes, op, Some(mask));
            }
            Op::Mma { .. } | Op::LoadMatrix { .. } => return self.together(warp, pc, active, lanes, op, None),
            Op::ActiveMask { d } => {
                let row = [lanes; 32];
                warp.registers.put_n(lanes, d, row);
            }
            Op::Clock32 { d } => {
                let now = self.counts.warp_instructions as u32;
                warp.registers.put_n(lanes, d, [now; 32]);
            }
            Op::Clock64 { d } => {
                let now = self.counts.warp_instructions;
                warp.registers.put_w(lanes, d, [now; 32]);
            }
            _ => self.access(warp, pc, lanes, op)?,
        }
        Ok(Next::Step)
    }

    /// An instruction that the lanes of a mask, or all, execute together.
    fn together(
        &mut self,
        warp: &mut Warp,
        pc: u32,
        active: u32,
        lanes: u32,
        op: &Op,
        mask: Option<Reg>,
    ) -> Result<Next, Box<Trap>> {
        if lanes == 0 {
            return Ok(Next::Step);
        }
        let ready = match mask {
            None if lanes == ALL => ALL,
            None => warp.meet_all(pc, lanes, self.full_mask)?,
            Some(mask) => warp.meet(pc, lanes, mask)?,
        };
        if ready != 0 {
            self.collective(warp, pc, ready, op)?;
            if ready == active {
                return Ok(Next::Step);
            }
        }
        warp.set_pcs(active & !lanes | ready, pc + 1);
        Ok(Next::Select)
    }
}

fn wait_at_barrier(warp: &mut Warp, pc: u32, lanes: u32, id: Reg, threads: Reg) {
    let ids = *warp.registers.n(id);
    let counts = if threads == NONE { [0; 32] } else { *warp.registers.n(threads) };
    for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
        warp.barriers[lane] = Waiting { id: ids[lane], threads: counts[lane] };
    }
    warp.set_pcs(lanes, pc);
    warp.running &= !lanes;
    warp.at_barrier |= lanes;
}

impl Warp {
    /// Lanes leave the kernel. Those that waited for them look again.
    fn leave(&mut self, lanes: u32) {
        self.gone |= lanes;
        self.running = self.running & !lanes | self.at_sync;
        self.at_sync = 0;
    }
}

//! A warp: where its lanes stand and what they wait for.

use super::fault::{FaultKind, Trap};
use super::registers::{LANES, Registers};
use super::settings::{Order, Random};
use crate::ptx::op::Reg;

/// A thread waiting at a block's barrier.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    pub(super) id: u32,
    /// Threads that take part; 0 is all.
    pub(super) threads: u32,
}

/// An asynchronous copy of one lane that has not been delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub(super) lane: u8,
    pub(super) words: u8,
    pub(super) group: u32,
    pub(super) to: u32,
    pub(super) data: [u32; 4],
}

/// A warp.
#[derive(Debug, Default)]
pub(super) struct Warp {
    pub(super) index: usize,
    pub(super) registers: Registers,
    /// The next instruction of each lane that does not run at the moment.
    pub(super) pcs: [u32; LANES],
    /// Lanes that can run.
    pub(super) running: u32,
    /// Lanes that wait for others of the warp.
    pub(super) at_sync: u32,
    /// Lanes that wait at a barrier of the block.
    pub(super) at_barrier: u32,
    /// Lanes that have left, or that the block does not have.
    pub(super) gone: u32,
    pub(super) barriers: [Waiting; LANES],
    pub(super) copies: Vec<Copy>,
    /// Groups of asynchronous copies that each lane has committed.
    pub(super) groups: [u32; LANES],
    pub(super) local: Vec<u8>,
    /// The order of lanes where they run one by one.
    pub(super) lane_order: Vec<u8>,
}

/// Lanes that run together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) pc: u32,
    pub(super) active: u32,
    /// Another lane waits to be joined at this instruction, or a later one.
    pub(super) stop: u32,
}

impl Warp {
    /// Back to the first instruction, with `threads` lanes.
    pub(super) fn reset(&mut self, threads: u32, local_bytes: usize, order: Order, random: &mut Random) {
        self.pcs = [0; LANES];
        self.gone = if threads >= 32 { 0 } else { u32::MAX << threads };
        self.running = !self.gone;
        self.at_sync = 0;
        self.at_barrier = 0;
        self.copies.clear();
        self.groups = [0; LANES];
        self.local.clear();
        self.local.resize(local_bytes * LANES, 0xff);
        self.lane_order = match order {
            Order::Descending => (0..32).rev().collect(),
            _ => (0..32).collect(),
        };
        if let Order::Shuffled(_) = order {
            random.shuffle(&mut self.lane_order);
        }
    }

    /// A lane's local memory.
    pub(super) fn local_of(&self, lane: usize) -> &[u8] {
        let each = self.local.len() / LANES;
        &self.local[lane * each..(lane + 1) * each]
    }

    pub(super) fn local_of_mut(&mut self, lane: usize) -> &mut [u8] {
        let each = self.local.len() / LANES;
        &mut self.local[lane * each..(lane + 1) * each]
    }

    pub(super) fn has_left(&self) -> bool {
        self.gone == u32::MAX
    }

    /// The lanes to run next: those farthest behind, or a single one.
    pub(super) fn select(&self, by_thread: bool) -> Option<Group> {
        if self.running == 0 {
            return None;
        }
        if by_thread {
            let lane = *self.lane_order.iter().find(|&&lane| self.running >> lane & 1 != 0)?;
            return Some(Group { pc: self.pcs[usize::from(lane)], active: 1 << lane, stop: u32::MAX });
        }
        let mut group = Group { pc: u32::MAX, active: 0, stop: u32::MAX };
        for lane in 0..LANES {
            if self.running >> lane & 1 == 0 {
                continue;
            }
            let pc = self.pcs[lane];
            if pc < group.pc {
                group = Group { pc, active: 1 << lane, stop: group.pc };
            } else if pc == group.pc {
                group.active |= 1 << lane;
            } else {
                group.stop = group.stop.min(pc);
            }
        }
        Some(group)
    }

    #[inline(always)]
    pub(super) fn set_pcs(&mut self, lanes: u32, pc: u32) {
        for (lane, at) in self.pcs.iter_mut().enumerate() {
            *at = if lanes >> lane & 1 != 0 { pc } else { *at };
        }
    }

    /// Lanes arrive at an instruction that the lanes of a mask execute together. Gives those that can do so now; the
    /// other arrivals wait.
    pub(super) fn meet(&mut self, pc: u32, arriving: u32, mask: Reg) -> Result<u32, Box<Trap>> {
        let mut arrived = arriving;
        if self.at_sync != 0 {
            for lane in 0..LANES {
                arrived |= u32::from(self.at_sync >> lane & 1 != 0 && self.pcs[lane] == pc) << lane;
            }
        }
        let masks = *self.registers.n(mask);
        let mut ready = 0;
        for lane in 0..LANES {
            if arriving >> lane & 1 == 0 || ready >> lane & 1 != 0 {
                continue;
            }
            let mask = masks[lane];
            if mask >> lane & 1 == 0 {
                let detail = format!("lane {lane} is not in its own mask {mask:#010x}");
                return Err(Trap::new(FaultKind::WrongMask, pc, lane, detail));
            }
            let needed = mask & !self.gone;
            if needed & !arrived == 0 {
                let differing = (0..LANES).find(|&other| needed >> other & 1 != 0 && masks[other] != mask);
                if let Some(other) = differing {
                    let detail =
                        format!("lane {lane} has the mask {mask:#010x}, lane {other} of it {:#010x}", masks[other]);
                    return Err(Trap::new(FaultKind::WrongMask, pc, lane, detail));
                }
                ready |= needed;
            }
        }
        let waits = arriving & !ready;
        self.set_pcs(waits, pc);
        self.running = self.running & !waits | ready;
        self.at_sync = self.at_sync & !ready | waits;
        Ok(ready)
    }

    /// As [`Self::meet`] for instructions that need the whole warp.
    pub(super) fn meet_all(&mut self, pc: u32, arriving: u32, full: Reg) -> Result<u32, Box<Trap>> {
        if self.gone != 0 {
            let lane = arriving.trailing_zeros() as usize;
            let detail = format!("the whole warp is needed, lanes {:#010x} are missing", self.gone);
            return Err(Trap::new(FaultKind::WrongMask, pc, lane, detail));
        }
        self.meet(pc, arriving, full)
    }
}

//! Loads and stores in every state space, and asynchronous copies.

use super::block::Block;
use super::fault::{FaultKind, Trap};
use super::memory::Buffer;
use super::races::{Access, How};
use super::registers::{LANES, for_lanes};
use super::shared::Refusal;
use super::warp::{Copy, Warp};
use crate::ptx::op::{Addr, Elem, NONE, Op};
use crate::ptx::types::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Space, WINDOW_BYTES};

/// An address in its space.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) space: Space,
    pub(super) at: u64,
}

/// A generic address is in one of the windows, or global.
fn resolve(space: Space, at: u64) -> Place {
    if space != Space::Generic {
        return Place { space, at };
    }
    for (space, window) in
        [(Space::Shared, SHARED_WINDOW), (Space::Local, LOCAL_WINDOW), (Space::Param, PARAM_WINDOW)]
    {
        if (window..window + WINDOW_BYTES).contains(&at) {
            return Place { space, at: at - window };
        }
    }
    Place { space: Space::Global, at }
}

/// The address of every lane.
#[inline(always)]
pub(super) fn addresses(warp: &Warp, addr: Addr) -> [u64; LANES] {
    let offset = i64::from(addr.offset);
    if addr.wide {
        warp.registers.w(addr.base).map(|base| base.wrapping_add_signed(offset))
    } else {
        warp.registers.n(addr.base).map(|base| u64::from(base.wrapping_add(addr.offset as u32)))
    }
}

impl Block<'_> {
    /// Loads, stores, atomics, copies and fences.
    pub(super) fn access(&mut self, warp: &mut Warp, pc: u32, lanes: u32, op: &Op) -> Result<(), Box<Trap>> {
        match *op {
            Op::Load { space, elem, count, addr, d } => self.load(warp, pc, lanes, (space, elem, count, addr), d),
            Op::Store { space, elem, count, addr, a } => self.store(warp, pc, lanes, (space, elem, count, addr), a),
            Op::Atomic { .. } => self.atomic(warp, pc, lanes, op),
            Op::ToGeneric { space, d, a } => {
                warp.registers.wide1(lanes, d, a, |a| a.wrapping_add(space.window()));
                Ok(())
            }
            Op::FromGeneric { space, d, a } => {
                warp.registers.wide1(lanes, d, a, |a| a.wrapping_sub(space.window()));
                Ok(())
            }
            Op::CopyAsync { .. } => self.copy_async(warp, pc, lanes, op),
            Op::CopyCommit => {
                for_lanes!(lanes, lane, {
                    warp.groups[lane] += 1;
                });
                Ok(())
            }
            Op::CopyWait { pending } => {
                self.deliver(warp, lanes, pending);
                Ok(())
            }
            Op::Fence => Ok(()),
            _ => {
                let lane = lanes.trailing_zeros().min(31) as usize;
                Err(Trap::new(FaultKind::Trap, pc, lane, "the emulator does not know this instruction"))
            }
        }
    }

    fn load(
        &mut self,
        warp: &mut Warp,
        pc: u32,
        lanes: u32,
        (space, elem, count, addr): (Space, Elem, u8, Addr),
        dests: [u16; 4],
    ) -> Result<(), Box<Trap>> {
        let (at, bytes) = (addresses(warp, addr), u32::from(elem.bytes));
        let mut rows = [[0u64; LANES]; 4];
        let total = bytes * u32::from(count);
        for_lanes!(lanes, lane, {
            let place = resolve(space, at[lane]);
            let values = self.read(warp, pc, lane, place, bytes, count)?;
            for (row, value) in rows.iter_mut().zip(values) {
                row[lane] = extend(elem, value);
            }
        });
        self.count_bytes(space, u64::from(total) * u64::from(lanes.count_ones()), false);
        for (row, d) in rows.iter().zip(dests).take(usize::from(count)) {
            if elem.wide {
                warp.registers.put_w(lanes, d, *row);
            } else {
                let mask = if elem.half { 0xffff } else { u32::MAX };
                warp.registers.put_n(lanes, d, row.map(|value| value as u32 & mask));
            }
        }
        Ok(())
    }

    fn store(
        &mut self,
        warp: &mut Warp,
        pc: u32,
        lanes: u32,
        (space, elem, count, addr): (Space, Elem, u8, Addr),
        sources: [u16; 4],
    ) -> Result<(), Box<Trap>> {
        let (at, bytes) = (addresses(warp, addr), u32::from(elem.bytes));
        let mut rows = [[0u64; LANES]; 4];
        for (row, a) in rows.iter_mut().zip(sources).take(usize::from(count)) {
            *row = if elem.wide { *warp.registers.w(a) } else { warp.registers.n(a).map(u64::from) };
        }
        for_lanes!(lanes, lane, {
            let place = resolve(space, at[lane]);
            let values = [rows[0][lane], rows[1][lane], rows[2][lane], rows[3][lane]];
            self.write(warp, pc, lane, place, bytes, &values[..usize::from(count)])?;
        });
        let total = u64::from(bytes) * u64::from(count);
        self.count_bytes(space, total * u64::from(lanes.count_ones()), true);
        Ok(())
    }

    fn count_bytes(&mut self, space: Space, bytes: u64, store: bool) {
        match space {
            Space::Shared => self.counts.shared_bytes += bytes,
            Space::Global | Space::Generic | Space::Const if store => self.counts.global_store_bytes += bytes,
            Space::Global | Space::Generic | Space::Const => self.counts.global_load_bytes += bytes,
            _ => {}
        }
    }

    /// Reads `count` elements for one lane.
    #[inline(always)]
    fn read(
        &mut self,
        warp: &Warp,
        pc: u32,
        lane: usize,
        Place { space, at }: Place,
        bytes: u32,
        count: u8,
    ) -> Result<[u64; 4], Box<Trap>> {
        let total = bytes * u32::from(count);
        let mut values = [0; 4];
        match space {
            Space::Shared => {
                self.note(warp, pc, lane, at, total, How::Read)?;
                let refused = |refusal| self.refused(pc, lane, at, total, refusal);
                let at = at as u32;
                match (bytes, count) {
                    (4, 1) => values[0] = u64::from(self.shared.load_words::<1>(at).map_err(refused)?[0]),
                    (4, 2) => {
                        let words = self.shared.load_words::<2>(at).map_err(refused)?;
                        values[..2].copy_from_slice(&words.map(u64::from));
                    }
                    (4, 4) => values = self.shared.load_words::<4>(at).map_err(refused)?.map(u64::from),
                    (8, _) => {
                        for (i, value) in values.iter_mut().enumerate().take(usize::from(count)) {
                            let [low, high] = self.shared.load_words::<2>(at + 8 * i as u32).map_err(refused)?;
                            *value = u64::from(low) | u64::from(high) << 32;
                        }
                    }
                    _ => {
                        for (i, value) in values.iter_mut().enumerate().take(usize::from(count)) {
                            let part = self.shared.load_part(at + bytes * i as u32, bytes).map_err(refused)?;
                            *value = u64::from(part);
                        }
                    }
                }
            }
            Space::Param | Space::Local => {
                let memory = if space == Space::Param { self.parameters } else { self.local(warp, lane) };
                let end = at.checked_add(u64::from(total)).filter(|&end| end <= memory.len() as u64);
                if end.is_none() {
                    let detail = format!("{total} bytes at {at} of {} bytes of {space:?} memory", memory.len());
                    return Err(Trap::new(FaultKind::OutOfBounds, pc, lane, detail));
                }
                for (i, value) in values.iter_mut().enumerate().take(usize::from(count)) {
                    let start = at as usize + i * bytes as usize;
                    let mut word = [0; 8];
                    word[..bytes as usize].copy_from_slice(&memory[start..start + bytes as usize]);
                    *value = u64::from_le_bytes(word);
                }
            }
            _ => {
                let strict = self.settings.strict;
                let (buffer, offset) = self.global(pc, lane, at, total)?;
                if strict && !buffer.is_written(offset, u64::from(total)) {
                    let detail = format!("{total} bytes at {at:#x} of global memory were never written");
                    return Err(Trap::new(FaultKind::Uninitialised, pc, lane, detail));
                }
                for (i, value) in values.iter_mut().enumerate().take(usize::from(count)) {
                    *value = buffer.load(offset + u64::from(bytes) * i as u64, bytes);
                }
            }
        }
        Ok(values)
    }

    /// Writes elements for one lane.
    #[inline(always)]
    fn write(
        &mut self,
        warp: &mut Warp,
        pc: u32,
        lane: usize,
        Place { space, at }: Place,
        bytes: u32,
        values: &[u64],
    ) -> Result<(), Box<Trap>> {
        let total = bytes * values.len() as u32;
        match space {
            Space::Shared => {
                self.note(warp, pc, lane, at, total, How::Write)?;
                let at = at as u32;
                let stored = match (bytes, values) {
                    (4, &[a]) => self.shared.store_words(at, [a as u32]),
                    (4, &[a, b]) => self.shared.store_words(at, [a as u32, b as u32]),
                    (4, &[a, b, c, d]) => self.shared.store_words(at, [a as u32, b as u32, c as u32, d as u32]),
                    (8, values) => values.iter().enumerate().try_for_each(|(i, value)| {
                        self.shared.store_words(at + 8 * i as u32, [*value as u32, (value >> 32) as u32])
                    }),
                    (_, values) => values
                        .iter()
                        .enumerate()
                        .try_for_each(|(i, v)| self.shared.store_part(at + bytes * i as u32, bytes, *v as u32)),
                };
                stored.map_err(|refusal| self.refused(pc, lane, u64::from(at), total, refusal))?;
            }
            Space::Local => {
                let size = self.program.local_bytes as usize;
                let memory = &mut warp.local[lane * size..(lane + 1) * size];
                if at.checked_add(u64::from(total)).is_none_or(|end| end > size as u64) {
                    let detail = format!("{total} bytes at {at} of {size} bytes of local memory");
                    return Err(Trap::new(FaultKind::OutOfBounds, pc, lane, detail));
                }
                for (i, value) in values.iter().enumerate() {
                    let start = at as usize + i * bytes as usize;
                    memory[start..start + bytes as usize].copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
                }
            }
            Space::Param => {
                return Err(Trap::new(FaultKind::OutOfBounds, pc, lane, "parameters cannot be written"));
            }
            _ => {
                let (buffer, offset) = self.global(pc, lane, at, total)?;
                for (i, value) in values.iter().enumerate() {
                    buffer.store(offset + u64::from(bytes) * i as u64, bytes, *value);
                }
            }
        }
        Ok(())
    }

    fn local<'b>(&self, warp: &'b Warp, lane: usize) -> &'b [u8] {
        let size = self.program.local_bytes as usize;
        &warp.local[lane * size..(lane + 1) * size]
    }

    /// The buffer and offset of a global access.
    #[inline(always)]
    pub(super) fn global(&mut self, pc: u32, lane: usize, at: u64, bytes: u32) -> Result<(&Buffer, u64), Box<Trap>> {
        if !at.is_multiple_of(u64::from(bytes)) {
            let detail = format!("{bytes} bytes at {at:#x} of global memory");
            return Err(Trap::new(FaultKind::Misaligned, pc, lane, detail));
        }
        let memory = self.memory;
        let hit = memory.at(self.nearest).and_then(|allocation| allocation.offset(at, u64::from(bytes)));
        if hit.is_none() {
            self.nearest = memory.find(at).unwrap_or(usize::MAX);
        }
        let allocation = memory.at(self.nearest);
        match allocation.and_then(|allocation| Some((&*allocation.buffer, allocation.offset(at, u64::from(bytes))?))) {
            Some(found) => Ok(found),
            None => Err(Trap::new(FaultKind::OutOfBounds, pc, lane, memory.describe(at, u64::from(bytes)))),
        }
    }

    /// Where races are looked for, notes an access to shared memory.
    #[inline(always)]
    pub(super) fn note(
        &mut self,
        warp: &Warp,
        pc: u32,
        lane: usize,
        at: u64,
        bytes: u32,
        how: How,
    ) -> Result<(), Box<Trap>> {
        let Some(races) = &self.shared.races else { return Ok(()) };
        let thread = (32 * warp.index + lane) as u16;
        let access = Access { thread, clock: races.clock(warp.index), pc, how };
        match self.shared.note(at as u32, bytes, access) {
            None => Ok(()),
            Some(earlier) => {
                let detail = format!(
                    "{how:?} of {bytes} bytes at {at} of shared memory and {:?} by thread {} at PTX line {} (`{}`), \
                     which nothing orders",
                    earlier.how,
                    earlier.thread(),
                    self.program.line(earlier.pc),
                    self.program.text(earlier.pc)
                );
                Err(Trap::new(FaultKind::Race, pc, lane, detail))
            }
        }
    }

    pub(super) fn refused(&self, pc: u32, lane: usize, at: u64, bytes: u32, refusal: Refusal) -> Box<Trap> {
        let what = format!("{bytes} bytes at {at} of {} bytes of shared memory", self.shared.bytes());
        let (kind, detail) = match refusal {
            Refusal::OutOfBounds => (FaultKind::OutOfBounds, what),
            Refusal::Misaligned => (FaultKind::Misaligned, what),
            Refusal::Unwritten => (FaultKind::Uninitialised, format!("{what} were never written")),
            Refusal::InFlight => (FaultKind::Uninitialised, format!("{what}: a copy to them is under way")),
        };
        Trap::new(kind, pc, lane, detail)
    }

    fn copy_async(&mut self, warp: &mut Warp, pc: u32, lanes: u32, op: &Op) -> Result<(), Box<Trap>> {
        let Op::CopyAsync { bytes, to, from, size } = *op else { return Ok(()) };
        let (to, from) = (addresses(warp, to), addresses(warp, from));
        let words = bytes / 4;
        for_lanes!(lanes, lane, {
            let given = if size == NONE { u32::from(bytes) } else { warp.registers.n(size)[lane].min(u32::from(bytes)) };
            let mut data = [0; 4];
            for (i, word) in data.iter_mut().enumerate().take(given as usize / 4) {
                let place = Place { space: Space::Global, at: from[lane] + 4 * i as u64 };
                *word = self.read(warp, pc, lane, place, 4, 1)?[0] as u32;
            }
            if !from[lane].is_multiple_of(u64::from(bytes)) {
                let detail = format!("{bytes} bytes at {:#x} of global memory", from[lane]);
                return Err(Trap::new(FaultKind::Misaligned, pc, lane, detail));
            }
            let at = resolve(Space::Shared, to[lane]).at;
            self.note(warp, pc, lane, at, u32::from(bytes), How::Write)?;
            let begun = self.shared.begin_copy(at as u32, u32::from(bytes));
            begun.map_err(|refusal| self.refused(pc, lane, at, u32::from(bytes), refusal))?;
            let group = warp.groups[lane];
            warp.copies.push(Copy { lane: lane as u8, words, group, to: at as u32, data });
        });
        let total = u64::from(bytes) * u64::from(lanes.count_ones());
        self.count_bytes(Space::Global, total, false);
        self.count_bytes(Space::Shared, total, true);
        Ok(())
    }

    /// Delivers the copies of lanes, all but those of the last `pending` groups.
    fn deliver(&mut self, warp: &mut Warp, lanes: u32, pending: u32) {
        let (groups, shared) = (warp.groups, &mut self.shared);
        warp.copies.retain(|copy| {
            let lane = usize::from(copy.lane);
            let due = pending == u32::MAX || copy.group < groups[lane].saturating_sub(pending);
            let deliver = lanes >> lane & 1 != 0 && due;
            if deliver {
                shared.deliver(copy.to, &copy.data[..usize::from(copy.words)]);
            }
            !deliver
        });
    }
}

/// A loaded element as the register holds it.
#[inline(always)]
fn extend(elem: Elem, value: u64) -> u64 {
    match (elem.signed, elem.bytes) {
        (true, 1) => value as i8 as i64 as u64,
        (true, 2) => value as i16 as i64 as u64,
        (true, 4) => value as i32 as i64 as u64,
        _ => value,
    }
}

//! Loads, stores and asynchronous copies.

use super::exec::Env;
use super::fault::{FaultKind, Trap};
use super::memory::{Buffer, POISON};
use super::races::{Access, How};
use super::registers::{LANES, Row, for_lanes};
use super::shared::Refusal;
use super::warp::{Copy, Warp};
use crate::ptx::op::{Addr, Elem, NONE, Reg};
use crate::ptx::types::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Space, WINDOW_BYTES};

/// The address of each lane.
#[inline(always)]
pub(super) fn addresses(warp: &Warp, addr: Addr) -> Row<u64> {
    let mut row = [0; LANES];
    if addr.wide {
        let base = warp.registers.w(addr.base);
        for lane in 0..LANES {
            row[lane] = base[lane].wrapping_add(i64::from(addr.offset) as u64);
        }
    } else {
        let base = warp.registers.n(addr.base);
        for lane in 0..LANES {
            row[lane] = u64::from(base[lane].wrapping_add(addr.offset as u32));
        }
    }
    row
}

/// The space of a generic address and the address there.
pub(super) fn resolve(space: Space, address: u64) -> (Space, u64) {
    if space != Space::Generic {
        return (space, address);
    }
    for (space, window) in [(Space::Shared, SHARED_WINDOW), (Space::Local, LOCAL_WINDOW), (Space::Param, PARAM_WINDOW)]
    {
        if (window..window + WINDOW_BYTES).contains(&address) {
            return (space, address - window);
        }
    }
    (Space::Global, address)
}

#[inline(always)]
pub(super) fn load(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    space: Space,
    elem: Elem,
    count: u8,
    addr: Addr,
    d: [Reg; 4],
) -> Result<(), Box<Trap>> {
    if elem.bytes == 4 && !elem.wide {
        match (space, count) {
            (Space::Shared, 1) => return load_shared::<1>(warp, env, pc, lanes, addr, d),
            (Space::Shared, 2) => return load_shared::<2>(warp, env, pc, lanes, addr, d),
            (Space::Shared, 4) => return load_shared::<4>(warp, env, pc, lanes, addr, d),
            (Space::Global | Space::Const, 1) => return load_global::<1>(warp, env, pc, lanes, addr, d),
            (Space::Global | Space::Const, 2) => return load_global::<2>(warp, env, pc, lanes, addr, d),
            (Space::Global | Space::Const, 4) => return load_global::<4>(warp, env, pc, lanes, addr, d),
            _ => {}
        }
    }
    load_any(warp, env, pc, lanes, space, elem, count, addr, d)
}

#[inline(always)]
pub(super) fn store(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    space: Space,
    elem: Elem,
    count: u8,
    addr: Addr,
    a: [Reg; 4],
) -> Result<(), Box<Trap>> {
    if elem.bytes == 4 && !elem.wide {
        match (space, count) {
            (Space::Shared, 1) => return store_shared::<1>(warp, env, pc, lanes, addr, a),
            (Space::Shared, 4) => return store_shared::<4>(warp, env, pc, lanes, addr, a),
            (Space::Global, 1) => return store_global::<1>(warp, env, pc, lanes, addr, a),
            (Space::Global, 4) => return store_global::<4>(warp, env, pc, lanes, addr, a),
            _ => {}
        }
    }
    store_any(warp, env, pc, lanes, space, elem, count, addr, a)
}

#[inline(always)]
fn load_shared<const N: usize>(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    addr: Addr,
    d: [Reg; 4],
) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, addr);
    let mut rows = [[0; LANES]; N];
    for_lanes!(lanes, lane, {
        let offset = addresses[lane].min(u64::from(u32::MAX - 3)) as u32;
        match env.shared.load_words::<N>(offset) {
            Ok(words) => {
                for (row, word) in rows.iter_mut().zip(words) {
                    row[lane] = word;
                }
            }
            Err(refusal) => return Err(refused(env, refusal, pc, lane, addresses[lane], 4 * N as u32)),
        }
    });
    note_shared(warp, env, pc, lanes, &addresses, 4 * N as u32, How::Read)?;
    for (row, d) in rows.into_iter().zip(d) {
        warp.registers.put_n(lanes, d, row);
    }
    Ok(())
}

#[inline(always)]
fn store_shared<const N: usize>(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    addr: Addr,
    a: [Reg; 4],
) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, addr);
    for_lanes!(lanes, lane, {
        let offset = addresses[lane].min(u64::from(u32::MAX - 3)) as u32;
        let words: [u32; N] = std::array::from_fn(|i| warp.registers.n(a[i])[lane]);
        if let Err(refusal) = env.shared.store_words(offset, words) {
            return Err(refused(env, refusal, pc, lane, addresses[lane], 4 * N as u32));
        }
    });
    note_shared(warp, env, pc, lanes, &addresses, 4 * N as u32, How::Write)
}

/// Looks for races if that is asked for.
#[inline(always)]
pub(super) fn note_shared(
    warp: &Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    addresses: &Row<u64>,
    bytes: u32,
    how: How,
) -> Result<(), Box<Trap>> {
    if env.shared.races.is_none() {
        return Ok(());
    }
    note_lanes(warp, env, pc, lanes, addresses, bytes, how)
}

#[inline(never)]
fn note_lanes(
    warp: &Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    addresses: &Row<u64>,
    bytes: u32,
    how: How,
) -> Result<(), Box<Trap>> {
    let clock = env.shared.races.as_ref().map_or(0, |races| races.clock(warp.index));
    for_lanes!(lanes, lane, {
        let access = Access { thread: (32 * warp.index + lane) as u16, clock, pc, how };
        if let Some(earlier) = env.shared.note(addresses[lane] as u32, bytes, access) {
            let verb = |how| match how {
                How::Read => "reads",
                How::Write => "writes",
                How::Atomic => "updates",
            };
            let detail = format!(
                "thread {} {} shared memory at {:#x}, which thread {} {} in line {} with no barrier in between",
                access.thread,
                verb(how),
                addresses[lane],
                earlier.thread(),
                verb(earlier.how),
                env.program.line(earlier.pc)
            );
            return Err(Trap::new(FaultKind::Race, pc, lane, detail));
        }
    });
    Ok(())
}

#[cold]
pub(super) fn refused(env: &Env<'_>, refusal: Refusal, pc: u32, lane: usize, address: u64, bytes: u32) -> Box<Trap> {
    let place = format!("{bytes} bytes of shared memory at {address:#x} of {:#x}", env.shared.bytes());
    match refusal {
        Refusal::OutOfBounds => Trap::new(FaultKind::OutOfBounds, pc, lane, place),
        Refusal::Misaligned => Trap::new(FaultKind::Misaligned, pc, lane, place),
        Refusal::Unwritten => Trap::new(FaultKind::Uninitialised, pc, lane, format!("{place} were never written")),
        Refusal::InFlight => {
            Trap::new(FaultKind::Uninitialised, pc, lane, format!("{place} await a cp.async that was not waited for"))
        }
    }
}

/// Finds the buffer of each lane's address in turn, starting from the one that the instruction met last.
pub(super) struct Finder<'m> {
    buffer: Option<&'m Buffer>,
    base: u64,
    bytes: u64,
}

impl<'m> Finder<'m> {
    #[inline(always)]
    pub(super) fn new(env: &Env<'m>, pc: u32) -> Self {
        match env.memory.at(env.hints[pc as usize] as usize) {
            Some(allocation) => {
                Self { buffer: Some(&allocation.buffer), base: allocation.base, bytes: allocation.bytes }
            }
            None => Self { buffer: None, base: 0, bytes: 0 },
        }
    }

    /// The buffer and offset of `size` bytes, a power of two.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        env: &mut Env<'m>,
        pc: u32,
        lane: usize,
        address: u64,
        size: u64,
    ) -> Result<(&'m Buffer, u64), Box<Trap>> {
        let offset = address.wrapping_sub(self.base);
        if let Some(buffer) = self.buffer
            && offset < self.bytes
            && size <= self.bytes - offset
            && offset & (size - 1) == 0
        {
            return Ok((buffer, offset));
        }
        self.find_anew(env, pc, lane, address, size)
    }

    #[cold]
    fn find_anew(
        &mut self,
        env: &mut Env<'m>,
        pc: u32,
        lane: usize,
        address: u64,
        size: u64,
    ) -> Result<(&'m Buffer, u64), Box<Trap>> {
        let memory = env.memory;
        if address & (size - 1) != 0 {
            let detail = format!("{size} bytes of global memory at {address:#x}");
            return Err(Trap::new(FaultKind::Misaligned, pc, lane, detail));
        }
        let found = memory.find(address).and_then(|index| {
            let allocation = memory.at(index)?;
            allocation.offset(address, size).map(|offset| (index, allocation, offset))
        });
        let Some((index, allocation, offset)) = found else {
            let detail = format!("global memory, {}", memory.describe(address, size));
            return Err(Trap::new(FaultKind::OutOfBounds, pc, lane, detail));
        };
        env.hints[pc as usize] = index as u32;
        *self = Self { buffer: Some(&allocation.buffer), base: allocation.base, bytes: allocation.bytes };
        Ok((&allocation.buffer, offset))
    }
}

#[cold]
pub(super) fn unwritten(pc: u32, lane: usize, address: u64, bytes: u64) -> Box<Trap> {
    let detail = format!("{bytes} bytes of global memory at {address:#x} were never written");
    Trap::new(FaultKind::Uninitialised, pc, lane, detail)
}

#[inline(always)]
fn load_global<const N: usize>(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    addr: Addr,
    d: [Reg; 4],
) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, addr);
    let mut rows = [[0; LANES]; N];
    let mut finder = Finder::new(env, pc);
    let strict = env.settings.strict;
    for_lanes!(lanes, lane, {
        let (buffer, offset) = finder.find(env, pc, lane, addresses[lane], 4 * N as u64)?;
        if strict && !buffer.is_written(offset, 4 * N as u64) {
            return Err(unwritten(pc, lane, addresses[lane], 4 * N as u64));
        }
        for (i, row) in rows.iter_mut().enumerate() {
            row[lane] = buffer.load(offset + 4 * i as u64, 4) as u32;
        }
    });
    for (row, d) in rows.into_iter().zip(d) {
        warp.registers.put_n(lanes, d, row);
    }
    Ok(())
}

#[inline(always)]
fn store_global<const N: usize>(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    addr: Addr,
    a: [Reg; 4],
) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, addr);
    let mut finder = Finder::new(env, pc);
    for_lanes!(lanes, lane, {
        let (buffer, offset) = finder.find(env, pc, lane, addresses[lane], 4 * N as u64)?;
        for i in 0..N {
            buffer.store(offset + 4 * i as u64, 4, u64::from(warp.registers.n(a[i])[lane]));
        }
    });
    Ok(())
}

/// Any load, element by element.
#[inline(never)]
fn load_any(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    space: Space,
    elem: Elem,
    count: u8,
    addr: Addr,
    d: [Reg; 4],
) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, addr);
    let bytes = u32::from(elem.bytes);
    let total = bytes * u32::from(count);
    for_lanes!(lanes, lane, {
        let (space, address) = resolve(space, addresses[lane]);
        check_alignment(pc, lane, address, total)?;
        for (i, d) in d.into_iter().take(usize::from(count)).enumerate().filter(|(_, d)| *d != NONE) {
            let address = address + u64::from(bytes) * i as u64;
            let value = load_one(warp, env, pc, lane, space, address, bytes)?;
            let shift = 64 - 8 * bytes;
            let value = if elem.signed { ((value << shift) as i64 >> shift) as u64 } else { value };
            if elem.wide {
                warp.registers.wide[usize::from(d)][lane] = value;
            } else {
                let value = value as u32;
                warp.registers.narrow[usize::from(d)][lane] = if elem.half { value & 0xffff } else { value };
            }
        }
    });
    Ok(())
}

#[inline(never)]
fn store_any(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    space: Space,
    elem: Elem,
    count: u8,
    addr: Addr,
    a: [Reg; 4],
) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, addr);
    let bytes = u32::from(elem.bytes);
    let total = bytes * u32::from(count);
    for_lanes!(lanes, lane, {
        let (space, address) = resolve(space, addresses[lane]);
        check_alignment(pc, lane, address, total)?;
        for (i, a) in a.into_iter().take(usize::from(count)).enumerate() {
            let address = address + u64::from(bytes) * i as u64;
            let value = if elem.wide { warp.registers.w(a)[lane] } else { u64::from(warp.registers.n(a)[lane]) };
            store_one(warp, env, pc, lane, space, address, bytes, value)?;
        }
    });
    Ok(())
}

fn check_alignment(pc: u32, lane: usize, address: u64, bytes: u32) -> Result<(), Box<Trap>> {
    if address.is_multiple_of(u64::from(bytes)) {
        return Ok(());
    }
    Err(Trap::new(FaultKind::Misaligned, pc, lane, format!("{bytes} bytes at {address:#x}")))
}

/// Reads an element of one lane.
pub(super) fn load_one(
    warp: &Warp,
    env: &mut Env<'_>,
    pc: u32,
    lane: usize,
    space: Space,
    address: u64,
    bytes: u32,
) -> Result<u64, Box<Trap>> {
    let size = bytes as usize;
    match space {
        Space::Global | Space::Const | Space::Generic => {
            let (buffer, offset) = Finder::new(env, pc).find(env, pc, lane, address, u64::from(bytes))?;
            if env.settings.strict && !buffer.is_written(offset, u64::from(bytes)) {
                return Err(unwritten(pc, lane, address, u64::from(bytes)));
            }
            Ok(buffer.load(offset, bytes))
        }
        Space::Shared => {
            let offset = u32::try_from(address).unwrap_or(u32::MAX - 7);
            let value = match bytes {
                8 => env.shared.load_words::<2>(offset).map(|[low, high]| u64::from(low) | u64::from(high) << 32),
                4 => env.shared.load_words::<1>(offset).map(|[word]| u64::from(word)),
                _ => env.shared.load_part(offset, bytes).map(u64::from),
            };
            let value = value.map_err(|refusal| refused(env, refusal, pc, lane, address, bytes))?;
            note_shared(warp, env, pc, 1 << lane, &[address; LANES], bytes, How::Read)?;
            Ok(value)
        }
        Space::Param => {
            let start = usize::try_from(address).unwrap_or(usize::MAX);
            let Some(place) = env.parameters.get(start..start.saturating_add(size)) else {
                let detail = format!("{bytes} bytes of parameters at {address:#x} of {:#x}", env.parameters.len());
                return Err(Trap::new(FaultKind::OutOfBounds, pc, lane, detail));
            };
            Ok(from_bytes(place))
        }
        Space::Local => {
            let range = local_range(warp, pc, lane, address, size)?;
            Ok(from_bytes(&warp.local[range]))
        }
    }
}

fn store_one(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lane: usize,
    space: Space,
    address: u64,
    bytes: u32,
    value: u64,
) -> Result<(), Box<Trap>> {
    match space {
        Space::Global | Space::Generic => {
            let (buffer, offset) = Finder::new(env, pc).find(env, pc, lane, address, u64::from(bytes))?;
            buffer.store(offset, bytes, value);
        }
        Space::Shared => {
            let offset = u32::try_from(address).unwrap_or(u32::MAX - 7);
            let done = match bytes {
                8 => env.shared.store_words(offset, [value as u32, (value >> 32) as u32]),
                4 => env.shared.store_words(offset, [value as u32]),
                _ => env.shared.store_part(offset, bytes, value as u32),
            };
            done.map_err(|refusal| refused(env, refusal, pc, lane, address, bytes))?;
            note_shared(warp, env, pc, 1 << lane, &[address; LANES], bytes, How::Write)?;
        }
        Space::Local => {
            let range = local_range(warp, pc, lane, address, bytes as usize)?;
            warp.local[range].copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
        }
        Space::Const | Space::Param => {
            return Err(Trap::new(FaultKind::OutOfBounds, pc, lane, "a store to memory that cannot be written"));
        }
    }
    Ok(())
}

fn from_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn local_range(
    warp: &Warp,
    pc: u32,
    lane: usize,
    address: u64,
    bytes: usize,
) -> Result<std::ops::Range<usize>, Box<Trap>> {
    let each = warp.local.len() / LANES;
    let start = usize::try_from(address).unwrap_or(usize::MAX);
    if start.saturating_add(bytes) > each {
        let detail = format!("{bytes} bytes of local memory at {address:#x} of {each:#x}");
        return Err(Trap::new(FaultKind::OutOfBounds, pc, lane, detail));
    }
    Ok(lane * each + start..lane * each + start + bytes)
}

/// `cp.async`: reads now, delivers when it is waited for, holds poison in between.
pub(super) fn copy_async(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    bytes: u8,
    to: Addr,
    from: Addr,
    size: Reg,
) -> Result<(), Box<Trap>> {
    let (to, from) = (addresses(warp, to), addresses(warp, from));
    let total = u32::from(bytes);
    let mut finder = Finder::new(env, pc);
    for_lanes!(lanes, lane, {
        let wanted = if size == NONE { total } else { warp.registers.n(size)[lane].min(total) };
        let mut data = [0u32; 4];
        if wanted > 0 {
            let (buffer, offset) =
                finder.find(env, pc, lane, from[lane], u64::from(total.min(wanted.next_power_of_two())))?;
            check_alignment(pc, lane, from[lane], total)?;
            if env.settings.strict && !buffer.is_written(offset, u64::from(wanted)) {
                return Err(unwritten(pc, lane, from[lane], u64::from(wanted)));
            }
            let mut raw = [0u8; 16];
            buffer.read(offset, &mut raw[..wanted as usize]);
            for (word, chunk) in data.iter_mut().zip(raw.chunks_exact(4)) {
                *word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
            }
        }
        let (_, address) = resolve(Space::Generic, to[lane]);
        let offset = u32::try_from(address).unwrap_or(u32::MAX - 15);
        if let Err(refusal) = env.shared.begin_copy(offset, total) {
            return Err(refused(env, refusal, pc, lane, address, total));
        }
        warp.copies.push(Copy { lane: lane as u8, words: bytes / 4, group: warp.groups[lane], to: offset, data });
    });
    note_shared(warp, env, pc, lanes, &to, total, How::Write)
}

/// `cp.async.wait_group` and `cp.async.wait_all`.
pub(super) fn copy_wait(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    pending: u32,
) -> Result<(), Box<Trap>> {
    let copies = std::mem::take(&mut warp.copies);
    for copy in copies {
        let lane = usize::from(copy.lane);
        let newest_done = i64::from(warp.groups[lane]) - i64::from(pending);
        let done = pending == u32::MAX || i64::from(copy.group) < newest_done;
        if lanes >> lane & 1 == 0 || !done {
            warp.copies.push(copy);
            continue;
        }
        env.shared.deliver(copy.to, &copy.data[..usize::from(copy.words)]);
        note_shared(warp, env, pc, 1 << lane, &[u64::from(copy.to); LANES], 4 * u32::from(copy.words), How::Write)?;
    }
    Ok(())
}

const _: () = assert!(POISON == u32::MAX, "the poison of memory and of registers is the same");

//! Loads and stores.

mod copies;
pub(super) mod global;
pub(super) mod shared;

use super::exec::Env;
use super::fault::{FaultKind, Trap};
use super::races::How;
use super::registers::{LANES, Row, for_lanes};
use super::warp::Warp;
use crate::ptx::op::{Addr, Elem, NONE, Reg};
use crate::ptx::types::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Space, WINDOW_BYTES};
pub(super) use copies::{AsyncCopy, copy_async, copy_wait};
use global::{Finder, unwritten};
use shared::{note_shared, offset as shared_offset, refused};

/// A load or store instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) space: Space,
    pub(super) elem: Elem,
    pub(super) count: u8,
    pub(super) addr: Addr,
    /// Where the elements go or come from.
    pub(super) registers: [Reg; 4],
}

impl Transfer {
    /// Words a lane, if the elements are words or pairs of words in registers of their width.
    #[inline(always)]
    fn words(&self) -> Option<u8> {
        let whole = self.elem.bytes == 4 && !self.elem.wide || self.elem.bytes == 8 && self.elem.wide;
        whole.then_some(self.elem.bytes / 4 * self.count)
    }
}

/// The address of each lane.
#[inline(always)]
pub(super) fn addresses(warp: &Warp, addr: Addr) -> Row<u64> {
    let mut row = [0; LANES];
    if addr.wide {
        let base = warp.registers.w(addr.base);
        for (address, base) in row.iter_mut().zip(base) {
            *address = base.wrapping_add(i64::from(addr.offset) as u64);
        }
    } else {
        let base = warp.registers.n(addr.base);
        for (address, base) in row.iter_mut().zip(base) {
            *address = u64::from(base.wrapping_add(addr.offset as u32));
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
pub(super) fn load(warp: &mut Warp, env: &mut Env<'_>, pc: u32, lanes: u32, load: &Transfer) -> Result<(), Box<Trap>> {
    let addr = load.addr;
    match (load.space, load.words()) {
        (Space::Shared, Some(1)) => write(warp, lanes, load, &shared::load::<1>(warp, env, pc, lanes, addr)?),
        (Space::Shared, Some(2)) => write(warp, lanes, load, &shared::load::<2>(warp, env, pc, lanes, addr)?),
        (Space::Shared, Some(4)) => write(warp, lanes, load, &shared::load::<4>(warp, env, pc, lanes, addr)?),
        (Space::Global | Space::Const, Some(1)) => {
            write(warp, lanes, load, &global::load::<1>(warp, env, pc, lanes, addr)?)
        }
        (Space::Global, Some(2)) => write(warp, lanes, load, &global::load::<2>(warp, env, pc, lanes, addr)?),
        (Space::Global, Some(4)) => write(warp, lanes, load, &global::load::<4>(warp, env, pc, lanes, addr)?),
        _ => return load_any(warp, env, pc, lanes, load),
    }
    Ok(())
}

/// Puts words into the registers of a load.
#[inline(always)]
fn write<const N: usize>(warp: &mut Warp, lanes: u32, load: &Transfer, rows: &[Row<u32>; N]) {
    if load.elem.wide {
        for (pair, d) in rows.chunks_exact(2).zip(load.registers) {
            let mut row = [0; LANES];
            for ((d, low), high) in row.iter_mut().zip(&pair[0]).zip(&pair[1]) {
                *d = u64::from(*low) | u64::from(*high) << 32;
            }
            warp.registers.put_w(lanes, d, row);
        }
    } else {
        for (row, d) in rows.iter().zip(load.registers) {
            warp.registers.put_n(lanes, d, *row);
        }
    }
}

#[inline(always)]
pub(super) fn store(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    store: &Transfer,
) -> Result<(), Box<Trap>> {
    if !store.elem.wide {
        let registers = &warp.registers;
        let (addr, words) = (store.addr, |i: usize, lane: usize| registers.n(store.registers[i])[lane]);
        match (store.space, store.words()) {
            (Space::Shared, Some(1)) => return shared::store::<1>(warp, env, pc, lanes, addr, words),
            (Space::Shared, Some(4)) => return shared::store::<4>(warp, env, pc, lanes, addr, words),
            (Space::Global, Some(1)) => return global::store::<1>(warp, env, pc, lanes, addr, words),
            (Space::Global, Some(4)) => return global::store::<4>(warp, env, pc, lanes, addr, words),
            _ => {}
        }
    }
    store_any(warp, env, pc, lanes, store)
}

/// Any load, element by element.
#[inline(never)]
fn load_any(warp: &mut Warp, env: &mut Env<'_>, pc: u32, lanes: u32, load: &Transfer) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, load.addr);
    // Parameters are the same for all threads, and so are their addresses unless the kernel computes them.
    let first = lanes.trailing_zeros() as usize;
    if load.space == Space::Param && addresses.iter().all(|address| *address == addresses[first]) {
        for (element, d) in load.elements(pc, first, addresses[first])? {
            let value = load.extend(element.load(warp, env, pc, first)?);
            if load.elem.wide {
                warp.registers.put_w(lanes, d, [value; LANES]);
            } else {
                warp.registers.put_n(lanes, d, [value as u32; LANES]);
            }
        }
        return Ok(());
    }
    for_lanes!(lanes, lane, {
        for (element, d) in load.elements(pc, lane, addresses[lane])? {
            let value = load.extend(element.load(warp, env, pc, lane)?);
            match d {
                NONE => {}
                d if load.elem.wide => warp.registers.wide[usize::from(d)][lane] = value,
                d => warp.registers.narrow[usize::from(d)][lane] = value as u32,
            }
        }
    });
    Ok(())
}

/// Any store, element by element.
#[inline(never)]
fn store_any(warp: &mut Warp, env: &mut Env<'_>, pc: u32, lanes: u32, store: &Transfer) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, store.addr);
    for_lanes!(lanes, lane, {
        for (element, a) in store.elements(pc, lane, addresses[lane])? {
            let registers = &warp.registers;
            let value = if store.elem.wide { registers.w(a)[lane] } else { u64::from(registers.n(a)[lane]) };
            element.store(warp, env, pc, lane, value)?;
        }
    });
    Ok(())
}

impl Transfer {
    /// What a lane accesses, each element with its register.
    fn elements(
        &self,
        pc: u32,
        lane: usize,
        address: u64,
    ) -> Result<impl Iterator<Item = (Element, Reg)> + use<>, Box<Trap>> {
        let (space, address) = resolve(self.space, address);
        let (bytes, count) = (u32::from(self.elem.bytes), usize::from(self.count));
        check_alignment(pc, lane, address, bytes * count as u32)?;
        let registers = self.registers.into_iter().take(count).enumerate();
        Ok(registers.map(move |(i, register)| {
            (Element { space, address: address.wrapping_add(u64::from(bytes) * i as u64), bytes }, register)
        }))
    }

    /// Extends an element to its register.
    fn extend(&self, value: u64) -> u64 {
        let shift = 64 - 8 * u32::from(self.elem.bytes);
        let value = if self.elem.signed { ((value << shift) as i64 >> shift) as u64 } else { value };
        if self.elem.half { value & 0xffff } else { value }
    }
}

fn check_alignment(pc: u32, lane: usize, address: u64, bytes: u32) -> Result<(), Box<Trap>> {
    if address.is_multiple_of(u64::from(bytes)) {
        return Ok(());
    }
    Err(Trap::new(FaultKind::Misaligned, pc, lane, format!("{bytes} bytes at {address:#x}")))
}

/// A number in memory.
#[derive(Clone, Copy, Debug)]
struct Element {
    space: Space,
    address: u64,
    bytes: u32,
}

impl Element {
    fn load(self, warp: &Warp, env: &mut Env<'_>, pc: u32, lane: usize) -> Result<u64, Box<Trap>> {
        let Self { space, address, bytes } = self;
        match space {
            Space::Global | Space::Const | Space::Generic => {
                let (buffer, offset) = Finder::new(env, pc).find(env, pc, lane, address, u64::from(bytes))?;
                if env.settings.strict && !buffer.is_written(offset, u64::from(bytes)) {
                    return Err(unwritten(pc, lane, address, u64::from(bytes)));
                }
                Ok(buffer.load(offset, bytes))
            }
            Space::Shared => {
                let offset = shared_offset(address);
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
                let range = self.range(pc, lane, env.parameters.len())?;
                Ok(from_bytes(&env.parameters[range]))
            }
            Space::Local => {
                let range = self.range(pc, lane, warp.local.len() / LANES)?;
                Ok(from_bytes(&warp.local_of(lane)[range]))
            }
        }
    }

    fn store(self, warp: &mut Warp, env: &mut Env<'_>, pc: u32, lane: usize, value: u64) -> Result<(), Box<Trap>> {
        let Self { space, address, bytes } = self;
        match space {
            Space::Global | Space::Generic => {
                let (buffer, offset) = Finder::new(env, pc).find(env, pc, lane, address, u64::from(bytes))?;
                buffer.store(offset, bytes, value);
            }
            Space::Shared => {
                let offset = shared_offset(address);
                let done = match bytes {
                    8 => env.shared.store_words(offset, [value as u32, (value >> 32) as u32]),
                    4 => env.shared.store_words(offset, [value as u32]),
                    _ => env.shared.store_part(offset, bytes, value as u32),
                };
                done.map_err(|refusal| refused(env, refusal, pc, lane, address, bytes))?;
                note_shared(warp, env, pc, 1 << lane, &[address; LANES], bytes, How::Write)?;
            }
            Space::Local => {
                let range = self.range(pc, lane, warp.local.len() / LANES)?;
                warp.local_of_mut(lane)[range].copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
            }
            Space::Const | Space::Param => {
                return Err(Trap::new(FaultKind::OutOfBounds, pc, lane, "a store to memory that cannot be written"));
            }
        }
        Ok(())
    }

    /// The bytes in a space of so many.
    fn range(self, pc: u32, lane: usize, all: usize) -> Result<std::ops::Range<usize>, Box<Trap>> {
        let start = usize::try_from(self.address).unwrap_or(usize::MAX);
        let end = start.saturating_add(self.bytes as usize);
        if end > all {
            let what = if self.space == Space::Local { "local memory" } else { "parameters" };
            let detail = format!("{} bytes of {what} at {:#x} of {all:#x}", self.bytes, self.address);
            return Err(Trap::new(FaultKind::OutOfBounds, pc, lane, detail));
        }
        Ok(start..end)
    }
}

fn from_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

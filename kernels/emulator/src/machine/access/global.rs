//! Words of global memory.

use super::addresses;
use crate::machine::exec::Env;
use crate::machine::fault::{FaultKind, Trap};
use crate::machine::memory::Buffer;
use crate::machine::registers::{LANES, Row, for_lanes};
use crate::machine::warp::Warp;
use crate::ptx::op::Addr;

/// Loads `N` words a lane.
#[inline(always)]
pub(super) fn load<const N: usize>(
    warp: &Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    addr: Addr,
) -> Result<[Row<u32>; N], Box<Trap>> {
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
    Ok(rows)
}

/// Stores `N` words a lane.
#[inline(always)]
pub(super) fn store<const N: usize>(
    warp: &Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    addr: Addr,
    words: impl Fn(usize, usize) -> u32,
) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, addr);
    let mut finder = Finder::new(env, pc);
    for_lanes!(lanes, lane, {
        let (buffer, offset) = finder.find(env, pc, lane, addresses[lane], 4 * N as u64)?;
        for i in 0..N {
            buffer.store(offset + 4 * i as u64, 4, u64::from(words(i, lane)));
        }
    });
    Ok(())
}

/// Finds the buffer of each lane's address in turn, starting from the one that the instruction met last.
pub(in crate::machine) struct Finder<'m> {
    buffer: Option<&'m Buffer>,
    base: u64,
    bytes: u64,
}

impl<'m> Finder<'m> {
    #[inline(always)]
    pub(in crate::machine) fn new(env: &Env<'m>, pc: u32) -> Self {
        match env.memory.at(env.hints[pc as usize] as usize) {
            Some(allocation) => {
                Self { buffer: Some(&allocation.buffer), base: allocation.base, bytes: allocation.bytes }
            }
            None => Self { buffer: None, base: 0, bytes: 0 },
        }
    }

    /// The buffer and offset of `size` bytes, a power of two.
    #[inline(always)]
    pub(in crate::machine) fn find(
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
pub(in crate::machine) fn unwritten(pc: u32, lane: usize, address: u64, bytes: u64) -> Box<Trap> {
    let detail = format!("{bytes} bytes of global memory at {address:#x} were never written");
    Trap::new(FaultKind::Uninitialised, pc, lane, detail)
}

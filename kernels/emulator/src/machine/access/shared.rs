//! Words of shared memory.

use super::addresses;
use crate::machine::exec::Env;
use crate::machine::fault::{FaultKind, Trap};
use crate::machine::races::{Access, How};
use crate::machine::registers::{LANES, Row, for_lanes};
use crate::machine::shared::Refusal;
use crate::machine::warp::Warp;
use crate::ptx::op::Addr;

/// An address in shared memory; one that is too large stays out of bounds, and aligned as it was.
#[inline(always)]
pub(in crate::machine) fn offset(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(!15 | (address & 15) as u32)
}

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
    for_lanes!(lanes, lane, {
        match env.shared.load_words::<N>(offset(addresses[lane])) {
            Ok(words) => {
                for (row, word) in rows.iter_mut().zip(words) {
                    row[lane] = word;
                }
            }
            Err(refusal) => return Err(refused(env, refusal, pc, lane, addresses[lane], 4 * N as u32)),
        }
    });
    note_shared(warp, env, pc, lanes, &addresses, 4 * N as u32, How::Read)?;
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
    for_lanes!(lanes, lane, {
        let words: [u32; N] = std::array::from_fn(|i| words(i, lane));
        if let Err(refusal) = env.shared.store_words(offset(addresses[lane]), words) {
            return Err(refused(env, refusal, pc, lane, addresses[lane], 4 * N as u32));
        }
    });
    note_shared(warp, env, pc, lanes, &addresses, 4 * N as u32, How::Write)
}

/// Looks for races if that is asked for.
#[inline(always)]
pub(in crate::machine) fn note_shared(
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
pub(in crate::machine) fn refused(
    env: &Env<'_>,
    refusal: Refusal,
    pc: u32,
    lane: usize,
    address: u64,
    bytes: u32,
) -> Box<Trap> {
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

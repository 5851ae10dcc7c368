//! Asynchronous copies from global to shared memory.

use super::global::{Finder, unwritten};
use super::shared::{note_shared, offset as shared_offset, refused};
use super::{addresses, check_alignment, resolve};
use crate::machine::exec::Env;
use crate::machine::fault::Trap;
use crate::machine::races::How;
use crate::machine::registers::{LANES, for_lanes};
use crate::machine::warp::{Copy, Warp};
use crate::ptx::op::{Addr, NONE, Reg};
use crate::ptx::types::Space;

/// A `cp.async` instruction.
#[derive(Clone, Copy, Debug)]
pub(in crate::machine) struct AsyncCopy {
    pub(in crate::machine) bytes: u8,
    pub(in crate::machine) to: Addr,
    pub(in crate::machine) from: Addr,
    /// Bytes that are read, the others being zero; all of them if there is no register.
    pub(in crate::machine) size: Reg,
}

/// `cp.async`: reads now, delivers when it is waited for, holds poison in between.
pub(in crate::machine) fn copy_async(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    copy: &AsyncCopy,
) -> Result<(), Box<Trap>> {
    let AsyncCopy { bytes, to, from, size } = *copy;
    let (to, from) = (addresses(warp, to), addresses(warp, from));
    let total = u32::from(bytes);
    let mut finder = Finder::new(env, pc);
    for_lanes!(lanes, lane, {
        let wanted = if size == NONE { total } else { warp.registers.n(size)[lane].min(total) };
        let mut data = [0u32; 4];
        if wanted > 0 {
            check_alignment(pc, lane, from[lane], total)?;
            // The last byte is looked for as well: fewer bytes may be read than would be aligned.
            finder.find(env, pc, lane, from[lane].wrapping_add(u64::from(wanted) - 1), 1)?;
            let (buffer, offset) = finder.find(env, pc, lane, from[lane], 1)?;
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
        let offset = shared_offset(address);
        if let Err(refusal) = env.shared.begin_copy(offset, total) {
            return Err(refused(env, refusal, pc, lane, address, total));
        }
        warp.copies.push(Copy { lane: lane as u8, words: bytes / 4, group: warp.groups[lane], to: offset, data });
    });
    note_shared(warp, env, pc, lanes, &to, total, How::Write)
}

/// `cp.async.wait_group` and `cp.async.wait_all`.
pub(in crate::machine) fn copy_wait(
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

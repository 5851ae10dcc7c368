//! Atomic updates of global and shared memory.

use std::sync::atomic::Ordering::Relaxed;

use super::access::addresses;
use super::block::Block;
use super::fault::{FaultKind, Trap};
use super::races::How;
use super::registers::{LANES, for_lanes};
use super::warp::Warp;
use crate::ptx::op::{Atomic, NONE, Op};
use crate::ptx::types::{SHARED_WINDOW, Space, WINDOW_BYTES};

/// The new value of 32 bits.
fn next32(f: Atomic, old: u32, b: u32, c: u32) -> u32 {
    match f {
        Atomic::Add => old.wrapping_add(b),
        Atomic::AddF32 => (f32::from_bits(old) + f32::from_bits(b)).to_bits(),
        Atomic::MinS => (old as i32).min(b as i32) as u32,
        Atomic::MinU => old.min(b),
        Atomic::MaxS => (old as i32).max(b as i32) as u32,
        Atomic::MaxU => old.max(b),
        Atomic::And => old & b,
        Atomic::Or => old | b,
        Atomic::Xor => old ^ b,
        Atomic::Exch | Atomic::AddF64 => b,
        Atomic::Cas => if old == b { c } else { old },
        Atomic::Inc => if old >= b { 0 } else { old + 1 },
        Atomic::Dec => if old == 0 || old > b { b } else { old - 1 },
    }
}

/// The new value of 64 bits.
fn next64(f: Atomic, old: u64, b: u64, c: u64) -> u64 {
    match f {
        Atomic::Add => old.wrapping_add(b),
        Atomic::AddF64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        Atomic::MinS => (old as i64).min(b as i64) as u64,
        Atomic::MinU => old.min(b),
        Atomic::MaxS => (old as i64).max(b as i64) as u64,
        Atomic::MaxU => old.max(b),
        Atomic::And => old & b,
        Atomic::Or => old | b,
        Atomic::Xor => old ^ b,
        Atomic::Cas => if old == b { c } else { old },
        _ => b,
    }
}

impl Block<'_> {
    pub(super) fn atomic(&mut self, warp: &mut Warp, pc: u32, lanes: u32, op: &Op) -> Result<(), Box<Trap>> {
        let Op::Atomic { f, wide, space, addr, d, b, c } = *op else { return Ok(()) };
        let at = addresses(warp, addr);
        let bytes = if wide { 8 } else { 4 };
        let operand = |warp: &Warp, register, lane: usize| match register {
            NONE => 0,
            _ if wide => warp.registers.w(register)[lane],
            _ => u64::from(warp.registers.n(register)[lane]),
        };
        let mut row = [0u64; LANES];
        for_lanes!(lanes, lane, {
            let (b, c) = (operand(warp, b, lane), operand(warp, c, lane));
            let window = SHARED_WINDOW..SHARED_WINDOW + WINDOW_BYTES;
            row[lane] = match space {
                Space::Shared => self.atomic_shared(warp, (pc, lane), at[lane], f, wide, b, c)?,
                Space::Generic if window.contains(&at[lane]) => {
                    self.atomic_shared(warp, (pc, lane), at[lane] - SHARED_WINDOW, f, wide, b, c)?
                }
                _ => {
                    let strict = self.settings.strict;
                    // Two words of 32 bits make no atomic 64-bit update: one lock for all serves.
                    let guard = wide.then(|| self.wide_atomics.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
                    let _guard = guard;
                    let (buffer, offset) = self.global(pc, lane, at[lane], bytes)?;
                    if strict && !buffer.is_written(offset, u64::from(bytes)) {
                        let detail = format!("an atomic update of bytes at {:#x} that were never written", at[lane]);
                        return Err(Trap::new(FaultKind::Uninitialised, pc, lane, detail));
                    }
                    if wide {
                        let old = buffer.load(offset, 8);
                        buffer.store(offset, 8, next64(f, old, b, c));
                        old
                    } else {
                        let word = buffer.word(offset);
                        let update = |old| Some(next32(f, old, b as u32, c as u32));
                        word.map_or(0, |w| u64::from(w.fetch_update(Relaxed, Relaxed, update).unwrap_or_else(|old| old)))
                    }
                }
            };
        });
        if wide {
            warp.registers.put_w(lanes, d, row);
        } else {
            warp.registers.put_n(lanes, d, row.map(|value| value as u32));
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "an address, an operation and its operands")]
    fn atomic_shared(
        &mut self,
        warp: &Warp,
        (pc, lane): (u32, usize),
        at: u64,
        f: Atomic,
        wide: bool,
        b: u64,
        c: u64,
    ) -> Result<u64, Box<Trap>> {
        let bytes = if wide { 8 } else { 4 };
        self.note(warp, pc, lane, at, bytes, How::Atomic)?;
        let at = at as u32;
        let done = if wide {
            self.shared.load_words::<2>(at).and_then(|[low, high]| {
                let old = u64::from(low) | u64::from(high) << 32;
                let new = next64(f, old, b, c);
                self.shared.store_words(at, [new as u32, (new >> 32) as u32]).map(|()| old)
            })
        } else {
            self.shared.load_words::<1>(at).and_then(|[old]| {
                self.shared.store_words(at, [next32(f, old, b as u32, c as u32)]).map(|()| u64::from(old))
            })
        };
        done.map_err(|refusal| self.refused(pc, lane, u64::from(at), bytes, refusal))
    }
}

//! Atomic operations. The lanes of a warp take part one after the other.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use super::access::global::{Finder, unwritten};
use super::access::shared::{note_shared, offset as offset_of, refused};
use super::access::{addresses, resolve};
use super::exec::Env;
use super::fault::{FaultKind, Trap};
use super::races::How;
use super::registers::LANES;
use super::warp::Warp;
use crate::ptx::op::{Addr, Atomic, NONE, Reg};
use crate::ptx::types::Space;

/// 64-bit words are two 32-bit ones here, so their updates exclude each other.
static WIDE: Mutex<()> = Mutex::new(());

/// An atomic instruction.
pub(super) struct Update {
    pub(super) f: Atomic,
    pub(super) wide: bool,
    pub(super) space: Space,
    pub(super) addr: Addr,
    pub(super) d: Reg,
    pub(super) b: Reg,
    pub(super) c: Reg,
}

pub(super) fn execute(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    lanes: u32,
    update: &Update,
) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, update.addr);
    let mut finder = Finder::new(env, pc);
    let bytes = if update.wide { 8 } else { 4 };
    for lane in (0..LANES).filter(|lane| lanes >> lane & 1 != 0) {
        let operand = |register: Reg| match register {
            NONE => 0,
            register if update.wide => warp.registers.w(register)[lane],
            register => u64::from(warp.registers.n(register)[lane]),
        };
        let (b, c) = (operand(update.b), operand(update.c));
        let new = |old: u64| apply(update.f, update.wide, old, b, c);
        let (space, address) = resolve(update.space, addresses[lane]);
        let old = match space {
            Space::Global => {
                let (buffer, offset) = finder.find(env, pc, lane, address, bytes)?;
                if env.settings.strict && !buffer.is_written(offset, bytes) {
                    return Err(unwritten(pc, lane, address, bytes));
                }
                if update.wide {
                    let _guard = WIDE.lock().unwrap_or_else(PoisonError::into_inner);
                    let old = buffer.load(offset, 8);
                    buffer.store(offset, 8, new(old));
                    old
                } else if let Some(word) = buffer.word(offset) {
                    let old = word.fetch_update(Relaxed, Relaxed, |old| Some(new(u64::from(old)) as u32));
                    buffer.mark_written(offset, 4);
                    u64::from(old.unwrap_or_else(|old| old))
                } else {
                    0
                }
            }
            Space::Shared => {
                let offset = offset_of(address);
                let old = if update.wide {
                    env.shared.load_words::<2>(offset).map(|[low, high]| u64::from(low) | u64::from(high) << 32)
                } else {
                    env.shared.load_words::<1>(offset).map(|[word]| u64::from(word))
                };
                let old = old.map_err(|refusal| refused(env, refusal, pc, lane, address, bytes as u32))?;
                let value = new(old);
                // The load has checked the place.
                let _ = if update.wide {
                    env.shared.store_words(offset, [value as u32, (value >> 32) as u32])
                } else {
                    env.shared.store_words(offset, [value as u32])
                };
                note_shared(warp, env, pc, 1 << lane, &[address; LANES], bytes as u32, How::Atomic)?;
                old
            }
            _ => {
                return Err(Trap::new(
                    FaultKind::OutOfBounds,
                    pc,
                    lane,
                    "an atomic operation on a thread's own memory",
                ));
            }
        };
        match update.d {
            NONE => {}
            d if update.wide => warp.registers.wide[usize::from(d)][lane] = old,
            d => warp.registers.narrow[usize::from(d)][lane] = old as u32,
        }
    }
    Ok(())
}

fn apply(f: Atomic, wide: bool, old: u64, b: u64, c: u64) -> u64 {
    let signed = |value: u64| if wide { value as i64 } else { i64::from(value as u32 as i32) };
    match f {
        Atomic::Add => old.wrapping_add(b),
        Atomic::AddF32 => u64::from((f32::from_bits(old as u32) + f32::from_bits(b as u32)).to_bits()),
        Atomic::AddF64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        Atomic::MinU => old.min(b),
        Atomic::MaxU => old.max(b),
        Atomic::MinS => signed(old).min(signed(b)) as u64,
        Atomic::MaxS => signed(old).max(signed(b)) as u64,
        Atomic::And => old & b,
        Atomic::Or => old | b,
        Atomic::Xor => old ^ b,
        Atomic::Exch => b,
        Atomic::Cas => {
            if old == b {
                c
            } else {
                old
            }
        }
        Atomic::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        Atomic::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}

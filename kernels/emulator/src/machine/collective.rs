//! What the lanes of a warp do together: shuffles, votes, reductions, matrix loads.

use super::access::addresses;
use super::access::shared::{note_shared, offset as offset_of, refused};
use super::exec::Env;
use super::fault::Trap;
use super::memory::POISON;
use super::races::How;
use super::registers::LANES;
use super::scalar::int32;
use super::warp::Warp;
use crate::ptx::op::{Addr, Op, Reg, Shuffle, Vote};

/// Executes a shuffle, vote or reduction for the lanes that are ready.
pub(super) fn execute(warp: &mut Warp, ready: u32, op: &Op) {
    if ready == 0 {
        return;
    }
    let r = &mut warp.registers;
    match *op {
        Op::Shuffle { f, d, p, a, b, c, mask } => {
            let (values, distance, control, masks) = (*r.n(a), *r.n(b), *r.n(c), *r.n(mask));
            let (mut row, mut valid) = ([0; LANES], 0u32);
            for lane in 0..LANES {
                let (source, inside) = source_lane(f, lane as u32, distance[lane], control[lane]);
                // Reading a lane that does not take part gives nothing that can be relied on.
                let taken = masks[lane] & ready;
                row[lane] = if taken >> source & 1 != 0 { values[source as usize] } else { POISON };
                valid |= u32::from(inside) << lane;
            }
            r.put_n(ready, d, row);
            r.put_p(ready, p, valid);
        }
        Op::Vote { f, d, a, negated, mask } => {
            let masks = *r.n(mask);
            let bits = if negated { !r.p(a) } else { r.p(a) };
            let asked = |lane: usize| (masks[lane] & ready, bits & masks[lane] & ready);
            if f == Vote::Ballot {
                r.put_n(ready, d, std::array::from_fn(|lane| asked(lane).1));
                return;
            }
            let mut result = 0;
            for lane in 0..LANES {
                let (asked, yes) = asked(lane);
                let holds = match f {
                    Vote::All => yes == asked,
                    Vote::Any => yes != 0,
                    _ => yes == 0 || yes == asked,
                };
                result |= u32::from(holds) << lane;
            }
            r.put_p(ready, d, result);
        }
        Op::Redux { f, d, a, mask } => {
            let (values, masks) = (*r.n(a), *r.n(mask));
            let row = std::array::from_fn(|lane| {
                let mut taking_part = (0..LANES).filter(|&other| (masks[lane] & ready) >> other & 1 != 0);
                let first = taking_part.next().map_or(0, |other| values[other]);
                taking_part.fold(first, |sum, other| int32(f, sum, values[other]))
            });
            r.put_n(ready, d, row);
        }
        _ => {}
    }
}

/// The lane that a lane reads from, and whether that lies inside its segment (PTX ISA, `shfl.sync`).
fn source_lane(f: Shuffle, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (distance, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let highest = lane & segment | clamp & !segment;
    let (source, inside) = match f {
        Shuffle::Up => (lane.wrapping_sub(distance), lane as i32 - distance as i32 >= highest as i32),
        Shuffle::Down => (lane + distance, lane + distance <= highest),
        Shuffle::Bfly => (lane ^ distance, lane ^ distance <= highest),
        Shuffle::Idx => {
            let source = lane & segment | distance & !segment;
            (source, source <= highest)
        }
    };
    if inside { (source & 31, true) } else { (lane, false) }
}

/// `ldmatrix`: matrices of 8 × 8 16-bit numbers. Lane `8 i + r` gives the address of row `r` of matrix `i`.
pub(super) fn load_matrix(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    count: u8,
    transpose: bool,
    addr: Addr,
    d: [Reg; 4],
) -> Result<(), Box<Trap>> {
    let addresses = addresses(warp, addr);
    let needed = if count == 4 { u32::MAX } else { (1 << (8 * count)) - 1 };
    for (matrix, d) in d.into_iter().enumerate().take(usize::from(count)) {
        let mut rows = [[0u32; 4]; 8];
        for (row, words) in rows.iter_mut().enumerate() {
            let lane = 8 * matrix + row;
            let offset = offset_of(addresses[lane]);
            match env.shared.load_words::<4>(offset) {
                Ok(loaded) => *words = loaded,
                Err(refusal) => return Err(refused(env, refusal, pc, lane, addresses[lane], 16)),
            }
        }
        let half = |row: usize, column: usize| rows[row][column / 2] >> (16 * (column % 2)) & 0xffff;
        let fragment = std::array::from_fn(|lane| {
            let (major, minor) = (lane / 4, 2 * (lane % 4));
            if transpose {
                half(minor, major) | half(minor + 1, major) << 16
            } else {
                half(major, minor) | half(major, minor + 1) << 16
            }
        });
        warp.registers.put_n(u32::MAX, d, fragment);
    }
    note_shared(warp, env, pc, needed, &addresses, 16, How::Read)
}

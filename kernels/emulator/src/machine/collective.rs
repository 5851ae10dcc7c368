//! What the lanes of a warp do together: shuffles, votes, reductions, and the matrix instructions.

use super::block::Block;
use super::fault::Trap;
use super::registers::{LANES, Registers, for_lanes};
use super::scalar::int32;
use super::warp::Warp;
use crate::ptx::op::{NONE, Op, Shuffle, Vote};

impl Block<'_> {
    /// Executes an instruction for the lanes that have met.
    pub(super) fn collective(&mut self, warp: &mut Warp, pc: u32, lanes: u32, op: &Op) -> Result<(), Box<Trap>> {
        match *op {
            Op::Shuffle { .. } => shuffle(&mut warp.registers, lanes, op),
            Op::Vote { f, d, a, negated, .. } => {
                let truth = if negated { !warp.registers.p(a) } else { warp.registers.p(a) } & lanes;
                let result = match f {
                    Vote::Ballot => {
                        warp.registers.put_n(lanes, d, [truth; LANES]);
                        return Ok(());
                    }
                    Vote::All => truth == lanes,
                    Vote::Any => truth != 0,
                    Vote::Uni => truth == 0 || truth == lanes,
                };
                warp.registers.put_p(lanes, d, if result { u32::MAX } else { 0 });
            }
            Op::Redux { f, d, a, .. } => {
                let row = *warp.registers.n(a);
                let values = (0..LANES).filter(|lane| lanes >> lane & 1 != 0).map(|lane| row[lane]);
                let result = values.reduce(|a, b| int32(f, a, b)).unwrap_or(0);
                warp.registers.put_n(lanes, d, [result; LANES]);
            }
            Op::WarpSync { .. } => {
                if let Some(races) = &mut self.shared.races {
                    races.warp_sync(warp.index);
                }
            }
            Op::Mma { index } => {
                self.counts.mma += 1;
                super::product::multiply(
                    &mut warp.registers,
                    &self.program.products[usize::from(index)],
                    self.settings.hardware_error,
                );
            }
            Op::LoadMatrix { .. } => self.load_matrix(warp, pc, op)?,
            _ => {}
        }
        Ok(())
    }
}

/// The source lanes of `shfl` as the manual's pseudocode finds them.
fn shuffle(r: &mut Registers, lanes: u32, op: &Op) {
    let Op::Shuffle { f, d, p, a, b, c, .. } = *op else { return };
    let (values, distances, controls) = (*r.n(a), *r.n(b), *r.n(c));
    let (mut row, mut found) = ([0; LANES], 0);
    for_lanes!(lanes, lane, {
        let own = lane as i32;
        let (distance, control) = ((distances[lane] & 31) as i32, controls[lane]);
        let (clamp, segment) = ((control & 31) as i32, (control >> 8 & 31) as i32);
        let last = own & segment | clamp & !segment;
        let first = own & segment;
        let (source, inside) = match f {
            Shuffle::Up => (own - distance, own - distance >= last),
            Shuffle::Down => (own + distance, own + distance <= last),
            Shuffle::Bfly => (own ^ distance, (own ^ distance) <= last),
            Shuffle::Idx => (first | distance & !segment, (first | distance & !segment) <= last),
        };
        let source = if inside { source as usize & 31 } else { lane };
        // A lane that does not take part gives no value: hardware leaves it undefined.
        row[lane] = if lanes >> source & 1 != 0 { values[source] } else { u32::MAX };
        found |= u32::from(inside) << lane;
    });
    r.put_n(lanes, d, row);
    if p != NONE {
        r.put_p(lanes, p, found);
    }
}

//! Matrix products of a warp, `mma.sync`.
//!
//! Operands are cut to their format (tf32 ignores the low 13 bits), products are exact, sums are kept in double
//! precision and rounded once to single precision. Tensor cores keep fewer bits and cut them off; with
//! [`super::settings::Settings::hardware_error`] the sum is cut off to single precision instead of rounded.

use super::registers::{LANES, Registers, Row};
use super::scalar::round_to_single;
use crate::ptx::op::{Mma, MmaType, Round};

/// Rows of A and D.
const ROWS: usize = 16;
/// Columns of B and D.
const COLUMNS: usize = 8;
/// The largest number of columns of A and rows of B.
const DEPTH: usize = 16;

/// D = A B + C for all lanes.
#[inline(always)]
pub(super) fn multiply(r: &mut Registers, mma: &Mma, cut_off: bool) {
    let mut a = [[0.0f64; DEPTH]; ROWS];
    let mut b = [[0.0f64; COLUMNS]; DEPTH];
    let k = usize::from(mma.k);
    let pairs = mma.ty != MmaType::Tf32;
    // Each register of A holds rows g and g + 8 by turns, the later ones the upper half of the columns.
    let a_registers = if pairs { k / 4 } else { k / 2 };
    for (index, &register) in mma.a.iter().take(a_registers).enumerate() {
        let (row, column) = (8 * (index % 2), if pairs { 8 * (index / 2) } else { 4 * (index / 2) });
        let values = r.n(register);
        if pairs {
            for lane in 0..LANES {
                let [low, high] = halves(mma.ty, values[lane]);
                a[row + lane / 4][column + 2 * (lane % 4)] = low;
                a[row + lane / 4][column + 2 * (lane % 4) + 1] = high;
            }
        } else {
            for lane in 0..LANES {
                a[row + lane / 4][column + lane % 4] = tf32(values[lane]);
            }
        }
    }
    for (index, &register) in mma.b.iter().take(a_registers / 2).enumerate() {
        let values = r.n(register);
        if pairs {
            for lane in 0..LANES {
                let [low, high] = halves(mma.ty, values[lane]);
                b[8 * index + 2 * (lane % 4)][lane / 4] = low;
                b[8 * index + 2 * (lane % 4) + 1][lane / 4] = high;
            }
        } else {
            for lane in 0..LANES {
                b[4 * index + lane % 4][lane / 4] = tf32(values[lane]);
            }
        }
    }
    let mut rows: [Row<u32>; 4] = mma.c.map(|register| *r.n(register));
    for row in 0..ROWS {
        // Lanes 4 g .. 4 g + 4 hold row g, two columns each, in registers 0 and 1, and row g + 8 in 2 and 3.
        let (first, lanes) = (2 * (row / 8), 4 * (row % 8));
        let mut sums = [0.0f64; COLUMNS];
        for column in 0..COLUMNS {
            sums[column] = f64::from(f32::from_bits(rows[first + column % 2][lanes + column / 2]));
        }
        for depth in 0..k {
            let factor = a[row][depth];
            for column in 0..COLUMNS {
                sums[column] += factor * b[depth][column];
            }
        }
        for column in 0..COLUMNS {
            let rounded = if cut_off { round_to_single(sums[column], 0.0, Round::Zero) } else { sums[column] as f32 };
            rows[first + column % 2][lanes + column / 2] = rounded.to_bits();
        }
    }
    for (row, register) in rows.into_iter().zip(mma.d) {
        r.put_n(u32::MAX, register, row);
    }
}

#[inline(always)]
fn tf32(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits & 0xffff_e000))
}

/// The two numbers of a register, the lower one first.
#[inline(always)]
fn halves(ty: MmaType, bits: u32) -> [f64; 2] {
    if ty == MmaType::Bf16 {
        [f64::from(f32::from_bits(bits << 16)), f64::from(f32::from_bits(bits & 0xffff_0000))]
    } else {
        [super::convert::from_f16(bits as u16), super::convert::from_f16((bits >> 16) as u16)]
    }
}

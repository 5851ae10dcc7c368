//! Matrix products of a warp, and the loads that feed them.
//!
//! Operands are what hardware sees: of a tf32 number the low 13 bits are ignored. Products are exact, their sum is taken in
//! double precision and rounded once; with `hardware_error` it is cut off instead, as tensor cores do.

use super::access::addresses;
use super::block::Block;
use super::convert::from_f16;
use super::fault::{FaultKind, Trap};
use super::races::How;
use super::registers::{ALL, LANES, Registers};
use super::scalar::round_to_single;
use super::warp::Warp;
use crate::ptx::op::{Mma, MmaType, NONE, Op, Round};

/// The elements of one 32-bit register of a fragment.
fn elements(ty: MmaType, bits: u32) -> [f64; 2] {
    match ty {
        MmaType::Tf32 => [f64::from(f32::from_bits(bits & 0xffff_e000)), 0.0],
        MmaType::Bf16 => [bits << 16, bits & 0xffff_0000].map(|bits| f64::from(f32::from_bits(bits))),
        MmaType::F16 => [bits as u16, (bits >> 16) as u16].map(from_f16),
    }
}

/// D = A B + C with the fragment layouts of the PTX manual, section "Matrix Fragments for mma.m16n8k…".
pub(super) fn multiply(r: &mut Registers, product: &Mma, hardware_error: bool) {
    let pair = if product.ty == MmaType::Tf32 { 1 } else { 2 };
    let (mut a, mut b) = ([[0.0; 16]; 16], [[0.0; 8]; 16]);
    for (register, &reg) in product.a.iter().enumerate().filter(|(_, reg)| **reg != NONE) {
        let row = r.n(reg);
        for (lane, &bits) in row.iter().enumerate() {
            let (group, thread) = (lane / 4, lane % 4);
            let column = (thread + 4 * (register / 2)) * pair;
            a[group + 8 * (register % 2)][column..][..pair].copy_from_slice(&elements(product.ty, bits)[..pair]);
        }
    }
    for (register, &reg) in product.b.iter().enumerate().filter(|(_, reg)| **reg != NONE) {
        let row = r.n(reg);
        for (lane, &bits) in row.iter().enumerate() {
            let (group, thread) = (lane / 4, lane % 4);
            for (i, value) in elements(product.ty, bits)[..pair].iter().enumerate() {
                b[(thread + 4 * register) * pair + i][group] = *value;
            }
        }
    }
    let c = product.c.map(|reg| *r.n(reg));
    let mut results = [[0u32; LANES]; 4];
    for (row, a) in a.iter().enumerate() {
        let mut sums = [0.0f64; 8];
        for (a, b) in a.iter().zip(&b).take(usize::from(product.k)) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
        let (group, half) = (row % 8, row / 8);
        for (column, sum) in sums.iter().enumerate() {
            let (lane, register) = (4 * group + column / 2, 2 * half + column % 2);
            let sum = sum + f64::from(f32::from_bits(c[register][lane]));
            let rounded = if hardware_error { round_to_single(sum, 0.0, Round::Zero) } else { sum as f32 };
            results[register][lane] = rounded.to_bits();
        }
    }
    for (d, row) in product.d.into_iter().zip(results) {
        r.put_n(ALL, d, row);
    }
}

impl Block<'_> {
    /// `ldmatrix`: eight lanes give the addresses of the rows of each 8 × 8 matrix of 16-bit elements.
    pub(super) fn load_matrix(&mut self, warp: &mut Warp, pc: u32, op: &Op) -> Result<(), Box<Trap>> {
        let Op::LoadMatrix { count, transpose, addr, d } = *op else { return Ok(()) };
        let at = addresses(warp, addr);
        for (matrix, d) in d.into_iter().enumerate().take(usize::from(count)) {
            let mut elements = [[0u16; 8]; 8];
            for (row, values) in elements.iter_mut().enumerate() {
                let lane = 8 * matrix + row;
                if !at[lane].is_multiple_of(16) {
                    let detail = format!("a row of 16 bytes at {} of shared memory", at[lane]);
                    return Err(Trap::new(FaultKind::Misaligned, pc, lane, detail));
                }
                self.note(warp, pc, lane, at[lane], 16, How::Read)?;
                let words = self.shared.load_words::<4>(at[lane] as u32);
                let words = words.map_err(|refusal| self.refused(pc, lane, at[lane], 16, refusal))?;
                for (pair, word) in values.chunks_exact_mut(2).zip(words) {
                    pair.copy_from_slice(&[word as u16, (word >> 16) as u16]);
                }
            }
            let pick = |row: usize, column: usize| {
                u32::from(if transpose { elements[column][row] } else { elements[row][column] })
            };
            let row = std::array::from_fn(|lane| {
                let (row, column) = (lane / 4, lane % 4 * 2);
                pick(row, column) | pick(row, column + 1) << 16
            });
            warp.registers.put_n(ALL, d, row);
        }
        self.counts.shared_bytes += 128 * u64::from(count);
        Ok(())
    }
}

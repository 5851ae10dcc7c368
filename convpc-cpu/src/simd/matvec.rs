//! The product of a matrix and a vector, for rows that are too few to fill registers: lanes are outputs.

use super::{Kernel, Lanes, lanes::MOST_LANES};

/// `y[d] = Σ_c w[c][d] x[c]`; returns the least of y.
///
/// Each element is the sum from c = 0 upwards of the products that [`MatMul`](super::MatMul) adds too, rounded alike, so that a
/// row has the same result by itself as among others.
#[derive(Debug)]
pub struct MatVec<'a> {
    /// `[inputs][outputs]`
    pub w: &'a [f32],
    /// `[inputs]`
    pub x: &'a [f32],
    /// `[outputs]`
    pub y: &'a mut [f32],
}

impl Kernel for MatVec<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        let Self { w, x, y } = self;
        let n = y.len();
        assert!(w.len() == x.len() * n, "a weight for each input and output");
        let mut at = 0;
        // SAFETY: each block lies within the n outputs.
        unsafe {
            let mut least = L::splat(f32::INFINITY);
            while n - at >= 8 * L::LEN {
                block::<L, 8>(w, x, y, at, &mut least);
                at += 8 * L::LEN;
            }
            if n - at >= 4 * L::LEN {
                block::<L, 4>(w, x, y, at, &mut least);
                at += 4 * L::LEN;
            }
            while n - at >= L::LEN {
                block::<L, 1>(w, x, y, at, &mut least);
                at += L::LEN;
            }
            let left = n - at;
            if left > 0 {
                let mut sum = L::splat(0.0);
                for (x, w) in x.iter().zip(w.chunks_exact(n)) {
                    sum = L::splat(*x).mul_add(L::load_first(w[at..].as_ptr(), left), sum);
                }
                sum.store_first(y[at..].as_mut_ptr(), left);
            }
            let mut lanes = [f32::INFINITY; MOST_LANES];
            least.store(lanes.as_mut_ptr());
            lanes.iter().chain(&y[at..]).fold(f32::INFINITY, |a, b| a.min(*b))
        }
    }
}

/// REGS registers of outputs from `at` on.
#[allow(
    clippy::needless_range_loop,
    reason = "the compiler unrolls loops over indices in full, and only then do the sums stay in registers"
)]
#[inline(always)]
unsafe fn block<L: Lanes, const REGS: usize>(w: &[f32], x: &[f32], y: &mut [f32], at: usize, least: &mut L) {
    let n = y.len();
    let (mut row, y) = (w.as_ptr().wrapping_add(at), &mut y[at..at + REGS * L::LEN]);
    // SAFETY: at + REGS * L::LEN <= n, and `w` has n values for each of x.
    unsafe {
        let mut sums = [L::splat(0.0); REGS];
        for &x in x {
            let x = L::splat(x);
            for j in 0..REGS {
                sums[j] = x.mul_add(L::load(row.wrapping_add(j * L::LEN)), sums[j]);
            }
            row = row.wrapping_add(n);
        }
        for j in 0..REGS {
            *least = sums[j].min(*least);
            sums[j].store(y.as_mut_ptr().add(j * L::LEN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{InstructionSet, Isa, MatMul, Matrix, Store};
    use super::*;

    #[test]
    fn equals_a_column_of_the_matrix_product_to_the_last_bit() {
        for isa in InstructionSet::available().into_iter().filter_map(Isa::new) {
            let width = isa.lanes();
            for (outputs, inputs) in
                [(1, 1), (1, 64), (7, 5), (16, 16), (23, 9), (64, 64), (65, 3), (200, 33), (256, 64)]
            {
                let number = |i: usize| (i * 7919 % 1009) as f32 / 1009.0 + 1e-3;
                let w: Vec<f32> = (0..outputs * inputs).map(number).collect();
                let x: Vec<f32> = (0..inputs * width).map(|i| number(i + 17)).collect();
                let mut c = vec![0.0; outputs * width];
                let (m, n, k, a, store) = (outputs, width, inputs, Matrix::new(&w, 1, outputs), Store::Set);
                isa.dispatch(MatMul { m, n, k, a, b: &x, ldb: width, c: &mut c, ldc: width, store });
                for row in 0..width {
                    let x: Vec<f32> = x[row..].iter().step_by(width).copied().collect();
                    let mut y = vec![0.0; outputs];
                    let least = isa.dispatch(MatVec { w: &w, x: &x, y: &mut y });
                    let expected: Vec<f32> = c[row..].iter().step_by(width).copied().collect();
                    assert_eq!(y, expected, "{outputs} x {inputs}, row {row}");
                    assert_eq!(least, expected.into_iter().fold(f32::INFINITY, f32::min));
                }
            }
        }
    }
}

//! The matrix product, in register tiles.
//!
//! The inner loop adds one step of the depth to a tile of C that stays in registers: a few registers of a row of B,
//! times a few scalars of a column of A. A is read where it lies, by strides, so a transposed matrix needs no copy; B is
//! not packed either, because a column panel of the sizes used here fits in the first-level cache.

use super::{Isa, Kernel, Lanes};

/// A matrix read by strides: element (i, k) is `data[i * row_stride + k * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// The distance between two rows.
    pub row_stride: usize,
    /// The distance between two columns.
    pub col_stride: usize,
}

/// C = A B, or C += A B.
///
/// Each element of C is the sum from k = 0 upwards of the (fused, where the instruction set can) products, begun at
/// zero and added to what C held if `accumulate`; the operations are the same wherever the element lies, so a result
/// does not depend on the columns beside it.
///
/// # Panics
///
/// Running it panics if a slice is too short for its shape and strides.
#[derive(Debug)]
pub struct MatMul<'a> {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// A, [m, k].
    pub a: Matrix<'a>,
    /// B, [k, n]: row k begins at `k * ldb`.
    pub b: &'a [f32],
    /// The distance between two rows of B.
    pub ldb: usize,
    /// C, [m, n]: row i begins at `i * ldc`.
    pub c: &'a mut [f32],
    /// The distance between two rows of C, at least n.
    pub ldc: usize,
    /// Whether to add to C instead of overwriting it.
    pub accumulate: bool,
}

/// `c[i][j]` (= or +=) the sum over k of `a[i][k] * b[k][j]`; see [`MatMul`] for the arguments.
///
/// # Panics
///
/// If a slice is too short for its shape and strides.
#[expect(clippy::too_many_arguments, reason = "the arguments of a BLAS gemm")]
pub fn matmul(
    isa: Isa,
    a: Matrix<'_>,
    b: &[f32],
    ldb: usize,
    c: &mut [f32],
    ldc: usize,
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
) {
    isa.dispatch(MatMul { m, n, k, a, b, ldb, c, ldc, accumulate });
}

impl Kernel for MatMul<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        self.check();
        let product = Pointers {
            m: self.m,
            k: self.k,
            a: self.a.data.as_ptr(),
            row_stride: self.a.row_stride,
            col_stride: self.a.col_stride,
            b: self.b.as_ptr(),
            ldb: self.ldb,
            c: self.c.as_mut_ptr(),
            ldc: self.ldc,
            accumulate: self.accumulate,
        };
        // The tile must leave registers for the row of B and a scalar of A, and must hold at least the 8 to 10
        // independent sums that two fused units of latency 4 to 5 need.
        // SAFETY: the shapes have been checked; the instruction set is the caller's contract.
        unsafe {
            if L::REGISTERS >= 32 {
                product.columns::<L, 8, 2>(self.n);
            } else if L::REGISTERS >= 16 {
                product.columns::<L, 6, 2>(self.n);
            } else {
                product.columns::<L, 4, 1>(self.n);
            }
        }
    }
}

impl MatMul<'_> {
    /// Asserts that every index the product uses lies in its slice.
    #[inline(always)]
    fn check(&self) {
        if self.m == 0 || self.n == 0 {
            return;
        }
        assert!(reaches(self.c.len(), self.m, self.ldc, self.n, 1), "C is too short");
        assert!(self.m == 1 || self.ldc >= self.n, "the rows of C overlap");
        if self.k == 0 {
            return;
        }
        let Matrix { data, row_stride, col_stride } = self.a;
        assert!(reaches(data.len(), self.m, row_stride, self.k, col_stride), "A is too short");
        assert!(reaches(self.b.len(), self.k, self.ldb, self.n, 1), "B is too short");
    }
}

/// Whether the last element of a non-empty matrix lies within `len` elements.
fn reaches(len: usize, rows: usize, row_stride: usize, cols: usize, col_stride: usize) -> bool {
    let last =
        (rows - 1).checked_mul(row_stride).zip((cols - 1).checked_mul(col_stride)).and_then(|(i, j)| i.checked_add(j));
    last.is_some_and(|last| last < len)
}

/// The operands of a product whose bounds have been checked, from some column of B and C on.
#[derive(Clone, Copy)]
struct Pointers {
    m: usize,
    k: usize,
    a: *const f32,
    row_stride: usize,
    col_stride: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
}

impl Pointers {
    /// Panels of REGS registers, then of one, then of a part of one.
    #[inline(always)]
    unsafe fn columns<L: Lanes, const ROWS: usize, const REGS: usize>(mut self, n: usize) {
        // SAFETY: each panel lies within the n columns that have been checked.
        unsafe {
            let mut left = n;
            while left >= REGS * L::LEN {
                self.panel::<L, ROWS, REGS, true>(REGS * L::LEN);
                left -= REGS * L::LEN;
            }
            while left >= L::LEN {
                self.panel::<L, ROWS, 1, true>(L::LEN);
                left -= L::LEN;
            }
            if left > 0 {
                self.panel::<L, ROWS, 1, false>(left);
            }
        }
    }

    /// All rows of the next `width` columns: tiles of ROWS rows, then smaller ones.
    ///
    /// FULL says that `width` is all lanes of REGS registers; otherwise it is a part of one.
    #[inline(always)]
    unsafe fn panel<L: Lanes, const ROWS: usize, const REGS: usize, const FULL: bool>(&mut self, width: usize) {
        // SAFETY: each tile lies within the m rows that have been checked.
        unsafe {
            let mut i = 0;
            while i + ROWS <= self.m {
                self.tile::<L, ROWS, REGS, FULL>(i, width);
                i += ROWS;
            }
            while i + 4 <= self.m {
                self.tile::<L, 4, REGS, FULL>(i, width);
                i += 4;
            }
            if i + 2 <= self.m {
                self.tile::<L, 2, REGS, FULL>(i, width);
                i += 2;
            }
            if i < self.m {
                self.tile::<L, 1, REGS, FULL>(i, width);
            }
        }
        self.b = self.b.wrapping_add(width);
        self.c = self.c.wrapping_add(width);
    }

    /// ROWS rows of C from row i on, over the first `width` columns.
    #[allow(
        clippy::needless_range_loop,
        reason = "the compiler unrolls loops over indices in full, and only then does the tile stay in registers"
    )]
    #[inline(always)]
    unsafe fn tile<L: Lanes, const ROWS: usize, const REGS: usize, const FULL: bool>(&self, i: usize, width: usize) {
        let mut a = self.a.wrapping_add(i * self.row_stride);
        let mut b = self.b;
        let c = self.c.wrapping_add(i * self.ldc);
        // SAFETY: the rows, the columns and the depth lie within the shapes that have been checked.
        unsafe {
            let mut sums = [[L::splat(0.0); REGS]; ROWS];
            for _ in 0..self.k {
                let mut b_row = [L::splat(0.0); REGS];
                for j in 0..REGS {
                    b_row[j] = load::<L, FULL>(b.wrapping_add(j * L::LEN), width);
                }
                for r in 0..ROWS {
                    let scalar = L::splat(*a.wrapping_add(r * self.row_stride));
                    for j in 0..REGS {
                        sums[r][j] = scalar.mul_add(b_row[j], sums[r][j]);
                    }
                }
                a = a.wrapping_add(self.col_stride);
                b = b.wrapping_add(self.ldb);
            }
            for r in 0..ROWS {
                for j in 0..REGS {
                    let c = c.wrapping_add(r * self.ldc + j * L::LEN);
                    let mut sum = sums[r][j];
                    if self.accumulate {
                        sum = load::<L, FULL>(c, width).add(sum);
                    }
                    if FULL {
                        sum.store(c);
                    } else {
                        sum.store_first(c, width);
                    }
                }
            }
        }
    }
}

/// A register from memory, or its first `width` lanes if it is not FULL.
#[inline(always)]
unsafe fn load<L: Lanes, const FULL: bool>(from: *const f32, width: usize) -> L {
    // SAFETY: the caller's contract is the one of `Lanes`.
    unsafe { if FULL { L::load(from) } else { L::load_first(from, width) } }
}

#[cfg(test)]
mod tests {
    use super::super::InstructionSet;
    use super::*;

    fn every_isa() -> impl Iterator<Item = Isa> {
        InstructionSet::available().into_iter().filter_map(Isa::new)
    }

    /// Numbers in [-1, 1) from a multiplicative generator.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// How A lies in memory.
    #[derive(Clone, Copy, Debug)]
    enum Layout {
        Rows,
        Columns,
        /// Neither stride is 1.
        Scattered,
    }

    impl Layout {
        fn strides(self, m: usize, k: usize) -> (usize, usize) {
            match self {
                Self::Rows => (k + 1, 1),
                Self::Columns => (1, m),
                Self::Scattered => (3 * k + 1, 3),
            }
        }
    }

    /// Compares with a triple loop in f64, also around C, where nothing may change.
    fn compare(isa: Isa, [m, n, k]: [usize; 3], layout: Layout, accumulate: bool) {
        let (row_stride, col_stride) = layout.strides(m, k);
        let (ldb, ldc) = (n + 2, n + 3);
        let a = numbers(m * row_stride + k * col_stride, 1);
        let b = numbers(k * ldb, 2);
        let before = numbers(m * ldc, 3);
        let mut c = before.clone();
        let matrix = Matrix { data: &a, row_stride, col_stride };
        matmul(isa, matrix, &b, ldb, &mut c, ldc, m, n, k, accumulate);

        for (at, (&c, &before)) in c.iter().zip(&before).enumerate() {
            let (i, j) = (at / ldc, at % ldc);
            if j >= n {
                assert_eq!(c, before, "beyond the row");
                continue;
            }
            let mut sum = if accumulate { f64::from(before) } else { 0.0 };
            for l in 0..k {
                sum += f64::from(a[i * row_stride + l * col_stride]) * f64::from(b[l * ldb + j]);
            }
            // Each of k + 1 roundings errs by half an ULP of a partial sum below k + 1.
            let bound = ((k + 1) * (k + 1)) as f64 * f64::from(f32::EPSILON) / 2.0;
            assert!(
                (f64::from(c) - sum).abs() <= bound,
                "{} {m} x {n} x {k} {layout:?} {accumulate}: {c} instead of {sum} at {i}, {j}",
                isa.instruction_set()
            );
        }
    }

    #[test]
    fn equals_the_triple_loop() {
        for isa in every_isa() {
            for m in [0, 1, 2, 3, 5, 8, 15, 23] {
                for n in [0, 1, 7, 8, 15, 16, 17, 32, 33, 47, 64, 81] {
                    for k in [0, 1, 2, 17] {
                        for layout in [Layout::Rows, Layout::Columns, Layout::Scattered] {
                            compare(isa, [m, n, k], layout, false);
                            compare(isa, [m, n, k], layout, true);
                        }
                    }
                }
            }
            compare(isa, [64, 128, 64], Layout::Rows, true);
            compare(isa, [64, 256, 64], Layout::Columns, false);
        }
    }

    #[test]
    fn a_result_does_not_depend_on_its_place() {
        let (m, k, columns) = (15, 33, 75);
        let a = numbers(m * k, 4);
        let column = numbers(k, 5);
        let start = numbers(1, 6)[0];
        for isa in every_isa() {
            // All columns of B are the same, so all columns of C are, in full and partial registers.
            let b: Vec<f32> = column.iter().flat_map(|&x| vec![x; columns]).collect();
            let mut c = vec![start; m * columns];
            let matrix = Matrix { data: &a, row_stride: k, col_stride: 1 };
            matmul(isa, matrix, &b, columns, &mut c, columns, m, columns, k, true);
            for row in c.chunks(columns) {
                assert!(row.iter().all(|x| x.to_bits() == row[0].to_bits()));
            }

            // A column alone gives the same, and so does a row alone.
            for i in 0..m {
                let mut alone = [start];
                let row = Matrix { data: &a[i * k..], ..matrix };
                matmul(isa, row, &column, 1, &mut alone, 1, 1, 1, k, true);
                assert_eq!(alone[0].to_bits(), c[i * columns].to_bits());
            }
        }
    }

    #[test]
    fn short_slices_are_refused() {
        let refused = |a: usize, b: usize, c: usize, ldc: usize| {
            let (a, b, mut c) = (vec![0.0; a], vec![0.0; b], vec![0.0; c]);
            std::panic::catch_unwind(move || {
                let matrix = Matrix { data: &a, row_stride: 4, col_stride: 1 };
                matmul(Isa::detect(), matrix, &b, 5, &mut c, ldc, 3, 5, 4, false);
            })
            .is_err()
        };
        assert!(!refused(12, 20, 15, 5));
        assert!(refused(11, 20, 15, 5));
        assert!(refused(12, 19, 15, 5));
        assert!(refused(12, 20, 14, 5));
        assert!(refused(12, 20, 15, 4));
        assert!(refused(12, 20, 15, usize::MAX));
    }
}

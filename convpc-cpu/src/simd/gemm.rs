//! The matrix product, in register tiles.
//!
//! The inner loop adds one step of the depth to a tile of C that stays in registers: a few registers of a row of B,
//! times a few scalars of a column of A. A is read where it lies, by strides, so a transposed matrix needs no copy; B is
//! not packed either, because a column panel of the sizes used here fits in the first-level cache.

use super::{Kernel, Lanes, lanes::MOST_LANES};

/// A matrix read by strides: element (i, k) is `data[k / block * block_stride + i * row_stride + k % block * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// The distance between two rows.
    pub row_stride: usize,
    /// The distance between two columns of a block.
    pub col_stride: usize,
    /// Columns of a block.
    pub block: usize,
    /// The distance between two blocks.
    pub block_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix of one block.
    pub fn new(data: &'a [f32], row_stride: usize, col_stride: usize) -> Self {
        Matrix { data, row_stride, col_stride, block: usize::MAX, block_stride: 0 }
    }
}

/// What becomes of C.
#[derive(Clone, Copy, Debug)]
pub enum Store<'a> {
    /// `C = A B`.
    Set,
    /// `C = A ⊗ B`, where the largest product takes the place of their sum. All elements are at least 0.
    Largest,
    /// `C += F ⊙ A B`, F lying as C does.
    Weighted(&'a [f32]),
}

/// C from A and B, as [`Store`] says; returns the least of the elements in C's full registers.
///
/// Each element of the product is the sum from k = 0 upwards of the (fused, where the instruction set can) products; the
/// operations are the same wherever the element lies, so a result does not depend on the columns beside it.
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
    /// What becomes of C.
    pub store: Store<'a>,
}

impl Kernel for MatMul<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        self.check();
        // SAFETY: the shapes have been checked; the instruction set is the caller's contract.
        unsafe {
            let mut product = Pointers {
                m: self.m,
                k: self.k,
                a: self.a,
                b: self.b.as_ptr(),
                ldb: self.ldb,
                c: self.c.as_mut_ptr(),
                ldc: self.ldc,
                factors: if let Store::Weighted(factors) = self.store { factors.as_ptr() } else { std::ptr::null() },
                least: L::splat(f32::INFINITY),
            };
            match self.store {
                Store::Set => product.all_columns::<SET>(self.n),
                Store::Largest => product.all_columns::<LARGEST>(self.n),
                Store::Weighted(_) => product.all_columns::<WEIGHTED>(self.n),
            }
            let mut least = [f32::INFINITY; MOST_LANES];
            product.least.store(least.as_mut_ptr());
            least.into_iter().fold(f32::INFINITY, f32::min)
        }
    }
}

/// The cases of [`Store`], for the compiler to make one loop of each.
const SET: u8 = 0;
const LARGEST: u8 = 1;
const WEIGHTED: u8 = 2;

impl MatMul<'_> {
    /// Asserts that every index the product uses lies in its slice.
    #[inline(always)]
    fn check(&self) {
        if self.m == 0 || self.n == 0 {
            return;
        }
        assert!(reaches(self.c.len(), self.m, self.ldc, self.n, 1), "C is too short");
        assert!(self.m == 1 || self.ldc >= self.n, "the rows of C overlap");
        if let Store::Weighted(factors) = self.store {
            assert!(factors.len() == self.c.len(), "as many factors as elements of C");
        }
        if self.k == 0 {
            return;
        }
        let Matrix { data, row_stride, col_stride, block, block_stride } = self.a;
        // The last column, and that of the last whole block before it.
        let last = (self.k - 1) / block;
        for (block, columns) in [(last, (self.k - 1) % block + 1), (last.saturating_sub(1), block.min(self.k))] {
            let rest = block.checked_mul(block_stride).and_then(|before| data.len().checked_sub(before)).unwrap_or(0);
            assert!(reaches(rest, self.m, row_stride, columns, col_stride), "A is too short");
        }
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
struct Pointers<'a, L> {
    m: usize,
    k: usize,
    a: Matrix<'a>,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    factors: *const f32,
    least: L,
}

impl<L: Lanes> Pointers<'_, L> {
    /// Chooses the register tile. It must leave registers for the row of B and a scalar of A, and must hold at least the
    /// 8 to 10 independent sums that two fused units of latency 4 to 5 need.
    #[inline(always)]
    unsafe fn all_columns<const STORE: u8>(&mut self, n: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            if L::REGISTERS >= 32 {
                self.columns::<8, 2, 16, STORE>(n);
            } else if L::REGISTERS >= 16 {
                self.columns::<6, 2, 12, STORE>(n);
            } else {
                self.columns::<4, 1, 4, STORE>(n);
            }
        }
    }

    /// Panels of REGS registers in tiles of ROWS rows, then of one in tiles of TALL rows, then of a part of one.
    #[inline(always)]
    unsafe fn columns<const ROWS: usize, const REGS: usize, const TALL: usize, const STORE: u8>(&mut self, n: usize) {
        // SAFETY: each panel lies within the n columns that have been checked.
        unsafe {
            let mut left = n;
            while left >= REGS * L::LEN {
                self.panel::<ROWS, REGS, true, STORE>(REGS * L::LEN);
                left -= REGS * L::LEN;
            }
            while left >= L::LEN {
                self.panel::<TALL, 1, true, STORE>(L::LEN);
                left -= L::LEN;
            }
            if left > 0 {
                self.panel::<TALL, 1, false, STORE>(left);
            }
        }
    }

    /// All rows of the next `width` columns: tiles of ROWS rows, then smaller ones.
    ///
    /// FULL says that `width` is all lanes of REGS registers; otherwise it is a part of one.
    #[inline(always)]
    unsafe fn panel<const ROWS: usize, const REGS: usize, const FULL: bool, const STORE: u8>(&mut self, width: usize) {
        // SAFETY: each tile lies within the m rows that have been checked.
        unsafe {
            let mut i = 0;
            while i + ROWS <= self.m {
                self.tile::<ROWS, REGS, FULL, STORE>(i, width);
                i += ROWS;
            }
            while i + 4 <= self.m {
                self.tile::<4, REGS, FULL, STORE>(i, width);
                i += 4;
            }
            if i + 2 <= self.m {
                self.tile::<2, REGS, FULL, STORE>(i, width);
                i += 2;
            }
            if i < self.m {
                self.tile::<1, REGS, FULL, STORE>(i, width);
            }
        }
        self.b = self.b.wrapping_add(width);
        self.c = self.c.wrapping_add(width);
        self.factors = self.factors.wrapping_add(width);
    }

    /// ROWS rows of C from row i on, over the first `width` columns.
    #[allow(
        clippy::needless_range_loop,
        reason = "the compiler unrolls loops over indices in full, and only then does the tile stay in registers"
    )]
    #[inline(always)]
    unsafe fn tile<const ROWS: usize, const REGS: usize, const FULL: bool, const STORE: u8>(
        &mut self,
        i: usize,
        width: usize,
    ) {
        let Matrix { data, row_stride, col_stride, block, block_stride } = self.a;
        let mut a_block = data.as_ptr().wrapping_add(i * row_stride);
        let mut b = self.b;
        // SAFETY: the rows, the columns and the depth lie within the shapes that have been checked.
        unsafe {
            let mut sums = [[L::splat(0.0); REGS]; ROWS];
            let mut left = self.k;
            while left > 0 {
                let steps = left.min(block);
                let mut a = a_block;
                for _ in 0..steps {
                    let mut b_row = [L::splat(0.0); REGS];
                    for j in 0..REGS {
                        b_row[j] = load::<L, FULL>(b.wrapping_add(j * L::LEN), width);
                    }
                    for r in 0..ROWS {
                        let scalar = L::splat(*a.wrapping_add(r * row_stride));
                        for j in 0..REGS {
                            sums[r][j] = match STORE {
                                LARGEST => scalar.mul(b_row[j]).max(sums[r][j]),
                                _ => scalar.mul_add(b_row[j], sums[r][j]),
                            };
                        }
                    }
                    a = a.wrapping_add(col_stride);
                    b = b.wrapping_add(self.ldb);
                }
                a_block = a_block.wrapping_add(block_stride);
                left -= steps;
            }
            for r in 0..ROWS {
                for j in 0..REGS {
                    let at = (i + r) * self.ldc + j * L::LEN;
                    let c = self.c.wrapping_add(at);
                    let mut sum = sums[r][j];
                    if STORE == WEIGHTED {
                        let factor = load::<L, FULL>(self.factors.wrapping_add(at), width);
                        sum = sum.mul_add(factor, load::<L, FULL>(c, width));
                    }
                    if FULL {
                        self.least = sum.min(self.least);
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
    use super::super::{InstructionSet, Isa};
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
    fn compare(isa: Isa, [m, n, k]: [usize; 3], layout: Layout, kind: u8) {
        let (row_stride, col_stride) = layout.strides(m, k);
        let (ldb, ldc) = (n + 2, n + 3);
        let a = numbers(m * row_stride + k * col_stride, 1);
        let b = numbers(k * ldb, 2);
        let (before, factors) = (numbers(m * ldc, 3), numbers(m * ldc, 4));
        let mut c = before.clone();
        let a = Matrix { block: if k % 3 == 2 { 5 } else { usize::MAX }, ..Matrix::new(&a, row_stride, col_stride) };
        // Blocks that lie as if there were none, so that one formula tells where an element is.
        let a = Matrix { block_stride: a.block.min(k) * col_stride, ..a };
        let store = [Store::Set, Store::Largest, Store::Weighted(&factors)][usize::from(kind)];
        let least = isa.dispatch(MatMul { m, n, k, a, b: &b, ldb, c: &mut c, ldc, store });
        let a = a.data;
        let lanes = if isa.instruction_set() == InstructionSet::Avx512 { 16 } else { 8 };
        let full = |at: &usize| at % ldc < n / lanes * lanes;
        assert_eq!(least, (0..c.len()).filter(full).map(|at| c[at]).fold(f32::INFINITY, f32::min));

        for (at, (&c, &before)) in c.iter().zip(&before).enumerate() {
            let (i, j) = (at / ldc, at % ldc);
            if j >= n {
                assert_eq!(c, before, "beyond the row");
                continue;
            }
            let mut sum = 0.0_f64;
            for l in 0..k {
                let term = f64::from(a[i * row_stride + l * col_stride]) * f64::from(b[l * ldb + j]);
                sum = if kind == LARGEST { sum.max(term) } else { sum + term };
            }
            if kind == WEIGHTED {
                sum = f64::from(before) + f64::from(factors[at]) * sum;
            }
            // Each of k + 1 roundings errs by half an ULP of a partial sum below k + 1.
            let bound = ((k + 1) * (k + 1)) as f64 * f64::from(f32::EPSILON) / 2.0;
            assert!(
                (f64::from(c) - sum).abs() <= bound,
                "{} {m} x {n} x {k} {layout:?} {kind}: {c} instead of {sum} at {i}, {j}",
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
                            for kind in [SET, LARGEST, WEIGHTED] {
                                compare(isa, [m, n, k], layout, kind);
                            }
                        }
                    }
                }
            }
            compare(isa, [64, 128, 64], Layout::Rows, WEIGHTED);
            compare(isa, [64, 256, 64], Layout::Columns, SET);
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
            let (mut c, factors) = (vec![start; m * columns], vec![0.7; m * columns]);
            let (a, store) = (Matrix::new(&a, k, 1), Store::Weighted(&factors));
            isa.dispatch(MatMul { m, n: columns, k, a, b: &b, ldb: columns, c: &mut c, ldc: columns, store });
            for row in c.chunks(columns) {
                assert!(row.iter().all(|x| x.to_bits() == row[0].to_bits()));
            }

            // A column alone gives the same, and so does a row alone.
            for i in 0..m {
                let mut alone = [start];
                let (a, store) = (Matrix { data: &a.data[i * k..], ..a }, Store::Weighted(&[0.7]));
                isa.dispatch(MatMul { m: 1, n: 1, k, a, b: &column, ldb: 1, c: &mut alone, ldc: 1, store });
                assert_eq!(alone[0].to_bits(), c[i * columns].to_bits());
            }
        }
    }

    #[test]
    fn short_slices_are_refused() {
        let refused = |a: usize, b: usize, c: usize, ldc: usize| {
            let (a, b, mut c) = (vec![0.0; a], vec![0.0; b], vec![0.0; c]);
            std::panic::catch_unwind(move || {
                let a = Matrix::new(&a, 4, 1);
                let (b, c, store) = (&b[..], &mut c[..], Store::Set);
                Isa::detect().dispatch(MatMul { m: 3, n: 5, k: 4, a, b, ldb: 5, c, ldc, store })
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

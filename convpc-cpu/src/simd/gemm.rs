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
mod tests;

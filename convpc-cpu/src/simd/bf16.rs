//! Matrix products of operands rounded to bf16, two at a time, added up in f32: the dot products of AVX-512 BF16.
//!
//! Two neighbours along the depth share 32 bits, the first in the lower half; where their number is odd, the last one's
//! neighbour is zero. An element is the sum of the same products in the same order wherever it lies.

use half::bf16;

/// The permission to run the dot products: it can be made only where the machine has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bf16(#[cfg(target_arch = "x86_64")] (), #[cfg(not(target_arch = "x86_64"))] std::convert::Infallible);

/// The numbers rounded to bf16, the first in the lower half.
pub fn pair(first: f32, second: f32) -> u32 {
    u32::from(bf16::from_f32(first).to_bits()) | u32::from(bf16::from_f32(second).to_bits()) << 16
}

/// `C = A B`; see [`Bf16::product`].
#[derive(Debug)]
pub struct PairProduct<'a> {
    /// `[m][k]` pairs.
    pub a: &'a [u32],
    /// `[k][n]` pairs.
    pub b: &'a [u32],
    /// `[m][n]`
    pub c: &'a mut [f32],
    /// Columns of B and C.
    pub n: usize,
}

#[cfg(not(target_arch = "x86_64"))]
impl Bf16 {
    /// No machine of this architecture has the instructions.
    pub fn detect() -> Option<Self> {
        None
    }

    /// Rounds neighbouring channels of a panel to pairs.
    pub fn pack(self, _e: &[f32], _width: usize, _pairs: &mut [u32]) {
        match self.0 {}
    }

    /// The product; returns the least of the elements of C.
    pub fn product(self, _product: PairProduct) -> f32 {
        match self.0 {}
    }
}

#[cfg(target_arch = "x86_64")]
impl Bf16 {
    /// The permission, where the machine has the instructions.
    pub fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        all.then_some(Bf16(()))
    }

    /// Rounds neighbouring channels of a panel `[channels][width]` to pairs `[channels / 2][width]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn pack(self, e: &[f32], width: usize, pairs: &mut [u32]) {
        assert!(e.len().is_multiple_of(width) && pairs.len() == (e.len() / width).div_ceil(2) * width);
        // SAFETY: `self` was made after the features had been detected.
        unsafe { x86::pack(e, width, pairs) }
    }

    /// The product; returns the least of the elements of C.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn product(self, product: PairProduct) -> f32 {
        let PairProduct { a, b, c, n } = product;
        assert!(n > 0 && c.len().is_multiple_of(n) && b.len().is_multiple_of(n), "whole rows");
        assert!(a.len() == c.len() / n * (b.len() / n), "as many columns of A as rows of B");
        // SAFETY: `self` was made after the features had been detected, and the shapes fit.
        unsafe { x86::product(a, b, c, n) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::pair;

    const LANES: usize = 16;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) fn pack(e: &[f32], width: usize, pairs: &mut [u32]) {
        // SAFETY: 32 numbers of 16 bits are a register.
        let interleave: __m512i =
            unsafe { std::mem::transmute(std::array::from_fn::<u16, 32, _>(|at| (at / 2 + at % 2 * LANES) as u16)) };
        for (channels, pairs) in e.chunks(2 * width).zip(pairs.chunks_exact_mut(width)) {
            let (first, second) = channels.split_at(width);
            if second.is_empty() || !width.is_multiple_of(LANES) {
                for (row, to) in pairs.iter_mut().enumerate() {
                    *to = pair(first[row], second.get(row).copied().unwrap_or(0.0));
                }
                continue;
            }
            let rows = first.chunks_exact(LANES).zip(second.chunks_exact(LANES));
            for ((first, second), to) in rows.zip(pairs.chunks_exact_mut(LANES)) {
                // SAFETY: each chunk is a register.
                unsafe {
                    let both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(second.as_ptr()), _mm512_loadu_ps(first.as_ptr()));
                    let both = _mm512_permutexvar_epi16(interleave, std::mem::transmute::<__m512bh, __m512i>(both));
                    _mm512_storeu_si512(to.as_mut_ptr().cast(), both);
                }
            }
        }
    }

    /// The operands from some column of B and C on.
    struct Columns {
        m: usize,
        k: usize,
        n: usize,
        a: *const u32,
        b: *const u32,
        c: *mut f32,
        least: __m512,
    }

    /// # Safety
    /// A has `c.len() / n` rows of `b.len() / n` pairs.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) unsafe fn product(a: &[u32], b: &[u32], c: &mut [f32], n: usize) -> f32 {
        let (m, k) = (c.len() / n, b.len() / n);
        let least = _mm512_set1_ps(f32::INFINITY);
        let mut columns = Columns { m, k, n, a: a.as_ptr(), b: b.as_ptr(), c: c.as_mut_ptr(), least };
        let mut left = n;
        // SAFETY: the panels are the n columns one after another.
        unsafe {
            // A single row has sums enough to hide the latency only if it takes many columns at once.
            while m == 1 && left >= 8 * LANES {
                columns.panel::<1, 8>(u16::MAX);
                left -= 8 * LANES;
            }
            while m == 1 && left >= 4 * LANES {
                columns.panel::<1, 4>(u16::MAX);
                left -= 4 * LANES;
            }
            while left >= 2 * LANES {
                columns.panel::<8, 2>(u16::MAX);
                left -= 2 * LANES;
            }
            while left > 0 {
                columns.panel::<8, 1>(if left >= LANES { u16::MAX } else { (1 << left) - 1 });
                left -= left.min(LANES);
            }
        }
        _mm512_reduce_min_ps(columns.least)
    }

    impl Columns {
        /// All rows of the next REGS registers of columns, or of those that the mask says.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        unsafe fn panel<const ROWS: usize, const REGS: usize>(&mut self, mask: __mmask16) {
            let mut i = 0;
            // SAFETY: the tiles are the m rows one after another.
            unsafe {
                while i + ROWS <= self.m {
                    self.tile::<ROWS, REGS>(i, mask);
                    i += ROWS;
                }
                while i + 4 <= self.m {
                    self.tile::<4, REGS>(i, mask);
                    i += 4;
                }
                while i < self.m {
                    self.tile::<1, REGS>(i, mask);
                    i += 1;
                }
            }
            self.b = self.b.wrapping_add(REGS * LANES);
            self.c = self.c.wrapping_add(REGS * LANES);
        }

        #[allow(
            clippy::needless_range_loop,
            reason = "the compiler unrolls loops over indices in full, and only then does the tile stay in registers"
        )]
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        unsafe fn tile<const ROWS: usize, const REGS: usize>(&mut self, i: usize, mask: __mmask16) {
            let Columns { k, n, .. } = *self;
            let (mut a, mut b) = (self.a.wrapping_add(i * k), self.b);
            // SAFETY: rows, columns and depth lie within the operands; lanes beyond the mask are not touched.
            unsafe {
                let mut sums = [[_mm512_setzero_ps(); REGS]; ROWS];
                for _ in 0..k {
                    let mut b_row = [_mm512_setzero_si512(); REGS];
                    for j in 0..REGS {
                        b_row[j] = _mm512_maskz_loadu_epi32(mask, b.wrapping_add(j * LANES).cast());
                    }
                    for r in 0..ROWS {
                        let scalar = _mm512_set1_epi32(*a.wrapping_add(r * k) as i32);
                        let scalar = std::mem::transmute::<__m512i, __m512bh>(scalar);
                        for j in 0..REGS {
                            let b = std::mem::transmute::<__m512i, __m512bh>(b_row[j]);
                            sums[r][j] = _mm512_dpbf16_ps(sums[r][j], scalar, b);
                        }
                    }
                    (a, b) = (a.wrapping_add(1), b.wrapping_add(n));
                }
                for r in 0..ROWS {
                    for j in 0..REGS {
                        let to = self.c.wrapping_add((i + r) * n + j * LANES);
                        _mm512_mask_storeu_ps(to, mask, sums[r][j]);
                        self.least = _mm512_mask_min_ps(self.least, mask, self.least, sums[r][j]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(i: usize) -> f32 {
        (i * 7919 % 1009) as f32 / 1009.0 + 1e-3
    }

    #[test]
    fn products_are_those_of_rounded_operands() {
        let Some(isa) = Bf16::detect() else { return eprintln!("left out: this machine has no AVX-512 BF16") };
        for (outputs, inputs, width) in
            [(1, 1, 1), (1, 64, 16), (7, 5, 32), (8, 16, 16), (23, 9, 32), (64, 64, 32), (13, 7, 1), (300, 33, 1)]
        {
            let w: Vec<f32> = (0..outputs * inputs).map(number).collect();
            let e: Vec<f32> = (0..inputs * width).map(|i| number(i + 5)).collect();
            let second = |row: &[f32]| pair(row[0], row.get(1).copied().unwrap_or(0.0));
            let a: Vec<u32> = w.chunks_exact(inputs).flat_map(|w| w.chunks(2).map(second)).collect();
            let mut b = vec![0; inputs.div_ceil(2) * width];
            isa.pack(&e, width, &mut b);
            let mut c = vec![f32::NAN; outputs * width];
            let least = isa.product(PairProduct { a: &a, b: &b, c: &mut c, n: width });
            assert_eq!(least, c.iter().copied().fold(f32::INFINITY, f32::min));
            let round = |x: f32| f64::from(bf16::from_f32(x).to_f32());
            for (at, c) in c.iter().enumerate() {
                let (d, row) = (at / width, at % width);
                let terms = (0..inputs).map(|i| round(w[d * inputs + i]) * round(e[i * width + row]));
                let sum: f64 = terms.sum();
                assert!((f64::from(*c) - sum).abs() <= 1e-6 * inputs as f64 * sum, "{c} instead of {sum}");
            }
            // The same to the last bit with outputs and rows in each other's place.
            let columns: Vec<f32> = (0..inputs * outputs).map(|at| w[at % outputs * inputs + at / outputs]).collect();
            let mut columns_of_pairs = vec![0; inputs.div_ceil(2) * outputs];
            isa.pack(&columns, outputs, &mut columns_of_pairs);
            for row in 0..width {
                let x: Vec<f32> = e[row..].iter().step_by(width).copied().collect();
                let x: Vec<u32> = x.chunks(2).map(second).collect();
                let mut y = vec![f32::NAN; outputs];
                isa.product(PairProduct { a: &x, b: &columns_of_pairs, c: &mut y, n: outputs });
                assert!(y.iter().zip(c[row..].iter().step_by(width)).all(|(y, c)| y == c));
            }
        }
    }
}

//! 16 lanes of AVX-512 (f, bw, dq, vl).
#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "every body is intrinsics only, under the contract that `Lanes` states for all its methods"
)]

use std::arch::x86_64::*;

use super::{Lanes, avx2::transpose_8x8, lanes::MOST_LANES};

const TO_NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// A zmm register.
#[derive(Clone, Copy)]
pub(super) struct Lanes16(__m512);

impl Lanes16 {
    #[inline(always)]
    fn first(count: usize) -> __mmask16 {
        if count >= 16 { u16::MAX } else { (1 << count) - 1 }
    }
}

impl Lanes for Lanes16 {
    const LEN: usize = 16;
    const REGISTERS: usize = 32;
    type Mask = __mmask16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(_mm512_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(_mm512_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm512_storeu_ps(to, self.0);
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        Self(_mm512_maskz_loadu_ps(Self::first(count), from))
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        _mm512_mask_storeu_ps(to, Self::first(count), self.0);
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm512_add_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm512_sub_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm512_mul_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm512_div_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(_mm512_fmadd_ps(self.0, factor.0, summand.0))
    }

    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, summand: Self) -> Self {
        Self(_mm512_fnmadd_ps(self.0, factor.0, summand.0))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(_mm512_max_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(_mm512_min_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn lt(self, other: Self) -> __mmask16 {
        _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0)
    }

    #[inline(always)]
    unsafe fn eq(self, other: Self) -> __mmask16 {
        _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0)
    }

    #[inline(always)]
    unsafe fn is_nan(self) -> __mmask16 {
        _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0)
    }

    #[inline(always)]
    unsafe fn select(mask: __mmask16, yes: Self, no: Self) -> Self {
        Self(_mm512_mask_blend_ps(mask, no.0, yes.0))
    }

    #[inline(always)]
    unsafe fn any(mask: __mmask16) -> bool {
        mask != 0
    }

    #[inline(always)]
    unsafe fn round_ties_even(self) -> Self {
        Self(_mm512_roundscale_ps::<TO_NEAREST>(self.0))
    }

    #[inline(always)]
    unsafe fn reduce_add(self) -> f32 {
        _mm512_reduce_add_ps(self.0)
    }

    #[inline(always)]
    unsafe fn scale_pow2(self, n: Self) -> Self {
        Self(_mm512_scalef_ps(self.0, n.0))
    }

    #[inline(always)]
    unsafe fn split_pow2(self) -> (Self, Self) {
        let m = _mm512_getmant_ps::<_MM_MANT_NORM_P75_1P5, _MM_MANT_SIGN_NAN>(self.0);
        // getexp is the exponent of a mantissa in [1, 2): one less where the mantissa was halved.
        let one = _mm512_set1_ps(1.0);
        let e = _mm512_getexp_ps(self.0);
        let halved = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(m, one);
        (Self(m), Self(_mm512_mask_add_ps(e, halved, e, one)))
    }
    #[inline(always)]
    unsafe fn transpose(from: &[*const f32; MOST_LANES], to: *mut f32, stride: usize) {
        for (i, j) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            let block = std::array::from_fn(|k| from[i + k].add(j));
            transpose_8x8(&block, to.add(j * stride + i), stride);
        }
    }
}

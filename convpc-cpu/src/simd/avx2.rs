//! 8 lanes of AVX2 with FMA.
#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "every body is intrinsics only, under the contract that `Lanes` states for all its methods"
)]

use std::arch::x86_64::*;

use super::Lanes;
use super::lanes::{MOST_LANES, THREE_QUARTERS, TWO_POW_25};

const TO_NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// A ymm register.
#[derive(Clone, Copy)]
pub(super) struct Lanes8(__m256);

impl Lanes8 {
    #[inline(always)]
    unsafe fn first(count: usize) -> __m256i {
        let index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), index)
    }
}

impl Lanes for Lanes8 {
    const LEN: usize = 8;
    const REGISTERS: usize = 16;
    type Mask = __m256;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(_mm256_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(_mm256_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm256_storeu_ps(to, self.0);
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        Self(_mm256_maskload_ps(from, Self::first(count)))
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        _mm256_maskstore_ps(to, Self::first(count), self.0);
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm256_add_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm256_sub_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm256_mul_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm256_div_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(_mm256_fmadd_ps(self.0, factor.0, summand.0))
    }

    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, summand: Self) -> Self {
        Self(_mm256_fnmadd_ps(self.0, factor.0, summand.0))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(_mm256_max_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(_mm256_min_ps(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn lt(self, other: Self) -> __m256 {
        _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0)
    }

    #[inline(always)]
    unsafe fn eq(self, other: Self) -> __m256 {
        _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0)
    }

    #[inline(always)]
    unsafe fn is_nan(self) -> __m256 {
        _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0)
    }

    #[inline(always)]
    unsafe fn select(mask: __m256, yes: Self, no: Self) -> Self {
        Self(_mm256_blendv_ps(no.0, yes.0, mask))
    }

    #[inline(always)]
    unsafe fn any(mask: __m256) -> bool {
        _mm256_movemask_ps(mask) != 0
    }

    #[inline(always)]
    unsafe fn round_ties_even(self) -> Self {
        Self(_mm256_round_ps::<TO_NEAREST>(self.0))
    }

    #[inline(always)]
    unsafe fn reduce_add(self) -> f32 {
        let half = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
        let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)))
    }

    #[inline(always)]
    unsafe fn scale_pow2(self, n: Self) -> Self {
        let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n.0));
        Self(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self.0), exponent)))
    }

    #[inline(always)]
    unsafe fn split_pow2(self) -> (Self, Self) {
        // Subnormal values have no exponent of their own: make them normal first.
        let subnormal = self.lt(Self::splat(f32::MIN_POSITIVE));
        let x = Self::select(subnormal, self.mul(Self::splat(TWO_POW_25)), self);
        let lifted = _mm256_and_ps(subnormal, _mm256_set1_ps(25.0));

        let bits = _mm256_castps_si256(x.0);
        let exponent = _mm256_srai_epi32::<23>(_mm256_sub_epi32(bits, _mm256_set1_epi32(THREE_QUARTERS)));
        let m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32::<23>(exponent)));
        let e = Self(_mm256_sub_ps(_mm256_cvtepi32_ps(exponent), lifted));

        let e = Self::select(self.lt(Self::splat(f32::INFINITY)), e, self);
        let e = Self::select(self.eq(Self::splat(0.0)), Self::splat(f32::NEG_INFINITY), e);
        // All bits set is a NaN.
        let negative = self.lt(Self::splat(0.0));
        (Self(m), Self(_mm256_or_ps(e.0, negative)))
    }
    #[inline(always)]
    unsafe fn transpose(from: &[*const f32; MOST_LANES], to: *mut f32, stride: usize) {
        transpose_8x8(&[from[0], from[1], from[2], from[3], from[4], from[5], from[6], from[7]], to, stride);
    }
}

/// Writes 8 × 8 values transposed.
#[inline(always)]
pub(super) unsafe fn transpose_8x8(from: &[*const f32; 8], to: *mut f32, stride: usize) {
    for offset in [0, 4] {
        let (a, b) = (halves(from[0], from[4], offset), halves(from[1], from[5], offset));
        let (c, d) = (halves(from[2], from[6], offset), halves(from[3], from[7], offset));
        let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let to = to.add(offset * stride);
        _mm256_storeu_ps(to, _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low));
        _mm256_storeu_ps(to.add(stride), _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low));
        _mm256_storeu_ps(to.add(2 * stride), _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high));
        _mm256_storeu_ps(to.add(3 * stride), _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high));
    }
}

/// Four values of each of two rows.
#[inline(always)]
unsafe fn halves(low: *const f32, high: *const f32, offset: usize) -> __m256 {
    let low = _mm256_castps128_ps256(_mm_loadu_ps(low.add(offset)));
    _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(high.add(offset)))
}

//! 8 lanes as an array, for the compiler to vectorise.
#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "only loads and stores need it, under the contract that `Lanes` states for all its methods"
)]

use std::array::from_fn;

use super::Lanes;
use super::lanes::{MOST_LANES, THREE_QUARTERS, TWO_POW_25};

/// Whether `f32::mul_add` is an instruction of the target; elsewhere it is a slow function call.
const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// From here on every `f32` is a whole number.
const TWO_POW_23: f32 = (1 << 23) as f32;

/// An array of 8 lanes; a mask has all bits of a lane set or none.
#[derive(Clone, Copy)]
pub(super) struct Lanes8([f32; 8]);

impl Lanes8 {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(from_fn(|i| f(self.0[i])))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(from_fn(|i| f(self.0[i], other.0[i])))
    }

    #[inline(always)]
    fn test(self, other: Self, f: impl Fn(f32, f32) -> bool) -> [u32; 8] {
        from_fn(|i| if f(self.0[i], other.0[i]) { u32::MAX } else { 0 })
    }

    /// Folds the upper half onto the lower one until one lane is left, as the vector sets do.
    #[inline(always)]
    fn reduce(self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let x = self.0;
        let four: [f32; 4] = from_fn(|i| f(x[i], x[i + 4]));
        f(f(four[0], four[2]), f(four[1], four[3]))
    }
}

impl Lanes for Lanes8 {
    const LEN: usize = 8;
    // SSE2 and NEON registers hold four lanes: half of the 16 that the poorer of the two has.
    const REGISTERS: usize = 8;
    type Mask = [u32; 8];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(from.cast::<[f32; 8]>().read_unaligned())
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        to.cast::<[f32; 8]>().write_unaligned(self.0);
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 8];
        from.copy_to_nonoverlapping(lanes.as_mut_ptr(), count.min(8));
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        to.copy_from_nonoverlapping(self.0.as_ptr(), count.min(8));
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        if FUSED {
            Self(from_fn(|i| self.0[i].mul_add(factor.0[i], summand.0[i])))
        } else {
            Self(from_fn(|i| self.0[i] * factor.0[i] + summand.0[i]))
        }
    }

    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, summand: Self) -> Self {
        // SAFETY: the caller's contract is the one of `Lanes`.
        unsafe { Self(from_fn(|i| -self.0[i])).mul_add(factor, summand) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn lt(self, other: Self) -> [u32; 8] {
        self.test(other, |a, b| a < b)
    }

    #[inline(always)]
    unsafe fn eq(self, other: Self) -> [u32; 8] {
        self.test(other, |a, b| a == b)
    }

    #[inline(always)]
    unsafe fn is_nan(self) -> [u32; 8] {
        self.test(self, |a, _| a.is_nan())
    }

    #[inline(always)]
    unsafe fn select(mask: [u32; 8], yes: Self, no: Self) -> Self {
        Self(from_fn(|i| f32::from_bits(mask[i] & yes.0[i].to_bits() | !mask[i] & no.0[i].to_bits())))
    }

    #[inline(always)]
    unsafe fn any(mask: [u32; 8]) -> bool {
        mask.into_iter().fold(0, |a, b| a | b) != 0
    }

    #[inline(always)]
    unsafe fn round_ties_even(self) -> Self {
        // Baseline x86-64 has no instruction for it; a sum beyond 2^23 has no fraction, so the addition rounds.
        self.map(|x| {
            let rounded = (x.abs() + TWO_POW_23) - TWO_POW_23;
            if x.abs() < TWO_POW_23 { rounded.copysign(x) } else { x }
        })
    }

    #[inline(always)]
    unsafe fn reduce_add(self) -> f32 {
        self.reduce(|a, b| a + b)
    }

    #[inline(always)]
    unsafe fn scale_pow2(self, n: Self) -> Self {
        // The bits of n + 1.5 * 2^23 end in the whole number n: a conversion without the checks that `as` makes.
        self.zip(n, |x, n| {
            let exponent = (n + 1.5 * TWO_POW_23).to_bits() << 23;
            let scaled = f32::from_bits(x.to_bits().wrapping_add(exponent));
            if x.is_nan() { x } else { scaled }
        })
    }

    #[inline(always)]
    unsafe fn split_pow2(self) -> (Self, Self) {
        // Subnormal values have no exponent of their own: make them normal first.
        let lift = |x: f32| {
            if x < f32::MIN_POSITIVE { TWO_POW_25 } else { 1.0 }
        };
        let lifted = |x: f32| if x < f32::MIN_POSITIVE { 25.0 } else { 0.0 };
        let bits = |x: f32| (x * lift(x)).to_bits() as i32;
        let exponent = |x: f32| bits(x).wrapping_sub(THREE_QUARTERS) >> 23;

        let m = self.map(|x| f32::from_bits(bits(x).wrapping_sub(exponent(x) << 23) as u32));
        let e = self.map(|x| exponent(x) as f32 - lifted(x));

        let e = Self::select(self.lt(Self::splat(f32::INFINITY)), e, self);
        let e = Self::select(self.eq(Self::splat(0.0)), Self::splat(f32::NEG_INFINITY), e);
        (m, Self::select(self.lt(Self::splat(0.0)), Self::splat(f32::NAN), e))
    }

    #[inline(always)]
    unsafe fn transpose(from: &[*const f32; MOST_LANES], to: *mut f32, stride: usize) {
        for (i, row) in from[..8].iter().enumerate() {
            for j in 0..8 {
                *to.add(j * stride + i) = *row.add(j);
            }
        }
    }
}

//! Random numbers for many rows at a time: what `convpc_core::rng` gives for each of them.
//!
//! Loops over rows without a branch, which the compiler turns into vector code of the instruction set. Products are not fused
//! with sums, so that every set computes the same to the last bit, in a vector as in the rows that are left over.

use std::f64::consts::{LN_2, TAU};

use convpc_core::rng::Use;

use super::{Isa, Kernel, Lanes};

/// Philox4x32-10 of Salmon et al. (2011): the multipliers, and what is added to the key from round to round.
const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: u32 = 10;

const LOW: u64 = 0xFFFF_FFFF;

/// 2^52: numbers from here to its double are whole and have their value in the low bits.
const TWO_POW_52: f64 = (1_u64 << 52) as f64;

/// The bound on the error of [`ln`] relative to the result.
#[cfg(test)]
const LN_ERROR: f64 = 2.5e-16;

/// The bound on the error of [`cos_turns`].
#[cfg(test)]
const COS_ERROR: f64 = 2.5e-16;

/// The numbers `rng::uniforms(seed, first_row + i, node, what)` for each place i of `to`, the first and the second.
pub fn uniforms(isa: Isa, seed: u64, first_row: u64, node: u32, what: Use, to: [&mut [f64]; 2]) {
    isa.dispatch(Uniforms { seed, first_row, node, what, to });
}

struct Uniforms<'a> {
    seed: u64,
    first_row: u64,
    node: u32,
    what: Use,
    to: [&'a mut [f64]; 2],
}

impl Kernel for Uniforms<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Uniforms { seed, first_row, node, what, to: [first, second] } = self;
        let (node, what) = (u64::from(node), u64::from(what as u32));
        for (i, (u, v)) in first.iter_mut().zip(second).enumerate() {
            let row = first_row.wrapping_add(i as u64);
            let words = philox([row, row >> 32, node, what], seed);
            *u = unit(words[0], words[1]);
            *v = unit(words[2], words[3]);
        }
    }
}

/// One block of Philox. A word is the low half of its `u64`, whatever the high half holds: half the lanes, but no shuffling
/// between products of 64 bits and words of 32.
#[inline(always)]
fn philox(mut x: [u64; 4], seed: u64) -> [u64; 4] {
    let key = [seed as u32, (seed >> 32) as u32];
    for round in 0..ROUNDS {
        let [k0, k1] = [0, 1].map(|i| u64::from(key[i].wrapping_add(KEY_STEPS[i].wrapping_mul(round))));
        let (p0, p1) = ((x[0] & LOW) * MULTIPLIERS[0], (x[2] & LOW) * MULTIPLIERS[1]);
        x = [(p1 >> 32) ^ x[1] ^ k0, p1, (p0 >> 32) ^ x[3] ^ k1, p0];
    }
    x
}

/// 52 bits as a number in (0, 1).
#[inline(always)]
fn unit(high: u64, low: u64) -> f64 {
    let word = ((high & LOW) << 20) | ((low & LOW) >> 12);
    (whole(word) + 0.5) * (1.0 / TWO_POW_52)
}

/// A whole number below 2^52, without an instruction of AVX-512.
#[inline(always)]
fn whole(n: u64) -> f64 {
    f64::from_bits(n | TWO_POW_52.to_bits()) - TWO_POW_52
}

/// Replaces each `u` by `sqrt(-2 ln u) cos(2π v)`, a standard normal number by Box and Muller (1958).
pub fn box_muller(isa: Isa, u: &mut [f64], v: &[f64]) {
    isa.dispatch(BoxMuller { u, v });
}

struct BoxMuller<'a> {
    u: &'a mut [f64],
    v: &'a [f64],
}

impl Kernel for BoxMuller<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for (u, v) in self.u.iter_mut().zip(self.v) {
            *u = (-2.0 * ln(*u)).sqrt() * cos_turns(*v);
        }
    }
}

/// Horner's scheme; the coefficient of the highest power comes first.
#[inline(always)]
fn polynomial<const N: usize>(x: f64, coefficients: &[f64; N]) -> f64 {
    let mut y = coefficients[0];
    for &c in &coefficients[1..] {
        y = y * x + c;
    }
    y
}

/// ln(1 + f) = 2 atanh(s) with s = f / (2 + f), less its first term: FreeBSD's e_log.c, for |s| < 0.1716.
const LN: [f64; 7] = [
    1.479_819_860_511_658_6e-1,
    1.531_383_769_920_937_3e-1,
    1.818_357_216_161_805e-1,
    2.222_219_843_214_978_4e-1,
    2.857_142_874_366_239e-1,
    3.999_999_999_940_942e-1,
    6.666_666_666_666_735e-1,
];

/// The natural logarithm of a positive normal number, within `LN_ERROR`.
#[inline(always)]
fn ln(x: f64) -> f64 {
    // x = 2^k m with m from the root of 1/2 to that of 2.
    const ROOT_OF_HALF: u64 = 0x3FE6_A09E_0000_0000;
    const ONE: u64 = 1.0_f64.to_bits();
    const MANTISSA: u64 = (1 << 52) - 1;
    let bits = x.to_bits().wrapping_add(ONE - ROOT_OF_HALF);
    let k = whole(bits >> 52) - 1023.0;
    let f = f64::from_bits((bits & MANTISSA) + ROOT_OF_HALF) - 1.0;
    let s = f / (2.0 + f);
    let (z, half_square) = (s * s, 0.5 * f * f);
    let tail = s * (half_square + z * polynomial(z, &LN));
    k * LN_2_HIGH - ((half_square - (tail + k * LN_2_LOW)) - f)
}

/// ln 2 in two parts: the product of the first with an exponent is exact.
const LN_2_HIGH: f64 = f64::from_bits(LN_2.to_bits() & !0x1F_FFFF);
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// FreeBSD's k_cos.c and k_sin.c, up to π/4: cos x = 1 - x²/2 + x⁴ p(x²), sin x = x + x³ q(x²).
const COS: [f64; 6] = [
    -1.135_964_755_778_819_5e-11,
    2.087_572_321_298_175e-9,
    -2.755_731_435_139_066_3e-7,
    2.480_158_728_947_673e-5,
    -1.388_888_888_887_411e-3,
    4.166_666_666_666_66e-2,
];
const SIN: [f64; 6] = [
    1.589_690_995_211_55e-10,
    -2.505_076_025_340_686_3e-8,
    2.755_731_370_707_006_8e-6,
    -1.984_126_982_985_795e-4,
    8.333_333_333_322_49e-3,
    -1.666_666_666_666_663_2e-1,
];

/// cos(2π v) for v in (0, 1), within `COS_ERROR`.
#[inline(always)]
fn cos_turns(v: f64) -> f64 {
    // A number of this size has a unit of one: adding it rounds to the nearest quarter turn, which is then in the low bits.
    const ROUND: f64 = 1.5 * TWO_POW_52;
    let rounded = 4.0 * v + ROUND;
    let quarter = rounded.to_bits();
    let x = (v - 0.25 * (rounded - ROUND)) * TAU;
    let z = x * x;
    let cos = 1.0 - (0.5 * z - z * z * polynomial(z, &COS));
    let sin = x + x * z * polynomial(z, &SIN);
    // cos, -sin, -cos, sin
    let size = if quarter & 1 == 0 { cos } else { sin };
    f64::from_bits(size.to_bits() ^ ((quarter.wrapping_add(1) & 2) << 62))
}

#[cfg(test)]
mod tests {
    use convpc_core::rng;

    use super::{super::InstructionSet, *};

    fn every_isa() -> impl Iterator<Item = Isa> {
        InstructionSet::available().into_iter().filter_map(Isa::new)
    }

    #[test]
    fn uniforms_are_those_of_rng() {
        for isa in every_isa() {
            for n in [1, 3, 16, 37, 128] {
                for (seed, first_row, node, what) in [
                    (0, 0, 0, Use::Edge),
                    (7 << 33 | 5, 12, 77, Use::Value),
                    (u64::MAX, (1 << 32) - 2, u32::MAX, Use::Edge),
                    (1 << 63, 1 << 45 | 3, 1 << 31, Use::Value),
                ] {
                    let mut to = [vec![0.0; n], vec![0.0; n]];
                    uniforms(isa, seed, first_row, node, what, to.each_mut().map(Vec::as_mut_slice));
                    for (i, (u, v)) in to[0].iter().zip(&to[1]).enumerate() {
                        let expected = rng::uniforms(seed, first_row + i as u64, node, what);
                        assert_eq!([*u, *v], expected, "row {i} of {n}");
                    }
                }
            }
        }
    }

    #[test]
    fn units_are_open_at_both_ends() {
        assert!(unit(0, 0) > 0.0);
        assert!(unit(LOW, LOW) < 1.0);
    }

    /// Numbers of all sizes in (0, 1), the ends and the borders of the reductions included.
    fn arguments() -> Vec<f64> {
        let mut all: Vec<f64> = (0..400_000).map(|i| rng::uniforms(1, i, 0, Use::Value)[0]).collect();
        all.extend((1..=53).map(|k| 0.5_f64.powi(k)));
        all.extend((1..8).map(|k| f64::from(k) / 8.0));
        all.extend([0.5_f64.sqrt(), 0.5_f64.powi(53), 1.0 - 0.5_f64.powi(53)]);
        let near: Vec<f64> = all[400_000..].iter().flat_map(|x| [x.next_down(), x.next_up()]).collect();
        all.extend(near.into_iter().filter(|x| *x > 0.0 && *x < 1.0));
        all
    }

    #[test]
    fn ln_is_within_its_bound() {
        let worst = arguments().into_iter().map(|x| ((ln(x) - x.ln()) / x.ln()).abs()).fold(0.0, f64::max);
        println!("ln: {worst:e}");
        assert!(worst < LN_ERROR, "{worst:e}");
    }

    #[test]
    fn cos_is_within_its_bound() {
        // The standard library's cosine, of an angle that is rounded only after the turn was reduced.
        let exact = |v: f64| match v {
            v if v < 0.125 => (TAU * v).cos(),
            v if v < 0.375 => -(TAU * (v - 0.25)).sin(),
            v if v < 0.625 => -(TAU * (v - 0.5)).cos(),
            v if v < 0.875 => (TAU * (v - 0.75)).sin(),
            v => (TAU * (v - 1.0)).cos(),
        };
        let worst = arguments().into_iter().map(|v| (cos_turns(v) - exact(v)).abs()).fold(0.0, f64::max);
        println!("cos: {worst:e}");
        assert!(worst < COS_ERROR, "{worst:e}");
    }

    #[test]
    fn normal_numbers_do_not_depend_on_the_instruction_set() {
        let n = 131;
        let mut uniform = [vec![0.0; n], vec![0.0; n]];
        uniforms(Isa::detect(), 3, 0, 1, Use::Value, uniform.each_mut().map(Vec::as_mut_slice));
        let [u, v] = uniform;
        for isa in every_isa() {
            let mut z = u.clone();
            box_muller(isa, &mut z, &v);
            for i in 0..n {
                let mut one = [u[i]];
                box_muller(isa, &mut one, &v[i..=i]);
                assert_eq!(one[0], z[i]);
                assert_eq!(z[i], (-2.0 * ln(u[i])).sqrt() * cos_turns(v[i]));
                let expected = (-2.0 * u[i].ln()).sqrt() * (TAU * v[i]).cos();
                assert!((z[i] - expected).abs() < 1e-14, "{} and {expected}", z[i]);
            }
        }
    }
}

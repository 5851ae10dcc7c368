//! Every operation, with every instruction set, against scalar loops in float64.

mod downward;
mod leaves;
mod wide;

use super::*;
use crate::simd::{InstructionSet, Isa, numbers::uniforms};

/// The instruction sets with panels `(channels, width)`: whole registers and parts of one; `single` rows are panels too.
fn panels(single: bool) -> impl Iterator<Item = (Isa, usize, usize)> {
    let isas = InstructionSet::available().into_iter().filter_map(Isa::new);
    isas.flat_map(move |isa| {
        let widths = [1, isa.lanes(), 2 * isa.lanes()].into_iter().filter(move |width| single || *width > 1);
        widths.flat_map(move |width| [1, 3, 16, 21, 40].map(|channels| (isa, channels, width)))
    })
}

/// Values from 2^-60 to 2^60, every seventh zero.
fn spread(count: usize, seed: u32) -> Vec<f32> {
    let powers = uniforms(count, seed).into_iter().enumerate();
    powers.map(|(i, u)| if i % 7 == 5 { 0.0 } else { (120.0 * u - 60.0).exp2() }).collect()
}

/// Within a few roundings of the larger one.
fn assert_close(given: f32, expected: f64, what: &str) {
    let error = (f64::from(given) - expected).abs();
    assert!(
        f64::from(given) == expected || error <= 3e-6 * expected.abs(),
        "{what}: {given:e} instead of {expected:e}"
    );
}

/// The values of a row of a panel.
fn row_of(x: &[f32], width: usize, row: usize) -> impl Iterator<Item = f64> {
    x[row..].iter().step_by(width).map(|x| f64::from(*x))
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn exponentials_are_relative_to_the_largest_of_a_row() {
    for (isa, channels, width) in panels(true) {
        let mut x: Vec<f32> = uniforms(channels * width, 1).into_iter().map(|u| 80.0 * u - 300.0).collect();
        x.iter_mut().skip(width / 2).step_by(width).for_each(|x| *x = f32::NEG_INFINITY);
        let (mut e, mut max) = (vec![-1.0; x.len()], vec![-1.0; width]);
        let limit = 320.0;
        // The row without possible values is beyond every limit but infinity.
        assert!(isa.dispatch(Exponentials { x: &x, e: &mut e, max: &mut max, limit }));
        let finite: Vec<f32> = x.iter().map(|x| x.max(-300.0)).collect();
        let mut beyond = |x: &[f32], limit| isa.dispatch(Exponentials { x, e: &mut e, max: &mut max, limit });
        assert!(!beyond(&finite, limit) && beyond(&finite, 200.0));
        let above: Vec<f32> = finite.iter().map(|x| -x).collect();
        assert!(!beyond(&above, limit) && beyond(&above, 200.0));
        assert!(!beyond(&x, f32::INFINITY));
        for (row, &max) in max.iter().enumerate() {
            let greatest = largest(row_of(&x, width, row));
            assert_eq!(f64::from(max), if greatest.is_finite() { greatest } else { 0.0 });
            for (e, x) in row_of(&e, width, row).zip(row_of(&x, width, row)) {
                assert_close(e as f32, (x - f64::from(max)).exp(), "exponential");
            }
        }
    }
}

#[test]
fn products_say_when_they_leave_the_range() {
    for (isa, channels, width) in panels(true) {
        let len = channels * width;
        let s: Vec<f32> = uniforms(len, 2).into_iter().map(|u| u + 0.25).collect();
        let mut p = vec![f32::NAN; len];
        assert!(!isa.dispatch(Multiply { p: &mut p, s: &s, first: true }));
        assert!(p.iter().zip(&s).all(|(p, s)| f64::from(*p) == f64::from(*s) * 96_f64.exp2()));
        let before = p.clone();
        assert!(!isa.dispatch(Multiply { p: &mut p, s: &s, first: false }));
        assert!(p.iter().zip(before).zip(&s).all(|((p, before), s)| *p == before * s));
        for at in [0, len / 2, len - 1] {
            for (value, far) in [(1e-37, true), (1e4, true), (0.0, false)] {
                let (mut p, mut s) = (vec![1e28; len], vec![1.0; len]);
                s[at] = value;
                assert_eq!(isa.dispatch(Multiply { p: &mut p, s: &s, first: false }), far, "{value} at {at} of {len}");
            }
        }
    }
}

#[test]
fn rows_are_normalised_by_powers_of_two() {
    for (isa, channels, width) in panels(true) {
        let mut given = spread(channels * width, 3);
        given.iter_mut().skip(width - 1).step_by(width).for_each(|p| *p *= (-70_f32).exp2());
        if width > 1 {
            given.iter_mut().step_by(width).for_each(|p| *p = 0.0);
        }
        let (mut p, mut exponents) = (given.clone(), vec![f32::NAN; width]);
        isa.dispatch(Normalise { p: &mut p, exponents: &mut exponents });
        for (row, &exponent) in exponents.iter().enumerate() {
            let (scale, greatest) = (f64::from(exponent).exp2(), largest(row_of(&p, width, row)));
            let zeros = greatest == 0.0;
            assert!(if zeros { scale == 1.0 } else { (0.75..1.5).contains(&greatest) }, "{greatest}, {scale}");
            for (p, given) in row_of(&p, width, row).zip(row_of(&given, width, row)) {
                // Exact, where the quotient is a normal number.
                assert!(p * scale == given || given < scale * 2e-38, "{p:e} {scale:e} {given:e}");
            }
        }
    }
}

#[test]
fn largest_of_any_number_of_values() {
    for (isa, channels, width) in panels(true) {
        let x: Vec<f32> = uniforms(channels * width, 4).into_iter().map(|u| u - 2.0).collect();
        let expected = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(isa.dispatch(Largest { x: &x }), expected);
        assert_eq!(isa.dispatch(Largest { x: &[] }), f32::NEG_INFINITY);
    }
}

#[test]
fn logarithms_of_any_number_of_values() {
    for (isa, channels, width) in panels(true) {
        let given = spread(channels * width, 5);
        let mut x = given.clone();
        isa.dispatch(Logarithms { x: &mut x });
        for (x, given) in x.into_iter().zip(given) {
            assert_close(x, f64::from(given).ln(), "logarithm");
        }
    }
}

//! Mantissas and exponents.

use super::*;

/// What a pair stands for, by its logarithm to base 2.
fn log2(mantissa: f32, exponent: f32) -> f64 {
    if exponent == f32::NEG_INFINITY { f64::NEG_INFINITY } else { f64::from(mantissa).log2() + f64::from(exponent) }
}

fn assert_pair(mantissa: f32, exponent: f32, expected: f64, what: &str) {
    let given = log2(mantissa, exponent);
    assert!(given == expected || (given - expected).abs() < 2e-5, "{what}: 2^{given} instead of 2^{expected}");
    assert!((0.75..1.5).contains(&mantissa) || expected == f64::NEG_INFINITY, "{what}: a mantissa of {mantissa}");
}

/// Mantissas and exponents from 2^-3000 to 2^1000, every fifth zero.
fn pairs(count: usize, seed: u32) -> [Vec<f32>; 2] {
    let mantissas = uniforms(count, seed).into_iter().map(|u| 0.75 + 0.7 * u).collect();
    let exponents = uniforms(count, seed + 1).into_iter().enumerate();
    let exponents = exponents.map(|(i, u)| if i % 5 == 3 { f32::NEG_INFINITY } else { (4000.0 * u - 3000.0).round() });
    [mantissas, exponents.collect()]
}

#[test]
fn values_become_pairs() {
    for (isa, channels, width) in panels(true) {
        let given = spread(channels * width, 6);
        let (mut values, mut exponents) = (given.clone(), vec![f32::NAN; given.len()]);
        isa.dispatch(Widen { values: &mut values, exponents: &mut exponents });
        for ((m, k), given) in values.into_iter().zip(exponents).zip(given) {
            assert_pair(m, k, f64::from(given).log2(), "widened");
        }
    }
}

#[test]
fn logarithms_become_pairs_relative_to_their_row() {
    for (isa, channels, width) in panels(true) {
        let mut x: Vec<f32> = uniforms(channels * width, 7).into_iter().map(|u| -2000.0 * u).collect();
        x[channels * width / 2] = f32::NEG_INFINITY;
        let max: Vec<f32> = (0..width).map(|row| largest(row_of(&x, width, row)) as f32).collect();
        let max: Vec<f32> = max.into_iter().map(|max| if max.is_finite() { max } else { 0.0 }).collect();
        let (mut values, mut exponents) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        isa.dispatch(SplitLogarithms { x: &x, max: &max, values: &mut values, exponents: &mut exponents });
        for (at, x) in x.iter().enumerate() {
            let expected = (f64::from(*x) - f64::from(max[at % width])) / std::f64::consts::LN_2;
            let given = log2(values[at], exponents[at]);
            assert!((0.75..1.5).contains(&values[at]) || expected == f64::NEG_INFINITY, "a mantissa of {}", values[at]);
            // The difference of the logarithms is rounded.
            assert!(
                given == expected || (given - expected).abs() <= 1e-5 + 1e-7 * expected.abs(),
                "{given} {expected}"
            );
        }
    }
}

#[test]
fn products_of_pairs() {
    for (isa, channels, width) in panels(true) {
        let len = channels * width;
        let [m, k] = pairs(len, 8);
        let [s, s_exponents] = pairs(len, 10);
        for s_exponents in [Some(&*s_exponents), None] {
            let (mut p, mut exponents) = (m.clone(), k.clone());
            isa.dispatch(WideMultiply { p: &mut p, exponents: &mut exponents, s: &s, s_exponents });
            for at in 0..len {
                let expected = log2(m[at], k[at]) + log2(s[at], s_exponents.map_or(0.0, |k| k[at]));
                assert_pair(p[at], exponents[at], expected, "product");
            }
        }
    }
}

#[test]
fn pairs_become_values_relative_to_the_largest_exponent_of_their_row() {
    for (isa, channels, width) in panels(true) {
        let [m, k] = pairs(channels * width, 12);
        // Close enough to one another for some of them not to vanish; a row of zeros.
        let mut k: Vec<f32> = k.into_iter().map(|k| (k / 16.0).round()).collect();
        k.iter_mut().skip(width / 2).step_by(width).for_each(|k| *k = if width > 1 { f32::NEG_INFINITY } else { *k });
        let (mut exponents, mut values, mut rows) = (k.clone(), vec![f32::NAN; k.len()], vec![f32::NAN; width]);
        let values_of =
            NormaliseWide { mantissas: &m, exponents: &mut exponents, values: &mut values, row_exponents: &mut rows };
        isa.dispatch(values_of);
        for (row, &exponent) in rows.iter().enumerate() {
            let greatest = largest(row_of(&k, width, row));
            assert_eq!(f64::from(exponent), if greatest.is_finite() { greatest } else { 0.0 });
        }
        for at in 0..k.len() {
            let exponent = k[at] - rows[at % width];
            assert_eq!(exponents[at], exponent);
            let expected = if exponent < -125.0 { 0.0 } else { f64::from(m[at]) * f64::from(exponent).exp2() };
            assert_eq!(f64::from(values[at]), expected);
        }
    }
}

/// Weights, of which every fourth is zero.
fn weights(channels: usize) -> Vec<f32> {
    uniforms(channels, 20).into_iter().enumerate().map(|(c, u)| if c % 4 == 2 { 0.0 } else { u + 1e-3 }).collect()
}

/// Exponents of the weights: none where f32 holds them all, and others.
fn weight_exponents(channels: usize) -> [Option<Vec<f32>>; 2] {
    [None, Some((0..channels).map(|c| if c % 3 == 1 { -150.0 } else { 0.0 }).collect())]
}

/// The base 2 logarithm of a weight.
fn log2_weight(w: f32, exponents: Option<&[f32]>, c: usize) -> f64 {
    log2(w, exponents.map_or(0.0, |k| k[c]))
}

/// Whether the output is wide, and its mantissas and exponents.
fn rescued(
    isa: Isa,
    (w, w_exponents): (&[f32], Option<&[f32]>),
    [mantissas, exponents]: [&[f32]; 2],
    sum: &[f32],
    largest: bool,
) -> (bool, [Vec<f32>; 2]) {
    let (mut out, mut out_exponents) = (vec![f32::NAN; sum.len()], vec![f32::NAN; sum.len()]);
    let (to, to_exponents) = (&mut *out, &mut *out_exponents);
    let wide = isa.dispatch(Rescue {
        w,
        w_exponents,
        mantissas,
        exponents,
        sum,
        out: to,
        out_exponents: to_exponents,
        largest,
    });
    (wide, [out, out_exponents])
}

#[test]
fn sums_that_are_not_trusted_are_those_of_the_pairs() {
    for (isa, channels, width) in panels(true) {
        let ([mantissas, exponents], w) = (pairs(channels * width, 13), weights(channels));
        let of_weights = weight_exponents(channels);
        for (largest_term, of_weights) in [false, true].into_iter().flat_map(|l| of_weights.iter().map(move |k| (l, k)))
        {
            let of_weights = of_weights.as_deref();
            // Of those that are trusted, the sum itself is the output.
            let sum: Vec<f32> = (0..width).map(|row| if row % 3 == 1 { 0.7 } else { 1e-35 * row as f32 }).collect();
            let (wide, [out, out_exponents]) =
                rescued(isa, (&w, of_weights), [&mantissas, &exponents], &sum, largest_term);
            let mut expect_wide = false;
            for row in 0..width {
                let terms = (0..channels).map(|c| {
                    log2_weight(w[c], of_weights, c) + log2(mantissas[c * width + row], exponents[c * width + row])
                });
                let most = largest(terms.clone());
                let of_terms = match largest_term || most == f64::NEG_INFINITY {
                    true => most,
                    false => most + terms.map(|t| (t - most).exp2()).sum::<f64>().log2(),
                };
                let expected = if row % 3 == 1 { f64::from(sum[row]).log2() } else { of_terms };
                assert_pair(out[row], out_exponents[row], expected, "sum");
                expect_wide |= out_exponents[row] < -99.0 && out_exponents[row] > f32::NEG_INFINITY;
            }
            assert_eq!(wide, expect_wide);
        }
    }
}

#[test]
fn flows_of_sums_that_are_not_trusted() {
    let with_exponents = |(isa, channels, width)| weight_exponents(channels).map(|k| (isa, channels, width, k));
    for (isa, channels, width, of_weights) in panels(false).flat_map(with_exponents) {
        let of_weights = of_weights.as_deref();
        let ([mantissas, mut exponents], w) = (pairs(channels * width, 14), weights(channels));
        exponents.iter_mut().for_each(|k| *k = (*k / 16.0).round());
        let flow = uniforms(width, 16);
        let sum: Vec<f32> = (0..width).map(|row| if row % 3 == 1 { 0.7 } else { 0.0 }).collect();
        let (_, [out, out_exponents]) = rescued(isa, (&w, of_weights), [&mantissas, &exponents], &sum, false);
        let (mut below, mut counts) = (vec![1.0; channels * width], vec![2.0; channels]);
        isa.dispatch(RescueFlow {
            w: &w,
            w_exponents: of_weights,
            mantissas: &mantissas,
            exponents: &exponents,
            sum: &sum,
            out: &out,
            out_exponents: &out_exponents,
            flow: &flow,
            below: &mut below,
            counts: &mut counts,
        });
        for c in 0..channels {
            let mut count = 2.0;
            for row in 0..width {
                let at = c * width + row;
                let term = log2_weight(w[c], of_weights, c) + log2(mantissas[at], exponents[at]);
                let posterior = (term - log2(out[row], out_exponents[row])).exp2();
                let untrusted = row % 3 != 1 && term > f64::NEG_INFINITY;
                let share = if untrusted { f64::from(flow[row]) * posterior } else { 0.0 };
                assert_close(below[at], 1.0 + share, "flow");
                count += share;
            }
            assert_close(counts[c], count, "count");
        }
    }
}

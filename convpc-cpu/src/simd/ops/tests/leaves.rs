//! Log-densities and their statistics.

use super::*;

/// Every fourth value is missing.
fn observations(count: usize, seed: u32) -> Vec<f32> {
    let values = uniforms(count, seed).into_iter().enumerate();
    values.map(|(i, u)| if i % 4 == 3 { f32::NAN } else { 4.0 * u - 2.0 }).collect()
}

fn coefficients(channels: usize, seed: u32) -> Vec<f32> {
    uniforms(channels, seed).into_iter().map(|u| u + 0.5).collect()
}

/// Sums of f32 with terms of either sign.
fn assert_near(given: f32, expected: f64, what: &str) {
    assert!((f64::from(given) - expected).abs() <= 2e-5, "{what}: {given} instead of {expected}");
}

#[test]
fn densities_of_location_and_scale() {
    for (isa, channels, width) in panels(true) {
        for (columns, first) in [(1, 0), (1, 1), (1, 2), (1, 3), (3, 1), (4, 0)] {
            // A panel of one row is to be a missing value too.
            let x = &observations(columns * width + first, 1)[first..];
            let coefficients: Vec<_> = (0..columns as u32).map(|k| coefficients(5 * channels, 2 + k)).collect();
            let of_columns: Vec<&[f32]> = coefficients.iter().map(|of| &of[..]).collect();
            for missing in [0.0, 1.0] {
                let mut out = vec![0.25; channels * width];
                let some = isa.dispatch(LocationScale { x, coefficients: &of_columns, missing, out: &mut out });
                assert_eq!(some, x.iter().any(|x| x.is_nan()));
                for (at, &out) in out.iter().enumerate() {
                    let (c, row) = (at / width, at % width);
                    let terms = coefficients.iter().enumerate().map(|(k, of)| {
                        let [mean, rate, left, _, bias] = [0, 1, 2, 3, 4].map(|row| f64::from(of[row * channels + c]));
                        let x = f64::from(x[k * width + row]);
                        let u = (x - mean) * rate + left;
                        if x.is_nan() { f64::from(missing) * bias } else { bias - u * u }
                    });
                    assert_near(out, 0.25 + terms.sum::<f64>(), "density");
                }
            }
        }
    }
}

#[test]
fn counts_of_location_and_scale() {
    for (isa, channels, width) in panels(false) {
        let x = observations(2 * width, 5);
        let ([mean, rate, left], flow) =
            ([2, 3, 4].map(|seed| coefficients(channels, seed)), uniforms(channels * x.len(), 6));
        let (mut counts, mut far) = (vec![1.0; 3 * channels], vec![]);
        isa.dispatch(LocationScaleCounts {
            x: &x,
            width,
            mean: &mean,
            rate: &rate,
            left: &left,
            flow: &flow,
            counts: &mut counts,
            far: &mut far,
        });
        for c in 0..channels {
            let mut expected = [0.0; 3];
            for (row, &x) in x.iter().enumerate().filter(|(_, x)| !x.is_nan()) {
                let flow = flow[row / width * channels * width + c * width + row % width];
                let u = (f64::from(x) - f64::from(mean[c])) * f64::from(rate[c]) + f64::from(left[c]);
                let z = u * std::f64::consts::SQRT_2;
                (0..3).for_each(|power| expected[power] += f64::from(flow) * z.powi(power as i32));
            }
            for (power, expected) in expected.into_iter().enumerate() {
                let count = counts[power * channels + c];
                assert!((count - 1.0 - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{count} {expected}");
            }
        }
        assert!(far.is_empty());
    }
}

/// Counts of some values, each with flow 1, and the channels that were left out; 1 was there before.
fn counted(isa: Isa, (channels, width): (usize, usize), x: &[f32], rate: f32) -> (Vec<f64>, Vec<usize>) {
    let mut all = vec![f32::NAN; width];
    all[..x.len()].copy_from_slice(x);
    let (mean, rate, left) = (vec![0.0; channels], vec![rate; channels], vec![0.0; channels]);
    let (mut counts, mut far) = (vec![1.0; 3 * channels], vec![]);
    let (x, flow) = (&*all, &*vec![1.0; channels * width]);
    let (mean, rate, left) = (&*mean, &*rate, &*left);
    isa.dispatch(LocationScaleCounts { x, width, mean, rate, left, flow, counts: &mut counts, far: &mut far });
    (counts, far)
}

/// The variance of values that vary a thousand times less than they lie from the mean, and as little as f32 tells apart.
#[test]
fn variances_survive_far_from_the_mean() {
    for (isa, channels, width) in panels(false) {
        for offset in [0.3_f32, 1.5, 5.0, 30.0, 3e4, -7e5] {
            for spread in [1e-3, 1e-5].map(|spread| spread * offset.abs()) {
                let x = [-1.0, 0.5, 1.0, 0.0, 2.0].map(|k| offset + k * spread);
                let (counts, far) = counted(isa, (channels, width), &x, std::f32::consts::FRAC_1_SQRT_2);
                assert!(far.is_empty());
                let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / 5.0;
                let expected = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / 5.0;
                for c in 0..channels {
                    let [flow, z, square] = [0, 1, 2].map(|power| counts[power * channels + c] - 1.0);
                    let variance = square / flow - (z / flow).powi(2);
                    // What float64 sums of squares leave of it.
                    let rounding = 1e-14 * f64::from(offset).powi(2);
                    assert!(
                        (variance - expected).abs() < 1e-2 * expected + rounding,
                        "{offset}: {variance} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn channels_with_an_infinite_value_are_left_out_and_named() {
    for (isa, channels, width) in panels(false) {
        let (counts, far) = counted(isa, (channels, width), &[0.5, 1e30], 1e30);
        assert_eq!(far, (0..channels).collect::<Vec<_>>());
        assert!(counts.iter().all(|n| *n == 1.0), "{counts:?}");
        let (_, far) = counted(isa, (channels, width), &[0.5, 1e15], 1.0);
        assert!(far.is_empty());
    }
}

/// `[statistics + 1][n]` and which values are observed.
fn sufficient(statistics: usize, n: usize) -> [Vec<f32>; 2] {
    let observed: Vec<f32> = (0..n).map(|row| f32::from(row % 3 != 2)).collect();
    let values = uniforms((statistics + 1) * n, 7).into_iter().enumerate();
    // Statistics that are zero are no reason to look at eta, which may be infinite.
    let sufficient = values.map(|(at, u)| if at % 5 == 1 || observed[at % n] == 0.0 { 0.0 } else { 3.0 * u });
    [sufficient.collect(), observed.clone()]
}

#[test]
fn densities_of_natural_parameters() {
    for (isa, channels, width) in panels(true) {
        for (statistics, first) in [(1, 0), (3, 0), (2, 1), (2, 2)] {
            let [all, observed] = sufficient(statistics, width + first);
            let take =
                |of: &[f32]| of.chunks_exact(width + first).flat_map(|of| of[first..].to_vec()).collect::<Vec<_>>();
            let (sufficient, observed) = (take(&all), take(&observed));
            let mut eta = coefficients((statistics + 1) * channels, 8);
            eta[0] = f32::NEG_INFINITY;
            let mode = coefficients(channels, 9);
            for missing in [0.0, 1.0] {
                let mut out = vec![0.5; channels * width];
                let (sufficient, observed, eta, mode) = (&*sufficient, &*observed, &*eta, &*mode);
                isa.dispatch(Natural { sufficient, observed, eta, mode, missing, out: &mut out });
                for (at, &out) in out.iter().enumerate() {
                    let (c, row) = (at / width, at % width);
                    let mut density = f64::from(eta[statistics * channels + c] + sufficient[statistics * width + row]);
                    for k in (0..statistics).filter(|k| sufficient[k * width + row] != 0.0) {
                        density += f64::from(eta[k * channels + c]) * f64::from(sufficient[k * width + row]);
                    }
                    if observed[row] == 0.0 {
                        density = f64::from(missing * mode[c]);
                    }
                    let expected = 0.5 + density;
                    assert!(f64::from(out) == expected || (f64::from(out) - expected).abs() < 1e-5, "{out} {expected}");
                }
            }
        }
    }
}

#[test]
fn counts_of_natural_parameters() {
    for (isa, channels, width) in panels(false) {
        let (statistics, n) = (2, 2 * width);
        let ([all, observed], flow) = (sufficient(statistics, n), uniforms(channels * n, 10));
        let sufficient = &all[..statistics * n];
        let mut counts = vec![1.0; (1 + statistics) * channels];
        isa.dispatch(NaturalCounts { sufficient, observed: &observed, width, flow: &flow, counts: &mut counts });
        for (at, &count) in counts.iter().enumerate() {
            let (k, c) = (at / channels, at % channels);
            let factors = if k == 0 { &*observed } else { &sufficient[(k - 1) * n..k * n] };
            let flow = |row| f64::from(flow[row / width * channels * width + c * width + row % width]);
            let expected: f64 = (0..n).map(|row| flow(row) * f64::from(factors[row])).sum();
            assert_close(count as f32, 1.0 + expected, "count");
        }
    }
}

#[test]
fn tables_are_read_by_rows_and_counted_by_values() {
    for (isa, channels, width) in panels(true) {
        let (size, missing) = (5, vec![0.0; channels + 2]);
        let table: Vec<Vec<f32>> = (0..size).map(|x| uniforms(channels + 2, 30 + x as u32)).collect();
        let x: Vec<f32> = (0..width).map(|row| if row % 4 == 2 { f32::NAN } else { (row % size) as f32 }).collect();
        let rows: Vec<&[f32]> = x.iter().map(|x| if x.is_nan() { &*missing } else { &*table[*x as usize] }).collect();
        let mut out = vec![1.0; channels * width];
        isa.dispatch(Table { rows: &rows, out: &mut out });
        for (at, out) in out.into_iter().enumerate() {
            assert_eq!(out, 1.0 + rows[at % width][at / width]);
        }
        let (flow, mut counts) = (uniforms(channels * width, 40), vec![1.0_f32; (1 + size) * channels]);
        isa.dispatch(TableCounts { x: &x, flow: &flow, counts: &mut counts });
        let mut in_float64 = vec![1.0_f64; counts.len()];
        isa.dispatch(TableCounts { x: &x, flow: &flow, counts: &mut in_float64 });
        for (at, (count, exact)) in counts.into_iter().zip(in_float64).enumerate() {
            let (value, c) = (at / channels, at % channels);
            let counted = |x: f32| !x.is_nan() && (value == 0 || x as usize == value - 1);
            let rows = (0..width).filter(|row| counted(x[*row]));
            let expected = 1.0 + rows.map(|row| f64::from(flow[row * channels + c])).sum::<f64>();
            assert_close(count, expected, "count");
            assert!((exact - expected).abs() < 1e-12, "{exact} {expected}");
        }
    }
}

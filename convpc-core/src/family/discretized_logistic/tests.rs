use super::*;
use crate::family::Family;

const EXACT: LeafStep = LeafStep { pseudocount: 0.0, minimum_std: 0.0, bias_correction: false };

/// Levels, mean and scale: wide and narrow, inside and beside the values, at the ends of what is legal.
const CASES: [(usize, f64, f64); 12] = [
    (2, 0.4, 0.7),
    (3, -2.9, 1.0),
    (7, 3.5, 0.9),
    (16, 15.9, 0.05),
    (256, 100.3, 7.0),
    (256, 0.0, 0.05),
    (256, -256.0, 30.0),
    (256, 512.0, 0.05),
    (256, -1024.0, 300.0),
    (256, 300.0, 900.0),
    (256, 127.5, 1024.0),
    (256, 254.9, 2.0),
];

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The difference of the distribution functions, from the side where they are small.
fn mass(levels: usize, [mean, scale]: [f64; 2], x: usize) -> f64 {
    let (last, t) = (levels - 1, |boundary: f64| (boundary - mean) / scale);
    let lower = if x == 0 { f64::NEG_INFINITY } else { t(x as f64 - 0.5) };
    let upper = if x == last { f64::INFINITY } else { t(x as f64 + 0.5) };
    if lower > 0.0 { logistic(-lower) - logistic(-upper) } else { logistic(upper) - logistic(lower) }
}

fn table(levels: usize, p: [f64; 2]) -> Vec<f64> {
    let mut table = vec![f64::NAN; levels];
    DiscretizedLogistic { levels }.natural(&p, &mut table);
    table
}

#[test]
fn masses_are_differences_of_the_distribution_function_and_sum_to_one() {
    for (levels, mean, scale) in CASES {
        let (family, p) = (DiscretizedLogistic { levels }, [mean, scale]);
        assert_eq!(family.problem(&p), None, "{p:?}");
        let logs = table(levels, p);
        let sum: f64 = logs.iter().map(|log| log.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{levels} {p:?}: {sum}");
        let mut expected = vec![f64::NAN; levels];
        family.expected(&p, &mut expected);
        for x in 0..levels {
            let (one, by_table) = (family.log_density(&p, x as f64), logs[x]);
            assert!((one - by_table).abs() <= 1e-12 * one.abs().max(1.0), "{levels} {p:?} {x}: {one} {by_table}");
            let exact = mass(levels, p, x);
            assert!((expected[x] - exact).abs() <= 1e-12 * exact + 1e-280, "{levels} {p:?} {x}: {exact}");
            assert!(one.is_finite());
        }
    }
}

/// Far from the mean a mass is a geometric one: `e^(−d)(1 − e^(−1/s))` with d scales to the nearer boundary, however small.
#[test]
fn tails_keep_their_digits_where_the_distribution_function_has_none() {
    for (mean, scale) in [(20.0, 0.05), (20.0, 1.0), (235.0, 0.3)] {
        let logs = table(256, [mean, scale]);
        for (x, log) in logs.iter().enumerate().skip(1).take(254) {
            let nearer: f64 = if x as f64 > mean { x as f64 - 0.5 - mean } else { mean - x as f64 - 0.5 };
            let d = nearer / scale;
            if d > 40.0 {
                let expected = -d + (1.0 - (-1.0 / scale).exp()).ln();
                assert!((log / expected - 1.0).abs() < 1e-13, "{x}: {log} instead of {expected}");
            }
        }
    }
    assert!(table(256, [0.0, 0.05])[254] < -5000.0);
}

/// Counts of many kinds: broad, one value, the ends, none between, few.
fn histograms() -> Vec<Vec<f64>> {
    let of = |f: &dyn Fn(f64) -> f64| (0..256).map(|x| f(x as f64)).collect::<Vec<f64>>();
    vec![
        of(&|x| (-0.5 * ((x - 90.0) / 11.0).powi(2)).exp() * 40.0),
        of(&|x| f64::from(x == 77.0) * 3.5),
        of(&|x| f64::from(x == 0.0) * 900.0 + (-0.03 * x).exp()),
        of(&|x| f64::from(x == 255.0) * 20.0 + f64::from(x == 3.0)),
        of(&|x| f64::from(x == 0.0) * 4.0 + f64::from(x == 255.0) * 6.0 + 0.01),
        of(&|x| f64::from(x == 0.0) * 4.0 + f64::from(x == 255.0) * 6.0),
        of(&|x| f64::from(x == 0.0) * 1e-6),
        of(&|x| f64::from((10.0..14.0).contains(&x))),
        of(&|x| (x * 12.9898).sin().abs() * 1e4),
        vec![2.0, 1.0],
        vec![0.2, 5.0, 0.1],
    ]
}

/// Mean log-likelihood of counts, by the masses of the distribution function.
fn likelihood(counts: &[f64], pseudocount: f64, p: [f64; 2]) -> f64 {
    let logs = table(counts.len(), p);
    let total: f64 = counts.iter().map(|n| n + pseudocount).sum();
    counts.iter().zip(&logs).map(|(n, log)| (n + pseudocount) * log).sum::<f64>() / total
}

/// No legal neighbour is better, far or near; whatever the start, the maximum is the same.
#[test]
fn a_step_is_the_maximum_of_what_is_legal() {
    for counts in histograms() {
        let levels = counts.len();
        let (family, n) = (DiscretizedLogistic { levels }, levels as f64);
        for pseudocount in [0.0, 0.3] {
            let step = LeafStep { pseudocount, ..EXACT };
            let mut best = Vec::new();
            for start in
                [[0.4 * n, 0.1 * n], [-n, 0.05], [5.0 * n, 4.0 * n], [-4.0 * n, 0.05], [0.9 * n, 0.05], [0.0, 0.5]]
            {
                let (mut p, before) = (start, likelihood(&counts, pseudocount, start));
                family.maximum_likelihood(&mut p, 0.0, &counts, &step);
                assert_eq!(family.problem(&p), None, "{p:?}");
                let found = likelihood(&counts, pseudocount, p);
                assert!(found >= before - 1e-13, "{start:?} → {p:?}: {before} → {found}");
                best.push(found);
                for (by, scaled) in
                    [1e-3, 0.05, 0.7].into_iter().flat_map(|h| [(h, 0.0), (-h, 0.0), (0.0, h), (0.0, -h)])
                {
                    let mut moved = p;
                    family.shift(&mut moved, &[by * p[1], scaled], 1.0, 0.0);
                    let there = likelihood(&counts, pseudocount, moved);
                    assert!(there <= found + 1e-9, "{p:?} {found} and {moved:?} {there}");
                }
            }
            let largest = best.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert!(best.iter().all(|found| largest - found < 1e-9), "{best:?} of {counts:?}");
        }
    }
}

/// Where nothing binds, the derivatives of the likelihood vanish: by differences.
#[test]
fn a_step_ends_where_the_slope_is_zero() {
    const H: f64 = 1e-4;
    for (counts, pseudocount) in histograms().into_iter().flat_map(|counts| [(counts.clone(), 0.0), (counts, 0.3)]) {
        let family = DiscretizedLogistic { levels: counts.len() };
        let mut p = [1.0, 1.0];
        family.maximum_likelihood(&mut p, 0.0, &counts, &LeafStep { pseudocount, ..EXACT });
        let Bounds { mean, scale } = family.bounds(0.0);
        let free = |x: f64, [least, most]: [f64; 2]| x > least * 1.01 + 0.1 && x < most * 0.99;
        if !(p[0] > mean[0] + 0.1 && p[0] < mean[1] - 0.1 && free(p[1], scale)) {
            continue;
        }
        let at = |by: [f64; 2]| likelihood(&counts, pseudocount, [p[0] + by[0] * p[1], p[1] * by[1].exp()]);
        for axis in 0..2 {
            let mut by = [0.0; 2];
            by[axis] = H;
            let slope = (at(by) - at(by.map(|h: f64| -h))) / (2.0 * H);
            assert!(slope.abs() < 1e-5, "{p:?} {axis}: {slope}");
        }
    }
}

#[test]
fn a_step_recovers_the_distribution_from_its_masses_whatever_the_start() {
    for (levels, p) in [(256, [100.3, 7.0]), (256, [-40.0, 60.0]), (256, [250.0, 20.0]), (5, [2.2, 0.6])] {
        let family = DiscretizedLogistic { levels };
        let counts: Vec<f64> = (0..levels).map(|x| 1e3 * mass(levels, p, x)).collect();
        for start in [[0.0, 3.0], [1.0, 1.0], p] {
            let mut found = start;
            family.maximum_likelihood(&mut found, 1e3, &counts, &EXACT);
            assert!((0..2).all(|k| (found[k] - p[k]).abs() < 1e-4 * p[1]), "{found:?} instead of {p:?}");
            if start == p {
                assert!((0..2).all(|k| (found[k] - p[k]).abs() < 1e-9 * p[1]), "{found:?} instead of {p:?}");
            }
        }
    }
}

#[test]
fn a_minimum_of_the_standard_deviation_holds_and_nothing_seen_moves_nothing() {
    let family = DiscretizedLogistic { levels: 16 };
    let mut counts = vec![0.0; 16];
    let mut p = [3.0, 2.0];
    family.maximum_likelihood(&mut p, 0.0, &counts, &EXACT);
    assert_eq!(p, [3.0, 2.0]);
    counts[9] = 5.0;
    family.maximum_likelihood(&mut p, 5.0, &counts, &LeafStep { minimum_std: 1.0, ..EXACT });
    // The standard deviation of a logistic variable is π/√3 scales.
    assert!((p[0] - 9.0).abs() < 1e-4 && (p[1] - 3_f64.sqrt() / std::f64::consts::PI).abs() < 1e-12, "{p:?}");
    family.maximum_likelihood(&mut p, 5.0, &counts, &EXACT);
    assert!((p[0] - 9.0).abs() < 1e-4 && (p[1] - DiscretizedLogistic::SMALLEST_SCALE).abs() < 1e-12, "{p:?}");
    family.shift(&mut p, &[1e9, -9.0], 1.0, 0.0);
    assert_eq!(p, [80.0, DiscretizedLogistic::SMALLEST_SCALE]);
    family.shift(&mut p, &[-1e9, 900.0], 1.0, 0.0);
    assert_eq!(p, [-64.0, 64.0]);
}

/// Draws at the middle of equal parts of (0, 1) fall on each value as often as its mass says, to one or two.
#[test]
fn samples_invert_the_distribution_function() {
    const PARTS: usize = 20_000;
    for (levels, mean, scale) in CASES {
        let family = DiscretizedLogistic { levels };
        let mut seen = vec![0; levels];
        for part in 0..PARTS {
            seen[family.sample(&[mean, scale], [(part as f64 + 0.5) / PARTS as f64, 0.3]) as usize] += 1;
        }
        for (x, seen) in seen.iter().enumerate() {
            let expected = mass(levels, [mean, scale], x) * PARTS as f64;
            assert!((f64::from(*seen) - expected).abs() < 2.0, "{levels} {mean} {scale} {x}: {seen} not {expected}");
        }
    }
}

#[test]
fn modes_are_the_first_of_the_largest_masses() {
    for (levels, mean, scale) in
        CASES.into_iter().chain([(256, 3.0, 9.0), (256, 80.0, 700.0), (9, 4.5, 0.3), (9, 4.49, 0.3)])
    {
        let logs = table(levels, [mean, scale]);
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Two values on both sides of the mean are equally probable but for rounding.
        let expected = logs.iter().position(|log| *log >= largest - 1e-14).unwrap() as f64;
        assert_eq!(DiscretizedLogistic { levels }.mode(&[mean, scale]), expected, "{levels} {mean} {scale}");
    }
}

#[test]
fn what_is_not_legal_is_named() {
    let family = DiscretizedLogistic { levels: 256 };
    let wrong = [
        ([f64::NAN, 1.0], "mean NaN is not between -1024 and 1280"),
        ([1281.0, 1.0], "mean 1281 is not between -1024 and 1280"),
        ([5.0, 0.04], "scale 0.04 is not between 0.05 and 1024"),
        ([5.0, f64::INFINITY], "scale inf is not between 0.05 and 1024"),
    ];
    for (p, expected) in wrong {
        assert_eq!(family.problem(&p).as_deref(), Some(expected));
    }
    let error = |levels| Family::discretized_logistic(levels).check().unwrap_err().to_string();
    assert!(error(1).contains("at least 2") && error(usize::MAX).contains("at most 16777216 values"));
    assert_eq!(Family::discretized_logistic(2).check(), Ok(()));
    let mut uniforms = [0.999, 0.001, 0.5, 0.5].into_iter().cycle();
    for levels in [2, 256] {
        let (family, mut p) = (DiscretizedLogistic { levels }, [0.0; 2]);
        family.random(&mut || uniforms.next().unwrap(), &mut p);
        assert_eq!(family.problem(&p), None, "{p:?}");
    }
}

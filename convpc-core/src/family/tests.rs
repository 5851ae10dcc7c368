use super::*;

/// Families whose unconstrained parameters are logits.
fn of_probabilities() -> Vec<(Family, Vec<f64>)> {
    vec![
        (Family::bernoulli(), vec![0.3]),
        (Family::categorical(4), vec![0.1, 0.4, 0.0, 0.5]),
        (Family::binomial(5), vec![0.35]),
    ]
}

fn discrete() -> Vec<(Family, Vec<f64>)> {
    of_probabilities().into_iter().chain([(Family::discretized_logistic(6), vec![2.3, 0.8])]).collect()
}

#[test]
fn discrete_probabilities_add_up_to_one() {
    for (family, p) in discrete() {
        let n = family.cardinality().unwrap();
        let total: f64 = (0..n).map(|x| family.log_density(&p, x as f64).exp()).sum();
        assert!((total - 1.0).abs() < 1e-14, "{family:?}: {total}");
    }
}

#[test]
fn normal_integrates_to_one() {
    let p = [1.5, 0.2];
    let total: f64 =
        (-4000..4000).map(|i| Family::normal().log_density(&p, 1.5 + f64::from(i) * 1e-3).exp() * 1e-3).sum();
    assert!((total - 1.0).abs() < 1e-10, "{total}");
}

#[test]
fn extreme_probabilities_are_minus_infinity_not_nan() {
    assert_eq!(Family::bernoulli().log_density(&[0.0], 1.0), f64::NEG_INFINITY);
    assert_eq!(Family::bernoulli().log_density(&[0.0], 0.0), 0.0);
    assert_eq!(Family::binomial(3).log_density(&[1.0], 2.0), f64::NEG_INFINITY);
    assert_eq!(Family::binomial(3).log_density(&[1.0], 3.0), 0.0);
    assert_eq!(Family::categorical(2).log_density(&[0.0, 1.0], 0.0), f64::NEG_INFINITY);
}

#[test]
fn maximum_likelihood_recovers_the_distribution_from_its_own_expected_statistics() {
    let exact = LeafStep { pseudocount: 0.0, minimum_std: 0.0, bias_correction: false };
    for (family, p) in discrete() {
        let (mut t, mut sum) = (vec![0.0; family.statistics()], vec![0.0; family.statistics()]);
        for x in 0..family.cardinality().unwrap() {
            let q = family.log_density(&p, x as f64).exp();
            family.sufficient(&p, x as f64, &mut t);
            sum.iter_mut().zip(&t).for_each(|(s, t)| *s += 7.0 * q * t);
        }
        let mut new = p.clone();
        family.maximum_likelihood(&mut new, 7.0, &sum, &exact);
        assert!(new.iter().zip(&p).all(|(a, b)| (a - b).abs() < 1e-14), "{family:?} {new:?}");
    }
    // Normal: rows 1, 2 and 6 with flows 1, 2 and 1, gathered at mean 10 and std 3.
    let mut p = [10.0, 3.0];
    let z = |x: f64| (x - 10.0) / 3.0;
    let rows = [(1.0, 1.0), (2.0, 2.0), (6.0, 1.0)];
    let s1 = rows.iter().map(|(x, f)| f * z(*x)).sum();
    let s2 = rows.iter().map(|(x, f)| f * z(*x).powi(2)).sum();
    Family::normal().maximum_likelihood(&mut p, 4.0, &[s1, s2], &exact);
    let mean = (1.0 + 4.0 + 6.0) / 4.0;
    let variance: f64 = rows.iter().map(|(x, f)| f * (x - mean) * (x - mean)).sum::<f64>() / 4.0;
    assert!((p[0] - mean).abs() < 1e-14 && (p[1] - variance.sqrt()).abs() < 1e-14, "{p:?}");
    let mut corrected = [10.0, 3.0];
    Family::normal().maximum_likelihood(&mut corrected, 4.0, &[s1, s2], &LeafStep { bias_correction: true, ..exact });
    assert!((corrected[1].powi(2) - variance * 4.0 / 3.0).abs() < 1e-13);
}

/// Probabilities on a grid that is fine and wide enough for the Normal's moments.
fn values(family: &Family, p: &[f64]) -> Vec<(f64, f64)> {
    let density = |x: f64| family.log_density(p, x).exp();
    match family.cardinality() {
        Some(n) => (0..n).map(|x| (x as f64, density(x as f64))).collect(),
        None => (-12_000..12_000).map(|i| f64::from(i) * 1e-3).map(|x| (x, density(x) * 1e-3)).collect(),
    }
}

/// `Σ p(x) T(x)`, T taken at the parameters `at`.
fn summed(family: &Family, p: &[f64], at: &[f64]) -> Vec<f64> {
    let (mut sum, mut t) = (vec![0.0; family.statistics()], vec![0.0; family.statistics()]);
    for (x, weight) in values(family, p) {
        family.sufficient(at, x, &mut t);
        sum.iter_mut().zip(&t).for_each(|(s, t)| *s += weight * t);
    }
    sum
}

#[test]
fn expected_statistics_are_those_of_the_density_at_any_base() {
    let cases = discrete().into_iter().map(|(family, p)| (family, p.clone(), p));
    for (family, p, base) in cases.chain([(Family::normal(), vec![0.4, 0.7], vec![-1.5, 0.3])]) {
        let mut t = vec![f64::NAN; family.statistics()];
        family.expected(&p, &mut t);
        let close = |t: &[f64], expected: Vec<f64>| {
            t.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + b.abs()))
        };
        assert!(close(&t, summed(&family, &p, &p)), "{family:?}: {t:?}");
        family.rebase(&p, &base, 1.0, &mut t);
        assert!(close(&t, summed(&family, &p, &base)), "{family:?}: {t:?}");
        // Twice the values, twice the statistics.
        let mut twice = summed(&family, &p, &p).iter().map(|t| 2.0 * t).collect::<Vec<f64>>();
        family.rebase(&p, &base, 2.0, &mut twice);
        assert!(close(&twice, t.iter().map(|t| 2.0 * t).collect()), "{family:?}: {twice:?}");
    }
}

/// The derivative of the density along each direction of a shift is the gradient times the unit.
#[test]
fn shifts_move_the_parameters_of_the_gradient() {
    const H: f64 = 1e-6;
    let normal = (Family::normal(), vec![0.4, 0.7]);
    for (family, p) in discrete().into_iter().chain([normal]) {
        let n = family.parameters();
        let (mut t, mut gradient, mut units) = (vec![0.0; family.statistics()], vec![0.0; n], vec![0.0; n]);
        family.sufficient(&p, 1.0, &mut t);
        family.gradient(&p, 1.0, &t, &mut gradient);
        family.units(&p, &mut units);
        for k in 0..n {
            let at = |h: f64| {
                let (mut moved, mut by) = (p.clone(), vec![0.0; n]);
                by[k] = h * units[k];
                family.shift(&mut moved, &by, 1.0, 0.0);
                assert_eq!(family.problem(&moved), None);
                family.log_density(&moved, 1.0)
            };
            let difference = (at(H) - at(-H)) / (2.0 * H);
            assert!((difference - gradient[k] * units[k]).abs() < 1e-8, "{family:?} {k}: {difference}");
        }
    }
}

#[test]
fn shifts_shrink_logits_and_stop_before_the_impossible() {
    for (family, p) in of_probabilities() {
        let mut even = p.clone();
        family.shift(&mut even, &vec![0.0; p.len()], 0.0, 0.0);
        let expected = if p.len() == 1 { vec![0.5] } else { vec![1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0] };
        assert!(even.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-15), "{family:?}: {even:?}");
        for far in [-1e6, 1e6] {
            let mut moved = p.clone();
            let mut by = vec![0.0; p.len()];
            by[0] = far;
            family.shift(&mut moved, &by, 1.0, 0.0);
            assert_eq!(family.problem(&moved), None);
            let possible = moved.iter().zip(&p).all(|(now, before)| (*now > 0.0) == (*before > 0.0));
            assert!(possible && (moved.len() > 1 || moved[0] < 1.0), "{family:?}: {moved:?}");
        }
    }
    for certain in [0.0, 1.0] {
        let mut p = [certain];
        Family::bernoulli().shift(&mut p, &[3.0], 0.5, 0.0);
        assert_eq!(p, [certain]);
    }
    let mut p = [2.0, 0.5];
    Family::normal().shift(&mut p, &[-0.25, -9.0], 0.5, 0.1);
    assert_eq!(p, [1.75, 0.1], "neither mean nor std shrinks, and the floor holds");
}

#[test]
fn modes_are_the_most_probable_values() {
    for (family, p) in discrete() {
        let best = (0..family.cardinality().unwrap())
            .map(|x| x as f64)
            .max_by(|a, b| family.log_density(&p, *a).total_cmp(&family.log_density(&p, *b)))
            .unwrap();
        assert_eq!(family.mode(&p), best, "{family:?}");
    }
}

#[test]
fn support() {
    assert!(Family::categorical(3).contains(2.0));
    for bad in [3.0, -1.0, 0.5, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(!Family::categorical(3).contains(bad), "{bad}");
    }
    assert!(!Family::normal().contains(f64::INFINITY));
    assert_eq!(Family::binomial(2).first_outside(&[0.0, f32::NAN, 2.0, 3.0]), Some(3));
    let odd = [-1.0, -0.5, 0.5, 1.5, 3.0, 3e9, -3e9, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE];
    for (at, x) in (0..199).flat_map(|at| odd.map(|x| (at, x))) {
        let mut row = [1.0, f32::NAN, 0.0, -0.0].repeat(50);
        row[at] = x;
        row[199] = 7.5;
        assert_eq!(Family::binomial(2).first_outside(&row), Some(at), "{x}");
        let expected = x.is_infinite().then_some(at);
        assert_eq!(Family::normal().first_outside(&row), expected, "{x}");
    }
}

#[test]
fn normals_beyond_their_limits_are_refused_by_name() {
    let problem = |mean: f64, std: f64| Family::normal().problem(&[mean, std]);
    for (mean, std) in [(0.0, 1e-30), (0.0, Normal::LARGEST), (Normal::LARGEST, 1.0), (-Normal::LARGEST, 1.0)] {
        assert_eq!(problem(mean, std), None, "{mean} {std}");
    }
    for std in [0.0, -1.0, 9e-31, 1.1e38, f64::NAN, f64::INFINITY] {
        let problem = problem(0.0, std).unwrap();
        assert!(problem.contains("is not between 1e-30 and 1e38"), "{problem}");
    }
    for mean in [1.1e38, -1.1e38, f64::NAN, f64::INFINITY] {
        assert!(problem(mean, 1.0).unwrap().contains("is not between -1e38 and 1e38"));
    }
}

#[test]
fn values_beyond_the_limit_are_outside_of_the_support() {
    let outside = |row: &[f32]| Family::normal().first_outside(row);
    assert_eq!(outside(&[1e38, -1e38, f32::NAN, 0.0]), None);
    for x in [1.1e38, -1.1e38, f32::MAX, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(outside(&[0.0, f32::NAN, x, 2.0]), Some(2));
        assert!(!Family::normal().contains(f64::from(x)));
    }
}

/// The corners of what is legal, and values at the ends of f32.
#[test]
fn log_densities_of_normals_are_finite_wherever_the_value_is() {
    for mean in [-Normal::LARGEST, 0.0, 1e-20, Normal::LARGEST] {
        for std in [Normal::SMALLEST_STD, 1.0, Normal::LARGEST] {
            for x in [-1e38, -1e30, 0.0, 1e-30, 1e38] {
                let log = Family::normal().log_density(&[mean, std], x);
                assert!(log.is_finite(), "{mean} {std} {x}: {log}");
            }
        }
    }
}

/// One step from N(0, 1): the sums are those of squares many times as large as the variance.
#[test]
fn a_step_over_a_long_way_never_makes_a_deviation_of_rounding_errors() {
    let step = LeafStep { pseudocount: 0.0, minimum_std: 1e-3, bias_correction: false };
    for (offset, tolerance) in [(0.0, 1e-12), (30_000.0, 1e-6), (1e6, 1e-3)] {
        let (mut p, mut t) = (vec![0.0, 1.0], [0.0; 2]);
        for k in 0..7 {
            let z = offset + f64::from(k);
            t = [t[0] + z, t[1] + z * z];
        }
        Family::normal().maximum_likelihood(&mut p, 7.0, &t, &step);
        assert!((p[0] - offset - 3.0).abs() < 1e-9 * offset.max(1.0) && (p[1] - 2.0).abs() < tolerance, "{p:?}");
    }
    // Here float64 has no digit of the variance left; what is taken for it is what the rounding can hide, and not less.
    let (mut p, z) = (vec![0.0, 1.0], 1e9);
    Family::normal().maximum_likelihood(&mut p, 7.0, &[7.0 * z, 7.0 * z * z * (1.0 - 1e-15)], &step);
    assert!((100.0..150.0).contains(&p[1]), "{p:?}");
}

#[test]
fn without_a_minimum_a_constant_gives_the_smallest_deviation() {
    let step = LeafStep { pseudocount: 0.0, minimum_std: 0.0, bias_correction: false };
    let mut p = vec![0.0, 1.0];
    for _ in 0..10 {
        let z = (5.0 - p[0]) / p[1];
        Family::normal().maximum_likelihood(&mut p, 3.0, &[3.0 * z, 3.0 * z * z], &step);
    }
    assert_eq!(p, [5.0, Normal::SMALLEST_STD]);
    Family::normal().shift(&mut p, &[0.0, -1000.0], 1.0, 0.0);
    assert_eq!(p[1], Normal::SMALLEST_STD);
}

#[test]
fn binomials_of_many_trials_are_exact() {
    for trials in [600, 65_535] {
        let (family, n) = (Family::binomial(trials), trials as f64);
        let mut log = 0.0;
        for x in 1..=trials / 2 {
            log += ((n - x as f64 + 1.0) / x as f64).ln();
            assert!((family.log_base(x as f64) - log).abs() < 1e-9, "{trials} {x}");
        }
    }
    let too_many = Family::binomial(1 << 24).check().unwrap_err().to_string();
    assert!(too_many.contains("at most 16777216 values"), "{too_many}");
    assert!(Family::binomial(usize::MAX).check().is_err());
    assert!(Family::binomial((1 << 24) - 1).check().is_ok());
}

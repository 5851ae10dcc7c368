//! What the options of a step do, by formulas and on every backend: the bias correction of a variance, the smallest standard deviation,
//! and pseudocounts.

use convpc::{
    Adam, Backend, Blend, Circuit, Family, Leaf, MiniBatchEm, OptimizerState, Parameters, Reference, Rule, Structure,
    em,
};
use ndarray::Array2;
use testsuite::{Subject, assert_close, subjects};

/// One pixel; leaves that are all alike, so that each gets its weight's share of every row.
fn mixture(family: Family, leaf: [f64; 2], weights: &[f64]) -> Circuit {
    let structure = Structure::builder(Leaf::new(1, 1, 1, family, weights.len())).sum(1).build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].indexed_iter_mut().for_each(|(at, p)| *p = leaf[at[3]]);
    parameters.0[1].iter_mut().zip(weights).for_each(|(w, value)| *w = *value);
    Circuit::new(structure, parameters).unwrap()
}

/// Ten values with the mean 0 and this standard deviation.
fn ten_values(std: f64) -> Array2<f32> {
    Array2::from_shape_fn((10, 1), |(row, _)| if row % 2 == 0 { std as f32 } else { -std as f32 })
}

/// The (location, scale) of each leaf after one step of a rule on the data.
fn after(backend: &dyn Backend, circuit: &Circuit, data: &Array2<f32>, rule: &Rule, step: f64) -> Vec<[f64; 2]> {
    let mut executable = backend.load(circuit).unwrap();
    executable.accumulate(data.view()).unwrap();
    executable.update(rule, step, &mut OptimizerState::default()).unwrap();
    let leaves = executable.parameters().unwrap().0[0].iter().copied().collect::<Vec<_>>();
    leaves.as_chunks().0.to_vec()
}

fn scales(leaves: &[[f64; 2]]) -> Vec<f64> {
    leaves.iter().map(|[_, scale]| *scale).collect()
}

fn em(options: em::Options) -> Rule {
    Rule::Em(options)
}

#[test]
fn variances_are_corrected_for_bias_where_more_than_two_rows_were_expected() {
    let weights = [0.15, 0.19, 0.21, 0.25, 0.05, 0.15];
    let circuit = mixture(Family::normal(), [0.0, 1.0], &weights);
    let std_with = |count: f64| if count > 2.0 { 0.8 * (count / (count - 1.0)).sqrt() } else { 0.8 };
    let corrected: Vec<f64> = weights.iter().map(|w| std_with(10.0 * w)).collect();
    for subject in subjects() {
        let std = |bias_correction| {
            let rule = em(em::Options { bias_correction, ..em::Options::default() });
            scales(&after(&*subject.backend, &circuit, &ten_values(0.8), &rule, 1.0))
        };
        assert_close(subject.backend.name(), &std(true), &corrected, (1e-5, 0.0));
        assert_close(subject.backend.name(), &std(false), &[0.8; 6], (1e-5, 0.0));
        let step = em::Options { bias_correction: true, ..em::Options::default() };
        let mut executable = subject.backend.load(&circuit).unwrap();
        executable.accumulate(ten_values(0.8).view()).unwrap();
        executable.em_step(&step).unwrap();
        let given: Vec<f64> = executable.parameters().unwrap().0[0].iter().skip(1).step_by(2).copied().collect();
        assert_close("em_step", &given, &corrected, (1e-5, 0.0));
    }
}

/// Every rule, with this smallest standard deviation.
fn rules(minimum_std: f64) -> [Rule; 4] {
    let mini_batch = MiniBatchEm { minimum_std, ..MiniBatchEm::default() };
    [
        em(em::Options { minimum_std, ..em::Options::default() }),
        Rule::MiniBatchEm(mini_batch),
        Rule::MiniBatchEm(MiniBatchEm { blend: Blend::Parameters, ..mini_batch }),
        Rule::Adam(Adam { minimum_std, ..Adam::default() }),
    ]
}

/// A step to the standard deviation of the data, 1e-4, with a minimum far above, a little above, and below it. Adam takes the
/// logarithm of the scale as far down as its step is long.
#[test]
fn standard_deviations_shrink_to_the_minimum_that_was_asked_for() {
    let (circuit, data) = (mixture(Family::normal(), [0.0, 1e-2], &[0.5, 0.5]), ten_values(1e-4));
    for subject in subjects() {
        for minimum_std in [0.5, 3e-4, 1e-5] {
            for rule in rules(minimum_std) {
                let (step, reached) = match rule {
                    Rule::Adam(_) => (6.0, 1e-2 * (-6_f64).exp()),
                    _ => (1.0, 1e-4),
                };
                let given = scales(&after(&*subject.backend, &circuit, &data, &rule, step));
                let what = format!("{} {rule:?}", subject.backend.name());
                assert_close(&what, &given, &[f64::max(reached, minimum_std); 2], (1e-3, 0.0));
            }
        }
    }
}

fn assert_like_the_reference(subject: &Subject, circuit: &Circuit, data: &Array2<f32>, rule: &Rule, step: f64) {
    let [given, expected] = [&*subject.backend, &Reference].map(|b| after(b, circuit, data, rule, step));
    let what = format!("{} {rule:?}", subject.backend.name());
    assert_close(&what, given.as_flattened(), expected.as_flattened(), (1e-3, 1e-6));
}

/// The minimum holds for the blend too, half way to data that are nearly constant.
#[test]
fn half_a_step_is_that_of_the_reference_whatever_the_minimum() {
    let (circuit, data) = (mixture(Family::normal(), [0.1, 1e-2], &[0.25, 0.75]), ten_values(1e-4));
    for subject in subjects() {
        for rule in [0.5, 3e-4, 1e-5].into_iter().flat_map(rules).filter(|rule| !rule.is_full_batch()) {
            assert_like_the_reference(&subject, &circuit, &data, &rule, 0.5);
        }
    }
}

/// A logistic's standard deviation is `π/√3` of its scales.
#[test]
fn scales_of_logistic_leaves_shrink_to_the_minimum_that_was_asked_for() {
    let circuit = mixture(Family::discretized_logistic(30), [12.0, 4.0], &[0.5, 0.5]);
    let data = Array2::from_elem((10, 1), 12.0);
    for subject in subjects() {
        for (minimum_std, scale) in [(5.0, 5.0 * 3_f64.sqrt() / std::f64::consts::PI), (1e-5, 0.05)] {
            let [em, ..] = rules(minimum_std);
            let given = scales(&after(&*subject.backend, &circuit, &data, &em, 1.0));
            assert_close(&format!("{} {em:?}", subject.backend.name()), &given, &[scale; 2], (1e-2, 0.0));
            for rule in rules(minimum_std) {
                assert_like_the_reference(&subject, &circuit, &data, &rule, 0.7);
            }
        }
    }
}

/// Seven of ten rows have the value 1, the others 0; value 2 is in no row.
#[test]
fn pseudocounts_are_added_to_every_value_and_every_edge() {
    const PSEUDOCOUNT: f64 = 0.6;
    let data = Array2::from_shape_fn((10, 1), |(row, _)| f32::from(row < 7));
    let weights = [0.2, 0.8];
    for (family, values) in [(Family::bernoulli(), 2), (Family::categorical(3), 3)] {
        let structure = Structure::builder(Leaf::new(1, 1, 1, family, 2)).sum(1).build().unwrap();
        let mut parameters = Parameters::zeros(&structure);
        parameters.0[0].fill(1.0 / f64::from(values));
        parameters.0[1].iter_mut().zip(weights).for_each(|(w, value)| *w = value);
        let circuit = Circuit::new(structure, parameters).unwrap();
        // Leaves are alike: each gets its weight's share of every row.
        let p =
            |weight: f64, rows: f64| (weight * rows + PSEUDOCOUNT) / (10.0 * weight + f64::from(values) * PSEUDOCOUNT);
        let leaf = |weight: f64| match family {
            Family::Bernoulli(_) => vec![p(weight, 7.0)],
            _ => vec![p(weight, 3.0), p(weight, 7.0), p(weight, 0.0)],
        };
        let leaves: Vec<f64> = weights.into_iter().flat_map(leaf).collect();
        let edges = weights.map(|weight| (10.0 * weight + PSEUDOCOUNT) / (10.0 + 2.0 * PSEUDOCOUNT));
        let full = em::Options { pseudocount: PSEUDOCOUNT, ..em::Options::default() };
        let part = MiniBatchEm { pseudocount: PSEUDOCOUNT, ..MiniBatchEm::default() };
        for subject in subjects() {
            for rule in [em(full), Rule::MiniBatchEm(part)] {
                let mut executable = subject.backend.load(&circuit).unwrap();
                executable.accumulate(data.view()).unwrap();
                executable.update(&rule, 1.0, &mut OptimizerState::default()).unwrap();
                let given = executable.parameters().unwrap();
                let what = format!("{} {rule:?}", subject.backend.name());
                assert_close(&what, &given.0[0], &leaves, (1e-5, 0.0));
                assert_close(&what, &given.0[1], &edges, (1e-5, 0.0));
            }
        }
    }
}

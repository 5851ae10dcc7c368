//! Checks of flows, expected counts and EM steps, against float64.

use std::ops::Range;

use convpc::{
    Backend, Blend, Circuit, ConvPc, Executable, Family, Layer, MiniBatchEm, OptimizerState, Precision, Reference,
    Rule, Statistics, em,
};
use ndarray::{Array2, ArrayView1, Axis, array, concatenate};

use crate::{Subject, assert_close, circuits, upward};

/// How far counts may be off relatively. The flow to a place is a product of shares, one for each sum on the way; rounded
/// operands change each by the error of a sum, of a weight and of a quotient, and the differences between its inputs by those
/// of the sums below, which for the most part cancel.
pub fn relative(subject: &Subject, circuit: &Circuit) -> f64 {
    let sums = circuit.structure().layers().iter().filter(|layer| layer.normalized_axis().is_some()).count();
    subject.relative + 3.0 * sums as f64 * subject.precision.error_per_sum()
}

fn statistics(backend: &dyn Backend, circuit: &Circuit, data: &Array2<f32>) -> Statistics {
    let mut executable = backend.load(circuit).expect("a circuit");
    executable.accumulate(data.view()).expect("fitting data");
    executable.statistics().expect("statistics")
}

/// The expected counts of every layer.
///
/// # Panics
/// If they are further off than the subject's precision allows.
pub fn against_float64(subject: &Subject, circuit: &Circuit, data: &Array2<f32>) {
    let exact = statistics(&Reference, circuit, data);
    let given = statistics(&*subject.backend, circuit, data);
    let what = format!("{}, {} rows\n{circuit}", subject.backend.description(), data.nrows());
    assert_counts(&what, subject, circuit, &given, &exact);
}

/// The expected counts of every layer, which are known.
///
/// # Panics
/// If they are further off than the subject's precision allows.
pub fn assert_counts(what: &str, subject: &Subject, circuit: &Circuit, given: &Statistics, exact: &Statistics) {
    assert_eq!((given.rows, given.impossible_rows), (exact.rows, exact.impossible_rows), "{what}");
    let tolerance = (relative(subject, circuit), subject.absolute);
    for (layer, kind) in circuit.structure().layers().iter().enumerate() {
        let what = format!("{kind:?}, layer {layer}, {what}");
        let (given, exact) = (&given.counts[layer], &exact.counts[layer]);
        if layer > 0 {
            assert_close(&what, given, exact, tolerance);
            continue;
        }
        for (given, exact) in given.rows().into_iter().zip(exact.rows()) {
            assert_close(&what, given, exact, (0.0, tolerance.0 * scale(exact) + tolerance.1));
        }
    }
}

/// What the errors of a leaf's statistics are relative to: terms of a sum of z may cancel, but it is no larger than the flow or
/// the sum of z².
fn scale(statistics: ArrayView1<f64>) -> f64 {
    statistics.iter().fold(0.0, |scale, t| scale.max(t.abs()))
}

/// Rows of probability zero count for nothing, and edges of weight zero stay so.
///
/// # Panics
/// If they do not.
pub fn zeros(subject: &Subject) {
    for (channels, sum_conv) in [(3, false), (3, true), (20, false), (20, true)] {
        let (circuit, rows) = upward::with_zeros(channels, sum_conv);
        let rows: Vec<_> = rows.iter().map(|(row, _)| row.view()).collect();
        against_float64(subject, &circuit, &concatenate(Axis(0), &rows).expect("rows of one length"));
    }
}

/// Flows to channels ten thousand nats behind others, through sums too small for plain products.
///
/// # Panics
/// If they are lost.
pub fn gaps(subject: &Subject) {
    for (mean, channels, sum_conv) in [(142.0, 2, false), (1000.0, 2, true), (142.0, 20, false), (142.0, 70, true)] {
        let m = mean as f32;
        let data = array![[0.0, m, m, m, m, m], [0.0; 6], [m; 6], [0.0, f32::NAN, 0.0, m, 0.0, m]];
        for taken in [0, 1] {
            against_float64(subject, &upward::far_apart(mean, channels, taken, sum_conv), &data);
        }
    }
}

/// The precision of products is that which was asked for: worse than f32, within its bound.
///
/// # Panics
/// If it is not.
pub fn precision_shows(subject: &Subject, circuit: &Circuit, data: &Array2<f32>) {
    let exact = statistics(&Reference, circuit, data);
    let given = statistics(&*subject.backend, circuit, data);
    // The leaves' statistics may cancel.
    let worst = |layer: usize| {
        let pairs = given.counts[layer].iter().zip(&exact.counts[layer]).filter(|(_, exact)| **exact > 0.1);
        pairs.map(|(given, exact)| (given / exact - 1.0).abs()).fold(0.0, f64::max)
    };
    let worst = (1..exact.counts.len()).map(worst).fold(0.0, f64::max);
    let least = if subject.precision == Precision::F32 { 0.0 } else { subject.precision.error_per_sum() / 20.0 };
    let most = relative(subject, circuit) + 1e-4;
    assert!((least..=most).contains(&worst), "{}: {worst} not in {least}..{most}", subject.backend.description());
}

/// One EM step on some rows; their log-likelihood before it.
///
/// # Panics
/// If there is none.
pub fn step(executable: &mut dyn Executable, circuit: &Circuit) -> f64 {
    let seen = executable.accumulate(circuits::data(circuit, 100).view()).expect("fitting data");
    executable.em_step(&em::Options { pseudocount: 0.1, ..Default::default() }).expect("a step");
    seen.log_likelihood
}

/// So many EM steps. Each begins at the parameters of float64: where standard deviations shrink, EM enlarges any difference a hundred
/// times in a few steps, in whatever precision it starts.
///
/// # Panics
/// If one leads elsewhere than in float64.
pub fn single_steps(backend: &dyn Backend, circuit: &Circuit, steps: usize) {
    let data = circuits::data(circuit, 100);
    let [mut exact, mut given] = [&Reference, backend].map(|b: &dyn Backend| b.load(circuit).expect("a circuit"));
    for number in 1..=steps {
        given.set_parameters(&exact.parameters().expect("parameters")).expect("fitting parameters");
        let before = [&mut exact, &mut given].map(|executable| step(&mut **executable, circuit));
        let what = format!("{}, step {number} of\n{circuit}", backend.name());
        assert_close(&format!("before {what}"), &before[1..], &before[..1], (1e-5, 1e-3));
        let [a, b] = [&given, &exact].map(|e| e.log_likelihood(data.view()).expect("fitting data"));
        assert_close(&format!("after {what}"), &a, &b, (1e-4, 1e-3));
    }
}

/// Steps of mini-batch EM lead from a backend's own counts to where the rule leads in float64.
///
/// # Panics
/// If one leads elsewhere.
pub fn mini_batch_steps(backend: &dyn Backend, circuit: &Circuit) {
    let data = circuits::data(circuit, 100);
    let rule = MiniBatchEm { pseudocount: 0.1, data_rows: Some(1000), ..MiniBatchEm::default() };
    for rule in [rule, MiniBatchEm { blend: Blend::Parameters, ..rule }].map(Rule::MiniBatchEm) {
        let mut executable = backend.load(circuit).expect("a circuit");
        for step in [0.4, 0.1] {
            executable.accumulate(data.view()).expect("fitting data");
            let (mut expected, mut state) = (executable.parameters().expect("parameters"), OptimizerState::default());
            let counts = executable.statistics().expect("counts");
            rule.apply(circuit.structure(), &mut expected, &counts, step, &mut state).expect("a legal step");
            executable.update(&rule, step, &mut OptimizerState::default()).expect("a legal step");
            let given = executable.parameters().expect("parameters");
            let what = format!("{}, {rule:?}, step {step} of\n{circuit}", backend.name());
            given.0.iter().zip(&expected.0).for_each(|(a, b)| assert_close(&what, a, b, (2e-6, 2e-7)));
        }
    }
}

/// Counts with a flattened posterior over repetitions: those that each repetition gives to a row by itself, in proportion to a
/// power of its posterior probability.
///
/// # Panics
/// If they are not.
pub fn annealed(subject: &Subject) {
    let base = ConvPc::new(3, 4, 1, Family::binomial(4)).channels(9).depth(2);
    let built = [base.clone().repetitions(3), base.shifts([(0, 0), (1, 0)]).num_classes(3)];
    for circuit in built.map(|convpc| convpc.build(5).expect("a circuit")) {
        let data = circuits::data(&circuit, 9);
        let classes = circuit.structure().num_classes();
        let labels: Option<Vec<usize>> = classes.map(|classes| (0..9).map(|row| row % classes).collect());
        let count = |executable: &mut dyn Executable, rows: Range<usize>| {
            let data = data.slice_axis(Axis(0), rows.clone().into());
            let seen = match &labels {
                None => executable.accumulate(data),
                Some(labels) => executable.accumulate_labeled(data, &labels[rows]),
            };
            let statistics = executable.statistics().expect("statistics");
            executable.reset_statistics();
            (seen.expect("fitting data").log_likelihood, statistics)
        };
        let mut executable = subject.backend.load(&circuit).expect("a circuit");
        let (log_likelihood, exact) = count(&mut *executable, 0..9);
        for inverse_temperature in [1e-3, 0.3] {
            executable.set_inverse_temperature(inverse_temperature).expect("a legal one");
            let (still, given) = count(&mut *executable, 0..9);
            assert_eq!(still, log_likelihood, "log-likelihoods are exact");
            let mut expected = Statistics { rows: 9, ..Statistics::zeros(circuit.structure()) };
            for row in 0..9 {
                // The joint log-likelihood of the row and each repetition, and the counts where there is no other.
                let alone: Vec<_> = (0..circuit.structure().leaf().repetitions)
                    .map(|repetition| {
                        let (alone, weight) =
                            only(&circuit, repetition, labels.as_ref().map_or(0, |labels| labels[row]));
                        let mut alone = Reference.load(&alone).expect("a circuit");
                        let (log_likelihood, counts) = count(&mut *alone, row..row + 1);
                        (log_likelihood + weight.ln(), counts)
                    })
                    .collect();
                let most = alone.iter().map(|(joint, _)| *joint).fold(f64::NEG_INFINITY, f64::max);
                let power = |joint: &f64| (inverse_temperature * (joint - most)).exp();
                let total: f64 = alone.iter().map(|(joint, _)| power(joint)).sum();
                for (joint, counts) in &alone {
                    let to = expected.counts.iter_mut().zip(&counts.counts);
                    to.for_each(|(to, counts)| to.scaled_add(power(joint) / total, counts));
                }
            }
            let what =
                format!("inverse temperature {inverse_temperature}, {}\n{circuit}", subject.backend.description());
            assert_counts(&what, subject, &circuit, &given, &expected);
        }
        executable.set_inverse_temperature(1.0).expect("a legal one");
        assert_eq!(count(&mut *executable, 0..9).1, exact);
        for illegal in [0.0, -0.5, 1.5, f64::NAN] {
            let error = executable.set_inverse_temperature(illegal).expect_err("no inverse temperature");
            assert!(error.to_string().contains("the inverse temperature"), "{error}");
        }
    }
}

/// The circuit with one repetition as the only one in the mixture, and the weight that it had there for a class.
fn only(circuit: &Circuit, repetition: usize, class: usize) -> (Circuit, f64) {
    let (structure, mut parameters) = circuit.clone().into_parts();
    let mixes = |layer: &Layer| matches!(layer, Layer::RepetitionMixing(_));
    let weights = &mut parameters.0[structure.layers().iter().position(mixes).expect("a mixture")];
    let weight = weights[[0, class, repetition]];
    weights.indexed_iter_mut().for_each(|(at, w)| *w = f64::from(at[2] == repetition));
    (Circuit::new(structure, parameters).expect("legal parameters"), weight)
}

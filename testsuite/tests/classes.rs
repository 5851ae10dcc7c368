//! Circuits with classes: against enumeration, against circuits of one class alone, and against differences.

use convpc::{
    Backend, Circuit, ConvPc, Error, Executable, Family, Leaf, Parameters, ProdConv, Reference, Replicas, Statistics,
    Structure, em,
};
use ndarray::{Array1, Array2, Axis, array};
use testsuite::{
    agrees, assert_close, assignments, circuits,
    classes::{alone, from_classes, labels},
    shifted, subjects,
};

const CLASSES: usize = 3;

fn convpc(family: Family) -> ConvPc {
    ConvPc::new(2, 3, 1, family).channels(4).leaf_channels(3).depth(2).num_classes(CLASSES)
}

/// Few variables, heads of every kind.
fn enumerable() -> Vec<Circuit> {
    let leaf = Leaf::new(1, 4, 1, Family::categorical(3), 2);
    let shared = Structure::builder(leaf).prod_conv(ProdConv::new(1, 4)).sum(5).sum_conv(CLASSES, 1).sum(1);
    let built = [
        convpc(Family::bernoulli()).build(1),
        convpc(Family::bernoulli()).repetitions(2).build(2),
        convpc(Family::categorical(2)).use_sum_conv(true).repetitions(3).build(3),
        Circuit::random(shared.build().unwrap(), 4),
    ];
    built.map(Result::unwrap).to_vec()
}

fn scores(circuit: &Circuit, data: &Array2<f32>) -> Array1<f64> {
    Reference.load(circuit).unwrap().log_likelihood(data.view()).unwrap()
}

/// Some values missing in some rows; everything in one.
fn with_gaps(mut data: Array2<f32>) -> Array2<f32> {
    data.iter_mut().skip(2).step_by(5).for_each(|x| *x = f32::NAN);
    data.row_mut(0).fill(f32::NAN);
    data
}

#[test]
fn classes_are_enumerated_distributions_and_bayes_rule_joins_them() {
    for circuit in enumerable() {
        let all = assignments(&circuit);
        let evidence = with_gaps(all.select(Axis(0), &[0, 5, 9, 30, 63]));
        let prior = circuit.parameters().0.last().unwrap().iter().copied().collect::<Vec<_>>();
        let alone: Vec<Array1<f64>> =
            (0..CLASSES).map(|class| scores(&alone(&circuit, class), &all).mapv(f64::exp)).collect();
        let marginal = |e, class: usize| -> f64 {
            all.outer_iter().zip(&alone[class]).filter(|(row, _)| agrees(*row, e)).map(|(_, p)| p).sum()
        };
        let of_evidence =
            Array2::from_shape_fn((evidence.nrows(), CLASSES), |(row, class)| marginal(evidence.row(row), class));
        let mut posterior = &of_evidence * &Array1::from(prior.clone());
        posterior.outer_iter_mut().for_each(|mut row| row /= row.sum());
        for subject in subjects() {
            let tolerance = (subject.relative, subject.absolute);
            let executable = subject.backend.load(&circuit).unwrap();
            let given = executable.class_log_likelihood(all.view()).unwrap();
            assert_eq!(given.dim(), (all.nrows(), CLASSES));
            for (class, expected) in alone.iter().enumerate() {
                assert_close("p(x | class)", given.column(class), &expected.mapv(f64::ln), tolerance);
                assert!((given.column(class).mapv(f64::exp).sum() - 1.0).abs() < 10.0 * subject.absolute);
            }
            let given = executable.class_log_likelihood(evidence.view()).unwrap();
            assert_close("marginals", &given, &of_evidence.mapv(f64::ln), tolerance);
            assert_close("prior", &executable.class_prior().unwrap(), &prior, (1e-6, 0.0));
            assert_close(
                "posterior",
                &executable.class_posterior(evidence.view()).unwrap(),
                &posterior,
                (2.0 * subject.absolute, 0.0),
            );
            let joint = executable.class_log_joint(evidence.view()).unwrap();
            let whole = executable.log_likelihood(evidence.view()).unwrap();
            assert_close("joint", &joint.map_axis(Axis(1), |row| row.mapv(f64::exp).sum().ln()), &whole, tolerance);
        }
    }
}

#[test]
fn a_class_is_a_circuit_of_its_own() {
    for circuit in enumerable() {
        let data = with_gaps(assignments(&circuit));
        for class in 0..CLASSES {
            let own = circuit.of_class(class).unwrap();
            assert_eq!(own.structure(), circuit.structure());
            assert_close("of_class", &scores(&own, &data), &scores(&alone(&circuit, class), &data), (1e-12, 1e-12));
        }
        assert_eq!(circuit.of_class(3), Err(Error::UnknownClass { class: 3, classes: 3 }));
    }
}

fn labeled(backend: &dyn Backend, circuit: &Circuit, data: &Array2<f32>, labels: &[usize]) -> Statistics {
    let mut executable = backend.load(circuit).unwrap();
    let seen = executable.accumulate_labeled(data.view(), labels).unwrap();
    let statistics = executable.statistics().unwrap();
    assert_eq!((seen.rows, seen.impossible_rows), (statistics.rows, statistics.impossible_rows));
    assert_close("seen", &[seen.log_likelihood], &[statistics.log_likelihood], (1e-6, 0.0));
    statistics
}

fn assert_same(what: &str, given: &Statistics, expected: &Statistics, tolerance: (f64, f64)) {
    assert_eq!((given.rows, given.impossible_rows), (expected.rows, expected.impossible_rows), "{what}");
    if expected.impossible_rows == 0 {
        assert_close(what, &[given.log_likelihood], &[expected.log_likelihood], tolerance);
    }
    for (layer, (given, expected)) in given.counts.iter().zip(&expected.counts).enumerate() {
        assert_close(&format!("{what}, layer {layer}"), given, expected, tolerance);
    }
}

#[test]
fn labeled_counts_are_those_of_the_classes_alone() {
    for circuit in enumerable() {
        let data = with_gaps(assignments(&circuit));
        let labels = labels(data.nrows(), CLASSES);
        let expected = from_classes(&circuit, &data, &labels);
        for subject in subjects() {
            let given = labeled(&*subject.backend, &circuit, &data, &labels);
            assert_same(subject.backend.name(), &given, &expected, (10.0 * subject.relative, subject.absolute));
        }
        let two = Replicas::new(vec![Box::new(Reference), Box::new(Reference)]).unwrap();
        assert_same("two", &labeled(&two, &circuit, &data, &labels), &expected, (1e-9, 1e-9));
        let given = two.load(&circuit).unwrap().class_log_likelihood(data.view()).unwrap();
        let expected = Reference.load(&circuit).unwrap().class_log_likelihood(data.view()).unwrap();
        assert_close("two", &given, &expected, (1e-12, 0.0));
    }
}

/// More channels and rows than a tile has, batch after batch.
#[test]
fn many_labeled_rows_in_batches() {
    let convpc = |repetitions| ConvPc::new(5, 4, 1, Family::normal()).channels(20).repetitions(repetitions);
    for (repetitions, classes) in [(1, 10), (2, 17), (17, 3)] {
        let circuit = convpc(repetitions).num_classes(classes).build(3).unwrap();
        let data = circuits::data(&circuit, 200);
        let labels = labels(200, classes);
        let expected = from_classes(&circuit, &data, &labels);
        let class_scores = Reference.load(&circuit).unwrap().class_log_likelihood(data.view()).unwrap();
        for subject in subjects().into_iter().filter(|subject| subject.backend.name() != "reference") {
            let mut executable = subject.backend.load(&circuit).unwrap();
            for (rows, labels) in data.axis_chunks_iter(Axis(0), 150).zip(labels.chunks(150)) {
                executable.accumulate_labeled(rows, labels).unwrap();
            }
            let given = executable.statistics().unwrap();
            let what = format!("{}, {repetitions} repetitions", subject.backend.name());
            // Terms of a Normal leaf's counts cancel.
            assert_same(&what, &given, &expected, (10.0 * subject.relative, 50.0 * subject.absolute));
            let given = executable.class_log_likelihood(data.view()).unwrap();
            assert_close(&what, &given, &class_scores, (subject.relative, subject.absolute));
            // One row by all threads.
            let one = executable.class_log_likelihood(data.slice(ndarray::s![7..8, ..])).unwrap();
            assert_close(&what, one.row(0), class_scores.row(7), (subject.relative, subject.absolute));
        }
    }
}

#[test]
fn gradients_of_labeled_rows_equal_central_differences() {
    const H: f64 = 1e-5;
    for circuit in enumerable() {
        let data = with_gaps(assignments(&circuit));
        let labels = labels(data.nrows(), CLASSES);
        // log p(x, class) by Bayes' rule, each class alone.
        let total = |parameters: Parameters| -> f64 {
            let circuit = Circuit::new(circuit.structure().clone(), parameters).unwrap();
            let prior = circuit.parameters().0.last().unwrap().clone();
            let of = |class| scores(&alone(&circuit, class), &data) + prior[[0, class, 0, 0]].ln();
            let joint: Vec<_> = (0..CLASSES).map(of).collect();
            labels.iter().enumerate().map(|(row, &class)| joint[class][row]).sum()
        };
        let mut executable = Reference.load(&circuit).unwrap();
        let seen = executable.accumulate_labeled(data.view(), &labels).unwrap();
        assert!((seen.log_likelihood - total(circuit.parameters().clone())).abs() < 1e-9);
        let gradient = executable.gradient().unwrap();
        for (layer, kind) in circuit.structure().layers().iter().enumerate() {
            let Some(axis) = kind.normalized_axis() else { continue };
            for (lane, gradient) in gradient.0[layer].lanes(Axis(axis)).into_iter().enumerate().step_by(3) {
                let moved = |by: f64| total(shifted(&circuit, layer, lane, by));
                let difference = (moved(H) - moved(-H)) / (2.0 * H);
                assert!((gradient[0] - difference).abs() < 1e-5, "{layer}: {} {difference}", gradient[0]);
            }
        }
    }
}

/// Labels are right whatever the model thinks: classes thousands of nats behind the best, of each row's label or not.
#[test]
fn classes_that_are_far_behind_are_counted() {
    let structure = Structure::builder(Leaf::new(1, 2, 1, Family::normal(), 3)).prod_conv(ProdConv::new(1, 2));
    for structure in [structure.clone().sum(3).sum(1), structure.sum(3).sum(3).sum(1)] {
        let structure = structure.build().unwrap();
        let mut parameters = Circuit::random(structure.clone(), 5).unwrap().parameters().clone();
        parameters.0[0].indexed_iter_mut().for_each(|(at, p)| *p = [60.0 * at[1] as f64, 1.0][at[3]]);
        for tensor in &mut parameters.0[2..structure.layers().len() - 1] {
            tensor.indexed_iter_mut().for_each(|(at, w)| *w = f64::from(u8::from(at[1] == at[2])));
        }
        let circuit = Circuit::new(structure, parameters).unwrap();
        let data = array![[0.0, 0.0], [0.0, 0.0], [120.0, 121.0], [60.0, 59.0], [0.0, f32::NAN]];
        let labels = [2, 0, 0, 1, 1];
        let expected = from_classes(&circuit, &data, &labels);
        for subject in subjects() {
            let given = labeled(&*subject.backend, &circuit, &data, &labels);
            assert_same(subject.backend.name(), &given, &expected, (10.0 * subject.relative, subject.absolute));
            let executable = subject.backend.load(&circuit).unwrap();
            let given = executable.class_log_likelihood(data.view()).unwrap();
            let exact = Reference.load(&circuit).unwrap().class_log_likelihood(data.view()).unwrap();
            assert_close(subject.backend.name(), &given, &exact, (subject.relative, subject.absolute));
        }
    }
}

#[test]
fn what_has_probability_zero_in_its_class_counts_for_nothing() {
    // Class 0 knows only the value 0, class 1 only 1; class 2 has no prior.
    let structure = Structure::builder(Leaf::new(1, 1, 1, Family::bernoulli(), 2));
    let structure = structure.sum(3).sum(1).build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].iter_mut().zip([0.0, 1.0]).for_each(|(p, value)| *p = value);
    for (at, w) in [([0, 0, 0, 0], 1.0), ([0, 1, 1, 0], 1.0), ([0, 0, 2, 0], 0.5), ([0, 1, 2, 0], 0.5)] {
        parameters.0[1][at] = w;
    }
    parameters.0[2].iter_mut().zip([0.25, 0.75, 0.0]).for_each(|(w, value)| *w = value);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let (data, labels) = (array![[0.0], [0.0], [1.0], [1.0], [f32::NAN]], [0, 1, 2, 1, 1]);
    let only = circuit.of_class(0).unwrap();
    for subject in subjects() {
        let given = labeled(&*subject.backend, &circuit, &data, &labels);
        let name = subject.backend.name();
        assert_eq!((given.rows, given.impossible_rows, given.log_likelihood), (5, 2, f64::NEG_INFINITY), "{name}");
        assert_close(name, &given.counts[2], &[1.0, 2.0, 0.0], (1e-6, 0.0));
        assert_close(name, &given.counts[1], &[1.0, 0.0, 0.0, 0.0, 2.0, 0.0], (1e-6, 0.0));
        let executable = subject.backend.load(&circuit).unwrap();
        let classes = executable.class_log_likelihood(data.view()).unwrap().mapv(f64::exp);
        let expected = [1.0, 0.0, 0.5, 1.0, 0.0, 0.5, 0.0, 1.0, 0.5, 0.0, 1.0, 0.5, 1.0, 1.0, 1.0];
        assert_close(name, &classes, &expected, (1e-6, 0.0));
        let posterior = executable.class_posterior(data.view()).unwrap();
        assert_close(name, posterior.row(4), &[0.25, 0.75, 0.0], (1e-6, 0.0));
        assert_close(name, posterior.row(1), &[1.0, 0.0, 0.0], (1e-6, 0.0));
        // Where no class explains a row there is no posterior.
        let executable = subject.backend.load(&only).unwrap();
        let error = executable.class_posterior(data.view()).unwrap_err();
        assert_eq!(error, Error::ImpossibleEvidence { row: 2 }, "{name}");
    }
}

#[test]
fn labeled_steps_never_lower_the_joint_likelihood_and_classes_are_told_apart() {
    // Stripes along rows or along columns, or none, a tenth of the pixels turned over.
    let class = |row: usize| row % 3;
    let data = Array2::from_shape_fn((60, 16), |(row, pixel)| {
        let value = [pixel / 4 % 2, pixel % 2, 0][class(row)];
        (value ^ usize::from((row * 37 + pixel * 11) % 10 == 0)) as f32
    });
    let labels: Vec<usize> = (0..60).map(class).collect();
    let circuit = ConvPc::new(4, 4, 1, Family::bernoulli()).channels(4).num_classes(3).build(2).unwrap();
    for subject in subjects() {
        let mut executable = subject.backend.load(&circuit).unwrap();
        let mut last = f64::NEG_INFINITY;
        for step in 0..30 {
            let now = executable.accumulate_labeled(data.view(), &labels).unwrap().log_likelihood / 60.0;
            assert!(now > last - 1e-5, "{}, step {step}: {last}, {now}", subject.backend.name());
            last = now;
            executable.em_step(&em::Options { pseudocount: 0.01, ..em::Options::default() }).unwrap();
        }
        let posterior = executable.class_posterior(data.view()).unwrap();
        let right = labels.iter().enumerate().filter(|(row, label)| posterior[[*row, **label]] > 0.5).count();
        assert!(right >= 57, "{}: {right} of 60", subject.backend.name());
        assert_close("prior", &executable.class_prior().unwrap(), &[1.0 / 3.0; 3], (1e-5, 0.0));
    }
}

#[test]
fn what_has_no_classes_and_labels_that_do_not_fit_are_refused() {
    let circuit = &enumerable()[0];
    let plain = ConvPc::new(2, 3, 1, Family::bernoulli()).channels(2).build(1).unwrap();
    let data = Array2::zeros((4, 6));
    assert_eq!(plain.of_class(0), Err(Error::NoClasses));
    assert_eq!(plain.class_prior(), Err(Error::NoClasses));
    for subject in subjects() {
        let mut executable = subject.backend.load(&plain).unwrap();
        assert_eq!(executable.accumulate_labeled(data.view(), &[0; 4]), Err(Error::NoClasses));
        assert_eq!(executable.class_log_likelihood(data.view()), Err(Error::NoClasses));
        assert_eq!(executable.class_posterior(data.view()), Err(Error::NoClasses));
        let mut executable = subject.backend.load(circuit).unwrap();
        let mut refused = |data: &Array2<f32>, labels: &[usize]| {
            let refused = executable.accumulate_labeled(data.view(), labels).unwrap_err();
            assert_eq!(executable.statistics().unwrap(), Statistics::zeros(circuit.structure()));
            refused
        };
        assert_eq!(refused(&data, &[0; 3]), Error::LabelCount { given: 3, rows: 4 });
        assert_eq!(refused(&data, &[0, 2, 3, 9]), Error::Label { row: 2, label: 3, classes: 3 });
        assert!(matches!(refused(&Array2::zeros((4, 5)), &[0; 4]), Error::VariableCount { .. }));
        assert_eq!(refused(&Array2::zeros((0, 6)), &[]), Error::EmptyBatch);
        assert!(matches!(refused(&(data.clone() + 2.0), &[0; 4]), Error::OutsideSupport { .. }));
        let executable: &dyn Executable = &*executable;
        assert_eq!(executable.class_log_likelihood(Array2::zeros((0, 6)).view()), Err(Error::EmptyBatch));
    }
}

//! The f32 contract, |Δ log-likelihood| ≤ 1e-5 · |ll| + 1e-4 against float64, for models and rows at the edges of what is legal.

use std::ops::ControlFlow;

use convpc::{
    Backend, Blend, Circuit, ConvPc, Cpu, Error, Executable, Family, Leaf, MiniBatchEm, Mpe, Normal, OptimizerState,
    Parameters, ProdConv, Reference, Replicas, Rule, SMALLEST_WEIGHT, Semiring, Structure, em, train,
};
use ndarray::{Array2, ArrayD, Axis, IxDyn, array};
use proptest::prelude::*;
use testsuite::{assert_close, subjects};

const CONTRACT: (f64, f64) = (1e-5, 1e-4);

fn cpu() -> Box<dyn Backend> {
    Box::new(Cpu::new(Some(2)).unwrap())
}

/// The backends that compute in f32.
fn backends() -> Vec<Box<dyn Backend>> {
    subjects().into_iter().map(|subject| subject.backend).filter(|backend| backend.name() != "reference").collect()
}

/// Whether an error refuses a row that f32 cannot hold: one that is so far from all means that its log-likelihood is below this.
fn refuses_far_row(error: &Error, expected: &[f64]) -> bool {
    const FAR: f64 = -1e36;
    matches!(error, Error::TooFar { row } if expected[*row] < FAR)
}

/// Compares log-likelihoods, of all rows together and row by row (which go through other loops), and activations. A row that is
/// refused must be one that f32 cannot hold.
fn assert_contract_on(backend: &dyn Backend, circuit: &Circuit, data: &Array2<f32>) {
    let reference = Reference.load(circuit).unwrap();
    let expected = reference.log_likelihood(data.view()).unwrap().to_vec();
    assert!(expected.iter().all(|ll| !ll.is_nan()), "{expected:?}");
    let executable = backend.load(circuit).unwrap();
    let what = || format!("{} {circuit}{:?}\n{data}", backend.name(), circuit.parameters());
    match executable.log_likelihood(data.view()) {
        Ok(given) => assert_close(&what(), &given, &expected, CONTRACT),
        // The CPU refuses no score.
        Err(error) => assert!(backend.name() != "cpu" && refuses_far_row(&error, &expected), "{}: {error}", what()),
    }
    for (row, expected) in data.axis_chunks_iter(Axis(0), 1).zip(&expected) {
        match executable.log_likelihood(row) {
            Ok(given) => assert_close(&what(), &given, [expected], CONTRACT),
            Err(error) => assert!(refuses_far_row(&error, &[*expected]), "{}: {error}", what()),
        }
    }
    for semiring in [Semiring::SumProduct, Semiring::MaxProduct] {
        let exact = reference.evaluate(data.view(), semiring).unwrap().log_likelihood();
        match executable.evaluate(data.view(), semiring) {
            Ok(given) => assert_close(&what(), &given.log_likelihood(), &exact, CONTRACT),
            Err(error) => assert!(refuses_far_row(&error, &exact.to_vec()), "{}: {error}", what()),
        }
    }
}

/// The same on the CPU, whose contract has no exceptions.
fn assert_contract(circuit: &Circuit, data: &Array2<f32>) {
    assert_contract_on(&*cpu(), circuit, data);
}

/// A mixture of Normals of these means and standard deviations, the same at each pixel of a 2 × 2 image.
fn normals(distributions: &[(f64, f64)]) -> Circuit {
    let channels = distributions.len();
    let structure = Structure::builder(Leaf::new(2, 2, 1, Family::normal(), channels))
        .sum(channels)
        .prod_conv(ProdConv::new(2, 2))
        .sum(1)
        .build()
        .unwrap();
    let (structure, mut parameters) = Circuit::random(structure, 3).unwrap().into_parts();
    for (at, p) in parameters.0[0].iter_mut().enumerate() {
        let (mean, std) = distributions[at / 2 % channels];
        *p = if at % 2 == 0 { mean } else { std };
    }
    Circuit::new(structure, parameters).unwrap()
}

#[test]
fn means_far_from_zero_and_small_deviations() {
    for mean in [0.0, 1.3, 1000.13, 40_000.3, 1e5 + 0.1, 1e6 + 0.3, 12_345_678.9] {
        for std in [1e-3, 0.05, 0.5, 1.0, 30.0] {
            let near = |k: f64| (mean + k * std) as f32;
            let data = array![
                [near(0.0), near(0.3), near(-1.0), near(2.5)],
                [near(-4.0), f32::NAN, near(9.0), near(0.01)],
                [near(0.0), near(40.0), near(-300.0), near(1e5)]
            ];
            assert_contract(&normals(&[(mean, std)]), &data);
            assert_contract(&normals(&[(mean, std), (mean + 0.7 * std, 2.0 * std), (-mean, 1.0)]), &data);
        }
    }
}

#[test]
fn deviations_and_values_of_any_size() {
    let large = 1e38;
    let data = array![
        [0.0, 1e30, -1e30, 1e-30],
        [1e-38, 1.0, -1.0, 3e10],
        [large, -large, large, f32::NAN],
        [5.0, 5.0, 5.0, 5.0],
        [1e19, 1e20, -1e19, 0.0]
    ];
    let stds = [Normal::SMALLEST_STD, 1e-20, 1e-3, 1.0, 1e10, 1e30, Normal::LARGEST];
    for mean in [0.0, 5.0, 1e30, -1e30, Normal::LARGEST] {
        for std in stds {
            assert_contract(&normals(&[(mean, std)]), &data);
            assert_contract(&normals(&[(mean, std), (0.0, 1.0), (-mean, 1e-30), (1e4, 1e30)]), &data);
        }
    }
}

/// Rows near the means come out the same to the last bit, whether rows far away are computed beside them or not.
#[test]
fn far_rows_do_not_change_their_neighbours() {
    let circuit = normals(&[(0.0, 1.0), (2.0, 0.5)]);
    let near = Array2::from_shape_fn((40, 4), |(row, v)| ((row * 7 + v * 3) % 11) as f32 * 0.3 - 1.0);
    let mut mixed = near.clone();
    mixed.outer_iter_mut().step_by(5).for_each(|mut row| row[2] = 1e25);
    let executable = cpu().load(&circuit).unwrap();
    let [alone, beside] = [&near, &mixed].map(|data| executable.log_likelihood(data.view()).unwrap());
    for row in (0..40).filter(|row| row % 5 != 0) {
        assert_eq!(alone[row].to_bits(), beside[row].to_bits(), "row {row}");
    }
}

/// A value that only a distribution far away may explain, the near one having no weight.
#[test]
fn rows_that_f32_cannot_hold_are_refused_by_name() {
    let (structure, mut parameters) = normals(&[(0.0, 1e-30), (0.0, 1.0)]).into_parts();
    // The first output of the sums on the second pixel has no other input; elsewhere both have weight.
    parameters.0[1].lanes_mut(Axis(1)).into_iter().skip(2).take(2).for_each(|mut w| w.assign(&array![1.0, 0.0]));
    let circuit = Circuit::new(structure, parameters).unwrap();
    let data = array![[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]];
    let mut executable = cpu().load(&circuit).unwrap();
    let expected = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap();
    assert!((-1e61..-1e59).contains(&expected[1]), "{expected}");
    assert_close("scores", &executable.log_likelihood(data.view()).unwrap(), &expected, CONTRACT);
    let refused = [
        executable.sample_conditional(data.view(), 1, 0).map(|_| ()),
        executable.mpe(data.view(), Mpe::Greedy).map(|_| ()),
        executable.evaluate(data.view(), Semiring::SumProduct).map(|_| ()),
        executable.accumulate(data.view()).map(|_| ()),
    ];
    for refused in refused {
        let error = refused.unwrap_err().to_string();
        assert!(error.starts_with("row 1: ") && error.contains("use the backend reference"), "{error}");
    }
    assert!(executable.statistics().unwrap().counts.iter().flatten().all(|n| *n == 0.0));
    assert_contract(&circuit, &data.slice(ndarray::s![..1, ..]).to_owned());
    // The number is that of the row in the batch, however the batch is cut.
    let mut long = Array2::zeros((600, 4));
    long.row_mut(513).assign(&data.row(1));
    let both = Replicas::new(vec![cpu(), cpu()]).unwrap().load(&circuit).unwrap();
    for mut executable in [executable, both] {
        let refused = [
            executable.sample_conditional(long.view(), 1, 0).map(|_| ()),
            executable.accumulate(long.view()).map(|_| ()),
        ];
        for refused in refused {
            assert_eq!(refused, Err(Error::TooFar { row: 513 }));
        }
    }
    // A run shuffles its rows and names those of the data.
    let options =
        train::Options { batch_size: 600, epochs: 1, ..train::Options::new(Rule::MiniBatchEm(MiniBatchEm::default())) };
    let trainer = train::Trainer::new(options, long.view(), None).unwrap();
    let mut executable = cpu().load(&circuit).unwrap();
    let ended = trainer.run(&mut *executable, &mut train::State::default(), &mut |_| ControlFlow::Continue(()));
    assert_eq!(ended, Err(Error::TooFar { row: 513 }));
}

/// Where a class is too far to be told in f32, the others are not affected, and its own log-likelihood is exact.
#[test]
fn a_class_far_away_leaves_the_others_as_they_are() {
    let circuit = ConvPc::new(1, 2, 1, Family::normal()).channels(2).num_classes(2).depth(1).build(4).unwrap();
    let (structure, mut parameters) = circuit.into_parts();
    // Each class has a channel of its own, the second with a tiny deviation.
    for (at, p) in parameters.0[0].iter_mut().enumerate() {
        *p = [[0.0, 1.0], [5.0, 1e-20]][at / 2 % 2][at % 2];
    }
    for (layer, tensor) in structure.layers().iter().zip(&mut parameters.0) {
        if layer.normalized_axis().is_some() && tensor.shape()[1] == 2 && tensor.shape()[2] == 2 {
            tensor.iter_mut().zip([1.0, 0.0, 0.0, 1.0].into_iter().cycle()).for_each(|(w, given)| *w = given);
        }
    }
    let circuit = Circuit::new(structure, parameters).unwrap();
    let data = array![[0.0, 0.1], [5.0, 5.0]];
    let [given, exact] = [cpu().load(&circuit).unwrap(), Reference.load(&circuit).unwrap()];
    let classes = |executable: &dyn Executable| executable.class_log_likelihood(data.view()).unwrap();
    assert_close("classes", &classes(&*given), &classes(&*exact), CONTRACT);
    let posterior = |executable: &dyn Executable| executable.class_posterior(data.view()).unwrap();
    assert_close("posterior", &posterior(&*given), &posterior(&*exact), (1e-4, 0.0));
}

/// One pixel's large negative log-density cancels many positive ones.
#[test]
fn outliers_among_narrow_distributions() {
    for (side, std, depth, colors) in
        [(16, 1e-3, 2, 1), (28, 1e-3, 1, 1), (28, 1e-3, 4, 3), (28, 1e-6, 3, 1), (32, 1e-2, 3, 1)]
    {
        let circuit = ConvPc::new(side, side, colors, Family::normal()).channels(2).depth(depth).build(4).unwrap();
        let (structure, mut parameters) = circuit.into_parts();
        parameters.0[0].iter_mut().enumerate().for_each(|(at, p)| *p = if at % 2 == 1 { std } else { 0.1 });
        let circuit = Circuit::new(structure, parameters).unwrap();
        let mut data = Array2::from_elem((6, side * side * colors), 0.1_f32);
        let at_mean = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap()[0];
        for (k, mut row) in data.outer_iter_mut().enumerate() {
            let (wanted, outliers) = (at_mean + k as f64 * 0.7, 1 + 3 * (k % 2));
            for outlier in 0..outliers {
                row[outlier * 37] = (0.1 + std * (2.0 * wanted / outliers as f64).sqrt()) as f32;
            }
        }
        assert_contract(&circuit, &data);
    }
}

/// Data that vary far less than the present deviation, at a few deviations from the mean: a step finds their deviation, and
/// the log-likelihood does not fall.
#[test]
fn a_step_finds_narrow_deviations() {
    let options = em::Options { minimum_std: 0.0, ..em::Options::default() };
    for spread in [1e-2, 3e-3, 1e-3] {
        for offset in [0.0, 0.2, 1.5, 2.5, 3.8, 5.2, 8.0, 12.0] {
            let data =
                Array2::from_shape_fn((300, 4), |(row, v)| offset + spread * ((row * 7 + v * 3) % 11) as f32 / 11.0);
            let step = |backend: &dyn Backend| {
                let mut executable = backend.load(&normals(&[(0.0, 1.0), (0.3, 1.0)])).unwrap();
                let before = testsuite::em_step(&mut *executable, &data, 300, &options);
                let after = executable.log_likelihood(data.view()).unwrap().mean().unwrap();
                assert!(after > before, "{} {spread} {offset}: {before}, then {after}", backend.name());
                executable.parameters().unwrap().0[0].clone()
            };
            let expected = step(&Reference);
            for backend in backends() {
                let given = step(&*backend);
                let deviations = |p: &ArrayD<f64>| p.iter().skip(1).step_by(2).copied().collect::<Vec<f64>>();
                let what = format!("{} {spread} {offset}", backend.name());
                assert_close(&what, &deviations(&given), &deviations(&expected), (1e-2, 0.0));
            }
        }
    }
}

/// A repetition without weight explains the row far better than the other, whose logarithm is beyond what f32 counts.
#[test]
fn mixtures_of_repetitions_far_apart() {
    let circuit = ConvPc::new(1, 2, 1, Family::normal()).channels(2).repetitions(2).build(4).unwrap();
    let (structure, mut parameters) = circuit.into_parts();
    let mixing = structure.layers().len() - 1;
    for weights in [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]] {
        parameters.0[mixing].iter_mut().zip(weights).for_each(|(w, given)| *w = given);
        // [variable][channel][repetition][mean, std]
        for (at, p) in parameters.0[0].iter_mut().enumerate() {
            *p = [[0.0, 1.0], [0.0, 1e-16]][at / 2 % 2][at % 2];
        }
        let circuit = Circuit::new(structure.clone(), parameters.clone()).unwrap();
        assert_contract(&circuit, &array![[1.0, 3.0], [1e-17, 0.0], [0.3, f32::NAN]]);
    }
}

/// Draws are values that can be scored.
#[test]
fn draws_of_the_widest_normals_are_values() {
    let circuit = normals(&[(9e37, 1e38), (-1e38, 1e38)]);
    for backend in backends().into_iter().chain([Box::new(Reference) as Box<dyn Backend>]) {
        let executable = backend.load(&circuit).unwrap();
        let draws = executable.sample(0..200, 1).unwrap();
        assert!(draws.iter().any(|x| x.abs() == 1e38), "{draws}");
        assert!(executable.log_likelihood(draws.view()).unwrap().iter().all(|ll| ll.is_finite()));
    }
}

/// What rounding to f32 leaves of a mean is here far more standard deviations than f32 holds, on the other side than the value.
#[test]
fn means_between_numbers_of_f32_and_the_smallest_deviation() {
    for mean in [1e30, -1e30, 3e37 + 1e21] {
        let rounded = mean as f32;
        let data = array![[rounded, rounded.next_up(), rounded.next_down(), f32::NAN], [0.0, 1.0, rounded, 1e20]];
        for std in [1e-30, 1e-10, 1e20] {
            assert_contract(&normals(&[(mean, std), (0.0, 1e30)]), &data);
            assert_contract(&normals(&[(mean, std)]), &data);
        }
    }
}

/// Products of leaves without a sum below them, and of the whole circuit without any.
#[test]
fn products_of_far_leaves() {
    let data = array![[1e3, -2e4, 1e30, 4.0], [1.0, 2.0, f32::NAN, -1.0]];
    let leaf = || Structure::builder(Leaf::new(2, 2, 1, Family::normal(), 1)).prod_conv(ProdConv::new(2, 2));
    assert_contract(&Circuit::random(leaf().build().unwrap(), 1).unwrap(), &data);
    assert_contract(&Circuit::random(leaf().sum(1).build().unwrap(), 1).unwrap(), &data);
}

/// A sum over a leaf that is always 0 and one that is always 1, of these weights.
fn coin(weights: [f64; 2], sums: usize) -> Circuit {
    let mut chain = Structure::builder(Leaf::new(1, 2, 1, Family::bernoulli(), 2));
    for _ in 0..sums {
        chain = chain.sum(2);
    }
    let structure = chain.prod_conv(ProdConv::new(1, 2)).sum(1).build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].iter_mut().skip(1).step_by(2).for_each(|p| *p = 1.0);
    for tensor in &mut parameters.0[1..] {
        if tensor.ndim() == 4 {
            tensor.lanes_mut(Axis(1)).into_iter().for_each(|mut w| w.assign(&array![weights[0], weights[1]]));
        }
    }
    Circuit::new(structure, parameters).unwrap()
}

#[test]
fn weights_below_those_of_f32() {
    let data = array![[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [f32::NAN, 1.0], [f32::NAN, f32::NAN]];
    for small in [1e-30, 1e-37, 1e-38, 1e-40, 1e-44, 1e-45, 1e-46, 1e-87, 1e-200, 1e-300, 5e-324] {
        for sums in [1, 2, 3] {
            let circuit = coin([1.0, small], sums);
            assert_contract(&circuit, &data);
            let executable = cpu().load(&circuit).unwrap();
            // What is loaded comes back.
            let back = executable.parameters().unwrap();
            assert!(back.0[1].iter().zip(circuit.parameters().0[1].iter()).all(|(a, b)| (a / b - 1.0).abs() < 1e-6));
            // Evidence that only the small weight explains has a posterior.
            let evidence = array![[1.0, f32::NAN], [1.0, 1.0]];
            let reference = Reference.load(&circuit).unwrap();
            for method in [Mpe::Greedy, Mpe::MaxProduct] {
                assert_eq!(executable.mpe(evidence.view(), method), reference.mpe(evidence.view(), method));
            }
            let draws = executable.sample_conditional(evidence.view(), 3, 0);
            assert_eq!(draws, reference.sample_conditional(evidence.view(), 3, 0));
        }
    }
}

/// Three channels over two variables: one that is always 0, and two that agree on the first variable alone. Their weights are of
/// different sizes, both below those of f32.
#[test]
fn choices_between_small_weights_are_those_of_float64() {
    let leaf = Leaf::new(1, 2, 1, Family::bernoulli(), 3);
    let structure = Structure::builder(leaf).prod_conv(ProdConv::new(1, 2)).sum(1).build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].iter_mut().zip([0.0, 1.0, 1.0, 0.0, 0.0, 1.0]).for_each(|(p, given)| *p = given);
    parameters.0[2].iter_mut().zip([1.0, 1e-60, 1e-46]).for_each(|(w, given)| *w = given);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let evidence = Array2::from_shape_fn((30, 2), |(_, v)| if v == 0 { 1.0 } else { f32::NAN });
    for backend in backends() {
        let executable = backend.load(&circuit).unwrap();
        let draws = executable.sample_conditional(evidence.view(), 1, 0).unwrap();
        assert!(draws.iter().all(|x| *x == 1.0), "{}: {draws}", backend.name());
        for method in [Mpe::Greedy, Mpe::MaxProduct] {
            assert!(executable.mpe(evidence.view(), method).unwrap().iter().all(|x| *x == 1.0), "{}", backend.name());
        }
    }
}

/// A step raises small weights whose sums have flow to the smallest that learning leaves, keeps zeros, and leaves sums without
/// flow as they are.
#[test]
fn a_step_keeps_possible_edges_possible() {
    let leaf = Leaf::new(1, 1, 1, Family::bernoulli(), 3);
    let structure = Structure::builder(leaf).sum(2).sum(1).build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].iter_mut().zip([0.0, 1.0, 1.0]).for_each(|(p, given)| *p = given);
    // [input][output]: the second output is never used.
    parameters.0[1].iter_mut().zip([1.0, 1.0, 1e-46, 1e-60, 0.0, 0.0]).for_each(|(w, given)| *w = given);
    parameters.0[2].iter_mut().zip([1.0, 0.0]).for_each(|(w, given)| *w = given);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let blend = |blend| Rule::MiniBatchEm(MiniBatchEm { blend, ..MiniBatchEm::default() });
    for (rule, step) in [(Rule::Em(em::Options::default()), 1.0), (blend(Blend::TopDown), 0.5)] {
        for backend in backends().into_iter().chain([Box::new(Reference) as Box<dyn Backend>]) {
            let mut executable = backend.load(&circuit).unwrap();
            executable.accumulate(array![[0.0], [0.0]].view()).unwrap();
            executable.update(&rule, step, &mut OptimizerState::default()).unwrap();
            let weights: Vec<f64> = executable.parameters().unwrap().0[1].iter().copied().collect();
            let expected = [1.0, 1.0, SMALLEST_WEIGHT, 1e-60, 0.0, 0.0];
            assert_close(&format!("{} {rule:?}", backend.name()), &weights, &expected, (1e-3, 0.0));
        }
    }
}

/// The expected counts of edges whose weights f32 does not hold.
#[test]
fn flows_through_weights_below_those_of_f32() {
    let data = array![[1.0, 1.0], [0.0, 1.0], [f32::NAN, 1.0]];
    for small in [1e-37, 1e-42, 1e-46, 1e-200] {
        let counts = |backend: &dyn Backend| {
            let mut executable = backend.load(&coin([1.0, small], 2)).unwrap();
            assert_eq!(executable.accumulate(data.view()).unwrap().impossible_rows, 0);
            executable.statistics().unwrap().counts
        };
        for (given, expected) in counts(&*cpu()).iter().zip(&counts(&Reference)) {
            assert_close(&format!("{small}"), given, expected, (1e-5, 1e-6));
        }
    }
}

/// A class of prior probability 0 makes a row impossible, which is no matter of f32.
#[test]
fn rows_of_a_class_without_prior_are_impossible_not_refused() {
    let circuit = ConvPc::new(2, 2, 1, Family::normal()).channels(2).num_classes(2).build(4).unwrap();
    let (structure, mut parameters) = circuit.into_parts();
    let root = structure.layers().len() - 1;
    parameters.0[root].iter_mut().zip([1.0, 0.0]).for_each(|(w, given)| *w = given);
    let circuit = Circuit::new(structure, parameters).unwrap();
    for backend in backends().into_iter().chain([Box::new(Reference) as Box<dyn Backend>]) {
        let mut executable = backend.load(&circuit).unwrap();
        let seen = executable.accumulate_labeled(array![[0.0, 1.0, 0.0, 2.0], [1.0; 4]].view(), &[1, 0]).unwrap();
        assert_eq!((seen.rows, seen.impossible_rows), (2, 1), "{}", backend.name());
    }
}

#[test]
fn mixtures_and_classes_of_small_weights() {
    let circuit = ConvPc::new(2, 2, 1, Family::categorical(3)).channels(2).repetitions(2).build(4).unwrap();
    let (structure, mut parameters) = circuit.into_parts();
    let mixing = structure.layers().len() - 1;
    parameters.0[mixing] = ArrayD::from_shape_vec(IxDyn(&[1, 1, 2]), vec![1.0, 1e-60]).unwrap();
    // The second repetition alone explains the value 2.
    let mut leaves = parameters.0[0].view_mut();
    leaves.index_axis_mut(Axis(2), 0).lanes_mut(Axis(2)).into_iter().for_each(|mut p| p.assign(&array![0.5, 0.5, 0.0]));
    let data = array![[2.0, 2.0, 0.0, 1.0], [0.0, 1.0, 0.0, f32::NAN], [f32::NAN, f32::NAN, f32::NAN, 2.0]];
    assert_contract(&Circuit::new(structure, parameters).unwrap(), &data);

    let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(2).num_classes(2).build(4).unwrap();
    let (structure, mut parameters) = circuit.into_parts();
    let root = structure.layers().len() - 1;
    parameters.0[root].assign(&ArrayD::from_shape_vec(IxDyn(&[1, 2, 1, 1]), vec![1.0, 1e-60]).unwrap());
    let circuit = Circuit::new(structure, parameters).unwrap();
    let data = array![[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, f32::NAN]];
    let [given, expected] = [cpu(), Box::new(Reference)].map(|backend| {
        let mut executable = backend.load(&circuit).unwrap();
        let joint = executable.class_log_joint(data.view()).unwrap();
        let labeled = executable.accumulate_labeled(data.view(), &[1, 1]).unwrap();
        assert_eq!(labeled.impossible_rows, 0);
        (joint, labeled.log_likelihood, executable.class_prior().unwrap())
    });
    assert_close("joint", &given.0, &expected.0, CONTRACT);
    assert_close("labeled", [&given.1], [&expected.1], CONTRACT);
    assert_close("prior", &given.2, &expected.2, (1e-6, 0.0));
}

/// Near the mode a log-density is a small difference of terms that grow with the number of trials.
#[test]
fn binomials_of_many_trials() {
    for trials in [255, 256, 500, 1000, 65_535] {
        for p in [0.5, 0.037, 0.999] {
            let structure = Structure::builder(Leaf::new(2, 2, 1, Family::binomial(trials), 1)).sum(1);
            let structure = structure.prod_conv(ProdConv::new(2, 2)).sum(1).build().unwrap();
            let mut parameters = Circuit::random(structure.clone(), 2).unwrap().into_parts().1;
            parameters.0[0].fill(p);
            let circuit = Circuit::new(structure, parameters).unwrap();
            let (n, near) = (trials as f64, |k: f64| (trials as f64 * p + k).round().clamp(0.0, trials as f64) as f32);
            let data = array![
                [near(0.0), near(1.0), near(-1.0), near(2.0)],
                [near(5.0), f32::NAN, near(-3.0), near(0.0)],
                [0.0, 1.0, (n - 1.0) as f32, n as f32]
            ];
            for backend in backends() {
                assert_contract_on(&*backend, &circuit, &data);
            }
        }
    }
}

/// One step from N(0, 1) to data around 30,000, near data, and both: the values of the issue, and the reference's.
#[test]
fn a_step_to_far_data_finds_their_deviation() {
    let near = |row: usize| (row % 7) as f32;
    for (offset, tolerance) in [(0.0, 1e-5), (1e3, 1e-5), (3e4, 1e-5), (1e6, 2e-4)] {
        let far = Array2::from_shape_fn((490, 4), |(row, v)| offset + near(row + v));
        let mixed =
            Array2::from_shape_fn((490, 4), |(row, v)| if row < 245 { near(row) } else { offset + near(row + v) });
        for (what, data) in [("far", &far), ("mixed", &mixed)] {
            let step = |backend: &dyn Backend| {
                let mut executable = backend.load(&normals(&[(0.0, 1.0)])).unwrap();
                executable.accumulate(data.view()).unwrap();
                executable.em_step(&em::Options::default()).unwrap();
                executable.parameters().unwrap().0[0].clone()
            };
            let (given, expected) = (step(&*cpu()), step(&Reference));
            assert_close(&format!("{what} {offset}"), &given, &expected, (tolerance, 1e-6));
            if what == "far" {
                assert!((expected[[0, 0, 0, 1]] - 2.0).abs() < 1e-3, "{expected}");
            }
        }
    }
}

/// Where pixels share leaves, every value of a large image is added to the same few counts.
#[test]
fn counts_of_large_images_are_those_of_all_pixels() {
    const SIDE: usize = 512;
    let shared = |family| {
        let leaf = Leaf::new(SIDE, SIDE, 1, family, 2).shared(true);
        Structure::builder(leaf).prod_conv(ProdConv::new(SIDE, SIDE)).sum(1).build().unwrap()
    };
    let row = Array2::from_shape_fn((1, SIDE * SIDE), |(_, v)| f32::from(v % 10 == 0));
    let data = row.broadcast((70, SIDE * SIDE)).unwrap();
    for family in [Family::categorical(2), Family::bernoulli(), Family::normal(), Family::discretized_logistic(2)] {
        let structure = shared(family);
        let mut parameters = Circuit::random(structure.clone(), 1).unwrap().into_parts().1;
        // Both channels are alike, so that each takes the share of its weight.
        let first: Vec<f64> = parameters.0[0].iter().take(family.parameters()).copied().collect();
        parameters.0[0].iter_mut().zip(first.iter().cycle()).for_each(|(p, first)| *p = *first);
        parameters.0[2].iter_mut().zip([0.3, 0.7]).for_each(|(w, given)| *w = given);
        let mut executable = cpu().load(&Circuit::new(structure, parameters).unwrap()).unwrap();
        executable.accumulate(data).unwrap();
        let counts = &executable.statistics().unwrap().counts[0];
        let values = (70 * SIDE * SIDE) as f64;
        for (channel, share) in [0.3, 0.7].into_iter().enumerate() {
            let flow = counts[[0, channel, 0, 0]];
            assert!((flow / (share * values) - 1.0).abs() < 1e-6, "{family:?}: a flow of {flow}");
        }
        executable.em_step(&em::Options::default()).unwrap();
        let learned = executable.parameters().unwrap();
        let ones = row.sum() as f64 / row.len() as f64;
        let expected = match family {
            Family::Categorical(_) => vec![1.0 - ones, ones],
            Family::Bernoulli(_) => vec![ones],
            Family::Normal(_) => vec![ones, (ones * (1.0 - ones)).sqrt()],
            _ => continue,
        };
        assert_close(&format!("{family:?}"), learned.0[0].iter().take(expected.len()), &expected, (1e-5, 0.0));
    }
}

/// Without a minimum a constant pixel gets the smallest deviation, and everything stays finite.
#[test]
fn without_a_minimum_constant_pixels_stay_finite() {
    let data = array![[5.0, 1.0, 2.0, 3.0], [5.0, 2.0, 1.0, 0.0], [5.0, 0.0, 7.0, 3.0]];
    let options = em::Options { minimum_std: 0.0, ..em::Options::default() };
    for backend in [cpu(), Box::new(Reference)] {
        let mut executable = backend.load(&normals(&[(0.0, 1.0), (3.0, 2.0)])).unwrap();
        let mut last = f64::NEG_INFINITY;
        for _ in 0..30 {
            let mean = testsuite::em_step(&mut *executable, &data, 3, &options);
            assert!(mean.is_finite() && mean >= last - 1e-5 * mean.abs(), "{}: {last}, {mean}", backend.name());
            last = mean;
        }
        let circuit = executable.circuit().unwrap();
        assert_eq!(circuit.leaf_parameters(0, 0, 0)[1], Normal::SMALLEST_STD);
        assert_contract(&circuit, &data);
        assert_contract(&circuit, &array![[5.0, 1.0, 2.0, 3.0], [4.0, 1.0, 2.0, 3.0]]);
    }
}

/// A number that is positive, of any size between powers of ten.
fn of_any_size(exponents: std::ops::Range<f64>) -> impl Strategy<Value = f64> {
    exponents.prop_map(|exponent| 10_f64.powf(exponent))
}

fn signed(size: impl Strategy<Value = f64>) -> impl Strategy<Value = f64> {
    (size, any::<bool>()).prop_map(|(size, negative)| if negative { -size } else { size })
}

/// Leaf parameters over their whole range.
fn leaf_parameters(family: Family) -> BoxedStrategy<Vec<f64>> {
    let softmax = |logits: Vec<f64>| {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
        logits.into_iter().map(|x| (x - largest).exp() / sum).collect::<Vec<f64>>()
    };
    match family {
        Family::Normal(_) => {
            let mean = prop_oneof![Just(0.0), signed(of_any_size(-3.0..6.0)), signed(of_any_size(-30.0..37.9))];
            let std = prop_oneof![of_any_size(-3.0..3.0), of_any_size(-30.0..37.9)];
            (mean, std).prop_map(|(mean, std)| vec![mean, std]).boxed()
        }
        Family::Categorical(c) => prop::collection::vec(-100.0..100.0, c.categories).prop_map(softmax).boxed(),
        Family::DiscretizedLogistic(l) => {
            let n = l.levels as f64;
            (-4.0 * n..5.0 * n, 0.05..4.0 * n).prop_map(|(mean, scale)| vec![mean, scale]).boxed()
        }
        _ => prop_oneof![Just(0.0), Just(1.0), (-100.0..100.0_f64).prop_map(|x| 1.0 / (1.0 + (-x).exp()))]
            .prop_map(|p| vec![p])
            .boxed(),
    }
}

/// Circuits of all families, whose parameters lie anywhere in their legal range, with rows near the means and anywhere.
fn extreme() -> impl Strategy<Value = (Circuit, Array2<f32>)> {
    let family = prop_oneof![
        4 => Just(Family::normal()),
        1 => Just(Family::bernoulli()),
        1 => Just(Family::categorical(4)),
        1 => (1..2000_usize).prop_map(Family::binomial),
        1 => Just(Family::discretized_logistic(16))
    ];
    let image = (1..4usize, 1..4usize, 1..3usize);
    (family, image, 1..5usize, 1..3usize, any::<bool>(), any::<bool>())
        .prop_flat_map(|(family, (height, width, colors), channels, repetitions, sum_conv, shared)| {
            let convpc =
                ConvPc::new(height, width, colors, family).channels(channels).depth(1).repetitions(repetitions);
            let convpc = convpc.use_sum_conv(sum_conv).shared_leaves(shared);
            let structure = if shared { convpc.leaf_sums(2) } else { convpc }.structure().unwrap();
            let shape = |layer: usize| structure.parameter_shape(layer).iter().product::<usize>();
            let leaves = prop::collection::vec(leaf_parameters(family), shape(0) / family.parameters());
            let weights: usize = (1..structure.layers().len()).map(shape).sum();
            let logits =
                prop::collection::vec(prop_oneof![3 => -5.0..5.0, 2 => -100.0..100.0, 1 => -700.0..0.0], weights);
            let seen = prop::collection::vec(
                (any::<prop::sample::Index>(), -4.0..4.0_f64, 0..8_u8),
                5 * structure.variables(),
            );
            (Just(structure), leaves, logits, seen)
        })
        .prop_map(|(structure, leaves, logits, seen)| {
            let mut parameters = Parameters::zeros(&structure);
            let mut logits = logits.into_iter();
            parameters.0[0].iter_mut().zip(leaves.iter().flatten()).for_each(|(to, p)| *to = *p);
            for (layer, tensor) in structure.layers().iter().zip(&mut parameters.0) {
                let Some(axis) = layer.normalized_axis() else { continue };
                for mut lane in tensor.lanes_mut(Axis(axis)) {
                    lane.mapv_inplace(|_| logits.next().unwrap());
                    let largest = lane.fold(f64::NEG_INFINITY, |a, b| a.max(*b));
                    lane.mapv_inplace(|x| (x - largest).exp());
                    let sum = lane.sum();
                    lane /= sum;
                }
            }
            let family = structure.leaf().family;
            let value = |&(index, k, kind): &(prop::sample::Index, f64, u8)| {
                let leaf = index.get(&leaves);
                match (family.cardinality(), kind) {
                    (_, 0) => f32::NAN,
                    (Some(n), _) => index.index(n) as f32,
                    (None, 1) => [0.0, 1e30, -1e30, 1.0, 1e38, 1e-30][index.index(6)],
                    (None, _) => ((leaf[0] + k * leaf[1]) as f32).clamp(-1e38, 1e38),
                }
            };
            let data = seen.iter().map(value).collect();
            let data = Array2::from_shape_vec((5, structure.variables()), data).unwrap();
            (Circuit::new(structure, parameters).unwrap(), data)
        })
}

/// Models as above whose log-densities lie within a few thousand nats of zero, where large ones of both signs do not cancel.
fn moderate() -> impl Strategy<Value = (Circuit, Array2<f32>)> {
    extreme().prop_filter("no cancellation", |(circuit, data)| {
        let reference = Reference.load(circuit).unwrap();
        let leaves = &reference.evaluate(data.view(), Semiring::SumProduct).unwrap();
        leaves.activations(0).iter().all(|x| x.abs() < 50.0 || x.is_infinite())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_global_rejects: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_contract_holds_on_every_backend((circuit, data) in moderate()) {
        for backend in backends() {
            assert_contract_on(&*backend, &circuit, &data);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_contract_holds_anywhere((circuit, data) in extreme()) {
        assert_contract(&circuit, &data);
    }

    /// Counts are those of the rows, and a step leaves a circuit that computes.
    #[test]
    fn learning_stays_finite_anywhere((circuit, data) in extreme(), minimum_std in prop_oneof![Just(0.0), Just(1e-3)]) {
        let mut executable = cpu().load(&circuit).unwrap();
        let seen = match executable.accumulate(data.view()) {
            Ok(seen) => seen,
            Err(error) => {
                let expected = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap().to_vec();
                prop_assert!(refuses_far_row(&error, &expected), "{error}");
                // A batch that is refused leaves nothing behind.
                prop_assert!(executable.statistics().unwrap().counts.iter().flatten().all(|n| *n == 0.0));
                return Ok(());
            }
        };
        let counted = (seen.rows - seen.impossible_rows) as f64;
        let statistics = executable.statistics().unwrap();
        prop_assert!(statistics.counts.iter().flatten().all(|n| n.is_finite()), "{statistics:?}");
        let root = &statistics.counts[circuit.structure().layers().len() - 1];
        prop_assert!((root.sum() - counted).abs() < 1e-4 * (1.0 + counted), "{root}");
        if counted > 0.0 {
            executable.em_step(&em::Options { minimum_std, ..em::Options::default() }).unwrap();
            let learned = executable.circuit().unwrap();
            assert_contract(&learned, &data);
        }
    }
}

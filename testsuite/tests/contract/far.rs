//! Rows so far from the distributions that f32 cannot hold their log-densities beside one another.

use std::ops::ControlFlow;

use convpc::Backend;
use convpc::{
    Circuit, ConvPc, Error, Executable, Family, MiniBatchEm, Mpe, Reference, Replicas, Rule, Semiring, train,
};
use ndarray::{Array2, Axis, array};
use testsuite::assert_close;

use crate::{CONTRACT, assert_contract, cpu, normals};

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

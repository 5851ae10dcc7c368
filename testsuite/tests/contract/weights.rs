//! Weights of sums below those that f32 holds, and weights of zero.

use convpc::{
    Backend, Blend, Circuit, ConvPc, Family, Leaf, MiniBatchEm, Mpe, OptimizerState, Parameters, ProdConv, Reference,
    Rule, SMALLEST_WEIGHT, Structure, em,
};
use ndarray::{Array2, ArrayD, Axis, IxDyn, array};
use testsuite::assert_close;

use crate::{CONTRACT, assert_contract, backends, cpu};

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

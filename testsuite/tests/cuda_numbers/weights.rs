//! Weights of sums that f32 rounds to zero.

use convpc::{Adam, Circuit, ConvPc, Family, Leaf, Parameters, Precision, ProdConv, Rule, Structure, em};
use ndarray::{Array2, ArrayD, Axis, array};
use testsuite::{
    assert_close, downward,
    software::{device, subject},
    upward,
};

use crate::{CLOSE, agrees, both, exact_step, load, row_of, rules, steps_agree};

/// Weights of each sum, the last of which is `least`; the others are even.
fn with_least_weight(parameters: &mut ArrayD<f64>, axis: usize, least: f64) {
    for mut weights in parameters.lanes_mut(Axis(axis)) {
        let last = weights.len() - 1;
        weights.fill((1.0 - least) / last as f64);
        weights[last] = least;
    }
}

/// The last channel alone has ones, and each sum gives it hardly any weight: a row of ones goes through it all the same.
fn hardly_possible(channels: usize, sums: usize, least: f64) -> Circuit {
    let leaf = |_, channel| vec![if channel + 1 == channels { 1.0 } else { 0.0 }];
    let (structure, mut parameters) = row_of(Family::bernoulli(), 3, channels, sums, leaf).into_parts();
    with_least_weight(&mut parameters.0[1], 1, least);
    Circuit::new(structure, parameters).unwrap()
}

/// Through a mixture of repetitions, of which the last has ones.
fn hardly_possible_repetition(least: f64) -> Circuit {
    let chain =
        Structure::builder(Leaf::new(1, 3, 1, Family::bernoulli(), 2).repetitions(3)).prod_conv(ProdConv::new(1, 3));
    let structure = chain.repetition_mixing().sum(1).build().unwrap();
    let (structure, mut parameters) = Circuit::random(structure, 5).unwrap().into_parts();
    parameters.0[0].indexed_iter_mut().for_each(|(at, p)| *p = f64::from(u8::from(at[2] == 2)));
    let axis = structure.layers()[2].normalized_axis().unwrap();
    with_least_weight(&mut parameters.0[2], axis, least);
    Circuit::new(structure, parameters).unwrap()
}

fn hardly_possible_circuits(least: f64) -> Vec<Circuit> {
    let mut circuits = vec![hardly_possible_repetition(least)];
    circuits.extend([(2, 1), (3, 2), (9, 20), (40, 70)].map(|(channels, sums)| hardly_possible(channels, sums, least)));
    circuits
}

fn ones_and_zeros() -> Array2<f32> {
    array![[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, f32::NAN, 1.0], [f32::NAN, 1.0, 1.0], [0.0, f32::NAN, 0.0]]
}

/// Weights that f32 rounds to zero are not zero.
#[test]
fn weights_below_the_smallest_number() {
    let _device = device();
    for least in [1e-30, 1e-37, 1e-40, 1e-46, (-100.0_f64).exp(), 1e-300, 5e-324] {
        for circuit in hardly_possible_circuits(least) {
            agrees(&circuit, &ones_and_zeros());
            let mut executable = load(&circuit);
            executable.set_parameters(circuit.parameters()).unwrap();
            let given = executable.log_likelihood(ones_and_zeros().view()).unwrap();
            assert!(given.iter().all(|ll| ll.is_finite()), "{least}: {given}");
        }
    }
}

/// In the lower precisions too, where the products are less exact.
#[test]
fn weights_below_the_smallest_number_in_every_precision() {
    let _device = device();
    for precision in Precision::ALL {
        for circuit in hardly_possible_circuits(1e-46) {
            upward::against_float64(&subject(precision), &circuit, &ones_and_zeros());
            downward::against_float64(&subject(precision), &circuit, &ones_and_zeros());
        }
    }
}

/// A class of a prior that f32 rounds to zero.
#[test]
fn classes_that_are_hardly_possible() {
    let _device = device();
    let convpc = ConvPc::new(1, 3, 1, Family::bernoulli()).channels(9).depth(1).num_classes(3);
    let (structure, mut parameters) = convpc.build(3).unwrap().into_parts();
    parameters.0.last_mut().unwrap().iter_mut().zip([0.5, 0.5, 1e-300]).for_each(|(w, v)| *w = v);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let data = ones_and_zeros();
    let [given, exact] = both(&circuit).map(|mut executable| {
        let seen = executable.accumulate_labeled(data.view(), &[0, 1, 2, 2, 1]).unwrap();
        (seen, executable.statistics().unwrap().counts)
    });
    assert_eq!(given.0.impossible_rows, 0);
    assert_close("joint", [&given.0.log_likelihood], [&exact.0.log_likelihood], CLOSE);
    given.1.iter().zip(&exact.1).for_each(|(a, b)| assert_close("counts", a, b, CLOSE));
}

/// A weight that was positive stays so whatever the rule, also where no row went through it.
#[test]
fn steps_keep_what_is_hardly_possible() {
    let _device = device();
    let decay = Rule::Adam(Adam { weight_decay: 1.0, epsilon: 1e-3, ..Adam::default() });
    for least in [1e-20, 1e-40, 1e-300] {
        for circuit in hardly_possible_circuits(least) {
            let rules = [rules(1e-3), vec![decay]].concat();
            steps_agree(&circuit, &array![[0.0, 0.0, 0.0], [0.0, f32::NAN, 0.0]], &rules, (1e-5, 1e-12));
            steps_agree(&circuit, &ones_and_zeros(), &rules, (1e-5, 1e-7));
            let mut executable = load(&circuit);
            executable.accumulate(array![[0.0, 0.0, 0.0]].view()).unwrap();
            executable.em_step(&exact_step(1e-3)).unwrap();
            let parameters = executable.parameters().unwrap();
            let least = parameters.0[1..].iter().flatten().copied().fold(1.0, f64::min);
            assert_close("the smallest weight", [&least], [&1e-30], (1e-6, 0.0));
        }
    }
}

/// Weights that a step raises to the smallest one, and one of zero that a pseudocount makes smaller than any f32 number.
#[test]
fn parameters_come_back_as_they_were() {
    let _device = device();
    let relative = |given: &Parameters, exact: &Parameters| {
        for (given, exact) in given.0.iter().zip(&exact.0).skip(1) {
            assert_close("weights", given, exact, (1e-4, 0.0));
        }
    };
    let circuit = hardly_possible(3, 2, 1e-300);
    let [given, exact] = both(&circuit).map(|mut executable| {
        executable.accumulate(array![[0.0, f32::NAN, 0.0]].view()).unwrap();
        executable.em_step(&exact_step(1e-3)).unwrap();
        executable.parameters().unwrap()
    });
    relative(&given, &exact);
    let circuit = hardly_possible(3, 2, 0.0);
    let options = em::Options { pseudocount: 1e-290, ..exact_step(1e-3) };
    let [given, exact] = both(&circuit).map(|mut executable| {
        executable.accumulate(array![[0.0, 0.0, 0.0]].view()).unwrap();
        executable.em_step(&options).unwrap();
        executable.parameters().unwrap()
    });
    relative(&given, &exact);
}

/// Logits as other libraries write them, made probabilities by a softmax.
#[test]
fn softmax_of_large_logits() {
    let _device = device();
    for logit in [40.0_f64, 100.0] {
        let softmax = [-logit, 0.0, logit].map(|l| (l - logit).exp() / (1.0 + (-logit).exp() + (-2.0 * logit).exp()));
        for sums in [2, 20] {
            let leaf =
                |variable: usize, channel: usize| (0..3).map(|v| softmax[(v + variable + channel) % 3]).collect();
            let (structure, mut parameters) = row_of(Family::categorical(3), 2, 3, sums, leaf).into_parts();
            for (at, mut weights) in parameters.0[1].lanes_mut(Axis(1)).into_iter().enumerate() {
                weights.iter_mut().enumerate().for_each(|(c, w)| *w = softmax[(c + at) % 3]);
            }
            let circuit = Circuit::new(structure, parameters).unwrap();
            let data = Array2::from_shape_fn((9, 2), |(row, v)| if v == 0 { row % 3 } else { row / 3 } as f32);
            agrees(&circuit, &data);
        }
    }
}

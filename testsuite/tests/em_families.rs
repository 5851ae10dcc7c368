//! EM for the other leaf families: monotone, independent of the batch, and different at different kernel positions.

use convpc::{Backend, Circuit, ConvPc, Family, Parameters, Reference, em};
use ndarray::Array2;
use testsuite::{assert_close, assert_monotone, em_step, subjects};

fn circuits() -> Vec<Circuit> {
    [
        ConvPc::new(4, 3, 1, Family::normal()).channels(3).depth(2),
        ConvPc::new(3, 4, 2, Family::normal()).channels(3).depth(2).shared_leaves(true),
        ConvPc::new(4, 4, 1, Family::normal()).channels(3).depth(2).use_sum_conv(true).repetitions(2),
        ConvPc::new(3, 3, 3, Family::categorical(3)).channels(2).depth(1).kernel_size(3).use_sum_conv(true),
        ConvPc::new(4, 4, 1, Family::discretized_logistic(12)).channels(3).depth(2).repetitions(2),
        ConvPc::new(3, 4, 2, Family::discretized_logistic(40)).channels(3).depth(2).shared_leaves(true),
        ConvPc::new(3, 5, 1, Family::binomial(6)).channels(3).depth(2).repetitions(3),
        ConvPc::new(3, 5, 1, Family::normal()).channels(3).depth(3).shifts([(-2, 1), (3, -1)]).use_sum_conv(true),
    ]
    .map(|convpc| convpc.build(8).unwrap())
    .to_vec()
}

/// Draws of another circuit of the same structure, some values missing, one row without any.
fn data(circuit: &Circuit) -> Array2<f32> {
    let other = Circuit::random(circuit.structure().clone(), 77).unwrap();
    let mut data = Reference.load(&other).unwrap().sample(0..60, 1).unwrap();
    data.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
    data.row_mut(3).fill(f32::NAN);
    data
}

/// A floor that f32 data do not reach, so that the constrained step stays exact.
const OPTIONS: em::Options = em::Options { pseudocount: 0.0, minimum_std: 1e-2, bias_correction: false };

#[test]
fn two_hundred_steps_never_lower_the_likelihood() {
    for circuit in circuits() {
        assert_monotone(&circuit, &data(&circuit), &OPTIONS);
    }
}

#[test]
fn three_steps_do_not_depend_on_the_batch() {
    for circuit in circuits() {
        let data = data(&circuit);
        for subject in subjects() {
            let after = |batch: usize| -> Parameters {
                let mut executable = subject.backend.load(&circuit).unwrap();
                (0..3).for_each(|_| {
                    em_step(&mut *executable, &data, batch, &OPTIONS);
                });
                executable.parameters().unwrap()
            };
            let all = after(data.nrows());
            for batch in [1, 7] {
                for (a, b) in after(batch).0.iter().zip(&all.0) {
                    // Three steps carry a rounding error on.
                    assert_close("parameters", a, b, (100.0 * subject.relative, 10.0 * subject.absolute));
                }
            }
        }
    }
}

#[test]
fn equal_kernel_positions_part_when_the_data_ask_for_it() {
    let convpc = ConvPc::new(4, 4, 1, Family::bernoulli()).channels(2).depth(2).use_sum_conv(true);
    let (structure, mut parameters) = convpc.build(1).unwrap().into_parts();
    // Channel 0 of every pixel is mostly 0, channel 1 mostly 1; all positions share even weights.
    for mut leaf in parameters.0[0].outer_iter_mut() {
        leaf.indexed_iter_mut().for_each(|(at, p)| *p = if at[0] == 0 { 0.1 } else { 0.9 });
    }
    parameters.0[2].fill(0.5);
    let circuit = Circuit::new(structure, parameters).unwrap();
    // 1 at the first position of each 2×2 patch, 0 elsewhere.
    let data = Array2::from_shape_fn((20, 16), |(_, v)| f32::from(v % 2 == 0 && v / 4 % 2 == 0));
    for subject in subjects() {
        let mut executable = subject.backend.load(&circuit).unwrap();
        em_step(&mut *executable, &data, 20, &OPTIONS);
        let weights = &executable.parameters().unwrap().0[2];
        for output in 0..2 {
            for (position, expected) in [([0, 0], 0.9), ([0, 1], 0.1), ([1, 0], 0.1), ([1, 1], 0.1)] {
                // One step from even weights: the posterior of channel 1 given the pixel.
                let given = weights[[output, 1, position[0], position[1], 0]];
                let name = subject.backend.name();
                assert!((given - expected).abs() < 1e-4, "{name} {position:?}: {given} instead of {expected}");
            }
        }
    }
}

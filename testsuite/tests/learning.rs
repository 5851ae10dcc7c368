//! EM never lowers the likelihood, does not depend on batches; gradients and extremes.

use convpc::{Backend, Circuit, ConvPc, Error, Family, Leaf, Parameters, ProdConv, Reference, Structure, em};
use ndarray::{Array2, Axis, array};
use testsuite::{assert_close, assert_monotone, circuits as each_kind, downward, em_step, shifted, subjects};

fn circuits() -> Vec<Circuit> {
    let base = || ConvPc::new(4, 5, 1, Family::bernoulli()).channels(3).depth(2);
    [base(), base().use_sum_conv(true), base().repetitions(2)].map(|c| c.build(5).unwrap()).to_vec()
}

/// Stripes and their opposites, a tenth of the values missing.
fn data() -> Array2<f32> {
    let mut data = Array2::from_shape_fn((30, 20), |(row, v)| ((row * 7 + v * (1 + row % 3)) % 5 / 3) as f32);
    data.iter_mut().step_by(11).for_each(|x| *x = f32::NAN);
    data
}

const OPTIONS: em::Options = em::Options { pseudocount: 0.0, minimum_std: 0.0, bias_correction: false };

#[test]
fn two_hundred_steps_never_lower_the_likelihood() {
    for circuit in circuits() {
        assert_monotone(&circuit, &data(), &OPTIONS);
    }
}

#[test]
fn steps_are_those_of_float64() {
    for circuit in each_kind::all() {
        for subject in subjects() {
            downward::single_steps(&*subject.backend, &circuit, 3);
            downward::mini_batch_steps(&*subject.backend, &circuit);
        }
    }
}

#[test]
fn the_batch_size_does_not_matter() {
    for circuit in circuits() {
        for subject in subjects() {
            let after = |batch| -> Parameters {
                let mut executable = subject.backend.load(&circuit).unwrap();
                em_step(&mut *executable, &data(), batch, &OPTIONS);
                executable.parameters().unwrap()
            };
            let all = after(30);
            for batch in [1, 7] {
                for (a, b) in after(batch).0.iter().zip(&all.0) {
                    assert_close("parameters", a, b, (subject.relative, 10.0 * subject.relative));
                }
            }
        }
    }
}

#[test]
fn flattened_posteriors() {
    subjects().iter().for_each(downward::annealed);
}

#[test]
fn kernel_positions_of_a_sum_conv_learn_different_weights() {
    let circuit = ConvPc::new(4, 4, 1, Family::bernoulli()).channels(2).depth(2).use_sum_conv(true).build(1).unwrap();
    // Even columns are 1, odd ones random: kernel positions have different things to say.
    let data = Array2::from_shape_fn((40, 16), |(row, v)| if v % 2 == 0 { 1.0 } else { ((row >> (v / 4)) & 1) as f32 });
    for subject in subjects() {
        let mut executable = subject.backend.load(&circuit).unwrap();
        (0..20).for_each(|_| {
            em_step(&mut *executable, &data, 40, &OPTIONS);
        });
        let weights = &executable.parameters().unwrap().0[2];
        let (left, right) = (weights.clone().index_axis_move(Axis(3), 0), weights.clone().index_axis_move(Axis(3), 1));
        let difference = (left - right).mapv(f64::abs).fold(0.0, |a: f64, b| a.max(*b));
        assert!(difference > 0.05, "{}: {difference}", subject.backend.name());
    }
}

#[test]
fn gradients_equal_central_differences() {
    const H: f64 = 1e-5;
    for circuit in circuits() {
        let total = |parameters: Parameters| {
            let circuit = Circuit::new(circuit.structure().clone(), parameters).unwrap();
            Reference.load(&circuit).unwrap().log_likelihood(data().view()).unwrap().sum()
        };
        let mut executable = Reference.load(&circuit).unwrap();
        executable.accumulate(data().view()).unwrap();
        let gradient = executable.gradient().unwrap();
        for (layer, kind) in circuit.structure().layers().iter().enumerate() {
            let Some(axis) = kind.normalized_axis() else { continue };
            for lane in (0..gradient.0[layer].lanes(Axis(axis)).into_iter().count()).step_by(5) {
                let moved = |by: f64| total(shifted(&circuit, layer, lane, by));
                let difference = (moved(H) - moved(-H)) / (2.0 * H);
                let given = gradient.0[layer].lanes(Axis(axis)).into_iter().nth(lane).unwrap()[0];
                assert!((given - difference).abs() < 1e-6 * (1.0 + given.abs()), "{layer}: {given}, {difference}");
            }
        }
        // The leaves: the logit of the first pixel's first channel.
        let moved = |by: f64| {
            let mut parameters = circuit.parameters().clone();
            let p = parameters.0[0].first_mut().unwrap();
            *p = 1.0 / (1.0 + (1.0 / *p - 1.0) * (-by).exp());
            total(parameters)
        };
        let difference = (moved(H) - moved(-H)) / (2.0 * H);
        assert!((gradient.0[0].first().unwrap() - difference).abs() < 1e-6);
    }
}

/// Two pixels, two channels, sums that keep the channels apart, then an even mixture.
fn apart(family: Family, leaves: [f64; 2], std: Option<f64>) -> Circuit {
    let structure =
        Structure::builder(Leaf::new(1, 2, 1, family, 2)).sum(2).prod_conv(ProdConv::new(1, 2)).sum(1).build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    for mut leaf in parameters.0[0].outer_iter_mut() {
        leaf.indexed_iter_mut().for_each(|(at, p)| *p = if at[2] == 0 { leaves[at[0]] } else { std.unwrap() });
    }
    parameters.0[1].indexed_iter_mut().for_each(|(at, w)| *w = f64::from(u8::from(at[1] == at[2])));
    parameters.0[3].fill(0.5);
    Circuit::new(structure, parameters).unwrap()
}

#[test]
fn impossible_values_are_minus_infinity_and_gaps_survive() {
    let impossible = apart(Family::bernoulli(), [0.0, 0.0], None);
    let far = apart(Family::normal(), [0.0, 150.0], Some(1.0));
    for subject in subjects() {
        let mut executable = subject.backend.load(&impossible).unwrap();
        let ll = executable.log_likelihood(array![[1.0, 0.0], [0.0, 0.0], [f32::NAN, 1.0]].view()).unwrap();
        assert_eq!((ll[0], ll[2]), (f64::NEG_INFINITY, f64::NEG_INFINITY));
        assert!(ll[1].abs() < 1e-6);
        assert_eq!(executable.accumulate(array![[1.0, 0.0]].view()).unwrap().impossible_rows, 1);
        assert_eq!(executable.em_step(&em::Options::default()), Err(Error::NoStatistics));
        let error = executable.sample_conditional(array![[1.0, f32::NAN]].view(), 0, 0).unwrap_err();
        assert_eq!(error, Error::ImpossibleEvidence { row: 0 });

        // Each channel is 11,250 nats behind the other at one of the two pixels; the outputs keep both.
        let mut executable = subject.backend.load(&far).unwrap();
        let log_tau = (2.0 * std::f64::consts::PI).ln();
        let ll = executable.log_likelihood(array![[0.0, 150.0], [0.0, 0.0]].view()).unwrap();
        let expected = [-11_250.0 - log_tau, -log_tau - 2f64.ln()];
        assert_close(subject.backend.name(), &ll, &expected, (subject.relative, subject.absolute));
        // The first row is explained by either channel alike, each of which is far behind at one of the pixels.
        executable.accumulate(array![[0.0, 150.0]].view()).unwrap();
        let flows = executable.statistics().unwrap().counts[0].clone().index_axis_move(Axis(3), 0);
        assert_close(subject.backend.name(), &flows, &[0.5; 4], (subject.relative, 0.0));
    }
}

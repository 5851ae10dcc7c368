//! Gradients of every family on every backend, and probabilities of exactly zero.

use convpc::{Backend, Circuit, ConvPc, Family, Layer, Leaf, Mpe, Parameters, ProdConv, Reference, Structure};
use ndarray::{ArrayViewMut1, Axis, array};
use testsuite::{assert_close, subjects, upward};

/// Moves an unconstrained parameter (a logit, the mean, the log std) of one lane.
fn shift(family: Option<Family>, mut lane: ArrayViewMut1<f64>, k: usize, by: f64) {
    match family {
        Some(Family::Normal(_) | Family::DiscretizedLogistic(_)) if k == 0 => lane[0] += by,
        Some(Family::Normal(_) | Family::DiscretizedLogistic(_)) => lane[1] *= by.exp(),
        Some(Family::Bernoulli(_) | Family::Binomial(_)) => {
            lane[0] = 1.0 / (1.0 + (1.0 / lane[0] - 1.0) * (-by).exp());
        }
        _ => {
            lane[k] *= by.exp();
            let sum = lane.sum();
            lane /= sum;
        }
    }
}

#[test]
fn gradients_of_every_family_equal_central_differences() {
    const H: f64 = 1e-4;
    let circuits = [
        ConvPc::new(3, 2, 1, Family::normal()).channels(2).depth(1).use_sum_conv(true),
        ConvPc::new(2, 3, 1, Family::bernoulli()).channels(3).depth(2).repetitions(2).use_sum_conv(true),
        ConvPc::new(2, 2, 3, Family::categorical(3)).channels(2).depth(1).repetitions(3),
        ConvPc::new(3, 2, 1, Family::discretized_logistic(7)).channels(2).depth(1).repetitions(2),
        ConvPc::new(3, 3, 1, Family::binomial(4)).channels(2).depth(1).kernel_size(3),
    ];
    for (seed, convpc) in circuits.into_iter().enumerate() {
        let circuit = convpc.build(seed as u64).unwrap();
        let structure = circuit.structure();
        let mut data = Reference.load(&circuit).unwrap().sample(0..9, 3).unwrap();
        data.iter_mut().skip(1).step_by(4).for_each(|x| *x = f32::NAN);
        let gradients: Vec<Parameters> = subjects()
            .iter()
            .map(|subject| {
                let mut executable = subject.backend.load(&circuit).unwrap();
                executable.accumulate(data.view()).unwrap();
                executable.gradient().unwrap()
            })
            .collect();
        for (layer, kind) in structure.layers().iter().enumerate() {
            let (axis, family) = match kind {
                Layer::Leaf(leaf) => (Axis(3), Some(leaf.family)),
                _ => match kind.normalized_axis() {
                    Some(axis) => (Axis(axis), None),
                    None => continue,
                },
            };
            let tensor = &circuit.parameters().0[layer];
            for lane in 0..tensor.lanes(axis).into_iter().count() {
                for k in 0..tensor.len_of(axis) {
                    let moved = |by: f64| {
                        let mut parameters = circuit.parameters().clone();
                        shift(family, parameters.0[layer].lanes_mut(axis).into_iter().nth(lane).unwrap(), k, by);
                        let circuit = Circuit::new(structure.clone(), parameters).unwrap();
                        Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap().sum()
                    };
                    let expected = (moved(H) - moved(-H)) / (2.0 * H);
                    for (subject, gradient) in subjects().iter().zip(&gradients) {
                        let given = gradient.0[layer].lanes(axis).into_iter().nth(lane).unwrap()[k];
                        let slack = subject.absolute.max(1e-6) * (10.0 + expected.abs());
                        let what = format!("{} {circuit} layer {layer}, {lane}/{k}", subject.backend.name());
                        assert!((given - expected).abs() <= slack, "{what}: {given} instead of {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn zero_probabilities_never_make_nan() {
    for subject in subjects() {
        upward::zeros(&subject);
        for sum_conv in [false, true] {
            let (circuit, rows) = upward::with_zeros(3, sum_conv);
            let name = subject.backend.name();
            for (data, possible) in rows {
                let mut executable = subject.backend.load(&circuit).unwrap();
                assert_eq!(executable.sample_conditional(data.view(), 0, 0).is_ok(), possible);
                assert_eq!(executable.mpe(data.view(), Mpe::MaxProduct).is_ok(), possible);
                let seen = executable.accumulate(data.view()).unwrap();
                assert_eq!(seen.impossible_rows, u64::from(!possible));
                let statistics = executable.statistics().unwrap();
                assert!(statistics.counts.iter().flatten().all(|n| n.is_finite() && *n >= 0.0), "{name} {data}");
                assert!(executable.gradient().unwrap().0.iter().flatten().all(|g| g.is_finite()), "{name} {data}");
            }
        }
    }
}

#[test]
fn gaps_of_ten_thousand_nats_survive() {
    subjects().iter().for_each(upward::gaps);
}

/// An edge of weight 0 whose input is far above the sum's output has no flow: `0 · exp(large)` must not become NaN.
#[test]
fn flows_of_far_apart_channels_are_finite() {
    let mut wrong = vec![];
    for subject in subjects() {
        let mut executable = subject.backend.load(&upward::far_apart(142.0, 2, 1, false)).unwrap();
        executable.accumulate(array![[0.0; 6]].view()).unwrap();
        let counts = &executable.statistics().unwrap().counts;
        if !counts.iter().flatten().all(|n| n.is_finite()) || (counts[5].sum() - 1.0).abs() > 1e-3 {
            wrong.push(format!("{}: {}", subject.backend.name(), counts[5]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Counts of what has a posterior probability of 1e-12, 1e-20 and 1e-24, through a sum and through a mixture of repetitions, down to
/// the leaves.
#[test]
fn tiny_posterior_shares_are_counted_to_the_same_relative_precision() {
    let leaf = Leaf::new(1, 2, 1, Family::bernoulli(), 3).repetitions(2);
    let chain = Structure::builder(leaf).sum(3).prod_conv(ProdConv::new(1, 2)).sum(1).repetition_mixing();
    let (structure, mut parameters) = Circuit::random(chain.build().unwrap(), 3).unwrap().into_parts();
    for (layer, shares) in [(3, &[1e-12, 1e-20][..]), (4, &[1e-12])] {
        let axis = structure.layers()[layer].normalized_axis().unwrap();
        for mut weights in parameters.0[layer].lanes_mut(Axis(axis)) {
            let rest = 1.0 - shares.iter().sum::<f64>();
            weights.iter_mut().zip(shares.iter().copied().chain([rest])).for_each(|(w, share)| *w = share);
        }
    }
    let circuit = Circuit::new(structure, parameters).unwrap();
    let data = array![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [f32::NAN, 1.0]];
    let counted = |backend: &dyn Backend| {
        let mut executable = backend.load(&circuit).unwrap();
        executable.accumulate(data.view()).unwrap();
        executable.statistics().unwrap().counts
    };
    let exact = counted(&Reference);
    // The flow to the leaves of each channel and repetition, in the size that was meant.
    let flow = |channel, repetition| exact[1].index_axis(Axis(3), repetition).index_axis(Axis(2), channel).sum();
    for (channel, repetition, size) in [(0, 1, 1e-12), (1, 1, 1e-20), (2, 0, 1e-12), (0, 0, 1e-24)] {
        assert!((size / 10.0..100.0 * size).contains(&flow(channel, repetition)), "{}", flow(channel, repetition));
    }
    for subject in subjects() {
        for (layer, (given, exact)) in counted(&*subject.backend).iter().zip(&exact).enumerate() {
            // What has less than 1e-28 may count as nothing.
            let shares = given.iter().zip(exact).filter(|(_, exact)| **exact > 1e-28);
            let (given, exact): (Vec<f64>, Vec<f64>) = shares.unzip();
            assert_close(&format!("{}, layer {layer}", subject.backend.name()), &given, &exact, (1e-3, 0.0));
        }
    }
}

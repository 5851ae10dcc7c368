//! Gradients of every family on every backend, and probabilities of exactly zero.

use convpc::{
    Backend, Circuit, ConvPc, Family, Layer, Leaf, Mpe, Padding, Parameters, ProdConv, Reference, Semiring, Structure,
};
use ndarray::{Array2, ArrayViewMut1, Axis, array};
use testsuite::subjects;

/// Moves an unconstrained parameter (a logit, the mean, the log std) of one lane.
fn shift(family: Option<Family>, mut lane: ArrayViewMut1<f64>, k: usize, by: f64) {
    match family {
        Some(Family::Normal(_)) if k == 0 => lane[0] += by,
        Some(Family::Normal(_)) => lane[1] *= by.exp(),
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

/// A circuit whose leaves give 1 with probability 0 in some channels, and whose weights hold zeros.
fn with_zeros(seed: u64, sum_conv: bool) -> Circuit {
    let convpc = ConvPc::new(3, 3, 1, Family::bernoulli()).channels(3).depth(2).repetitions(2).use_sum_conv(sum_conv);
    let (structure, mut parameters) = convpc.build(seed).unwrap().into_parts();
    // Variable 0 is never 1; variable 1 is 1 in channel 2 only, and certainly so.
    parameters.0[0].index_axis_mut(Axis(0), 0).fill(0.0);
    let mut one = parameters.0[0].index_axis_mut(Axis(0), 1);
    one.fill(0.0);
    one.index_axis_mut(Axis(0), 2).fill(1.0);
    Circuit::new(structure, parameters).unwrap()
}

#[test]
fn zero_probabilities_never_make_nan() {
    let nan = f32::NAN;
    let row = |first: [f32; 2]| {
        let mut row = Array2::from_shape_fn((1, 9), |(_, v)| (v % 2) as f32);
        row[[0, 0]] = first[0];
        row[[0, 1]] = first[1];
        row
    };
    for sum_conv in [false, true] {
        let circuit = with_zeros(7, sum_conv);
        for subject in subjects() {
            let name = subject.backend.name();
            for (first, possible) in [
                ([1.0, 0.0], false),
                ([1.0, 1.0], false),
                ([1.0, nan], false),
                ([0.0, 0.0], true),
                ([0.0, 1.0], true),
                ([nan, nan], true),
            ] {
                let data = row(first);
                let mut executable = subject.backend.load(&circuit).unwrap();
                let ll = executable.log_likelihood(data.view()).unwrap()[0];
                assert!(if possible { ll.is_finite() } else { ll == f64::NEG_INFINITY }, "{name} {first:?}: {ll}");
                let expected = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap()[0];
                let near = (ll - expected).abs() <= subject.relative * expected.abs() + subject.absolute;
                assert!(near || ll == expected, "{name} {first:?}: {ll} instead of {expected}");
                for semiring in [Semiring::SumProduct, Semiring::MaxProduct] {
                    let evaluation = executable.evaluate(data.view(), semiring).unwrap();
                    for layer in 0..circuit.structure().layers().len() {
                        assert!(!evaluation.activations(layer).iter().any(|x| x.is_nan()), "{name} layer {layer}");
                    }
                    let root = evaluation.log_likelihood()[0];
                    assert_eq!(root > f64::NEG_INFINITY, possible, "{name} {semiring:?} {first:?}: {root}");
                }
                assert_eq!(executable.sample_conditional(data.view(), 0, 0).is_ok(), possible);
                assert_eq!(executable.mpe(data.view(), Mpe::MaxProduct).is_ok(), possible);
                let seen = executable.accumulate(data.view()).unwrap();
                assert_eq!(seen.impossible_rows, u64::from(!possible));
                let statistics = executable.statistics().unwrap();
                assert!(statistics.counts.iter().flatten().all(|n| n.is_finite() && *n >= 0.0), "{name} {first:?}");
                assert!(executable.gradient().unwrap().0.iter().flatten().all(|g| g.is_finite()), "{name} {first:?}");
            }
        }
    }
}

/// Channel 0 fits pixel 0 and channel 1 all pixels but 0, by far; the sums keep the channels apart up to the root, which
/// takes channel `taken` alone.
fn far_apart(mean: f64, taken: usize, sum_conv: bool) -> Circuit {
    let leaf = Leaf::new(2, 3, 1, Family::normal(), 2);
    let bottom = ProdConv::new(1, 2).padding(Padding { right: 1, ..Padding::default() });
    let chain = Structure::builder(leaf);
    let chain = if sum_conv { chain.sum_conv(2, 3) } else { chain.sum(2) };
    let chain = chain.prod_conv(bottom);
    let chain = if sum_conv { chain.sum_conv(2, 2) } else { chain.sum(2) };
    let structure = chain.prod_conv(ProdConv::new(2, 2)).sum(1).build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].indexed_iter_mut().for_each(|(at, p)| {
        *p = match (at[3], at[1]) {
            (1, _) => 1.0,
            (_, 0) => 0.0,
            _ => mean,
        }
    });
    for layer in [1, 3] {
        let (input, output) = if sum_conv { (1, 0) } else { (1, 2) };
        parameters.0[layer].indexed_iter_mut().for_each(|(at, w)| *w = f64::from(u8::from(at[input] == at[output])));
    }
    parameters.0[5].indexed_iter_mut().for_each(|(at, w)| *w = f64::from(u8::from(at[1] == taken)));
    Circuit::new(structure, parameters).unwrap()
}

#[test]
fn gaps_of_ten_thousand_nats_survive() {
    let log_tau = (2.0 * std::f64::consts::PI).ln();
    for (mean, sum_conv) in [(142.0, false), (142.0, true), (1000.0, false)] {
        let m = mean as f32;
        let data = array![[0.0, m, m, m, m, m], [0.0; 6], [m; 6], [0.0, f32::NAN, 0.0, m, 0.0, m]];
        for taken in [0, 1] {
            let circuit = far_apart(mean, taken, sum_conv);
            for subject in subjects() {
                let executable = subject.backend.load(&circuit).unwrap();
                let ll = executable.log_likelihood(data.view()).unwrap();
                for (row, ll) in data.outer_iter().zip(&ll) {
                    let seen = row.iter().filter(|x| !x.is_nan());
                    let at = if taken == 0 { 0.0 } else { mean };
                    let expected: f64 = seen.map(|&x| -0.5 * (f64::from(x) - at).powi(2) - 0.5 * log_tau).sum();
                    let near = (ll - expected).abs() <= subject.relative * expected.abs() + subject.absolute;
                    assert!(near, "{}: {ll} instead of {expected}", subject.backend.name());
                }
            }
        }
    }
}

/// An edge of weight 0 whose input is far above the sum's output has no flow: `0 · exp(large)` must not become NaN.
#[test]
fn flows_of_far_apart_channels_are_finite() {
    let mut wrong = vec![];
    for subject in subjects() {
        let mut executable = subject.backend.load(&far_apart(142.0, 1, false)).unwrap();
        executable.accumulate(array![[0.0; 6]].view()).unwrap();
        let counts = &executable.statistics().unwrap().counts;
        if !counts.iter().flatten().all(|n| n.is_finite()) || (counts[5].sum() - 1.0).abs() > 1e-3 {
            wrong.push(format!("{}: {}", subject.backend.name(), counts[5]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

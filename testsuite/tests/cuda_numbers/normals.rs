//! Normal leaves: means far from zero, deviations of any size, and values too far for f32.

use convpc::{Backend, Circuit, ConvPc, Family, Mpe, Normal, Precision, Reference, Semiring, Statistics};
use insta::assert_snapshot;
use ndarray::{Array2, Axis};
use testsuite::{
    assert_close,
    software::{device, subject},
    upward,
};

use crate::{CLOSE, agrees, exact_step, load, row_of};

/// A mean rounded to f32 is off by many standard deviations.
#[test]
fn means_far_from_zero() {
    let _device = device();
    for (mean, std) in [(1000.13, 0.05), (40000.3, 0.5), (40000.3, 1e-3), (-1_000_000.3, 0.02), (100_000.1, 1.0)] {
        for (channels, sums) in [(2, 0), (3, 2), (9, 20)] {
            let leaf = |variable: usize, channel: usize| {
                vec![mean + std * (0.9 * channel as f64 - variable as f64), std * (1.0 + 0.1 * channel as f64)]
            };
            let circuit = row_of(Family::normal(), 2, channels, sums, leaf);
            let data = Array2::from_shape_fn((20, 2), |(row, v)| {
                (mean + std * (((row * 7 + v * 5) % 11) as f64 * 0.5 - 2.0)) as f32
            });
            agrees(&circuit, &data);
            // What a step writes is what is loaded.
            let mut stepped = load(&circuit);
            stepped.accumulate(data.view()).unwrap();
            stepped.em_step(&exact_step(1e-3)).unwrap();
            let exact = Reference.load(&stepped.circuit().unwrap()).unwrap().log_likelihood(data.view()).unwrap();
            assert_close("after a step", &stepped.log_likelihood(data.view()).unwrap(), &exact, CLOSE);
        }
    }
}

/// Coefficients at the limits of deviations and means, and values at the limit.
#[test]
fn tiny_and_huge_deviations() {
    let _device = device();
    let most = Normal::LARGEST;
    let cases = [
        (0.0, 1e-30, [0.0, 1e-30, -3e-30, 1e-27]),
        (1e-20, 1e-30, [1e-20, 1e-20, 1e-20, 1e-20]),
        (0.0, 1e30, [0.0, 1.0, -3e30, 1e33]),
        (1e33, 1e30, [1e33, 1.001e33, 0.99e33, 0.0]),
        (0.0, most, [0.0, 1e38, -8e37, 1e30]),
        (most, most, [0.0, 1e38, -1e38, 8e37]),
        (most, 1e35, [1e38, 9.99e37, 9.9e37, 9e37]),
        (1.0, 1e-10, [1.0, 1.0, f32::NAN, 1.1]),
        (0.0, 1.0, [1e5, -1e9, 1e15, 1e19]),
    ];
    for (mean, std, data) in cases {
        for (channels, sums) in [(1, 0), (2, 2), (9, 20)] {
            // Wider ones do not exist at the upper limit, narrower ones not at the lower.
            let scale = |channel| if std > 1.0 { 1.0 / (1.0 + channel as f64) } else { 1.0 + channel as f64 };
            let circuit = row_of(Family::normal(), 1, channels, sums, |_, channel| vec![mean, std * scale(channel)]);
            let far = |x: f32| (f64::from(x) - mean).abs() > 1e4 * std;
            let all = Array2::from_shape_vec((4, 1), data.to_vec()).unwrap();
            upward::against_float64(&subject(Precision::F32), &circuit, &all);
            // Shares of log-likelihoods beyond 1e8 nats have no digits left, in float64 either.
            agrees(&circuit, &all.mapv(|x| if far(x) { f32::NAN } else { x }));
        }
    }
}

fn refused<T>(result: convpc::Result<T>) -> String {
    result.err().expect("a value too far for f32 is refused").to_string()
}

/// The square of a distance above 1.8e19 standard deviations is infinite in f32; a Normal circuit has no row of probability zero.
#[test]
fn values_too_far_are_refused() {
    let _device = device();
    let circuit = ConvPc::new(1, 3, 1, Family::normal()).channels(9).depth(1).num_classes(2).build(3).unwrap();
    let mut data = Array2::zeros((5000, 3));
    data[[4321, 1]] = 1e30_f32;
    let labels: Vec<usize> = (0..5000).map(|row| row % 2).collect();
    let mut executable = load(&circuit);
    assert_snapshot!(refused(executable.log_likelihood(data.view())), @"row 4321: a value is more than about 1e19 standard deviations from the leaves, beyond the range of float32; take the row out, learn with a larger minimum_std, or use the backend reference");
    let row = |text: String| assert!(text.contains("row 4321:") && text.contains("backend reference"), "{text}");
    row(refused(executable.class_log_likelihood(data.view())));
    row(refused(executable.accumulate(data.view())));
    row(refused(executable.accumulate_labeled(data.view(), &labels)));
    row(refused(executable.sample_conditional(data.view(), 1, 0)));
    for method in [Mpe::Greedy, Mpe::MaxProduct] {
        row(refused(executable.mpe(data.view(), method)));
    }
    for semiring in [Semiring::SumProduct, Semiring::MaxProduct] {
        row(refused(executable.evaluate(data.view(), semiring)));
    }
    // The largest value too.
    row(refused(executable.log_likelihood(data.mapv(|x| if x > 0.0 { 1e38 } else { x }).view())));
    // After a refusal all goes on as if nothing had been there.
    let (near, labels) = (data.slice_axis(Axis(0), (0..40).into()).to_owned(), &labels[..40]);
    let [mut given, mut exact] = [executable, Reference.load(&circuit).unwrap()];
    assert_eq!(given.statistics().unwrap(), Statistics::zeros(circuit.structure()));
    given.accumulate_labeled(near.view(), labels).unwrap();
    given.accumulate(data.view()).unwrap_err();
    assert_eq!(given.statistics().unwrap(), Statistics::zeros(circuit.structure()));
    for executable in [&mut given, &mut exact] {
        executable.accumulate_labeled(near.view(), labels).unwrap();
    }
    let [given, exact] = [given, exact].map(|e| e.statistics().unwrap());
    assert_eq!(given.rows, 40);
    given.counts.iter().zip(&exact.counts).for_each(|(a, b)| assert_close("counts", a, b, CLOSE));
}

/// A class of prior probability zero is truly impossible.
#[test]
fn impossible_classes_of_normal_circuits_are_no_error() {
    let _device = device();
    let convpc = ConvPc::new(1, 3, 1, Family::normal()).channels(3).depth(1).num_classes(2);
    let (structure, mut parameters) = convpc.build(3).unwrap().into_parts();
    parameters.0.last_mut().unwrap().iter_mut().zip([1.0, 0.0]).for_each(|(w, v)| *w = v);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let seen = load(&circuit).accumulate_labeled(Array2::zeros((4, 3)).view(), &[0, 1, 1, 0]).unwrap();
    assert_eq!((seen.rows, seen.impossible_rows), (4, 2));
}

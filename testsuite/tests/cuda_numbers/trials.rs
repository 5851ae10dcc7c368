//! Binomial leaves of many trials.

use convpc::{Backend, CudaBackend, Family, Mpe, Precision, Reference};
use insta::assert_snapshot;
use ndarray::{Array2, array};
use testsuite::{
    assert_close, downward, sampling,
    software::{device, subject},
    upward,
};

use crate::{CLOSE, both, exact_step, load, row_of, rules, steps_agree};

/// The log-density of many trials is a small difference of large numbers.
#[test]
fn binomials_of_many_trials() {
    let _device = device();
    for trials in [1, 255, 1000, 65535, 262_144] {
        for (channels, sums) in [(2, 0), (3, 2), (9, 20)] {
            let leaf = |variable: usize, channel: usize| vec![0.5 - 0.013 * variable as f64 + 0.001 * channel as f64];
            let circuit = row_of(Family::binomial(trials), 2, channels, sums, leaf);
            let n = trials as f64;
            let data = Array2::from_shape_fn((24, 2), |(row, _)| {
                (n * 0.5 + n.sqrt() * (row as f64 * 0.25 - 3.0)).round().clamp(0.0, n) as f32
            });
            let mut all = data.clone();
            (all[[3, 0]], all[[4, 1]], all[[5, 0]]) = (0.0, trials as f32, f32::NAN);
            let subject = subject(Precision::F32);
            upward::against_float64(&subject, &circuit, &all);
            downward::against_float64(&subject, &circuit, &data);
            let [given, exact] = both(&circuit).map(|e| e.mpe(data.view(), Mpe::MaxProduct).unwrap());
            assert_eq!(sampling::different(&given, &exact), 0, "{trials} trials");
            // Adam divides gradients that are rounding errors by their size.
            steps_agree(&circuit, &data, &rules(1e-3)[..4], (1e-5, 1e-6));
            // What a step writes is what is loaded.
            let mut stepped = load(&circuit);
            stepped.accumulate(data.view()).unwrap();
            stepped.em_step(&exact_step(1e-3)).unwrap();
            let anew = stepped.circuit().unwrap();
            let exact = Reference.load(&anew).unwrap().log_likelihood(data.view()).unwrap();
            assert_close("after a step", &stepped.log_likelihood(data.view()).unwrap(), &exact, CLOSE);
        }
    }
}

/// Where the probability is 0 or 1 only one value is possible, however many trials.
#[test]
fn certain_binomials_of_many_trials() {
    let _device = device();
    let circuit = row_of(Family::binomial(60000), 2, 2, 2, |_, channel| vec![channel as f64]);
    let data = array![[0.0, 60000.0], [60000.0, 60000.0], [0.0, f32::NAN], [1.0, 0.0]];
    upward::against_float64(&subject(Precision::F32), &circuit, &data);
    downward::against_float64(&subject(Precision::F32), &circuit, &data);
    let circuit = row_of(Family::binomial(262_145), 2, 2, 2, |_, _| vec![0.5]);
    assert_snapshot!(CudaBackend::new(0).unwrap().load(&circuit).err().unwrap(), @"backend cuda: binomial leaves of 262145 trials are not supported on cuda, which is exact to 262144 trials at most: use fewer levels, or choose the backend cpu");
}

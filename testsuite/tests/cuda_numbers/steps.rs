//! Steps from data that are far from the model or always the same, and at the limits of parameters.

use convpc::{Adam, ConvPc, Family, Normal, OptimizerState, Rule};
use ndarray::{Array2, array};
use testsuite::{assert_close, software::device};

use crate::{both, exact_step, load, row_of, rules, steps_agree};

/// A mean and deviation that are far from the data: sums of z² in f32 would leave nothing of the variance.
#[test]
fn data_far_from_the_model() {
    let _device = device();
    let circuit = row_of(Family::normal(), 1, 1, 0, |_, _| vec![0.0, 1.0]);
    let far = |base: f32| Array2::from_shape_fn((210, 1), |(row, _)| base + (row % 7) as f32);
    let half = Array2::from_shape_fn((210, 1), |(row, _)| if row % 2 == 0 { (row % 3) as f32 } else { 3e4 });
    let long = Array2::from_shape_fn((210, 1), |(row, _)| if row < 200 { 30000.0 + (row % 5) as f32 } else { 1e12 });
    for data in [far(30000.0), far(1000.0), far(-1e6), half, long] {
        let [given, exact] = both(&circuit).map(|mut executable| {
            executable.accumulate(data.view()).unwrap();
            executable.em_step(&exact_step(1e-3)).unwrap();
            executable.parameters().unwrap()
        });
        // Of a mean square of 1e12 float64 has 1e-4 left.
        assert_close("mean and deviation", &given.0[0], &exact.0[0], (1e-4, 0.0));
    }
    let step = |data: &Array2<f32>| {
        let mut executable = load(&circuit);
        executable.accumulate(data.view()).unwrap();
        executable.em_step(&exact_step(1e-3)).unwrap();
        executable.parameters().unwrap().0[0].iter().copied().collect::<Vec<f64>>()
    };
    assert_close("mean and deviation", &step(&far(30000.0)), &[30003.0, 2.0], (1e-6, 0.0));
}

/// A pixel that is always the same, with no smallest deviation asked for.
#[test]
fn constant_pixels_without_a_smallest_deviation() {
    let _device = device();
    for (channels, sums) in [(1, 0), (3, 2), (9, 20)] {
        let leaf = |variable: usize, channel: usize| vec![0.3 * channel as f64 - variable as f64, 1.0];
        let circuit = row_of(Family::normal(), 2, channels, sums, leaf);
        let data = Array2::from_shape_fn((12, 2), |(row, v)| if v == 0 { 5.0 } else { (row % 4) as f32 });
        for rule in rules(0.0) {
            let mut executable = load(&circuit);
            let mut last = f64::NEG_INFINITY;
            for step in 0..12 {
                let seen = executable.accumulate(data.view()).unwrap();
                executable.update(&rule, 1.0, &mut OptimizerState::default()).unwrap();
                let what = format!("step {step} of {rule:?}, {channels} channels: {last} then {}", seen.log_likelihood);
                assert!(seen.log_likelihood.is_finite() && seen.impossible_rows == 0, "{what}");
                if matches!(rule, Rule::Em(_)) {
                    assert!(seen.log_likelihood >= last - 1e-3 - 1e-5 * last.abs(), "{what}");
                }
                last = seen.log_likelihood;
            }
            let parameters = executable.parameters().unwrap();
            assert!(parameters.0.iter().flatten().all(|p| p.is_finite()), "{rule:?}: {parameters:?}");
        }
        // A deviation of zero is one of rounding errors after the first step.
        if channels == 1 {
            steps_agree(&circuit, &data, &rules(0.0), (1e-5, 1e-3));
        }
    }
}

/// Steps stop at the limits of core, and Adam's errors are core's.
#[test]
fn steps_stay_within_the_limits() {
    let _device = device();
    let circuit = row_of(Family::normal(), 1, 1, 0, |_, _| vec![1.0, 1e-30]);
    steps_agree(&circuit, &array![[1.0], [1.0], [1.0]], &rules(0.0), (1e-6, 0.0));
    let circuit = row_of(Family::normal(), 1, 1, 0, |_, _| vec![Normal::LARGEST, 1e37]);
    steps_agree(&circuit, &array![[1e38], [1e38], [9e37]], &rules(0.0), (1e-6, 0.0));
    steps_agree(&circuit, &array![[1e38], [1e38], [9e37]], &rules(1e300), (1e-6, 0.0));
    let adam = Rule::Adam(Adam { minimum_std: 0.0, ..Adam::default() });
    for (step, data) in [(1e300, 0.0), (100.0, 9e37), (800.0, 9e37)] {
        let [given, exact] = both(&circuit).map(|mut executable| {
            executable.accumulate(array![[data as f32]].view()).unwrap();
            let stepped = executable.update(&adam, step, &mut OptimizerState::default());
            stepped.map(|()| executable.parameters().unwrap()).map_err(|error| error.to_string())
        });
        match (given, exact) {
            (Ok(given), Ok(exact)) => assert_close("Adam", &given.0[0], &exact.0[0], (1e-6, 0.0)),
            (Err(given), Err(exact)) => {
                // But for the last digits of the mean.
                let start = |text: &str| text[..text.find("mean").expect("a mean") + 8].to_string();
                assert_eq!(start(&given), start(&exact), "step {step}");
            }
            (given, exact) => panic!("step {step}: {given:?} instead of {exact:?}"),
        }
    }
}

/// Counts of leaves and weights that all pixels share, over many of them and many rows, go on growing: no sum of many terms is
/// left to f32.
#[test]
fn counts_of_shared_parameters_on_large_images() {
    let _device = device();
    let convpc = ConvPc::new(64, 64, 1, Family::categorical(2)).channels(1).leaf_channels(2).depth(1).kernel_size(64);
    let circuit = convpc.use_sum_conv(true).shared_leaves(true).build(1).unwrap();
    let data = Array2::from_shape_fn((64, 4096), |(row, v)| f32::from(u8::from((row * 31 + v * 17) % 10 == 0)));
    let [given, exact] = both(&circuit).map(|mut executable| {
        executable.accumulate(data.view()).unwrap();
        executable.statistics().unwrap().counts
    });
    given.iter().zip(&exact).for_each(|(a, b)| assert_close("counts", a, b, (2e-6, 1e-4)));
}

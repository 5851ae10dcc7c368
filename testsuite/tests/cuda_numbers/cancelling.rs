//! Large log-densities of both signs, whose sum is near zero: narrow Normal leaves, and values that are far from some of them.

use convpc::{Backend, Circuit, ConvPc, CudaBackend, Family, Limits, Normal, Precision, Reference, Semiring};
use ndarray::{Array2, Axis};
use testsuite::{
    assert_close, downward, sampling,
    software::{device, subject},
    upward,
};

use crate::{CLOSE, both, load};

/// Replaces the leaves' parameters; `leaf(channel)` are mean and standard deviation.
fn with_leaves(convpc: ConvPc, leaf: impl Fn(usize) -> [f64; 2]) -> Circuit {
    let (structure, mut parameters) = convpc.build(4).unwrap().into_parts();
    let channels = structure.shape(0).channels;
    for (at, mut to) in parameters.0[0].lanes_mut(Axis(3)).into_iter().enumerate() {
        let repetitions = structure.shape(0).repetitions;
        to.iter_mut().zip(leaf(at / repetitions % channels)).for_each(|(to, from)| *to = from);
    }
    Circuit::new(structure, parameters).unwrap()
}

/// Log-likelihoods of all rows together, of each alone, and of both semirings with every layer kept, against float64.
fn assert_contract(circuit: &Circuit, data: &Array2<f32>) {
    let [given, exact] = both(circuit);
    let expected = exact.log_likelihood(data.view()).unwrap().to_vec();
    assert_close("together", &given.log_likelihood(data.view()).unwrap(), &expected, CLOSE);
    // As many levels in a launch as there is room for.
    let limits = Limits { multiprocessors: 1, shared_memory: 227 * 1024 };
    let fused = CudaBackend::new(0).unwrap().with_limits(limits).load(circuit).unwrap();
    assert_close("fused", &fused.log_likelihood(data.view()).unwrap(), &expected, CLOSE);
    for (row, expected) in data.axis_chunks_iter(Axis(0), 1).zip(&expected) {
        assert_close("alone", &given.log_likelihood(row).unwrap(), [expected], CLOSE);
    }
    for semiring in [Semiring::SumProduct, Semiring::MaxProduct] {
        let [given, exact] = [&given, &exact].map(|e| e.evaluate(data.view(), semiring).unwrap().log_likelihood());
        assert_close("every layer kept", &given, &exact, CLOSE);
    }
}

/// Rows whose outliers cost about as much as all other pixels gain.
fn with_outliers(circuit: &Circuit, mean: f64, std: f64) -> Array2<f32> {
    let mut data = Array2::from_elem((6, circuit.variables()), mean as f32);
    let at_mean = Reference.load(circuit).unwrap().log_likelihood(data.view()).unwrap()[0];
    for (k, mut row) in data.outer_iter_mut().enumerate() {
        let (wanted, outliers) = (at_mean + k as f64 * 0.7, 1 + 3 * (k % 2));
        for outlier in 0..outliers {
            row[outlier * 37] = (mean + std * (2.0 * wanted / outliers as f64).sqrt()) as f32;
        }
    }
    data
}

/// One pixel's large negative log-density cancels many positive ones.
#[test]
fn outliers_among_narrow_distributions() {
    let _device = device();
    for (side, std, depth, colors, channels) in
        [(16, 1e-3, 2, 1, 2), (28, 1e-3, 1, 1, 9), (28, 1e-3, 4, 3, 2), (28, 1e-6, 3, 1, 2), (32, 1e-2, 3, 1, 9)]
    {
        let convpc = ConvPc::new(side, side, colors, Family::normal()).channels(channels).depth(depth);
        let circuit = with_leaves(convpc, |_| [0.1, std]);
        assert_contract(&circuit, &with_outliers(&circuit, 0.1, std));
    }
}

/// Channels that differ by less than floats tell apart, and an outlier so far away that the difference matters: the most probable
/// channel in f32 is not the most probable one.
#[test]
fn the_most_probable_channel_of_an_outlier_is_not_that_of_f32() {
    let _device = device();
    for difference in [1e-8, -1e-8] {
        for (channels, depth) in [(2, 1), (9, 1), (9, 4), (40, 3)] {
            let convpc = ConvPc::new(28, 28, 1, Family::normal()).channels(channels).depth(depth);
            let circuit = with_leaves(convpc, |channel| [0.0, 1e-20 * (1.0 + difference * channel as f64)]);
            assert_contract(&circuit, &with_outliers(&circuit, 0.0, 1e-20));
        }
    }
}

/// Every pixel is a few deviations off, so that its own negative part cancels its positive one. A rounding error that all
/// pixels share would add up.
#[test]
fn every_pixel_is_off_by_as_much_as_it_gains() {
    let _device = device();
    for std in [1e-2, 1e-7, 1.3e-7, Normal::SMALLEST_STD] {
        for channels in [2, 9] {
            let convpc = ConvPc::new(28, 28, 1, Family::normal()).channels(channels).depth(4);
            let circuit = with_leaves(convpc, |channel| [0.0, std * (1.0 + 0.01 * channel as f64)]);
            let gain = -std.ln() - 0.5 * std::f64::consts::TAU.ln();
            let data = Array2::from_shape_fn((3, 784), |(row, _)| {
                (std * (2.0 * gain + 0.002 * (row as f64 - 1.0)).sqrt()) as f32
            });
            assert_contract(&circuit, &data);
        }
    }
}

/// A mixture of two narrow distributions, and a value in the middle, far from both: their difference decides.
#[test]
fn values_between_two_narrow_distributions() {
    let _device = device();
    for (std, side, depth) in [(1e-2, 16, 4), (3e-3, 8, 3), (1e-3, 16, 2), (1e-2, 12, 1)] {
        for channels in [2, 10] {
            let convpc = ConvPc::new(side, side, 1, Family::normal()).channels(channels).depth(depth);
            let circuit = with_leaves(convpc, |channel| [(channel % 2) as f64, std * (1.0 + 0.001 * channel as f64)]);
            let mut data = Array2::from_shape_fn((5, side * side), |(row, v)| ((row * 5 + v * 3) % 7 / 4) as f32);
            for (row, mut values) in data.outer_iter_mut().enumerate() {
                for k in 0..2 {
                    values[(row * 11 + 17 * k) % (side * side)] = 0.5 + 1e-5 * (row as f32 - 2.0);
                }
            }
            assert_contract(&circuit, &data);
            let subject = subject(Precision::F32);
            downward::against_float64(&subject, &circuit, &data);
        }
    }
}

/// In every precision, with activations, counts, completions, repetitions that are shifted, missing values and classes.
#[test]
fn every_query_of_narrow_distributions() {
    let _device = device();
    let base = ConvPc::new(6, 5, 1, Family::normal()).depth(2);
    let circuits = [
        base.clone().channels(3).repetitions(2),
        base.clone().channels(10).shifts([(-1, 0), (1, 1)]),
        base.clone().channels(9).use_sum_conv(true).shared_leaves(true),
        base.channels(9).num_classes(2),
    ];
    for convpc in circuits {
        let circuit = with_leaves(convpc, |channel| [(channel % 3) as f64, 1e-3 * (1.0 + 0.01 * channel as f64)]);
        let mut data = Reference.load(&circuit).unwrap().sample(0..20, 3).unwrap();
        data.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
        data.iter_mut().skip(4).step_by(31).for_each(|x| *x += 0.1);
        for precision in Precision::ALL {
            upward::against_float64(&subject(precision), &circuit, &data);
        }
        let subject = subject(Precision::F32);
        downward::against_float64(&subject, &circuit, &data);
        let [given, exact] = both(&circuit).map(|e| e.sample_conditional(data.view(), 3, 0).unwrap());
        assert_eq!(sampling::different(&given, &exact), 0);
    }
}

/// What a step writes is what is loaded, peaks included.
#[test]
fn steps_to_narrow_distributions() {
    let _device = device();
    let convpc = ConvPc::new(8, 8, 1, Family::normal()).channels(9).depth(3);
    let circuit = with_leaves(convpc, |channel| [0.1 * channel as f64, 1.0]);
    let data = Array2::from_shape_fn((12, 64), |(row, v)| 0.1 + 1e-4 * ((row * 5 + v) % 11) as f32);
    let mut stepped = load(&circuit);
    for _ in 0..4 {
        stepped.accumulate(data.view()).unwrap();
        stepped.em_step(&crate::exact_step(1e-6)).unwrap();
    }
    let mut far = data;
    far.iter_mut().step_by(64).for_each(|x| *x += 0.01);
    let exact = Reference.load(&stepped.circuit().unwrap()).unwrap().log_likelihood(far.view()).unwrap();
    assert_close("after steps", &stepped.log_likelihood(far.view()).unwrap(), &exact, CLOSE);
}

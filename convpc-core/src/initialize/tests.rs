use ndarray::Array2;

use super::*;
use crate::{Circuit, ConvPc, Family};

#[test]
fn parameters_that_fit_into_no_memory_are_an_error() {
    // 2^58 weights can be counted, and are more than a machine has room for.
    let structure = ConvPc::new(2, 2, 1, Family::normal()).channels(1 << 28).depth(1).structure().unwrap();
    assert_eq!(Circuit::random(structure, 1), Err(Error::TooLarge { what: "the number of parameters" }));
}

#[test]
fn weights_have_the_moments_of_the_dirichlet_distribution() {
    let structure = ConvPc::new(1, 2, 1, Family::bernoulli()).channels(4000).leaf_channels(5).structure().unwrap();
    for concentration in [0.2, 1.0, 1.5, 4.5] {
        let parameters = random(&structure, concentration, 3);
        let w = &parameters.0[2];
        assert_eq!(w.shape()[1..], [5, 4000, 1]);
        let n = w.len() as f64;
        // Of k = 5 shares: mean 1/k, variance (k − 1) / (k² (k α + 1)).
        let variance = 4.0 / (25.0 * (5.0 * concentration + 1.0));
        let second = w.iter().map(|w| (w - 0.2) * (w - 0.2)).sum::<f64>() / n;
        assert!((second / variance - 1.0).abs() < 0.05, "{concentration}: {second} {variance}");
        // The third moment of one share, E[w³] = α (α + 1) (α + 2) / (k α (k α + 1) (k α + 2)).
        let (a, total) = (concentration, 5.0 * concentration);
        let expected = a * (a + 1.0) * (a + 2.0) / (total * (total + 1.0) * (total + 2.0));
        let third = w.iter().map(|w| w.powi(3)).sum::<f64>() / n;
        assert!((third / expected - 1.0).abs() < 0.05, "{concentration}: {third} {expected}");
    }
}

#[test]
fn histograms_are_those_of_the_pixels_times_noise() {
    // Values 0, 1 and 2 of four; a pixel never seen.
    let data = Array2::from_shape_fn((90, 3), |(row, v)| [(row % 3) as f32, (row % 2) as f32, f32::NAN][v]);
    let convpc = ConvPc::new(1, 3, 1, Family::categorical(4)).channels(200).depth(2);
    let begin = |noise| Initialization { leaves: LeafInitialization::Histogram { noise }, concentration: 1.0 };
    let of = |convpc: &ConvPc, noise| begin(noise).circuit(convpc.structure().unwrap(), data.view(), 3).unwrap();
    let exact = of(&convpc, 0.0);
    let expected = [[30.1, 30.1, 30.1, 0.1].map(|n| n / 90.4), [45.1, 45.1, 0.1, 0.1].map(|n| n / 90.4), [0.25; 4]];
    for (pixel, expected) in expected.iter().enumerate() {
        let given = exact.leaf_parameters(pixel, 7, 0);
        assert!(given.iter().zip(expected).all(|(p, e)| (p - e).abs() < 1e-12), "{given:?}");
    }
    let shared = of(&convpc.clone().shared_leaves(true), 0.0);
    let pooled = [75.1, 75.1, 30.1, 0.1].map(|n| n / 180.4);
    assert!(shared.leaf_parameters(2, 7, 0).iter().zip(pooled).all(|(p, e)| (p - e).abs() < 1e-12));
    // The logarithm of the ratio of two values is that of their counts and two independent draws of noise.
    let noisy = of(&convpc, 0.7);
    let ratios: Vec<f64> = (0..200).map(|c| noisy.leaf_parameters(0, c, 0)).map(|p| (p[0] / p[1]).ln()).collect();
    let mean = ratios.iter().sum::<f64>() / 200.0;
    let std = (ratios.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / 200.0).sqrt();
    assert!(mean.abs() < 0.25 && (std - 0.7 * 2_f64.sqrt()).abs() < 0.15, "{mean} {std}");
    assert_eq!(noisy, of(&convpc, 0.7), "a function of the seed");
}

#[test]
fn windows_are_spread_over_the_values() {
    // Every value as often as any other.
    let data = Array2::from_shape_fn((40, 2), |(row, _)| (row % 8) as f32);
    let structure = ConvPc::new(1, 2, 1, Family::categorical(8)).leaf_channels(4).depth(1).structure().unwrap();
    let leaves = LeafInitialization::Windows { noise: 0.0, width: 0.125 };
    let circuit = Initialization { leaves, concentration: 1.0 }.circuit(structure, data.view(), 3).unwrap();
    for (channel, centre) in [0.5, 2.5, 4.5, 6.5].into_iter().enumerate() {
        let weight = |value: usize| 1e-3 + (-0.5 * (value as f64 - centre) * (value as f64 - centre)).exp();
        let total: f64 = (0..8).map(weight).sum();
        let given = circuit.leaf_parameters(1, channel, 0);
        assert!((0..8).all(|value| (given[value] - weight(value) / total).abs() < 1e-12), "{given:?}");
    }
}

#[test]
fn what_cannot_begin_so_is_refused() {
    let data = Array2::zeros((3, 1));
    let structure = ConvPc::new(1, 1, 1, Family::normal()).channels(2).structure().unwrap();
    let with = |leaves, concentration| {
        let begin = Initialization { leaves, concentration };
        begin.circuit(structure.clone(), data.view(), 1).map_err(|error| error.to_string())
    };
    let histogram = |noise| LeafInitialization::Histogram { noise };
    let refused = [
        with(LeafInitialization::Rows, 0.0),
        with(LeafInitialization::Random, f64::NAN),
        with(histogram(-1.0), 1.0),
        with(LeafInitialization::Windows { noise: 1.0, width: 0.0 }, 1.0),
        with(histogram(1.0), 1.0),
    ];
    for (given, expected) in refused.into_iter().zip(["concentration", "concentration", "noise", "width", "normal"]) {
        let error = given.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(with(LeafInitialization::Random, 2.0).is_ok());
}

#[test]
fn fitted_leaves_are_near_the_data_differ_between_channels_and_agree_between_pixels() {
    let circuit = ConvPc::new(2, 2, 1, Family::normal()).channels(4).build(0).unwrap();
    // The same value at all pixels of a row, 100 to 139.
    let data = Array2::from_shape_fn((40, 4), |(row, _)| 100.0 + row as f32);
    let fitted = fit_leaves(&circuit, data.view(), 5).unwrap();
    let mean = |pixel, channel| fitted.leaf_parameters(pixel, channel, 0)[0];
    for channel in 0..4 {
        assert!((100.0..139.0).contains(&mean(0, channel)));
        assert!((1..4).all(|pixel| (mean(pixel, channel) - mean(0, channel)).abs() < 1e-9));
        assert!((0..channel).all(|other| (mean(0, channel) - mean(0, other)).abs() > 0.1));
    }
    assert_eq!(fitted.parameters().0[2], circuit.parameters().0[2], "the sums stay as they are");
}

#[test]
fn tables_of_few_parameters_are_fitted_to_the_histogram_and_the_noise_is_on_the_parameters() {
    // A triangle around 100.
    let data = Array2::from_shape_fn((400, 2), |(row, _)| (90 + row % 11 + row / 11 % 11) as f32);
    let structure = ConvPc::new(1, 2, 1, Family::discretized_logistic(256)).channels(300).depth(1).structure().unwrap();
    let of = |leaves| Initialization { leaves, concentration: 1.0 }.circuit(structure.clone(), data.view(), 3).unwrap();
    let exact = of(LeafInitialization::Histogram { noise: 0.0 });
    let [mean, scale] = [0, 1].map(|k| exact.leaf_parameters(1, 7, 0)[k]);
    // What was not seen counts a tenth, in the middle of all values, and widens the tails.
    assert!((mean - 100.0).abs() < 1.0 && (2.0..6.0).contains(&scale), "{mean} {scale}");
    let noisy = of(LeafInitialization::Histogram { noise: 0.4 });
    for (k, centre) in [(0, mean / scale), (1, scale.ln())] {
        let value = |c: usize| noisy.leaf_parameters(0, c, 0)[k];
        let values: Vec<f64> = (0..300).map(value).map(|x| if k == 0 { x / scale } else { x.ln() }).collect();
        let average = values.iter().sum::<f64>() / 300.0;
        let std = (values.iter().map(|v| (v - average) * (v - average)).sum::<f64>() / 300.0).sqrt();
        assert!((average - centre).abs() < 0.08 && (std - 0.4).abs() < 0.06, "{k}: {average} {centre} {std}");
    }
    let rows = of(LeafInitialization::Rows);
    let means: Vec<f64> = (0..300).map(|c| rows.leaf_parameters(0, c, 0)[0]).collect();
    let near = means.iter().filter(|m| (**m - 100.0).abs() < 5.0).count();
    assert!(near > 270 && means.windows(2).all(|w| w[0] != w[1]), "{near}");
    // Every value as often as any other: the means follow the windows.
    let even = Array2::from_shape_fn((512, 2), |(row, _)| (row % 256) as f32);
    let leaves = LeafInitialization::Windows { noise: 0.0, width: 0.02 };
    let windows = Initialization { leaves, concentration: 1.0 }.circuit(structure.clone(), even.view(), 3).unwrap();
    for c in 20..280 {
        let [mean, scale] = [0, 1].map(|k| windows.leaf_parameters(1, c, 0)[k]);
        let centre = (c as f64 + 0.5) / 300.0 * 256.0 - 0.5;
        assert!((mean - centre).abs() < 2.0 && (2.0..5.0).contains(&scale), "{c}: {mean} {centre} {scale}");
    }
}

/// Two purposes that share a counter would share their random numbers.
#[test]
fn no_counter_is_used_twice() {
    let data = Array2::from_shape_fn((30, 24), |(row, v)| ((row * 7 + v * (1 + row % 3)) % 5) as f32);
    let leaves = [
        LeafInitialization::Random,
        LeafInitialization::Rows,
        LeafInitialization::Clusters { patch: 2 },
        LeafInitialization::Histogram { noise: 0.5 },
        LeafInitialization::Windows { noise: 0.5, width: 0.2 },
    ];
    for family in [Family::categorical(5), Family::discretized_logistic(5), Family::normal(), Family::binomial(4)] {
        for (leaves, shared) in leaves.into_iter().flat_map(|leaves| [(leaves, false), (leaves, true)]) {
            let convpc = ConvPc::new(4, 3, 2, family).channels(3).depth(2).repetitions(2);
            let structure = convpc.shared_leaves(shared).structure().unwrap();
            let begin = Initialization { leaves, concentration: 1.5 };
            let mut built = true;
            let counters = rng::recording::counters(|| built = begin.circuit(structure, data.view(), 3).is_ok());
            let mut seen = std::collections::HashSet::new();
            let twice: Vec<_> = counters.iter().filter(|counter| !seen.insert(**counter)).collect();
            assert!(twice.is_empty(), "{} {leaves:?} {shared}: {} such as {:?}", family.name(), twice.len(), twice[0]);
            assert!(!built || !counters.is_empty());
        }
    }
    let circuit = ConvPc::new(4, 3, 2, Family::normal()).channels(3).depth(2).build(3).unwrap();
    let both = rng::recording::counters(|| {
        let again = Circuit::random(circuit.structure().clone(), 3).unwrap();
        fit_leaves(&again, data.view(), 3).unwrap();
    });
    let distinct: std::collections::HashSet<_> = both.iter().collect();
    assert_eq!(distinct.len(), both.len(), "leaves that are fitted to a circuit of the same seed");
}

/// Time that grows with the square of the pixels would be more than a minute here.
#[test]
fn leaves_of_large_images_are_fitted_in_time_that_grows_with_the_pixels() {
    let circuit = ConvPc::new(512, 512, 1, Family::bernoulli()).channels(1).depth(1).build(1).unwrap();
    let data = Array2::from_shape_fn((2, 512 * 512), |(row, column)| ((row + column) % 2) as f32);
    let began = std::time::Instant::now();
    fit_leaves(&circuit, data.view(), 1).unwrap();
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

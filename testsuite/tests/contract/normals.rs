//! Normal leaves: means, deviations and values of any size; binomials of many trials.

use convpc::{Backend, Circuit, ConvPc, Family, Leaf, Normal, ProdConv, Reference, Structure};
use ndarray::{Array2, Axis, array};

use crate::{assert_contract, assert_contract_on, backends, normals};

#[test]
fn means_far_from_zero_and_small_deviations() {
    for mean in [0.0, 1.3, 1000.13, 40_000.3, 1e5 + 0.1, 1e6 + 0.3, 12_345_678.9] {
        for std in [1e-3, 0.05, 0.5, 1.0, 30.0] {
            let near = |k: f64| (mean + k * std) as f32;
            let data = array![
                [near(0.0), near(0.3), near(-1.0), near(2.5)],
                [near(-4.0), f32::NAN, near(9.0), near(0.01)],
                [near(0.0), near(40.0), near(-300.0), near(1e5)]
            ];
            assert_contract(&normals(&[(mean, std)]), &data);
            assert_contract(&normals(&[(mean, std), (mean + 0.7 * std, 2.0 * std), (-mean, 1.0)]), &data);
        }
    }
}

#[test]
fn deviations_and_values_of_any_size() {
    let large = 1e38;
    let data = array![
        [0.0, 1e30, -1e30, 1e-30],
        [1e-38, 1.0, -1.0, 3e10],
        [large, -large, large, f32::NAN],
        [5.0, 5.0, 5.0, 5.0],
        [1e19, 1e20, -1e19, 0.0]
    ];
    let stds = [Normal::SMALLEST_STD, 1e-20, 1e-3, 1.0, 1e10, 1e30, Normal::LARGEST];
    for mean in [0.0, 5.0, 1e30, -1e30, Normal::LARGEST] {
        for std in stds {
            assert_contract(&normals(&[(mean, std)]), &data);
            assert_contract(&normals(&[(mean, std), (0.0, 1.0), (-mean, 1e-30), (1e4, 1e30)]), &data);
        }
    }
}

/// What rounding to f32 leaves of a mean is here far more standard deviations than f32 holds, on the other side than the value.
#[test]
fn means_between_numbers_of_f32_and_the_smallest_deviation() {
    for mean in [1e30, -1e30, 3e37 + 1e21] {
        let rounded = mean as f32;
        let data = array![[rounded, rounded.next_up(), rounded.next_down(), f32::NAN], [0.0, 1.0, rounded, 1e20]];
        for std in [1e-30, 1e-10, 1e20] {
            assert_contract(&normals(&[(mean, std), (0.0, 1e30)]), &data);
            assert_contract(&normals(&[(mean, std)]), &data);
        }
    }
}

/// One pixel's large negative log-density cancels many positive ones.
#[test]
fn outliers_among_narrow_distributions() {
    for (side, std, depth, colors) in
        [(16, 1e-3, 2, 1), (28, 1e-3, 1, 1), (28, 1e-3, 4, 3), (28, 1e-6, 3, 1), (32, 1e-2, 3, 1)]
    {
        let circuit = ConvPc::new(side, side, colors, Family::normal()).channels(2).depth(depth).build(4).unwrap();
        let (structure, mut parameters) = circuit.into_parts();
        parameters.0[0].iter_mut().enumerate().for_each(|(at, p)| *p = if at % 2 == 1 { std } else { 0.1 });
        let circuit = Circuit::new(structure, parameters).unwrap();
        let mut data = Array2::from_elem((6, side * side * colors), 0.1_f32);
        let at_mean = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap()[0];
        for (k, mut row) in data.outer_iter_mut().enumerate() {
            let (wanted, outliers) = (at_mean + k as f64 * 0.7, 1 + 3 * (k % 2));
            for outlier in 0..outliers {
                row[outlier * 37] = (0.1 + std * (2.0 * wanted / outliers as f64).sqrt()) as f32;
            }
        }
        assert_contract(&circuit, &data);
    }
}

/// Products of leaves without a sum below them, and of the whole circuit without any.
#[test]
fn products_of_far_leaves() {
    let data = array![[1e3, -2e4, 1e30, 4.0], [1.0, 2.0, f32::NAN, -1.0]];
    let leaf = || Structure::builder(Leaf::new(2, 2, 1, Family::normal(), 1)).prod_conv(ProdConv::new(2, 2));
    assert_contract(&Circuit::random(leaf().build().unwrap(), 1).unwrap(), &data);
    assert_contract(&Circuit::random(leaf().sum(1).build().unwrap(), 1).unwrap(), &data);
}

/// Draws are values that can be scored.
#[test]
fn draws_of_the_widest_normals_are_values() {
    let circuit = normals(&[(9e37, 1e38), (-1e38, 1e38)]);
    for backend in backends().into_iter().chain([Box::new(Reference) as Box<dyn Backend>]) {
        let executable = backend.load(&circuit).unwrap();
        let draws = executable.sample(0..200, 1).unwrap();
        assert!(draws.iter().any(|x| x.abs() == 1e38), "{draws}");
        assert!(executable.log_likelihood(draws.view()).unwrap().iter().all(|ll| ll.is_finite()));
    }
}

/// Near the mode a log-density is a small difference of terms that grow with the number of trials.
#[test]
fn binomials_of_many_trials() {
    for trials in [255, 256, 500, 1000, 65_535] {
        for p in [0.5, 0.037, 0.999] {
            let structure = Structure::builder(Leaf::new(2, 2, 1, Family::binomial(trials), 1)).sum(1);
            let structure = structure.prod_conv(ProdConv::new(2, 2)).sum(1).build().unwrap();
            let mut parameters = Circuit::random(structure.clone(), 2).unwrap().into_parts().1;
            parameters.0[0].fill(p);
            let circuit = Circuit::new(structure, parameters).unwrap();
            let (n, near) = (trials as f64, |k: f64| (trials as f64 * p + k).round().clamp(0.0, trials as f64) as f32);
            let data = array![
                [near(0.0), near(1.0), near(-1.0), near(2.0)],
                [near(5.0), f32::NAN, near(-3.0), near(0.0)],
                [0.0, 1.0, (n - 1.0) as f32, n as f32]
            ];
            for backend in backends() {
                assert_contract_on(&*backend, &circuit, &data);
            }
        }
    }
}

/// Every pixel is so many deviations off that its log-density is near zero: a large gain and a large loss cancel. The pixels are
/// equal, and so are their rounding errors, which add up.
#[test]
fn every_pixel_is_off_by_as_much_as_it_gains() {
    for std in [1e-1, 1e-2, 1e-7, 1.3e-7, 1e-12, Normal::SMALLEST_STD] {
        for channels in [2, 9] {
            let convpc = ConvPc::new(28, 28, 1, Family::normal()).channels(channels).depth(4);
            let (structure, mut parameters) = convpc.build(4).unwrap().into_parts();
            parameters.0[0].lanes_mut(Axis(3)).into_iter().for_each(|mut leaf| (leaf[0], leaf[1]) = (0.0, std));
            let circuit = Circuit::new(structure, parameters).unwrap();
            let gain = -f64::ln(std) - 0.5 * std::f64::consts::TAU.ln();
            for rows in [1, 3, 70] {
                let value = |row: usize| (std * (2.0 * gain + 1e-4 * row as f64).sqrt()) as f32;
                let data = Array2::from_shape_fn((rows, 784), |(row, _)| value(row));
                assert_contract(&circuit, &data);
            }
        }
    }
}

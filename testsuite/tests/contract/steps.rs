//! EM steps: data far from the present means, narrow data, constant pixels, and counts of large images.

use convpc::{Backend, Circuit, Family, Leaf, Normal, ProdConv, Reference, Structure, em};
use ndarray::{Array2, ArrayD, array};
use testsuite::assert_close;

use crate::{assert_contract, backends, cpu, normals};

/// One step from N(0, 1) to data around 30,000, near data, and both: the values of the issue, and the reference's.
#[test]
fn a_step_to_far_data_finds_their_deviation() {
    let near = |row: usize| (row % 7) as f32;
    for (offset, tolerance) in [(0.0, 1e-5), (1e3, 1e-5), (3e4, 1e-5), (1e6, 2e-4)] {
        let far = Array2::from_shape_fn((490, 4), |(row, v)| offset + near(row + v));
        let mixed =
            Array2::from_shape_fn((490, 4), |(row, v)| if row < 245 { near(row) } else { offset + near(row + v) });
        for (what, data) in [("far", &far), ("mixed", &mixed)] {
            let step = |backend: &dyn Backend| {
                let mut executable = backend.load(&normals(&[(0.0, 1.0)])).unwrap();
                executable.accumulate(data.view()).unwrap();
                executable.em_step(&em::Options::default()).unwrap();
                executable.parameters().unwrap().0[0].clone()
            };
            let (given, expected) = (step(&*cpu()), step(&Reference));
            assert_close(&format!("{what} {offset}"), &given, &expected, (tolerance, 1e-6));
            if what == "far" {
                assert!((expected[[0, 0, 0, 1]] - 2.0).abs() < 1e-3, "{expected}");
            }
        }
    }
}

/// Data that vary far less than the present deviation, at a few deviations from the mean: a step finds their deviation, and
/// the log-likelihood does not fall.
#[test]
fn a_step_finds_narrow_deviations() {
    let options = em::Options { minimum_std: 0.0, ..em::Options::default() };
    for spread in [1e-2, 3e-3, 1e-3] {
        for offset in [0.0, 0.2, 1.5, 2.5, 3.8, 5.2, 8.0, 12.0] {
            let data =
                Array2::from_shape_fn((300, 4), |(row, v)| offset + spread * ((row * 7 + v * 3) % 11) as f32 / 11.0);
            let step = |backend: &dyn Backend| {
                let mut executable = backend.load(&normals(&[(0.0, 1.0), (0.3, 1.0)])).unwrap();
                let before = testsuite::em_step(&mut *executable, &data, 300, &options);
                let after = executable.log_likelihood(data.view()).unwrap().mean().unwrap();
                assert!(after > before, "{} {spread} {offset}: {before}, then {after}", backend.name());
                executable.parameters().unwrap().0[0].clone()
            };
            let expected = step(&Reference);
            for backend in backends() {
                let given = step(&*backend);
                let deviations = |p: &ArrayD<f64>| p.iter().skip(1).step_by(2).copied().collect::<Vec<f64>>();
                let what = format!("{} {spread} {offset}", backend.name());
                assert_close(&what, &deviations(&given), &deviations(&expected), (1e-2, 0.0));
            }
        }
    }
}

/// Where pixels share leaves, every value of a large image is added to the same few counts.
#[test]
fn counts_of_large_images_are_those_of_all_pixels() {
    const SIDE: usize = 512;
    let shared = |family| {
        let leaf = Leaf::new(SIDE, SIDE, 1, family, 2).shared(true);
        Structure::builder(leaf).prod_conv(ProdConv::new(SIDE, SIDE)).sum(1).build().unwrap()
    };
    let row = Array2::from_shape_fn((1, SIDE * SIDE), |(_, v)| f32::from(v % 10 == 0));
    let data = row.broadcast((70, SIDE * SIDE)).unwrap();
    for family in [Family::categorical(2), Family::bernoulli(), Family::normal(), Family::discretized_logistic(2)] {
        let structure = shared(family);
        let mut parameters = Circuit::random(structure.clone(), 1).unwrap().into_parts().1;
        // Both channels are alike, so that each takes the share of its weight.
        let first: Vec<f64> = parameters.0[0].iter().take(family.parameters()).copied().collect();
        parameters.0[0].iter_mut().zip(first.iter().cycle()).for_each(|(p, first)| *p = *first);
        parameters.0[2].iter_mut().zip([0.3, 0.7]).for_each(|(w, given)| *w = given);
        let mut executable = cpu().load(&Circuit::new(structure, parameters).unwrap()).unwrap();
        executable.accumulate(data).unwrap();
        let counts = &executable.statistics().unwrap().counts[0];
        let values = (70 * SIDE * SIDE) as f64;
        for (channel, share) in [0.3, 0.7].into_iter().enumerate() {
            let flow = counts[[0, channel, 0, 0]];
            assert!((flow / (share * values) - 1.0).abs() < 1e-6, "{family:?}: a flow of {flow}");
        }
        executable.em_step(&em::Options::default()).unwrap();
        let learned = executable.parameters().unwrap();
        let ones = row.sum() as f64 / row.len() as f64;
        let expected = match family {
            Family::Categorical(_) => vec![1.0 - ones, ones],
            Family::Bernoulli(_) => vec![ones],
            Family::Normal(_) => vec![ones, (ones * (1.0 - ones)).sqrt()],
            _ => continue,
        };
        assert_close(&format!("{family:?}"), learned.0[0].iter().take(expected.len()), &expected, (1e-5, 0.0));
    }
}

/// Without a minimum a constant pixel gets the smallest deviation, and everything stays finite.
#[test]
fn without_a_minimum_constant_pixels_stay_finite() {
    let data = array![[5.0, 1.0, 2.0, 3.0], [5.0, 2.0, 1.0, 0.0], [5.0, 0.0, 7.0, 3.0]];
    let options = em::Options { minimum_std: 0.0, ..em::Options::default() };
    for backend in [cpu(), Box::new(Reference)] {
        let mut executable = backend.load(&normals(&[(0.0, 1.0), (3.0, 2.0)])).unwrap();
        let mut last = f64::NEG_INFINITY;
        for _ in 0..30 {
            let mean = testsuite::em_step(&mut *executable, &data, 3, &options);
            assert!(mean.is_finite() && mean >= last - 1e-5 * mean.abs(), "{}: {last}, {mean}", backend.name());
            last = mean;
        }
        let circuit = executable.circuit().unwrap();
        assert_eq!(circuit.leaf_parameters(0, 0, 0)[1], Normal::SMALLEST_STD);
        assert_contract(&circuit, &data);
        assert_contract(&circuit, &array![[5.0, 1.0, 2.0, 3.0], [4.0, 1.0, 2.0, 3.0]]);
    }
}

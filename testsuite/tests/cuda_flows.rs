//! Flows and expected counts of the CUDA backend on the software device.
#![cfg(target_os = "linux")]

use convpc::{Backend, Circuit, ConvPc, CudaBackend, Family, Limits, Precision, Reference, Statistics};
use emulator::{Order, Settings};
use ndarray::{Array2, Axis};
use proptest::prelude::*;
use testsuite::{
    assert_close,
    circuits::{self, data},
    classes, downward,
    software::{device, subject},
};

#[test]
fn every_kind_of_circuit_in_every_precision() {
    let _device = device();
    for precision in Precision::ALL {
        let subject = subject(precision);
        for circuit in circuits::all() {
            for rows in [3, 70] {
                downward::against_float64(&subject, &circuit, &data(&circuit, rows));
            }
        }
    }
}

#[test]
fn classes_in_every_precision() {
    let _device = device();
    let circuits = circuits::all();
    let with_classes = || circuits.iter().filter(|circuit| circuit.structure().num_classes().is_some());
    assert_eq!(with_classes().count(), 3);
    for precision in Precision::ALL {
        with_classes().for_each(|circuit| classes::against_float64(&subject(precision), circuit, 70));
    }
}

/// Wide tiles need many rows and channels, and have several rounds of them.
#[test]
fn wide_tiles() {
    let _device = device();
    for precision in Precision::ALL {
        let circuit = circuits::wide();
        downward::against_float64(&subject(precision), &circuit, &data(&circuit, 130));
    }
}

#[test]
fn probabilities_of_zero_and_gaps_of_ten_thousand_nats() {
    let _device = device();
    for precision in Precision::ALL {
        downward::zeros(&subject(precision));
        downward::gaps(&subject(precision));
    }
}

#[test]
fn the_precision_is_the_one_asked_for() {
    let _device = device();
    let circuit = ConvPc::new(4, 4, 1, Family::normal()).channels(24).depth(2).build(1).unwrap();
    for precision in Precision::ALL {
        downward::precision_shows(&subject(precision), &circuit, &data(&circuit, 64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_circuits((circuit, precision, rows) in circuits::random()) {
        let _device = device();
        downward::against_float64(&subject(precision), &circuit, &data(&circuit, rows));
    }
}

fn counts(limits: Option<Limits>, circuit: &Circuit, batches: &[&Array2<f32>]) -> Statistics {
    let backend = CudaBackend::new(0).unwrap();
    let backend = limits.map_or(backend.clone(), |limits| backend.with_limits(limits));
    let mut executable = backend.load(circuit).unwrap();
    for batch in batches {
        executable.accumulate(batch.view()).unwrap();
    }
    executable.statistics().unwrap()
}

/// Whatever the order of threads between two barriers, and with a watch for races, the same bits come out.
#[test]
fn the_order_of_threads_does_not_matter() {
    let device = device();
    for circuit in circuits::all() {
        let data = data(&circuit, 21);
        device.configure(&Settings::default());
        let expected = counts(None, &circuit, &[&data]);
        for order in Order::ALL {
            device.configure(&Settings { order, races: true, ..Settings::default() });
            assert_eq!(counts(None, &circuit, &[&data]), expected, "{order:?}\n{circuit}");
        }
    }
}

/// Approximate instructions as bad as the manual allows, and sums of products cut off, stay within the contract.
#[test]
fn errors_of_hardware_stay_within_the_contract() {
    let device = device();
    device.configure(&Settings { hardware_error: true, ..Settings::default() });
    for circuit in circuits::all() {
        downward::against_float64(&subject(Precision::F32), &circuit, &data(&circuit, 150));
    }
}

/// Operands that come in portions, few multiprocessors and many: flows are the same, counts but for the order of additions.
#[test]
fn the_plan_does_not_matter() {
    let _device = device();
    for circuit in circuits::all().iter().chain([&circuits::wide()]) {
        let data = data(circuit, 140);
        let expected = counts(None, circuit, &[&data]);
        for (multiprocessors, shared_memory) in [(1, 227), (1000, 227), (1, 24), (1, 9)] {
            let limits = Limits { multiprocessors, shared_memory: shared_memory * 1024 };
            let given = counts(Some(limits), circuit, &[&data]);
            for (given, expected) in given.counts.iter().zip(&expected.counts) {
                assert_close(&format!("{limits:?}"), given, expected, (1e-5, 1e-5));
            }
        }
    }
}

/// Labeled rows keep their labels where rows are split because memory is short.
#[test]
fn labels_of_batches() {
    let device = device();
    let convpc = ConvPc::new(5, 6, 1, Family::binomial(5)).channels(20).depth(2).repetitions(2).num_classes(3);
    let circuit = convpc.build(3).unwrap();
    let data = data(&circuit, 300);
    let labels: Vec<usize> = (0..300).map(|row| row * row % 7 % 3).collect();
    let mut exact = Reference.load(&circuit).unwrap();
    let expected = exact.accumulate_labeled(data.view(), &labels).unwrap();
    let mut executable = CudaBackend::new(0).unwrap().load(&circuit).unwrap();
    executable.accumulate_labeled(data.slice_axis(Axis(0), (0..1).into()), &labels[..1]).unwrap();
    executable.reset_statistics();
    let limit = device.memory().in_use + (1 << 20);
    device.set_memory(limit);
    device.clear_counts();
    let given = executable.accumulate_labeled(data.view(), &labels).unwrap();
    let launches =
        |name: &str| device.counts().iter().find(|(kernel, _)| kernel == name).map_or(0, |(_, s)| s.launches);
    assert!(launches("label_flow") > 2, "few batches");
    assert_eq!((given.rows, given.impossible_rows), (300, 0));
    assert_close("log-likelihood", &[given.log_likelihood], &[expected.log_likelihood], (1e-5, 0.0));
    let [given, expected] = [&executable, &exact].map(|e| e.statistics().unwrap().counts);
    for (given, expected) in given.iter().zip(&expected) {
        assert_close("counts", given, expected, (1e-5, 1e-4));
    }
}

/// Counts of batches add up, whatever their sizes, and rows are split where memory is short.
#[test]
fn batches_add_up() {
    let device = device();
    let circuit = ConvPc::new(5, 6, 1, Family::binomial(5)).channels(20).depth(2).use_sum_conv(true).build(3).unwrap();
    let data = data(&circuit, 300);
    let expected = counts(None, &circuit, &[&data]);
    let parts = [1, 16, 100, 183].iter().scan(0, |from, &n| {
        let part = data.slice_axis(Axis(0), (*from..*from + n).into()).to_owned();
        *from += n;
        Some(part)
    });
    let parts: Vec<_> = parts.collect();
    let near = |given: &Statistics| {
        assert_eq!((given.rows, given.impossible_rows), (expected.rows, 0));
        assert_close("log-likelihood", &[given.log_likelihood], &[expected.log_likelihood], (1e-12, 0.0));
        for (given, expected) in given.counts.iter().zip(&expected.counts) {
            assert_close("counts", given, expected, (1e-5, 1e-6));
        }
    };
    near(&counts(None, &circuit, &parts.iter().collect::<Vec<_>>()));
    let mut executable = CudaBackend::new(0).unwrap().load(&circuit).unwrap();
    executable.accumulate(data.view().split_at(Axis(0), 1).0).unwrap();
    executable.reset_statistics();
    let limit = device.memory().in_use + (1 << 20);
    device.set_memory(limit);
    device.clear_counts();
    executable.accumulate(data.view()).unwrap();
    let launches =
        |name: &str| device.counts().iter().find(|(kernel, _)| kernel == name).map_or(0, |(_, s)| s.launches);
    assert!(launches("root_flow") > 1, "one batch");
    near(&executable.statistics().unwrap());
}

//! The CUDA backend on the software device, which executes the committed PTX and checks every access.
//!
//! The tests share one device: each takes it for itself while it runs, because some change its settings.
#![cfg(target_os = "linux")]

use convpc::{Backend, Circuit, ConvPc, CudaBackend, Edge, Family, Limits, Precision, Reference, Semiring};
use emulator::{Order, Settings};
use half::bf16;
use ndarray::{Array2, Axis};
use proptest::prelude::*;
use testsuite::{
    circuits::{self, data},
    software::{device, subject},
    upward,
};

#[test]
fn golden_vectors() {
    let _device = device();
    for precision in Precision::ALL {
        upward::golden(&subject(precision));
    }
}

#[test]
fn every_kind_of_circuit_in_every_precision() {
    let _device = device();
    for precision in Precision::ALL {
        let subject = subject(precision);
        for circuit in circuits::all() {
            for rows in [3, 70] {
                upward::against_float64(&subject, &circuit, &data(&circuit, rows));
            }
        }
    }
}

/// Wide tiles need many rows and channels.
#[test]
fn wide_tiles() {
    let _device = device();
    let circuit = circuits::wide();
    for precision in Precision::ALL {
        upward::against_float64(&subject(precision), &circuit, &data(&circuit, 130));
    }
}

#[test]
fn probabilities_of_zero_and_gaps_of_ten_thousand_nats() {
    let _device = device();
    for precision in Precision::ALL {
        let subject = subject(precision);
        upward::zeros(&subject);
        upward::gaps(&subject);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_circuits((circuit, precision, rows) in circuits::random()) {
        let _device = device();
        upward::against_float64(&subject(precision), &circuit, &data(&circuit, rows));
    }
}

/// Plans that fuse as many levels as there are, where the shared memory of a block allows.
const DEEP: Limits = Limits { multiprocessors: 1, shared_memory: 227 * 1024 };

fn scores(circuit: &Circuit, data: &Array2<f32>) -> Vec<f64> {
    scores_within(DEEP, circuit, data)
}

fn scores_within(limits: Limits, circuit: &Circuit, data: &Array2<f32>) -> Vec<f64> {
    let executable = CudaBackend::new(0).unwrap().with_limits(limits).load(circuit).unwrap();
    executable.log_likelihood(data.view()).unwrap().to_vec()
}

/// Whatever the order of threads between two barriers, and with a watch for races, the same bits come out.
#[test]
fn the_order_of_threads_does_not_matter() {
    let device = device();
    let deep = ConvPc::new(4, 4, 1, Family::normal()).channels(12).depth(2).use_sum_conv(true).build(4).unwrap();
    for circuit in circuits::all().iter().chain([&deep]) {
        let data = data(circuit, 21);
        device.configure(&Settings::default());
        let expected = scores(circuit, &data);
        for order in Order::ALL {
            device.configure(&Settings { order, races: true, ..Settings::default() });
            assert_eq!(scores(circuit, &data), expected, "{order:?}\n{circuit}");
        }
    }
}

/// The error that the manual allows approximate instructions, and sums of products cut off, stay within the contract.
#[test]
fn errors_of_hardware_stay_within_the_contract() {
    let device = device();
    device.configure(&Settings { hardware_error: true, ..Settings::default() });
    for precision in Precision::ALL {
        let subject = subject(precision);
        upward::golden(&subject);
        for circuit in circuits::all() {
            upward::against_float64(&subject, &circuit, &data(&circuit, 20));
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let _device = device();
    for circuit in circuits::all() {
        let executable = CudaBackend::new(0).unwrap().with_limits(DEEP).load(&circuit).unwrap();
        upward::batches(&*executable, &data(&circuit, 140));
    }
}

/// However many levels a launch takes, and whatever its tiles, the same bits come out.
#[test]
fn the_plan_does_not_matter() {
    let device = device();
    let deep = ConvPc::new(9, 12, 1, Family::categorical(4)).channels(20).depth(3);
    let two = [deep.clone().build(1).unwrap(), deep.use_sum_conv(true).repetitions(2).build(2).unwrap()];
    let mut fusing_helps = false;
    for circuit in two.iter().chain(&circuits::all()) {
        let data = data(circuit, 70);
        let expected = Reference.load(circuit).unwrap().log_likelihood(data.view()).unwrap();
        device.clear_counts();
        let fused = scores(circuit, &data);
        let launches = || device.counts().iter().map(|(_, stats)| stats.launches).sum::<u64>();
        let fewest = launches();
        let tolerance = subject(Precision::F32).tolerance(circuit.structure());
        testsuite::assert_close("fused", &fused, &expected, tolerance);
        for (multiprocessors, shared_memory) in [(1000, 227), (1, 48), (1, 24), (1, 1)] {
            let limits = Limits { multiprocessors, shared_memory: shared_memory * 1024 };
            device.clear_counts();
            let given = scores_within(limits, circuit, &data);
            assert!(launches() >= fewest, "{limits:?} fuses more");
            fusing_helps |= launches() > fewest;
            // Where tensor cores have no room at all, a thread a row adds in another order.
            if shared_memory > 1 {
                assert_eq!(given, fused, "{limits:?}\n{circuit}");
            } else {
                testsuite::assert_close("without shared memory", &given, &expected, tolerance);
            }
        }
    }
    assert!(fusing_helps, "the limits changed nothing");
}

/// Each precision is what it says: no better, else its products would not be of it, and no worse than its bound.
#[test]
fn a_single_sum_shows_the_precision() {
    let _device = device();
    let circuit = ConvPc::new(1, 1, 1, Family::normal()).channels(48).depth(1).kernel_size(1).build(5).unwrap();
    let data = Reference.load(&circuit).unwrap().sample(0..200, 2).unwrap();
    let exact = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap();
    let sums = 2.0; // one on tensor cores, the root on a thread a row
    for (precision, least) in [(Precision::F32, 0.0), (Precision::Tf32, 1e-5), (Precision::Bf16, 1e-4)] {
        let executable = subject(precision).backend.load(&circuit).unwrap();
        let given = executable.log_likelihood(data.view()).unwrap();
        let worst = given.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let most = sums * precision.error_per_sum() + 2e-5;
        assert!((least..=most).contains(&worst), "{precision}: {worst}");
    }
}

/// Bf16 multiplies just what it says: weights and exponentials rounded to bf16, everything else as in f32.
#[test]
fn bf16_rounds_the_operands_and_nothing_else() {
    let _device = device();
    let circuit = ConvPc::new(2, 2, 1, Family::normal()).channels(48).depth(1).build(5).unwrap();
    let data = Reference.load(&circuit).unwrap().sample(0..50, 2).unwrap();
    let executable = subject(Precision::Bf16).backend.load(&circuit).unwrap();
    let given = executable.evaluate(data.view(), Semiring::SumProduct).unwrap();
    let layer = 2;
    let (x, y) = (given.activations(layer - 1), given.activations(layer));
    let round = |v: f64| f64::from(bf16::from_f32(v as f32));
    let (mut near, mut all) = (0, 0);
    for ((r, f, d, row), &given) in y.indexed_iter() {
        let edges: Vec<_> = circuit.structure().edges(layer).unwrap().of(f, d, r).collect();
        let largest = edges.iter().map(|e| x[[r, f, e.channel, row]]).fold(f64::NEG_INFINITY, f64::max);
        let term = |e: &Edge| {
            let weight = circuit.parameters().slice(layer)[e.weight];
            round(weight) * round((x[[r, f, e.channel, row]] - largest).exp())
        };
        let expected = largest + edges.iter().map(term).sum::<f64>().ln();
        // An exponential at the border of two bf16 numbers may fall to either side.
        near += usize::from((given - expected).abs() < 1e-5);
        all += 1;
        assert!((given - expected).abs() < Precision::Bf16.error_per_sum(), "{given} instead of {expected}");
    }
    assert!(near * 10 > all * 9, "{near} of {all}");
}

#[test]
fn parameters_are_replaced_in_place() {
    let device = device();
    let two = [1, 2].map(|seed| ConvPc::new(4, 4, 1, Family::bernoulli()).channels(12).build(seed).unwrap());
    let data = data(&two[0], 9);
    let mut executable = subject(Precision::F32).backend.load(&two[0]).unwrap();
    executable.log_likelihood(data.view()).unwrap();
    let before = device.memory().allocated_ever;
    executable.set_parameters(two[1].parameters()).unwrap();
    assert_eq!(executable.log_likelihood(data.view()).unwrap().to_vec(), scores(&two[1], &data));
    assert_eq!(&executable.parameters().unwrap(), two[1].parameters());
    drop(executable);
    assert!(device.memory().allocated_ever > before, "the second executable allocates");
}

/// After two calls of a shape nothing is allocated, and when the executable is gone nothing is left.
#[test]
fn the_steady_state_allocates_nothing() {
    let device = device();
    let backend = CudaBackend::new(0).unwrap();
    let before = device.memory().in_use;
    let circuit = ConvPc::new(6, 6, 1, Family::categorical(4)).channels(20).build(1).unwrap();
    let executable = backend.load(&circuit).unwrap();
    let data = data(&circuit, 130);
    let call = || {
        executable.log_likelihood(data.view()).unwrap();
        executable.log_likelihood(data.view().split_at(Axis(0), 20).0).unwrap();
    };
    call();
    call();
    let allocated = device.memory().allocated_ever;
    call();
    assert_eq!(device.memory().allocated_ever, allocated);
    drop(executable);
    assert_eq!(device.memory().in_use, before);
}

/// Rows that do not fit are computed a part at a time, down to what one row needs.
#[test]
fn batches_are_split_by_memory() {
    let device = device();
    let circuit = ConvPc::new(8, 8, 1, Family::normal()).channels(24).build(1).unwrap();
    let data = data(&circuit, 1000);
    let expected = scores(&circuit, &data);
    let backend = CudaBackend::new(0).unwrap();
    let executable = backend.load(&circuit).unwrap();
    let limit = device.memory().in_use + (2 << 20);
    device.set_memory(limit);
    device.clear_counts();
    assert_eq!(executable.log_likelihood(data.view()).unwrap().to_vec(), expected);
    assert!(device.memory().in_use <= limit);
    let counts = device.counts();
    let (_, transposed) = counts.iter().find(|(kernel, _)| kernel == "transpose").expect("data are transposed");
    assert!(transposed.launches > 2, "{} parts", transposed.launches);
}

/// Executables share the device and nothing else: what one records as a graph holds none of the other's launches.
#[test]
fn executables_of_several_threads_do_not_meet() {
    let _device = device();
    let backend = CudaBackend::new(0).unwrap();
    let all = circuits::all();
    std::thread::scope(|scope| {
        for circuit in &all[..3] {
            let backend = &backend;
            scope.spawn(move || {
                let data = data(circuit, 60);
                let expected = Reference.load(circuit).unwrap().log_likelihood(data.view()).unwrap();
                let executable = backend.load(circuit).unwrap();
                for rows in [60, 1, 20, 60, 33] {
                    let given = executable.log_likelihood(data.view().split_at(Axis(0), rows).0).unwrap();
                    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * b.abs() + 1e-4;
                    assert!(given.iter().zip(&expected).all(near), "{given} instead of {expected}");
                }
            });
        }
    });
}

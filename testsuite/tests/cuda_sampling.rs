//! Sampling and completion by the CUDA backend on the software device, which executes the committed PTX and checks every
//! access.
//!
//! The tests share one device: each takes it for itself while it runs, because some change its settings.
#![cfg(target_os = "linux")]

use convpc::{Backend, Circuit, ConvPc, Cpu, CudaBackend, Error, Executable, Family, Mpe, Precision, Reference};
use emulator::{Order, Settings};
use ndarray::{Array2, Axis, ShapeBuilder, s};
use statrs::distribution::{ChiSquared, ContinuousCDF};
use testsuite::{
    Subject, circuits,
    sampling::{self, ROWS, different, evidence},
    software::{self, device},
};

fn subject() -> Subject {
    software::subject(Precision::F32)
}

fn load(circuit: &Circuit) -> Box<dyn Executable> {
    subject().backend.load(circuit).unwrap()
}

fn cpu() -> Cpu {
    Cpu::new(Some(2)).unwrap()
}

fn all_circuits() -> Vec<Circuit> {
    sampling::families().into_iter().chain(circuits::all()).collect()
}

/// Without evidence both read the same weights: every choice is the same, and so is every discrete value.
#[test]
fn the_same_samples_as_on_the_cpu() {
    let _device = device();
    for circuit in all_circuits() {
        // Counters and keys of more than 32 bits.
        for (first, seed) in [(0, 5), ((1 << 40) - 20, 0x1234_5678_9abc_def0)] {
            let rows = first..first + ROWS as u64;
            let [given, expected] =
                [load(&circuit), cpu().load(&circuit).unwrap()].map(|e| e.sample(rows.clone(), seed).unwrap());
            match circuit.structure().leaf().family {
                Family::Normal(_) => assert_eq!(different(&given, &expected), 0, "{circuit}"),
                _ => assert_eq!(given, expected, "{circuit}"),
            }
        }
        sampling::like(&subject(), &cpu(), &circuit);
    }
}

#[test]
fn the_same_samples_as_in_float64() {
    let _device = device();
    sampling::families().iter().for_each(|circuit| sampling::like(&subject(), &Reference, circuit));
    sampling::gaps(&subject());
}

#[test]
fn the_batch_does_not_matter_and_the_seed_does() {
    let _device = device();
    sampling::families().iter().for_each(|circuit| sampling::batches(&subject(), circuit));
}

#[test]
fn completions() {
    let _device = device();
    sampling::greedy_completions(&subject());
    sampling::ties(&subject());
    all_circuits().iter().for_each(|circuit| sampling::completions(&subject(), circuit));
}

#[test]
fn evidence_is_kept_and_nothing_stays_missing() {
    let _device = device();
    for precision in Precision::ALL {
        let subject = Subject::single(CudaBackend::new(0).unwrap().with_precision(precision), precision);
        sampling::families().iter().for_each(|circuit| sampling::evidence_is_kept(&subject, circuit));
    }
}

#[test]
fn impossible_evidence_is_an_error() {
    let _device = device();
    sampling::impossible_evidence(&subject());
}

#[test]
fn samples_follow_the_distribution() {
    let _device = device();
    let tail = |statistic, freedom| 1.0 - ChiSquared::new(freedom).unwrap().cdf(statistic);
    for circuit in sampling::enumerable() {
        let tail = sampling::follow_the_distribution(&subject(), &circuit, 20_000, tail);
        assert!(tail > 1e-4, "{tail}");
    }
}

/// All three queries of a circuit.
fn answers(executable: &dyn Executable, data: &Array2<f32>) -> [Array2<f32>; 4] {
    [
        executable.sample(3..3 + data.nrows() as u64, 8).unwrap(),
        executable.sample_conditional(data.view(), 9, 0).unwrap(),
        executable.mpe(data.view(), Mpe::Greedy).unwrap(),
        executable.mpe(data.view(), Mpe::MaxProduct).unwrap(),
    ]
}

#[test]
fn the_order_of_threads_does_not_matter() {
    let device = device();
    for circuit in sampling::families() {
        let data = evidence(&circuit);
        device.configure(&Settings::default());
        let expected = answers(&*load(&circuit), &data);
        for order in Order::ALL {
            device.configure(&Settings { order, races: true, ..Settings::default() });
            assert_eq!(answers(&*load(&circuit), &data), expected, "{order:?}\n{circuit}");
        }
    }
}

/// The error that the manual allows approximate instructions moves few choices.
#[test]
fn errors_of_hardware_move_few_choices() {
    let device = device();
    device.configure(&Settings { hardware_error: true, ..Settings::default() });
    for circuit in sampling::families() {
        sampling::like(&subject(), &Reference, &circuit);
        sampling::completions(&subject(), &circuit);
    }
}

/// Whatever the layout of the data in memory, and with new parameters in the old place.
#[test]
fn layouts_and_parameters() {
    let _device = device();
    let two = [1, 2].map(|seed| ConvPc::new(4, 4, 1, Family::normal()).channels(12).build(seed).unwrap());
    let data = evidence(&two[0]);
    let expected = two.each_ref().map(|circuit| answers(&*load(circuit), &data));
    let mut executable = load(&two[0]);
    let mut columns = Array2::zeros(data.dim().f());
    columns.assign(&data);
    let mut backwards = data.clone();
    backwards.invert_axis(Axis(0));
    backwards.as_slice_memory_order_mut().unwrap().reverse();
    for row in 0..data.nrows() {
        backwards.row_mut(row).assign(&data.row(row));
    }
    for data in [&columns, &backwards] {
        assert_eq!(answers(&*executable, data), expected[0]);
    }
    executable.set_parameters(two[1].parameters()).unwrap();
    assert_eq!(answers(&*executable, &data), expected[1]);
}

/// After two calls of a shape nothing is allocated, and when the executable is gone nothing is left.
#[test]
fn the_steady_state_allocates_nothing() {
    let device = device();
    let before = device.memory().in_use;
    let circuit = ConvPc::new(6, 6, 1, Family::binomial(4)).channels(20).repetitions(2).build(1).unwrap();
    let data = evidence(&circuit);
    let executable = load(&circuit);
    let call = || {
        let few = data.slice(s![..5, ..]).to_owned();
        for data in [&few, &data] {
            answers(&*executable, data);
            executable.log_likelihood(data.view()).unwrap();
        }
    };
    call();
    call();
    let allocated = device.memory().allocated_ever;
    call();
    assert_eq!(device.memory().allocated_ever, allocated);
    drop(executable);
    assert_eq!(device.memory().in_use, before);
}

/// Rows that do not fit are completed a part at a time, and errors count rows from the first of all.
#[test]
fn batches_are_split_by_memory() {
    let device = device();
    let (circuit, _) = testsuite::upward::with_zeros(20, false);
    let mut data = cpu().load(&circuit).unwrap().sample(0..1000, 3).unwrap();
    data.iter_mut().step_by(3).for_each(|x| *x = f32::NAN);
    let expected = answers(&*load(&circuit), &data);
    let executable = load(&circuit);
    let limit = device.memory().in_use + (1 << 19);
    device.set_memory(limit);
    device.clear_counts();
    assert_eq!(answers(&*executable, &data), expected);
    assert!(device.memory().in_use <= limit);
    let counts = device.counts();
    let launches = |kernel| counts.iter().find(|(name, _)| name == kernel).expect("a launch").1.launches;
    assert!(launches("draw") > 4 && launches("fill_modes") > 4, "{} {}", launches("draw"), launches("fill_modes"));
    // Variable 0 is never 1. The parts of both rows are under way when the first is found.
    for rows in [[700, 900], [999, 600], [999, 999], [0, 1]] {
        let mut impossible = data.clone();
        rows.iter().for_each(|&row| impossible[[row, 0]] = 1.0);
        let first = *rows.iter().min().unwrap();
        let given = executable.sample_conditional(impossible.view(), 1, 77);
        assert!(matches!(given, Err(Error::ImpossibleEvidence { row }) if row == first), "{given:?}");
    }
    assert_eq!(answers(&*executable, &data), expected, "an error leaves nothing behind");
}

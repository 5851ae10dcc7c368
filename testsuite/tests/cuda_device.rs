//! The CUDA backend on a real GPU, where the environment variable `CONVPC_GPU_TESTS` is set to the device's number. The same
//! checks run on the software device everywhere; here the hardware has its say.

use convpc::{Backend, Circuit, CudaBackend, Executable, Precision, Reference};
use testsuite::{Subject, circuits, classes, downward, sampling, upward};

/// The device that was asked for.
fn device() -> Option<CudaBackend> {
    let Ok(ordinal) = std::env::var("CONVPC_GPU_TESTS") else {
        println!("no GPU was asked for: set CONVPC_GPU_TESTS=0 to test the first");
        return None;
    };
    let ordinal = ordinal.parse().expect("CONVPC_GPU_TESTS is the number of a device");
    let backend = CudaBackend::new(ordinal).expect("a GPU");
    println!("{}", backend.description());
    Some(backend)
}

fn subject(backend: &CudaBackend, precision: Precision) -> Subject {
    Subject::single(backend.clone().with_precision(precision), precision)
}

#[test]
fn the_upward_pass_on_a_gpu() {
    let Some(backend) = device() else { return };
    for precision in Precision::ALL {
        let subject = subject(&backend, precision);
        upward::golden(&subject);
        upward::zeros(&subject);
        upward::gaps(&subject);
        for circuit in circuits::all() {
            for rows in [3, 70] {
                upward::against_float64(&subject, &circuit, &circuits::data(&circuit, rows));
            }
            let executable = subject.backend.load(&circuit).expect("a circuit");
            upward::batches(&*executable, &circuits::data(&circuit, 140));
        }
        let wide = circuits::wide();
        upward::against_float64(&subject, &wide, &circuits::data(&wide, 130));
        println!("{precision}: as float64 within its bound");
    }
}

#[test]
fn flows_and_counts_on_a_gpu() {
    let Some(backend) = device() else { return };
    for precision in Precision::ALL {
        let subject = subject(&backend, precision);
        downward::zeros(&subject);
        downward::gaps(&subject);
        downward::annealed(&subject);
        for circuit in circuits::all() {
            for rows in [3, 70, 1000] {
                downward::against_float64(&subject, &circuit, &circuits::data(&circuit, rows));
            }
        }
        let wide = circuits::wide();
        downward::against_float64(&subject, &wide, &circuits::data(&wide, 130));
        println!("{precision}: as float64 within its bound");
    }
}

/// Ten EM steps of a backend.
fn learned(backend: &dyn Backend, circuit: &Circuit) -> Box<dyn Executable> {
    let mut executable = backend.load(circuit).expect("a circuit");
    for _ in 0..10 {
        downward::step(&mut *executable, circuit);
    }
    executable
}

#[test]
fn learning_on_a_gpu() {
    let Some(backend) = device() else { return };
    for circuit in circuits::all() {
        let [given, again] = [(); 2].map(|()| learned(&backend, &circuit));
        let [a, b] = [&given, &again].map(|e| e.parameters().expect("parameters"));
        assert_eq!(a, b, "the same data give the same bits");
        downward::single_steps(&backend, &circuit, 10);
        downward::mini_batch_steps(&backend, &circuit);
    }
}

#[test]
fn classes_on_a_gpu() {
    let Some(backend) = device() else { return };
    for precision in Precision::ALL {
        for circuit in circuits::all().iter().filter(|circuit| circuit.structure().num_classes().is_some()) {
            for rows in [3, 70, 1000] {
                classes::against_float64(&subject(&backend, precision), circuit, rows);
            }
        }
    }
}

#[test]
fn sampling_on_a_gpu() {
    let Some(backend) = device() else { return };
    let subject = subject(&backend, Precision::F32);
    sampling::greedy_completions(&subject);
    sampling::ties(&subject);
    sampling::gaps(&subject);
    sampling::impossible_evidence(&subject);
    for circuit in sampling::families().into_iter().chain(circuits::all()) {
        sampling::like(&subject, &Reference, &circuit);
        sampling::batches(&subject, &circuit);
        sampling::evidence_is_kept(&subject, &circuit);
        sampling::completions(&subject, &circuit);
    }
}

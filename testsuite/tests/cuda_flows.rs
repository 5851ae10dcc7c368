//! Expected counts of the CUDA backend on the software device, against float64.
#![cfg(target_os = "linux")]

use convpc::{Backend, Circuit, CudaBackend, Precision, Reference};
use emulator::Exclusive;
use testsuite::{
    Subject, assert_close,
    circuits::{self, data},
};

fn device() -> Exclusive {
    emulator::install().expect("the software device").exclusive()
}

fn subject(precision: Precision) -> Subject {
    Subject::single(CudaBackend::new(0).expect("the software device").with_precision(precision), precision)
}

fn compare(subject: &Subject, circuit: &Circuit, rows: u64) {
    let data = data(circuit, rows);
    let mut exact = Reference.load(circuit).unwrap();
    let mut given = subject.backend.load(circuit).unwrap();
    exact.accumulate(data.view()).unwrap();
    given.accumulate(data.view()).unwrap();
    let (exact, given) = (exact.statistics().unwrap(), given.statistics().unwrap());
    for (layer, kind) in circuit.structure().layers().iter().enumerate().skip(1) {
        let what = format!("{kind:?}, layer {layer}, {rows} rows\n{circuit}");
        assert_close(&what, &given.counts[layer], &exact.counts[layer], (1e-5, 1e-4));
    }
}

#[test]
fn every_kind_of_circuit() {
    let _device = device();
    for circuit in circuits::all() {
        for rows in [3, 70] {
            compare(&subject(Precision::F32), &circuit, rows);
        }
    }
}

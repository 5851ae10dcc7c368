//! Several devices that share the rows give what one gives.

use convpc::{Backend, Circuit, Cpu, Error, Executable, Mpe, Reference, Replicas, Result, Statistics, em};
use ndarray::{Array2, Axis, array, concatenate};
use testsuite::{
    assert_close,
    circuits::{self, data},
    subjects, upward,
};

/// As many of each backend as there are devices, and the backend alone.
fn pairs(devices: usize) -> Vec<(Replicas, Box<dyn Backend>)> {
    let mut copies: Vec<Vec<Box<dyn Backend>>> = (0..subjects().len()).map(|_| Vec::new()).collect();
    for _ in 0..devices {
        copies.iter_mut().zip(subjects()).for_each(|(copies, subject)| copies.push(subject.backend));
    }
    let pair = |(copies, alone): (Vec<_>, testsuite::Subject)| (Replicas::new(copies).unwrap(), alone.backend);
    copies.into_iter().zip(subjects()).map(pair).collect()
}

/// Scores, samples and completions of a batch.
fn answers(executable: &dyn Executable, data: &Array2<f32>) -> (Vec<f64>, [Array2<f32>; 4]) {
    let rows = [
        executable.sample(5..5 + data.nrows() as u64, 3),
        executable.sample_conditional(data.view(), 4, 7),
        executable.mpe(data.view(), Mpe::Greedy),
        executable.mpe(data.view(), Mpe::MaxProduct),
    ];
    (executable.log_likelihood(data.view()).unwrap().to_vec(), rows.map(Result::unwrap))
}

#[test]
fn rows_do_not_depend_on_the_device_that_takes_them() {
    for (several, alone) in pairs(3) {
        for circuit in &circuits::all()[..4] {
            let (several, alone) = (several.load(circuit).unwrap(), alone.load(circuit).unwrap());
            // Fewer rows than devices, and numbers that do not divide evenly.
            for rows in [1, 2, 3, 10] {
                let data = data(circuit, rows);
                assert_eq!(answers(&*several, &data), answers(&*alone, &data), "{rows} rows of\n{circuit}");
            }
        }
    }
}

#[test]
fn statistics_add_up_and_parameters_stay_equal() {
    let options = em::Options { pseudocount: 0.1, ..Default::default() };
    for (several, alone) in pairs(2) {
        for circuit in &circuits::all()[..4] {
            let (mut several, mut alone) = (several.load(circuit).unwrap(), alone.load(circuit).unwrap());
            let data = data(circuit, 25);
            [&mut several, &mut alone].into_iter().for_each(|e| e.set_inverse_temperature(0.1).unwrap());
            for _ in 0..2 {
                let [a, b] = [&mut several, &mut alone].map(|e| e.accumulate(data.view()).unwrap());
                assert_eq!((a.rows, a.impossible_rows), (b.rows, b.impossible_rows));
                let [a, b] = [&several, &alone].map(|e| e.statistics().unwrap());
                assert_eq!(a.rows, b.rows);
                for (a, b) in a.counts.iter().zip(&b.counts) {
                    assert_close("counts", a, b, (1e-5, 1e-5));
                }
                [&mut several, &mut alone].into_iter().for_each(|e| e.em_step(&options).unwrap());
                let [a, b] = [&several, &alone].map(|e| e.parameters().unwrap());
                for (a, b) in a.0.iter().zip(&b.0) {
                    assert_close("parameters", a, b, (1e-4, 1e-5));
                }
                assert_eq!(several.em_step(&options), Err(Error::NoStatistics));
            }
            // What any of them computes is the same model.
            let all = several.log_likelihood(data.view()).unwrap();
            let anew = Reference.load(&several.circuit().unwrap()).unwrap().log_likelihood(data.view()).unwrap();
            assert_close("scores", &all, &anew, (1e-5, 1e-4));
        }
    }
}

#[test]
fn all_devices_forget_their_counts() {
    for (several, _) in pairs(3) {
        let circuit = &circuits::all()[0];
        let mut executable = several.load(circuit).unwrap();
        executable.accumulate(data(circuit, 9).view()).unwrap();
        executable.reset_statistics();
        assert_eq!(executable.statistics().unwrap(), Statistics::zeros(circuit.structure()));
    }
}

#[test]
fn errors_name_the_rows_of_the_whole() {
    assert_eq!(Replicas::new(vec![]).err(), Some(Error::Zero { what: "the number of devices" }));
    let (circuit, rows) = upward::with_zeros(3, false);
    let two = || -> Vec<Box<dyn Backend>> { vec![Box::new(Reference), Box::new(Cpu::new(Some(1)).unwrap())] };
    let executable = Replicas::new(two()).unwrap().load(&circuit).unwrap();
    let possible = rows.iter().find(|(_, possible)| *possible).map(|(row, _)| row.clone()).unwrap();
    let impossible = rows.iter().find(|(_, possible)| !possible).map(|(row, _)| row.clone()).unwrap();
    let data = concatenate![Axis(0), possible, possible, possible, possible, impossible];
    assert_eq!(executable.sample_conditional(data.view(), 0, 0), Err(Error::ImpossibleEvidence { row: 4 }));
    let narrow: Result<_> = executable.log_likelihood(array![[0.0]].view());
    assert!(matches!(narrow, Err(Error::VariableCount { .. })));
    let circuit: &Circuit = &circuit;
    assert!(Replicas::new(two()).unwrap().load(circuit).unwrap().sample(3..3, 0).is_err());
}

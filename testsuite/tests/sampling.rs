//! A sample is a function of the seed and the row's number: not of the batch, the number of threads or the backend.

use convpc::{Backend, Circuit, ConvPc, Cpu, Executable, Family, Mpe};
use ndarray::{Array2, Axis, concatenate, s};
use testsuite::subjects;

const ROWS: usize = 41;

fn circuits() -> Vec<Circuit> {
    [
        ConvPc::new(5, 3, 1, Family::bernoulli()).channels(3).depth(2),
        ConvPc::new(4, 4, 3, Family::categorical(4)).channels(4).depth(2).use_sum_conv(true),
        ConvPc::new(6, 6, 1, Family::binomial(9)).channels(3).depth(2).repetitions(3),
        ConvPc::new(3, 7, 1, Family::normal()).channels(5).depth(1).kernel_size(3).use_sum_conv(true).repetitions(2),
    ]
    .into_iter()
    .enumerate()
    .map(|(seed, convpc)| convpc.build(seed as u64).unwrap())
    .collect()
}

/// Samples of the circuit, two of three values missing, one row without any.
fn evidence(executable: &dyn Executable) -> Array2<f32> {
    let mut data = executable.sample(0..ROWS as u64, 99).unwrap();
    for (i, x) in data.iter_mut().enumerate() {
        if (i * 7 + i / 5) % 3 != 0 {
            *x = f32::NAN;
        }
    }
    data.row_mut(4).fill(f32::NAN);
    data
}

fn draw(executable: &dyn Executable, data: &Array2<f32>, batch: usize, seed: u64) -> [Array2<f32>; 2] {
    let starts: Vec<usize> = (0..ROWS).step_by(batch).collect();
    let batches = |draw: &dyn Fn(usize, usize) -> Array2<f32>| {
        let parts: Vec<_> = starts.iter().map(|&start| draw(start, (start + batch).min(ROWS))).collect();
        concatenate(Axis(0), &parts.iter().map(|part| part.view()).collect::<Vec<_>>()).unwrap()
    };
    [
        batches(&|start, end| executable.sample(start as u64..end as u64, seed).unwrap()),
        batches(&|start, end| {
            executable.sample_conditional(data.slice(s![start..end, ..]), seed, start as u64).unwrap()
        }),
    ]
}

#[test]
fn the_batch_does_not_matter_and_the_seed_does() {
    for circuit in circuits() {
        for subject in subjects() {
            let executable = subject.backend.load(&circuit).unwrap();
            let data = evidence(&*executable);
            let all = draw(&*executable, &data, ROWS, 5);
            for batch in [1, 7, 16] {
                assert_eq!(draw(&*executable, &data, batch, 5), all, "{} batch {batch}", subject.backend.name());
            }
            let other = draw(&*executable, &data, ROWS, 6);
            assert!(other[0] != all[0] && other[1] != all[1], "another seed gives the same sample");
        }
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    for circuit in circuits() {
        let drawn: Vec<_> = [1, 2, 3]
            .into_iter()
            .map(|threads| {
                let executable = Cpu::new(Some(threads)).unwrap().load(&circuit).unwrap();
                draw(&*executable, &evidence(&*executable), ROWS, 5)
            })
            .collect();
        assert_eq!(drawn[0], drawn[1]);
        assert_eq!(drawn[0], drawn[2]);
    }
}

#[test]
fn backends_draw_the_same() {
    for circuit in circuits() {
        let executables: Vec<_> = subjects().iter().map(|s| s.backend.load(&circuit).unwrap()).collect();
        let data = evidence(&*executables[0]);
        let oracle = draw(&*executables[0], &data, ROWS, 5);
        for executable in &executables[1..] {
            for (given, expected) in draw(&**executable, &data, ROWS, 5).iter().zip(&oracle) {
                // A uniform number may fall between two roundings of the same distribution function, very rarely.
                let same = |a: f32, b: f32| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
                let rows = given.outer_iter().zip(expected.outer_iter());
                let different = rows.filter(|(a, b)| !a.iter().zip(b).all(|(a, b)| same(*a, *b))).count();
                assert!(different <= 1, "{different} of {ROWS} rows differ from the reference");
            }
        }
    }
}

#[test]
fn evidence_is_kept_and_nothing_stays_missing() {
    for circuit in circuits() {
        for subject in subjects() {
            let executable = subject.backend.load(&circuit).unwrap();
            let data = evidence(&*executable);
            let completed = [
                executable.sample_conditional(data.view(), 1, 0).unwrap(),
                executable.mpe(data.view(), Mpe::Greedy).unwrap(),
                executable.mpe(data.view(), Mpe::MaxProduct).unwrap(),
            ];
            for rows in completed {
                for (given, x) in data.iter().zip(&rows) {
                    assert!(if given.is_nan() { x.is_finite() } else { given == x });
                }
                assert!(executable.log_likelihood(rows.view()).unwrap().iter().all(|ll| ll.is_finite()));
            }
        }
    }
}

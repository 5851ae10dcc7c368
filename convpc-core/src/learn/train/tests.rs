use std::{
    ops::ControlFlow::{Break, Continue},
    panic::{AssertUnwindSafe, catch_unwind},
};

use ndarray::Array2;

use super::*;
use crate::{Backend, Circuit, ConvPc, Family, OptimizerState, Reference, em};

fn circuit() -> Circuit {
    ConvPc::new(3, 3, 1, Family::categorical(3)).channels(3).depth(2).repetitions(2).build(4).unwrap()
}

fn data() -> Array2<f32> {
    Array2::from_shape_fn((50, 9), |(row, v)| ((row * 7 + v * (1 + row % 3)) % 5 / 2) as f32)
}

fn options(rule: Rule) -> Options {
    Options { annealing: 0.9, epochs: 3, batch_size: 9, ..Options::new(rule) }
}

fn rules() -> [Rule; 2] {
    [Rule::Em(em::Options::default()), Rule::MiniBatchEm(MiniBatchEm::default())]
}

/// One EM step on all data, from these parameters.
fn step(executable: &mut dyn Executable) -> Parameters {
    executable.reset_statistics();
    executable.accumulate(data().view()).unwrap();
    executable.em_step(&em::Options::default()).unwrap();
    executable.parameters().unwrap()
}

/// Whatever a callback does, an executable counts exactly while it runs and after it.
#[test]
fn a_callback_that_panics_leaves_the_exact_posterior() {
    let (circuit, data) = (circuit(), data());
    for rule in rules() {
        for stop in [2, 3, 8] {
            let trainer = Trainer::new(options(rule), data.view(), None).unwrap();
            let mut executable = Reference.load(&circuit).unwrap();
            let mut events = 0;
            let result = catch_unwind(AssertUnwindSafe(|| {
                trainer.run(&mut *executable, &mut State::default(), &mut |_| {
                    events += 1;
                    assert!(events < stop, "a callback that panics");
                    Continue(())
                })
            }));
            assert!(result.is_err());
            let mut fresh = Reference.load(&executable.circuit().unwrap()).unwrap();
            assert_eq!(step(&mut *executable), step(&mut *fresh), "{rule:?}, event {stop}");
        }
    }
}

/// The error of a run that goes on from a state.
fn refusal(options: Options, state: State) -> Option<String> {
    let data = data();
    let trainer = Trainer::new(options, data.view(), None).unwrap();
    let mut executable = Reference.load(&circuit()).unwrap();
    let mut events = 0;
    let stop = &mut |_: Event| {
        events += 1;
        if events > 40 { Break(()) } else { Continue(()) }
    };
    trainer.run(&mut *executable, &mut { state }, stop).err().map(|error| error.to_string())
}

fn best(epoch: usize) -> Option<Best> {
    Some(Best { epoch, mean_log_likelihood: -1.0, parameters: circuit().parameters().clone() })
}

fn seen(rows: u64) -> Accumulated {
    Accumulated { rows, impossible_rows: 0, log_likelihood: -10.0 }
}

#[test]
fn states_that_no_run_leaves_are_refused() {
    let most = usize::MAX;
    let states = [
        ("more epochs than the run has", State { epoch: 4, ..State::default() }),
        ("all epochs and not finished", State { epoch: 3, ..State::default() }),
        ("the largest epoch", State { epoch: most, ..State::default() }),
        ("a batch too many", State { batch: 7, seen: seen(50), ..State::default() }),
        ("the largest batch", State { batch: most, ..State::default() }),
        ("batches without rows", State { batch: 6, ..State::default() }),
        ("rows of other batches", State { batch: 2, seen: seen(20), ..State::default() }),
        ("rows before the first batch", State { seen: seen(3), ..State::default() }),
        (
            "more impossible rows than rows",
            State { batch: 3, seen: Accumulated { impossible_rows: 26, ..seen(25) }, ..State::default() },
        ),
        ("the best epoch still to come", State { epoch: 1, best: best(1), ..State::default() }),
        ("the largest best epoch", State { epoch: 1, best: best(most), ..State::default() }),
        ("a last epoch still to come", State { epoch: 1, main_epochs: Some(2), ..State::default() }),
        ("the largest last epoch", State { epoch: 1, main_epochs: Some(most), ..State::default() }),
        ("no epochs of the rule", State { epoch: 1, main_epochs: Some(0), ..State::default() }),
        ("final steps that are over", State { epoch: 2, main_epochs: Some(1), ..State::default() }),
        (
            "batches of a final step",
            State { epoch: 1, main_epochs: Some(1), batch: 1, seen: seen(8), ..State::default() },
        ),
        ("finished before the end", State { epoch: 1, finished: true, ..State::default() }),
    ];
    for (what, state) in states {
        let options = Options { final_em_steps: 1, ..options(rules()[1]) };
        let error = refusal(options, state).unwrap_or_else(|| panic!("{what} was accepted"));
        assert!(error.contains("the state of the run is") && error.contains("give the options and data"), "{error}");
    }
}

/// With overflow checks, as tests have them, a counter that wraps panics.
#[test]
fn counters_do_not_overflow() {
    let most = usize::MAX;
    for rule in rules() {
        let huge = Options {
            epochs: most - 5,
            final_em_steps: 5,
            batch_size: most,
            valid_fraction: Some(0.2),
            checkpoint_batches: Some(most),
            evaluate_every: most,
            ..options(rule)
        };
        let optimizer = OptimizerState { steps: u64::MAX, ..OptimizerState::default() };
        for epoch in [0, 1, most - 6] {
            let state = State { epoch, optimizer: optimizer.clone(), ..State::default() };
            assert_eq!(refusal(huge, state), None, "{rule:?}, epoch {epoch}");
        }
        let small = Options { batch_size: 9, ..huge };
        assert_eq!(refusal(small, State { epoch: most - 6, optimizer, ..State::default() }), None, "{rule:?}");
        let rest = State { epoch: most - 1, main_epochs: Some(most - 5), ..State::default() };
        assert_eq!(refusal(huge, rest), None);
        let error = Options { final_em_steps: 6, ..huge }.check().unwrap_err().to_string();
        assert!(error.contains("final_em_steps is 6; expected at most 5"), "{error}");
    }
    let mut sum = Accumulated { rows: u64::MAX, impossible_rows: u64::MAX, log_likelihood: 0.0 };
    sum.add(&Accumulated { impossible_rows: 1, ..seen(2) });
    assert_eq!((sum.rows, sum.impossible_rows), (u64::MAX, u64::MAX));
}

#[test]
fn observed_variables_are_those_of_the_rows_that_are_used() {
    let mut data = data();
    // Row r misses its first r mod 10 values, of nine.
    for (row, mut values) in data.outer_iter_mut().enumerate() {
        values.iter_mut().take(row % 10).for_each(|x| *x = f32::NAN);
    }
    let mean = |rows: &[usize]| rows.iter().map(|row| 9 - (row % 10).min(9)).sum::<usize>() as f64 / rows.len() as f64;
    let all: Vec<usize> = (0..50).collect();
    let trainer = Trainer::new(options(rules()[0]), data.view(), Some(data.view())).unwrap();
    assert_eq!(trainer.observed(), Observed { train: mean(&all), valid: Some(mean(&all)) });
    let options = Options { valid_fraction: Some(0.3), ..options(rules()[0]) };
    let trainer = Trainer::new(options, data.view(), None).unwrap();
    let held_out: Vec<usize> = all.into_iter().filter(|row| !trainer.rows().contains(row)).collect();
    assert_eq!(trainer.observed(), Observed { train: mean(trainer.rows()), valid: Some(mean(&held_out)) });
}

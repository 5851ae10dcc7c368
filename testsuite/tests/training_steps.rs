//! A training run is its batches one after another, and reports what they were. Here all rows are alike, so that a batch is known
//! whatever the order of the rows.

use std::ops::ControlFlow::{Break, Continue};

use convpc::{
    Adam, Backend, Blend, Circuit, ConvPc, Executable, Family, MiniBatchEm, OptimizerState, Parameters, Reference,
    Rule, Schedule, em,
    train::{Epoch, Event, Options, State, Trainer},
};
use ndarray::{Array2, s};
use testsuite::assert_close;

const ROWS: usize = 40;
const VARIABLES: usize = 6;

fn circuit() -> Circuit {
    ConvPc::new(2, 3, 1, Family::categorical(3)).channels(3).depth(2).repetitions(3).build(4).unwrap()
}

/// One row, so many times.
fn alike(rows: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, VARIABLES), |(_, v)| if v == 4 { f32::NAN } else { (v % 3) as f32 })
}

fn mini_batch() -> MiniBatchEm {
    MiniBatchEm { pseudocount: 0.5, ..MiniBatchEm::default() }
}

fn assert_same(what: &str, given: &Parameters, expected: &Parameters) {
    given.0.iter().zip(&expected.0).for_each(|(a, b)| assert_close(what, a, b, (1e-9, 1e-12)));
}

/// Runs a trainer; what it leaves and reports.
fn run(trainer: &Trainer, executable: &mut dyn Executable) -> (Parameters, Vec<Epoch>) {
    let mut epochs = Vec::new();
    let observe = &mut |event: Event| {
        if let Event::Epoch(epoch) = event {
            epochs.push(epoch);
        }
        Continue(())
    };
    trainer.run(executable, &mut State::default(), observe).unwrap();
    (executable.parameters().unwrap(), epochs)
}

/// Thirty of forty rows in batches of ten. The pseudocount belongs to the thirty; the inverse temperature grows from one over the number
/// of variables.
#[test]
fn a_run_is_its_batches_one_after_another() {
    let (circuit, data) = (circuit(), alike(ROWS));
    let blend = MiniBatchEm { blend: Blend::Parameters, momentum: 0.5, ..mini_batch() };
    let known = MiniBatchEm { data_rows: Some(1000), ..mini_batch() };
    let adam = Rule::Adam(Adam { weight_decay: 0.1, ..Adam::default() });
    for rule in [Rule::MiniBatchEm(mini_batch()), Rule::MiniBatchEm(blend), Rule::MiniBatchEm(known), adam] {
        let options = Options {
            epochs: 2,
            batch_size: 10,
            valid_fraction: Some(0.25),
            annealing: 0.6,
            step: Schedule::linear(0.5, 0.1),
            ..Options::new(rule)
        };
        let trainer = Trainer::new(options, data.view(), None).unwrap();
        let (given, epochs) = run(&trainer, &mut *Reference.load(&circuit).unwrap());

        let with_rows = match rule {
            Rule::MiniBatchEm(rule) => {
                Rule::MiniBatchEm(MiniBatchEm { data_rows: rule.data_rows.or(Some(30)), ..rule })
            }
            rule => rule,
        };
        let (mut expected, mut state) = (Reference.load(&circuit).unwrap(), OptimizerState::default());
        for batch in 0..6 {
            let done = f64::from(batch) / 6.0;
            let inverse_temperature = (VARIABLES as f64).powf((done / 0.6 - 1.0).min(0.0));
            expected.set_inverse_temperature(inverse_temperature).unwrap();
            expected.accumulate(data.slice(s![..10, ..])).unwrap();
            expected.update(&with_rows, 0.5 - 0.4 * (f64::from(batch) + 0.5) / 6.0, &mut state).unwrap();
        }
        assert_same(&format!("{rule:?}"), &given, &expected.parameters().unwrap());
        assert_eq!(epochs.iter().map(|epoch| (epoch.steps, epoch.rows)).collect::<Vec<_>>(), [(3, 30), (6, 30)]);
    }
}

/// Early stopping ends the rule while repetitions are still annealed; the final steps are exact all the same.
#[test]
fn final_steps_of_em_are_exact_however_early_the_run_stopped() {
    let (circuit, data) = (circuit(), alike(ROWS));
    // No learning, so that the first epoch is the best.
    let options = Options {
        epochs: 50,
        batch_size: ROWS,
        annealing: 0.9,
        patience: Some(1),
        final_em_steps: 1,
        step: Schedule::constant(0.0),
        ..Options::new(Rule::Adam(Adam::default()))
    };
    let trainer = Trainer::new(options, data.view(), Some(data.view())).unwrap();
    let (given, epochs) = run(&trainer, &mut *Reference.load(&circuit).unwrap());
    assert_eq!(epochs.iter().map(|epoch| epoch.is_final_em).collect::<Vec<_>>(), [false, false, true]);
    let mut expected = Reference.load(&circuit).unwrap();
    expected.accumulate(data.view()).unwrap();
    expected.em_step(&options.final_em).unwrap();
    assert_same("the final step", &given, &expected.parameters().unwrap());
}

#[test]
fn final_steps_have_the_options_of_the_rule() {
    let (pseudocount, minimum_std) = (0.7, 0.2);
    let em = em::Options { pseudocount, minimum_std, bias_correction: true };
    assert_eq!(Options::new(Rule::Em(em)).final_em, em);
    let rule = MiniBatchEm { pseudocount, minimum_std, ..MiniBatchEm::default() };
    let without_correction = em::Options { bias_correction: false, ..em };
    assert_eq!(Options::new(Rule::MiniBatchEm(rule)).final_em, without_correction);
    let rule = Adam { minimum_std, ..Adam::default() };
    let without_pseudocount = em::Options { pseudocount: 0.0, ..without_correction };
    assert_eq!(Options::new(Rule::Adam(rule)).final_em, without_pseudocount);
}

/// Sixteen rows of which three are impossible: variable 0 is never 2.
fn partly_impossible() -> (Circuit, Array2<f32>) {
    let (structure, mut parameters) = circuit().into_parts();
    let mut first = parameters.0[0].index_axis_mut(ndarray::Axis(0), 0);
    first.indexed_iter_mut().for_each(|(at, p)| *p = [0.5, 0.5, 0.0][at[2]]);
    let mut data = alike(16);
    [2, 3, 11].into_iter().for_each(|row| data[[row, 0]] = 2.0);
    (Circuit::new(structure, parameters).unwrap(), data)
}

#[test]
fn batches_and_epochs_report_the_rows_seen_so_far() {
    let (circuit, data) = (circuit(), alike(12));
    let mean = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap()[0];
    let options = Options { epochs: 1, batch_size: 4, ..Options::new(Rule::Em(em::Options::default())) };
    let trainer = Trainer::new(options, data.view(), None).unwrap();
    let mut batches = Vec::new();
    let observe = &mut |event: Event| {
        if let Event::Batch { epoch, rows, of, mean_log_likelihood } = event {
            assert_close("the mean so far", &[mean_log_likelihood], &[mean], (1e-12, 0.0));
            batches.push((epoch, rows, of));
        }
        Continue(())
    };
    trainer.run(&mut *Reference.load(&circuit).unwrap(), &mut State::default(), observe).unwrap();
    assert_eq!(batches, [(0, 4, 12), (0, 8, 12), (0, 12, 12)]);
}

#[test]
fn rows_of_probability_zero_are_reported() {
    let (circuit, data) = partly_impossible();
    for rule in [Rule::Em(em::Options::default()), Rule::MiniBatchEm(mini_batch())] {
        let options = Options { epochs: 2, batch_size: 16, ..Options::new(rule) };
        let trainer = Trainer::new(options, data.view(), None).unwrap();
        let (_, epochs) = run(&trainer, &mut *Reference.load(&circuit).unwrap());
        let first = epochs[0];
        assert_eq!((first.rows, first.impossible_rows, first.mean_log_likelihood), (16, 3, f64::NEG_INFINITY));
    }
    let mut reported = Vec::new();
    let observe = &mut |progress| {
        if let em::Progress::Epoch { impossible_rows, .. } = progress {
            reported.push(impossible_rows);
        }
        Continue(())
    };
    let mut executable = Reference.load(&circuit).unwrap();
    em::fit(&mut *executable, data.view(), 2, 5, &em::Options::default(), observe).unwrap();
    assert_eq!(reported, [3, 3]);
}

/// A run is a function of its data: what was counted before it is not learned from, and what it counted when it was stopped is not
/// left.
#[test]
fn counts_from_before_a_run_and_of_a_stopped_one_are_forgotten() {
    let (circuit, data) = (circuit(), alike(20));
    let other = Array2::zeros((30, VARIABLES));
    let options = em::Options::default();
    for rule in [Rule::Em(options), Rule::MiniBatchEm(mini_batch())] {
        let trainer =
            Trainer::new(Options { epochs: 2, batch_size: 8, ..Options::new(rule) }, data.view(), None).unwrap();
        let [clean, used] = [false, true].map(|used| {
            let mut executable = Reference.load(&circuit).unwrap();
            if used {
                executable.accumulate(other.view()).unwrap();
            }
            run(&trainer, &mut *executable).0
        });
        assert_eq!(clean, used, "{rule:?}");
        // The same where a run goes on from its first epoch.
        let state = State { epoch: 1, ..State::default() };
        let [clean, used] = [false, true].map(|used| {
            let mut executable = Reference.load(&circuit).unwrap();
            if used {
                executable.accumulate(other.view()).unwrap();
            }
            trainer.run(&mut *executable, &mut state.clone(), &mut |_| Continue(())).unwrap();
            executable.parameters().unwrap()
        });
        assert_eq!(clean, used, "{rule:?}, resumed");
        let mut executable = Reference.load(&circuit).unwrap();
        let stop = &mut |event: Event| if matches!(event, Event::Batch { .. }) { Break(()) } else { Continue(()) };
        trainer.run(&mut *executable, &mut State::default(), stop).unwrap();
        assert_eq!(executable.statistics().unwrap().rows, 0, "{rule:?}");
    }
    let [clean, used] = [false, true].map(|used| {
        let mut executable = Reference.load(&circuit).unwrap();
        if used {
            executable.accumulate(other.view()).unwrap();
        }
        em::fit(&mut *executable, data.view(), 1, 8, &options, &mut |_| Continue(())).unwrap();
        executable.parameters().unwrap()
    });
    assert_eq!(clean, used, "em::fit");
    let mut executable = Reference.load(&circuit).unwrap();
    em::fit(&mut *executable, data.view(), 1, 8, &options, &mut |_| Break(())).unwrap();
    assert_eq!(executable.statistics().unwrap().rows, 0, "em::fit");
}

/// The end of an epoch has its own checkpoint.
#[test]
fn checkpoints_inside_an_epoch_are_before_its_last_batch() {
    let (circuit, data) = (circuit(), alike(24));
    let options = Options { epochs: 2, batch_size: 4, ..Options::new(Rule::MiniBatchEm(mini_batch())) };
    for (checkpoint_batches, inside) in [(1, vec![1, 2, 3, 4, 5]), (2, vec![2, 4]), (3, vec![3]), (6, vec![])] {
        let options = Options { checkpoint_batches: Some(checkpoint_batches), ..options };
        let trainer = Trainer::new(options, data.view(), None).unwrap();
        let mut checkpoints = Vec::new();
        let observe = &mut |event: Event| {
            if let Event::Checkpoint { state, .. } = event {
                checkpoints.push((state.epoch, state.batch));
            }
            Continue(())
        };
        trainer.run(&mut *Reference.load(&circuit).unwrap(), &mut State::default(), observe).unwrap();
        let epoch = |epoch| [0].into_iter().chain(inside.iter().copied()).map(move |batch| (epoch, batch));
        let expected: Vec<_> = epoch(0).chain(epoch(1)).chain([(2, 0)]).collect();
        assert_eq!(checkpoints, expected, "every {checkpoint_batches}");
    }
}

/// An observer that has had enough after an epoch, or after its checkpoint, is asked no more.
#[test]
fn a_run_stops_after_the_event_that_was_answered_with_enough() {
    let (circuit, data) = (circuit(), alike(20));
    let options = Options { epochs: 5, batch_size: 10, ..Options::new(Rule::MiniBatchEm(mini_batch())) };
    let trainer = Trainer::new(options, data.view(), None).unwrap();
    for at_epoch in [true, false] {
        let mut events = Vec::new();
        let observe = &mut |event: Event| {
            let (name, enough) = match event {
                Event::Batch { .. } => ("batch", false),
                Event::Epoch(_) => ("epoch", at_epoch),
                Event::Checkpoint { state, .. } => ("checkpoint", !at_epoch && state.epoch == 1),
            };
            events.push(name);
            if enough { Break(()) } else { Continue(()) }
        };
        let mut state = State::default();
        trainer.run(&mut *Reference.load(&circuit).unwrap(), &mut state, observe).unwrap();
        // The parameters of an epoch that is over are reported whatever the answer to it.
        assert_eq!(events, ["checkpoint", "batch", "batch", "epoch", "checkpoint"]);
        assert_eq!((state.epoch, state.batch, state.finished), (1, 0, false));
    }
}

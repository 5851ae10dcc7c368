//! Training runs: the same bytes after any interruption, early stopping, what is asked for and what is refused.

use std::ops::ControlFlow::{Break, Continue};

use convpc::{
    Adam, Backend, Circuit, ConvPc, Cpu, Error, Family, MiniBatchEm, Parameters, Reference, Rule, Schedule, em,
    train::{Epoch, Event, Options, State, Trainer},
};
use ndarray::{Array2, ArrayView2};
use testsuite::{assert_close, subjects};

fn circuit() -> Circuit {
    ConvPc::new(3, 3, 1, Family::categorical(3)).channels(3).depth(1).build(4).unwrap()
}

/// Draws of another circuit, some values missing.
fn data(circuit: &Circuit, rows: u64) -> Array2<f32> {
    let other = Circuit::random(circuit.structure().clone(), 77).unwrap();
    let mut data = Reference.load(&other).unwrap().sample(0..rows, 1).unwrap();
    data.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
    data
}

fn rules() -> [Rule; 3] {
    let em = em::Options { pseudocount: 0.1, ..Default::default() };
    let mini_batch = MiniBatchEm { momentum: 0.8, pseudocount: 0.1, ..Default::default() };
    [Rule::Em(em), Rule::MiniBatchEm(mini_batch), Rule::Adam(Adam { clip: Some(1.0), ..Default::default() })]
}

/// What a run leaves: the parameters, its state, the epochs, and all checkpoints.
struct Run {
    parameters: Parameters,
    state: State,
    epochs: Vec<Epoch>,
    checkpoints: Vec<(Parameters, State)>,
}

/// Trains from a circuit and a state; `limit` stops at that batch of the whole run.
fn run(backend: &dyn Backend, circuit: &Circuit, trainer: &Trainer, state: State, limit: usize) -> Run {
    let (mut executable, mut state) = (backend.load(circuit).unwrap(), state);
    let (mut epochs, mut checkpoints, mut batches) = (vec![], vec![], 0);
    let observe = &mut |event: Event| {
        match event {
            Event::Batch { .. } => batches += 1,
            Event::Epoch(epoch) => epochs.push(epoch),
            Event::Checkpoint { parameters, state } => checkpoints.push((parameters.clone(), state.clone())),
        }
        if batches >= limit { Break(()) } else { Continue(()) }
    };
    trainer.run(&mut *executable, &mut state, observe).unwrap();
    Run { parameters: executable.parameters().unwrap(), state, epochs, checkpoints }
}

fn whole(backend: &dyn Backend, circuit: &Circuit, trainer: &Trainer) -> Run {
    run(backend, circuit, trainer, State::default(), usize::MAX)
}

/// Every number to the last bit; NaN would be equal to nothing.
fn assert_same(a: &Run, b: &Run, what: &str) {
    assert_eq!(a.parameters, b.parameters, "{what}");
    assert_eq!(a.state, b.state, "{what}");
}

#[test]
fn a_run_that_goes_on_from_any_checkpoint_ends_with_the_same_bytes() {
    // Weights enough that some change when they are rounded to f32, scaled to a sum of one and rounded again.
    let circuit = ConvPc::new(3, 3, 1, Family::categorical(3)).channels(8).depth(2).repetitions(2).build(4).unwrap();
    let data = data(&circuit, 50);
    // One thread: two may add their counts in either order.
    let cpu: Box<dyn Backend> = Box::new(Cpu::new(Some(1)).unwrap());
    let others = subjects().into_iter().map(|subject| subject.backend).filter(|backend| backend.name() != "cpu");
    for backend in others.chain([cpu]) {
        for rule in rules() {
            let options = Options {
                epochs: 3,
                batch_size: 9,
                valid_fraction: Some(0.2),
                final_em_steps: 1,
                seed: 5,
                checkpoint_batches: Some(2),
                annealing: 0.5,
                ..Options::new(rule)
            };
            let trainer = Trainer::new(options, data.view(), None).unwrap();
            assert_eq!(trainer.rows().len(), 40);
            let uninterrupted = whole(&*backend, &circuit, &trainer);
            assert_eq!(uninterrupted.epochs.len(), 4);
            // Batches 2 and 4 of the five in an epoch; EM takes no steps inside one.
            let inside = if rule.is_full_batch() { 0 } else { 3 * 2 };
            assert_eq!(uninterrupted.checkpoints.len(), 1 + 4 + inside);
            for (parameters, state) in &uninterrupted.checkpoints {
                let what = format!("{} {rule:?} {}:{}", backend.name(), state.epoch, state.batch);
                let circuit = Circuit::new(circuit.structure().clone(), parameters.clone()).unwrap();
                let resumed = run(&*backend, &circuit, &trainer, state.clone(), usize::MAX);
                assert_same(&resumed, &uninterrupted, &what);
                assert_eq!(resumed.epochs, uninterrupted.epochs[state.epoch..], "{what}");
            }
            let again = whole(&*backend, &circuit, &trainer);
            assert_same(&again, &uninterrupted, "again");
        }
    }
}

#[test]
fn epochs_without_an_evaluation_change_when_it_is_looked_not_what_is_learned() {
    let circuit = ConvPc::new(3, 3, 1, Family::categorical(3)).channels(8).depth(2).build(4).unwrap();
    let data = data(&circuit, 50);
    for rule in rules() {
        let options = Options { batch_size: 9, valid_fraction: Some(0.2), epochs: 5, ..Options::new(rule) };
        let [often, seldom] = [1, 2].map(|evaluate_every| {
            let options = Options { evaluate_every, final_em_steps: 1, ..options };
            let trainer = Trainer::new(options, data.view(), None).unwrap();
            let whole = whole(&Reference, &circuit, &trainer);
            for (parameters, state) in &whole.checkpoints {
                let circuit = Circuit::new(circuit.structure().clone(), parameters.clone()).unwrap();
                assert_same(&run(&Reference, &circuit, &trainer, state.clone(), usize::MAX), &whole, "resumed");
            }
            whole
        });
        let evaluated = |run: &Run| run.epochs.iter().map(|epoch| epoch.validation).collect::<Vec<_>>();
        let (every, some) = (evaluated(&often), evaluated(&seldom));
        // The fifth is the rule's last, the sixth the step of EM.
        assert_eq!(some[..5], [None, every[1], None, every[3], every[4]], "{rule:?}");
        assert!(some[5].is_some());
        let ends = |run: &Run| run.checkpoints.iter().map(|(_, state)| state.epoch).collect::<Vec<_>>();
        assert_eq!((ends(&often), ends(&seldom)), ((0..=6).collect(), vec![0, 2, 4, 5, 6]), "{rule:?}");
    }
}

/// The last event of a run that is stopped is a checkpoint, from which it goes on to the same bytes.
#[test]
fn a_run_can_be_stopped_anywhere_and_gone_on_with() {
    let circuit = ConvPc::new(3, 3, 1, Family::categorical(3)).channels(8).depth(2).repetitions(2).build(4).unwrap();
    let data = data(&circuit, 50);
    // One thread: two may add their counts in either order.
    let cpu: Box<dyn Backend> = Box::new(Cpu::new(Some(1)).unwrap());
    let others = subjects().into_iter().map(|subject| subject.backend).filter(|backend| backend.name() != "cpu");
    for backend in others.chain([cpu]) {
        for rule in rules() {
            let options = Options { epochs: 2, batch_size: 10, ..Options::new(rule) };
            let trainer = Trainer::new(options, data.view(), None).unwrap();
            let uninterrupted = whole(&*backend, &circuit, &trainer);
            for limit in 1..=10 {
                let what = format!("{} {rule:?} {limit}", backend.name());
                let stopped = run(&*backend, &circuit, &trainer, State::default(), limit);
                let (parameters, state) = stopped.checkpoints.last().unwrap().clone();
                assert_eq!(state, stopped.state, "{what}");
                // EM takes no step inside an epoch.
                let batches = if rule.is_full_batch() { limit / 5 * 5 } else { limit };
                assert_eq!(state.epoch * 5 + state.batch, batches, "{what}");
                let circuit = Circuit::new(circuit.structure().clone(), parameters).unwrap();
                let resumed = run(&*backend, &circuit, &trainer, state, usize::MAX);
                assert_same(&resumed, &uninterrupted, &what);
            }
        }
    }
}

#[test]
fn the_order_of_the_rows_is_the_seeds_and_every_epochs_own() {
    let circuit = circuit();
    let data = data(&circuit, 40);
    let parameters = |seed: u64, rule: Rule, epochs: usize| {
        let options = Options { epochs, batch_size: 8, seed, step: Schedule::constant(0.3), ..Options::new(rule) };
        whole(&Reference, &circuit, &Trainer::new(options, data.view(), None).unwrap()).parameters
    };
    let [em, mini_batch, _] = rules();
    assert_eq!(parameters(1, em, 2), parameters(2, em, 2));
    assert_eq!(parameters(1, mini_batch, 2), parameters(1, mini_batch, 2));
    assert_ne!(parameters(1, mini_batch, 2), parameters(2, mini_batch, 2));
    // Two epochs in one order are not what a run does.
    let twice = {
        let options =
            Options { epochs: 1, batch_size: 8, seed: 1, step: Schedule::constant(0.3), ..Options::new(mini_batch) };
        let trainer = Trainer::new(options, data.view(), None).unwrap();
        let first = whole(&Reference, &circuit, &trainer);
        let reached = Circuit::new(circuit.structure().clone(), first.parameters).unwrap();
        let state = State { optimizer: first.state.optimizer, ..State::default() };
        run(&Reference, &reached, &trainer, state, usize::MAX).parameters
    };
    assert_ne!(parameters(1, mini_batch, 2), twice);
}

#[test]
fn em_is_em() {
    let circuit = circuit();
    let data = data(&circuit, 40);
    let [rule, ..] = rules();
    let options = Options { epochs: 4, batch_size: 7, ..Options::new(rule) };
    for subject in subjects() {
        let run = whole(&*subject.backend, &circuit, &Trainer::new(options, data.view(), None).unwrap());
        let mut executable = subject.backend.load(&circuit).unwrap();
        let mut curve = Vec::new();
        let Rule::Em(em) = rule else { unreachable!() };
        em::fit(&mut *executable, data.view(), 4, 40, &em, &mut |progress| {
            if let em::Progress::Epoch { mean_log_likelihood, .. } = progress {
                curve.push(mean_log_likelihood);
            }
            Continue(())
        })
        .unwrap();
        let tolerance = (100.0 * subject.relative, 10.0 * subject.absolute);
        for (a, b) in run.parameters.0.iter().zip(&executable.parameters().unwrap().0) {
            assert_close("parameters", a, b, tolerance);
        }
        let means: Vec<f64> = run.epochs.iter().map(|epoch| epoch.mean_log_likelihood).collect();
        assert_close("curve", &means, &curve, tolerance);
        assert!(run.epochs.iter().all(|e| (e.rows, e.step_size, e.validation) == (40, 1.0, None)));
        assert_eq!(run.state.optimizer.steps, 4);
    }
}

/// Rows of which training knows nothing are soon explained worse and worse.
#[test]
fn a_run_stops_when_validation_has_not_been_better_for_long_enough() {
    let circuit = circuit();
    let train = data(&circuit, 12);
    let valid = Reference.load(&Circuit::random(circuit.structure().clone(), 78).unwrap()).unwrap();
    let valid = valid.sample(0..50, 2).unwrap();
    let [em, ..] = rules();
    for (patience, final_em_steps) in [(1, 0), (3, 0), (3, 2)] {
        let options = Options { epochs: 60, patience: Some(patience), final_em_steps, ..Options::new(em) };
        let trainer = Trainer::new(options, train.view(), Some(valid.view())).unwrap();
        let run = whole(&Reference, &circuit, &trainer);
        let scores: Vec<f64> = run.epochs.iter().map(|epoch| epoch.validation.unwrap()).collect();
        let main = run.state.main_epochs.unwrap();
        assert_eq!(main + final_em_steps, scores.len());
        assert!(main < 60, "the case must stop early");
        // The best of the main epochs is `patience` before the last.
        let best = (0..main).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        assert_eq!(best, main - 1 - patience);
        assert!((0..best).all(|epoch| run.epochs[epoch].is_best == scores[..epoch].iter().all(|s| *s < scores[epoch])));
        let mean = |parameters: &Parameters, data: ArrayView2<f32>| {
            let circuit = Circuit::new(circuit.structure().clone(), parameters.clone()).unwrap();
            Reference.load(&circuit).unwrap().log_likelihood(data).unwrap().mean().unwrap()
        };
        let kept = run.state.best.unwrap();
        assert_eq!(kept.epoch, (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap());
        assert_close("score", &[mean(&kept.parameters, valid.view())], &[kept.mean_log_likelihood], (1e-12, 0.0));
        if final_em_steps > 0 {
            // It goes on from the best parameters, not from the last.
            let (best_parameters, _) = &run.checkpoints[1 + best];
            let expected = mean(best_parameters, train.view());
            assert_close(
                "start of the final steps",
                &[run.epochs[main].mean_log_likelihood],
                &[expected],
                (1e-12, 0.0),
            );
            assert!(run.epochs[main].is_final_em && !run.epochs[main - 1].is_final_em);
        }
        // Looked at less often it stops at a look, and the final steps are looked at all the same.
        let trainer = Trainer::new(Options { evaluate_every: 4, ..options }, train.view(), Some(valid.view())).unwrap();
        let run = whole(&Reference, &circuit, &trainer);
        let main = run.state.main_epochs.unwrap();
        assert_eq!((main % 4, run.epochs.len()), (0, main + final_em_steps));
        assert!(main < 60 && run.epochs[main - 1..].iter().all(|epoch| epoch.validation.is_some()));
    }
}

/// One channel is learned exactly in the first step; all later epochs leave the score as it is.
#[test]
fn of_epochs_that_score_the_same_the_first_is_the_best() {
    let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(1).depth(1).build(4).unwrap();
    let data = Array2::from_shape_fn((16, 4), |(row, v)| (row >> v & 1) as f32);
    let [rule, ..] = rules();
    for patience in [None, Some(2)] {
        let options = Options { epochs: 6, patience, ..Options::new(rule) };
        for subject in subjects() {
            let trainer = Trainer::new(options, data.view(), Some(data.view())).unwrap();
            let run = whole(&*subject.backend, &circuit, &trainer);
            let name = subject.backend.name();
            assert_eq!(run.epochs.len(), patience.map_or(6, |patience| 1 + patience), "{name}");
            assert!(
                run.epochs.iter().all(|epoch| epoch.validation == run.epochs[0].validation),
                "{name}: a tie is needed"
            );
            assert!(run.epochs.iter().all(|epoch| epoch.is_best == (epoch.epoch == 0)), "{name}");
            assert_eq!(run.state.best.unwrap().epoch, 0, "{name}");
        }
    }
}

#[test]
fn rows_that_are_not_held_out_are_trained_on_in_their_order() {
    let circuit = circuit();
    let data = data(&circuit, 60);
    let [rule, ..] = rules();
    let options = Options { epochs: 1, valid_fraction: Some(0.4), seed: 3, ..Options::new(rule) };
    let trainer = Trainer::new(options, data.view(), None).unwrap();
    let rows = trainer.rows();
    assert_eq!(rows.len(), 36);
    assert!(rows.is_sorted_by(|a, b| a < b) && rows.iter().all(|row| *row < 60), "{rows:?}");
    // Those held out are all others: the means are those of the two parts.
    let run = whole(&Reference, &circuit, &trainer);
    let held_out: Vec<usize> = (0..60).filter(|row| !rows.contains(row)).collect();
    let mean = |circuit: &Circuit, rows: &[usize]| {
        let rows = data.select(ndarray::Axis(0), rows);
        Reference.load(circuit).unwrap().log_likelihood(rows.view()).unwrap().mean().unwrap()
    };
    let learned = Circuit::new(circuit.structure().clone(), run.parameters).unwrap();
    let expected = [mean(&circuit, rows), mean(&learned, &held_out)];
    let [epoch] = run.epochs[..] else { panic!("one epoch") };
    assert_close("means", &[epoch.mean_log_likelihood, epoch.validation.unwrap()], &expected, (1e-12, 0.0));
    // Without validation, and with data of their own for it, all rows are trained on.
    let options = Options { valid_fraction: None, ..options };
    for valid in [None, Some(data.view())] {
        assert!(Trainer::new(options, data.view(), valid).unwrap().rows().iter().copied().eq(0..60));
    }
}

#[test]
fn step_sizes_follow_the_schedule_over_all_batches() {
    let circuit = circuit();
    let data = data(&circuit, 40);
    let [_, mini_batch, _] = rules();
    let options = Options { epochs: 5, batch_size: 10, step: Schedule::linear(0.5, 0.1), ..Options::new(mini_batch) };
    let run = whole(&Reference, &circuit, &Trainer::new(options, data.view(), None).unwrap());
    let expected = [3.5, 7.5, 11.5, 15.5, 19.5].map(|done| 0.5 - 0.4 * done / 20.0);
    let given: Vec<f64> = run.epochs.iter().map(|epoch| epoch.step_size).collect();
    assert_close("step sizes", &given, &expected, (1e-12, 0.0));
    assert_eq!(run.state.optimizer.steps, 20);
}

/// An epoch of mini-batch EM, or of Adam, is worth many of full-batch EM.
#[test]
fn mini_batches_learn_faster() {
    let circuit = ConvPc::new(4, 4, 1, Family::bernoulli()).channels(6).depth(2).build(4).unwrap();
    let data = Array2::from_shape_fn((600, 16), |(row, v)| ((row * 7 + v * (1 + row % 3)) % 5 / 3) as f32);
    let last = |rule: Rule, step: Schedule| {
        let options = Options { epochs: 4, batch_size: 30, step, ..Options::new(rule) };
        let run = whole(&Reference, &circuit, &Trainer::new(options, data.view(), None).unwrap());
        let reached = Circuit::new(circuit.structure().clone(), run.parameters).unwrap();
        Reference.load(&reached).unwrap().log_likelihood(data.view()).unwrap().mean().unwrap()
    };
    let [em, mini_batch, adam] = rules();
    let full = last(em, Schedule::constant(1.0));
    let mini = last(mini_batch, Schedule::linear(0.4, 0.02));
    let adam = last(adam, Schedule::cosine(0.3, 0.01));
    assert!(mini > full + 0.5 && adam > full + 0.1, "{full} {mini} {adam}");
}

#[test]
fn what_makes_no_run_is_refused() {
    let circuit = circuit();
    let data = data(&circuit, 40);
    let [em, mini_batch, adam] = rules();
    let options = Options::new(mini_batch);
    let refused = |options: Options, valid: Option<ArrayView2<f32>>| {
        Trainer::new(options, data.view(), valid).map(|_| ()).unwrap_err().to_string()
    };
    for (options, word) in [
        (Options { epochs: 0, ..options }, "epochs is 0"),
        (Options { batch_size: 0, ..options }, "batch_size is 0"),
        (Options { patience: Some(0), ..options }, "patience is 0"),
        (Options { patience: Some(2), ..options }, "none without validation data"),
        (Options { checkpoint_batches: Some(0), ..options }, "checkpoint_batches is 0"),
        (Options { evaluate_every: 0, ..options }, "evaluate_every is 0"),
        (Options { annealing: 1.0, ..options }, "the annealing is 1;"),
        (Options { annealing: -0.1, ..options }, "the annealing is -0.1"),
        (Options { annealing: f64::NAN, ..options }, "the annealing is NaN"),
        (Options { valid_fraction: Some(1.0), ..options }, "valid_fraction is 1"),
        (Options { valid_fraction: Some(f64::NAN), ..options }, "valid_fraction is NaN"),
        (Options { step: Schedule::constant(1.5), ..options }, "the step size of mini-batch EM is 1.5"),
        (Options { step: Schedule::constant(-1.0), ..Options::new(adam) }, "the first step size is -1"),
        (Options { final_em: em::Options { pseudocount: -1.0, ..Default::default() }, ..options }, "pseudocount is -1"),
        (Options::new(Rule::Adam(Adam { beta1: 1.0, ..Default::default() })), "beta1 is 1"),
    ] {
        let message = refused(options, None);
        assert!(message.contains(word), "{message}");
    }
    let both = Options { valid_fraction: Some(0.5), ..Options::new(em) };
    assert!(refused(both, Some(data.view())).contains("none beside validation data"));
    assert!(Trainer::new(both, Array2::zeros((1, 9)).view(), None).is_err());
    assert_eq!(Trainer::new(options, Array2::zeros((0, 9)).view(), None).err(), Some(Error::EmptyBatch));
    let none = Array2::zeros((0, 9));
    assert_eq!(Trainer::new(options, data.view(), Some(none.view())).err(), Some(Error::EmptyBatch));

    let trainer = Trainer::new(options, data.view(), None).unwrap();
    let mut executable = Reference.load(&circuit).unwrap();
    let mut refuses = |trainer: &Trainer, mut state: State| {
        trainer.run(&mut *executable, &mut state, &mut |_| Continue(())).unwrap_err()
    };
    for state in [State { epoch: 21, ..State::default() }, State { batch: 2, ..State::default() }] {
        assert!(refuses(&trainer, state).to_string().contains("give the options and data of the run"));
    }
    let other = whole(&Reference, &circuit, &Trainer::new(Options::new(adam), data.view(), None).unwrap());
    let state = State { optimizer: other.state.optimizer, ..State::default() };
    assert!(refuses(&trainer, state).to_string().contains("another update rule"));
    // Errors name the row of the data, not of a shuffled batch.
    let mut wrong = data.clone();
    wrong[[33, 4]] = 7.0;
    let error = refuses(&Trainer::new(options, wrong.view(), None).unwrap(), State::default());
    assert!(matches!(error, Error::OutsideSupport { row: 33, variable: 4, .. }), "{error}");
    let error = refuses(&Trainer::new(options, data.view(), Some(wrong.view())).unwrap(), State::default());
    assert!(matches!(error, Error::OutsideSupport { row: 33, variable: 4, .. }), "{error}");
}

/// What all rows have in common is most of what there is to learn. Whichever repetition is ahead in that takes all rows, unless all
/// learn it together at first.
#[test]
fn repetitions_part_where_they_are_annealed() {
    let circuit = ConvPc::new(12, 12, 1, Family::categorical(4)).channels(3).repetitions(2).build(4).unwrap();
    let data = Array2::from_shape_fn((300, 144), |(row, v)| {
        let own = v < 4 && row % 2 == 0;
        let noise = (row * 31 + v * 17 + row * v) % 23 == 0;
        ((v * v / 3 + usize::from(own) + usize::from(noise)) % 4) as f32
    });
    let least_weight = |annealing| {
        let rule = Rule::MiniBatchEm(MiniBatchEm::default());
        let options = Options { annealing, epochs: 10, batch_size: 50, ..Options::new(rule) };
        let run = whole(&Cpu::new(Some(1)).unwrap(), &circuit, &Trainer::new(options, data.view(), None).unwrap());
        run.parameters.0.last().unwrap().fold(1.0, |least: f64, w| least.min(*w))
    };
    let (annealed, exact) = (least_weight(0.3), least_weight(0.0));
    assert!(annealed > 0.2 && exact < 1e-4, "{annealed} {exact}");
}

/// What anneals is not what is left: a run's executable counts exactly afterwards, whether it ended or was stopped.
#[test]
fn runs_end_with_the_exact_posterior() {
    let circuit = ConvPc::new(3, 3, 1, Family::categorical(3)).channels(3).depth(2).repetitions(2).build(4).unwrap();
    let data = data(&circuit, 50);
    for stop in [1, 3, usize::MAX] {
        let options =
            Options { annealing: 0.9, epochs: 2, batch_size: 9, ..Options::new(Rule::MiniBatchEm(Default::default())) };
        let trainer = Trainer::new(options, data.view(), None).unwrap();
        let mut executable = Reference.load(&circuit).unwrap();
        let mut batches = 0;
        let mut observe = |event: Event| {
            batches += usize::from(matches!(event, Event::Batch { .. }));
            if batches < stop { Continue(()) } else { Break(()) }
        };
        trainer.run(&mut *executable, &mut State::default(), &mut observe).unwrap();
        let mut fresh = Reference.load(&executable.circuit().unwrap()).unwrap();
        let counts = [&mut executable, &mut fresh].map(|executable| {
            executable.accumulate(data.view()).unwrap();
            executable.statistics().unwrap()
        });
        assert_eq!(counts[0], counts[1], "{stop}");
    }
}

//! Checkpoints and metrics: what is written comes back to the last bit, and what is broken is noticed.

use std::{
    fs,
    ops::ControlFlow::{Break, Continue},
    path::Path,
};

use convpc::{
    Adam, Backend, Circuit, ConvPc, Family, MiniBatchEm, Reference, Rule, Schedule,
    checkpoint::{self, Fingerprint, Run},
    em,
    metrics::{Log, MetricsError, Record, auroc},
    model,
    train::{Epoch, Event, Observed, Options, State, Trainer},
};
use ndarray::{Array2, array};

fn circuit(family: Family) -> Circuit {
    ConvPc::new(3, 3, 1, family).channels(2).repetitions(2).depth(1).build(4).unwrap()
}

fn data() -> Array2<f32> {
    let mut data = Array2::from_shape_fn((20, 9), |(row, v)| ((row * 7 + v * (1 + row % 3)) % 5 / 2) as f32);
    data.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
    data
}

/// Each checkpoint of a run, saved, loaded and gone on with, through a file.
fn through_files(path: &Path, family: Family, rule: Rule) {
    let (circuit, data) = (circuit(family), data());
    // Numbers that have no short decimal form.
    let step = Schedule { from: 0.1 + 0.2, to: 1.0 / 30.0, ..Schedule::linear(1.0, 1.0) };
    let options = Options {
        step,
        epochs: 2,
        batch_size: 5,
        valid_fraction: Some(1.0 / 3.0),
        checkpoint_batches: Some(1),
        ..Options::new(rule)
    };
    let run = Run::new(options, Fingerprint::of(data.view()));
    let trainer = Trainer::new(options, data.view(), None).unwrap();
    let mut saved = Vec::new();
    let (mut executable, mut last) = (Reference.load(&circuit).unwrap(), State::default());
    let observe = &mut |event: Event| {
        if let Event::Checkpoint { parameters, state } = event {
            checkpoint::save(path, &run, circuit.structure(), parameters, state).unwrap();
            saved.push((fs::read(path).unwrap(), parameters.clone(), state.clone()));
        }
        Continue(())
    };
    trainer.run(&mut *executable, &mut last, observe).unwrap();
    assert!(last.finished && saved.len() >= 3);
    for (bytes, parameters, state) in saved {
        fs::write(path, &bytes).unwrap();
        let (run_again, circuit_again, mut state_again) = checkpoint::load(path).unwrap();
        assert_eq!((run_again, circuit_again.parameters(), &state_again), (run, &parameters, &state));
        checkpoint::save(path, &run, circuit.structure(), &parameters, &state).unwrap();
        assert!(fs::read(path).unwrap() == bytes, "the same contents, other bytes");
        assert_eq!(model::load(path).unwrap(), circuit_again);
        let mut executable_again = Reference.load(&circuit_again).unwrap();
        trainer.run(&mut *executable_again, &mut state_again, &mut |_| Continue(())).unwrap();
        assert_eq!(executable_again.parameters(), executable.parameters());
        assert_eq!(state_again, last);
    }
}

#[test]
fn every_rule_goes_on_from_a_file_as_if_nothing_had_been() {
    let folder = tempfile::tempdir().unwrap();
    for family in [Family::normal(), Family::categorical(3)] {
        for rule in [
            Rule::Em(em::Options { pseudocount: 0.1, ..Default::default() }),
            Rule::MiniBatchEm(MiniBatchEm { momentum: 0.7, pseudocount: 0.1, ..Default::default() }),
            Rule::Adam(Adam { clip: Some(0.3), ..Default::default() }),
        ] {
            through_files(&folder.path().join("checkpoint"), family, rule);
        }
    }
}

/// Goes on with a run until `stop` events have come, and returns the circuit and the state of the last checkpoint.
fn stopped(
    trainer: &Trainer,
    backend: &dyn Backend,
    (circuit, mut state): (&Circuit, State),
    stop: usize,
) -> (Circuit, State) {
    let mut executable = backend.load(circuit).unwrap();
    let (mut events, mut saved) = (0, Some((circuit.parameters().clone(), state.clone())));
    let observe = &mut |event: Event| {
        events += 1;
        saved = match event {
            Event::Checkpoint { parameters, state } => Some((parameters.clone(), state.clone())),
            _ => None,
        }
        .or(saved.take());
        if events >= stop { Break(()) } else { Continue(()) }
    };
    trainer.run(&mut *executable, &mut state, observe).unwrap();
    let (parameters, saved) = saved.unwrap();
    assert_eq!((saved.epoch, saved.batch), (state.epoch, state.batch), "the last event is a checkpoint");
    (Circuit::new(circuit.structure().clone(), parameters).unwrap(), saved)
}

/// Also between the places where a run that is not stopped has checkpoints.
#[cfg(feature = "cpu")]
#[test]
fn a_run_that_is_stopped_after_any_event_goes_on_as_if_it_had_not_been() {
    let data = Array2::from_shape_fn((40, 36), |(row, v)| ((row * 7 + v * (1 + row % 3)) % 5 / 2) as f32);
    let circuit = ConvPc::new(6, 6, 1, Family::categorical(3)).channels(7).repetitions(2).build(4).unwrap();
    let cpu = convpc::Cpu::new(Some(1)).unwrap();
    for rule in [
        Rule::Em(em::Options { pseudocount: 0.1, ..Default::default() }),
        Rule::MiniBatchEm(MiniBatchEm { momentum: 0.7, pseudocount: 0.1, ..Default::default() }),
        Rule::Adam(Adam { clip: Some(0.3), ..Default::default() }),
    ] {
        let options = Options { epochs: 4, batch_size: 10, evaluate_every: 3, ..Options::new(rule) };
        let trainer = Trainer::new(options, data.view(), None).unwrap();
        let (whole, last) = stopped(&trainer, &cpu, (&circuit, State::default()), usize::MAX);
        for stop in 1..18 {
            let (circuit, state) = stopped(&trainer, &cpu, (&circuit, State::default()), stop);
            let (circuit, state) = stopped(&trainer, &cpu, (&circuit, state), usize::MAX);
            assert!(circuit == whole && state == last, "{rule:?}, stopped after event {stop}");
        }
    }
}

#[test]
fn scores_that_are_not_finite_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let circuit = circuit(Family::bernoulli());
    let options = Options::new(Rule::Em(em::Options::default()));
    let valid = Some(Fingerprint { rows: 3, checksum: 9 });
    let run = Run {
        valid,
        labels: Some(Fingerprint::of_labels(&[2, 0])),
        ..Run::new(options, Fingerprint::of(data().view()))
    };
    for score in [f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE / 3.0, -1.0 / 3.0] {
        let mut state = State { epoch: 3, main_epochs: Some(3), ..State::default() };
        state.seen.log_likelihood = score;
        let parameters = circuit.parameters().clone();
        state.best = Some(convpc::train::Best { epoch: 1, mean_log_likelihood: score, parameters });
        checkpoint::save(&path, &run, circuit.structure(), circuit.parameters(), &state).unwrap();
        let (again, _, loaded) = checkpoint::load(&path).unwrap();
        assert_eq!((again, &loaded), (run, &state));
        assert_eq!(loaded.seen.log_likelihood.to_bits(), score.to_bits());
    }
}

#[test]
fn data_are_known_by_every_value() {
    let data = data();
    let fingerprint = Fingerprint::of(data.view());
    assert_eq!(Fingerprint::of(data.clone().view()), fingerprint);
    let mut other = data.clone();
    other[[19, 8]] += 1.0;
    assert_ne!(Fingerprint::of(other.view()), fingerprint);
    assert_ne!(Fingerprint::of(data.slice(ndarray::s![..;-1, ..])), fingerprint);
    // CRC-32 of the bytes of 1 and 258 in u64, and of 1.0 and 2.0 in f32, by another implementation (zlib).
    assert_eq!(Fingerprint::of_labels(&[1, 258]), Fingerprint { rows: 2, checksum: 0xa681_d60d });
    assert_eq!(Fingerprint::of(array![[1.0], [2.0]].view()), Fingerprint { rows: 2, checksum: 0x2e3fa576 });
}

fn record(epoch: usize) -> Record {
    let epoch = Epoch {
        epoch,
        is_final_em: false,
        steps: 3,
        rows: 100,
        impossible_rows: 1,
        mean_log_likelihood: f64::NEG_INFINITY,
        validation: Some(-1.0 / 3.0),
        accuracy: None,
        is_best: true,
        step_size: 0.1,
    };
    Record::new(&epoch, Observed { train: 4.0, valid: Some(4.0) }, 50.0, 0.1 + 0.2)
}

#[test]
fn a_log_goes_on_where_the_checkpoint_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let lines = || fs::read_to_string(&path).unwrap().lines().count();
    fs::write(&path, "of another run").unwrap();
    let mut log = Log::create(Some(&path)).unwrap();
    assert_eq!(lines(), 0);
    (0..5).for_each(|epoch| log.push(record(epoch)).unwrap());
    assert_eq!(lines(), 5);
    let text = fs::read_to_string(&path).unwrap();
    insta::assert_snapshot!(text.lines().next().unwrap(), @r#"{"epoch":1,"final_em":false,"steps":3,"step_size":0.1,"rows":100,"impossible_rows":1,"train_nats":null,"train_bits":null,"valid_nats":-0.3333333333333333,"valid_bits":0.12022458674074694,"best":true,"rows_per_second":50.0,"seconds":0.30000000000000004}"#);
    // The checkpoint is of the third epoch, and the last line was cut off.
    fs::write(&path, &text[..text.len() - 10]).unwrap();
    let mut log = Log::resume(Some(&path), 3).unwrap();
    assert_eq!(log.records(), [record(0), record(1), record(2)]);
    log.push(record(3)).unwrap();
    assert_eq!(lines(), 4);
    // Not there, nowhere, and of something else.
    assert_eq!(Log::resume(Some(&folder.path().join("new")), 3).unwrap().records(), []);
    assert!(folder.path().join("new").is_file());
    let mut nowhere = Log::resume(None, 3).unwrap();
    nowhere.push(record(0)).unwrap();
    assert_eq!(nowhere.records().len(), 1);
    fs::write(&path, format!("{}\n{{\"epoch\": 2}}\n", text.lines().next().unwrap())).unwrap();
    let error = Log::resume(Some(&path), 3).unwrap_err();
    assert!(matches!(error, MetricsError::Line { line: 2, .. }), "{error}");
    assert!(error.to_string().contains("log.jsonl, line 2: not a record of a training run"), "{error}");
    assert!(Log::create(Some(&folder.path().join("no/log"))).unwrap_err().to_string().contains("cannot be written"));
}

#[test]
fn the_area_under_the_curve_is_the_share_of_pairs_that_are_won() {
    // Many ties, and both zeros, which are equal.
    let scores = |seed: usize, n: usize| -> Vec<f64> {
        (0..n).map(|k| [-0.0, 0.0, 1.0, -2.0, f64::NEG_INFINITY, 3.5][(k * k + seed * k + k / 5) % 6]).collect()
    };
    for (n, m) in [(1, 1), (40, 7), (25, 60)] {
        let (high, low) = (scores(1, n), scores(4, m));
        let won = |a: &f64| {
            low.iter()
                .map(|b| {
                    if a > b {
                        1.0
                    } else if a == b {
                        0.5
                    } else {
                        0.0
                    }
                })
                .sum::<f64>()
        };
        let expected = high.iter().map(won).sum::<f64>() / (n * m) as f64;
        assert!((auroc(&high, &low) - expected).abs() < 1e-12, "{n} {m}");
        assert!((auroc(&low, &high) - (1.0 - expected)).abs() < 1e-12);
    }
    assert_eq!((auroc(&[1.0, 2.0], &[0.0]), auroc(&[], &[0.0])), (1.0, 0.5));
}

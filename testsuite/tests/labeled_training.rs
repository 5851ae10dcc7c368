//! Training runs with labels: each row keeps its own, wherever the run takes it.

use std::ops::ControlFlow::Continue;

use convpc::{
    Adam, Backend, Circuit, ConvPc, Cpu, Error, Family, MiniBatchEm, Reference, Rule, em,
    train::{Epoch, Event, Options, State, Trainer},
};
use ndarray::{Array2, Axis};
use testsuite::assert_close;

fn circuit() -> Circuit {
    ConvPc::new(3, 3, 1, Family::categorical(3)).channels(5).num_classes(3).build(4).unwrap()
}

fn class(row: usize) -> usize {
    (row * row + row / 4) % 3
}

/// The value of most pixels is the class.
fn data(rows: usize) -> (Array2<f32>, Vec<usize>) {
    let value = |(row, pixel): (usize, usize)| match (row * 13 + pixel * 7) % 5 {
        0 => ((row + pixel) % 3) as f32,
        1 if row % 2 == 0 => f32::NAN,
        _ => class(row) as f32,
    };
    (Array2::from_shape_fn((rows, 9), value), (0..rows).map(class).collect())
}

fn rules() -> [Rule; 3] {
    let mini_batch = MiniBatchEm { momentum: 0.5, pseudocount: 0.1, ..Default::default() };
    let em = em::Options { pseudocount: 0.1, ..Default::default() };
    [Rule::Em(em), Rule::MiniBatchEm(mini_batch), Rule::Adam(Adam::default())]
}

struct Run {
    circuit: Circuit,
    epochs: Vec<Epoch>,
    checkpoints: Vec<(Circuit, State)>,
}

fn run(backend: &dyn Backend, circuit: &Circuit, trainer: &Trainer, mut state: State) -> Run {
    let (mut executable, mut epochs, mut checkpoints) = (backend.load(circuit).unwrap(), vec![], vec![]);
    let structure = circuit.structure();
    let observe = &mut |event: Event| {
        match event {
            Event::Batch { .. } => {}
            Event::Epoch(epoch) => epochs.push(epoch),
            Event::Checkpoint { parameters, state } => {
                checkpoints.push((Circuit::new(structure.clone(), parameters.clone()).unwrap(), state.clone()));
            }
        }
        Continue(())
    };
    trainer.run(&mut *executable, &mut state, observe).unwrap();
    Run { circuit: executable.circuit().unwrap(), epochs, checkpoints }
}

/// The mean of `log p(x, class)`, and how often the class is the most probable one.
fn judged(circuit: &Circuit, data: &Array2<f32>, rows: &[usize]) -> (f64, f64) {
    let joint = Reference.load(circuit).unwrap().class_log_joint(data.select(Axis(0), rows).view()).unwrap();
    let of = |(at, row): (usize, &usize)| joint[[at, class(*row)]];
    let is_best = |(at, row): &(usize, &usize)| joint.row(*at).iter().all(|x| *x <= joint[[*at, class(**row)]]);
    let n = rows.len() as f64;
    let right = rows.iter().enumerate().filter(is_best).count();
    (rows.iter().enumerate().map(of).sum::<f64>() / n, right as f64 / n)
}

#[test]
fn rows_keep_their_labels() {
    let (data, labels) = data(60);
    let circuit = circuit();
    let backends: [Box<dyn Backend>; 2] = [Box::new(Reference), Box::new(Cpu::new(Some(1)).unwrap())];
    for backend in &backends {
        for rule in rules() {
            let options = Options {
                epochs: 40,
                batch_size: 11,
                valid_fraction: Some(0.3),
                seed: 5,
                final_em_steps: 1,
                checkpoint_batches: (!rule.is_full_batch()).then_some(2),
                ..Options::new(rule)
            };
            let trainer = Trainer::new(options, data.view(), None).unwrap().labeled(&labels, None).unwrap();
            let held_out: Vec<usize> = (0..60).filter(|row| !trainer.rows().contains(row)).collect();
            let whole = run(&**backend, &circuit, &trainer, State::default());
            let what = format!("{} {rule:?}", backend.name());
            // The checkpoint of the last epoch before the steps of EM holds the best parameters, not those that were judged.
            let ends = |state: &State| state.batch == 0 && state.epoch > 0 && state.epoch != 40;
            for (circuit, state) in whole.checkpoints.iter().filter(|(_, state)| ends(state)) {
                let epoch = &whole.epochs[state.epoch - 1];
                let (mean, accuracy) = judged(circuit, &data, &held_out);
                assert_close(&what, &[epoch.validation.unwrap()], &[mean], (1e-5, 1e-4));
                assert_eq!(epoch.accuracy, Some(accuracy), "{what}");
            }
            // With the labels of other rows it would be a third.
            assert!(judged(&whole.circuit, &data, trainer.rows()).1 > 0.9, "{what}");
            assert!(whole.epochs[40].accuracy.unwrap() > 0.9, "{what}");
            // From anywhere it goes on to the same end.
            let (reached, state) = &whole.checkpoints[whole.checkpoints.len() / 2];
            let resumed = run(&**backend, reached, &trainer, state.clone());
            assert_eq!(resumed.circuit, whole.circuit, "{what}");
        }
    }
}

#[test]
fn full_batch_em_is_the_step_on_labeled_counts() {
    let (data, labels) = data(40);
    let [rule, ..] = rules();
    let Rule::Em(em) = rule else { panic!("not EM") };
    let options = Options { epochs: 3, batch_size: 7, ..Options::new(rule) };
    let (valid, valid_labels) = (data.clone(), labels.clone());
    let trainer = Trainer::new(options, data.view(), Some(valid.view())).unwrap();
    let trainer = trainer.labeled(&labels, Some(&valid_labels)).unwrap();
    let given = run(&Reference, &circuit(), &trainer, State::default());
    let mut expected = Reference.load(&circuit()).unwrap();
    for epoch in &given.epochs {
        let seen = expected.accumulate_labeled(data.view(), &labels).unwrap();
        assert!((epoch.mean_log_likelihood - seen.log_likelihood / 40.0).abs() < 1e-12);
        expected.em_step(&em).unwrap();
        let (mean, accuracy) = judged(&expected.circuit().unwrap(), &data, &(0..40).collect::<Vec<_>>());
        assert!((epoch.validation.unwrap() - mean).abs() < 1e-9);
        assert_eq!(epoch.accuracy, Some(accuracy));
    }
    for (a, b) in given.circuit.parameters().0.iter().zip(&expected.parameters().unwrap().0) {
        assert_close("parameters", a, b, (1e-9, 1e-12));
    }
}

#[test]
fn labels_that_do_not_fit_are_refused() {
    let (data, labels) = data(40);
    let [rule, ..] = rules();
    let new = |valid| Trainer::new(Options::new(rule), data.view(), valid).unwrap();
    let refused = |trainer: Result<Trainer, Error>| trainer.err().unwrap();
    assert_eq!(refused(new(None).labeled(&labels[1..], None)), Error::LabelCount { given: 39, rows: 40 });
    assert_eq!(refused(new(None).labeled(&labels, Some(&labels))), Error::LabelCount { given: 40, rows: 0 });
    let valid = || Some(data.view());
    assert_eq!(refused(new(valid()).labeled(&labels, None)), Error::LabelCount { given: 0, rows: 40 });
    let mut wrong = labels.clone();
    wrong[7] = 3;
    let plain = ConvPc::new(3, 3, 1, Family::categorical(3)).channels(2).build(1).unwrap();
    let run = |trainer: &Trainer, circuit: &Circuit| {
        trainer.run(&mut *Reference.load(circuit).unwrap(), &mut State::default(), &mut |_| Continue(())).unwrap_err()
    };
    let no_class = Error::Label { row: 7, label: 3, classes: 3 };
    assert_eq!(run(&new(None).labeled(&wrong, None).unwrap(), &circuit()), no_class);
    assert_eq!(run(&new(valid()).labeled(&labels, Some(&wrong)).unwrap(), &circuit()), no_class);
    assert_eq!(run(&new(None).labeled(&labels, None).unwrap(), &plain), Error::NoClasses);
}

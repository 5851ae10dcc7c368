//! What update rules refuse.

use convpc::{Adam, Backend, Circuit, MiniBatchEm, OptimizerState, Reference, Rule};
use ndarray::{Array2, array};

use crate::{MINI_BATCH, circuits, data, subjects, tiny};

#[test]
fn what_is_out_of_range_or_of_another_run_is_refused() {
    let circuit = tiny();
    let mut executable = Reference.load(&circuit).unwrap();
    let adam = Adam::default();
    let momentum = Rule::MiniBatchEm(MiniBatchEm { momentum: 0.5, ..MINI_BATCH });
    executable.accumulate(array![[1.0, 0.0]].view()).unwrap();
    let mut refuses = |rule: Rule, step: f64, mut state: OptimizerState, word: &str| {
        let before = state.clone();
        let error = executable.update(&rule, step, &mut state).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("expected"), "{error}");
        assert_eq!((state, executable.parameters().unwrap()), (before, circuit.parameters().clone()));
    };
    let new = OptimizerState::default;
    for step in [-0.1, 1.1, f64::NAN] {
        refuses(Rule::MiniBatchEm(MINI_BATCH), step, new(), "step size of mini-batch EM");
    }
    for wrong in [1.0, -0.1, f64::NAN] {
        refuses(Rule::MiniBatchEm(MiniBatchEm { momentum: wrong, ..MINI_BATCH }), 0.5, new(), "momentum");
        refuses(Rule::Adam(Adam { beta1: wrong, ..adam }), 0.1, new(), "beta1");
        refuses(Rule::Adam(Adam { beta2: wrong, ..adam }), 0.1, new(), "beta2");
    }
    refuses(Rule::MiniBatchEm(MiniBatchEm { data_rows: Some(0), ..MINI_BATCH }), 0.5, new(), "data_rows");
    refuses(Rule::MiniBatchEm(MiniBatchEm { pseudocount: -1.0, ..MINI_BATCH }), 0.5, new(), "pseudocount");
    refuses(Rule::Adam(Adam { epsilon: 0.0, ..adam }), 0.1, new(), "epsilon");
    refuses(Rule::Adam(Adam { clip: Some(0.0), ..adam }), 0.1, new(), "clip");
    refuses(Rule::Adam(Adam { weight_decay: -1.0, ..adam }), 0.1, new(), "weight_decay");
    refuses(Rule::Adam(Adam { minimum_std: f64::INFINITY, ..adam }), 0.1, new(), "minimum_std");
    for step in [-0.1, f64::INFINITY, f64::NAN] {
        refuses(Rule::Adam(adam), step, new(), "step size of Adam");
    }
    refuses(Rule::Adam(Adam { weight_decay: 100.0, ..adam }), 0.1, new(), "step size of Adam");
    // States of another rule, and of another circuit.
    let larger = &circuits()[1];
    let state_of = |circuit: &Circuit, rule: &Rule, row: Array2<f32>| {
        let (mut executable, mut state) = (Reference.load(circuit).unwrap(), OptimizerState::default());
        executable.accumulate(row.view()).unwrap();
        executable.update(rule, 0.1, &mut state).unwrap();
        state
    };
    let row = array![[1.0, 0.0]];
    refuses(Rule::Adam(adam), 0.1, state_of(&circuit, &momentum, row.clone()), "another update rule");
    refuses(momentum, 0.1, state_of(&circuit, &Rule::Adam(adam), row), "another update rule");
    for rule in [momentum, Rule::Adam(adam)] {
        refuses(rule, 0.1, state_of(larger, &rule, Array2::zeros((1, 6))), "of the shapes");
    }
}

/// Memory of steps with momentum would be left behind by a step without, at leaves that have moved on.
#[test]
fn every_backend_refuses_a_step_that_forgets() {
    let circuit = &circuits()[1];
    let data = data(circuit, 10);
    let backends =
        subjects().into_iter().map(|subject| subject.backend).chain([Box::new(Reference) as Box<dyn Backend>]);
    for backend in backends {
        for rule in [Rule::MiniBatchEm(MiniBatchEm { momentum: 0.5, ..MINI_BATCH }), Rule::Adam(Adam::default())] {
            let (mut executable, mut state) = (backend.load(circuit).unwrap(), OptimizerState::default());
            executable.accumulate(data.view()).unwrap();
            executable.update(&rule, 0.1, &mut state).unwrap();
            executable.accumulate(data.view()).unwrap();
            let before = (state.clone(), executable.parameters().unwrap());
            let error = executable.update(&Rule::MiniBatchEm(MINI_BATCH), 0.1, &mut state).unwrap_err().to_string();
            assert!(error.contains("mini-batch EM without momentum"), "{}: {error}", backend.name());
            assert_eq!((state, executable.parameters().unwrap()), before);
        }
    }
}

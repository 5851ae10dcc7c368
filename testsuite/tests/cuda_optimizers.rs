//! Adam and mini-batch EM with momentum on the CUDA backend, on the software device: what they remember stays on the device and
//! is a value all the same.
#![cfg(target_os = "linux")]

use convpc::{
    Adam, Backend, Blend, Circuit, ConvPc, CudaBackend, Error, Executable, Family, Memory, MiniBatchEm, OptimizerState,
    Parameters, Reference, Rule, checkpoint, train,
};
use emulator::{Order, Settings};
use ndarray::Array2;
use testsuite::{assert_close, circuits::data, software::device};

fn load(circuit: &Circuit) -> Box<dyn Executable> {
    CudaBackend::new(0).expect("the software device").load(circuit).expect("a circuit")
}

/// More than a warp's worth of channels and values, shared leaves, patterns of weights, repetitions.
fn circuits() -> Vec<Circuit> {
    [
        ConvPc::new(3, 4, 1, Family::normal()).channels(35).depth(2),
        ConvPc::new(2, 3, 1, Family::categorical(40)).channels(3).depth(2).use_sum_conv(true).repetitions(2),
        ConvPc::new(2, 3, 1, Family::discretized_logistic(40)).channels(3).depth(2),
        ConvPc::new(2, 3, 2, Family::binomial(4)).channels(3).leaf_channels(4).depth(2).shared_leaves(true),
    ]
    .map(|convpc| convpc.build(4).unwrap())
    .to_vec()
}

fn rules() -> Vec<Rule> {
    let momentum = |blend| {
        Rule::MiniBatchEm(MiniBatchEm {
            blend,
            momentum: 0.7,
            pseudocount: 0.5,
            data_rows: Some(90),
            ..Default::default()
        })
    };
    let adam = |clip, weight_decay| Rule::Adam(Adam { clip, weight_decay, epsilon: 1e-3, ..Adam::default() });
    vec![momentum(Blend::TopDown), momentum(Blend::Parameters), adam(Some(0.3), 0.1), adam(None, 0.0)]
}

fn step(executable: &mut dyn Executable, data: &Array2<f32>, rule: &Rule, state: &mut OptimizerState) {
    executable.accumulate(data.view()).unwrap();
    executable.update(rule, 0.05, state).unwrap();
}

/// What so many steps leave.
fn learned(
    mut executable: Box<dyn Executable>,
    data: &Array2<f32>,
    rule: &Rule,
    steps: usize,
) -> (Parameters, OptimizerState) {
    let mut state = OptimizerState::default();
    (0..steps).for_each(|_| step(&mut *executable, data, rule, &mut state));
    (executable.parameters().unwrap(), state)
}

fn fetched(state: &OptimizerState) -> OptimizerState {
    let mut state = state.clone();
    state.memory.fetch().unwrap();
    state
}

#[test]
fn steps_and_memory_are_those_of_the_reference() {
    let _device = device();
    for circuit in circuits() {
        let data = data(&circuit, 12);
        for rule in rules() {
            let (given, state) = learned(load(&circuit), &data, &rule, 3);
            let (expected, remembered) = learned(Reference.load(&circuit).unwrap(), &data, &rule, 3);
            assert!(matches!(state.memory, Memory::Device(_)), "{rule:?}");
            for (layer, (a, b)) in given.0.iter().zip(&expected.0).enumerate() {
                assert_close(&format!("{rule:?}, layer {layer}"), a, b, (1e-3, 1e-5));
            }
            let state = fetched(&state);
            for ((name, a), (_, b)) in
                state.memory.tensors().unwrap().into_iter().zip(remembered.memory.tensors().unwrap())
            {
                a.iter().zip(b).for_each(|(a, b)| assert_close(name, a, b, (1e-3, 1e-5)));
            }
        }
    }
}

/// What a state was before a step stays so in its clone, and a run goes on the same from the device's memory, from a clone, and
/// from what was fetched, on the executable that it began on or on another.
#[test]
fn states_are_values() {
    let device = device();
    for circuit in circuits() {
        let data = data(&circuit, 12);
        for rule in rules() {
            let (mut executable, mut state) = (load(&circuit), OptimizerState::default());
            (0..2).for_each(|_| step(&mut *executable, &data, &rule, &mut state));
            let parameters = executable.parameters().unwrap();
            let (clone, here) = (state.clone(), fetched(&state));
            assert!(state.memory.tensors().is_err());
            let mut runs = Vec::new();
            for (mut state, elsewhere) in [(here.clone(), true), (clone.clone(), true), (clone, false), (state, false)]
            {
                let before = fetched(&state);
                assert_eq!(before, here, "{rule:?}");
                let mut other = load(&circuit);
                let executable = if elsewhere { &mut other } else { &mut executable };
                executable.set_parameters(&parameters).unwrap();
                (0..2).for_each(|_| step(&mut **executable, &data, &rule, &mut state));
                runs.push((executable.parameters().unwrap(), fetched(&state)));
            }
            assert!(runs.windows(2).all(|runs| runs[0] == runs[1]), "{rule:?}\n{circuit}");
        }
    }
    assert_eq!(device.memory().in_use, 0, "memory of steps is given back");
}

#[test]
fn the_order_of_threads_does_not_matter() {
    let device = device();
    for circuit in circuits() {
        let data = data(&circuit, 12);
        for rule in rules() {
            let run = || {
                let (parameters, state) = learned(load(&circuit), &data, &rule, 2);
                (parameters, fetched(&state))
            };
            device.configure(&Settings::default());
            let expected = run();
            for order in Order::ALL {
                device.configure(&Settings { order, races: true, ..Settings::default() });
                assert_eq!(run(), expected, "{order:?}\n{rule:?}\n{circuit}");
            }
        }
    }
}

/// A step that leaves what is legal is the reference's error, and what remains is a circuit. Where probabilities are all that is
/// moved, no step is too long.
#[test]
fn what_a_step_too_long_leaves_is_a_circuit() {
    let _device = device();
    for circuit in circuits() {
        let data = data(&circuit, 12);
        let rule = Rule::Adam(Adam::default());
        let update = |executable: &mut dyn Executable| {
            executable.accumulate(data.view()).unwrap();
            executable.update(&rule, f64::MAX, &mut OptimizerState::default())
        };
        let mut executable = load(&circuit);
        let given = update(&mut *executable);
        // But for the last digits of a mean that is too large.
        let without_digits = |stepped: &convpc::Result<()>| {
            let text = stepped.as_ref().err().map(ToString::to_string);
            text.map(|text| {
                text.split("mean").map(|part| part[part.len().saturating_sub(60)..].to_string()).collect::<Vec<_>>()
            })
        };
        let exact = update(&mut *Reference.load(&circuit).unwrap());
        assert_eq!(without_digits(&given), without_digits(&exact));
        assert_eq!(given.is_err(), circuit.structure().leaf().family == Family::normal());
        // What it computes with is what it says.
        let remains = executable.circuit().unwrap();
        let expected = Reference.load(&remains).unwrap().log_likelihood(data.view()).unwrap();
        for (a, b) in executable.log_likelihood(data.view()).unwrap().iter().zip(expected) {
            assert!((a - b).abs() <= 1e-4 + 1e-5 * b.abs() || *a == b, "{a} {b}");
        }
        let again = executable.update(&rule, 0.1, &mut OptimizerState::default());
        assert_eq!(again, Err(Error::NoStatistics));
    }
}

/// A checkpoint of a state whose memory is on the device is that of the tensors there.
#[test]
fn checkpoints_hold_what_the_device_remembers() {
    let _device = device();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.checkpoint");
    let circuit = &circuits()[1];
    let data = data(circuit, 12);
    for rule in rules() {
        let (mut executable, mut optimizer) = (load(circuit), OptimizerState::default());
        step(&mut *executable, &data, &rule, &mut optimizer);
        let run = checkpoint::Run::new(train::Options::new(rule), checkpoint::Fingerprint::of(data.view()));
        let state = train::State { optimizer: optimizer.clone(), ..Default::default() };
        checkpoint::save(&path, &run, circuit.structure(), circuit.parameters(), &state).unwrap();
        assert_eq!(checkpoint::load(&path).unwrap().2.optimizer, fetched(&optimizer), "{rule:?}");
    }
}

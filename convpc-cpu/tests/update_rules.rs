//! Steps of the update rules: the same for any number of threads, those of float64 where counts are many, and what a step
//! too long leaves.

use convpc_core::{
    Adam, Backend, Blend, Circuit, ConvPc, Error, Executable, Family, Memory, MiniBatchEm, OptimizerState, Parameters,
    Reference, Rule, em,
};
use convpc_cpu::Cpu;
use ndarray::{Array2, s};

fn circuits() -> [Circuit; 5] {
    let base = |family| ConvPc::new(5, 6, 1, family).channels(18).depth(2);
    [
        base(Family::categorical(21)).repetitions(2),
        base(Family::normal()).leaf_channels(5),
        base(Family::binomial(4)).use_sum_conv(true).repetitions(2),
        base(Family::discretized_logistic(9)).leaf_channels(3).repetitions(2),
        ConvPc::new(3, 3, 3, Family::categorical(3)).channels(4).depth(1).use_sum_conv(true),
    ]
    .map(|convpc| convpc.build(4).unwrap())
}

/// Draws of another circuit of the same structure, some values missing.
fn data(circuit: &Circuit, rows: u64) -> Array2<f32> {
    let other = Circuit::random(circuit.structure().clone(), 77).unwrap();
    let mut data = Cpu::new(Some(2)).unwrap().load(&other).unwrap().sample(0..rows, 1).unwrap();
    data.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
    data
}

fn rules() -> [(Rule, f64); 5] {
    let mini_batch = MiniBatchEm { pseudocount: 0.1, data_rows: Some(90), ..MiniBatchEm::default() };
    [
        (Rule::Em(em::Options { pseudocount: 0.1, ..em::Options::default() }), 1.0),
        (Rule::MiniBatchEm(MiniBatchEm { momentum: 0.7, ..mini_batch }), 0.3),
        (Rule::MiniBatchEm(MiniBatchEm { blend: Blend::Parameters, momentum: 0.5, ..mini_batch }), 0.3),
        (Rule::Adam(Adam { epsilon: 1e-3, ..Adam::default() }), 0.05),
        (Rule::Adam(Adam { weight_decay: 0.1, epsilon: 1e-3, clip: Some(1.0), ..Adam::default() }), 0.05),
    ]
}

fn run(backend: &dyn Backend, circuit: &Circuit, data: &Array2<f32>, rule: &Rule, step: f64) -> (Parameters, Memory) {
    let (mut executable, mut state) = (backend.load(circuit).unwrap(), OptimizerState::default());
    for half in [s![..data.nrows() / 2, ..], s![data.nrows() / 2.., ..]] {
        executable.accumulate(data.slice(half)).unwrap();
        executable.update(rule, step, &mut state).unwrap();
    }
    assert_eq!(state.steps, 2);
    (executable.parameters().unwrap(), state.memory)
}

#[test]
fn a_step_does_not_depend_on_the_threads() {
    for circuit in circuits() {
        let data = data(&circuit, 60);
        for (rule, step) in rules() {
            let with = |threads| run(&Cpu::new(Some(threads)).unwrap(), &circuit, &data, &rule, step);
            let one = with(1);
            for threads in [2, 3, 5] {
                assert!(one == with(threads), "{threads} threads, {rule:?}: {circuit}");
            }
        }
    }
}

/// Of more than 4,096 rows a part of the counts has become float64.
#[test]
fn counts_of_many_rows_are_all_there() {
    for circuit in [Family::categorical(3), Family::normal()] {
        let circuit = ConvPc::new(2, 3, 1, circuit).channels(3).depth(1).repetitions(2).build(4).unwrap();
        let data = data(&circuit, 2 * 4500);
        for (rule, step) in rules() {
            let (given, memory) = run(&Cpu::new(Some(2)).unwrap(), &circuit, &data, &rule, step);
            let (expected, remembered) = run(&Reference, &circuit, &data, &rule, step);
            let close = |a: &f64, b: &f64| assert!((a - b).abs() <= 1e-4 + 1e-3 * b.abs(), "{a} {b} {rule:?}");
            given.0.iter().flatten().zip(expected.0.iter().flatten()).for_each(|(a, b)| close(a, b));
            for ((_, a), (_, b)) in memory.tensors().unwrap().into_iter().zip(remembered.tensors().unwrap()) {
                a.iter().flatten().zip(b.iter().flatten()).for_each(|(a, b)| close(a, b));
            }
        }
    }
}

/// A step that leaves what is legal is the reference's error, and what remains is a circuit. Where probabilities are all that
/// is moved, no step is too long.
#[test]
fn what_a_step_too_long_leaves_is_a_circuit() {
    for circuit in circuits() {
        let data = data(&circuit, 20);
        let update = |executable: &mut dyn Executable, step: f64| {
            executable.accumulate(data.view()).unwrap();
            executable.update(&Rule::Adam(Adam::default()), step, &mut OptimizerState::default())
        };
        let mut executable = Cpu::new(Some(2)).unwrap().load(&circuit).unwrap();
        let given = update(&mut *executable, f64::MAX);
        assert_eq!(given, update(&mut *Reference.load(&circuit).unwrap(), f64::MAX));
        assert_eq!(given.is_err(), circuit.structure().leaf().family == Family::normal());
        // What it computes with is what it says.
        let remains = executable.circuit().unwrap();
        let expected = Reference.load(&remains).unwrap().log_likelihood(data.view()).unwrap();
        for (a, b) in executable.log_likelihood(data.view()).unwrap().iter().zip(expected) {
            assert!((a - b).abs() <= 1e-4 + 1e-5 * b.abs() || *a == b, "{a} {b}");
        }
        let again = executable.update(&Rule::Adam(Adam::default()), 0.1, &mut OptimizerState::default());
        assert_eq!(again, Err(Error::NoStatistics));
    }
}

/// A probability that f32 does not hold has a logarithm that it does.
#[test]
fn probabilities_beyond_f32_are_not_zero() {
    let circuit = ConvPc::new(1, 2, 1, Family::categorical(3)).channels(1).depth(1).build(0).unwrap();
    let (structure, mut parameters) = circuit.into_parts();
    parameters.0[0].iter_mut().zip([1e-60, 1e-40, 1.0].into_iter().cycle()).for_each(|(p, new)| *p = new);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let data = ndarray::array![[0.0, 2.0], [1.0, 2.0], [2.0, 2.0], [0.0, 1.0]];
    let given = Cpu::new(Some(1)).unwrap().load(&circuit).unwrap().log_likelihood(data.view()).unwrap();
    let expected = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap();
    given.iter().zip(&expected).for_each(|(a, b)| assert!((a - b).abs() <= 1e-5 * b.abs() + 1e-6, "{a} {b}"));
}

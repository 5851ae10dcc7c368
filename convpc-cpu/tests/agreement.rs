//! Every instruction set against the float64 reference, on circuits with all kinds of layers.

use convpc_core::{Backend, Circuit, ConvPc, Executable, Family, Mpe, Reference, Semiring, em};
use convpc_cpu::{Cpu, InstructionSet};
use ndarray::{Array2, Axis};

fn circuits() -> Vec<Circuit> {
    let base = |family| ConvPc::new(5, 7, 1, family).channels(6).depth(2);
    [
        base(Family::normal()),
        base(Family::normal()).use_sum_conv(true).repetitions(3),
        base(Family::bernoulli()).leaf_channels(3),
        base(Family::categorical(5)).repetitions(2),
        base(Family::binomial(9)).use_sum_conv(true),
        base(Family::discretized_logistic(20)).leaf_channels(18).repetitions(2),
        ConvPc::new(6, 3, 3, Family::binomial(4)).channels(17).kernel_size(3).depth(1),
    ]
    .into_iter()
    .enumerate()
    .map(|(seed, convpc)| convpc.build(seed as u64).unwrap())
    .collect()
}

/// Samples of the circuit itself, every fifth value missing.
fn data(circuit: &Circuit, rows: u64) -> Array2<f32> {
    let mut data = Reference.load(circuit).unwrap().sample(0..rows, 1).unwrap();
    data.iter_mut().step_by(5).for_each(|x| *x = f32::NAN);
    data
}

fn backends() -> Vec<Cpu> {
    let cpu = || Cpu::new(Some(2)).unwrap();
    InstructionSet::available().into_iter().map(|set| cpu().with_instruction_set(set).unwrap()).collect()
}

fn close(what: &str, given: impl IntoIterator<Item = f64>, expected: impl IntoIterator<Item = f64>, slack: f64) {
    for (i, (a, b)) in given.into_iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-5 * b.abs() + slack || a == b, "{what} {i}: {a} instead of {b}");
    }
}

#[test]
fn likelihoods_activations_and_statistics_equal_the_reference() {
    for circuit in circuits() {
        let data = data(&circuit, 37);
        let mut reference = Reference.load(&circuit).unwrap();
        reference.accumulate(data.view()).unwrap();
        for cpu in backends() {
            let mut executable = cpu.load(&circuit).unwrap();
            let what = format!("{} {circuit}", cpu.description());
            close(
                &what,
                executable.log_likelihood(data.view()).unwrap(),
                reference.log_likelihood(data.view()).unwrap(),
                1e-4,
            );
            for semiring in [Semiring::SumProduct, Semiring::MaxProduct] {
                let (a, b) = (executable.evaluate(data.view(), semiring), reference.evaluate(data.view(), semiring));
                let (a, b) = (a.unwrap(), b.unwrap());
                for layer in 0..circuit.structure().layers().len() {
                    let (a, b) = (a.activations(layer).to_owned(), b.activations(layer).to_owned());
                    close(&format!("{what} layer {layer}"), a, b, 1e-4);
                }
            }
            executable.accumulate(data.view()).unwrap();
            let (a, b) = (executable.statistics().unwrap(), reference.statistics().unwrap());
            assert_eq!((a.rows, a.impossible_rows), (b.rows, b.impossible_rows));
            for (layer, (a, b)) in a.counts.into_iter().zip(b.counts).enumerate() {
                close(&format!("{what} counts {layer}"), a, b, 2e-3);
            }
        }
    }
}

#[test]
fn completions_equal_the_reference() {
    for circuit in circuits() {
        let data = data(&circuit, 20);
        let reference = Reference.load(&circuit).unwrap();
        for cpu in backends() {
            let executable = cpu.load(&circuit).unwrap();
            for method in [Mpe::Greedy, Mpe::MaxProduct] {
                let (a, b) =
                    (executable.mpe(data.view(), method).unwrap(), reference.mpe(data.view(), method).unwrap());
                assert_eq!(a, b, "{method:?} {} {circuit}", cpu.description());
            }
            let (a, b) = (executable.sample(3..9, 5).unwrap(), reference.sample(3..9, 5).unwrap());
            close("sample", a.mapv(f64::from), b.mapv(f64::from), 1e-5);
            let (a, b) = (
                executable.sample_conditional(data.view(), 5, 0).unwrap(),
                reference.sample_conditional(data.view(), 5, 0).unwrap(),
            );
            close("conditional sample", a.mapv(f64::from), b.mapv(f64::from), 1e-5);
        }
    }
}

#[test]
fn em_steps_follow_the_reference() {
    let options = em::Options { pseudocount: 0.01, ..Default::default() };
    for circuit in circuits() {
        let data = data(&circuit, 50);
        let step = |executable: &mut dyn Executable| {
            for batch in data.axis_chunks_iter(Axis(0), 7) {
                executable.accumulate(batch).unwrap();
            }
            executable.em_step(&options).unwrap();
            executable.parameters().unwrap()
        };
        let expected = step(&mut *Reference.load(&circuit).unwrap());
        for cpu in backends() {
            let given = step(&mut *cpu.load(&circuit).unwrap());
            for (layer, tensor) in circuit.structure().layers().iter().zip(&given.0) {
                let Some(axis) = layer.normalized_axis() else { continue };
                let sums = tensor.sum_axis(Axis(axis));
                assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-14), "weights of f32 sum to one in float64");
            }
            for (layer, (a, b)) in given.0.into_iter().zip(expected.0.clone()).enumerate() {
                close(&format!("{} layer {layer}", cpu.description()), a, b, 1e-4);
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch_or_the_threads() {
    for circuit in circuits() {
        let data = data(&circuit, 150);
        let one = Cpu::new(Some(1)).unwrap().load(&circuit).unwrap();
        let three = Cpu::new(Some(3)).unwrap().load(&circuit).unwrap();
        let all = one.log_likelihood(data.view()).unwrap();
        assert_eq!(all, three.log_likelihood(data.view()).unwrap());
        let drawn = one.sample_conditional(data.view(), 9, 100).unwrap();
        for row in [0, 1, 77, 149] {
            let alone = data.view().split_at(Axis(0), row).1.split_at(Axis(0), 1).0;
            assert_eq!(three.log_likelihood(alone).unwrap()[0], all[row]);
            assert_eq!(three.sample_conditional(alone, 9, 100 + row as u64).unwrap().row(0), drawn.row(row));
        }
    }
}

#[test]
fn statistics_do_not_depend_on_the_threads() {
    for circuit in circuits() {
        // Several tiles, the last one not full.
        let data = data(&circuit, 300);
        let learned = |threads| {
            let mut executable = Cpu::new(Some(threads)).unwrap().load(&circuit).unwrap();
            let seen = executable.accumulate(data.view()).unwrap();
            let statistics = executable.statistics().unwrap();
            executable.em_step(&em::Options::default()).unwrap();
            (seen, statistics.counts, executable.parameters().unwrap())
        };
        let alone = learned(1);
        for threads in [2, 3, 2, 5] {
            assert_eq!(learned(threads), alone, "{threads} threads, {circuit}");
        }
    }
}

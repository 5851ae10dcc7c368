//! Every instruction set against the float64 reference, on circuits with all kinds of layers.

use convpc_core::{Backend, Circuit, ConvPc, Executable, Family, Mpe, Precision, Reference, Semiring, em};
use convpc_cpu::{Cpu, InstructionSet};
use ndarray::{Array2, Axis, Ix4};

fn circuits() -> Vec<Circuit> {
    let base = |family| ConvPc::new(5, 7, 1, family).channels(6).depth(2);
    [
        base(Family::normal()),
        base(Family::normal()).use_sum_conv(true).repetitions(3),
        base(Family::bernoulli()).leaf_channels(3),
        base(Family::categorical(5)).repetitions(2),
        base(Family::binomial(9)).use_sum_conv(true),
        base(Family::discretized_logistic(20)).leaf_channels(18).repetitions(2),
        base(Family::categorical(4)).shifts([(-1, 0), (2, 1)]),
        ConvPc::new(5, 3, 1, Family::normal()).channels(5).depth(3).shifts([(-1, -2), (2, 3)]).use_sum_conv(true),
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

/// Leaves so sharp that the values of a node are further apart than f32 holds, or zero, and sums that take one of them each.
fn sharp(circuit: &Circuit) -> Circuit {
    let (structure, mut parameters) = circuit.clone().into_parts();
    let family = structure.leaf().family;
    let mut leaves = parameters.0[0].view_mut().into_dimensionality::<Ix4>().unwrap();
    for ((_, c, _, p), value) in leaves.indexed_iter_mut() {
        match family {
            Family::Normal(_) if p == 1 => *value *= 0.02,
            // The least scale that there is.
            Family::DiscretizedLogistic(_) if p == 1 => *value = 0.05,
            Family::Categorical(_) => *value = f64::from(p == c % family.parameters()),
            Family::Binomial(_) => *value = if c == 0 { 1e-9 } else { 1.0 - 1e-6 / c as f64 },
            Family::Bernoulli(_) => *value = (c % 2) as f64,
            _ => (),
        }
    }
    for (layer, tensor) in structure.layers().iter().zip(&mut parameters.0).skip(1) {
        let Some(axis) = layer.normalized_axis() else { continue };
        for (i, mut edges) in tensor.lanes_mut(Axis(axis)).into_iter().enumerate() {
            let one = i % edges.len();
            edges.iter_mut().enumerate().for_each(|(c, w)| *w = f64::from(c == one));
        }
    }
    Circuit::new(structure, parameters).unwrap()
}

#[test]
fn rows_by_themselves_are_the_same_to_the_last_bit() {
    for (circuit, of) in circuits().into_iter().flat_map(|c| [(sharp(&c), c.clone()), (c.clone(), c)]) {
        let mut data = data(&of, 40);
        // Values of other rows, which are far from what each node expects.
        for row in 1..20 {
            for column in (row % 3..data.ncols()).step_by(3) {
                data[[row, column]] = data[[row + 20, column]];
            }
        }
        for cpu in backends() {
            let executable = cpu.load(&circuit).unwrap();
            let all = executable.log_likelihood(data.view()).unwrap();
            for few in [1, 2, 3] {
                let each = data.axis_chunks_iter(Axis(0), few).map(|rows| executable.log_likelihood(rows).unwrap());
                let each: Vec<f64> = each.flatten().collect();
                assert_eq!(each, all.to_vec(), "{few} of {}, {circuit}", cpu.description());
            }
        }
    }
}

#[test]
fn scores_in_bf16_are_within_its_error_and_learning_is_exact() {
    let bf16 = match Cpu::new(Some(2)).unwrap().with_precision(Precision::Bf16) {
        Ok(cpu) => cpu,
        Err(error) => return assert!(error.to_string().contains("leave the precision out"), "{error}"),
    };
    assert_eq!((bf16.precision(), bf16.clone().with_precision(Precision::F32).unwrap().precision()), {
        (Precision::Bf16, Precision::F32)
    });
    let mut differ = false;
    for circuit in circuits() {
        let data = data(&circuit, 70);
        let structure = circuit.structure();
        // The error of one sum is that of its operands; those of a product add up.
        let sums = (1..structure.layers().len()).filter(|&layer| structure.edges(layer).is_some());
        let sums: usize = sums.map(|layer| structure.shape(layer).features()).sum();
        let bound = sums as f64 * Precision::Bf16.error_per_sum();
        let reference = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap();
        let exact = Cpu::new(Some(2)).unwrap();
        let (mut rounded, mut exact) = (bf16.load(&circuit).unwrap(), exact.load(&circuit).unwrap());
        let given = rounded.log_likelihood(data.view()).unwrap();
        for (given, expected) in given.iter().zip(&reference) {
            assert!((given - expected).abs() <= bound, "{given} {expected} {bound}");
        }
        differ |= given != exact.log_likelihood(data.view()).unwrap();
        for few in [1, 2, 17] {
            let each = data.axis_chunks_iter(Axis(0), few).map(|rows| rounded.log_likelihood(rows).unwrap());
            assert_eq!(each.flatten().collect::<Vec<f64>>(), given.to_vec(), "{few}, {circuit}");
        }
        let learned = |executable: &mut dyn Executable| {
            executable.accumulate(data.view()).unwrap();
            executable.statistics().unwrap().counts
        };
        assert_eq!(learned(&mut *rounded), learned(&mut *exact));
    }
    assert!(differ, "nothing was computed in bf16");
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

/// A repetition that is 90 nats behind would hand down flows below the smallest normal f32, which are slow to compute with.
#[test]
fn flows_of_repetitions_far_behind_are_none() {
    let convpc = ConvPc::new(2, 2, 1, Family::normal()).channels(2).depth(1).repetitions(2);
    let (structure, mut parameters) = convpc.build(1).unwrap().into_parts();
    let mut first_pixel = parameters.0[0].index_axis_mut(Axis(0), 0);
    first_pixel.indexed_iter_mut().for_each(|(at, p)| *p = if at[2] == 0 { 13.42 * at[1] as f64 } else { 1.0 });
    let circuit = Circuit::new(structure, parameters).unwrap();
    let data = Array2::from_shape_fn((20, 4), |(_, v)| if v == 0 { 0.0 } else { f32::NAN });
    for cpu in backends() {
        let mut executable = cpu.load(&circuit).unwrap();
        executable.accumulate(data.view()).unwrap();
        let counts = executable.statistics().unwrap().counts;
        // The leaves, both sums and the mixture, each with the axis of its repetitions.
        for (layer, axis) in [(0, 2), (2, 3), (4, 3), (5, 2)] {
            let [near, far] = [0, 1].map(|repetition| counts[layer].index_axis(Axis(axis), repetition));
            assert!(near.sum() > 19.9 && far.iter().all(|n| *n == 0.0), "layer {layer}: {near} {far}");
        }
    }
}

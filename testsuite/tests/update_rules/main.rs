//! The update rules against sums over all assignments, hand-written sequences and differences, on every backend.

mod adam;
mod refused;

use convpc::{
    Adam, Backend, Blend, Circuit, ConvPc, Error, Executable, Family, Leaf, Memory, MiniBatchEm, OptimizerState,
    Parameters, ProdConv, Reference, Rule, Statistics, Structure, em,
};
use ndarray::{Array2, ArrayD, Axis, array};
use testsuite::{assert_close, assignments, subjects};

const EXACT: em::Options = em::Options { pseudocount: 0.0, minimum_std: 1e-2, bias_correction: false };
const MINI_BATCH: MiniBatchEm = MiniBatchEm {
    blend: Blend::TopDown,
    momentum: 0.0,
    pseudocount: 0.0,
    minimum_std: EXACT.minimum_std,
    data_rows: None,
};

fn circuits() -> Vec<Circuit> {
    [
        ConvPc::new(3, 3, 1, Family::normal()).channels(3).depth(1),
        ConvPc::new(2, 3, 1, Family::categorical(3)).channels(3).depth(2).use_sum_conv(true).repetitions(2),
        ConvPc::new(2, 3, 2, Family::categorical(3)).channels(3).leaf_channels(4).depth(2).shared_leaves(true),
        ConvPc::new(2, 3, 1, Family::discretized_logistic(6)).channels(3).depth(2),
        ConvPc::new(1, 3, 3, Family::binomial(4)).channels(2).leaf_channels(3).depth(1),
        ConvPc::new(3, 2, 1, Family::categorical(3)).channels(3).depth(2).shifts([(0, 1), (1, -1)]),
    ]
    .map(|convpc| convpc.build(4).unwrap())
    .to_vec()
}

/// Draws of another circuit of the same structure, some values missing, one row without any.
fn data(circuit: &Circuit, rows: u64) -> Array2<f32> {
    let other = Circuit::random(circuit.structure().clone(), 77).unwrap();
    let mut data = Reference.load(&other).unwrap().sample(0..rows, 1).unwrap();
    data.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
    data.row_mut(3).fill(f32::NAN);
    data
}

fn updated(executable: &mut dyn Executable, data: &Array2<f32>, rule: &Rule, step: f64) -> Parameters {
    executable.accumulate(data.view()).unwrap();
    executable.update(rule, step, &mut OptimizerState::default()).unwrap();
    executable.parameters().unwrap()
}

fn assert_parameters_close(given: &Parameters, expected: &Parameters, tolerance: (f64, f64)) {
    given.0.iter().zip(&expected.0).for_each(|(a, b)| assert_close("parameters", a, b, tolerance));
}

#[test]
fn expected_statistics_are_the_mean_over_all_assignments() {
    let padded = ConvPc::new(1, 3, 1, Family::bernoulli()).channels(3).depth(2).repetitions(2).build(4).unwrap();
    let colors = ConvPc::new(1, 2, 2, Family::binomial(2)).channels(2).depth(1).use_sum_conv(true).build(4).unwrap();
    let logistic = ConvPc::new(2, 2, 1, Family::discretized_logistic(4)).channels(2).depth(1).build(4).unwrap();
    let table = ConvPc::new(2, 2, 1, Family::categorical(3)).channels(3).leaf_channels(2).depth(1).build(4).unwrap();
    let marginal = table.marginalize(&[1].into_iter().collect(), false).unwrap();
    for circuit in [padded, colors, logistic, table, marginal] {
        let all = assignments(&circuit);
        let mut executable = Reference.load(&circuit).unwrap();
        let p = executable.log_likelihood(all.view()).unwrap().mapv(f64::exp);
        let mut mean = Statistics::zeros(circuit.structure());
        for (row, p) in all.axis_chunks_iter(Axis(0), 1).zip(p) {
            executable.accumulate(row).unwrap();
            let counts = executable.statistics().unwrap().counts;
            mean.counts.iter_mut().zip(counts).for_each(|(mean, counts)| *mean += &(p * counts));
            executable.reset_statistics();
        }
        let expected = Statistics::expected(circuit.structure(), circuit.parameters());
        for (given, enumerated) in expected.counts.iter().zip(&mean.counts) {
            assert_close("expected", given, enumerated, (1e-12, 1e-13));
        }
        // EM on what the circuit itself would do leaves it as it is.
        let mut same = circuit.parameters().clone();
        em::step(circuit.structure(), &mut same, &expected, &EXACT).unwrap();
        assert_parameters_close(&same, circuit.parameters(), (1e-12, 1e-13));
    }
}

/// The weights of the pairs of mixtures in [`tiny`].
const TOP: [f64; 2] = [0.3, 0.7];
/// `[pixel][mixture][leaf]`
const MIDDLE: [[[f64; 2]; 2]; 2] = [[[0.2, 0.8], [0.6, 0.4]], [[0.5, 0.5], [0.9, 0.1]]];
/// `[pixel][leaf]`
const LEAVES: [[f64; 2]; 2] = [[0.1, 0.7], [0.8, 0.4]];

/// Two pixels, each with two leaves and two mixtures of them; pairs of mixtures; a mixture of the pairs.
fn tiny() -> Circuit {
    let leaf = Leaf::new(1, 2, 1, Family::bernoulli(), 2);
    let structure = Structure::builder(leaf).sum(2).prod_conv(ProdConv::new(1, 2)).sum(1).build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].indexed_iter_mut().for_each(|(at, p)| *p = LEAVES[at[0]][at[1]]);
    parameters.0[1].indexed_iter_mut().for_each(|(at, w)| *w = MIDDLE[at[0]][at[2]][at[1]]);
    parameters.0[3].indexed_iter_mut().for_each(|(at, w)| *w = TOP[at[1]]);
    Circuit::new(structure, parameters).unwrap()
}

#[test]
fn a_mini_batch_step_is_that_of_the_textbook() {
    let circuit = tiny();
    let (top, middle, leaves) = (TOP, MIDDLE, LEAVES);
    let rows = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]];
    let n = rows.len() as f64;
    // Counts of a row from the posterior over all latent choices: d at the root, c0 and c1 at the pixels.
    let mut flow_top = [0.0; 2];
    let mut flow_middle = [[[0.0; 2]; 2]; 2];
    let mut leaf_flow = [[[0.0; 2]; 2]; 2]; // [pixel][leaf][flow, ones]
    for x in rows {
        let p = |d: usize, c: [usize; 2]| {
            let pixel = |v: usize| {
                let q = leaves[v][c[v]];
                middle[v][d][c[v]] * if x[v] == 1.0 { q } else { 1.0 - q }
            };
            top[d] * pixel(0) * pixel(1)
        };
        let choices = (0..8).map(|i| (i & 1, [i >> 1 & 1, i >> 2 & 1]));
        let total: f64 = choices.clone().map(|(d, c)| p(d, c)).sum();
        for (d, c) in choices {
            let posterior = p(d, c) / total / n;
            flow_top[d] += posterior;
            for v in 0..2 {
                flow_middle[v][d][c[v]] += posterior;
                leaf_flow[v][c[v]][0] += posterior;
                leaf_flow[v][c[v]][1] += posterior * x[v];
            }
        }
    }
    let data = Array2::from_shape_fn((5, 2), |(row, v)| rows[row][v] as f32);
    let (step, alpha, data_rows) = (0.3, 2.0, 50.0);
    for blend in [Blend::TopDown, Blend::Parameters] {
        let mut expected = Parameters::zeros(circuit.structure());
        // counts, old weights, top-down probability → new weights
        let new = |counts: [f64; 2], old: [f64; 2], top_down: f64| -> [f64; 2] {
            let total = counts[0] + counts[1] + 2.0 * alpha / data_rows;
            let blended = [0, 1].map(|k| {
                let count = counts[k] + alpha / data_rows;
                match blend {
                    Blend::TopDown => step * count + (1.0 - step) * top_down * old[k],
                    Blend::Parameters => step * count / total + (1.0 - step) * old[k],
                }
            });
            blended.map(|b| b / (blended[0] + blended[1]))
        };
        expected.0[3].iter_mut().zip(new(flow_top, top, 1.0)).for_each(|(w, new)| *w = new);
        for v in 0..2 {
            for d in 0..2 {
                let weights = new(flow_middle[v][d], middle[v][d], top[d]);
                (0..2).for_each(|c| expected.0[1][[v, c, d, 0]] = weights[c]);
            }
            for c in 0..2 {
                let top_down = top[0] * middle[v][0][c] + top[1] * middle[v][1][c];
                let [flow, ones] = leaf_flow[v][c];
                let p = leaves[v][c];
                expected.0[0][[v, c, 0, 0]] = new([ones, flow - ones], [p, 1.0 - p], top_down)[0];
            }
        }
        let rule = Rule::MiniBatchEm(MiniBatchEm {
            blend,
            pseudocount: alpha,
            data_rows: Some(data_rows as u64),
            ..MINI_BATCH
        });
        for subject in subjects() {
            let given = updated(&mut *subject.backend.load(&circuit).unwrap(), &data, &rule, step);
            assert_parameters_close(&given, &expected, (subject.relative, subject.relative));
        }
    }
}

#[test]
fn one_whole_step_is_full_batch_em() {
    for circuit in circuits() {
        let data = data(&circuit, 40);
        for options in [EXACT, em::Options { pseudocount: 0.3, ..EXACT }] {
            for subject in subjects() {
                let mut executable = subject.backend.load(&circuit).unwrap();
                let expected = updated(&mut *executable, &data, &Rule::Em(options), 1.0);
                for blend in [Blend::TopDown, Blend::Parameters] {
                    let rule = Rule::MiniBatchEm(MiniBatchEm { blend, pseudocount: options.pseudocount, ..MINI_BATCH });
                    let given = updated(&mut *subject.backend.load(&circuit).unwrap(), &data, &rule, 1.0);
                    assert_parameters_close(&given, &expected, (subject.relative, subject.relative));
                    // And none is none.
                    let given = updated(&mut *subject.backend.load(&circuit).unwrap(), &data, &rule, 0.0);
                    assert_parameters_close(&given, circuit.parameters(), (subject.relative, subject.relative));
                }
            }
        }
    }
}

/// Both blends raise a lower bound of the likelihood of the rows that they see, whatever the step size.
#[test]
fn a_part_of_a_step_never_lowers_the_likelihood_of_its_rows() {
    for circuit in circuits() {
        let data = data(&circuit, 40);
        for blend in [Blend::TopDown, Blend::Parameters] {
            for subject in subjects() {
                let slack = if subject.backend.name() == "reference" { 1e-12 } else { 1e-5 };
                let rule = Rule::MiniBatchEm(MiniBatchEm { blend, ..MINI_BATCH });
                let (mut executable, mut state) = (subject.backend.load(&circuit).unwrap(), OptimizerState::default());
                let mut curve = Vec::new();
                for i in 0..12 {
                    curve.push(executable.accumulate(data.view()).unwrap().log_likelihood / 40.0);
                    executable.update(&rule, [0.3, 0.9, 0.05][i % 3], &mut state).unwrap();
                }
                assert!(curve.is_sorted_by(|a, b| *b >= a - slack), "{blend:?}: {curve:?}");
                assert!(curve[11] > curve[0] + 0.5, "{blend:?}: {curve:?}");
                assert_eq!((state.steps, state.memory), (12, Memory::None));
            }
        }
    }
}

#[test]
fn a_node_that_a_batch_does_not_use_stays() {
    // Leaf 1 of each pixel cannot have made these rows.
    let (mut parameters, structure) = (tiny().parameters().clone(), tiny().structure().clone());
    parameters.0[0].indexed_iter_mut().filter(|(at, _)| at[1] == 1).for_each(|(_, p)| *p = 0.0);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let rule = Rule::MiniBatchEm(MINI_BATCH);
    let mut executable = Reference.load(&circuit).unwrap();
    let new = updated(&mut *executable, &array![[1.0, 1.0]], &rule, 0.5);
    assert_eq!(new.0[0][[0, 1, 0, 0]], 0.0);
    assert!(new.0[0][[0, 0, 0, 0]] > 0.1 + 0.2, "{new:?}");
}

/// A single Normal: running means of x and x², corrected for their start at zero, are all that is to it.
#[test]
fn momentum_is_a_running_mean_with_its_bias_corrected() {
    let structure = Structure::builder(Leaf::new(1, 1, 1, Family::normal(), 1)).build().unwrap();
    let theta = ArrayD::from_shape_vec(vec![1, 1, 1, 2], vec![3.0, 2.0]).unwrap();
    let circuit = Circuit::new(structure, Parameters(vec![theta])).unwrap();
    let batches = [array![[1.0], [4.0]], array![[5.0], [7.0], [9.0]], array![[2.0], [2.5]], array![[8.0], [0.0]]];
    let (momentum, step) = (0.6, 0.4);
    for blend in [Blend::TopDown, Blend::Parameters] {
        let rule = Rule::MiniBatchEm(MiniBatchEm { blend, momentum, ..MINI_BATCH });
        let (mut expected, mut running) = ([3.0, 2.0], [0.0, 0.0]);
        let (mut executable, mut state) = (Reference.load(&circuit).unwrap(), OptimizerState::default());
        for (t, batch) in batches.iter().enumerate() {
            let moment =
                |power| batch.iter().map(|x: &f32| f64::from(*x).powi(power)).sum::<f64>() / batch.len() as f64;
            let bias = 1.0 - momentum.powi(t as i32 + 1);
            let own = [expected[0], expected[0] * expected[0] + expected[1] * expected[1]];
            let [m1, m2] = [0, 1].map(|k| {
                running[k] = momentum * running[k] + (1.0 - momentum) * moment(k as i32 + 1);
                step * running[k] / bias + (1.0 - step) * own[k]
            });
            expected = [m1, (m2 - m1 * m1).sqrt()];
            executable.accumulate(batch.view()).unwrap();
            executable.update(&rule, step, &mut state).unwrap();
            assert_close("theta", &executable.parameters().unwrap().0[0], &expected, (1e-12, 0.0));
        }
        assert_eq!(state.steps, 4);
    }
}

/// The same steps everywhere, with what the rules remember.
#[test]
fn every_backend_takes_the_steps_of_the_reference() {
    let rules = [
        (Rule::MiniBatchEm(MiniBatchEm { momentum: 0.7, ..MINI_BATCH }), 0.3),
        (Rule::MiniBatchEm(MiniBatchEm { pseudocount: 2.0, data_rows: Some(90), ..MINI_BATCH }), 0.3),
        (Rule::MiniBatchEm(MiniBatchEm { blend: Blend::Parameters, data_rows: Some(90), ..MINI_BATCH }), 0.3),
        (Rule::Adam(Adam { weight_decay: 0.1, epsilon: 1e-3, clip: Some(1.0), ..Adam::default() }), 0.05),
    ];
    for circuit in circuits() {
        let data = data(&circuit, 30);
        for (rule, step) in rules {
            let run = |backend: &dyn Backend| {
                let (mut executable, mut state) = (backend.load(&circuit).unwrap(), OptimizerState::default());
                for batch in data.axis_chunks_iter(Axis(0), 10) {
                    executable.accumulate(batch).unwrap();
                    executable.update(&rule, step, &mut state).unwrap();
                    assert_eq!(executable.update(&rule, step, &mut state), Err(Error::NoStatistics));
                }
                (executable.parameters().unwrap(), state)
            };
            let (expected, remembered) = run(&Reference);
            assert_eq!(remembered.steps, 3);
            for subject in subjects() {
                let (given, mut state) = run(&*subject.backend);
                state.memory.fetch().unwrap();
                assert_parameters_close(&given, &expected, (100.0 * subject.relative, 10.0 * subject.relative));
                for ((_, a), (_, b)) in
                    state.memory.tensors().unwrap().into_iter().zip(remembered.memory.tensors().unwrap())
                {
                    a.iter().zip(b).for_each(|(a, b)| {
                        assert_close("memory", a, b, (100.0 * subject.relative, 10.0 * subject.relative));
                    });
                }
            }
        }
    }
}

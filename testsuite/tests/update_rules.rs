//! The update rules against sums over all assignments, hand-written sequences and differences, on every backend.

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
        ConvPc::new(1, 3, 3, Family::binomial(4)).channels(2).leaf_channels(3).depth(1),
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
    let table = ConvPc::new(2, 2, 1, Family::categorical(3)).channels(3).leaf_channels(2).depth(1).build(4).unwrap();
    let marginal = table.marginalize(&[1].into_iter().collect(), false).unwrap();
    for circuit in [padded, colors, table, marginal] {
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

/// The mean log-likelihood as a function of unconstrained parameters, and Adam written out for them.
#[test]
fn adam_is_the_hand_written_sequence() {
    let circuit = tiny();
    let structure = circuit.structure().clone();
    let batches = [array![[1.0, 0.0], [0.0, 0.0]], array![[1.0, 1.0]], array![[1.0, f32::NAN], [0.0, 1.0], [1.0, 1.0]]];
    let (step, weight_decay, beta1, beta2) = (0.05, 0.2, 0.8, 0.9);
    // The first logit of each pair is free, the second one 0 minus it: sums to zero, as the softmax does not mind.
    let weights = |parameters: &Parameters, layer: usize| -> Vec<f64> {
        let axis = structure.layers()[layer].normalized_axis();
        let lanes = axis.map(|axis| parameters.0[layer].lanes(Axis(axis)).into_iter().flatten().copied().collect());
        lanes.unwrap_or_else(|| parameters.0[layer].iter().copied().collect())
    };
    let to_logits = |parameters: &Parameters| -> Vec<f64> {
        let leaves = weights(parameters, 0).into_iter().map(|p| (p / (1.0 - p)).ln());
        leaves.chain([1, 3].into_iter().flat_map(|layer| weights(parameters, layer)).map(f64::ln)).collect()
    };
    let to_parameters = |logits: &[f64]| {
        let mut parameters = Parameters::zeros(&structure);
        let mut rest = logits.iter();
        parameters.0[0].iter_mut().for_each(|p| *p = 1.0 / (1.0 + (-rest.next().unwrap()).exp()));
        for layer in [1, 3] {
            for mut lane in parameters.0[layer].lanes_mut(Axis(1)) {
                lane.iter_mut().for_each(|w| *w = rest.next().unwrap().exp());
                let sum = lane.sum();
                lane /= sum;
            }
        }
        parameters
    };
    for clip in [None, Some(0.1)] {
        let adam = Adam { beta1, beta2, weight_decay, clip, ..Adam::default() };
        let mut logits = to_logits(circuit.parameters());
        let (mut m, mut v) = (vec![0.0; logits.len()], vec![0.0; logits.len()]);
        let (mut executable, mut state) = (Reference.load(&circuit).unwrap(), OptimizerState::default());
        for t in 0..6 {
            let batch = &batches[t % 3];
            let mean = |logits: &[f64]| {
                let circuit = Circuit::new(structure.clone(), to_parameters(logits)).unwrap();
                Reference.load(&circuit).unwrap().log_likelihood(batch.view()).unwrap().mean().unwrap()
            };
            const H: f64 = 1e-5;
            let slope = |k: usize| {
                let at = |h: f64| {
                    let mut moved = logits.clone();
                    moved[k] += h;
                    mean(&moved)
                };
                (at(H) - at(-H)) / (2.0 * H)
            };
            let mut g: Vec<f64> = (0..logits.len()).map(slope).collect();
            let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
            if let Some(clip) = clip {
                assert!(norm > clip, "the case must clip: {norm}");
                g.iter_mut().for_each(|g| *g *= clip / norm);
            }
            for k in 0..logits.len() {
                m[k] = beta1 * m[k] + (1.0 - beta1) * g[k];
                v[k] = beta2 * v[k] + (1.0 - beta2) * g[k] * g[k];
                let (m, v) = (m[k] / (1.0 - beta1.powi(t as i32 + 1)), v[k] / (1.0 - beta2.powi(t as i32 + 1)));
                logits[k] = logits[k] * (1.0 - step * weight_decay) + step * m / (v.sqrt() + 1e-8);
            }
            executable.accumulate(batch.view()).unwrap();
            executable.update(&Rule::Adam(adam), step, &mut state).unwrap();
            // Differences give the gradient to ten digits; where it is tiny, its sign decides about a step.
            assert_parameters_close(&executable.parameters().unwrap(), &to_parameters(&logits), (1e-6, 1e-6));
        }
        assert_eq!(state.steps, 6);
    }
}

/// Mean and std of a Normal, in units of the std: the same data in other units learn the same.
#[test]
fn adam_does_not_mind_the_units_of_the_data() {
    let structure = Structure::builder(Leaf::new(1, 1, 1, Family::normal(), 1)).build().unwrap();
    let after = |scale: f64| {
        let theta = ArrayD::from_shape_vec(vec![1, 1, 1, 2], vec![1.0 * scale, 2.0 * scale]).unwrap();
        let circuit = Circuit::new(structure.clone(), Parameters(vec![theta])).unwrap();
        let (mut executable, mut state) = (Reference.load(&circuit).unwrap(), OptimizerState::default());
        for _ in 0..20 {
            executable.accumulate(array![[5.0], [6.0], [7.0]].map(|x| (x * scale) as f32).view()).unwrap();
            executable.update(&Rule::Adam(Adam::default()), 0.1, &mut state).unwrap();
        }
        let parameters = executable.parameters().unwrap();
        [parameters.0[0][[0, 0, 0, 0]] / scale, parameters.0[0][[0, 0, 0, 1]] / scale]
    };
    let [mean, std] = after(1.0);
    assert!(mean > 3.0 && mean < 7.0, "{mean} {std}");
    assert_close("scaled", &after(1024.0), &[mean, std], (1e-12, 0.0));
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
                let (given, state) = run(&*subject.backend);
                assert_parameters_close(&given, &expected, (100.0 * subject.relative, 10.0 * subject.relative));
                for ((_, a), (_, b)) in state.memory.tensors().into_iter().zip(remembered.memory.tensors()) {
                    a.iter().zip(b).for_each(|(a, b)| {
                        assert_close("memory", a, b, (100.0 * subject.relative, 10.0 * subject.relative));
                    });
                }
            }
        }
    }
}

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

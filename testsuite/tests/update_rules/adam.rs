//! Adam against a hand-written sequence on differences of the likelihood.

use convpc::{Adam, Backend, Circuit, Family, Leaf, OptimizerState, Parameters, Reference, Rule, Structure};
use ndarray::{ArrayD, Axis, array};
use testsuite::{assert_close, subjects};

use crate::{assert_parameters_close, tiny};

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

/// The first input explains no row. A step of a hundred nats takes its weight down to the least that learning leaves; a step of
/// none leaves a weight of 1e-25 as it is.
#[test]
fn weights_fall_to_1e_30_and_no_further() {
    let structure = Structure::builder(Leaf::new(1, 1, 1, Family::bernoulli(), 2)).sum(1).build().unwrap();
    for (weight, step, expected) in [(0.01, 100.0, 1e-30), (1e-25, 0.0, 1e-25)] {
        let mut parameters = Parameters::zeros(&structure);
        parameters.0[0].iter_mut().zip([0.0, 1.0]).for_each(|(p, value)| *p = value);
        parameters.0[1].iter_mut().zip([weight, 1.0 - weight]).for_each(|(w, value)| *w = value);
        let circuit = Circuit::new(structure.clone(), parameters).unwrap();
        for subject in subjects() {
            let mut executable = subject.backend.load(&circuit).unwrap();
            executable.accumulate(array![[1.0], [1.0]].view()).unwrap();
            executable.update(&Rule::Adam(Adam::default()), step, &mut OptimizerState::default()).unwrap();
            let given = &executable.parameters().unwrap().0[1];
            assert_close(subject.backend.name(), given, &[expected, 1.0], (1e-5, 0.0));
        }
    }
}

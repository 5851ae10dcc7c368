//! SPFlow's numbers.

use std::sync::Arc;

use convpc::{Reference, Semiring, em, spflow::LeafKind};
use ndarray::{Array2, ArrayD, Axis, Ix2};
use testsuite::{Golden, assert_close, sampling, subjects, upward};

fn matrix(golden: &Golden, name: &str) -> Option<Array2<f64>> {
    golden.get(name).map(|x| x.into_dimensionality::<Ix2>().unwrap())
}

#[test]
fn there_are_eleven_files() {
    assert_eq!(Golden::all().len(), 11);
}

/// In float64 from the first number on, which the interface of backends would round to f32.
#[test]
fn the_reference_in_float64() {
    for golden in Golden::all() {
        let circuit = Arc::new(golden.circuit.clone());
        let evaluate =
            |data| Reference::evaluate(&circuit, matrix(&golden, data).unwrap().view(), Semiring::SumProduct).unwrap();
        for (data, ll) in [("x", "ll"), ("x_nan", "ll_nan")] {
            assert_close(&golden.name, &evaluate(data).log_likelihood(), &golden.get(ll).unwrap(), (1e-9, 1e-9));
        }
        let evaluation = evaluate("x");
        for layer in 0..circuit.structure().layers().len() {
            let Some(expected) = golden.get(&format!("act/{layer}")) else { continue };
            let given = evaluation.activations(layer).permuted_axes([3, 1, 2, 0]).to_owned();
            assert_close(&format!("{} layer {layer}", golden.name), &given, &expected, (1e-9, 1e-9));
        }
    }
}

#[test]
fn log_likelihoods_and_activations() {
    subjects().iter().skip(1).for_each(upward::golden);
}

fn sum_layers(golden: &Golden) -> Vec<usize> {
    let layers = golden.circuit.structure().layers();
    (0..layers.len()).filter(|&l| layers[l].normalized_axis().is_some()).collect()
}

/// SPFlow's leaf tensors as one, parameters last.
fn leaf_group(golden: &Golden, group: &str) -> ArrayD<f64> {
    let names: &[&str] = if golden.leaf == LeafKind::Normal { &["loc", "log_scale"] } else { &["_logits"] };
    let parts: Vec<_> = names.iter().map(|name| golden.group(group, &[name]).remove(0)).collect();
    match golden.leaf {
        LeafKind::Categorical => parts[0].clone(),
        _ => ndarray::stack(Axis(3), &parts.iter().map(|p| p.view()).collect::<Vec<_>>()).unwrap(),
    }
}

#[test]
fn gradients() {
    for golden in Golden::all() {
        let x = matrix(&golden, "x").unwrap();
        let exact = Reference::evaluate(&Arc::new(golden.circuit.clone()), x.view(), Semiring::SumProduct).unwrap();
        let structure = golden.circuit.structure();
        let mut gradients = vec![(exact.statistics().gradient(structure, golden.circuit.parameters()), (1e-9, 1e-9))];
        for subject in subjects().into_iter().skip(1) {
            let mut executable = subject.backend.load(&golden.circuit).unwrap();
            executable.accumulate(x.mapv(|x| x as f32).view()).unwrap();
            gradients.push((executable.gradient().unwrap(), (subject.relative, subject.absolute)));
        }
        for (gradient, tolerance) in gradients {
            assert_close(&golden.name, &gradient.0[0], &leaf_group(&golden, "grad/"), tolerance);
            let expected = golden.group("grad/", &["logits"]);
            for (layer, expected) in sum_layers(&golden).into_iter().zip(&expected) {
                assert_close(&format!("{} layer {layer}", golden.name), &gradient.0[layer], expected, tolerance);
            }
        }
    }
}

#[test]
fn em_steps() {
    let mut seen = 0;
    for golden in Golden::all().into_iter().filter(|g| g.get("x_em").is_some()) {
        seen += 1;
        let x = matrix(&golden, "x_em").unwrap();
        let options = em::Options { minimum_std: 0.0, ..Default::default() };
        let exact = Reference::evaluate(&Arc::new(golden.circuit.clone()), x.view(), Semiring::SumProduct).unwrap();
        let mut parameters = golden.circuit.parameters().clone();
        em::step(golden.circuit.structure(), &mut parameters, &exact.statistics(), &options).unwrap();
        let mut all = vec![(parameters, (1e-6, 1e-9))];
        for subject in subjects().into_iter().skip(1) {
            let mut executable = subject.backend.load(&golden.circuit).unwrap();
            executable.accumulate(x.mapv(|x| x as f32).view()).unwrap();
            executable.em_step(&options).unwrap();
            all.push((executable.parameters().unwrap(), (subject.relative, subject.absolute)));
        }
        for (parameters, tolerance) in all {
            let expected = golden.group("em/", &["logits"]);
            for (layer, expected) in sum_layers(&golden).into_iter().zip(expected) {
                // After an EM step SPFlow's logits are log-probabilities.
                let what = format!("{} layer {layer}", golden.name);
                assert_close(&what, &parameters.0[layer], &expected.mapv(f64::exp), tolerance);
            }
            let mut expected = leaf_group(&golden, "em/");
            match golden.leaf {
                LeafKind::Normal => expected.index_axis_mut(Axis(3), 1).mapv_inplace(f64::exp),
                LeafKind::Categorical => expected.mapv_inplace(f64::exp),
                _ => expected.mapv_inplace(|x| 1.0 / (1.0 + (-x).exp())),
            }
            // SPFlow adds 1e-12 to its leaf weights and keeps probabilities above 1e-10.
            assert_close(&golden.name, &parameters.0[0], &expected, (tolerance.0, tolerance.1));
        }
    }
    assert_eq!(seen, 7);
}

#[test]
fn greedy_completions() {
    subjects().iter().for_each(sampling::greedy_completions);
}

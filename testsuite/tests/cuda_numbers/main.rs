//! The contract |Δ log-likelihood| ≤ 1e-5 · |ll| + 1e-4 on the CUDA backend where single precision is short of digits or of range,
//! on the software device: means far from zero, tiny and huge deviations, data far from the model, weights below the smallest
//! f32 number, many trials. What f32 cannot hold is refused with an error, never a wrong number.
#![cfg(target_os = "linux")]

mod cancelling;
mod normals;
mod steps;
mod trials;
mod weights;

use convpc::{
    Adam, Backend, Blend, Circuit, CudaBackend, Executable, Family, Leaf, MiniBatchEm, Mpe, OptimizerState, Precision,
    ProdConv, Reference, Rule, Structure, em,
};
use ndarray::{Array2, Axis};
use testsuite::{assert_close, downward, sampling, software::subject, upward};

/// The contract for f32.
const CLOSE: (f64, f64) = (1e-5, 1e-4);

fn load(circuit: &Circuit) -> Box<dyn Executable> {
    CudaBackend::new(0).expect("the software device").load(circuit).expect("a circuit")
}

fn both(circuit: &Circuit) -> [Box<dyn Executable>; 2] {
    [load(circuit), Reference.load(circuit).unwrap()]
}

/// Variables side by side, each with `channels` leaves; `sums` weighted sums of them, where they are not 0, then a product of
/// the variables and the root. `leaf(variable, channel)` are the parameters of a leaf.
fn row_of(
    family: Family,
    variables: usize,
    channels: usize,
    sums: usize,
    leaf: impl Fn(usize, usize) -> Vec<f64>,
) -> Circuit {
    let chain = Structure::builder(Leaf::new(1, variables, 1, family, channels));
    let chain = if sums > 0 { chain.sum(sums) } else { chain };
    let structure = chain.prod_conv(ProdConv::new(1, variables)).sum(1).build().unwrap();
    let (structure, mut parameters) = Circuit::random(structure, 5).unwrap().into_parts();
    for (at, mut to) in parameters.0[0].lanes_mut(Axis(3)).into_iter().enumerate() {
        to.iter_mut().zip(leaf(at / channels, at % channels)).for_each(|(to, from)| *to = from);
    }
    Circuit::new(structure, parameters).unwrap()
}

/// Likelihoods and activations in both semirings, counts, and choices, against float64.
fn agrees(circuit: &Circuit, data: &Array2<f32>) {
    let subject = subject(Precision::F32);
    upward::against_float64(&subject, circuit, data);
    downward::against_float64(&subject, circuit, data);
    let mut part = data.clone();
    part.iter_mut().step_by(3).for_each(|x| *x = f32::NAN);
    let [given, exact] = both(circuit);
    let same = |what: &str, given: Array2<f32>, exact: Array2<f32>| {
        assert_eq!(sampling::different(&given, &exact), 0, "{what} of\n{circuit}{given}\ninstead of\n{exact}");
    };
    same(
        "samples",
        given.sample_conditional(part.view(), 3, 0).unwrap(),
        exact.sample_conditional(part.view(), 3, 0).unwrap(),
    );
    for method in [Mpe::Greedy, Mpe::MaxProduct] {
        same("completions", given.mpe(part.view(), method).unwrap(), exact.mpe(part.view(), method).unwrap());
    }
}

/// A step of each rule from the same data, against float64.
fn steps_agree(circuit: &Circuit, data: &Array2<f32>, rules: &[Rule], tolerance: (f64, f64)) {
    for rule in rules {
        let [given, exact] = both(circuit).map(|mut executable| {
            executable.accumulate(data.view()).unwrap();
            executable.update(rule, 0.4, &mut OptimizerState::default()).unwrap();
            executable.parameters().unwrap()
        });
        for (layer, (given, exact)) in given.0.iter().zip(&exact.0).enumerate() {
            assert_close(&format!("{rule:?}, layer {layer} of\n{circuit}"), given, exact, tolerance);
        }
    }
}

fn exact_step(minimum_std: f64) -> em::Options {
    em::Options { pseudocount: 0.0, minimum_std, bias_correction: false }
}

fn rules(minimum_std: f64) -> Vec<Rule> {
    let mini_batch = |blend, momentum| {
        Rule::MiniBatchEm(MiniBatchEm { blend, momentum, minimum_std, pseudocount: 0.0, data_rows: None })
    };
    vec![
        Rule::Em(exact_step(minimum_std)),
        mini_batch(Blend::TopDown, 0.0),
        mini_batch(Blend::Parameters, 0.0),
        mini_batch(Blend::Parameters, 0.5),
        Rule::Adam(Adam { minimum_std, epsilon: 1e-3, ..Adam::default() }),
    ]
}

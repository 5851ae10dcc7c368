//! Checks of the upward pass, for any backend: what a backend does first, and what all else rests on.

use std::sync::Arc;

use convpc::{
    Circuit, ConvPc, Executable, Family, Layer, Leaf, Padding, Parameters, ProdConv, Reference, Semiring, Structure,
};
use ndarray::{Array2, Axis, Ix2, array};

use crate::{Golden, Subject, assert_close};

/// SPFlow's log-likelihoods and activations, with and without missing values.
///
/// # Panics
/// If a number is farther off than the subject allows itself.
pub fn golden(subject: &Subject) {
    for golden in Golden::all() {
        let executable = subject.backend.load(&golden.circuit).expect("a circuit");
        let what = format!("{} {}", golden.name, subject.backend.description());
        let tolerance = subject.tolerance(golden.circuit.structure());
        for (data, ll) in [("x", "ll"), ("x_nan", "ll_nan")] {
            let x = golden.get(data).expect("data").into_dimensionality::<Ix2>().expect("rows").mapv(|x| x as f32);
            let expected = golden.get(ll).expect("log-likelihoods");
            assert_close(&what, &executable.log_likelihood(x.view()).expect("fitting data"), &expected, tolerance);
            let evaluation = executable.evaluate(x.view(), Semiring::SumProduct).expect("fitting data");
            assert_close(&what, &evaluation.log_likelihood(), &expected, tolerance);
            for layer in (0..golden.circuit.structure().layers().len()).filter(|_| data == "x") {
                let Some(expected) = golden.get(&format!("act/{layer}")) else { continue };
                // Ours: repetition, feature, channel, row. SPFlow's: row, feature, channel, repetition.
                let given = evaluation.activations(layer).permuted_axes([3, 1, 2, 0]).to_owned();
                assert_close(&format!("{what} layer {layer}"), &given, &expected, tolerance);
            }
        }
    }
}

/// Every activation of a circuit in both semirings, and the streamed log-likelihoods, against float64.
///
/// # Panics
/// If a number is farther off than the subject allows itself.
pub fn against_float64(subject: &Subject, circuit: &Circuit, data: &Array2<f32>) {
    let executable = subject.backend.load(circuit).expect("a circuit");
    let exact = |semiring| Reference::evaluate(&Arc::new(circuit.clone()), data.mapv(f64::from).view(), semiring);
    let what = |layer| format!("{} layer {layer} of\n{circuit}", subject.backend.description());
    let structure = circuit.structure();
    for semiring in [Semiring::SumProduct, Semiring::MaxProduct] {
        let expected = exact(semiring).expect("fitting data");
        let given = executable.evaluate(data.view(), semiring).expect("fitting data");
        for layer in 0..structure.layers().len() {
            let (given, expected) = (given.activations(layer).to_owned(), expected.activations(layer).to_owned());
            assert_close(&what(layer), &given, &expected, subject.tolerance(structure));
        }
        if semiring == Semiring::SumProduct {
            let ll = executable.log_likelihood(data.view()).expect("fitting data");
            assert_close(
                &what(structure.layers().len()),
                &ll,
                &expected.log_likelihood(),
                subject.tolerance(structure),
            );
        }
    }
}

/// A circuit whose leaves give 1 with probability 0 in some channels, and whose weights hold zeros: rows of it, and whether
/// each is possible.
///
/// # Panics
/// Never.
pub fn with_zeros(channels: usize, sum_conv: bool) -> (Circuit, Vec<(Array2<f32>, bool)>) {
    let convpc = ConvPc::new(3, 3, 1, Family::bernoulli());
    let convpc = convpc.channels(channels).depth(2).repetitions(2).use_sum_conv(sum_conv);
    let (structure, mut parameters) = convpc.build(7).expect("a circuit").into_parts();
    // Variable 0 is never 1; variable 1 is 1 in channel 2 only, and certainly so.
    parameters.0[0].index_axis_mut(Axis(0), 0).fill(0.0);
    let mut one = parameters.0[0].index_axis_mut(Axis(0), 1);
    one.fill(0.0);
    one.index_axis_mut(Axis(0), 2).fill(1.0);
    let nan = f32::NAN;
    let row = |(first, possible): ([f32; 2], bool)| {
        let mut row = Array2::from_shape_fn((1, 9), |(_, v)| (v % 2) as f32);
        row[[0, 0]] = first[0];
        row[[0, 1]] = first[1];
        (row, possible)
    };
    let rows = [
        ([1.0, 0.0], false),
        ([1.0, 1.0], false),
        ([1.0, nan], false),
        ([0.0, 0.0], true),
        ([0.0, 1.0], true),
        ([nan, nan], true),
    ];
    (Circuit::new(structure, parameters).expect("legal parameters"), rows.map(row).into())
}

/// Probabilities of exactly zero give -inf and never NaN.
///
/// # Panics
/// If they do not.
pub fn zeros(subject: &Subject) {
    for (channels, sum_conv) in [(3, false), (3, true), (20, false), (20, true)] {
        let (circuit, rows) = with_zeros(channels, sum_conv);
        let executable = subject.backend.load(&circuit).expect("a circuit");
        let name = subject.backend.description();
        let exact = Arc::new(circuit.clone());
        for (data, possible) in rows {
            let ll = executable.log_likelihood(data.view()).expect("fitting data");
            assert!(if possible { ll[0].is_finite() } else { ll[0] == f64::NEG_INFINITY }, "{name} {data}: {ll}");
            let expected = Reference::evaluate(&exact, data.mapv(f64::from).view(), Semiring::SumProduct);
            let expected = expected.expect("fitting data").log_likelihood();
            assert_close(&name, &ll, &expected, subject.tolerance(circuit.structure()));
            for semiring in [Semiring::SumProduct, Semiring::MaxProduct] {
                let evaluation = executable.evaluate(data.view(), semiring).expect("fitting data");
                for layer in 0..circuit.structure().layers().len() {
                    assert!(!evaluation.activations(layer).iter().any(|x| x.is_nan()), "{name} layer {layer}");
                }
                let root = evaluation.log_likelihood()[0];
                assert_eq!(root > f64::NEG_INFINITY, possible, "{name} {semiring:?} {data}: {root}");
            }
        }
    }
}

/// Channel 0 fits pixel 0 and the others all pixels but 0, by far; the sums keep the channels apart up to the root, which
/// takes channel `taken` alone. Channels from 2 on are copies of channel 1.
///
/// # Panics
/// Never.
pub fn far_apart(mean: f64, channels: usize, taken: usize, sum_conv: bool) -> Circuit {
    let leaf = Leaf::new(2, 3, 1, Family::normal(), channels);
    let bottom = ProdConv::new(1, 2).padding(Padding { right: 1, ..Padding::default() });
    let chain = Structure::builder(leaf);
    let chain = if sum_conv { chain.sum_conv(channels, 3) } else { chain.sum(channels) };
    let chain = chain.prod_conv(bottom);
    let chain = if sum_conv { chain.sum_conv(channels, 2) } else { chain.sum(channels) };
    let structure = chain.prod_conv(ProdConv::new(2, 2)).sum(1).build().expect("a chain");
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].indexed_iter_mut().for_each(|(at, p)| {
        *p = match (at[3], at[1]) {
            (1, _) => 1.0,
            (_, 0) => 0.0,
            _ => mean,
        }
    });
    for layer in [1, 3] {
        let (input, output) = if sum_conv { (1, 0) } else { (1, 2) };
        parameters.0[layer].indexed_iter_mut().for_each(|(at, w)| *w = f64::from(u8::from(at[input] == at[output])));
    }
    parameters.0[5].indexed_iter_mut().for_each(|(at, w)| *w = f64::from(u8::from(at[1] == taken)));
    Circuit::new(structure, parameters).expect("legal parameters")
}

/// Channels ten thousand nats apart keep their values: a channel whose weight chooses the far smaller input is exact.
///
/// # Panics
/// If one is lost.
pub fn gaps(subject: &Subject) {
    let log_tau = (2.0 * std::f64::consts::PI).ln();
    let cases = [(142.0, 2, false), (142.0, 2, true), (1000.0, 2, false), (142.0, 20, false), (142.0, 33, true)];
    for (mean, channels, sum_conv) in cases {
        let m = mean as f32;
        let data = array![[0.0, m, m, m, m, m], [0.0; 6], [m; 6], [0.0, f32::NAN, 0.0, m, 0.0, m]];
        for taken in [0, 1] {
            let circuit = far_apart(mean, channels, taken, sum_conv);
            let executable = subject.backend.load(&circuit).expect("a circuit");
            let given = executable.log_likelihood(data.view()).expect("fitting data");
            let at = if taken == 0 { 0.0 } else { mean };
            let density = |x: &f32| -0.5 * (f64::from(*x) - at).powi(2) - 0.5 * log_tau;
            let of_row = |row: ndarray::ArrayView1<f32>| row.iter().filter(|x| !x.is_nan()).map(density).sum::<f64>();
            let expected: Vec<f64> = data.outer_iter().map(of_row).collect();
            assert_close(&subject.backend.description(), &given, &expected, subject.tolerance(circuit.structure()));
        }
    }
}

/// The log-likelihood of a row is the same to the last bit whatever the batch it is in.
///
/// # Panics
/// If it is not.
pub fn batches(executable: &dyn Executable, data: &Array2<f32>) {
    let all = executable.log_likelihood(data.view()).expect("fitting data");
    for batch in [1, 7, 40, 100] {
        let parts = data.axis_chunks_iter(Axis(0), batch);
        let given: Vec<f64> = parts.flat_map(|rows| executable.log_likelihood(rows).expect("fitting data")).collect();
        assert_eq!(given, all.to_vec(), "batches of {batch}");
    }
}

/// The number of sum nodes with a scope: each adds an error of its own where operands are rounded.
pub(crate) fn sum_nodes(structure: &Structure) -> usize {
    let nodes = |layer: usize| {
        let shape = structure.shape(layer);
        (0..shape.repetitions).map(|r| structure.occupied(layer, r).count()).max().unwrap_or(0)
    };
    let sums = structure.layers().iter().enumerate();
    sums.filter(|(_, kind)| matches!(kind, Layer::Sum(_) | Layer::SumConv(_))).map(|(layer, _)| nodes(layer)).sum()
}

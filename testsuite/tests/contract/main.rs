//! The f32 contract, |Δ log-likelihood| ≤ 1e-5 · |ll| + 1e-4 against float64, for models and rows at the edges of what is legal.

mod anywhere;
mod far;
mod normals;
mod steps;
mod weights;

use convpc::{Backend, Circuit, Cpu, Error, Family, Leaf, ProdConv, Reference, Semiring, Structure};
use ndarray::{Array2, Axis};
use testsuite::{assert_close, subjects};

const CONTRACT: (f64, f64) = (1e-5, 1e-4);

fn cpu() -> Box<dyn Backend> {
    Box::new(Cpu::new(Some(2)).unwrap())
}

/// The backends that compute in f32.
fn backends() -> Vec<Box<dyn Backend>> {
    subjects().into_iter().map(|subject| subject.backend).filter(|backend| backend.name() != "reference").collect()
}

/// Whether an error refuses a row that f32 cannot hold: one that is so far from all means that its log-likelihood is below this.
fn refuses_far_row(error: &Error, expected: &[f64]) -> bool {
    const FAR: f64 = -1e36;
    matches!(error, Error::TooFar { row } if expected[*row] < FAR)
}

/// Compares log-likelihoods, of all rows together and row by row (which go through other loops), and activations. A row that is
/// refused must be one that f32 cannot hold.
fn assert_contract_on(backend: &dyn Backend, circuit: &Circuit, data: &Array2<f32>) {
    let reference = Reference.load(circuit).unwrap();
    let expected = reference.log_likelihood(data.view()).unwrap().to_vec();
    assert!(expected.iter().all(|ll| !ll.is_nan()), "{expected:?}");
    let executable = backend.load(circuit).unwrap();
    let what = || format!("{} {circuit}{:?}\n{data}", backend.name(), circuit.parameters());
    match executable.log_likelihood(data.view()) {
        Ok(given) => assert_close(&what(), &given, &expected, CONTRACT),
        // The CPU refuses no score.
        Err(error) => assert!(backend.name() != "cpu" && refuses_far_row(&error, &expected), "{}: {error}", what()),
    }
    for (row, expected) in data.axis_chunks_iter(Axis(0), 1).zip(&expected) {
        match executable.log_likelihood(row) {
            Ok(given) => assert_close(&what(), &given, [expected], CONTRACT),
            Err(error) => assert!(refuses_far_row(&error, &[*expected]), "{}: {error}", what()),
        }
    }
    for semiring in [Semiring::SumProduct, Semiring::MaxProduct] {
        let exact = reference.evaluate(data.view(), semiring).unwrap().log_likelihood();
        match executable.evaluate(data.view(), semiring) {
            Ok(given) => assert_close(&what(), &given.log_likelihood(), &exact, CONTRACT),
            Err(error) => assert!(refuses_far_row(&error, &exact.to_vec()), "{}: {error}", what()),
        }
    }
}

/// The same on the CPU, whose contract has no exceptions.
fn assert_contract(circuit: &Circuit, data: &Array2<f32>) {
    assert_contract_on(&*cpu(), circuit, data);
}

/// A mixture of Normals of these means and standard deviations, the same at each pixel of a 2 × 2 image.
fn normals(distributions: &[(f64, f64)]) -> Circuit {
    let channels = distributions.len();
    let structure = Structure::builder(Leaf::new(2, 2, 1, Family::normal(), channels))
        .sum(channels)
        .prod_conv(ProdConv::new(2, 2))
        .sum(1)
        .build()
        .unwrap();
    let (structure, mut parameters) = Circuit::random(structure, 3).unwrap().into_parts();
    for (at, p) in parameters.0[0].iter_mut().enumerate() {
        let (mean, std) = distributions[at / 2 % channels];
        *p = if at % 2 == 0 { mean } else { std };
    }
    Circuit::new(structure, parameters).unwrap()
}

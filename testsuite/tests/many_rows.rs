//! Batches of more rows than a backend computes at a time: labels, errors, samples and counts belong to the rows of the whole batch.

use convpc::{
    Backend, Circuit, ConvPc, Cpu, Error, Family, Leaf, Mpe, Parameters, ProdConv, Reference, Result, Statistics,
    Structure,
};
use ndarray::{Array2, Axis};
use testsuite::{
    assert_close, circuits,
    classes::{from_classes, labels},
    subjects,
};

/// More than two tiles of 256 rows, the last one not full.
const ROWS: usize = 600;

fn assert_same(what: &str, given: &Statistics, expected: &Statistics, tolerance: (f64, f64)) {
    assert_eq!((given.rows, given.impossible_rows), (expected.rows, expected.impossible_rows), "{what}");
    assert_close(what, &[given.log_likelihood], &[expected.log_likelihood], tolerance);
    for (layer, (given, expected)) in given.counts.iter().zip(&expected.counts).enumerate() {
        assert_close(&format!("{what}, layer {layer}"), given, expected, tolerance);
    }
}

#[test]
fn each_row_of_a_long_batch_is_counted_under_its_own_label() {
    let circuit = ConvPc::new(2, 3, 1, Family::categorical(3)).channels(4).num_classes(3).build(5).unwrap();
    let (data, labels) = (circuits::data(&circuit, ROWS as u64), labels(ROWS, 3));
    assert_ne!(labels[..256], labels[256..512], "labels must not repeat with the tile");
    let expected = from_classes(&circuit, &data, &labels);
    for subject in subjects() {
        let tolerance = (10.0 * subject.relative, 10.0 * subject.absolute);
        let counted = |batch: usize| {
            let mut executable = subject.backend.load(&circuit).unwrap();
            for (rows, labels) in data.axis_chunks_iter(Axis(0), batch).zip(labels.chunks(batch)) {
                executable.accumulate_labeled(rows, labels).unwrap();
            }
            executable.statistics().unwrap()
        };
        let whole = counted(ROWS);
        assert_same(subject.backend.name(), &whole, &expected, tolerance);
        assert_same(subject.backend.name(), &whole, &counted(50), tolerance);
    }
}

#[test]
fn impossible_evidence_names_the_first_such_row_of_a_long_batch() {
    let convpc = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(3).repetitions(2).num_classes(2);
    let (structure, mut parameters) = convpc.build(6).unwrap().into_parts();
    // Variable 0 is never 1.
    parameters.0[0].index_axis_mut(Axis(0), 0).fill(0.0);
    let circuit = Circuit::new(structure, parameters).unwrap();
    for subject in subjects() {
        let executable = subject.backend.load(&circuit).unwrap();
        for impossible in [&[300, 513][..], &[513], &[255], &[256], &[599]] {
            let mut data = Array2::zeros((ROWS, 4));
            data.column_mut(3).fill(f32::NAN);
            impossible.iter().for_each(|&row| data[[row, 0]] = 1.0);
            let name = subject.backend.name();
            let names_the_row = |result: Result<()>| {
                assert_eq!(result, Err(Error::ImpossibleEvidence { row: impossible[0] }), "{name}");
            };
            names_the_row(executable.sample_conditional(data.view(), 3, 0).map(|_| ()));
            names_the_row(executable.mpe(data.view(), Mpe::Greedy).map(|_| ()));
            names_the_row(executable.mpe(data.view(), Mpe::MaxProduct).map(|_| ()));
            names_the_row(executable.class_posterior(data.view()).map(|_| ()));
        }
    }
}

/// Fast samplers decide most draws by rounded distribution functions. Of a hundred inputs and thousands of rows, some draws fall
/// between two roundings. All weights are exact in f32, so that every draw must be the reference's.
#[test]
fn draws_between_many_inputs_are_those_of_the_reference() {
    const CHANNELS: usize = 128;
    let structure = Structure::builder(Leaf::new(1, 2, 1, Family::categorical(CHANNELS), CHANNELS));
    let structure = structure.sum(CHANNELS).prod_conv(ProdConv::new(1, 2)).sum(1).build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    // The value shows which leaf was drawn.
    parameters.0[0].indexed_iter_mut().for_each(|(at, p)| *p = f64::from(u8::from(at[1] == at[3])));
    for layer in [1, 3] {
        parameters.0[layer].indexed_iter_mut().for_each(|(at, w)| *w = [1.0, 3.0][(at[1] + at[2]) % 2] / 256.0);
    }
    let circuit = Circuit::new(structure, parameters).unwrap();
    let drawn = |backend: &dyn Backend| backend.load(&circuit).unwrap().sample(0..10_000, 2).unwrap();
    let expected = drawn(&Reference);
    for subject in subjects() {
        let given = drawn(&*subject.backend);
        let different = given.outer_iter().zip(expected.outer_iter()).filter(|(a, b)| a != b).count();
        assert_eq!(different, 0, "{}: rows that differ", subject.backend.name());
    }
}

/// A million rows that are all alike: counts in f32 alone would be off by one in ten thousand, and by more the longer they grow.
#[test]
fn counts_of_a_million_rows_are_as_exact_as_those_of_a_thousand() {
    const BATCHES: usize = 20;
    let structure = Structure::builder(Leaf::new(1, 1, 1, Family::bernoulli(), 2)).sum(1).build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].iter_mut().zip([0.5, 0.8]).for_each(|(p, value)| *p = value);
    parameters.0[1].iter_mut().zip([0.7, 0.3]).for_each(|(w, value)| *w = value);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let mut executable = Cpu::new(Some(1)).unwrap().load(&circuit).unwrap();
    let data = Array2::from_elem((60_000, 1), 1.0);
    for _ in 0..BATCHES {
        executable.accumulate(data.view()).unwrap();
    }
    let statistics = executable.statistics().unwrap();
    let rows = (BATCHES * data.nrows()) as f64;
    assert_eq!(statistics.rows as f64, rows);
    let posterior = [0.7 * 0.5, 0.3 * 0.8].map(|joint| joint / 0.59);
    let expected = posterior.map(|p| p * rows);
    assert_close("the sum's edges", &statistics.counts[1], &expected, (1e-5, 0.0));
    let flows = statistics.counts[0].index_axis(Axis(3), 0).to_owned();
    assert_close("the flow to the leaves", &flows, &expected, (1e-5, 0.0));
}

//! Learning on the CUDA backend, on the software device: statistics, gradients and EM steps against float64.
#![cfg(target_os = "linux")]

use convpc::{
    Backend, Circuit, ConvPc, CudaBackend, Error, Executable, Family, Leaf, Padding, Parameters, Precision, ProdConv,
    Reference, Semiring, Structure, em,
};
use emulator::{Order, Settings};
use ndarray::{Array2, Axis, Slice, array};
use testsuite::{
    assert_close,
    circuits::{self, data},
    em_step,
    software::device,
};

fn load(circuit: &Circuit) -> Box<dyn Executable> {
    CudaBackend::new(0).expect("the software device").load(circuit).expect("a circuit")
}

/// The contract for f32.
const CLOSE: (f64, f64) = (1e-5, 1e-4);

const OPTIONS: em::Options = em::Options { pseudocount: 0.0, minimum_std: 1e-3, bias_correction: false };

/// Products of leaves: the flow is one for every row.
fn products() -> Vec<Circuit> {
    let families = [
        Family::normal(),
        Family::bernoulli(),
        Family::binomial(7),
        Family::categorical(5),
        Family::categorical(256),
        Family::discretized_logistic(256),
    ];
    let product = |(seed, family)| {
        let leaf = Leaf::new(2, 3, 2, family, 1);
        let padding = Padding { top: 1, right: 1, ..Padding::default() };
        let chain = Structure::builder(leaf).prod_conv(ProdConv::new(3, 2).padding(padding));
        Circuit::random(chain.prod_conv(ProdConv::new(1, 2)).build().unwrap(), seed).unwrap()
    };
    (20..).zip(families).map(product).collect()
}

/// Circuits that between them have every kind of layer, leaf and padding, and flows of several channels and repetitions.
fn all() -> Vec<Circuit> {
    let colors = ConvPc::new(3, 2, 3, Family::categorical(256)).channels(9).leaf_channels(35).depth(1);
    circuits::all().into_iter().chain(products()).chain([colors.build(4).unwrap()]).collect()
}

fn accumulate(executable: &mut dyn Executable, data: &Array2<f32>, batch: usize) {
    data.axis_chunks_iter(Axis(0), batch).for_each(|rows| {
        executable.accumulate(rows).unwrap();
    });
}

fn compare(what: &str, given: &Parameters, expected: &Parameters, tolerance: (f64, f64)) {
    for (layer, (given, expected)) in given.0.iter().zip(&expected.0).enumerate() {
        assert_close(&format!("{what}, layer {layer}"), given, expected, tolerance);
    }
}

/// Statistics, gradient, and the parameters after a step, gathered in batches; all as float64 has them.
fn learns_as_float64(circuit: &Circuit, data: &Array2<f32>, batch: usize, options: &em::Options) {
    let (mut given, mut exact) = (load(circuit), Reference.load(circuit).unwrap());
    accumulate(&mut *given, data, batch);
    exact.accumulate(data.view()).unwrap();
    let (statistics, expected) = (given.statistics().unwrap(), exact.statistics().unwrap());
    assert_eq!((statistics.rows, statistics.impossible_rows), (expected.rows, expected.impossible_rows));
    assert_close("log-likelihood", [&statistics.log_likelihood], [&expected.log_likelihood], CLOSE);
    compare(&format!("counts of\n{circuit}"), &Parameters(statistics.counts), &Parameters(expected.counts), CLOSE);
    compare("gradient", &given.gradient().unwrap(), &exact.gradient().unwrap(), CLOSE);
    given.em_step(options).unwrap();
    exact.em_step(options).unwrap();
    // A leaf that hardly any flow reaches divides one small number by another.
    compare("step", &given.parameters().unwrap(), &exact.parameters().unwrap(), (1e-3, 1e-4));
    assert_eq!(given.statistics().unwrap().rows, 0);
}

#[test]
fn statistics_gradients_and_steps() {
    let _device = device();
    for circuit in all() {
        for (rows, batch) in [(3, 3), (90, 64)] {
            learns_as_float64(&circuit, &data(&circuit, rows), batch, &OPTIONS);
        }
    }
}

/// Where the mean is far from zero and the deviation small, single precision has no digit to waste.
#[test]
fn small_deviations_of_large_means() {
    let _device = device();
    let structure = Structure::builder(Leaf::new(1, 2, 1, Family::normal(), 1)).prod_conv(ProdConv::new(1, 2)).build();
    let structure = structure.unwrap();
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].iter_mut().zip([1000.01, 0.002, -3000.07, 0.003]).for_each(|(p, v)| *p = v);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let data = Array2::from_shape_fn((200, 2), |(row, v)| {
        let x = if v == 0 { 1000.01 } else { -3000.07 };
        (x + 0.002 * ((row * 7 % 13) as f64 - 6.0)) as f32
    });
    let (mut given, mut exact) = (load(&circuit), Reference.load(&circuit).unwrap());
    accumulate(&mut *given, &data, 90);
    exact.accumulate(data.view()).unwrap();
    let [counts, expected] = [&given, &exact].map(|e| e.statistics().unwrap().counts);
    compare("counts", &Parameters(counts), &Parameters(expected), CLOSE);
    [&mut given, &mut exact].into_iter().for_each(|e| e.em_step(&OPTIONS).unwrap());
    let [means, expected] = [&given, &exact].map(|e| e.parameters().unwrap());
    compare("step", &means, &expected, (1e-9, 1e-8));
}

/// The steps and gradients of the device are core's, given what the device counted: leaves to the last digits of float64,
/// weights to those of float32. What the device then computes with is what it says: as if loaded anew.
fn steps_as_core(circuit: &Circuit, data: &Array2<f32>, options: &em::Options) {
    let structure = circuit.structure();
    let mut executable = load(circuit);
    // The parameters that the circuit came with are not yet rounded to what the device has.
    accumulate(&mut *executable, data, 100);
    executable.em_step(options).unwrap();
    for _ in 0..2 {
        accumulate(&mut *executable, data, 100);
        let (statistics, mut expected) = (executable.statistics().unwrap(), executable.parameters().unwrap());
        let gradient = statistics.gradient(structure, &expected);
        compare("gradient", &executable.gradient().unwrap(), &gradient, (1e-11, 1e-11));
        em::step(structure, &mut expected, &statistics, options).unwrap();
        executable.em_step(options).unwrap();
        let given = executable.parameters().unwrap();
        assert_close("leaves", &given.0[0], &expected.0[0], (1e-13, 0.0));
        compare("step", &given, &expected, (3e-7, 0.0));
        let mut anew = load(&Circuit::new(structure.clone(), given).unwrap());
        for semiring in [Semiring::SumProduct, Semiring::MaxProduct] {
            let [given, expected] = [&executable, &anew].map(|e| e.evaluate(data.view(), semiring).unwrap());
            for layer in 0..structure.layers().len() {
                assert_close("scores", given.activations(layer), expected.activations(layer), (1e-6, 1e-5));
            }
        }
        [&mut executable, &mut anew].into_iter().for_each(|e| accumulate(&mut **e, data, 100));
        let [counts, expected] = [&executable, &anew].map(|e| Parameters(e.statistics().unwrap().counts));
        compare("flows after a step", &counts, &expected, CLOSE);
        executable.reset_statistics();
    }
}

#[test]
fn steps_are_those_of_core() {
    let _device = device();
    let corrected = em::Options { pseudocount: 0.3, minimum_std: 0.9, bias_correction: true };
    let products = products().into_iter().flat_map(|circuit| [(circuit.clone(), OPTIONS), (circuit, corrected)]);
    let general = circuits::all().into_iter().zip([OPTIONS, corrected].into_iter().cycle());
    for (circuit, options) in products.chain(general) {
        let mut data = data(&circuit, 30);
        // Two rows, one, and none say something about the first variables.
        for (variable, seen) in [2, 1, 0].into_iter().enumerate() {
            let mut column = data.slice_axis_mut(Axis(1), Slice::from(variable..variable + 1));
            column.iter_mut().skip(seen).for_each(|x| *x = f32::NAN);
        }
        steps_as_core(&circuit, &data, &options);
    }
}

/// Whatever the order of threads between two barriers, and with a watch for races, the same bits are counted.
#[test]
fn the_order_of_threads_does_not_matter() {
    let device = device();
    let mixed = ConvPc::new(3, 4, 1, Family::normal()).channels(9).depth(1).use_sum_conv(true).repetitions(2);
    for circuit in products().into_iter().chain([mixed.build(5).unwrap()]) {
        let data = data(&circuit, 40);
        let learn = || {
            let mut executable = load(&circuit);
            accumulate(&mut *executable, &data, 30);
            let counted = (executable.statistics().unwrap(), executable.gradient().unwrap());
            executable.em_step(&OPTIONS).unwrap();
            (counted, executable.parameters().unwrap())
        };
        device.configure(&Settings::default());
        let expected = learn();
        for order in Order::ALL {
            device.configure(&Settings { order, races: true, ..Settings::default() });
            assert_eq!(learn(), expected, "{order:?}\n{circuit}");
        }
    }
}

#[test]
fn what_cannot_be_learned_from_is_an_error() {
    let _device = device();
    for circuit in products() {
        let mut executable = load(&circuit);
        assert_eq!(executable.em_step(&OPTIONS), Err(Error::NoStatistics));
        let before = executable.parameters().unwrap();
        accumulate(&mut *executable, &data(&circuit, 5), 5);
        let negative = em::Options { pseudocount: -1.0, ..OPTIONS };
        assert!(matches!(executable.em_step(&negative), Err(Error::Argument { .. })));
        executable.reset_statistics();
        assert_eq!(executable.em_step(&OPTIONS), Err(Error::NoStatistics));
        compare("nothing was learned", &executable.parameters().unwrap(), &before, (3e-7, 0.0));
    }
}

/// Rows of probability zero are counted as such and change nothing.
#[test]
fn impossible_rows_teach_nothing() {
    let _device = device();
    let structure =
        Structure::builder(Leaf::new(1, 2, 1, Family::bernoulli(), 2)).prod_conv(ProdConv::new(1, 2)).sum(1);
    let structure = structure.build().unwrap();
    let mut parameters = Parameters::zeros(&structure);
    parameters.0[0].iter_mut().zip([0.0, 0.5, 0.3, 0.5]).for_each(|(p, v)| *p = v);
    parameters.0[2].iter_mut().zip([1.0, 0.0]).for_each(|(w, v)| *w = v);
    let circuit = Circuit::new(structure, parameters).unwrap();
    learns_as_float64(&circuit, &array![[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, f32::NAN]], 4, &OPTIONS);
    let mut executable = load(&circuit);
    let seen = executable.accumulate(array![[1.0, 0.0], [1.0, 1.0]].view()).unwrap();
    assert_eq!((seen.rows, seen.impossible_rows), (2, 2));
    assert_eq!(executable.em_step(&OPTIONS), Err(Error::NoStatistics));
}

/// In every precision exact steps do not lower the likelihood, and much is learned.
#[test]
fn steps_do_not_lower_the_likelihood() {
    let _device = device();
    let convpc = ConvPc::new(4, 3, 1, Family::normal()).channels(9).depth(1).repetitions(2);
    let circuits = [convpc.clone().build(1).unwrap(), convpc.use_sum_conv(true).build(2).unwrap()];
    for (circuit, precision) in circuits.iter().flat_map(|c| Precision::ALL.map(|p| (c, p))) {
        let other = Circuit::random(circuit.structure().clone(), 77).unwrap();
        let data = data(&other, 60);
        let mut executable = CudaBackend::new(0).unwrap().with_precision(precision).load(circuit).unwrap();
        let mut step = || em_step(&mut *executable, &data, 40, &OPTIONS);
        let steps: Vec<f64> = (0..10).map(|_| step()).collect();
        let slack = 1e-5 + precision.error_per_sum();
        assert!(steps.windows(2).all(|pair| pair[1] >= pair[0] - slack), "{precision}: {steps:?}");
        assert!(steps[9] > steps[0] + 0.5, "{precision}: {steps:?}");
    }
}

/// A step that fails half-way leaves a circuit that computes with the parameters it says it has, and learns on.
#[test]
fn a_step_that_fails() {
    let device = device();
    let circuit = ConvPc::new(3, 4, 1, Family::categorical(3)).channels(9).depth(1).build(5).unwrap();
    let data = data(&circuit, 20);
    let mut executable = load(&circuit);
    let score = |executable: &dyn Executable| executable.log_likelihood(data.view()).unwrap();
    let agrees = |executable: &dyn Executable| {
        let anew = load(&executable.circuit().unwrap());
        assert_close("scores", &score(executable), &score(&*anew), (1e-6, 1e-5));
    };
    for launch in 1..6 {
        accumulate(&mut *executable, &data, 20);
        device.fail_call("cuLaunchKernel", launch, 701);
        assert!(matches!(executable.em_step(&OPTIONS), Err(Error::Backend { .. })), "launch {launch}");
        assert_eq!(executable.em_step(&OPTIONS), Err(Error::NoStatistics));
        agrees(&*executable);
        em_step(&mut *executable, &data, 20, &OPTIONS);
        agrees(&*executable);
    }
}

//! The contract |Δ log-likelihood| ≤ 1e-5 · |ll| + 1e-4 on the CUDA backend where single precision is short of digits or of range,
//! on the software device: means far from zero, tiny and huge deviations, data far from the model, weights below the smallest
//! f32 number, many trials. What f32 cannot hold is refused with an error, never a wrong number.
#![cfg(target_os = "linux")]

use convpc::{
    Adam, Backend, Blend, Circuit, ConvPc, CudaBackend, Executable, Family, Leaf, MiniBatchEm, Mpe, Normal,
    OptimizerState, Parameters, Precision, ProdConv, Reference, Rule, Semiring, Statistics, Structure, em,
};
use insta::assert_snapshot;
use ndarray::{Array2, ArrayD, Axis, array};
use testsuite::{
    assert_close, downward, sampling,
    software::{device, subject},
    upward,
};

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

/// A mean rounded to f32 is off by many standard deviations.
#[test]
fn means_far_from_zero() {
    let _device = device();
    for (mean, std) in [(1000.13, 0.05), (40000.3, 0.5), (40000.3, 1e-3), (-1_000_000.3, 0.02), (100_000.1, 1.0)] {
        for (channels, sums) in [(2, 0), (3, 2), (9, 20)] {
            let leaf = |variable: usize, channel: usize| {
                vec![mean + std * (0.9 * channel as f64 - variable as f64), std * (1.0 + 0.1 * channel as f64)]
            };
            let circuit = row_of(Family::normal(), 2, channels, sums, leaf);
            let data = Array2::from_shape_fn((20, 2), |(row, v)| {
                (mean + std * (((row * 7 + v * 5) % 11) as f64 * 0.5 - 2.0)) as f32
            });
            agrees(&circuit, &data);
            // What a step writes is what is loaded.
            let mut stepped = load(&circuit);
            stepped.accumulate(data.view()).unwrap();
            stepped.em_step(&exact_step(1e-3)).unwrap();
            let exact = Reference.load(&stepped.circuit().unwrap()).unwrap().log_likelihood(data.view()).unwrap();
            assert_close("after a step", &stepped.log_likelihood(data.view()).unwrap(), &exact, CLOSE);
        }
    }
}

/// Coefficients at the limits of deviations and means, and values at the limit.
#[test]
fn tiny_and_huge_deviations() {
    let _device = device();
    let most = Normal::LARGEST;
    let cases = [
        (0.0, 1e-30, [0.0, 1e-30, -3e-30, 1e-27]),
        (1e-20, 1e-30, [1e-20, 1e-20, 1e-20, 1e-20]),
        (0.0, 1e30, [0.0, 1.0, -3e30, 1e33]),
        (1e33, 1e30, [1e33, 1.001e33, 0.99e33, 0.0]),
        (0.0, most, [0.0, 1e38, -8e37, 1e30]),
        (most, most, [0.0, 1e38, -1e38, 8e37]),
        (most, 1e35, [1e38, 9.99e37, 9.9e37, 9e37]),
        (1.0, 1e-10, [1.0, 1.0, f32::NAN, 1.1]),
        (0.0, 1.0, [1e5, -1e9, 1e15, 1e19]),
    ];
    for (mean, std, data) in cases {
        for (channels, sums) in [(1, 0), (2, 2), (9, 20)] {
            // Wider ones do not exist at the upper limit, narrower ones not at the lower.
            let scale = |channel| if std > 1.0 { 1.0 / (1.0 + channel as f64) } else { 1.0 + channel as f64 };
            let circuit = row_of(Family::normal(), 1, channels, sums, |_, channel| vec![mean, std * scale(channel)]);
            let far = |x: f32| (f64::from(x) - mean).abs() > 1e4 * std;
            let all = Array2::from_shape_vec((4, 1), data.to_vec()).unwrap();
            upward::against_float64(&subject(Precision::F32), &circuit, &all);
            // Shares of log-likelihoods beyond 1e8 nats have no digits left, in float64 either.
            agrees(&circuit, &all.mapv(|x| if far(x) { f32::NAN } else { x }));
        }
    }
}

fn refused<T>(result: convpc::Result<T>) -> String {
    result.err().expect("a value too far for f32 is refused").to_string()
}

/// The square of a distance above 1.8e19 standard deviations is infinite in f32; a Normal circuit has no row of probability zero.
#[test]
fn values_too_far_are_refused() {
    let _device = device();
    let circuit = ConvPc::new(1, 3, 1, Family::normal()).channels(9).depth(1).num_classes(2).build(3).unwrap();
    let mut data = Array2::zeros((5000, 3));
    data[[4321, 1]] = 1e30_f32;
    let labels: Vec<usize> = (0..5000).map(|row| row % 2).collect();
    let mut executable = load(&circuit);
    assert_snapshot!(refused(executable.log_likelihood(data.view())), @"row 4321: a value is more than about 1e19 standard deviations from the leaves, beyond the range of float32; take the row out, learn with a larger minimum_std, or use the backend reference");
    let row = |text: String| assert!(text.contains("row 4321:") && text.contains("backend reference"), "{text}");
    row(refused(executable.class_log_likelihood(data.view())));
    row(refused(executable.accumulate(data.view())));
    row(refused(executable.accumulate_labeled(data.view(), &labels)));
    row(refused(executable.sample_conditional(data.view(), 1, 0)));
    for method in [Mpe::Greedy, Mpe::MaxProduct] {
        row(refused(executable.mpe(data.view(), method)));
    }
    for semiring in [Semiring::SumProduct, Semiring::MaxProduct] {
        row(refused(executable.evaluate(data.view(), semiring)));
    }
    // The largest value too.
    row(refused(executable.log_likelihood(data.mapv(|x| if x > 0.0 { 1e38 } else { x }).view())));
    // After a refusal all goes on as if nothing had been there.
    let (near, labels) = (data.slice_axis(Axis(0), (0..40).into()).to_owned(), &labels[..40]);
    let [mut given, mut exact] = [executable, Reference.load(&circuit).unwrap()];
    assert_eq!(given.statistics().unwrap(), Statistics::zeros(circuit.structure()));
    given.accumulate_labeled(near.view(), labels).unwrap();
    given.accumulate(data.view()).unwrap_err();
    assert_eq!(given.statistics().unwrap(), Statistics::zeros(circuit.structure()));
    for executable in [&mut given, &mut exact] {
        executable.accumulate_labeled(near.view(), labels).unwrap();
    }
    let [given, exact] = [given, exact].map(|e| e.statistics().unwrap());
    assert_eq!(given.rows, 40);
    given.counts.iter().zip(&exact.counts).for_each(|(a, b)| assert_close("counts", a, b, CLOSE));
}

/// A class of prior probability zero is truly impossible.
#[test]
fn impossible_classes_of_normal_circuits_are_no_error() {
    let _device = device();
    let convpc = ConvPc::new(1, 3, 1, Family::normal()).channels(3).depth(1).num_classes(2);
    let (structure, mut parameters) = convpc.build(3).unwrap().into_parts();
    parameters.0.last_mut().unwrap().iter_mut().zip([1.0, 0.0]).for_each(|(w, v)| *w = v);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let seen = load(&circuit).accumulate_labeled(Array2::zeros((4, 3)).view(), &[0, 1, 1, 0]).unwrap();
    assert_eq!((seen.rows, seen.impossible_rows), (4, 2));
}

/// A mean and deviation that are far from the data: sums of z² in f32 would leave nothing of the variance.
#[test]
fn data_far_from_the_model() {
    let _device = device();
    let circuit = row_of(Family::normal(), 1, 1, 0, |_, _| vec![0.0, 1.0]);
    let far = |base: f32| Array2::from_shape_fn((210, 1), |(row, _)| base + (row % 7) as f32);
    let half = Array2::from_shape_fn((210, 1), |(row, _)| if row % 2 == 0 { (row % 3) as f32 } else { 3e4 });
    let long = Array2::from_shape_fn((210, 1), |(row, _)| if row < 200 { 30000.0 + (row % 5) as f32 } else { 1e12 });
    for data in [far(30000.0), far(1000.0), far(-1e6), half, long] {
        let [given, exact] = both(&circuit).map(|mut executable| {
            executable.accumulate(data.view()).unwrap();
            executable.em_step(&exact_step(1e-3)).unwrap();
            executable.parameters().unwrap()
        });
        // Of a mean square of 1e12 float64 has 1e-4 left.
        assert_close("mean and deviation", &given.0[0], &exact.0[0], (1e-4, 0.0));
    }
    let step = |data: &Array2<f32>| {
        let mut executable = load(&circuit);
        executable.accumulate(data.view()).unwrap();
        executable.em_step(&exact_step(1e-3)).unwrap();
        executable.parameters().unwrap().0[0].iter().copied().collect::<Vec<f64>>()
    };
    assert_close("mean and deviation", &step(&far(30000.0)), &[30003.0, 2.0], (1e-6, 0.0));
}

/// A pixel that is always the same, with no smallest deviation asked for.
#[test]
fn constant_pixels_without_a_smallest_deviation() {
    let _device = device();
    for (channels, sums) in [(1, 0), (3, 2), (9, 20)] {
        let leaf = |variable: usize, channel: usize| vec![0.3 * channel as f64 - variable as f64, 1.0];
        let circuit = row_of(Family::normal(), 2, channels, sums, leaf);
        let data = Array2::from_shape_fn((12, 2), |(row, v)| if v == 0 { 5.0 } else { (row % 4) as f32 });
        for rule in rules(0.0) {
            let mut executable = load(&circuit);
            let mut last = f64::NEG_INFINITY;
            for step in 0..12 {
                let seen = executable.accumulate(data.view()).unwrap();
                executable.update(&rule, 1.0, &mut OptimizerState::default()).unwrap();
                let what = format!("step {step} of {rule:?}, {channels} channels: {last} then {}", seen.log_likelihood);
                assert!(seen.log_likelihood.is_finite() && seen.impossible_rows == 0, "{what}");
                if matches!(rule, Rule::Em(_)) {
                    assert!(seen.log_likelihood >= last - 1e-3 - 1e-5 * last.abs(), "{what}");
                }
                last = seen.log_likelihood;
            }
            let parameters = executable.parameters().unwrap();
            assert!(parameters.0.iter().flatten().all(|p| p.is_finite()), "{rule:?}: {parameters:?}");
        }
        // A deviation of zero is one of rounding errors after the first step.
        if channels == 1 {
            steps_agree(&circuit, &data, &rules(0.0), (1e-5, 1e-3));
        }
    }
}

/// Steps stop at the limits of core, and Adam's errors are core's.
#[test]
fn steps_stay_within_the_limits() {
    let _device = device();
    let circuit = row_of(Family::normal(), 1, 1, 0, |_, _| vec![1.0, 1e-30]);
    steps_agree(&circuit, &array![[1.0], [1.0], [1.0]], &rules(0.0), (1e-6, 0.0));
    let circuit = row_of(Family::normal(), 1, 1, 0, |_, _| vec![Normal::LARGEST, 1e37]);
    steps_agree(&circuit, &array![[1e38], [1e38], [9e37]], &rules(0.0), (1e-6, 0.0));
    steps_agree(&circuit, &array![[1e38], [1e38], [9e37]], &rules(1e300), (1e-6, 0.0));
    let adam = Rule::Adam(Adam { minimum_std: 0.0, ..Adam::default() });
    for (step, data) in [(1e300, 0.0), (100.0, 9e37), (800.0, 9e37)] {
        let [given, exact] = both(&circuit).map(|mut executable| {
            executable.accumulate(array![[data as f32]].view()).unwrap();
            let stepped = executable.update(&adam, step, &mut OptimizerState::default());
            stepped.map(|()| executable.parameters().unwrap()).map_err(|error| error.to_string())
        });
        match (given, exact) {
            (Ok(given), Ok(exact)) => assert_close("Adam", &given.0[0], &exact.0[0], (1e-6, 0.0)),
            (Err(given), Err(exact)) => {
                // But for the last digits of the mean.
                let start = |text: &str| text[..text.find("mean").expect("a mean") + 8].to_string();
                assert_eq!(start(&given), start(&exact), "step {step}");
            }
            (given, exact) => panic!("step {step}: {given:?} instead of {exact:?}"),
        }
    }
}

/// Weights of each sum, the last of which is `least`; the others are even.
fn with_least_weight(parameters: &mut ArrayD<f64>, axis: usize, least: f64) {
    for mut weights in parameters.lanes_mut(Axis(axis)) {
        let last = weights.len() - 1;
        weights.fill((1.0 - least) / last as f64);
        weights[last] = least;
    }
}

/// The last channel alone has ones, and each sum gives it hardly any weight: a row of ones goes through it all the same.
fn hardly_possible(channels: usize, sums: usize, least: f64) -> Circuit {
    let leaf = |_, channel| vec![if channel + 1 == channels { 1.0 } else { 0.0 }];
    let (structure, mut parameters) = row_of(Family::bernoulli(), 3, channels, sums, leaf).into_parts();
    with_least_weight(&mut parameters.0[1], 1, least);
    Circuit::new(structure, parameters).unwrap()
}

/// Through a mixture of repetitions, of which the last has ones.
fn hardly_possible_repetition(least: f64) -> Circuit {
    let chain =
        Structure::builder(Leaf::new(1, 3, 1, Family::bernoulli(), 2).repetitions(3)).prod_conv(ProdConv::new(1, 3));
    let structure = chain.repetition_mixing().sum(1).build().unwrap();
    let (structure, mut parameters) = Circuit::random(structure, 5).unwrap().into_parts();
    parameters.0[0].indexed_iter_mut().for_each(|(at, p)| *p = f64::from(u8::from(at[2] == 2)));
    let axis = structure.layers()[2].normalized_axis().unwrap();
    with_least_weight(&mut parameters.0[2], axis, least);
    Circuit::new(structure, parameters).unwrap()
}

fn hardly_possible_circuits(least: f64) -> Vec<Circuit> {
    let mut circuits = vec![hardly_possible_repetition(least)];
    circuits.extend([(2, 1), (3, 2), (9, 20), (40, 70)].map(|(channels, sums)| hardly_possible(channels, sums, least)));
    circuits
}

fn ones_and_zeros() -> Array2<f32> {
    array![[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, f32::NAN, 1.0], [f32::NAN, 1.0, 1.0], [0.0, f32::NAN, 0.0]]
}

/// Weights that f32 rounds to zero are not zero.
#[test]
fn weights_below_the_smallest_number() {
    let _device = device();
    for least in [1e-30, 1e-37, 1e-40, 1e-46, (-100.0_f64).exp(), 1e-300, 5e-324] {
        for circuit in hardly_possible_circuits(least) {
            agrees(&circuit, &ones_and_zeros());
            let mut executable = load(&circuit);
            executable.set_parameters(circuit.parameters()).unwrap();
            let given = executable.log_likelihood(ones_and_zeros().view()).unwrap();
            assert!(given.iter().all(|ll| ll.is_finite()), "{least}: {given}");
        }
    }
}

/// In the lower precisions too, where the products are less exact.
#[test]
fn weights_below_the_smallest_number_in_every_precision() {
    let _device = device();
    for precision in Precision::ALL {
        for circuit in hardly_possible_circuits(1e-46) {
            upward::against_float64(&subject(precision), &circuit, &ones_and_zeros());
            downward::against_float64(&subject(precision), &circuit, &ones_and_zeros());
        }
    }
}

/// A class of a prior that f32 rounds to zero.
#[test]
fn classes_that_are_hardly_possible() {
    let _device = device();
    let convpc = ConvPc::new(1, 3, 1, Family::bernoulli()).channels(9).depth(1).num_classes(3);
    let (structure, mut parameters) = convpc.build(3).unwrap().into_parts();
    parameters.0.last_mut().unwrap().iter_mut().zip([0.5, 0.5, 1e-300]).for_each(|(w, v)| *w = v);
    let circuit = Circuit::new(structure, parameters).unwrap();
    let data = ones_and_zeros();
    let [given, exact] = both(&circuit).map(|mut executable| {
        let seen = executable.accumulate_labeled(data.view(), &[0, 1, 2, 2, 1]).unwrap();
        (seen, executable.statistics().unwrap().counts)
    });
    assert_eq!(given.0.impossible_rows, 0);
    assert_close("joint", [&given.0.log_likelihood], [&exact.0.log_likelihood], CLOSE);
    given.1.iter().zip(&exact.1).for_each(|(a, b)| assert_close("counts", a, b, CLOSE));
}

/// A weight that was positive stays so whatever the rule, also where no row went through it.
#[test]
fn steps_keep_what_is_hardly_possible() {
    let _device = device();
    let decay = Rule::Adam(Adam { weight_decay: 1.0, epsilon: 1e-3, ..Adam::default() });
    for least in [1e-20, 1e-40, 1e-300] {
        for circuit in hardly_possible_circuits(least) {
            let rules = [rules(1e-3), vec![decay]].concat();
            steps_agree(&circuit, &array![[0.0, 0.0, 0.0], [0.0, f32::NAN, 0.0]], &rules, (1e-5, 1e-12));
            steps_agree(&circuit, &ones_and_zeros(), &rules, (1e-5, 1e-7));
            let mut executable = load(&circuit);
            executable.accumulate(array![[0.0, 0.0, 0.0]].view()).unwrap();
            executable.em_step(&exact_step(1e-3)).unwrap();
            let parameters = executable.parameters().unwrap();
            let least = parameters.0[1..].iter().flatten().copied().fold(1.0, f64::min);
            assert_close("the smallest weight", [&least], [&1e-30], (1e-6, 0.0));
        }
    }
}

/// Weights that a step raises to the smallest one, and one of zero that a pseudocount makes smaller than any f32 number.
#[test]
fn parameters_come_back_as_they_were() {
    let _device = device();
    let relative = |given: &Parameters, exact: &Parameters| {
        for (given, exact) in given.0.iter().zip(&exact.0).skip(1) {
            assert_close("weights", given, exact, (1e-4, 0.0));
        }
    };
    let circuit = hardly_possible(3, 2, 1e-300);
    let [given, exact] = both(&circuit).map(|mut executable| {
        executable.accumulate(array![[0.0, f32::NAN, 0.0]].view()).unwrap();
        executable.em_step(&exact_step(1e-3)).unwrap();
        executable.parameters().unwrap()
    });
    relative(&given, &exact);
    let circuit = hardly_possible(3, 2, 0.0);
    let options = em::Options { pseudocount: 1e-290, ..exact_step(1e-3) };
    let [given, exact] = both(&circuit).map(|mut executable| {
        executable.accumulate(array![[0.0, 0.0, 0.0]].view()).unwrap();
        executable.em_step(&options).unwrap();
        executable.parameters().unwrap()
    });
    relative(&given, &exact);
}

/// Logits as other libraries write them, made probabilities by a softmax.
#[test]
fn softmax_of_large_logits() {
    let _device = device();
    for logit in [40.0_f64, 100.0] {
        let softmax = [-logit, 0.0, logit].map(|l| (l - logit).exp() / (1.0 + (-logit).exp() + (-2.0 * logit).exp()));
        for sums in [2, 20] {
            let leaf =
                |variable: usize, channel: usize| (0..3).map(|v| softmax[(v + variable + channel) % 3]).collect();
            let (structure, mut parameters) = row_of(Family::categorical(3), 2, 3, sums, leaf).into_parts();
            for (at, mut weights) in parameters.0[1].lanes_mut(Axis(1)).into_iter().enumerate() {
                weights.iter_mut().enumerate().for_each(|(c, w)| *w = softmax[(c + at) % 3]);
            }
            let circuit = Circuit::new(structure, parameters).unwrap();
            let data = Array2::from_shape_fn((9, 2), |(row, v)| if v == 0 { row % 3 } else { row / 3 } as f32);
            agrees(&circuit, &data);
        }
    }
}

/// The log-density of many trials is a small difference of large numbers.
#[test]
fn binomials_of_many_trials() {
    let _device = device();
    for trials in [1, 255, 1000, 65535, 262_144] {
        for (channels, sums) in [(2, 0), (3, 2), (9, 20)] {
            let leaf = |variable: usize, channel: usize| vec![0.5 - 0.013 * variable as f64 + 0.001 * channel as f64];
            let circuit = row_of(Family::binomial(trials), 2, channels, sums, leaf);
            let n = trials as f64;
            let data = Array2::from_shape_fn((24, 2), |(row, _)| {
                (n * 0.5 + n.sqrt() * (row as f64 * 0.25 - 3.0)).round().clamp(0.0, n) as f32
            });
            let mut all = data.clone();
            (all[[3, 0]], all[[4, 1]], all[[5, 0]]) = (0.0, trials as f32, f32::NAN);
            let subject = subject(Precision::F32);
            upward::against_float64(&subject, &circuit, &all);
            downward::against_float64(&subject, &circuit, &data);
            let [given, exact] = both(&circuit).map(|e| e.mpe(data.view(), Mpe::MaxProduct).unwrap());
            assert_eq!(sampling::different(&given, &exact), 0, "{trials} trials");
            // Adam divides gradients that are rounding errors by their size.
            steps_agree(&circuit, &data, &rules(1e-3)[..4], (1e-5, 1e-6));
            // What a step writes is what is loaded.
            let mut stepped = load(&circuit);
            stepped.accumulate(data.view()).unwrap();
            stepped.em_step(&exact_step(1e-3)).unwrap();
            let anew = stepped.circuit().unwrap();
            let exact = Reference.load(&anew).unwrap().log_likelihood(data.view()).unwrap();
            assert_close("after a step", &stepped.log_likelihood(data.view()).unwrap(), &exact, CLOSE);
        }
    }
}

/// Where the probability is 0 or 1 only one value is possible, however many trials.
#[test]
fn certain_binomials_of_many_trials() {
    let _device = device();
    let circuit = row_of(Family::binomial(60000), 2, 2, 2, |_, channel| vec![channel as f64]);
    let data = array![[0.0, 60000.0], [60000.0, 60000.0], [0.0, f32::NAN], [1.0, 0.0]];
    upward::against_float64(&subject(Precision::F32), &circuit, &data);
    downward::against_float64(&subject(Precision::F32), &circuit, &data);
    let circuit = row_of(Family::binomial(262_145), 2, 2, 2, |_, _| vec![0.5]);
    assert_snapshot!(CudaBackend::new(0).unwrap().load(&circuit).err().unwrap(), @"backend cuda: binomial leaves of 262145 trials are not supported on cuda, which is exact to 262144 trials at most: use fewer levels, or choose the backend cpu");
}

/// Counts of leaves and weights that all pixels share, over many of them and many rows, go on growing: no sum of many terms is
/// left to f32.
#[test]
fn counts_of_shared_parameters_on_large_images() {
    let _device = device();
    let convpc = ConvPc::new(64, 64, 1, Family::categorical(2)).channels(1).leaf_channels(2).depth(1).kernel_size(64);
    let circuit = convpc.use_sum_conv(true).shared_leaves(true).build(1).unwrap();
    let data = Array2::from_shape_fn((64, 4096), |(row, v)| f32::from(u8::from((row * 31 + v * 17) % 10 == 0)));
    let [given, exact] = both(&circuit).map(|mut executable| {
        executable.accumulate(data.view()).unwrap();
        executable.statistics().unwrap().counts
    });
    given.iter().zip(&exact).for_each(|(a, b)| assert_close("counts", a, b, (2e-6, 1e-4)));
}

//! Checks of the way down, sampling and completion, for any backend. A sample is a function of the seed and the row's number:
//! not of the batch, the number of threads or the backend.

use convpc::{Backend, Circuit, ConvPc, Error, Executable, Family, Mpe, Reference};
use ndarray::{Array1, Array2, Axis, Ix2, array, concatenate, s};

use crate::{Golden, Subject, agrees, assert_close, assignments, circuits, upward};

/// Rows of the checks.
pub const ROWS: usize = 41;

/// A small circuit of each family, with both kinds of sums and several repetitions.
///
/// # Panics
/// Never.
pub fn families() -> Vec<Circuit> {
    [
        ConvPc::new(5, 3, 1, Family::bernoulli()).channels(3).depth(2),
        ConvPc::new(4, 4, 3, Family::categorical(4)).channels(4).depth(2).use_sum_conv(true),
        ConvPc::new(6, 6, 1, Family::binomial(9)).channels(3).depth(2).repetitions(3),
        ConvPc::new(4, 5, 1, Family::discretized_logistic(30)).channels(4).depth(2).repetitions(2),
        ConvPc::new(3, 7, 1, Family::normal()).channels(5).depth(1).kernel_size(3).use_sum_conv(true).repetitions(2),
        ConvPc::new(5, 3, 1, Family::normal()).channels(4).depth(3).shifts([(-1, -2), (2, 3), (0, 0)]),
    ]
    .into_iter()
    .enumerate()
    .map(|(seed, convpc)| convpc.build(seed as u64).expect("a circuit"))
    .collect()
}

/// Samples of the circuit, two of three values missing, one row without any.
///
/// # Panics
/// Never.
pub fn evidence(circuit: &Circuit) -> Array2<f32> {
    let mut data = Reference.load(circuit).expect("a circuit").sample(0..ROWS as u64, 99).expect("rows");
    for (i, x) in data.iter_mut().enumerate() {
        if (i * 7 + i / 5) % 3 != 0 {
            *x = f32::NAN;
        }
    }
    data.row_mut(4).fill(f32::NAN);
    data
}

/// Samples without and with evidence, drawn in batches.
///
/// # Panics
/// If the evidence does not fit.
pub fn draw(executable: &dyn Executable, evidence: &Array2<f32>, batch: usize, seed: u64) -> [Array2<f32>; 2] {
    let starts: Vec<usize> = (0..ROWS).step_by(batch).collect();
    let batches = |draw: &dyn Fn(usize, usize) -> Array2<f32>| {
        let parts: Vec<_> = starts.iter().map(|&start| draw(start, (start + batch).min(ROWS))).collect();
        concatenate(Axis(0), &parts.iter().map(|part| part.view()).collect::<Vec<_>>()).expect("rows of one length")
    };
    [
        batches(&|start, end| executable.sample(start as u64..end as u64, seed).expect("rows")),
        batches(&|start, end| {
            executable.sample_conditional(evidence.slice(s![start..end, ..]), seed, start as u64).expect("rows")
        }),
    ]
}

/// Row i is the same to the last bit whatever the batch it is in, and another with another seed.
///
/// # Panics
/// If it is not.
pub fn batches(subject: &Subject, circuit: &Circuit) {
    let executable = subject.backend.load(circuit).expect("a circuit");
    let data = evidence(circuit);
    let all = draw(&*executable, &data, ROWS, 5);
    for batch in [1, 7, 16] {
        assert_eq!(draw(&*executable, &data, batch, 5), all, "{} batch {batch}", subject.backend.name());
    }
    let other = draw(&*executable, &data, ROWS, 6);
    assert!(other[0] != all[0] && other[1] != all[1], "another seed gives the same sample");
}

/// The number of rows that differ, where 1e-5 of a value is no difference.
///
/// # Panics
/// If the shapes differ.
pub fn different(given: &Array2<f32>, expected: &Array2<f32>) -> usize {
    assert_eq!(given.dim(), expected.dim());
    let same = |a: f32, b: f32| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
    let rows = given.outer_iter().zip(expected.outer_iter());
    rows.filter(|(a, b)| !a.iter().zip(b).all(|(a, b)| same(*a, *b))).count()
}

/// Draws what another backend draws.
///
/// # Panics
/// If it draws something else.
pub fn like(subject: &Subject, oracle: &dyn Backend, circuit: &Circuit) {
    let data = evidence(circuit);
    let [given, expected] =
        [&*subject.backend, oracle].map(|b| draw(&*b.load(circuit).expect("a circuit"), &data, ROWS, 5));
    for (given, expected) in given.iter().zip(&expected) {
        // A uniform number may fall between two roundings of the same distribution function, very rarely.
        let different = different(given, expected);
        assert!(different <= 1, "{different} of {ROWS} rows differ from {} of\n{circuit}", oracle.name());
    }
}

/// Observed values stay, the others become possible ones.
///
/// # Panics
/// If they do not.
pub fn evidence_is_kept(subject: &Subject, circuit: &Circuit) {
    let executable = subject.backend.load(circuit).expect("a circuit");
    let data = evidence(circuit);
    let completed = [
        executable.sample_conditional(data.view(), 1, 0),
        executable.mpe(data.view(), Mpe::Greedy),
        executable.mpe(data.view(), Mpe::MaxProduct),
    ];
    for rows in completed {
        let rows = rows.expect("possible evidence");
        for (given, x) in data.iter().zip(&rows) {
            assert!(if given.is_nan() { x.is_finite() } else { given == x }, "{x} where {given} was given");
        }
        assert!(executable.log_likelihood(rows.view()).expect("legal values").iter().all(|ll| ll.is_finite()));
    }
}

/// SPFlow's completions by the best edge at each sum.
///
/// # Panics
/// If one differs.
pub fn greedy_completions(subject: &Subject) {
    let mut seen = 0;
    for golden in Golden::all() {
        let Some(expected) = golden.get("mpe") else { continue };
        seen += 1;
        let rows = |name| golden.get(name).expect("data").into_dimensionality::<Ix2>().expect("rows");
        let executable = subject.backend.load(&golden.circuit).expect("a circuit");
        let given = executable.mpe(rows("x_nan").mapv(|x| x as f32).view(), Mpe::Greedy).expect("possible evidence");
        assert_close(&golden.name, &given.mapv(f64::from), &expected, (1e-6, 1e-6));
    }
    assert!(seen >= 8, "{seen}");
}

/// Both kinds of completions are those of float64.
///
/// # Panics
/// If they differ.
pub fn completions(subject: &Subject, circuit: &Circuit) {
    let data = evidence(circuit);
    for method in [Mpe::Greedy, Mpe::MaxProduct] {
        let [given, expected] = [&*subject.backend, &Reference]
            .map(|b| b.load(circuit).expect("a circuit").mpe(data.view(), method).expect("possible evidence"));
        // Two edges may be as good within the rounding of f32.
        let different = different(&given, &expected);
        assert!(different <= 1, "{method:?}: {different} of {ROWS} rows differ from float64 of\n{circuit}");
    }
}

/// Of edges and values that are equally good the first is taken, and a value of whole (n + 1) p is the smaller.
///
/// # Panics
/// If another is.
pub fn ties(subject: &Subject) {
    for circuit in families() {
        let (structure, mut parameters) = circuit.into_parts();
        for (layer, tensor) in parameters.0.iter_mut().enumerate() {
            let n = structure.edges(layer).map_or(structure.leaf().family.parameters(), |edges| edges.count);
            match structure.leaf().family {
                // Means tell the channels apart.
                Family::Normal(_) if layer == 0 => {}
                _ if layer == 0 && n == 1 => tensor.fill(0.5),
                _ => tensor.fill(1.0 / n as f64),
            }
        }
        let circuit = Circuit::new(structure, parameters).expect("legal parameters");
        let data = Array2::from_elem((2, circuit.variables()), f32::NAN);
        for method in [Mpe::Greedy, Mpe::MaxProduct] {
            let [given, expected] = [&*subject.backend, &Reference]
                .map(|b| b.load(&circuit).expect("a circuit").mpe(data.view(), method).expect("no evidence"));
            assert_eq!(given, expected, "{method:?} of\n{circuit}");
        }
    }
}

/// An edge of weight zero is not taken, however far its input is above the others.
///
/// # Panics
/// If it is, or the edge below it is lost.
pub fn gaps(subject: &Subject) {
    for channels in [2, 20] {
        for taken in [0, 1] {
            let circuit = upward::far_apart(142.0, channels, taken, channels > 2);
            let (m, nan) = (142.0, f32::NAN);
            let data = array![[0.0, m, nan, m, m, m], [nan, 0.0, 0.0, nan, 0.0, 0.0], [m, m, m, nan, m, m], [nan; 6]];
            let [given, expected] = [&*subject.backend, &Reference]
                .map(|b| b.load(&circuit).expect("a circuit").sample_conditional(data.view(), 8, 0).expect("possible"));
            assert_eq!(different(&given, &expected), 0, "{given} instead of {expected}");
        }
    }
}

/// Evidence of probability zero is an error that names its first row.
///
/// # Panics
/// If it is not.
pub fn impossible_evidence(subject: &Subject) {
    for (channels, sum_conv) in [(3, false), (20, true)] {
        let (circuit, rows) = upward::with_zeros(channels, sum_conv);
        let executable = subject.backend.load(&circuit).expect("a circuit");
        let impossible = |rows: &Array2<f32>| {
            let all = [
                executable.sample_conditional(rows.view(), 3, 1 << 40),
                executable.mpe(rows.view(), Mpe::Greedy),
                executable.mpe(rows.view(), Mpe::MaxProduct),
            ];
            all.map(|result| match result {
                Ok(completed) => {
                    assert!(completed.iter().all(|x| x.is_finite()));
                    None
                }
                Err(Error::ImpossibleEvidence { row }) => Some(row),
                Err(other) => panic!("{other}"),
            })
        };
        let possible = concatenate(Axis(0), &rows.iter().filter(|r| r.1).map(|r| r.0.view()).collect::<Vec<_>>());
        let possible = possible.expect("rows of one length");
        assert_eq!(impossible(&possible), [None; 3]);
        for (row, _) in rows.iter().filter(|r| !r.1) {
            for before in [0, 2, possible.nrows()] {
                let (first, rest) = possible.view().split_at(Axis(0), before);
                let together = concatenate(Axis(0), &[first, row.view(), row.view(), rest]).expect("one length");
                assert_eq!(impossible(&together), [Some(before); 3], "{}", subject.backend.name());
            }
        }
    }
}

/// Samples follow the enumerated distribution of a discrete circuit, with and without evidence: the smallest tail probability
/// of the two chi-squares, by `tail(statistic, degrees of freedom)`.
///
/// # Panics
/// If the circuit is continuous, or has too few assignments to tell.
pub fn follow_the_distribution(
    subject: &Subject,
    circuit: &Circuit,
    draws: usize,
    tail: impl Fn(f64, f64) -> f64,
) -> f64 {
    let all = assignments(circuit);
    let mut given = all.row(all.nrows() - 2).to_owned();
    given.iter_mut().skip(1).for_each(|x| *x = f32::NAN);
    let none = Array1::from_elem(circuit.variables(), f32::NAN);
    let executable = subject.backend.load(circuit).expect("a circuit");
    let p = executable.log_likelihood(all.view()).expect("legal values").mapv(f64::exp);
    let rows = given.broadcast((draws, given.len())).expect("one row many times");
    let drawn = [
        (&none, executable.sample(0..draws as u64, 11).expect("rows")),
        (&given, executable.sample_conditional(rows, 12, 0).expect("possible evidence")),
    ];
    let tails = drawn.map(|(evidence, drawn)| {
        let possible: Vec<usize> = (0..all.nrows()).filter(|&row| agrees(all.row(row), evidence.view())).collect();
        let total: f64 = possible.iter().map(|&row| p[row]).sum();
        let (mut statistic, mut cells) = (0.0, 0);
        for row in possible {
            let expected = draws as f64 * p[row] / total;
            let seen = drawn.outer_iter().filter(|x| *x == all.row(row)).count() as f64;
            if expected >= 5.0 {
                statistic += (seen - expected) * (seen - expected) / expected;
                cells += 1;
            }
        }
        assert!(cells > 3, "too few cells to tell");
        tail(statistic, f64::from(cells - 1))
    });
    tails[0].min(tails[1])
}

/// Small circuits whose distribution can be enumerated: a hand-made chain, and two with repetitions.
///
/// # Panics
/// Never.
pub fn enumerable() -> [Circuit; 3] {
    [
        circuits::small_chain(),
        ConvPc::new(2, 2, 1, Family::categorical(3)).channels(2).repetitions(2).build(4).expect("a circuit"),
        ConvPc::new(2, 2, 1, Family::discretized_logistic(4)).channels(2).repetitions(2).build(4).expect("a circuit"),
    ]
}

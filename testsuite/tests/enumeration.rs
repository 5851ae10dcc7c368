//! Small circuits against the sum over all assignments of their variables.

use convpc::{Circuit, ConvPc, Family, Mpe, Semiring, Split};
use ndarray::{Array2, Axis};
use proptest::prelude::*;
use statrs::distribution::{ChiSquared, ContinuousCDF};
use testsuite::{agrees, assert_close, assignments, sampling, subjects};

/// Random small circuits with at most 2^9 assignments.
fn circuit() -> impl Strategy<Value = Circuit> {
    let image = prop_oneof![Just((1, 1, 3)), Just((2, 3, 1)), Just((3, 2, 1)), Just((1, 5, 1)), Just((2, 1, 3))];
    let family = prop_oneof![
        Just(Family::bernoulli()),
        Just(Family::categorical(2)),
        Just(Family::categorical(3)),
        Just(Family::binomial(2)),
        Just(Family::discretized_logistic(3))
    ];
    let convpc = (image, family, 1..4usize, 1..4usize, 1..3usize, 1..4usize, any::<[bool; 6]>(), any::<u64>());
    convpc.prop_map(
        |(
            (height, width, colors),
            family,
            channels,
            kernel,
            depth,
            repetitions,
            [conv, shared, binary, leaf_sums, classes, shifted],
            seed,
        )| {
            let convpc = ConvPc::new(height, width, colors, family);
            let convpc = if leaf_sums { convpc.leaf_sums(3) } else { convpc };
            let convpc = convpc
                .channels_by_level([channels, 2])
                .split(if binary { Split::Alternating } else { Split::Square })
                .leaf_channels(2)
                .kernel_size(kernel)
                .depth(depth)
                .repetitions(repetitions)
                .use_sum_conv(conv)
                .shared_leaves(shared)
                .num_classes(if classes { 3 } else { 1 });
            // Where there is no room to shift, repetitions are alike.
            let shifts = convpc.clone().shifts([(0, 0), (1, 0)]).build(seed);
            if shifted { shifts.or_else(|_| convpc.build(seed)) } else { convpc.build(seed) }.unwrap()
        },
    )
}

/// Some rows with every other variable, the first half, and all variables missing.
fn evidence(all: &Array2<f32>) -> Array2<f32> {
    let mut rows = all.select(Axis(0), &[0, all.nrows() / 2, all.nrows() - 1]);
    let n = rows.ncols();
    rows.row_mut(0).iter_mut().step_by(2).for_each(|x| *x = f32::NAN);
    rows.row_mut(1).iter_mut().take(n / 2).for_each(|x| *x = f32::NAN);
    rows.row_mut(2).fill(f32::NAN);
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn probabilities_marginals_and_maxima(circuit in circuit()) {
        let (all, n) = (assignments(&circuit), circuit.variables());
        let evidence = evidence(&all);
        for subject in subjects() {
            let tolerance = (subject.relative.max(1e-5 * subject.absolute), subject.absolute);
            let executable = subject.backend.load(&circuit).unwrap();
            let p = executable.log_likelihood(all.view()).unwrap().mapv(f64::exp);
            prop_assert!((p.sum() - 1.0).abs() < 10.0 * subject.absolute, "{}", p.sum());
            let marginal = executable.log_likelihood(evidence.view()).unwrap();
            let enumerated: Vec<f64> = evidence.outer_iter().map(|e| {
                all.outer_iter().zip(&p).filter(|(row, _)| agrees(*row, e)).map(|(_, p)| p).sum::<f64>().ln()
            }).collect();
            assert_close("marginals", &marginal, &enumerated, (tolerance.0, 10.0 * tolerance.1));

            // The maximum over values and latent choices is the largest that complete evidence reaches.
            let best = |rows: &Array2<f32>| executable.evaluate(rows.view(), Semiring::MaxProduct).unwrap();
            let joint = best(&all).log_likelihood();
            let found = best(&executable.mpe(evidence.view(), Mpe::MaxProduct).unwrap()).log_likelihood();
            let maxima: Vec<f64> = evidence.outer_iter().map(|e| {
                let agreeing = all.outer_iter().zip(&joint).filter(|(row, _)| agrees(*row, e));
                agreeing.map(|(_, ll)| *ll).fold(f64::NEG_INFINITY, f64::max)
            }).collect();
            assert_close("MaxProduct", &found, &maxima, tolerance);

            for prune in [true, false] {
                if n > 1 {
                    let smaller = circuit.marginalize(&(0..n / 2).collect(), prune).unwrap();
                    let kept: Vec<usize> = (n / 2..n).collect();
                    let rows = all.select(Axis(1), &kept);
                    let mut missing = all.clone();
                    (0..n / 2).for_each(|v| missing.column_mut(v).fill(f32::NAN));
                    let given = subject.backend.load(&smaller).unwrap().log_likelihood(rows.view()).unwrap();
                    let expected = executable.log_likelihood(missing.view()).unwrap();
                    assert_close("marginalize", &given, &expected, tolerance);
                }
            }
        }
    }
}

/// Samples follow the enumerated distribution, with and without evidence.
#[test]
fn samples_follow_the_distribution() {
    let tail = |statistic, freedom| 1.0 - ChiSquared::new(freedom).unwrap().cdf(statistic);
    for circuit in sampling::enumerable() {
        for subject in subjects() {
            let tail = sampling::follow_the_distribution(&subject, &circuit, 20_000, tail);
            assert!(tail > 1e-4, "{}: {tail}", subject.backend.name());
        }
    }
}

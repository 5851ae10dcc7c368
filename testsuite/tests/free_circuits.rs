//! Hand-made chains with odd kernels and paddings against the sum over all assignments of their variables.

use convpc::{Circuit, Family, Leaf, Mpe, Padding, Paddings, ProdConv, Scope, Semiring, Structure};
use ndarray::{Array2, Axis};
use proptest::prelude::*;
use testsuite::{agrees, assert_close, assignments, subjects};

/// At most this many assignments.
const MOST: usize = 1024;

/// Leaf → (sum) → products with padding on any side, whole patches of it too → sum → products to one feature → root.
fn circuit() -> impl Strategy<Value = Circuit> {
    let image = (1..5usize, 1..5usize, prop_oneof![Just(1usize), Just(3)]);
    let family = prop_oneof![
        Just(Family::bernoulli()),
        Just(Family::categorical(2)),
        Just(Family::categorical(3)),
        Just(Family::binomial(2)),
        Just(Family::discretized_logistic(3))
    ];
    let product = ((1..4usize, 1..4usize), (0..4usize, 0..4usize), (any::<bool>(), any::<bool>()));
    // How far each repetition after the first moves, at most as far as there is padding.
    let shifts = prop_oneof![Just([(0, 0); 2]), any::<[(u8, u8); 2]>()];
    // Channels and repetitions; a sum right above the leaf; the kernel of the sums, 0 for Sum.
    let sums = (1..4usize, 1..4usize, 1..4usize, any::<bool>(), 0..4usize);
    (image, family, product, shifts, sums, any::<u64>())
        .prop_filter("few assignments", |((h, w, colors), family, ..)| {
            family.cardinality().unwrap().checked_pow((h * w * colors) as u32).is_some_and(|n| n <= MOST)
        })
        .prop_map(|((height, width, colors), family, (kernel, before, more), shifts, sums, seed)| {
            let (leaf_channels, channels, repetitions, early, sum_kernel) = sums;
            let after = |size: usize, before: usize, kernel: usize, more: bool| {
                (size + before).next_multiple_of(kernel) - size - before + if more { kernel } else { 0 }
            };
            let padding = Padding {
                top: before.0,
                left: before.1,
                bottom: after(height, before.0, kernel.0, more.0),
                right: after(width, before.1, kernel.1, more.1),
            };
            let grid =
                ((height + padding.top + padding.bottom) / kernel.0, (width + padding.left + padding.right) / kernel.1);
            let around = |size: usize, by: u8| (usize::from(by) % (size + 1), size - usize::from(by) % (size + 1));
            let shifted = |(down, right): (u8, u8)| {
                let Padding { top, left, bottom, right: rest } = padding;
                let ((top, bottom), (left, right)) = (around(top + bottom, down), around(left + rest, right));
                Padding { top, left, bottom, right }
            };
            let paddings: Paddings = match shifts {
                [(0, 0), (0, 0)] => padding.into(),
                _ => [padding].into_iter().chain(shifts.map(shifted)).take(repetitions).collect::<Vec<_>>().into(),
            };
            let leaf = Leaf::new(height, width, colors, family, leaf_channels).repetitions(repetitions);
            let sum = |chain: convpc::StructureBuilder| match sum_kernel {
                0 => chain.sum(channels),
                k => chain.sum_conv(channels, k),
            };
            let mut chain = Structure::builder(leaf);
            if early {
                chain = sum(chain);
            }
            chain = sum(chain.prod_conv(ProdConv::new(kernel.0, kernel.1).padding(paddings)));
            chain = chain.prod_conv(ProdConv::new(grid.0, grid.1)).sum(1);
            // A mixture of one repetition is what pruning may leave.
            if repetitions > 1 || early {
                chain = chain.repetition_mixing();
            }
            Circuit::random(chain.build().unwrap(), seed).unwrap()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn enumeration(circuit in circuit(), masks in prop::collection::vec((any::<u32>(), any::<prop::sample::Index>()), 5)) {
        let all = assignments(&circuit);
        let mut evidence = Array2::zeros((masks.len(), circuit.variables()));
        for ((mask, row), mut target) in masks.iter().zip(evidence.outer_iter_mut()) {
            target.assign(&all.row(row.index(all.nrows())));
            target.indexed_iter_mut().filter(|(v, _)| mask >> v & 1 == 1).for_each(|(_, x)| *x = f32::NAN);
        }
        let drop: Scope = (0..circuit.variables()).filter(|v| masks[0].0 >> v & 1 == 1).collect();
        for subject in subjects() {
            let tolerance = (subject.relative, subject.absolute);
            let executable = subject.backend.load(&circuit).unwrap();
            let ll = executable.log_likelihood(all.view()).unwrap();
            let joint = executable.evaluate(all.view(), Semiring::MaxProduct).unwrap().log_likelihood();
            // A sum is as far off as its terms: the allowance of log-likelihoods of about this size.
            let off = subject.relative * ll.fold(0.0, |m: f64, x| m.max(x.abs())) + subject.absolute;
            let total = ll.mapv(f64::exp).sum();
            prop_assert!(total.ln().abs() <= 2.0 * off, "the probabilities add up to {total}");

            let (mut marginals, mut maxima) = (vec![], vec![]);
            for e in evidence.outer_iter() {
                let rows: Vec<usize> = (0..all.nrows()).filter(|&row| agrees(all.row(row), e)).collect();
                marginals.push(rows.iter().map(|&row| ll[row].exp()).sum::<f64>().ln());
                maxima.push(rows.iter().map(|&row| joint[row]).fold(f64::NEG_INFINITY, f64::max));
            }
            let given = executable.log_likelihood(evidence.view()).unwrap();
            assert_close("marginals", &given, &marginals, (0.0, 2.0 * off));
            let bound = executable.evaluate(evidence.view(), Semiring::MaxProduct).unwrap().log_likelihood();
            assert_close("the maximum", &bound, &maxima, tolerance);
            let completed = executable.mpe(evidence.view(), Mpe::MaxProduct).unwrap();
            let attained = executable.evaluate(completed.view(), Semiring::MaxProduct).unwrap().log_likelihood();
            assert_close("the maximum's completion", &attained, &maxima, tolerance);
            prop_assert!(completed.outer_iter().zip(evidence.outer_iter()).all(|(row, e)| agrees(row, e)));

            if !drop.is_empty() && drop.len() < circuit.variables() {
                let kept: Vec<usize> = (0..circuit.variables()).filter(|&v| !drop.contains(v)).collect();
                let mut missing = all.clone();
                drop.iter().for_each(|v| missing.column_mut(v).fill(f32::NAN));
                let expected = executable.log_likelihood(missing.view()).unwrap();
                for prune in [true, false] {
                    let smaller = circuit.marginalize(&drop, prune).unwrap();
                    let rows = all.select(Axis(1), &kept);
                    let given = subject.backend.load(&smaller).unwrap().log_likelihood(rows.view()).unwrap();
                    assert_close("marginalize", &given, &expected, (2.0 * tolerance.0, 2.0 * tolerance.1));
                }
            }
        }
    }
}

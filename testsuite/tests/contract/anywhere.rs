//! Random models over the whole range of what is legal.

use convpc::{Backend, Circuit, ConvPc, Family, Parameters, Reference, em};
use ndarray::{Array2, Axis};
use proptest::prelude::*;

use crate::{assert_contract, assert_contract_on, backends, cpu, refuses_far_row};

/// A number that is positive, of any size between powers of ten.
fn of_any_size(exponents: std::ops::Range<f64>) -> impl Strategy<Value = f64> {
    exponents.prop_map(|exponent| 10_f64.powf(exponent))
}

fn signed(size: impl Strategy<Value = f64>) -> impl Strategy<Value = f64> {
    (size, any::<bool>()).prop_map(|(size, negative)| if negative { -size } else { size })
}

/// Leaf parameters over their whole range.
fn leaf_parameters(family: Family) -> BoxedStrategy<Vec<f64>> {
    let softmax = |logits: Vec<f64>| {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
        logits.into_iter().map(|x| (x - largest).exp() / sum).collect::<Vec<f64>>()
    };
    match family {
        Family::Normal(_) => {
            let mean = prop_oneof![Just(0.0), signed(of_any_size(-3.0..6.0)), signed(of_any_size(-30.0..37.9))];
            let std = prop_oneof![of_any_size(-3.0..3.0), of_any_size(-30.0..37.9)];
            (mean, std).prop_map(|(mean, std)| vec![mean, std]).boxed()
        }
        Family::Categorical(c) => prop::collection::vec(-100.0..100.0, c.categories).prop_map(softmax).boxed(),
        Family::DiscretizedLogistic(l) => {
            let n = l.levels as f64;
            (-4.0 * n..5.0 * n, 0.05..4.0 * n).prop_map(|(mean, scale)| vec![mean, scale]).boxed()
        }
        _ => prop_oneof![Just(0.0), Just(1.0), (-100.0..100.0_f64).prop_map(|x| 1.0 / (1.0 + (-x).exp()))]
            .prop_map(|p| vec![p])
            .boxed(),
    }
}

/// Circuits of all families, whose parameters lie anywhere in their legal range, with rows near the means and anywhere.
fn extreme() -> impl Strategy<Value = (Circuit, Array2<f32>)> {
    let family = prop_oneof![
        4 => Just(Family::normal()),
        1 => Just(Family::bernoulli()),
        1 => Just(Family::categorical(4)),
        1 => (1..2000_usize).prop_map(Family::binomial),
        1 => Just(Family::discretized_logistic(16))
    ];
    let image = (1..4usize, 1..4usize, 1..3usize);
    (family, image, 1..5usize, 1..3usize, any::<bool>(), any::<bool>())
        .prop_flat_map(|(family, (height, width, colors), channels, repetitions, sum_conv, shared)| {
            let convpc =
                ConvPc::new(height, width, colors, family).channels(channels).depth(1).repetitions(repetitions);
            let convpc = convpc.use_sum_conv(sum_conv).shared_leaves(shared);
            let structure = if shared { convpc.leaf_sums(2) } else { convpc }.structure().unwrap();
            let shape = |layer: usize| structure.parameter_shape(layer).iter().product::<usize>();
            let leaves = prop::collection::vec(leaf_parameters(family), shape(0) / family.parameters());
            let weights: usize = (1..structure.layers().len()).map(shape).sum();
            let logits =
                prop::collection::vec(prop_oneof![3 => -5.0..5.0, 2 => -100.0..100.0, 1 => -700.0..0.0], weights);
            let seen = prop::collection::vec(
                (any::<prop::sample::Index>(), -4.0..4.0_f64, 0..8_u8),
                5 * structure.variables(),
            );
            (Just(structure), leaves, logits, seen)
        })
        .prop_map(|(structure, leaves, logits, seen)| {
            let mut parameters = Parameters::zeros(&structure);
            let mut logits = logits.into_iter();
            parameters.0[0].iter_mut().zip(leaves.iter().flatten()).for_each(|(to, p)| *to = *p);
            for (layer, tensor) in structure.layers().iter().zip(&mut parameters.0) {
                let Some(axis) = layer.normalized_axis() else { continue };
                for mut lane in tensor.lanes_mut(Axis(axis)) {
                    lane.mapv_inplace(|_| logits.next().unwrap());
                    let largest = lane.fold(f64::NEG_INFINITY, |a, b| a.max(*b));
                    lane.mapv_inplace(|x| (x - largest).exp());
                    let sum = lane.sum();
                    lane /= sum;
                }
            }
            let family = structure.leaf().family;
            let value = |&(index, k, kind): &(prop::sample::Index, f64, u8)| {
                let leaf = index.get(&leaves);
                match (family.cardinality(), kind) {
                    (_, 0) => f32::NAN,
                    (Some(n), _) => index.index(n) as f32,
                    (None, 1) => [0.0, 1e30, -1e30, 1.0, 1e38, 1e-30][index.index(6)],
                    (None, _) => ((leaf[0] + k * leaf[1]) as f32).clamp(-1e38, 1e38),
                }
            };
            let data = seen.iter().map(value).collect();
            let data = Array2::from_shape_vec((5, structure.variables()), data).unwrap();
            (Circuit::new(structure, parameters).unwrap(), data)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_contract_holds_on_every_backend((circuit, data) in extreme()) {
        for backend in backends() {
            assert_contract_on(&*backend, &circuit, &data);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_contract_holds_anywhere((circuit, data) in extreme()) {
        assert_contract(&circuit, &data);
    }

    /// Counts are those of the rows, and a step leaves a circuit that computes.
    #[test]
    fn learning_stays_finite_anywhere((circuit, data) in extreme(), minimum_std in prop_oneof![Just(0.0), Just(1e-3)]) {
        let mut executable = cpu().load(&circuit).unwrap();
        let seen = match executable.accumulate(data.view()) {
            Ok(seen) => seen,
            Err(error) => {
                let expected = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap().to_vec();
                prop_assert!(refuses_far_row(&error, &expected), "{error}");
                // A batch that is refused leaves nothing behind.
                prop_assert!(executable.statistics().unwrap().counts.iter().flatten().all(|n| *n == 0.0));
                return Ok(());
            }
        };
        let counted = (seen.rows - seen.impossible_rows) as f64;
        let statistics = executable.statistics().unwrap();
        prop_assert!(statistics.counts.iter().flatten().all(|n| n.is_finite()), "{statistics:?}");
        let root = &statistics.counts[circuit.structure().layers().len() - 1];
        prop_assert!((root.sum() - counted).abs() < 1e-4 * (1.0 + counted), "{root}");
        if counted > 0.0 {
            executable.em_step(&em::Options { minimum_std, ..em::Options::default() }).unwrap();
            let learned = executable.circuit().unwrap();
            assert_contract(&learned, &data);
        }
    }
}

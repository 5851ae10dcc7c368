//! Circuits that between them have every kind of layer, leaf and padding.

use convpc::{Backend, Circuit, ConvPc, Family, Leaf, Padding, Precision, ProdConv, Reference, Split, Structure};
use ndarray::Array2;
use proptest::prelude::*;

/// Samples of the circuit itself, every fifth value missing.
///
/// # Panics
/// Never.
pub fn data(circuit: &Circuit, rows: u64) -> Array2<f32> {
    let mut data = Reference.load(circuit).expect("a circuit").sample(0..rows, 1).expect("rows");
    data.iter_mut().step_by(5).for_each(|x| *x = f32::NAN);
    data
}

/// Small circuits with channel counts beside and at the sizes of tiles, hand-made chains, and a marginalised one.
///
/// # Panics
/// Never.
pub fn all() -> Vec<Circuit> {
    let base = |family| ConvPc::new(5, 7, 1, family).depth(2);
    let chain = Structure::builder(Leaf::new(5, 6, 2, Family::bernoulli(), 3).repetitions(2))
        .sum(12)
        .sum_conv(20, 3)
        .prod_conv(ProdConv::new(2, 3).padding(Padding { top: 1, ..Padding::default() }))
        .prod_conv(ProdConv::new(3, 1))
        .repetition_mixing()
        .sum(9)
        .prod_conv(ProdConv::new(1, 2))
        .sum(1)
        .prod_conv(ProdConv::new(1, 1));
    let mut circuits: Vec<Circuit> = [
        base(Family::normal()).channels(6),
        base(Family::normal()).channels(17).use_sum_conv(true).repetitions(3),
        base(Family::bernoulli()).channels(64).leaf_channels(3),
        base(Family::categorical(5)).channels(40).repetitions(2),
        base(Family::binomial(9)).channels(33).use_sum_conv(true),
        base(Family::binomial(4)).channels_by_level([6, 20]).leaf_sums(10).split(Split::Alternating).repetitions(2),
        base(Family::categorical(4)).channels(9).leaf_channels(5).repetitions(2).shared_leaves(true),
        base(Family::discretized_logistic(13)).channels(9).leaf_channels(5).repetitions(2),
        ConvPc::new(4, 3, 2, Family::discretized_logistic(40)).channels(10).depth(2).shared_leaves(true),
        ConvPc::new(4, 3, 2, Family::normal()).channels(10).leaf_channels(6).depth(2).shared_leaves(true),
        ConvPc::new(6, 3, 3, Family::binomial(4)).channels(16).kernel_size(3).depth(1),
        ConvPc::new(3, 3, 1, Family::normal()).channels(130).leaf_channels(9).depth(1),
        ConvPc::new(3, 4, 1, Family::categorical(3)).channels(9).num_classes(10),
        ConvPc::new(4, 3, 1, Family::bernoulli()).channels(5).repetitions(2).num_classes(3),
        base(Family::categorical(4)).channels(10).leaf_channels(6).shifts([(-1, 0), (2, 1), (0, 0)]),
        ConvPc::new(5, 3, 1, Family::normal()).channels(12).depth(3).shifts([(-1, -2), (2, 3)]),
        ConvPc::new(5, 3, 2, Family::binomial(4)).channels(9).depth(3).shifts([(0, 3), (2, -1)]).use_sum_conv(true),
        ConvPc::new(3, 5, 1, Family::categorical(3))
            .channels(4)
            .depth(3)
            .shifts([(-2, 2), (3, -1)])
            .shared_leaves(true)
            .num_classes(2),
    ]
    .into_iter()
    .enumerate()
    .map(|(seed, convpc)| convpc.build(seed as u64).expect("a circuit"))
    .collect();
    circuits.push(Circuit::random(chain.build().expect("a chain"), 7).expect("a circuit"));
    let leaf = Structure::builder(Leaf::new(2, 2, 1, Family::normal(), 1)).prod_conv(ProdConv::new(2, 2));
    circuits.push(Circuit::random(leaf.build().expect("a chain"), 8).expect("a circuit"));
    let whole = ConvPc::new(4, 5, 1, Family::categorical(3)).channels(12).depth(2).build(9).expect("a circuit");
    let dropped = [0, 1, 2, 3, 4, 7, 12].into_iter().collect();
    circuits.push(whole.marginalize(&dropped, false).expect("a smaller circuit"));
    let shifted = ConvPc::new(4, 5, 1, Family::normal()).channels(9).depth(3).shifts([(-2, 1), (2, -1)]).build(11);
    let dropped = [0, 1, 2, 5, 6, 7, 12].into_iter().collect();
    circuits.push(shifted.and_then(|shifted| shifted.marginalize(&dropped, true)).expect("a smaller circuit"));
    let shared = ConvPc::new(3, 2, 3, Family::binomial(3)).channels(7).depth(2).shared_leaves(true).build(10);
    let dropped = [0, 3, 4, 8, 16].into_iter().collect();
    circuits.push(shared.and_then(|shared| shared.marginalize(&dropped, true)).expect("a smaller circuit"));
    circuits
}

/// A circuit whose sums fill the widest tiles.
///
/// # Panics
/// Never.
pub fn wide() -> Circuit {
    let convpc = ConvPc::new(2, 2, 1, Family::normal()).channels(150).leaf_channels(140).depth(1);
    convpc.build(3).expect("a circuit")
}

/// A hand-made chain over six binary variables.
///
/// # Panics
/// Never.
pub fn small_chain() -> Circuit {
    let bottom = ProdConv::new(1, 2).padding(Padding { right: 1, ..Padding::default() });
    let chain = Structure::builder(Leaf::new(2, 3, 1, Family::bernoulli(), 2)).prod_conv(bottom);
    let chain = chain.sum_conv(3, 2).prod_conv(ProdConv::new(2, 2)).sum(1);
    Circuit::random(chain.build().expect("a chain"), 3).expect("a circuit")
}

/// Small circuits of any shape and family, a precision to compute them in, and a number of rows.
pub fn random() -> impl Strategy<Value = (Circuit, Precision, u64)> {
    let size = (1..7usize, 1..7usize, prop_oneof![Just(1usize), Just(3)]);
    let families = vec![
        Family::normal(),
        Family::bernoulli(),
        Family::categorical(4),
        Family::binomial(6),
        Family::discretized_logistic(5),
    ];
    let shape = (1..40usize, 1..20usize, 1..4usize, 1..3usize, 1..3usize, any::<[bool; 3]>());
    let circuit =
        (size, prop::sample::select(families), shape, any::<u64>()).prop_map(|(size, family, shape, seed)| {
            let (channels, leaf_channels, kernel_size, depth, repetitions, [use_sum_conv, shared_leaves, shifted]) =
                shape;
            let convpc = ConvPc::new(size.0, size.1, size.2, family).channels(channels).leaf_channels(leaf_channels);
            let convpc =
                convpc.kernel_size(kernel_size).depth(depth).repetitions(repetitions).use_sum_conv(use_sum_conv);
            let convpc = convpc.shared_leaves(shared_leaves);
            // Where there is no room to shift, repetitions are alike.
            let shifts = convpc.clone().shifts([(0, 0), (1, 0)]).build(seed);
            if shifted { shifts.or_else(|_| convpc.build(seed)) } else { convpc.build(seed) }.expect("a circuit")
        });
    (circuit, prop::sample::select(Precision::ALL.to_vec()), 1..80u64)
}

//! Bad input, each with its message.

use convpc::{Backend, Circuit, ConvPc, Cpu, Family, Leaf, Padding, ProdConv, Reference, Structure};
use insta::{allow_duplicates, assert_snapshot};
use ndarray::{Array2, array};

#[test]
fn structures() {
    let base = || ConvPc::new(8, 8, 1, Family::normal());
    let error = |convpc: ConvPc| convpc.build(0).unwrap_err();
    assert_snapshot!(error(base().depth(0)), @"depth is 0; it must be at least 1");
    assert_snapshot!(error(base().channels(0)), @"channels is 0; it must be at least 1");
    assert_snapshot!(error(base().kernel_size(0).depth(2)), @"kernel_size is 0; it must be at least 1");
    assert_snapshot!(error(base().repetitions(0)), @"repetitions is 0; it must be at least 1");
    assert_snapshot!(error(ConvPc::new(0, 8, 1, Family::normal())), @"height is 0; it must be at least 1");
    let chain = Structure::builder(Leaf::new(3, 4, 1, Family::normal(), 2)).prod_conv(ProdConv::new(2, 2)).build();
    assert_snapshot!(chain.unwrap_err(), @"layer 1 (ProdConv): the padded height 3 (3 + 0 padding) is not a multiple of the kernel height 2; add padding up to 4, or choose a kernel that divides 3");
    assert_snapshot!(error(base().shifts([])), @"repetitions is 0; it must be at least 1");
    assert_snapshot!(error(base().shifts([(0, 0), (1, 0)])), @"the shift of a repetition is 1 rows and 0 columns; expected 0 to 0 rows and 0 to 0 columns, as much as the bottom product pads; a greater depth pads more");
    assert_snapshot!(error(ConvPc::new(5, 7, 1, Family::normal()).depth(3).shifts([(0, 0), (-2, isize::MIN)])), @"the shift of a repetition is -2 rows and -9223372036854775808 columns; expected -1 to 2 rows and 0 to 1 columns, as much as the bottom product pads; a greater depth pads more");
    let padded = |paddings: Vec<Padding>| {
        let leaf = Leaf::new(3, 4, 1, Family::normal(), 2).repetitions(2);
        Structure::builder(leaf).prod_conv(ProdConv::new(2, 2).padding(paddings))
    };
    let (above, below) = (Padding { top: 1, ..Padding::default() }, Padding { bottom: 1, ..Padding::default() });
    assert_snapshot!(padded(vec![above]).build().unwrap_err(), @"the number of a product layer's paddings is 1 (layer 1); expected 2, one for each repetition, or a single padding for all");
    let more = Padding { left: 1, right: 1, ..above };
    assert_snapshot!(padded(vec![above, more]).build().unwrap_err(), @"the padded size of a repetition is 4×6 (repetition 1 at layer 1); expected 4×4, as of repetition 0");
    let mixed = padded(vec![above, below]).repetition_mixing().prod_conv(ProdConv::new(2, 2)).sum(1).build();
    assert_snapshot!(mixed.unwrap_err(), @"the place where repetitions of different paddings are mixed is layer 2, on a grid of 2×2 features; expected a mixture above the products, where there is a single feature");
    // Paddings that are the same are no matter.
    padded(vec![above; 2]).repetition_mixing().prod_conv(ProdConv::new(2, 2)).sum(1).build().unwrap();
    let chain = Structure::builder(Leaf::new(1, 1, 1, Family::normal(), 2)).build();
    assert_snapshot!(chain.unwrap_err(), @"the last layer has 1 features, 2 channels and 1 repetitions; a root has 1 of each: end with products down to one feature, a sum with 1 channel, and a RepetitionMixing if there are repetitions");
    assert_snapshot!(Cpu::new(Some(0)).unwrap_err(), @"the number of threads is 0; it must be at least 1");
}

#[test]
fn parameters() {
    let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(2).build(0).unwrap();
    let (structure, good) = circuit.into_parts();
    let mut bad = good.clone();
    bad.0[2].fill(0.25);
    assert_snapshot!(Circuit::new(structure.clone(), bad).unwrap_err(), @"layer 2 (Sum): the weights of output 0 sum to 0.5; weights are linear (not logits), at least 0 and sum to 1 within 1e-6");
    let mut bad = good.clone();
    bad.0[0].fill(1.5);
    assert_snapshot!(Circuit::new(structure, bad).unwrap_err(), @"leaf of variable 0, channel 0, repetition 0 (bernoulli): probability 1.5 is not between 0 and 1");
}

#[test]
fn data() {
    let circuit = ConvPc::new(1, 2, 1, Family::binomial(4)).build(0).unwrap();
    let normal = ConvPc::new(1, 2, 1, Family::normal()).build(0).unwrap();
    allow_duplicates! { for backend in [Box::new(Reference) as Box<dyn Backend>, Box::new(Cpu::new(Some(1)).unwrap())] {
        let executable = backend.load(&circuit).unwrap();
        let error = |x: Array2<f32>| executable.log_likelihood(x.view()).unwrap_err();
        assert_snapshot!(error(array![[1.0]]), @"the data have 1 variables a row, the circuit has 2; a row holds the variables of a 1×2 image with 1 colors, (row · width + column) · colors + color");
        assert_snapshot!(error(Array2::zeros((0, 2))), @"the batch is empty: 0 rows were given, at least 1 is needed");
        assert_snapshot!(error(array![[1.0, 2.0], [3.0, 5.0]]), @"row 1, variable 1: 5 is outside the support of binomial, the whole numbers 0 to 4; NaN marks a missing value");
        let executable = backend.load(&normal).unwrap();
        let error = executable.log_likelihood(array![[f32::INFINITY, 0.0]].view()).unwrap_err();
        assert_snapshot!(error, @"row 0, variable 0: inf is outside the support of normal, the numbers from -1e38 to 1e38; NaN marks a missing value");
    }}
}

//! The import of SPFlow's circuits: numbers at the ends of what float64 holds, and files that are not what they are said to be.

use std::path::PathBuf;

use convpc::{
    Backend, Reference,
    model::ModelError,
    spflow::{self, Import, LeafKind},
};
use ndarray::Array2;
use safetensors::{Dtype, tensor::TensorView};
use tempfile::TempDir;

/// A state_dict: the leaf's tensors and the logits of the sums, the root's last, as SPFlow nests them.
struct State {
    leaf: Vec<(&'static str, Vec<usize>, Vec<f64>)>,
    sums: Vec<(Vec<usize>, Vec<f64>)>,
}

impl State {
    /// Two pixels by two, two channels of leaves and of sums.
    fn small(leaf: Vec<(&'static str, Vec<usize>, Vec<f64>)>, sums: Vec<f64>) -> State {
        State { leaf, sums: vec![(vec![4, 2, 2, 1], sums), (vec![1, 2, 1, 1], vec![0.3, -0.4])] }
    }

    fn import(&self, leaf: LeafKind, levels: Option<usize>) -> Result<(convpc::Circuit, Vec<String>), String> {
        self.import_as(Import { leaf, height: None, width: None, kernel_size: 2, levels })
    }

    fn import_as(&self, import: Import) -> Result<(convpc::Circuit, Vec<String>), String> {
        let (_folder, path) = self.write();
        let imported = spflow::import(&path, &import);
        let text = |e: ModelError| e.to_string().replace(&path.display().to_string(), "FILE");
        imported.map(|i| (i.circuit, i.notes.iter().map(ToString::to_string).collect())).map_err(text)
    }

    fn write(&self) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        let inputs = |times: usize| "inputs.".repeat(times);
        let leaf = self.leaf.iter().map(|(name, shape, values)| {
            (format!("{}{name}", inputs(2 * self.sums.len() + 1)), shape.clone(), values.clone())
        });
        let sums = self.sums.iter().rev().enumerate().map(|(level, (shape, values))| {
            (format!("{}logits", inputs(2 * level + 1)), shape.clone(), values.clone())
        });
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> =
            leaf.chain(sums).map(|(key, shape, values)| (key, shape, bytes(&values))).collect();
        let views = tensors
            .iter()
            .map(|(key, shape, bytes)| (key.clone(), TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &path).unwrap();
        (folder, path)
    }
}

fn bytes(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn log_sum_exp(terms: &[f64]) -> f64 {
    let max = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + terms.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// `log 1 / (1 + e^-x)`, without cancellation.
fn log_sigmoid(x: f64) -> f64 {
    if x < 0.0 { x - x.exp().ln_1p() } else { -(-x).exp().ln_1p() }
}

/// The log-likelihood of a small state's circuit, from the logits: `leaf(pixel, channel)` is that of a leaf.
fn log_likelihood(state: &State, leaf: impl Fn(usize, usize) -> f64) -> f64 {
    let (sums, root) = (&state.sums[0].1, &state.sums[1].1);
    let products: Vec<f64> = (0..2)
        .map(|d| {
            let sum = |pixel: usize| {
                let logit = |c: usize| sums[(pixel * 2 + c) * 2 + d];
                let terms = [0, 1].map(|c| logit(c) + leaf(pixel, c));
                log_sum_exp(&terms) - log_sum_exp(&[logit(0), logit(1)])
            };
            (0..4).map(sum).sum()
        })
        .collect();
    log_sum_exp(&[root[0] + products[0], root[1] + products[1]]) - log_sum_exp(root)
}

/// All rows of four values below `levels`, at most so many.
fn rows(levels: usize) -> Array2<f32> {
    Array2::from_shape_fn((levels.pow(4), 4), |(row, pixel)| (row / levels.pow(pixel as u32) % levels) as f32)
}

fn assert_likelihoods(state: &State, kind: LeafKind, levels: usize, leaf: impl Fn(usize, usize, usize) -> f64) {
    let (circuit, notes) = state.import(kind, Some(levels)).unwrap();
    let data = rows(levels);
    let given = Reference.load(&circuit).unwrap().log_likelihood(data.view()).unwrap();
    for (row, given) in data.outer_iter().zip(given) {
        let expected = log_likelihood(state, |pixel, channel| leaf(pixel, channel, row[pixel] as usize));
        assert!((given - expected).abs() <= 1e-9 * expected.abs() + 1e-12, "{row}: {given}, not {expected}; {notes:?}");
    }
}

/// Logits of both signs, one of them as large as asked for.
fn logits(count: usize, large: f64) -> Vec<f64> {
    (0..count).map(|k| if k % 3 == 0 { large } else { [-large, 0.7, -1.3][k / 3 % 3] }).collect()
}

const LARGE: [f64; 8] = [30.0, -30.0, 35.0, -35.0, 40.0, -40.0, 100.0, -100.0];

#[test]
fn saturated_bernoulli_leaves_keep_their_log_likelihoods() {
    for large in LARGE {
        for logits in [logits(8, large), vec![large; 8]] {
            let state = State::small(vec![("_logits", vec![4, 2, 1], logits.clone())], vec![0.5; 16]);
            assert_likelihoods(&state, LeafKind::Bernoulli, 2, |pixel, channel, x| {
                let logit = logits[pixel * 2 + channel];
                log_sigmoid(if x == 1 { logit } else { -logit })
            });
        }
    }
}

#[test]
fn saturated_binomial_leaves_keep_their_log_likelihoods() {
    for large in LARGE {
        for logits in [logits(8, large), vec![large; 8]] {
            let state = State::small(vec![("_logits", vec![4, 2, 1], logits.clone())], vec![0.5; 16]);
            let choose = [1.0_f64, 3.0, 3.0, 1.0];
            assert_likelihoods(&state, LeafKind::Binomial, 4, |pixel, channel, x| {
                let logit = logits[pixel * 2 + channel];
                choose[x].ln() + x as f64 * log_sigmoid(logit) + (3 - x) as f64 * log_sigmoid(-logit)
            });
        }
    }
}

#[test]
fn saturated_categorical_leaves_and_weights_keep_their_log_likelihoods() {
    for large in LARGE {
        let values = logits(24, large);
        let state = State::small(vec![("_logits", vec![4, 2, 1, 3], values.clone())], logits(16, large));
        assert_likelihoods(&state, LeafKind::Categorical, 3, |pixel, channel, x| {
            let of_leaf = &values[(pixel * 2 + channel) * 3..][..3];
            of_leaf[x] - log_sum_exp(of_leaf)
        });
    }
}

/// What was done is said, and only where it was done.
#[test]
fn an_import_says_what_it_changed() {
    let of = |logit: f64, kind: LeafKind| {
        let state = State::small(vec![("_logits", vec![4, 2, 1], vec![logit; 8])], vec![0.0; 16]);
        let (circuit, notes) = state.import(kind, Some(4)).unwrap();
        (circuit.structure().leaf().family.name(), notes.join("\n"))
    };
    assert_eq!(of(20.0, LeafKind::Bernoulli), ("bernoulli", String::new()));
    assert_eq!(of(-100.0, LeafKind::Binomial), ("binomial", String::new()));
    let (family, note) = of(40.0, LeafKind::Bernoulli);
    assert_eq!(family, "categorical");
    insta::assert_snapshot!(note, @"the bernoulli leaves were imported as categorical leaves of 2 values: their logits go up to 40, and above 28 a probability does not say in float64 what the logarithm of its complement is");
    let (family, note) = of(40.0, LeafKind::Binomial);
    assert_eq!(family, "categorical");
    insta::assert_snapshot!(note, @"the binomial leaves were imported as categorical leaves of 4 values: their logits go up to 40, and above 28 a probability does not say in float64 what the logarithm of its complement is");
    // Certain from the start: no number is lost.
    assert_eq!(of(f64::INFINITY, LeafKind::Bernoulli).0, "bernoulli");
    let (_, note) = of(-800.0, LeafKind::Bernoulli);
    insta::assert_snapshot!(note, @"8 probabilities or weights are smaller than float64 holds and were raised to 2.2250738585072014e-308; scores that rest on them are too high");
    let both = vec![("loc", vec![4, 2, 1], vec![0.0; 8]), ("log_scale", vec![4, 2, 1], vec![0.0; 8])];
    let (_, notes) = State::small(both, vec![0.0; 16]).import(LeafKind::Normal, None).unwrap();
    insta::assert_snapshot!(notes.join("\n"), @"loc and log_scale are what SPFlow's Laplace and LogNormal leaves have as well, and the tensors do not tell which they are: the model is right only if the leaves were Normal");
}

#[test]
fn shapes_that_spflow_does_not_have_are_refused() {
    let state = State::small(vec![("_logits", vec![4, 2, 1], vec![0.0; 8])], vec![0.0; 16]);
    let import = |height: Option<usize>, width: Option<usize>| {
        let import = Import { leaf: LeafKind::Bernoulli, height, width, kernel_size: 2, levels: None };
        state.import_as(import).map(|(circuit, _)| circuit.variables())
    };
    for (height, width) in [(None, None), (Some(2), None), (None, Some(2)), (Some(2), Some(2))] {
        assert_eq!(import(height, width), Ok(4));
    }
    insta::assert_snapshot!(import(Some(1), Some(4)).unwrap_err(), @"FILE: --height 1 --width 4 was given, but SPFlow's ConvPc is square, and the tensors hold 4 variables = 2×2; leave --height and --width out, or give 2 for both");
    insta::assert_snapshot!(import(None, Some(4)).unwrap_err(), @"FILE: --width 4 was given, but SPFlow's ConvPc is square, and the tensors hold 4 variables = 2×2; leave --height and --width out, or give 2 for both");
    let state = State::small(vec![("_logits", vec![6, 2, 1], vec![0.0; 12])], vec![0.0; 16]);
    insta::assert_snapshot!(state.import(LeafKind::Bernoulli, None).unwrap_err(), @"FILE: the leaves are of 6 variables, which make no square; SPFlow's ConvPc is of square images of one color");
}

#[test]
fn another_family_is_refused_with_those_that_fit() {
    let of = |leaf: Vec<(&'static str, Vec<usize>, Vec<f64>)>, kind| {
        State::small(leaf, vec![0.0; 16]).import(kind, Some(2)).map(|_| ()).unwrap_err()
    };
    let tensor = |name: &'static str, shape: &[usize]| (name, shape.to_vec(), vec![1.0; shape.iter().product()]);
    let normal = || vec![tensor("loc", &[4, 2, 1]), tensor("log_scale", &[4, 2, 1])];
    insta::assert_snapshot!(of(normal(), LeafKind::Categorical), @"FILE: --leaf categorical was given, but the leaves are of another leaf family: their tensors are loc with 3 axes, log_scale with 3 axes; --leaf normal fits");
    insta::assert_snapshot!(of(vec![tensor("_logits", &[4, 2, 1])], LeafKind::Normal), @"FILE: --leaf normal was given, but the leaves are of another leaf family: their tensors are _logits with 3 axes; --leaf bernoulli and --leaf binomial fit");
    insta::assert_snapshot!(of(vec![tensor("_logits", &[4, 2, 1])], LeafKind::Categorical), @"FILE: --leaf categorical was given, but the leaves are of another leaf family: their tensors are _logits with 3 axes; --leaf bernoulli and --leaf binomial fit");
    insta::assert_snapshot!(of(vec![tensor("_logits", &[4, 2, 1, 3])], LeafKind::Bernoulli), @"FILE: --leaf bernoulli was given, but the leaves are of another leaf family: their tensors are _logits with 4 axes; --leaf categorical fits");
    let binomial = vec![tensor("_logits", &[4, 2, 1]), tensor("_total_count", &[4, 2, 1])];
    insta::assert_snapshot!(of(binomial, LeafKind::Bernoulli), @"FILE: --leaf bernoulli was given, but the leaves are of another leaf family: their tensors are _logits with 3 axes, _total_count with 3 axes; --leaf binomial fits");
    insta::assert_snapshot!(of(vec![tensor("log_rate", &[4, 2, 1])], LeafKind::Normal), @"FILE: --leaf normal was given, but the leaves are of another leaf family: their tensors are none of loc, log_scale and _logits; no family of leaves that can be imported fits: normal (loc and log_scale), bernoulli, binomial (_logits with 3 axes), categorical (_logits with 4 axes)");
    // Three leaves under a product, as for colors.
    let colors = vec![tensor("0.loc", &[4, 2, 1]), tensor("1.loc", &[4, 2, 1]), tensor("0.log_scale", &[4, 2, 1])];
    insta::assert_snapshot!(of(colors, LeafKind::Normal), @"FILE: tensor loc occurs several times; the leaf of a ConvPc that is imported is one module");
}

/// Of 3 × 3 pixels, one row and column of padding: SPFlow pads half of it on each side, rounded down.
#[test]
fn a_padding_that_spflow_cannot_split_is_named() {
    let state = |features: usize| State {
        leaf: vec![("_logits", vec![9, 2, 1], vec![0.0; 18])],
        sums: vec![(vec![features, 2, 2, 1], vec![0.0; features * 4]), (vec![1, 2, 1, 1], vec![0.0; 2])],
    };
    assert!(state(4).import(LeafKind::Bernoulli, None).is_ok());
    insta::assert_snapshot!(state(1).import(LeafKind::Bernoulli, None).unwrap_err(), @"FILE: SPFlow lost a row and a column of features here: at the bottom product 3×3 pixels need a padding of 1 along each axis, SPFlow pads 0 on each side, and of 2×2 features 1×1 are left; log_likelihood of such a model fails in SPFlow too. Learn one whose padding is even, with another depth or image size");
    // The weights of SumConv do not tell the number of features, but the padding is known.
    let shared = State {
        leaf: vec![("_logits", vec![9, 2, 1], vec![0.0; 18])],
        sums: vec![(vec![2, 2, 2, 2, 1], vec![0.0; 16]), (vec![1, 2, 1, 1], vec![0.0; 2])],
    };
    let error = shared.import(LeafKind::Bernoulli, None).unwrap_err().to_string();
    assert!(error.contains("SPFlow lost a row and a column"), "{error}");
}

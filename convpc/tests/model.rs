//! Model files and the import of SPFlow's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use convpc::{
    Backend, Circuit, ConvPc, Family, Reference, model,
    spflow::{self, Import, LeafKind},
};
use insta::assert_snapshot;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

fn circuit() -> Circuit {
    ConvPc::new(5, 6, 3, Family::categorical(4)).channels(3).repetitions(2).use_sum_conv(true).build(9).unwrap()
}

fn message(path: &Path) -> String {
    let error = model::load(path).unwrap_err().to_string();
    error.replace(&path.display().to_string(), "FILE")
}

#[test]
fn saving_and_loading_is_bit_exact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let marginal = circuit().marginalize(&(0..40).collect(), true).unwrap();
    let shared = ConvPc::new(3, 4, 2, Family::normal()).channels(2).shared_leaves(true).build(9).unwrap();
    let shifted =
        ConvPc::new(3, 5, 1, Family::normal()).channels(2).depth(3).shifts([(-2, 1), (3, -1)]).build(9).unwrap();
    for circuit in [circuit(), marginal, shared, shifted] {
        model::save(&path, &circuit).unwrap();
        assert_eq!(model::load(&path).unwrap(), circuit);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    model::save(&path, &circuit()).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in [0, 4, 100, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(message(&path).contains("not a whole safetensors file"), "{length}: {}", message(&path));
    }
    assert_snapshot!(message(&path), @"FILE is not a whole safetensors file (incomplete metadata, file not fully covered); it is damaged, cut off or of another kind");
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(&path, bytes).unwrap();
        message(&path)
    };
    let foreign = replaced("convpc", "foreig");
    assert_snapshot!(foreign, @"FILE is no convpc model: its metadata lack format = convpc; `convpc import-spflow` reads SPFlow's");
    let newer = replaced("\"version\":\"1\"", "\"version\":\"7\"");
    assert_snapshot!(newer, @"FILE has format version 7, this library reads version 1; use a matching release of convpc");
    let unknown = replaced("sum_conv", "sum_cone");
    assert_snapshot!(unknown, @"FILE: the structure in the header is not legal: unknown variant `sum_cone`, expected one of `leaf`, `prod_conv`, `sum`, `sum_conv`, `repetition_mixing` at line 1 column 232");
    let shape = replaced("\\\"channels\\\":3", "\\\"channels\\\":2");
    assert_snapshot!(shape, @"FILE: layer 0 (Leaf): parameters have shape [90, 3, 2, 4], expected [90, 2, 2, 4]");
    let huge = replaced("\\\"height\\\":5,\\\"width\\\":6", "\\\"height\\\":9,\\\"width\\\":9");
    assert_snapshot!(huge, @"FILE: tensor layer/0 has 90 rows, expected one for each of the 243 variables of the header's leaves");
    let mut weights = whole.clone();
    let end = weights.len();
    weights[end - 1] ^= 0x40;
    fs::write(&path, weights).unwrap();
    assert_snapshot!(message(&path), @"FILE: layer 9 (RepetitionMixing): the weights of output 0 sum to 7.635009391908914e307; weights are linear (not logits), at least 0 and sum to 1 within 1e-6");
    fs::remove_file(&path).unwrap();
    assert_snapshot!(message(&path), @"FILE cannot be read: No such file or directory (os error 2)");
}

/// The message about a file with the tensors given and the metadata of a model.
fn of_tensors(tensors: &[(&str, Dtype)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    model::save(&path, &circuit()).unwrap();
    let whole = fs::read(&path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&whole).unwrap();
    let views = tensors.iter().map(|(name, dtype)| {
        let shape = if name.contains("layer") { vec![90, 3, 2, 4] } else { vec![540] };
        let zeros: &'static [u8] = vec![0; 2160 * dtype.bitsize() / 8].leak();
        let zeros = &zeros[..shape.iter().product::<usize>() * dtype.bitsize() / 8];
        (name.to_string(), TensorView::new(*dtype, shape, zeros).unwrap())
    });
    safetensors::serialize_to_file(views, header.metadata().clone(), &path).unwrap();
    message(&path)
}

#[test]
fn tensors_of_another_type_or_name_are_refused() {
    assert_eq!(
        of_tensors(&[("layer/0", Dtype::F32)]),
        "FILE: tensor layer/0 has type F32, expected F64; save it as that"
    );
    assert_eq!(of_tensors(&[("other", Dtype::F64)]), "FILE: tensor layer/0 is missing");
}

/// The message about a model file of a few bytes: a structure, and leaves in a tensor of this shape.
fn of_structure(structure: &str, shape: &[usize]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let entries = [("format", "convpc"), ("version", "1"), ("structure", structure)];
    let metadata = entries.map(|(key, value)| (key.to_string(), value.to_string())).into();
    let zeros = vec![0; 8 * shape.iter().product::<usize>()];
    let leaves = TensorView::new(Dtype::F64, shape.to_vec(), &zeros).unwrap();
    safetensors::serialize_to_file([("layer/0", leaves)], Some(metadata), &path).unwrap();
    message(&path)
}

/// Each of these would take more memory than any machine has, if a header were believed.
#[test]
fn a_small_file_that_asks_for_a_huge_structure_is_refused() {
    let leaf = |sizes: &str| {
        format!(r#"{{"layer":"leaf",{sizes},"channels":1,"repetitions":1,"family":{{"name":"bernoulli"}}}}"#)
    };
    let product = |kernel: usize, top: usize| {
        let padding = format!(r#"{{"top":{top},"left":0,"bottom":0,"right":0}}"#);
        format!(r#"{{"layer":"prod_conv","kernel":[{kernel},1],"padding":{padding}}}"#)
    };
    let one_pixel = leaf(r#""height":1,"width":1,"colors":1"#);
    let of = |leaf: &str, products: [String; 2], shape: &[usize]| {
        of_structure(&format!("[{leaf},{}]", products.join(",")), shape)
    };
    let huge = 1 << 40;
    let padded = of(&one_pixel, [product(1, huge - 1), product(huge, 0)], &[1, 1, 1, 1]);
    assert_snapshot!(padded, @"FILE: the structure in the header is not legal: the number of features of all layers (limit 2^26) is too large; choose fewer channels, a smaller depth, less padding or a smaller image");
    let marginal = leaf(r#""height":1099511627776,"width":1,"colors":1,"kept":[{"slot":0,"variable":0}]"#);
    let marginal = of(&marginal, [product(huge, 0), product(1, 0)], &[1, 1, 1, 1]);
    assert_snapshot!(marginal, @"FILE: the structure in the header is not legal: the number of features of all layers (limit 2^26) is too large; choose fewer channels, a smaller depth, less padding or a smaller image");
    let colors = leaf(r#""height":1,"width":1,"colors":1099511627776"#);
    let colors = of(&colors, [product(1, 0), product(1, 0)], &[huge, 0, 1, 1]);
    assert_snapshot!(colors, @"FILE: tensor layer/0 has 0 rows, expected one for each of the 1099511627776 variables of the header's leaves");
}

#[test]
fn unwritable_output_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| {
        model::save(path, &circuit()).unwrap_err().to_string().replace(&folder.path().display().to_string(), "FOLDER")
    };
    // The rest names the temporary file.
    let missing = error(&folder.path().join("no/such/folder/m"));
    assert!(missing.starts_with("FOLDER/no/such/folder/m cannot be written: No such file or directory"), "{missing}");
    assert_snapshot!(error(folder.path()), @"FOLDER cannot be written: 'FOLDER' is a folder; name a file inside it; choose a folder that exists and is writable");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn spflow_circuits_are_imported() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testsuite/golden");
    for (name, leaf, side, kernel_size) in [
        ("normal_8x8_reps3", LeafKind::Normal, 8, 2),
        ("bernoulli_8x8_reps2_sumconv", LeafKind::Bernoulli, 8, 2),
        ("categorical_8x8_d2", LeafKind::Categorical, 8, 2),
        ("binomial_8x8_d2_sumconv", LeafKind::Binomial, 8, 2),
        ("normal_27x27_k3_d2_sumconv", LeafKind::Normal, 27, 3),
        ("bernoulli_28x28_d5", LeafKind::Bernoulli, 28, 2),
    ] {
        let path = golden.join(format!("{name}.safetensors"));
        let options = Import { leaf, height: Some(side), width: None, kernel_size, levels: None };
        let circuit = spflow::import(&path, &options).unwrap().circuit;
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let read = |name: &str| -> Vec<f64> {
            file.tensor(name).unwrap().data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
        };
        let (x, expected) = (read("x"), read("ll"));
        let x = ndarray::Array2::from_shape_vec((expected.len(), side * side), x).unwrap().mapv(|x| x as f32);
        let given = Reference.load(&circuit).unwrap().log_likelihood(x.view()).unwrap();
        for (a, b) in given.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-6 * b.abs(), "{name}: {a} instead of {b}");
        }
    }
    let options = Import { leaf: LeafKind::Normal, height: None, width: Some(8), kernel_size: 2, levels: None };
    let error = spflow::import(&golden.join("categorical_8x8_d2.safetensors"), &options).unwrap_err();
    assert!(error.to_string().contains("another leaf family"), "{error}");
    let options = Import { leaf: LeafKind::Categorical, height: Some(4), ..options };
    let error = spflow::import(&golden.join("categorical_8x8_d2.safetensors"), &options).unwrap_err();
    assert!(error.to_string().contains("8×8"), "{error}");
}

/// A golden file's parameters under the keys that `state_dict` gives them, in float32, beside gradients.
#[test]
fn a_plain_state_dict_in_float32_is_imported() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testsuite/golden/normal_8x8_reps3.safetensors");
    let bytes = fs::read(&golden).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let float32: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .iter()
        .filter_map(|(key, view)| {
            let name = key.strip_prefix("param/").or(key.starts_with("grad/").then_some(key))?;
            let values = view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32);
            Some((name.to_string(), view.shape().to_vec(), values.flat_map(f32::to_le_bytes).collect()))
        })
        .collect();
    assert!(float32.iter().any(|(name, ..)| name.starts_with("grad/")));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let views = float32
        .iter()
        .map(|(name, shape, bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let options = Import { leaf: LeafKind::Normal, height: None, width: Some(8), kernel_size: 2, levels: None };
    let [plain, exact] = [&path, &golden].map(|path| spflow::import(path, &options).unwrap().circuit);
    assert_eq!(plain.structure(), exact.structure());
    for (a, b) in plain.parameters().0.iter().zip(&exact.parameters().0) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs().max(1.0)));
    }
}

//! What the checks share: the list of backends and SPFlow's golden vectors.

pub mod circuits;
pub mod classes;
pub mod downward;
pub mod sampling;
#[cfg(target_os = "linux")]
pub mod software;
pub mod upward;

use std::{fs, path::PathBuf};

use convpc::{
    Backend, Circuit, Cpu, Executable, Parameters, Precision, Reference, Structure, em,
    spflow::{self, Import, LeafKind},
};
use ndarray::{Array2, ArrayD, ArrayView1, Axis, IxDyn};
use safetensors::SafeTensors;

/// A backend and how near it has to be to float64: |Δ| ≤ relative · |expected| + absolute.
pub struct Subject {
    /// The backend.
    pub backend: Box<dyn Backend>,
    /// Relative part.
    pub relative: f64,
    /// Absolute part.
    pub absolute: f64,
    /// What the backend multiplies.
    pub precision: Precision,
}

impl Subject {
    /// The contract of the design for f32, and what rounding the operands of each sum adds to it.
    pub fn single(backend: impl Backend + 'static, precision: Precision) -> Self {
        Subject { backend: Box::new(backend), relative: 1e-5, absolute: 1e-4, precision }
    }

    /// How far a circuit's activations may be off: (relative, absolute). Errors of sums add up over the products.
    pub fn tolerance(&self, structure: &Structure) -> (f64, f64) {
        let rounding = self.precision.error_per_sum() * upward::sum_nodes(structure) as f64;
        (self.relative, self.absolute + rounding)
    }
}

/// Every backend that runs without a GPU: the reference, the CPU, and, where the operating system lets it take the driver's
/// place, CUDA on the software device.
///
/// # Panics
/// If the threads cannot be started.
pub fn subjects() -> Vec<Subject> {
    let cpu = Cpu::new(Some(2)).expect("two threads");
    let reference = Subject { backend: Box::new(Reference), relative: 1e-9, absolute: 1e-9, precision: Precision::F32 };
    [reference, Subject::single(cpu, Precision::F32)].into_iter().chain(software_device()).collect()
}

#[cfg(target_os = "linux")]
fn software_device() -> Option<Subject> {
    Some(software::subject(Precision::F32))
}

#[cfg(not(target_os = "linux"))]
fn software_device() -> Option<Subject> {
    None
}

/// A file of SPFlow's numbers.
pub struct Golden {
    /// File name without its ending.
    pub name: String,
    /// The imported circuit.
    pub circuit: Circuit,
    /// The leaf family.
    pub leaf: LeafKind,
    bytes: Vec<u8>,
}

impl Golden {
    /// All files.
    ///
    /// # Panics
    /// If a file is not as the generator writes it.
    pub fn all() -> Vec<Golden> {
        // Test executables may run on another machine than they were built on.
        let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
        let folder = std::env::var_os("CONVPC_GOLDEN").map_or_else(here, PathBuf::from);
        let mut paths: Vec<PathBuf> = fs::read_dir(folder).expect("golden").map(|e| e.expect("entry").path()).collect();
        paths.sort();
        let load = |path: PathBuf| {
            let name = path.file_stem().and_then(|s| s.to_str()).expect("a name").to_string();
            let bytes = fs::read(&path).expect("readable");
            let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
            let config = header.metadata().as_ref().expect("metadata")["config"].clone();
            let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
            let number = |key: &str, default| config[key].as_u64().map_or(default, |n| n as usize);
            let leaf = match config["leaf"].as_str().expect("a leaf") {
                "normal" => LeafKind::Normal,
                "bernoulli" => LeafKind::Bernoulli,
                "categorical" => LeafKind::Categorical,
                _ => LeafKind::Binomial,
            };
            let (height, width) = (Some(number("h", 0)), Some(number("w", 0)));
            let options = Import { leaf, height, width, kernel_size: number("kernel_size", 2), levels: None };
            Golden { name, circuit: spflow::import(&path, &options).expect("a circuit").circuit, leaf, bytes }
        };
        paths.into_iter().map(load).collect()
    }

    /// A tensor, if the file has it.
    pub fn get(&self, name: &str) -> Option<ArrayD<f64>> {
        let file = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = file.tensor(name).ok()?;
        let values = view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        ArrayD::from_shape_vec(IxDyn(view.shape()), values).ok()
    }

    /// The tensors `group/inputs.….name` with the last name given, leaf (the deepest) first.
    pub fn group(&self, group: &str, last: &[&str]) -> Vec<ArrayD<f64>> {
        let file = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let mut keys: Vec<&str> = file.names();
        keys.retain(|key| {
            key.strip_prefix(group).is_some_and(|k| last.contains(&k.rsplit(['.', '/']).next().unwrap_or("")))
        });
        keys.sort_by_key(|key| std::cmp::Reverse((key.matches("inputs.").count(), std::cmp::Reverse(*key))));
        keys.into_iter().filter_map(|key| self.get(key)).collect()
    }
}

/// Asserts |a − b| ≤ relative · |b| + absolute for all pairs, of which there are as many on both sides.
///
/// # Panics
/// If one pair is farther apart, or the lengths differ.
pub fn assert_close<'a>(
    what: &str,
    given: impl IntoIterator<Item = &'a f64>,
    expected: impl IntoIterator<Item = &'a f64>,
    (relative, absolute): (f64, f64),
) {
    let (given, expected): (Vec<_>, Vec<_>) = (given.into_iter().collect(), expected.into_iter().collect());
    assert_eq!(given.len(), expected.len(), "{what}: another number of values");
    for (i, (a, b)) in given.into_iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= relative * b.abs() + absolute || a == b, "{what}, value {i}: {a} instead of {b}");
    }
}

/// All assignments of a discrete circuit's variables, one a row.
///
/// # Panics
/// If the leaves are continuous.
pub fn assignments(circuit: &Circuit) -> Array2<f32> {
    let (values, n) = (circuit.structure().leaf().family.cardinality().expect("discrete"), circuit.variables());
    Array2::from_shape_fn((values.pow(n as u32), n), |(row, v)| (row / values.pow(v as u32) % values) as f32)
}

/// Whether a row has the observed values of the evidence.
pub fn agrees(row: ArrayView1<f32>, evidence: ArrayView1<f32>) -> bool {
    row.iter().zip(evidence).all(|(x, e)| e.is_nan() || x == e)
}

/// One full-batch EM step, gathered in batches; returns the mean log-likelihood before it.
///
/// # Panics
/// If the data do not fit.
pub fn em_step(executable: &mut dyn Executable, data: &Array2<f32>, batch: usize, options: &em::Options) -> f64 {
    let batches = data.axis_chunks_iter(Axis(0), batch);
    let sum: f64 = batches.map(|rows| executable.accumulate(rows).expect("fitting data").log_likelihood).sum();
    executable.em_step(options).expect("a step");
    sum / data.nrows() as f64
}

/// The circuit's parameters with the logit of the first weight of a sum moved: the sum is a lane of the layer's tensor along the
/// axis that sums to one.
pub fn shifted(circuit: &Circuit, layer: usize, lane: usize, by: f64) -> Parameters {
    let axis = circuit.structure().layers()[layer].normalized_axis().expect("a sum-like layer");
    let mut parameters = circuit.parameters().clone();
    let mut weights = parameters.0[layer].lanes_mut(Axis(axis)).into_iter().nth(lane).expect("a sum");
    weights[0] *= by.exp();
    let sum = weights.sum();
    weights /= sum;
    parameters
}

/// Asserts that 200 EM steps never lower the mean log-likelihood on any backend (reference: by 1e-12, others: by 1e-5), and
/// that something is learned.
///
/// # Panics
/// If they do, or nothing is.
pub fn assert_monotone(circuit: &Circuit, data: &Array2<f32>, options: &em::Options) {
    for subject in subjects() {
        let name = subject.backend.name();
        let slack = if name == "reference" { 1e-12 } else { 1e-5 };
        let mut executable = subject.backend.load(circuit).expect("a circuit");
        let first = em_step(&mut *executable, data, data.nrows(), options);
        let mut last = first;
        for i in 1..=200 {
            let now = em_step(&mut *executable, data, data.nrows(), options);
            assert!(now >= last - slack, "{name} step {i}: {last} then {now}\n{circuit}");
            last = now;
        }
        assert!(last > first + 0.5, "nothing was learned: {first} to {last}");
    }
}

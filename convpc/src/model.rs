//! Model files: safetensors with one float64 tensor `layer/N` for each layer that has parameters, and the structure as JSON
//! in the metadata. Saving and loading is bit-exact.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
};

use convpc_core::{Circuit, Layer, Parameters, Structure};
use ndarray::{ArrayD, IxDyn};
use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};

use crate::{atomic, memory::read_file};

/// The version of the format that this library writes, and the only one it reads.
pub const VERSION: &str = "1";

/// What can be wrong with a model file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written; what was there before still is.
    #[error("{path} cannot be written: {source}; choose a folder that exists and is writable")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file is not safetensors, or was cut off or damaged.
    #[error("{path} is not a whole safetensors file ({problem}); it is damaged, cut off or of another kind")]
    Damaged {
        /// The file.
        path: String,
        /// What the parser found.
        problem: String,
    },
    /// A safetensors file of something else.
    #[error("{path} is no convpc model: its metadata lack format = convpc; `convpc import-spflow` reads SPFlow's")]
    Foreign {
        /// The file.
        path: String,
    },
    /// A format of another version.
    #[error(
        "{path} has format version {given}, this library reads version {VERSION}; use a matching release of convpc"
    )]
    Version {
        /// The file.
        path: String,
        /// The version found.
        given: String,
    },
    /// The header's structure is not understood.
    #[error("{path}: the structure in the header is not legal: {problem}")]
    Structure {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A tensor is missing or of another type.
    #[error("{path}: tensor {name} {problem}")]
    Tensor {
        /// The file.
        path: String,
        /// The tensor's name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// SPFlow's tensors do not make the ConvPc that they are said to make.
    #[error("{path}: {problem}")]
    SpFlow {
        /// The file.
        path: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A model, but not a checkpoint of a training run.
    #[error("{path} holds no training run, only a model; its metadata lack options and progress")]
    NoCheckpoint {
        /// The file.
        path: String,
    },
    /// A checkpoint whose description of the run is not understood.
    #[error("{path}: the {part} of the training run in the header {problem}")]
    Checkpoint {
        /// The file.
        path: String,
        /// `"options"` or `"progress"`.
        part: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The tensors and the structure do not make a circuit.
    #[error("{path}: {source}")]
    Circuit {
        /// The file.
        path: String,
        /// What is wrong.
        source: convpc_core::Error,
    },
}

/// Writes a circuit, under a temporary name that is then renamed.
///
/// # Errors
/// [`ModelError::Write`]; the file is then as it was.
///
/// ```
/// use convpc::{ConvPc, Family, model};
/// let circuit = ConvPc::new(4, 4, 1, Family::normal()).build(3)?;
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.safetensors");
/// model::save(&path, &circuit)?;
/// assert_eq!(model::load(&path)?, circuit);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save(path: &Path, circuit: &Circuit) -> Result<(), ModelError> {
    write(path, circuit.structure(), [], &[("layer", &circuit.parameters().0)])
}

/// Writes a model file with any groups of tensors, one a layer each, and more metadata. The same contents make the same bytes.
pub(crate) fn write<const N: usize>(
    path: &Path,
    structure: &Structure,
    metadata: [(&str, String); N],
    groups: &[(&str, &[ArrayD<f64>])],
) -> Result<(), ModelError> {
    let failed = |source| ModelError::Write { path: path.display().to_string(), source };
    let json = serde_json::to_string(structure.layers()).map_err(|e| failed(e.into()))?;
    let own = [("format", "convpc".into()), ("version", VERSION.into()), ("structure", json)];
    let metadata = own.into_iter().chain(metadata).map(|(key, value)| (key.to_string(), value)).collect();
    let tensors = groups.iter().flat_map(|(group, tensors)| {
        let filled = tensors.iter().enumerate().filter(|(_, tensor)| !tensor.is_empty());
        filled.map(move |(layer, tensor)| (format!("{group}/{layer}"), Tensor(tensor)))
    });
    let mut file = safetensors::serialize(tensors, Some(metadata)).map_err(|e| failed(io::Error::other(e)))?;
    sort_header(&mut file).map_err(|e| failed(e.into()))?;
    atomic::write(path, |to| to.write_all(&file)).map_err(failed)
}

/// A tensor on its way into a file.
struct Tensor<'a>(&'a ArrayD<f64>);

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F64
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        self.0.len() * size_of::<f64>()
    }
}

/// Brings the entries of a safetensors header into the order of their names; the library leaves that of the metadata to
/// chance.
fn sort_header(file: &mut [u8]) -> serde_json::Result<()> {
    let Some((length, rest)) = file.split_first_chunk_mut() else { return Ok(()) };
    let Some(header) = rest.get_mut(..u64::from_le_bytes(*length) as usize) else { return Ok(()) };
    let sorted: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)?;
    let sorted = serde_json::to_vec(&sorted)?;
    // The same entries in another order, thus the same length but for the blanks at the end.
    if let Some((start, blanks)) = header.split_at_mut_checked(sorted.len()) {
        start.copy_from_slice(&sorted);
        blanks.fill(b' ');
    }
    Ok(())
}

/// Reads a circuit that [`save`] wrote.
///
/// # Errors
/// A [`ModelError`] that says what is wrong with the file; a damaged one never makes a circuit.
pub fn load(path: &Path) -> Result<Circuit, ModelError> {
    let bytes = read(path)?;
    let (metadata, file) = parse(path, &bytes)?;
    circuit(path, &metadata, &file)
}

/// The circuit in a file.
pub(crate) fn circuit(
    path: &Path,
    metadata: &HashMap<String, String>,
    file: &SafeTensors,
) -> Result<Circuit, ModelError> {
    let name = || path.display().to_string();
    if metadata.get("format").map(String::as_str) != Some("convpc") {
        return Err(ModelError::Foreign { path: name() });
    }
    let given = metadata.get("version").cloned().unwrap_or_default();
    if given != VERSION {
        return Err(ModelError::Version { path: name(), given });
    }
    let structure = |problem: String| ModelError::Structure { path: name(), problem };
    let json = metadata.get("structure").ok_or_else(|| structure("it is missing".into()))?;
    let layers: Vec<Layer> = serde_json::from_str(json).map_err(|e| structure(e.to_string()))?;
    check_variables(path, &layers, file)?;
    let layout = Structure::new(layers).map_err(|e| structure(e.to_string()))?;
    let tensors = group(path, file, &layout, "layer")?;
    Circuit::new(layout, Parameters(tensors)).map_err(|source| ModelError::Circuit { path: name(), source })
}

/// The tensors of a group, one a layer.
pub(crate) fn group(
    path: &Path,
    file: &SafeTensors,
    structure: &Structure,
    name: &str,
) -> Result<Vec<ArrayD<f64>>, ModelError> {
    let layers = structure.layers().iter().enumerate();
    let tensors = layers.map(|(layer, kind)| match kind {
        Layer::ProdConv(_) => Ok(ArrayD::zeros(IxDyn(&[0]))),
        _ => tensor(path, file, &format!("{name}/{layer}"), &[Dtype::F64]),
    });
    tensors.collect()
}

/// A damaged header may name an image of any size: it must be that of the leaves that are there before it costs memory. Where
/// pixels share their leaves, what bounds it is [`Structure::new`].
fn check_variables(path: &Path, layers: &[Layer], file: &SafeTensors) -> Result<(), ModelError> {
    let Some(Layer::Leaf(leaf)) = layers.first() else {
        return Ok(());
    };
    let name = "layer/0";
    let tensor = view(path, file, name)?;
    // A tensor without data may claim any number of rows.
    let given = if tensor.data().is_empty() { 0 } else { tensor.shape().first().copied().unwrap_or(0) };
    let (expected, what) = match &leaf.kept {
        _ if leaf.shared => (leaf.colors, "colors"),
        Some(columns) => (columns.len(), "variables"),
        None => (leaf.height.saturating_mul(leaf.width).saturating_mul(leaf.colors), "variables"),
    };
    if given == expected {
        return Ok(());
    }
    let problem = format!("has {given} rows, expected one for each of the {expected} {what} of the header's leaves");
    Err(wrong_tensor(path, name, problem))
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    read_file(path).map_err(|source| ModelError::Read { path: path.display().to_string(), source })
}

/// The metadata and the tensors of a safetensors file.
pub(crate) fn parse<'a>(
    path: &Path,
    bytes: &'a [u8],
) -> Result<(HashMap<String, String>, SafeTensors<'a>), ModelError> {
    let damaged = |e: safetensors::SafeTensorError| ModelError::Damaged {
        path: path.display().to_string(),
        problem: e.to_string(),
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok((metadata, SafeTensors::deserialize(bytes).map_err(damaged)?))
}

fn wrong_tensor(path: &Path, name: &str, problem: String) -> ModelError {
    ModelError::Tensor { path: path.display().to_string(), name: name.to_string(), problem }
}

/// A tensor as it is in the file.
fn view<'a>(path: &Path, file: &SafeTensors<'a>, name: &str) -> Result<TensorView<'a>, ModelError> {
    file.tensor(name).map_err(|_| wrong_tensor(path, name, "is missing".into()))
}

/// A tensor of one of the float types `legal`, in float64.
pub(crate) fn tensor(path: &Path, file: &SafeTensors, name: &str, legal: &[Dtype]) -> Result<ArrayD<f64>, ModelError> {
    let wrong = |problem: String| wrong_tensor(path, name, problem);
    let view = view(path, file, name)?;
    if !legal.contains(&view.dtype()) {
        let legal = legal.iter().map(Dtype::to_string).collect::<Vec<_>>().join(" or ");
        return Err(wrong(format!("has type {}, expected {legal}; save it as that", view.dtype())));
    }
    let values = match view.dtype() {
        Dtype::F64 => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        _ => view.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
    };
    ArrayD::from_shape_vec(IxDyn(view.shape()), values).map_err(|e| wrong(format!("has an impossible shape: {e}")))
}

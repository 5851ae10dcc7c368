//! SPFlow's ConvPc, from a `state_dict` saved as safetensors.

use std::path::Path;

use convpc_core::{Circuit, ConvPc, Family, Layer, Parameters, Structure};
use ndarray::{ArrayD, Axis, IxDyn};
use safetensors::{Dtype, SafeTensors};

use crate::model::{self, ModelError};

/// What torch saves parameters as.
const FLOATS: &[Dtype] = &[Dtype::F64, Dtype::F32];

/// The leaf families that SPFlow's leaves are imported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafKind {
    /// `loc`, `log_scale`.
    Normal,
    /// `_logits`: log-odds.
    Bernoulli,
    /// `_logits`: softmax over the last axis.
    Categorical,
    /// `_logits`: log-odds, and `_total_count` where it was saved.
    Binomial,
}

/// What the tensors do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Import {
    /// The leaf family.
    pub leaf: LeafKind,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Variables a pixel.
    pub colors: usize,
    /// Side of the product patches.
    pub kernel_size: usize,
    /// Binomial without `_total_count`: number of values, trials + 1.
    pub levels: Option<usize>,
}

/// Reads a circuit; Sum or SumConv, channels, depth and repetitions come from the shapes of the tensors. Keys may have the
/// prefix `param/`; where some have it, the others are passed over.
///
/// # Errors
/// Where the file cannot be read, a tensor is missing, or shapes do not make the ConvPc that was described.
pub fn import(path: &Path, import: &Import) -> Result<Circuit, ModelError> {
    let bytes = model::read(path)?;
    let (_, file) = model::parse(path, &bytes)?;
    let state = State::new(path, &file)?;
    let circuit = |source| ModelError::Circuit { path: path.display().to_string(), source };

    let (leaf, family) = state.leaf(import)?;
    let mixing = state.sums.iter().any(|(nesting, _)| *nesting == 0);
    let sums: Vec<&ArrayD<f64>> = state.sums.iter().map(|(_, logits)| logits).collect();
    // Root first: [mixing], root sum, then one sum a level.
    let Some(depth) = sums.len().checked_sub(1 + usize::from(mixing)).filter(|depth| *depth > 0) else {
        return Err(state.wrong("logits", "occurs too few times: a ConvPc has a root sum and one more a level".into()));
    };
    let use_sum_conv = sums[sums.len() - 1].ndim() == 5;
    let lowest = sums[sums.len() - 1].shape();
    let channels = if use_sum_conv { lowest.first() } else { lowest.get(2) };
    let Some(&channels) = channels else {
        return Err(state.wrong("logits", format!("has shape {lowest:?}, expected 4 axes (Sum) or 5 (SumConv)")));
    };
    let structure = ConvPc::new(import.height, import.width, import.colors, family)
        .leaf_channels(leaf.shape()[1])
        .channels(channels)
        .depth(depth)
        .kernel_size(import.kernel_size)
        .repetitions(leaf.shape()[2])
        .use_sum_conv(use_sum_conv)
        .structure()
        .map_err(circuit)?;
    Circuit::new(structure.clone(), parameters(&structure, leaf, &sums)).map_err(circuit)
}

/// The tensors in the order of the layers, leaf first.
fn parameters(structure: &Structure, leaf: ArrayD<f64>, sums: &[&ArrayD<f64>]) -> Parameters {
    let mut from_below = sums.iter().rev();
    let mut tensors = vec![leaf];
    for layer in &structure.layers()[1..] {
        tensors.push(match (layer, layer.normalized_axis()) {
            (Layer::ProdConv(_), _) | (_, None) => ArrayD::zeros(IxDyn(&[0])),
            (_, Some(axis)) => match from_below.next() {
                Some(logits) if axis < logits.ndim() => softmax((*logits).clone(), axis),
                Some(logits) => (*logits).clone(),
                None => ArrayD::zeros(IxDyn(&[0])),
            },
        });
    }
    Parameters(tensors)
}

struct State<'a> {
    path: &'a Path,
    file: &'a SafeTensors<'a>,
    /// Names that belong to the leaf's nesting, with their full keys.
    leaf_keys: Vec<(String, String)>,
    /// (nesting, logits) of the sums, root first.
    sums: Vec<(usize, ArrayD<f64>)>,
}

impl<'a> State<'a> {
    fn new(path: &'a Path, file: &'a SafeTensors<'a>) -> Result<Self, ModelError> {
        let prefix = if file.names().iter().any(|key| key.starts_with("param/")) { "param/" } else { "" };
        let mut keys: Vec<(usize, String, String)> = file
            .names()
            .into_iter()
            .filter_map(|key| {
                // Gradients and the like, `grad/inputs.logits`, are no parameters.
                let name = key.strip_prefix(prefix).filter(|name| !name.contains('/'))?;
                let last = name.rsplit('.').next()?;
                Some((name.matches("inputs.").count(), last.to_string(), key.to_string()))
            })
            .collect();
        keys.sort();
        let mut sums = Vec::new();
        let mut leaf_keys = Vec::new();
        for (nesting, name, key) in keys {
            match name.as_str() {
                "logits" => sums.push((nesting, model::tensor(path, file, &key, FLOATS)?)),
                "loc" | "log_scale" | "_logits" | "_total_count" => leaf_keys.push((name, key)),
                _ => {}
            }
        }
        let state = State { path, file, leaf_keys, sums };
        state.check_nesting()?;
        Ok(state)
    }

    /// A sum is followed by a product, which has no entry: the sums are nested 1, 3, 5, … deep, a mixing 0 deep.
    fn check_nesting(&self) -> Result<(), ModelError> {
        let found: Vec<usize> = self.sums.iter().map(|(nesting, _)| *nesting).collect();
        let below_mixing = found.strip_prefix(&[0]).unwrap_or(&found);
        if below_mixing.iter().enumerate().all(|(level, nesting)| *nesting == 2 * level + 1) {
            return Ok(());
        }
        let expected = "expected 1, 3, 5, … and 0 for a mixing of repetitions; is it the state_dict of a ConvPc?";
        Err(self.wrong("logits", format!("occurs behind {found:?} times `inputs.`, {expected}")))
    }

    fn wrong(&self, name: &str, problem: String) -> ModelError {
        ModelError::Tensor { path: self.path.display().to_string(), name: name.into(), problem }
    }

    fn tensor(&self, name: &str, axes: usize) -> Result<ArrayD<f64>, ModelError> {
        let Some((_, key)) = self.leaf_keys.iter().find(|(n, _)| n == name) else {
            return Err(self.wrong(name, "is missing among the leaf's; is it another leaf family?".into()));
        };
        let tensor = model::tensor(self.path, self.file, key, FLOATS)?;
        if tensor.ndim() != axes {
            return Err(self.wrong(name, format!("has shape {:?}, expected {axes} axes", tensor.shape())));
        }
        Ok(tensor)
    }

    /// The leaf's tensor `[variables, channels, repetitions, parameters]` and its family.
    fn leaf(&self, import: &Import) -> Result<(ArrayD<f64>, Family), ModelError> {
        let last = Axis(3);
        Ok(match import.leaf {
            LeafKind::Normal => {
                let mean = self.tensor("loc", 3)?;
                let std = self.tensor("log_scale", 3)?.mapv(f64::exp);
                let both = ndarray::stack(last, &[mean.view(), std.view()]);
                (both.map_err(|e| self.wrong("log_scale", format!("does not fit loc: {e}")))?, Family::normal())
            }
            LeafKind::Bernoulli => (self.probabilities()?, Family::bernoulli()),
            LeafKind::Binomial => (self.probabilities()?, Family::binomial(self.trials(import)?)),
            LeafKind::Categorical => {
                let logits = self.tensor("_logits", 4)?;
                let categories = logits.shape()[3];
                (softmax(logits, 3), Family::categorical(categories))
            }
        })
    }

    fn probabilities(&self) -> Result<ArrayD<f64>, ModelError> {
        Ok(self.tensor("_logits", 3)?.mapv(|x| 1.0 / (1.0 + (-x).exp())).insert_axis(Axis(3)))
    }

    fn trials(&self, import: &Import) -> Result<usize, ModelError> {
        let counts = match (self.tensor("_total_count", 3), import.levels) {
            (Ok(counts), _) => counts,
            (Err(_), Some(levels)) => return Ok(levels.saturating_sub(1)),
            (Err(error), None) => return Err(error),
        };
        let first = counts.first().copied().unwrap_or(0.0);
        if counts.iter().any(|n| *n != first) || first < 1.0 || first.fract() != 0.0 || first > f64::from(u32::MAX) {
            let problem = "is not one whole number for all leaves; convpc has one number of trials a circuit".into();
            return Err(self.wrong("_total_count", problem));
        }
        Ok(first as usize)
    }
}

fn softmax(mut logits: ArrayD<f64>, axis: usize) -> ArrayD<f64> {
    for mut lane in logits.lanes_mut(Axis(axis)) {
        let max = lane.fold(f64::NEG_INFINITY, |a, b| a.max(*b));
        lane.mapv_inplace(|x| (x - max).exp());
        let sum = lane.sum();
        lane.mapv_inplace(|x| x / sum);
    }
    logits
}

//! SPFlow's ConvPc, from a `state_dict` saved as safetensors.

mod leaf;

use std::{fmt, path::Path};

use convpc_core::{Circuit, ConvPc, Family, Layer, Parameters, Structure};
pub use leaf::LeafKind;
use leaf::Leaves;
use ndarray::{ArrayD, Axis, IxDyn};
use safetensors::{Dtype, SafeTensors};

use crate::model::{self, ModelError};

/// What torch saves parameters as.
const FLOATS: &[Dtype] = &[Dtype::F64, Dtype::F32];

/// Facts about a model that its tensors do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Import {
    /// The leaf family. The tensors alone do not always determine it.
    pub leaf: LeafKind,
    /// Rows of pixels. SPFlow's images are square, so that the number of variables says it; a number here must agree.
    pub height: Option<usize>,
    /// Columns of pixels; must agree with the tensors, like `height`.
    pub width: Option<usize>,
    /// Side of the product patches.
    pub kernel_size: usize,
    /// Binomial without `_total_count`: number of values, trials + 1.
    pub levels: Option<usize>,
}

/// An imported circuit, with notes for the user.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The circuit.
    pub circuit: Circuit,
    /// Changes that were made, and facts that the tensors cannot show.
    pub notes: Vec<Note>,
}

/// Something to know about an imported circuit; displayed as a sentence.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Note {
    /// The leaves have become tables, since the probability of a success does not say in float64 how improbable a failure is.
    AsCategorical {
        /// The family that they had.
        family: &'static str,
        /// Values of a leaf.
        values: usize,
        /// The largest finite log-odds.
        largest_logit: f64,
    },
    /// Other families of SPFlow have the tensors of Normal leaves.
    LocationAndScale,
    /// Probabilities or weights were too small for float64, and were raised to the smallest that it holds in full.
    Raised {
        /// How many.
        numbers: usize,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::AsCategorical { family, values, largest_logit } => write!(
                f,
                "the {family} leaves were imported as categorical leaves of {values} values: their logits go up to \
                 {largest_logit}, and above {} a probability does not say in float64 what the logarithm of its complement is",
                leaf::LARGEST_LOGIT
            ),
            Note::LocationAndScale => write!(
                f,
                "loc and log_scale are what SPFlow's Laplace and LogNormal leaves have as well, and the tensors do not tell which \
                 they are: the model is right only if the leaves were Normal"
            ),
            Note::Raised { numbers } => write!(
                f,
                "{numbers} probabilities or weights are smaller than float64 holds and were raised to {:e}; scores that rest on them \
                 are too high",
                f64::MIN_POSITIVE
            ),
        }
    }
}

/// Reads a circuit; Sum or SumConv, channels, depth and repetitions come from the shapes of the tensors. Keys may have the
/// prefix `param/`; where some have it, the others are passed over.
///
/// Log-likelihoods are those of SPFlow: where a leaf's probability cannot say them in float64, the leaves become tables, and a
/// note says so.
///
/// # Errors
/// Where the file cannot be read, a tensor is missing, or shapes do not make the ConvPc that was described.
pub fn import(path: &Path, import: &Import) -> Result<Imported, ModelError> {
    let bytes = model::read(path)?;
    let (_, file) = model::parse(path, &bytes)?;
    let state = State::new(path, &file)?;
    let circuit = |source| ModelError::Circuit { path: path.display().to_string(), source };

    let Leaves { tensor: leaf, family, mut notes } = state.leaf(import)?;
    let side = state.side(import, leaf.shape()[0])?;
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
    // The weights of SumConv have no axis of features to tell what SPFlow left.
    let features = (!use_sum_conv).then_some(lowest[0]);
    state.check_bottom(side, import.kernel_size, depth, features)?;
    let structure = ConvPc::new(side, side, 1, family)
        .leaf_channels(leaf.shape()[1])
        .channels(channels)
        .depth(depth)
        .kernel_size(import.kernel_size)
        .repetitions(leaf.shape()[2])
        .use_sum_conv(use_sum_conv)
        .structure()
        .map_err(circuit)?;
    let parameters = parameters(&structure, leaf, &sums);
    let numbers = parameters.0.iter().flatten().filter(|p| **p == f64::MIN_POSITIVE).count();
    if numbers > 0 {
        notes.push(Note::Raised { numbers });
    }
    Ok(Imported { circuit: Circuit::new(structure, parameters).map_err(circuit)?, notes })
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

    fn refused(&self, problem: String) -> ModelError {
        ModelError::SpFlow { path: self.path.display().to_string(), problem }
    }

    /// The leaf's tensor of this name, if it is there.
    fn tensor(&self, name: &str) -> Result<Option<ArrayD<f64>>, ModelError> {
        let mut keys = self.leaf_keys.iter().filter(|(n, _)| n == name);
        let Some((_, key)) = keys.next() else { return Ok(None) };
        if keys.next().is_some() {
            return Err(
                self.wrong(name, "occurs several times; the leaf of a ConvPc that is imported is one module".into())
            );
        }
        model::tensor(self.path, self.file, key, FLOATS).map(Some)
    }

    /// The leaves as convpc has them.
    fn leaf(&self, import: &Import) -> Result<Leaves, ModelError> {
        let [loc, log_scale, logits, counts] =
            ["loc", "log_scale", "_logits", "_total_count"].map(|name| self.tensor(name));
        let (loc, log_scale, logits, counts) = (loc?, log_scale?, logits?, counts?);
        let circuit = |source| ModelError::Circuit { path: self.path.display().to_string(), source };
        match (import.leaf, loc, log_scale, logits) {
            (LeafKind::Normal, Some(loc), Some(log_scale), _) if loc.ndim() == 3 => {
                let std = log_scale.mapv(f64::exp);
                let both = ndarray::stack(Axis(3), &[loc.view(), std.view()]);
                let tensor = both.map_err(|e| self.wrong("log_scale", format!("does not fit loc: {e}")))?;
                Ok(Leaves { tensor, family: Family::normal(), notes: vec![Note::LocationAndScale] })
            }
            (LeafKind::Bernoulli, _, _, Some(logits)) if logits.ndim() == 3 && counts.is_none() => {
                leaf::of_trials(logits, 1, Family::bernoulli()).map_err(circuit)
            }
            (LeafKind::Binomial, _, _, Some(logits)) if logits.ndim() == 3 => {
                let trials = self.trials(import, counts)?;
                leaf::of_trials(logits, trials, Family::binomial(trials)).map_err(circuit)
            }
            (LeafKind::Categorical, _, _, Some(logits)) if logits.ndim() == 4 => {
                let family = Family::categorical(logits.shape()[3]);
                Ok(Leaves { tensor: softmax(logits, 3), family, notes: vec![] })
            }
            (kind, loc, log_scale, logits) => Err(self.another_family(
                kind,
                &[("loc", loc), ("log_scale", log_scale), ("_logits", logits), ("_total_count", counts)],
            )),
        }
    }

    /// That the tensors are those of another family than the one asked for, and of which.
    fn another_family(&self, kind: LeafKind, tensors: &[(&str, Option<ArrayD<f64>>)]) -> ModelError {
        let there = tensors.iter().filter_map(|(name, tensor)| Some((*name, tensor.as_ref()?.ndim())));
        let there: Vec<(&str, usize)> = there.collect();
        let fitting = match there[..] {
            [("loc", 3), ("log_scale", 3)] => "--leaf normal fits",
            [("_logits", 3)] => "--leaf bernoulli and --leaf binomial fit",
            [("_logits", 3), ("_total_count", _)] => "--leaf binomial fits",
            [("_logits", 4)] => "--leaf categorical fits",
            _ => {
                "no family of leaves that can be imported fits: normal (loc and log_scale), bernoulli, binomial (_logits with 3 axes), categorical (_logits with 4 axes)"
            }
        };
        let there: Vec<String> = there.iter().map(|(name, axes)| format!("{name} with {axes} axes")).collect();
        let there = if there.is_empty() { "none of loc, log_scale and _logits".into() } else { there.join(", ") };
        self.refused(format!(
            "--leaf {kind} was given, but the leaves are of another leaf family: their tensors are {there}; {fitting}"
        ))
    }

    /// The side of the image, which is square.
    fn side(&self, import: &Import, variables: usize) -> Result<usize, ModelError> {
        let side = variables.isqrt();
        if side * side != variables {
            return Err(self.refused(format!(
                "the leaves are of {variables} variables, which make no square; SPFlow's ConvPc is of square images of one color"
            )));
        }
        let given = [("height", import.height), ("width", import.width)].map(|(name, given)| Some((name, given?)));
        let wrong: Vec<String> = given
            .into_iter()
            .flatten()
            .filter(|(_, given)| *given != side)
            .map(|(name, given)| format!("--{name} {given}"))
            .collect();
        if wrong.is_empty() {
            return Ok(side);
        }
        Err(self.refused(format!(
            "{} was given, but SPFlow's ConvPc is square, and the tensors hold {variables} variables = {side}×{side}; leave --height \
             and --width out, or give {side} for both",
            wrong.join(" ")
        )))
    }

    /// An error where SPFlow has lost a row and a column at the bottom product: it pads both sides by half of what is missing,
    /// rounded down, and drops what then fills no patch.
    fn check_bottom(
        &self,
        side: usize,
        kernel_size: usize,
        depth: usize,
        features: Option<usize>,
    ) -> Result<(), ModelError> {
        let grid = u32::try_from(depth).ok().and_then(|depth| kernel_size.checked_pow(depth)).filter(|grid| *grid > 0);
        let Some(padding) = grid.and_then(|grid| Some((side.checked_next_multiple_of(grid)? - side, grid))) else {
            return Ok(());
        };
        let (padding, grid) = padding;
        let is_lost = features.is_none_or(|features| (grid - 1).checked_mul(grid - 1) == Some(features));
        if padding % 2 == 0 || !is_lost {
            return Ok(());
        }
        Err(self.refused(format!(
            "SPFlow lost a row and a column of features here: at the bottom product {side}×{side} pixels need a padding of {padding} \
             along each axis, SPFlow pads {} on each side, and of {grid}×{grid} features {}×{} are left; log_likelihood of such a \
             model fails in SPFlow too. Learn one whose padding is even, with another depth or image size",
            padding / 2,
            grid - 1,
            grid - 1
        )))
    }

    /// The number of trials of binomial leaves.
    fn trials(&self, import: &Import, counts: Option<ArrayD<f64>>) -> Result<usize, ModelError> {
        let counts = match (counts, import.levels) {
            (Some(counts), _) => counts,
            (None, Some(levels)) => return Ok(levels.saturating_sub(1)),
            (None, None) => {
                let problem = "is missing among the leaf's; give --levels, the number of trials + 1, in its place";
                return Err(self.wrong("_total_count", problem.into()));
            }
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
        let sum = lane.fold(0.0, |sum, x| sum + (x - max).exp());
        lane.mapv_inplace(|x| leaf::held((x - max).exp() / sum, x));
    }
    logits
}

//! Checkpoints: what a training run needs to go on after any interruption as if there had been none.
//!
//! A checkpoint is a [model file](crate::model) with the parameters that were reached last, which every command reads as one;
//! beside them lie the best parameters (`best/N`), what the update rule remembers (`running/N`; `first/N` and `second/N`), and,
//! in the metadata, the options and the progress of the run. Saving and loading is bit-exact, and the same contents make the
//! same bytes.

use std::path::{Path, PathBuf};

use convpc_core::{
    Accumulated, Circuit, Memory, OptimizerState, Parameters, Structure,
    train::{Best, Options, State},
};
use flate2::Crc;
use ndarray::{ArrayD, ArrayView2};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::model::{self, ModelError};

/// What does not change during a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The options.
    pub options: Options,
    /// The data.
    pub data: Fingerprint,
    /// The validation data, where they are data of their own.
    pub valid: Option<Fingerprint>,
    /// The labels of the data, where they have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Fingerprint>,
    /// The labels of the validation data, where these are data of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_labels: Option<Fingerprint>,
}

impl Run {
    /// A run on data without labels or validation data.
    pub fn new(options: Options, data: Fingerprint) -> Self {
        Run { options, data, valid: None, labels: None, valid_labels: None }
    }
}

/// By what data are known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// The number of rows.
    pub rows: usize,
    /// CRC-32 of all values.
    pub checksum: u32,
}

impl Fingerprint {
    /// That of rows × variables.
    pub fn of(data: ArrayView2<f32>) -> Self {
        let mut crc = Crc::new();
        let mut bytes = Vec::new();
        for row in data.rows() {
            bytes.clear();
            bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
            crc.update(&bytes);
        }
        Fingerprint { rows: data.nrows(), checksum: crc.sum() }
    }

    /// That of labels, one a row.
    pub fn of_labels(labels: &[usize]) -> Self {
        let mut crc = Crc::new();
        // The same on every machine, whatever the width of its usize.
        labels.iter().for_each(|label| crc.update(&(*label as u64).to_le_bytes()));
        Fingerprint { rows: labels.len(), checksum: crc.sum() }
    }
}

/// The scalars of a [`State`]. Those that may be infinite are kept as their bits, which JSON can hold.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    epoch: usize,
    batch: usize,
    steps: u64,
    memory: Remembered,
    rows: u64,
    impossible_rows: u64,
    log_likelihood_bits: u64,
    main_epochs: Option<usize>,
    best: Option<Score>,
    finished: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Score {
    epoch: usize,
    bits: u64,
}

/// Which tensors there are.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Remembered {
    None,
    Running,
    Moments,
}

impl Progress {
    /// `tensors` are those that the optimizer remembers.
    fn new(state: &State, tensors: &[(&str, &[ArrayD<f64>])]) -> Self {
        let State { optimizer, epoch, batch, seen, main_epochs, best, finished } = state;
        let memory = match tensors {
            [] => Remembered::None,
            [_] => Remembered::Running,
            _ => Remembered::Moments,
        };
        Progress {
            epoch: *epoch,
            batch: *batch,
            steps: optimizer.steps,
            memory,
            rows: seen.rows,
            impossible_rows: seen.impossible_rows,
            log_likelihood_bits: seen.log_likelihood.to_bits(),
            main_epochs: *main_epochs,
            best: best.as_ref().map(|b| Score { epoch: b.epoch, bits: b.mean_log_likelihood.to_bits() }),
            finished: *finished,
        }
    }
}

/// Writes a checkpoint, under a temporary name that is then renamed.
///
/// # Errors
/// [`ModelError::Write`]; the file is then as it was.
///
/// ```
/// use convpc::{ConvPc, Family, Rule, checkpoint, em, train};
/// let circuit = ConvPc::new(4, 4, 1, Family::bernoulli()).build(3)?;
/// let data = ndarray::Array2::zeros((10, 16));
/// let options = train::Options::new(Rule::Em(em::Options::default()));
/// let run = checkpoint::Run::new(options, checkpoint::Fingerprint::of(data.view()));
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.checkpoint");
/// let state = train::State { epoch: 2, ..Default::default() };
/// checkpoint::save(&path, &run, circuit.structure(), circuit.parameters(), &state)?;
/// assert_eq!(checkpoint::load(&path)?, (run, circuit, state));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save(
    path: &Path,
    run: &Run,
    structure: &Structure,
    parameters: &Parameters,
    state: &State,
) -> Result<(), ModelError> {
    let failed = |e: serde_json::Error| ModelError::Write { path: path.display().to_string(), source: e.into() };
    let missing = |source| ModelError::Circuit { path: path.display().to_string(), source };
    let memory = state.optimizer.memory.here().map_err(missing)?;
    let remembered = memory.tensors().map_err(missing)?;
    let options = serde_json::to_string(run).map_err(failed)?;
    let progress = serde_json::to_string(&Progress::new(state, &remembered)).map_err(failed)?;
    let mut groups: Vec<(&str, &[ArrayD<f64>])> = vec![("layer", &parameters.0)];
    groups.extend(state.best.iter().map(|best| ("best", &best.parameters.0[..])));
    groups.extend(remembered);
    model::write(path, structure, [("options", options), ("progress", progress)], &groups)
}

/// Reads a checkpoint that [`save`] wrote: the run, the circuit that it had reached, and its state.
///
/// # Errors
/// A [`ModelError`] that says what is wrong with the file; a damaged one never makes a run.
pub fn load(path: &Path) -> Result<(Run, Circuit, State), ModelError> {
    let name = || path.display().to_string();
    let bytes = model::read(path)?;
    let (metadata, file) = model::parse(path, &bytes)?;
    let circuit = model::circuit(path, &metadata, &file)?;
    let (Some(options), Some(progress)) = (metadata.get("options"), metadata.get("progress")) else {
        return Err(ModelError::NoCheckpoint { path: name() });
    };
    let run: Run = parse(path, "options", options)?;
    let Progress {
        epoch,
        batch,
        steps,
        memory,
        rows,
        impossible_rows,
        log_likelihood_bits,
        main_epochs,
        best,
        finished,
    } = parse(path, "progress", progress)?;
    let structure = circuit.structure();
    let group = |name| model::group(path, &file, structure, name);
    let memory = match memory {
        Remembered::None => Memory::None,
        Remembered::Running => Memory::Running(group("running")?),
        Remembered::Moments => {
            Memory::Moments { first: Parameters(group("first")?), second: Parameters(group("second")?) }
        }
    };
    let wrong = |source| ModelError::Circuit { path: name(), source };
    memory.check(structure).map_err(wrong)?;
    let best = match best {
        None => None,
        Some(Score { epoch, bits }) => {
            let (_, parameters) =
                Circuit::new(structure.clone(), Parameters(group("best")?)).map_err(wrong)?.into_parts();
            Some(Best { epoch, mean_log_likelihood: f64::from_bits(bits), parameters })
        }
    };
    let seen = Accumulated { rows, impossible_rows, log_likelihood: f64::from_bits(log_likelihood_bits) };
    let optimizer = OptimizerState { steps, memory };
    Ok((run, circuit, State { optimizer, epoch, batch, seen, main_epochs, best, finished }))
}

fn parse<T: DeserializeOwned>(path: &Path, part: &'static str, json: &str) -> Result<T, ModelError> {
    let wrong = |e: serde_json::Error| ModelError::Checkpoint {
        path: path.display().to_string(),
        part,
        problem: format!("are not legal: {e}"),
    };
    serde_json::from_str(json).map_err(wrong)
}

/// The usual name of the checkpoint of a model: that of the model with `.checkpoint` behind it.
pub fn beside(model: &Path) -> PathBuf {
    let mut name = model.as_os_str().to_owned();
    name.push(".checkpoint");
    name.into()
}

//! What a training run brings epoch by epoch, as JSON lines; and what scores are worth.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
};

use convpc_core::train::{Epoch, Observed};
use serde::{Deserialize, Serialize};

use crate::{atomic, memory::read_file};

/// One line: an epoch. What is not finite is `null`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, 1 the first.
    pub epoch: usize,
    /// Whether it was a final EM step.
    pub final_em: bool,
    /// Steps taken since the beginning of the run.
    pub steps: u64,
    /// The last step size; 1 for EM.
    pub step_size: f64,
    /// Rows trained on.
    pub rows: u64,
    /// Rows of probability zero among them.
    pub impossible_rows: u64,
    /// Mean log-likelihood of the training data, nats: before the steps on them.
    pub train_nats: Option<f64>,
    /// The same in bits per dimension: per observed variable.
    pub train_bits: Option<f64>,
    /// Mean log-likelihood of the validation data after the epoch, nats.
    pub valid_nats: Option<f64>,
    /// The same in bits per dimension: per observed variable.
    pub valid_bits: Option<f64>,
    /// The share of the validation data whose class was right, where they have labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Whether the validation data were never explained better.
    pub best: bool,
    /// Rows trained on a second in this epoch.
    pub rows_per_second: f64,
    /// Seconds since the beginning of the run, in which it was running.
    pub seconds: f64,
}

impl Record {
    /// Makes the record of an epoch. `observed` is the mean number of observed variables per row.
    pub fn new(epoch: &Epoch, observed: Observed, rows_per_second: f64, seconds: f64) -> Self {
        let finite = |x: f64| x.is_finite().then_some(x);
        let bits = |mean: f64, observed: f64| bits_per_dimension(mean, observed).and_then(finite);
        Record {
            epoch: epoch.epoch + 1,
            final_em: epoch.is_final_em,
            steps: epoch.steps,
            step_size: epoch.step_size,
            rows: epoch.rows,
            impossible_rows: epoch.impossible_rows,
            train_nats: finite(epoch.mean_log_likelihood),
            train_bits: bits(epoch.mean_log_likelihood, observed.train),
            valid_nats: epoch.validation.and_then(finite),
            valid_bits: epoch.validation.and_then(|mean| bits(mean, observed.valid?)),
            accuracy: epoch.accuracy,
            best: epoch.is_best,
            rows_per_second,
            seconds,
        }
    }
}

/// Bits per dimension of a log-likelihood in nats: minus the bits for each observed variable. For several rows, pass the sum of
/// their log-likelihoods and the number of values observed in them, or the means of both. Missing values are not counted.
/// `None` where nothing was observed.
///
/// ```
/// use convpc::metrics::bits_per_dimension;
/// assert_eq!(bits_per_dimension(-8.0 * 2f64.ln(), 8.0), Some(1.0));
/// assert_eq!(bits_per_dimension(0.0, 0.0), None);
/// ```
pub fn bits_per_dimension(log_likelihood: f64, observed: f64) -> Option<f64> {
    (observed > 0.0).then(|| -log_likelihood / (observed * std::f64::consts::LN_2))
}

/// The area under the ROC curve of scores that should be high on one side and low on the other: the probability that one drawn from
/// `high` is above one drawn from `low`, where a draw counts a half (Mann and Whitney's statistic). 0.5 is chance, and what sides
/// without scores have.
///
/// ```
/// use convpc::metrics::auroc;
/// // Of four pairs one is a draw, one the wrong way round.
/// assert_eq!(auroc(&[-1.0, -3.0], &[f64::NEG_INFINITY, -1.0]), 2.5 / 4.0);
/// ```
pub fn auroc(high: &[f64], low: &[f64]) -> f64 {
    let pairs = high.len() as f64 * low.len() as f64;
    if pairs == 0.0 {
        return 0.5;
    }
    let mut all: Vec<(f64, bool)> = high.iter().map(|x| (*x, true)).chain(low.iter().map(|x| (*x, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut won, mut below) = (0.0, 0.0);
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let of_high = equal.iter().filter(|(_, is_high)| *is_high).count() as f64;
        let of_low = equal.len() as f64 - of_high;
        won += of_high * (below + 0.5 * of_low);
        below += of_low;
    }
    won / pairs
}

/// What can be wrong with a metrics file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The file cannot be read or written.
    #[error("the metrics in {path} cannot be {verb}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// `"read"` or `"written"`.
        verb: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A line is no record.
    #[error("{path}, line {line}: not a record of a training run ({source}); name another file for the metrics")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, 1 the first.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

/// The records in a file; a last line that a run could not finish is none.
///
/// # Errors
/// Where the file cannot be read, or is no log.
pub fn read(path: &Path) -> Result<Vec<Record>, MetricsError> {
    let read = |e| file_error(path, "read", e);
    let text = read_file(path).map_err(read)?;
    let text = String::from_utf8(text).map_err(|e| read(io::Error::new(io::ErrorKind::InvalidData, e)))?;
    let mut records = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        match serde_json::from_str::<Record>(line) {
            Ok(record) => records.push(record),
            Err(_) if !line.ends_with('\n') => {}
            Err(source) => return Err(MetricsError::Line { path: path.to_path_buf(), line: index + 1, source }),
        }
    }
    Ok(records)
}

/// The records of a run, in a file if it has one.
///
/// ```
/// use convpc::metrics::{Log, Record};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("metrics.jsonl");
/// let epoch = convpc::train::Epoch {
///     epoch: 0, is_final_em: false, steps: 1, rows: 100, impossible_rows: 0, mean_log_likelihood: -7.0,
///     validation: None, accuracy: None, is_best: false, step_size: 1.0,
/// };
/// let mut log = Log::create(Some(&path))?;
/// let observed = convpc::train::Observed { train: 4.0, valid: None };
/// log.push(Record::new(&epoch, observed, 50.0, 2.5))?;
/// // A run that goes on after its first epoch keeps what that has written.
/// assert_eq!(Log::resume(Some(&path), 1)?.records(), log.records());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Log {
    path: Option<PathBuf>,
    records: Vec<Record>,
}

impl Log {
    /// A new log; a file that is there is emptied.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn create(path: Option<&Path>) -> Result<Self, MetricsError> {
        Log { path: path.map(Path::to_path_buf), records: vec![] }.write()
    }

    /// The log of a run that goes on after its first `epochs`. What an interrupted one wrote beyond them is forgotten, and so
    /// is a last line that it could not finish; a file that is not there is begun.
    ///
    /// # Errors
    /// Where the file is no log, or cannot be read or written.
    pub fn resume(path: Option<&Path>, epochs: usize) -> Result<Self, MetricsError> {
        let Some(path) = path.filter(|path| path.exists()) else { return Log::create(path) };
        let mut records = read(path)?;
        records.retain(|record| record.epoch <= epochs);
        Log { path: Some(path.to_path_buf()), records }.write()
    }

    /// The records, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Adds a record, to the file as well.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn push(&mut self, record: Record) -> Result<(), MetricsError> {
        self.records.push(record);
        let Some(path) = &self.path else { return Ok(()) };
        let failed = |e| file_error(path, "written", e);
        let line = serde_json::to_string(&record).map_err(|e| failed(e.into()))? + "\n";
        let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        file.write_all(line.as_bytes()).map_err(failed)
    }

    /// Writes the whole file anew.
    fn write(self) -> Result<Self, MetricsError> {
        let Some(path) = &self.path else { return Ok(self) };
        let lines = |to: &mut dyn Write| {
            self.records.iter().try_for_each(|record| writeln!(to, "{}", serde_json::to_string(record)?))
        };
        atomic::write(path, lines).map_err(|e| file_error(path, "written", e))?;
        Ok(self)
    }
}

fn file_error(path: &Path, verb: &'static str, source: io::Error) -> MetricsError {
    MetricsError::File { path: path.to_path_buf(), verb, source }
}

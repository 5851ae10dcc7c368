use std::{
    io::{self, Write, stderr, stdout},
    path::PathBuf,
};

use clap::Args;
use convpc::{Executable, classes, data, evidence, metrics::bits_per_dimension, model};
use indicatif::ProgressBar;
use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::{
    Outcome, Shared,
    failure::note,
    files::{self, Files},
    input::{Input, check_stdin},
    number::fixed,
    output::is_standard,
    progress,
    refused::{Refused, ask},
};

/// Arguments of `score`.
#[derive(Args)]
pub(crate) struct Score {
    /// The model file.
    model: PathBuf,
    /// Images: .npy, .npz, IDX, a picture, a folder of pictures, or - for .npy on standard input.
    #[arg(long)]
    data: PathBuf,
    /// The classes of the images, for the accuracy of a model that has classes: IDX, .npy, .npz, or a folder of class folders.
    #[arg(long)]
    labels: Option<PathBuf>,
    /// File for the log-likelihoods, ending in .npy: one float64 number for each row. - writes them to standard output, one on each
    /// line, and the summary to standard error.
    #[arg(short)]
    output: Option<PathBuf>,
    #[command(flatten)]
    input: Input,
}

impl Score {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        if let Some(path) = self.output.as_deref().filter(|path| !is_standard(path)) {
            files::check_ending("-o", path, &["npy"])?;
        }
        check_stdin([self.data.as_path()])?;
        let files = Files::default().input("the model", &self.model).input("--data", &self.data);
        let files = files.inputs("--labels", &self.labels);
        self.output.iter().fold(files, |files, path| files.stream("-o", path)).check()?;
        let circuit = model::load(&self.model)?;
        let batches = self.input.batches_for(&self.data, &circuit)?;
        let labels = self.labels.as_deref();
        let labels = labels.map(|path| data::read_labels_with(path, &self.input.options())).transpose()?;
        let executable = shared.backend()?.load(&circuit)?;
        let classes = if labels.is_some() { circuit.structure().num_classes() } else { None };
        let mut scored = Scored { joint: Array2::zeros((0, classes.unwrap_or(1))), ..Scored::default() };
        batches.each(&mut |batch| {
            if let Some(labels) = labels.as_ref().filter(|_| batch.first == 0) {
                classes::check_labels(circuit.structure(), batch.of, labels)?;
            }
            let bar = scored.bar.get_or_insert_with(|| progress::bar(batch.of, "scoring"));
            bar.set_position(batch.first as u64);
            scored.add(&*executable, batch.images.values.view(), batch.first, labels.is_some())
        })?;
        scored.finish(labels.is_some());
        let to_stdout = self.output.as_deref().is_some_and(is_standard);
        match &self.output {
            Some(_) if to_stdout => scored.lines(&mut stdout().lock())?,
            Some(path) => data::write_npy_f64(path, scored.scores.view())?,
            None => {}
        }
        let mut out: Box<dyn Write> = if to_stdout { Box::new(stderr()) } else { Box::new(stdout()) };
        scored.summary(&mut out)?;
        if let Some(labels) = labels {
            scored.accuracy(&mut out, &labels)?;
        }
        if circuit.structure().leaf().family.cardinality().is_none() {
            writeln!(
                out,
                "The leaves are continuous: these are densities per unit of the data as given (not rescaled)."
            )?;
        }
        let rows = scored.scores.len();
        for line in scored.refused.warnings(rows, ("", "")) {
            note(line);
        }
        if scored.refused.count() == rows {
            return Err("no row has a finite score; give rows that the model can explain, or learn it with a larger \
                        --pseudocount"
                .into());
        }
        Ok(())
    }
}

/// The scores of all rows.
#[derive(Default)]
struct Scored {
    /// `[row, class]` where there are labels, else `[row, 1]`. NaN where a row was too far from the leaves.
    joint: Array2<f64>,
    /// The total of each row of `joint`.
    scores: Array1<f64>,
    /// The number of observed variables of each row.
    observed: Vec<usize>,
    refused: Refused,
    bar: Option<ProgressBar>,
}

impl Scored {
    /// Scores rows, of which the first has the number `first`.
    fn add(&mut self, executable: &dyn Executable, rows: ArrayView2<f32>, first: usize, by_class: bool) -> Outcome {
        let query = |rows: ArrayView2<f32>, _| match by_class {
            true => executable.class_log_joint(rows),
            false => Ok(executable.log_likelihood(rows)?.insert_axis(Axis(1))),
        };
        let unknown = Array2::from_elem((1, self.joint.ncols()), f64::NAN);
        for part in ask(rows, first, &query, &mut self.refused)? {
            self.joint.append(Axis(0), part.as_ref().unwrap_or(&unknown).view())?;
        }
        self.observed.extend(rows.outer_iter().map(|row| evidence::observed(row.insert_axis(Axis(0)))));
        Ok(())
    }

    /// Adds up the classes of each row, and counts the rows of probability 0.
    fn finish(&mut self, by_class: bool) {
        self.bar.take().iter().for_each(ProgressBar::finish_and_clear);
        self.scores = if by_class { classes::total(self.joint.view()) } else { self.joint.column(0).to_owned() };
        self.refused.far.iter().for_each(|row| self.scores[*row] = f64::NAN);
        self.refused.impossible.extend((0..self.scores.len()).filter(|row| self.scores[*row] == f64::NEG_INFINITY));
    }

    /// Writes a number a line.
    fn lines(&self, out: &mut dyn Write) -> io::Result<()> {
        self.scores.iter().try_for_each(|score| writeln!(out, "{score}"))?;
        out.flush()
    }

    /// Writes the mean, and where some rows have probability 0 the mean of the others.
    fn summary(&self, out: &mut dyn Write) -> io::Result<()> {
        let mean = |kept: &dyn Fn(f64) -> bool| {
            let rows: Vec<usize> = (0..self.scores.len()).filter(|row| kept(self.scores[*row])).collect();
            let sum = rows.iter().map(|row| self.scores[*row]).sum::<f64>();
            let observed = rows.iter().map(|row| self.observed[*row]).sum::<usize>();
            (rows.len(), sum / rows.len() as f64, bits_per_dimension(sum, observed as f64))
        };
        let (scored, nats, bits) = mean(&|score| !score.is_nan());
        writeln!(out, "rows                 {}", self.scores.len())?;
        if scored == 0 && !self.refused.far.is_empty() {
            return writeln!(out, "rows without score   {}", self.refused.far.len());
        }
        writeln!(out, "mean log-likelihood  {} nats", fixed(nats, 4))?;
        match bits {
            Some(bits) => writeln!(out, "bits per dimension   {}", fixed(bits, 4))?,
            None => writeln!(out, "bits per dimension   none, since no variable was observed")?,
        }
        if self.refused.count() == 0 {
            return Ok(());
        }
        writeln!(out, "impossible rows      {}", self.refused.impossible.len())?;
        if !self.refused.far.is_empty() {
            writeln!(out, "rows without score   {}", self.refused.far.len())?;
        }
        if let (rows @ 1.., nats, bits) = mean(&|score| score > f64::NEG_INFINITY) {
            let bits = bits.map_or(String::new(), |bits| format!(", {} bits per dimension", fixed(bits, 4)));
            writeln!(out, "mean of the others   {} nats{bits}, {rows} rows", fixed(nats, 4))?;
        }
        Ok(())
    }

    /// Writes how often the most probable class is the label, among the rows that have a score.
    fn accuracy(&self, out: &mut dyn Write, labels: &[usize]) -> io::Result<()> {
        let has_score: Vec<usize> = (0..self.scores.len()).filter(|row| !self.scores[*row].is_nan()).collect();
        let joint = self.joint.select(Axis(0), &has_score);
        let scores = self.scores.select(Axis(0), &has_score);
        let labels: Vec<usize> = has_score.iter().map(|row| labels[*row]).collect();
        if labels.is_empty() {
            return Ok(());
        }
        // A row of probability zero has no posterior: the log-posterior of its label counts as -inf.
        let posterior = classes::of_labels(joint.view(), &labels) - &scores;
        let mean = posterior.iter().map(|p| if p.is_nan() { f64::NEG_INFINITY } else { *p }).sum::<f64>();
        let right = classes::right(joint.view(), &labels);
        let share = right as f64 / labels.len() as f64;
        writeln!(out, "accuracy             {}, {right} of the rows", fixed(share, 4))?;
        writeln!(out, "mean log-posterior   {} nats, of the labels", fixed(mean / labels.len() as f64, 4))
    }
}

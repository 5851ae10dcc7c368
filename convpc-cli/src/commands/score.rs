use std::{
    io::{self, Write, stderr, stdout},
    path::PathBuf,
};

use clap::Args;
use convpc::{Circuit, classes, data, evidence, metrics::bits_per_dimension, model};
use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::{
    Outcome, Shared,
    failure::note,
    files::{self, Files},
    input::{Input, check_stdin},
    number::fixed,
    output::{batch_rows, is_standard},
    progress,
    refused::{Part, Refused, ask},
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
    /// Where the log-likelihoods go: .npy, float64, one a row, or - for a line of text each on standard output. The summary then
    /// goes to standard error.
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
        files.inputs("--labels", &self.labels).outputs("-o", &self.output).check()?;
        let circuit = model::load(&self.model)?;
        let images = self.input.read_for(&self.data, &circuit)?;
        let labels = self.labels.as_deref();
        let labels = labels.map(|path| data::read_labels_with(path, &self.input.options())).transpose()?;
        if let Some(labels) = &labels {
            classes::check_labels(circuit.structure(), images.values.nrows(), labels)?;
        }
        let scored = Scored::new(shared, &circuit, images.values.view(), labels.is_some())?;
        let to_stdout = self.output.as_deref().is_some_and(is_standard);
        match &self.output {
            Some(_) if to_stdout => scored.lines(&mut stdout().lock())?,
            Some(path) => data::write_npy_f64(path, scored.scores.view())?,
            None => {}
        }
        let mut out: Box<dyn Write> = if to_stdout { Box::new(stderr()) } else { Box::new(stdout()) };
        scored.summary(&mut out, images.values.view())?;
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
struct Scored {
    /// NaN where a row was too far from the leaves.
    scores: Array1<f64>,
    /// Those of each class, where there are labels.
    joint: Option<Array2<f64>>,
    refused: Refused,
}

impl Scored {
    fn new(
        shared: &Shared,
        circuit: &Circuit,
        data: ArrayView2<f32>,
        with_classes: bool,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let executable = shared.backend()?.load(circuit)?;
        let mut refused = Refused::default();
        let of_rows = |rows: ArrayView2<f32>, _| match with_classes {
            true => executable.class_log_joint(rows),
            false => Ok(executable.log_likelihood(rows)?.insert_axis(Axis(1))),
        };
        let columns = if with_classes { circuit.structure().num_classes().unwrap_or(1) } else { 1 };
        let mut all = Array2::from_elem((data.nrows(), columns), f64::NAN);
        let bar = progress::bar(data.nrows(), "scoring");
        let batch_rows = batch_rows(data.ncols());
        let mut row = 0;
        for (first, batch) in (0..).step_by(batch_rows).zip(data.axis_chunks_iter(Axis(0), batch_rows)) {
            for part in ask(batch, first, &of_rows, &mut refused)? {
                let Part::Answered(scores) = part else {
                    row += 1;
                    continue;
                };
                for scores in scores.outer_iter() {
                    all.row_mut(row).assign(&scores);
                    row += 1;
                }
            }
            bar.inc(batch.nrows() as u64);
        }
        bar.finish_and_clear();
        let mut scores = if with_classes { classes::total(all.view()) } else { all.column(0).to_owned() };
        refused.far.iter().for_each(|row| scores[*row] = f64::NAN);
        refused.impossible.extend((0..scores.len()).filter(|row| scores[*row] == f64::NEG_INFINITY));
        Ok(Scored { scores, joint: with_classes.then_some(all), refused })
    }

    /// Writes a number a line.
    fn lines(&self, out: &mut dyn Write) -> io::Result<()> {
        self.scores.iter().try_for_each(|score| writeln!(out, "{score}"))?;
        out.flush()
    }

    /// Writes the mean, and where some rows have probability 0 the mean of the others.
    fn summary(&self, out: &mut dyn Write, data: ArrayView2<f32>) -> io::Result<()> {
        let mean = |kept: &dyn Fn(f64) -> bool| {
            let rows: Vec<usize> = (0..self.scores.len()).filter(|row| kept(self.scores[*row])).collect();
            let sum = rows.iter().map(|row| self.scores[*row]).sum::<f64>();
            let observed =
                rows.iter().map(|row| evidence::observed(data.row(*row).insert_axis(Axis(0)))).sum::<usize>();
            (rows.len(), sum / rows.len() as f64, bits_per_dimension(sum, observed as f64))
        };
        let (_, nats, bits) = mean(&|score| !score.is_nan());
        writeln!(out, "rows                 {}", self.scores.len())?;
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

    /// Writes how often the most probable class is the label.
    fn accuracy(&self, out: &mut dyn Write, labels: &[usize]) -> io::Result<()> {
        let Some(joint) = &self.joint else { return Ok(()) };
        // Of rows of probability zero no class is right, and their posterior is none.
        let posterior = classes::of_labels(joint.view(), labels) - &self.scores;
        let mean = posterior.iter().map(|p| if p.is_nan() { f64::NEG_INFINITY } else { *p }).sum::<f64>();
        let right = classes::right(joint.view(), labels);
        let share = right as f64 / labels.len() as f64;
        writeln!(out, "accuracy             {}, {right} of the rows", fixed(share, 4))?;
        writeln!(out, "mean log-posterior   {} nats, of the labels", fixed(mean / labels.len() as f64, 4))
    }
}

use std::{
    io::{Write, stdout},
    path::PathBuf,
};

use clap::Args;
use convpc::{classes, data, evidence, metrics::bits_per_dimension, model};
use ndarray::{Array2, Axis};

use crate::{
    Outcome, Shared,
    files::{self, Files},
    input::Input,
    io,
    number::fixed,
    progress,
};

/// Arguments of `score`.
#[derive(Args)]
pub(crate) struct Score {
    /// The model file.
    model: PathBuf,
    /// Images: .npy, .npz, IDX, a picture, or a folder of pictures.
    #[arg(long)]
    data: PathBuf,
    /// The classes of the images, for the accuracy of a model that has classes: IDX, .npy, .npz, or a folder of class folders.
    #[arg(long)]
    labels: Option<PathBuf>,
    /// Where the log-likelihoods go, float64, one a row (.npy).
    #[arg(short)]
    output: Option<PathBuf>,
    #[command(flatten)]
    input: Input,
}

impl Score {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        if let Some(path) = &self.output {
            files::check_ending("-o", path, &["npy"])?;
        }
        let files = Files::default().input("the model", &self.model).input("--data", &self.data);
        files.inputs("--labels", &self.labels).outputs("-o", &self.output).check()?;
        let circuit = model::load(&self.model)?;
        let images = self.input.read_for(&self.data, &circuit)?;
        let labels = self.labels.as_deref().map(data::read_labels).transpose()?;
        if let Some(labels) = &labels {
            classes::check_labels(circuit.structure(), images.values.nrows(), labels)?;
        }
        let executable = shared.backend()?.load(&circuit)?;
        let joint = labels.as_ref().map(|_| io::log_joint(&*executable, images.values.view())).transpose()?;
        let scores = match &joint {
            Some(joint) => classes::total(joint.view()),
            None => io::log_likelihood(&*executable, images.values.view())?,
        };
        let mean = scores.sum() / scores.len() as f64;
        if let Some(path) = self.output {
            data::write_npy_f64(&path, scores.view())?;
        }
        let mut out = stdout();
        writeln!(out, "rows                 {}", scores.len())?;
        writeln!(out, "mean log-likelihood  {} nats", fixed(mean, 4))?;
        let observed = evidence::observed(images.values.view()) as f64;
        match bits_per_dimension(scores.sum(), observed) {
            Some(bits) => writeln!(out, "bits per dimension   {}", fixed(bits, 4))?,
            None => writeln!(out, "bits per dimension   none, since no variable was observed")?,
        }
        if let (Some(joint), Some(labels)) = (joint, labels) {
            // Of rows of probability zero no class is right, and their posterior is none.
            let posterior = classes::of_labels(joint.view(), &labels) - &scores;
            let mean = posterior.iter().map(|p| if p.is_nan() { f64::NEG_INFINITY } else { *p }).sum::<f64>();
            let right = classes::right(joint.view(), &labels);
            let share = right as f64 / labels.len() as f64;
            writeln!(out, "accuracy             {}, {right} of the rows", fixed(share, 4))?;
            writeln!(out, "mean log-posterior   {} nats, of the labels", fixed(mean / labels.len() as f64, 4))?;
        }
        if circuit.structure().leaf().family.cardinality().is_none() {
            writeln!(
                out,
                "The leaves are continuous: these are densities per unit of the data as given (not rescaled)."
            )?;
        }
        Ok(())
    }
}

/// Arguments of `sample`.
#[derive(Args)]
pub(crate) struct Sample {
    /// The model file.
    model: PathBuf,
    /// How many images.
    #[arg(short, value_parser = clap::value_parser!(u64).range(1..))]
    n: u64,
    /// The class that they are of, in a model that has classes; of all unless given.
    #[arg(long)]
    class: Option<usize>,
    /// Where they go: .npy or .png.
    #[arg(short, default_value = "samples.png")]
    output: PathBuf,
}

impl Sample {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        io::check_output(&self.output)?;
        Files::default().input("the model", &self.model).output("-o", &self.output).check()?;
        let mut circuit = model::load(&self.model)?;
        if let Some(class) = self.class {
            circuit = circuit.of_class(class)?;
        }
        let executable = shared.backend()?.load(&circuit)?;
        let mut samples = Array2::zeros((0, circuit.variables()));
        let bar = progress::bar(self.n as usize, "sampling");
        for first in (0..self.n).step_by(io::BATCH) {
            let rows = first..self.n.min(first + io::BATCH as u64);
            samples.append(Axis(0), executable.sample(rows, shared.seed())?.view())?;
            bar.set_position(samples.nrows() as u64);
        }
        bar.finish_and_clear();
        io::write_rows(&self.output, &circuit, samples.view())
    }
}

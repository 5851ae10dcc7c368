use std::path::PathBuf;

use clap::Args;
use convpc::model;

use crate::{
    Outcome, Shared,
    files::Files,
    output::{self, Images, batch_rows, element},
    progress,
};

/// Arguments of `sample`.
#[derive(Args)]
pub(crate) struct Sample {
    /// The model file.
    model: PathBuf,
    /// Number of images.
    #[arg(short, value_parser = clap::value_parser!(u64).range(1..))]
    n: u64,
    /// The class that they are of, in a model that has classes; of all unless given.
    #[arg(long)]
    class: Option<usize>,
    /// File for the images, ending in .npy or .png; - writes .npy to standard output. A .npy array has the shape of the images,
    /// and holds integers if the leaves are discrete.
    #[arg(short, default_value = "samples.png")]
    output: PathBuf,
}

impl Sample {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        output::check(&self.output)?;
        Files::default().input("the model", &self.model).stream("-o", &self.output).check()?;
        let mut circuit = model::load(&self.model)?;
        if let Some(class) = self.class {
            circuit = circuit.of_class(class)?;
        }
        let executable = shared.backend()?.load(&circuit)?;
        let mut images = Images::create(&self.output, &circuit, self.n as usize, element(&circuit))?;
        let bar = progress::bar(self.n as usize, "sampling");
        let batch_rows = batch_rows(circuit.variables());
        for first in (0..self.n).step_by(batch_rows) {
            let rows = first..self.n.min(first + batch_rows as u64);
            images.write(executable.sample(rows.clone(), shared.seed())?.view())?;
            bar.set_position(rows.end);
        }
        bar.finish_and_clear();
        images.finish()
    }
}

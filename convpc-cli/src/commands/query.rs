use std::path::PathBuf;

use clap::Args;
use convpc::{data, model};

use crate::{Outcome, Shared, io};

/// Arguments of `score`.
#[derive(Args)]
pub(crate) struct Score {
    /// The model file.
    model: PathBuf,
    /// Images: .npy, .npz, IDX, or a folder of PNGs.
    #[arg(long)]
    data: PathBuf,
    /// Where the log-likelihoods go, float64, one a row (.npy).
    #[arg(short)]
    output: Option<PathBuf>,
}

impl Score {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        let circuit = model::load(&self.model)?;
        let images = data::read(&self.data)?;
        let executable = shared.backend()?.load(&circuit)?;
        let scores = io::log_likelihood(&*executable, images.values.view())?;
        let mean = scores.sum() / scores.len() as f64;
        println!("rows                 {}", scores.len());
        println!("mean log-likelihood  {mean:.4} nats");
        println!("bits per dimension   {:.4}", io::bits_per_dimension(mean, circuit.variables()));
        if circuit.structure().leaf().family.cardinality().is_none() {
            println!("The leaves are continuous: these are densities per unit of the data as given (not rescaled).");
        }
        if let Some(path) = self.output {
            data::write_npy_f64(&path, scores.view())?;
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
    #[arg(short)]
    n: u64,
    /// Where they go: .npy or .png.
    #[arg(short, default_value = "samples.png")]
    output: PathBuf,
}

impl Sample {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        let circuit = model::load(&self.model)?;
        let samples = shared.backend()?.load(&circuit)?.sample(0..self.n, shared.seed)?;
        io::write_rows(&self.output, &circuit, samples.view())
    }
}

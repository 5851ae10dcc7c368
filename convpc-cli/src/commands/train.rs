use std::{
    io::{Write, stdout},
    ops::ControlFlow,
    path::PathBuf,
};

use clap::Args;
use convpc::{Executable, data, em, model};
use indicatif::ProgressBar;
use ndarray::ArrayView2;

use super::architecture::Architecture;
use crate::{Outcome, Shared, io, progress};

/// Arguments of `train`.
#[derive(Args)]
pub(crate) struct Train {
    /// Images to learn from: .npy, .npz, IDX, or a folder of PNGs.
    #[arg(long)]
    data: PathBuf,
    /// Held-out images, scored after each epoch.
    #[arg(long)]
    valid: Option<PathBuf>,
    /// EM steps, each over all data.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Rows that are computed together; changes the speed, not the result.
    #[arg(long, default_value_t = 512)]
    batch_size: usize,
    /// Dirichlet pseudocount of the EM step.
    #[arg(long, default_value_t = 0.01)]
    pseudocount: f64,
    /// Go on from the model that is there; it must agree with the flags of its structure.
    #[arg(long)]
    resume: bool,
    /// The model file, written after each epoch.
    #[arg(short)]
    output: PathBuf,
    #[command(flatten)]
    architecture: Architecture,
}

impl Train {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        let (circuit, images) = if self.resume {
            let circuit = model::load(&self.output)?;
            self.architecture.check(&circuit, &self.output)?;
            let images = io::read_images(&self.data, &circuit)?;
            (circuit, images)
        } else {
            let images = data::read(&self.data)?;
            (self.architecture.build(&images, shared.seed)?, images)
        };
        let valid = self.valid.as_deref().map(|path| io::read_images(path, &circuit)).transpose()?;
        let mut executable = shared.backend()?.load(&circuit)?;
        let mut out = stdout();
        let new_bar = || progress::bar(images.values.nrows(), "learning");
        let options = em::Options { pseudocount: self.pseudocount, ..Default::default() };
        for epoch in 1..=self.epochs {
            let bar = new_bar();
            let mean = train_epoch(&mut *executable, images.values.view(), self.batch_size, &options, &bar)?;
            bar.finish_and_clear();
            model::save(&self.output, &executable.circuit()?)?;
            let bits = io::bits_per_dimension(mean, circuit.variables());
            write!(out, "epoch {epoch}  before the step {mean:.3} nats, {bits:.4} bits per dimension")?;
            if let Some(valid) = &valid {
                let scores = io::log_likelihood(&*executable, valid.values.view())?;
                let mean = scores.sum() / scores.len() as f64;
                let bits = io::bits_per_dimension(mean, circuit.variables());
                write!(out, "  held-out after it {mean:.3} nats, {bits:.4} bits per dimension")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// One EM step over all data, each row a step of the bar; returns the mean log-likelihood before it.
pub(crate) fn train_epoch(
    executable: &mut dyn Executable,
    data: ArrayView2<f32>,
    batch_size: usize,
    options: &em::Options,
    bar: &ProgressBar,
) -> convpc::Result<f64> {
    let start = bar.position();
    let mut mean = f64::NAN;
    em::fit(executable, data, 1, batch_size, options, &mut |progress| {
        match progress {
            em::Progress::Batch { rows, .. } => bar.set_position(start + rows as u64),
            em::Progress::Epoch { mean_log_likelihood, .. } => mean = mean_log_likelihood,
        }
        ControlFlow::Continue(())
    })?;
    Ok(mean)
}

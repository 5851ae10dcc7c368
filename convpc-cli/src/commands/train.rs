use std::{
    io::{Write, stdout},
    ops::ControlFlow,
    path::PathBuf,
};

use clap::Args;
use convpc::{
    Circuit, ConvPc, Executable, Family,
    data::{self, ImageShape, Images},
    em, fit_leaves, model,
};
use indicatif::ProgressBar;
use ndarray::ArrayView2;

use super::edit::LeafName;
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
    /// Leaf family.
    #[arg(long, value_enum, default_value = "categorical")]
    leaf: LeafName,
    /// Number of values: K for categorical, n + 1 for binomial.
    #[arg(long, default_value_t = 256)]
    levels: usize,
    /// Channels of the sums.
    #[arg(long, default_value_t = 64)]
    channels: usize,
    /// Channels of the leaves; as many as the sums' unless given.
    #[arg(long)]
    leaf_channels: Option<usize>,
    /// Levels; chosen for the image unless given.
    #[arg(long)]
    depth: Option<usize>,
    /// Side of the product patches.
    #[arg(long, default_value_t = 2)]
    kernel_size: usize,
    /// Independent copies.
    #[arg(long, default_value_t = 1)]
    repetitions: usize,
    /// Share weights between patches.
    #[arg(long)]
    use_sum_conv: bool,
    /// EM steps, each over all data.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Rows that are computed together; changes the speed, not the result.
    #[arg(long, default_value_t = 512)]
    batch_size: usize,
    /// Dirichlet pseudocount of the EM step.
    #[arg(long, default_value_t = 0.01)]
    pseudocount: f64,
    /// Rows of pixels, where the data do not tell.
    #[arg(long)]
    height: Option<usize>,
    /// Columns of pixels.
    #[arg(long)]
    width: Option<usize>,
    /// Variables a pixel.
    #[arg(long)]
    colors: Option<usize>,
    /// Go on from the model that is there.
    #[arg(long)]
    resume: bool,
    /// The model file, written after each epoch.
    #[arg(short)]
    output: PathBuf,
}

impl Train {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        let images = data::read(&self.data)?;
        let circuit = if self.resume { model::load(&self.output)? } else { self.begin(&images, shared.seed)? };
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

    fn begin(&self, images: &Images, seed: u64) -> Result<Circuit, Box<dyn std::error::Error>> {
        let shape = self.shape(images)?;
        let family = match self.leaf {
            LeafName::Normal => Family::normal(),
            LeafName::Bernoulli => Family::bernoulli(),
            LeafName::Categorical => Family::categorical(self.levels),
            LeafName::Binomial => Family::binomial(self.levels.saturating_sub(1)),
        };
        let mut convpc = ConvPc::new(shape.height, shape.width, shape.colors, family)
            .channels(self.channels)
            .kernel_size(self.kernel_size)
            .repetitions(self.repetitions)
            .use_sum_conv(self.use_sum_conv)
            .leaf_channels(self.leaf_channels.unwrap_or(self.channels));
        if let Some(depth) = self.depth {
            convpc = convpc.depth(depth);
        }
        Ok(fit_leaves(&convpc.build(seed)?, images.values.view(), seed)?)
    }

    fn shape(&self, images: &Images) -> Result<ImageShape, String> {
        let given = self.height.zip(self.width);
        let shape = match (given, images.shape) {
            (Some((height, width)), found) => {
                let colors = self.colors.or(found.map(|s| s.colors)).unwrap_or(1);
                ImageShape { height, width, colors }
            }
            (None, Some(shape)) => shape,
            (None, None) => {
                return Err("the data do not say how their variables lie in an image; give --height and --width".into());
            }
        };
        if shape.variables() == Some(images.values.ncols()) {
            return Ok(shape);
        }
        let given = images.values.ncols();
        Err(format!("the data have {given} variables a row, which is not {shape}; mend --height, --width, --colors"))
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

use std::{
    fs,
    io::{Read, Write, stdout},
    num::NonZeroUsize,
    ops::ControlFlow,
    path::PathBuf,
};

use clap::Args;
use convpc::{ConvPc, Executable, Family, data, em, fit_leaves, metrics::bits_per_dimension, model};
use flate2::read::GzDecoder;
use indicatif::ProgressBar;
use ndarray::{Array2, ArrayView2, Axis, concatenate};

use super::complete::hidden;
use crate::{
    Outcome, Shared,
    curve::{self, Line},
    number::fixed,
    pictures::write_picture,
    progress,
};

/// 1,797 handwritten digits of 8×8 pixels with the levels 0 to 16: 64 pixels a line, then the label.
const DIGITS: &[u8] = include_bytes!("../../data/digits.csv.gz");
const LEVELS: usize = 17;
const TRAIN_ROWS: usize = 1500;

/// Arguments of `demo`.
#[derive(Args)]
pub(crate) struct Demo {
    /// The folder for the model and the pictures; made if it is not there.
    #[arg(long, default_value = "convpc-demo")]
    out: PathBuf,
    /// Times that all digits are seen.
    #[arg(long, value_name = "N", default_value = "40")]
    epochs: NonZeroUsize,
}

impl Demo {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        let digits = digits()?;
        let (train, held_out) = digits.view().split_at(Axis(0), TRAIN_ROWS);
        let file = |name: &str| self.out.join(name);
        let mut out = stdout();
        fs::create_dir_all(&self.out).map_err(|e| format!("{} cannot be made: {e}", self.out.display()))?;

        let backend = shared.backend()?;
        let start = ConvPc::new(8, 8, 1, Family::binomial(LEVELS - 1)).channels(32).depth(3).build(shared.seed())?;
        let start = fit_leaves(&start, train, shared.seed())?;
        writeln!(out, "{start}on {}: {}\n", backend.name(), backend.description())?;
        let mut executable = backend.load(&start)?;
        let options = em::Options { pseudocount: 0.05, ..Default::default() };
        let mut curve: Vec<[f64; 2]> = Vec::new();
        let bar = progress::bar(self.epochs.get() * TRAIN_ROWS, "learning");
        for _ in 0..self.epochs.get() {
            train_epoch(&mut *executable, train, &options, &bar)?;
            curve.push([mean(&*executable, train)?, mean(&*executable, held_out)?]);
        }
        bar.finish_and_clear();
        let baseline = [independent(train, train), independent(train, held_out)];
        writeln!(out, "mean log-likelihood (nats) and bits per dimension")?;
        writeln!(out, "                      train              held out")?;
        for (name, [a, b]) in [("independent pixels", baseline), ("convpc", curve[curve.len() - 1])] {
            let nats = |mean| fixed(mean, 2);
            let bits = |mean| fixed(bits_per_dimension(mean, 64.0).unwrap_or_default(), 3);
            writeln!(out, "{name:<20}  {:>8}  {:>6}   {:>8}  {:>6}", nats(a), bits(a), nats(b), bits(b))?;
        }

        let circuit = executable.circuit()?;
        model::save(&file("model.safetensors"), &circuit)?;
        write_picture(&file("samples.png"), &circuit, executable.sample(0..64, shared.seed())?.view(), 16)?;
        // Masked, completed and true side by side, four triples a line.
        let truth = held_out.split_at(Axis(0), 32).0;
        let mut masked = truth.to_owned();
        for (half, name) in ["left", "right", "top", "bottom"].into_iter().enumerate() {
            for (column, _) in
                hidden(&circuit, name, &data::Options::default())?.into_iter().enumerate().filter(|(_, hidden)| *hidden)
            {
                masked.column_mut(column).iter_mut().skip(half).step_by(4).for_each(|x| *x = f32::NAN);
            }
        }
        let completed = executable.sample_conditional(masked.view(), shared.seed(), 0)?;
        let triples: Vec<ArrayView2<f32>> = (0..truth.nrows())
            .flat_map(|row| [masked.view(), completed.view(), truth].map(|x| x.split_at(Axis(0), row).1))
            .map(|rows| rows.split_at(Axis(0), 1).0)
            .collect();
        write_picture(&file("completions.png"), &circuit, concatenate(Axis(0), &triples)?.view(), 12)?;
        let line = |name, k: usize| Line::of_epochs(name, curve.iter().map(|point| point[k]).enumerate());
        let lines = [line("train", 0), line("held out", 1)];
        curve::draw(&file("curve.svg"), ("epoch", "mean log-likelihood (nats)"), &lines)?;
        writeln!(
            out,
            "\nwrote model.safetensors, samples.png, completions.png and curve.svg to {}",
            self.out.display()
        )?;
        Ok(())
    }
}

fn mean(model: &dyn Executable, data: ArrayView2<f32>) -> convpc::Result<f64> {
    Ok(model.log_likelihood(data)?.sum() / data.nrows() as f64)
}

fn digits() -> Result<Array2<f32>, Box<dyn std::error::Error>> {
    let mut text = String::new();
    GzDecoder::new(DIGITS).read_to_string(&mut text)?;
    let pixels = text.lines().flat_map(|line| line.split(',').take(64).map(str::parse::<f32>));
    let pixels = pixels.collect::<Result<Vec<f32>, _>>()?;
    Ok(Array2::from_shape_vec((pixels.len() / 64, 64), pixels)?)
}

/// Mean log-likelihood of data under a table for each pixel, made from counts with a pseudocount.
fn independent(train: ArrayView2<f32>, data: ArrayView2<f32>) -> f64 {
    let pixel = |(train, data): (ndarray::ArrayView1<f32>, ndarray::ArrayView1<f32>)| {
        let mut counts = [0.05; LEVELS];
        train.iter().for_each(|x| counts[*x as usize] += 1.0);
        let total: f64 = counts.iter().sum();
        data.iter().map(|x| (counts[*x as usize] / total).ln()).sum::<f64>() / data.len() as f64
    };
    train.columns().into_iter().zip(data.columns()).map(pixel).sum()
}

/// One EM step over all data, each row a step of the bar.
fn train_epoch(
    executable: &mut dyn Executable,
    data: ArrayView2<f32>,
    options: &em::Options,
    bar: &ProgressBar,
) -> convpc::Result<()> {
    let start = bar.position();
    em::fit(executable, data, 1, 500, options, &mut |progress| {
        if let em::Progress::Batch { rows, .. } = progress {
            bar.set_position(start + rows as u64);
        }
        ControlFlow::Continue(())
    })
}

//! Tells images of one kind from those of another by how probable a model finds them.
//!
//! The model has seen one kind only. Where it has learned what these images are like, others are less probable, and a threshold
//! on the log-likelihood parts the two; the area under the ROC curve says how well, for all thresholds together. In the folders are
//! the files of MNIST and Fashion-MNIST as they are published:
//!
//! ```sh
//! convpc train --data mnist/train-images-idx3-ubyte.gz --algorithm minibatch-em --epochs 8 --seed 1 -o mnist.safetensors
//! cargo run --release -p convpc --example anomaly -- \
//!     mnist.safetensors mnist/t10k-images-idx3-ubyte.gz fashion-mnist/t10k-images-idx3-ubyte.gz
//! ```
//!
//! The other way round it fails, as with models of other kinds: digits, mostly black, are more probable under a model of clothes than
//! clothes are. RESULTS.md has figures of both.

use std::{env, error::Error, path::Path};

use convpc::{Backend, Cpu, Executable, data, evidence, metrics::auroc, model};
use ndarray::Axis;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, usual, other] = &arguments[..] else {
        return Err(
            "give three files: a model, images like those that it has learned from, and images of another kind".into(),
        );
    };
    let executable = Cpu::new(None)?.load(&model::load(Path::new(model))?)?;
    let usual = scores(&*executable, Path::new(usual))?;
    let other = scores(&*executable, Path::new(other))?;
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
    println!("usual images     {:>7}, mean log-likelihood {:.2} nats", usual.len(), mean(&usual));
    println!("other images     {:>7}, mean log-likelihood {:.2} nats", other.len(), mean(&other));
    println!("AUROC            {:.4}", auroc(&usual, &other));
    Ok(())
}

/// The log-likelihood of each image in a file.
fn scores(executable: &dyn Executable, path: &Path) -> Result<Vec<f64>, Box<dyn Error>> {
    let images = data::read(path)?.values;
    evidence::check(executable.structure(), images.view())?;
    let mut scores = Vec::with_capacity(images.nrows());
    for batch in images.axis_chunks_iter(Axis(0), 1024) {
        scores.extend(executable.log_likelihood(batch)?);
    }
    Ok(scores)
}

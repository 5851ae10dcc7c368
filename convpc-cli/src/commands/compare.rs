use std::path::PathBuf;

use clap::Args;
use convpc::metrics::{self, Record};

use crate::{
    Outcome,
    curve::{self, Line},
};

/// Arguments of `curve`.
#[derive(Args)]
pub(crate) struct Curve {
    /// Metrics of training runs, as NAME=FILE; the name is written beside the line.
    #[arg(required = true, value_name = "NAME=FILE")]
    runs: Vec<String>,
    /// The picture, .png or .svg.
    #[arg(short)]
    output: PathBuf,
}

impl Curve {
    pub(crate) fn run(self) -> Outcome {
        curve::check_name(&self.output)?;
        let mut lines = Vec::new();
        for run in &self.runs {
            let Some((name, path)) = run.split_once('=') else {
                return Err(format!("{run} is no NAME=FILE; put the name of the line and = before the file").into());
            };
            let records = metrics::read(path.as_ref())?;
            lines.push(Line::new(name, records.iter().filter_map(|record| Some((record.seconds, bits(record)?)))));
        }
        if lines.iter().all(Line::is_empty) {
            return Err("none of the runs has finished an epoch: there is nothing to draw".into());
        }
        curve::draw(&self.output, ("seconds", "bits per dimension"), &lines)
    }
}

/// Of the held-out images, if there are any, else of those learned from.
fn bits(record: &Record) -> Option<f64> {
    record.valid_bits.or(record.train_bits)
}

use std::path::PathBuf;

use clap::Args;
use convpc::metrics::{self, Record};

use crate::{
    Outcome,
    curve::{self, Line},
    failure::Usage,
    files::Files,
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
        curve::check_name("-o", &self.output)?;
        let runs = self.runs.iter().map(|run| run.split_once('=').ok_or(run)).collect::<Result<Vec<_>, _>>();
        let runs = runs
            .map_err(|run| Usage(format!("{run} is no NAME=FILE; put the name of the line and = before the file")))?;
        let inputs: Vec<PathBuf> = runs.iter().map(|(_, path)| path.into()).collect();
        Files::default().inputs("the metrics", &inputs).output("-o", &self.output).check()?;
        let mut lines = Vec::new();
        for (name, path) in runs {
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

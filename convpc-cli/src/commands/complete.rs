use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use convpc::{Circuit, Executable, Mpe, data, model};
use ndarray::{Array2, ArrayView2, Axis};

use super::edit::part;
use crate::{Outcome, Shared, files::Files, input, io, progress};

/// Arguments of `complete`.
#[derive(Args)]
pub(crate) struct Complete {
    /// The model file.
    model: PathBuf,
    /// Images; NaN is missing too.
    #[arg(long)]
    data: PathBuf,
    /// The part to complete: left, right, top, bottom, center, or an array of booleans (.npy, FILE.npz:NAME).
    #[arg(long)]
    mask: Option<String>,
    /// A draw from the posterior, or the most probable explanation, exact or greedy.
    #[arg(long, value_enum, default_value_t = How::Sample)]
    how: How,
    /// Where they go: .npy or .png.
    #[arg(short)]
    output: PathBuf,
    #[command(flatten)]
    input: input::Input,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Sample,
    Mpe,
    Greedy,
}

impl Complete {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        io::check_output(&self.output)?;
        let files = Files::default().input("the model", &self.model).input("--data", &self.data);
        let mask = self.mask.as_deref().filter(|mask| part(mask, (0, 0), (1, 1)).is_none()).map(PathBuf::from);
        files.inputs("--mask", &mask).output("-o", &self.output).check()?;
        let circuit = model::load(&self.model)?;
        let mut values = self.input.read_for(&self.data, &circuit)?.values;
        if let Some(mask) = &self.mask {
            for (mut column, hidden) in values.columns_mut().into_iter().zip(hidden(&circuit, mask)?) {
                if hidden {
                    column.fill(f32::NAN);
                }
            }
        }
        let executable = shared.backend()?.load(&circuit)?;
        let mut completed = Array2::zeros((0, values.ncols()));
        let bar = progress::bar(values.nrows(), "completing");
        for batch in values.axis_chunks_iter(Axis(0), io::BATCH) {
            let rows = self.batch(&*executable, batch, shared.seed(), completed.nrows() as u64)?;
            completed.append(Axis(0), rows.view())?;
            bar.inc(batch.nrows() as u64);
        }
        bar.finish_and_clear();
        io::write_rows(&self.output, &circuit, completed.view())
    }

    fn batch(
        &self,
        model: &dyn Executable,
        rows: ArrayView2<f32>,
        seed: u64,
        first: u64,
    ) -> convpc::Result<Array2<f32>> {
        let completed = match self.how {
            How::Sample => model.sample_conditional(rows, seed, first),
            How::Mpe => model.mpe(rows, Mpe::MaxProduct),
            How::Greedy => model.mpe(rows, Mpe::Greedy),
        };
        completed.map_err(|error| error.map_row(|row| row + first as usize))
    }
}

/// For each data column whether it is hidden.
pub(crate) fn hidden(circuit: &Circuit, mask: &str) -> Result<Vec<bool>, Box<dyn std::error::Error>> {
    let leaf = circuit.structure().leaf();
    let columns = circuit.structure().columns();
    if part(mask, (0, 0), (1, 1)).is_some() {
        let pixel = |slot: usize| (slot / leaf.colors / leaf.width, slot / leaf.colors % leaf.width);
        let size = (leaf.height, leaf.width);
        return Ok(columns.iter().map(|c| part(mask, pixel(c.slot), size) == Some(true)).collect());
    }
    Ok(data::read_mask(Path::new(mask), columns.len(), input::shape(circuit))?)
}

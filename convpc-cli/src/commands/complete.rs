use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use convpc::{
    Circuit, Executable, Mpe,
    data::{self, Element},
    model,
};
use ndarray::{Array2, ArrayView2, Axis, CowArray, Ix2};

use super::edit::part;
use crate::{
    Outcome, Shared,
    failure::note,
    files::Files,
    input::{self, Batches, check_stdin},
    output::{self, Images},
    progress,
    refused::{Refused, ask},
};

/// Arguments of `complete`.
#[derive(Args)]
pub(crate) struct Complete {
    /// The model file.
    model: PathBuf,
    /// Images, or - for .npy on standard input; NaN is missing too.
    #[arg(long)]
    data: PathBuf,
    /// The part to complete: left, right, top, bottom, center, or an array of booleans (.npy, FILE.npz:NAME).
    #[arg(long)]
    mask: Option<String>,
    /// A draw from the posterior, or the most probable explanation, exact or greedy.
    #[arg(long, value_enum, default_value_t = How::Sample)]
    how: How,
    /// File for the images, ending in .npy or .png; - writes .npy to standard output. A .npy array has the shape of the images,
    /// and holds integers if the leaves are discrete.
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
        output::check(&self.output)?;
        check_stdin([self.data.as_path()])?;
        let files = Files::default().input("the model", &self.model).input("--data", &self.data);
        let mask = self.mask.as_deref().filter(|mask| part(mask, (0, 0), (1, 1)).is_none()).map(PathBuf::from);
        files.inputs("--mask", &mask).stream("-o", &self.output).check()?;
        let circuit = model::load(&self.model)?;
        let batches = self.input.batches_for(&self.data, &circuit)?;
        let options = self.input.options();
        let hidden = self.mask.as_deref().map(|mask| hidden(&circuit, mask, &options)).transpose()?;
        let work = Work { how: self.how, hidden, executable: shared.backend()?.load(&circuit)?, seed: shared.seed() };
        let mut refused = Refused::default();
        let (mut begun, mut is_missing) = (None, self.mask.is_some());
        batches.each(&mut |batch| {
            let (images, bar) = match &mut begun {
                Some(begun) => begun,
                None => {
                    let element = work.element(&circuit, &batches, batch.images.element)?;
                    let images = Images::create(&self.output, &circuit, batch.of, element)?;
                    begun.insert((images, progress::bar(batch.of, "completing")))
                }
            };
            is_missing = is_missing || batch.images.values.iter().any(|x| x.is_nan());
            images.write(work.batch(batch.images.values.view(), batch.first, &mut refused)?.view())?;
            bar.inc(batch.images.values.nrows() as u64);
            Ok(())
        })?;
        let Some((images, bar)) = begun else { return Ok(()) };
        bar.finish_and_clear();
        if !is_missing {
            note(
                "note: no value is missing in the images, so they are written as they are; give --mask to complete a part of them",
            );
        }
        for line in
            refused.warnings(images.rows(), (" and is left as it was given", " and are left as they were given"))
        {
            note(line);
        }
        if refused.count() == images.rows() {
            return Err(
                "no row could be completed; give rows that the model can explain, or learn it with a larger --pseudocount"
                    .into(),
            );
        }
        images.finish()
    }
}

/// The settings that all batches of rows are completed with.
struct Work {
    how: How,
    /// True for each data column that is hidden; `None` if only missing values are completed.
    hidden: Option<Vec<bool>>,
    executable: Box<dyn Executable>,
    seed: u64,
}

impl Work {
    /// Completes rows, of which the first has the number `first`. Rows that are refused stay as they were given.
    fn batch(&self, given: ArrayView2<f32>, first: usize, refused: &mut Refused) -> convpc::Result<Array2<f32>> {
        let query = |rows: ArrayView2<f32>, first: usize| match self.how {
            How::Sample => self.executable.sample_conditional(rows, self.seed, first as u64),
            How::Mpe => self.executable.mpe(rows, Mpe::MaxProduct),
            How::Greedy => self.executable.mpe(rows, Mpe::Greedy),
        };
        let mut completed = given.to_owned();
        let mut row = 0;
        for part in ask(self.masked(given).view(), first, &query, refused)? {
            let rows = part.as_ref().map_or(1, Array2::nrows);
            if let Some(values) = &part {
                completed.slice_axis_mut(Axis(0), (row..row + rows).into()).assign(values);
            }
            row += rows;
        }
        Ok(completed)
    }

    /// The rows without what is hidden.
    fn masked<'a>(&self, given: ArrayView2<'a, f32>) -> CowArray<'a, f32, Ix2> {
        let Some(hidden) = &self.hidden else { return given.into() };
        let mut rows = given.to_owned();
        for (mut column, _) in rows.columns_mut().into_iter().zip(hidden).filter(|(_, hidden)| **hidden) {
            column.fill(f32::NAN);
        }
        rows.into()
    }

    /// The type of the numbers that are written, where `given` is that of the file: that of the circuit's images, or f32 where a row
    /// that stays as it was given lacks values, since integers have no NaN.
    fn element(
        &self,
        circuit: &Circuit,
        batches: &Batches,
        given: Element,
    ) -> Result<Element, Box<dyn std::error::Error>> {
        let element = output::element(circuit);
        let may_lack = matches!(given, Element::F16 | Element::F32 | Element::F64);
        let mut keeps_holes = false;
        if may_lack && element != Element::F32 {
            batches.each_unchecked(&mut |batch| {
                let rows = batch.images.values;
                let lacking: Vec<usize> =
                    (0..rows.nrows()).filter(|row| rows.row(*row).iter().any(|x| x.is_nan())).collect();
                if !keeps_holes && !lacking.is_empty() {
                    let rows = rows.select(Axis(0), &lacking);
                    let scores = self.executable.log_likelihood(self.masked(rows.view()).view());
                    let scores = scores.map_err(|error| error.map_row(|row| batch.first + lacking[row]))?;
                    keeps_holes = scores.iter().any(|score| *score == f64::NEG_INFINITY);
                }
                Ok(())
            })?;
        }
        Ok(if keeps_holes { Element::F32 } else { element })
    }
}

/// For each data column whether it is hidden.
pub(crate) fn hidden(
    circuit: &Circuit,
    mask: &str,
    options: &data::Options,
) -> Result<Vec<bool>, Box<dyn std::error::Error>> {
    let leaf = circuit.structure().leaf();
    let columns = circuit.structure().columns();
    if part(mask, (0, 0), (1, 1)).is_some() {
        let pixel = |slot: usize| (slot / leaf.colors / leaf.width, slot / leaf.colors % leaf.width);
        let size = (leaf.height, leaf.width);
        return Ok(columns.iter().map(|c| part(mask, pixel(c.slot), size) == Some(true)).collect());
    }
    Ok(data::read_mask_with(Path::new(mask), columns.len(), input::shape(circuit), options)?)
}

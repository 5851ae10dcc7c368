//! The images that a command makes, written while they are made.

use std::{
    io::{self, IsTerminal, Stdout, Write, stdout},
    path::{Path, PathBuf},
};

use convpc::{
    Circuit, atomic,
    data::{DataError, Element, ImageShape, NpyWriter},
};
use ndarray::{Array2, ArrayView2, Axis};

use crate::{Outcome, failure::Usage, files, input, pictures::write_picture};

/// Returns true if `path` stands for standard output, or for standard input.
pub(crate) fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// An error unless [`Images`] can write to this name: asked before long work.
pub(crate) fn check(path: &Path) -> Result<(), Usage> {
    if is_standard(path) { check_stdout() } else { files::check_ending("-o", path, &["npy", "png"]) }
}

/// An error if numbers would be written to a terminal.
pub(crate) fn check_stdout() -> Result<(), Usage> {
    if stdout().is_terminal() {
        return Err(Usage("-o - writes to standard output, which is a terminal; send it to a file or a pipe".into()));
    }
    Ok(())
}

/// The type of the numbers in a `.npy` file of a circuit's images: the smallest that holds all values of its leaves.
pub(crate) fn element(circuit: &Circuit) -> Element {
    match circuit.structure().leaf().family.cardinality() {
        Some(0..=0x100) => Element::U8,
        Some(0x101..=0x1_0000) => Element::U16,
        Some(_) => Element::U32,
        None => Element::F32,
    }
}

/// Returns the number of rows that are computed and written at a time: at most 1024, and fewer of large images.
pub(crate) fn batch_rows(variables: usize) -> usize {
    /// Numbers of a batch.
    const NUMBERS: usize = 1 << 22;
    (NUMBERS / variables.max(1)).clamp(1, 1024)
}

/// Where a `.npy` file goes.
enum Place {
    File(atomic::Writer),
    Stdout(Stdout),
}

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Place::File(file) => file.write(bytes),
            Place::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Place::File(file) => file.flush(),
            Place::Stdout(stdout) => stdout.flush(),
        }
    }
}

/// The images of a file that is being written.
pub(crate) struct Images<'a> {
    path: PathBuf,
    circuit: &'a Circuit,
    rows: usize,
    to: To,
}

enum To {
    /// Rows are written as they come.
    Npy(NpyWriter<Place>),
    /// A picture is drawn when all rows are there.
    Picture(Array2<f32>),
}

impl<'a> Images<'a> {
    /// Begins a file of so many images of a circuit. The name of the file says what is written.
    pub(crate) fn create(path: &Path, circuit: &'a Circuit, rows: usize, element: Element) -> Result<Self, DataError> {
        let to = if !is_standard(path) && files::ends_in(path, &["png"]) {
            To::Picture(Array2::zeros((0, circuit.variables())))
        } else {
            let begin = || {
                let place = if is_standard(path) {
                    Place::Stdout(stdout())
                } else {
                    Place::File(atomic::Writer::create(path)?)
                };
                NpyWriter::new(place, element, &sizes(circuit, rows))
            };
            To::Npy(begin().map_err(|source| failed(path, source))?)
        };
        Ok(Images { path: path.to_path_buf(), circuit, rows, to })
    }

    /// Returns how many images the file is for.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Writes the next images.
    pub(crate) fn write(&mut self, rows: ArrayView2<f32>) -> Outcome {
        match &mut self.to {
            To::Npy(to) => {
                to.write(rows.iter().map(|x| f64::from(*x))).map_err(|source| failed(&self.path, source))?;
            }
            To::Picture(all) => all.append(Axis(0), rows)?,
        }
        Ok(())
    }

    /// Gives the file its name, now that all images are written.
    pub(crate) fn finish(self) -> Outcome {
        match self.to {
            To::Npy(to) => {
                let end = || match to.finish()? {
                    Place::File(file) => file.finish(),
                    Place::Stdout(_) => Ok(()),
                };
                Ok(end().map_err(|source| failed(&self.path, source))?)
            }
            To::Picture(rows) => {
                let columns = (rows.nrows() as f64).sqrt().ceil() as usize;
                write_picture(&self.path, self.circuit, rows.view(), columns)
            }
        }
    }
}

/// The size along each axis: that of images, unless some of their variables were marginalised.
fn sizes(circuit: &Circuit, rows: usize) -> Vec<usize> {
    match input::shape(circuit) {
        Some(ImageShape { height, width, colors: 1 }) => vec![rows, height, width],
        Some(ImageShape { height, width, colors }) => vec![rows, height, width, colors],
        None => vec![rows, circuit.variables()],
    }
}

fn failed(path: &Path, source: io::Error) -> DataError {
    let path = if is_standard(path) { "standard output".into() } else { path.to_path_buf() };
    DataError::Write { path, source }
}

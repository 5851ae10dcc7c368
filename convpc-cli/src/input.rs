//! The images that a command reads: the flags for reading them, their description, and advice if they do not fit the leaves.

use std::{
    error::Error,
    fmt,
    io::{IsTerminal, stdin},
    path::Path,
};

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use convpc::{
    Circuit, Family,
    data::{self, AxisOrder, Batch, DataError, Element, ImageShape, Images, Options, Values},
};

use crate::{
    Outcome,
    failure::{Usage, note},
    output::{batch_rows, is_standard},
};

/// The name of standard input in messages.
const STDIN: &str = "standard input";

/// An error if images would be read from a terminal, or twice from standard input.
pub(crate) fn check_stdin<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<(), Usage> {
    match paths.into_iter().filter(|path| is_standard(path)).count() {
        0 => Ok(()),
        1 if stdin().is_terminal() => {
            Err(Usage("- reads an array from standard input, which is a terminal; send it through a pipe".into()))
        }
        1 => Ok(()),
        _ => Err(Usage("standard input (-) can be read only once; give a file for all but one".into())),
    }
}

/// The flags that say how images are read.
#[derive(Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct Input {
    /// Position of the colors in an array of four axes: chw (before height and width) or hwc (after them). By default the sizes decide.
    #[arg(long, value_enum)]
    layout: Option<LayoutName>,
    /// Read values above T as 1, all others as 0.
    #[arg(long, value_name = "T", conflicts_with = "quantize", allow_negative_numbers = true)]
    binarize: Option<f64>,
    /// Read values as the nearest of N even levels, 0 to N - 1.
    #[arg(long, value_name = "N")]
    quantize: Option<usize>,
    /// The values that become the first and the last level [default: the range of u8 or u16, else 0:1]
    #[arg(long, value_name = "LOW:HIGH", requires = "quantize", allow_hyphen_values = true, value_parser = range)]
    range: Option<(f64, f64)>,
    /// The most memory that the values of a file may take, such as 8GB or 500MiB [default: half of the machine's]
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
}

/// The names of the orders of axes.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum LayoutName {
    Chw,
    Hwc,
}

fn range(text: &str) -> Result<(f64, f64), String> {
    let numbers = text.split_once(':').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    numbers.ok_or_else(|| "expected two numbers, as in 0:255".to_owned())
}

impl Input {
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::default();
        options.axes = self.layout.map(|layout| match layout {
            LayoutName::Chw => AxisOrder::ColorsFirst,
            LayoutName::Hwc => AxisOrder::ColorsLast,
        });
        options.values = match (self.binarize, self.quantize) {
            (Some(threshold), _) => Values::Binarize { threshold },
            (None, Some(levels)) => Values::Quantize { levels, range: self.range },
            (None, None) => Values::AsTheyAre,
        };
        options.memory = self.memory.map(|size| size.as_u64());
        options
    }

    /// Reads images, and says on stderr which files it passed over.
    pub(crate) fn read(&self, path: &Path) -> Result<Images, DataError> {
        self.read_with(path, &self.options())
    }

    fn read_with(&self, path: &Path, options: &Options) -> Result<Images, DataError> {
        if is_standard(path) {
            return data::read_from(Path::new(STDIN), &mut stdin().lock(), options);
        }
        told(path, data::read_with(path, options)?)
    }

    /// Reads images that fit a circuit: the shape, where the file tells it, the number of variables and the support.
    ///
    /// All rows are checked here, so that an error names the row of the file and not of a batch.
    pub(crate) fn read_for(&self, path: &Path, circuit: &Circuit) -> Result<Images, Box<dyn Error>> {
        let images = self.read_with(path, &self.options_for(circuit))?;
        check_fit(name(path), &images, 0, circuit, || Summary::of(&images))?;
        Ok(images)
    }

    /// The images of a file, or of standard input, to be read batch by batch for a circuit.
    pub(crate) fn batches_for<'a>(&self, path: &'a Path, circuit: &'a Circuit) -> Result<Batches<'a>, DataError> {
        let options = self.options_for(circuit);
        let loaded = is_standard(path).then(|| self.read_with(path, &options)).transpose()?;
        Ok(Batches { path, circuit, options, loaded })
    }

    /// The model knows what the sizes of an array alone do not say.
    fn options_for(&self, circuit: &Circuit) -> Options {
        let mut options = self.options();
        options.shape = shape(circuit);
        options
    }
}

/// Images that are read batch by batch.
pub(crate) struct Batches<'a> {
    path: &'a Path,
    circuit: &'a Circuit,
    options: Options,
    /// The images from standard input, which cannot be read twice.
    loaded: Option<Images>,
}

impl Batches<'_> {
    /// Hands the images to `each`, after it is sure that they fit the circuit, and says on stderr which files were passed over.
    pub(crate) fn each(&self, each: &mut dyn FnMut(Batch) -> Outcome) -> Outcome {
        self.each_unchecked(&mut |mut batch| {
            batch.images = told(self.path, batch.images)?;
            self.check(&batch)?;
            each(batch)
        })
    }

    /// Hands the images to `each` as they are.
    pub(crate) fn each_unchecked(&self, each: &mut dyn FnMut(Batch) -> Outcome) -> Outcome {
        let rows = batch_rows(self.circuit.variables());
        match &self.loaded {
            Some(images) => images.in_batches(rows, each),
            None => data::read_batches(self.path, &self.options, rows, each),
        }
    }

    fn check(&self, batch: &Batch) -> Outcome {
        // The advice in an error depends on the values of all images.
        let summary = || {
            let mut summary = Summary::of(&batch.images);
            let add = &mut |batch: Batch| {
                summary.add(&batch.images);
                Ok(())
            };
            // What comes after damage is not known.
            let _ = self.each_unchecked(add);
            summary
        };
        check_fit(name(self.path), &batch.images, batch.first, self.circuit, summary)
    }
}

/// The name of a path in messages.
fn name(path: &Path) -> &Path {
    if is_standard(path) { Path::new(STDIN) } else { path }
}

/// An error unless images, of which the first has the number `first`, fit a circuit. `summary` is of all images of the file.
fn check_fit(
    path: &Path,
    images: &Images,
    first: usize,
    circuit: &Circuit,
    summary: impl FnOnce() -> Summary,
) -> Outcome {
    let expected = shape(circuit);
    if let Some(given) = images.shape.filter(|given| expected.is_some_and(|expected| *given != expected)) {
        let (path, expected) = (path.display(), expected.map(|shape| shape.to_string()).unwrap_or_default());
        return Err(
            format!("{path} has images of {given}, the model is of {expected}; give images of that size").into()
        );
    }
    if images.values.ncols() == circuit.variables() {
        let family = &circuit.structure().leaf().family;
        check_support_in(path, (images, first), family, Leaves::OfTheModel, summary)?;
    }
    Ok(convpc::evidence::check_rows(circuit.structure(), images.values.view(), first)?)
}

/// The shape of a circuit's images, unless some of their variables were marginalised.
pub(crate) fn shape(circuit: &Circuit) -> Option<ImageShape> {
    let leaf = circuit.structure().leaf();
    leaf.kept.is_none().then_some(ImageShape { height: leaf.height, width: leaf.width, colors: leaf.colors })
}

/// An error unless folders of class folders, if labels come from two of them, number their classes alike.
pub(crate) fn check_classes(labels: Option<&Path>, valid: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let (Some(labels), Some(valid)) = (labels, valid) else { return Ok(()) };
    let (expected, given) = (data::class_names(labels)?, data::class_names(valid)?);
    if expected == given || expected.is_empty() || given.is_empty() {
        return Ok(());
    }
    let (valid, given, labels, expected) = (valid.display(), given.join(", "), labels.display(), expected.join(", "));
    Err(format!(
        "--valid-labels: {valid} has the classes {given}, {labels} has {expected}; make the class folders the same"
    )
    .into())
}

fn told(path: &Path, images: Images) -> Result<Images, DataError> {
    if let [first, ..] = &images.passed_over[..] {
        let (count, first) = (images.passed_over.len(), first.display());
        let what =
            if count == 1 { "1 file or folder is" } else { &format!("{} files or folders are", thousands(count)) };
        let more = if count > 1 { ", …" } else { "" };
        note(format_args!(
            "note: {what} passed over in {}, being no PNG, JPEG or WebP picture: {first}{more}",
            path.display()
        ));
    }
    Ok(images)
}

/// Describes the images in one line, such as `60,000 images of 28 × 28, 1 color, u8`.
pub(crate) fn describe(images: &Images) -> String {
    let rows = images.values.nrows();
    let what = match images.shape {
        Some(ImageShape { height, width, colors }) => {
            format!("{} of {height} × {width}, {}", counted(rows, "image"), counted(colors, "color"))
        }
        None => format!("{} of {}", counted(rows, "row"), counted(images.values.ncols(), "variable")),
    };
    format!("{what}, {}", images.element)
}

fn counted(count: usize, what: &str) -> String {
    format!("{} {what}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// A number in groups of three digits.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let group = |(at, digit): (usize, char)| {
        if at > 0 && (digits.len() - at).is_multiple_of(3) { format!(",{digit}") } else { format!("{digit}") }
    };
    digits.chars().enumerate().map(group).collect()
}

/// Whose leaves the values must fit.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Leaves {
    /// Those of a new model, which the flags choose.
    ToBeChosen,
    OfTheModel,
}

/// An error that names the place, the range of the data and what helps, if a value is outside the support of the leaves.
pub(crate) fn check_support(path: &Path, images: &Images, family: &Family, leaves: Leaves) -> Result<(), String> {
    check_support_in(path, (images, 0), family, leaves, || Summary::of(images))
}

/// The same for some of the images in a file, of which the first has the number `first`. `summary` is of all images.
fn check_support_in(
    path: &Path,
    (images, first): (&Images, usize),
    family: &Family,
    leaves: Leaves,
    summary: impl FnOnce() -> Summary,
) -> Result<(), String> {
    let rows = images.values.outer_iter().enumerate();
    let mut outside = rows.filter_map(|(row, values)| Some((row, family.first_outside(values.as_slice()?)?)));
    let Some((row, variable)) = outside.next() else { return Ok(()) };
    let (value, summary) = (images.values[(row, variable)], summary());
    Err(format!(
        "{}: row {}, variable {variable} is {value}, outside the support of {}, {}; the data are {summary}: {}. NaN marks a missing \
         value",
        path.display(),
        first + row,
        family.name(),
        family.support(),
        summary.remedy(family, leaves)
    ))
}

/// A summary of the values of a file, from which the advice in an error is chosen.
struct Summary {
    element: Element,
    low: f32,
    high: f32,
    whole: bool,
    /// True if -1 is the only negative number.
    minus_one: bool,
}

impl Summary {
    fn of(images: &Images) -> Self {
        let element = images.element;
        let mut summary =
            Summary { element, low: f32::INFINITY, high: f32::NEG_INFINITY, whole: true, minus_one: true };
        summary.add(images);
        summary
    }

    /// Takes more images of the same file in.
    fn add(&mut self, images: &Images) {
        for &value in images.values.iter().filter(|value| !value.is_nan()) {
            (self.low, self.high) = (self.low.min(value), self.high.max(value));
            self.whole &= value.fract() == 0.0;
            self.minus_one &= value >= 0.0 || value == -1.0;
        }
    }

    /// True if `--quantize` without `--range` suits the values.
    fn fills_usual_range(&self) -> bool {
        match self.element {
            Element::U8 => true,
            Element::U16 => self.high > 32_767.0,
            Element::F16 | Element::F32 | Element::F64 => self.low >= 0.0 && self.high <= 1.0,
            _ => false,
        }
    }

    /// Suggests the flag that brings such values into the support.
    fn remedy(&self, family: &Family, leaves: Leaves) -> String {
        let Self { low, high, whole, .. } = *self;
        let new = leaves == Leaves::ToBeChosen;
        let Some(levels) = family.cardinality().filter(|_| low.is_finite() && high.is_finite()) else {
            return "rescale them".into();
        };
        if whole && low == -1.0 && self.minus_one {
            return "if -1 stands for what is missing, write NaN in its place".into();
        }
        let scale = if self.fills_usual_range() { String::new() } else { format!(" --range {low}:{high}") };
        let threshold = if low >= 0.0 && high <= 1.0 { 0.5 } else { (low + high) / 2.0 };
        let read = match levels {
            2 => format!("give --binarize {threshold} to read them as 0 and 1"),
            _ => format!("give --quantize {levels}{scale} to read them as levels"),
        };
        // Bytes have 256 levels, the last of which may be missing by chance.
        let needed = if (128.0..256.0).contains(&high) { 256.0 } else { f64::from(high) + 1.0 };
        match (new, whole && low >= 0.0 && needed <= f64::from(1 << 24)) {
            (true, true) if levels == 2 => format!("{read}, or --leaf categorical --levels {needed}"),
            (true, true) => format!("give --levels {needed}, or --quantize {levels}{scale}"),
            (true, false) => format!("{read}, or --leaf normal"),
            (false, _) => format!("{read}, if the model was learned so"),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.whole { "whole numbers" } else { "numbers" };
        write!(f, "{what} from {} to {}", self.low, self.high)
    }
}

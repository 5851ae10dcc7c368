use std::{error::Error, fmt, path::Path};

use clap::{Args, ValueEnum};
use convpc::{
    Circuit, ConvPc, Family, Initialization, Layer, LeafInitialization, Padding, Paddings, Split, Structure,
    data::{ImageShape, Images},
};
use ndarray::ArrayView2;

use super::edit::LeafName;
use crate::failure::Usage;

/// The flags that say what a circuit looks like. None has a default that clap knows of, so that what was typed can be
/// told from what was not.
#[derive(Args)]
#[command(next_help_heading = "Structure")]
pub(crate) struct Architecture {
    /// Leaf family [default: categorical]
    #[arg(long, value_enum)]
    leaf: Option<LeafName>,
    /// Number of values: K for categorical, n + 1 for binomial, grey values for discretized-logistic [default: 256]
    #[arg(long)]
    levels: Option<usize>,
    /// Channels of the sums, or of those of each level, the lowest first, the last number for all above: 32,64,128 [default: 64]
    #[arg(long, value_delimiter = ',')]
    channels: Option<Vec<usize>>,
    /// Sums with so many channels on the leaves, below the bottom product.
    #[arg(long, value_name = "CHANNELS")]
    leaf_sums: Option<usize>,
    /// How patches come together: in one product, or in two with a sum between them, along rows and then along columns [default:
    /// square]
    #[arg(long, value_enum)]
    split: Option<SplitName>,
    /// Channels of the leaves; as many as the sums' unless given.
    #[arg(long)]
    leaf_channels: Option<usize>,
    /// Levels; chosen for the image unless given.
    #[arg(long)]
    depth: Option<usize>,
    /// Side of the product patches [default: 2]
    #[arg(long)]
    kernel_size: Option<usize>,
    /// Independent copies [default: 1]
    #[arg(long)]
    repetitions: Option<usize>,
    /// Repetitions whose bottom paddings are shifted, each by so many rows and columns, by which the image moves down and to the
    /// right on the padded grid: -1:-1,0:0,1:1 makes three.
    #[arg(long, value_name = "ROWS:COLUMNS", value_delimiter = ',', allow_hyphen_values = true, value_parser = shift)]
    #[arg(conflicts_with = "repetitions")]
    shifts: Option<Vec<Shift>>,
    /// Share weights between patches.
    #[arg(long)]
    use_sum_conv: bool,
    /// What the leaves of a new circuit begin as: fitted to a few random images each, or to clusters of images that are alike in a patch,
    /// histograms of the pixels with noise, these through a
    /// window around a value of each channel's own, or at random [default: histograms for categorical leaves, windows if they
    /// are shared, else rows]
    #[arg(long, value_enum)]
    leaf_init: Option<LeafInit>,
    /// Standard deviation of the noise on the logarithms of histograms [default: 1]
    #[arg(long, value_name = "NATS")]
    leaf_noise: Option<f64>,
    /// Standard deviation of windows, a share of the number of values [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    leaf_window: Option<f64>,
    /// Side of the patches that images are clustered by, pixels [default: 2]
    #[arg(long, value_name = "PIXELS")]
    leaf_patch: Option<usize>,
    /// Concentration of the Dirichlet distribution that the first weights are drawn from [default: 1]
    #[arg(long)]
    concentration: Option<f64>,
    /// Classes, each with a head of its own above what all share [default: as many as --labels names, else none]
    #[arg(long)]
    classes: Option<usize>,
    /// Give all pixels the same leaf distributions.
    #[arg(long)]
    shared_leaves: bool,
    /// Rows of pixels, where the data do not tell.
    #[arg(long)]
    height: Option<usize>,
    /// Columns of pixels.
    #[arg(long)]
    width: Option<usize>,
    /// Variables a pixel.
    #[arg(long)]
    colors: Option<usize>,
}

/// Rows and columns that a repetition's image moves by.
#[derive(Clone, Copy)]
struct Shift(isize, isize);

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

fn shift(text: &str) -> Result<Shift, String> {
    let numbers = text.split_once(':').and_then(|(rows, columns)| Some((rows.parse().ok()?, columns.parse().ok()?)));
    let (rows, columns) = numbers.ok_or("expected rows and columns, as in -1:2")?;
    Ok(Shift(rows, columns))
}

/// The names of the splits.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum SplitName {
    Square,
    Alternating,
}

/// The names of the ways to begin.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum LeafInit {
    Rows,
    Clusters,
    Histograms,
    Windows,
    Random,
}

/// An error where labels name far more classes than there are images: they are other numbers than classes from 0 on.
fn check_named(classes: usize, labels: &[usize]) -> Result<(), String> {
    /// So many classes are no surprise.
    const USUAL: usize = 1000;
    if classes <= USUAL.max(labels.len()) {
        return Ok(());
    }
    let (most, images) = (classes - 1, labels.len());
    Err(format!(
        "--labels: the largest label is {most}, for {images} images; number the classes from 0 without gaps, or give --classes {classes} if \
         there are so many"
    ))
}

impl Architecture {
    /// A new circuit for these images and labels, its leaves fitted to `rows`.
    pub(crate) fn build(
        &self,
        images: &Images,
        labels: Option<&[usize]>,
        rows: ArrayView2<f32>,
        seed: u64,
    ) -> Result<Circuit, Box<dyn Error>> {
        let named = labels.and_then(|labels| labels.iter().max()).map(|most| most.saturating_add(1));
        if let (None, Some(named), Some(labels)) = (self.classes, named, labels) {
            check_named(named, labels)?;
        }
        let classes = self.classes.or(named).unwrap_or(1);
        if let (Some(_), ..=1) = (labels, classes) {
            let problem =
                format!("labels need at least 2 classes, not {classes}; give --classes 2 or more, or no --labels");
            return Err(Usage(problem).into());
        }
        let shape = self.shape(images)?;
        let family = self.family();
        let channels = self.channels.clone().unwrap_or_else(|| vec![64]);
        let leaf_channels = self.leaf_channels.or(channels.first().copied());
        let mut convpc = ConvPc::new(shape.height, shape.width, shape.colors, family)
            .channels_by_level(channels)
            .split(if self.split == Some(SplitName::Alternating) { Split::Alternating } else { Split::Square })
            .kernel_size(self.kernel_size.unwrap_or(2))
            .repetitions(self.repetitions.unwrap_or(1))
            .use_sum_conv(self.use_sum_conv)
            .shared_leaves(self.shared_leaves)
            .num_classes(classes)
            .leaf_channels(leaf_channels.unwrap_or(0));
        if let Some(channels) = self.leaf_sums {
            convpc = convpc.leaf_sums(channels);
        }
        if let Some(depth) = self.depth {
            convpc = convpc.depth(depth);
        }
        if let Some(shifts) = &self.shifts {
            convpc = convpc.shifts(shifts.iter().map(|Shift(rows, columns)| (*rows, *columns)).collect::<Vec<_>>());
        }
        Ok(self.initialization()?.circuit(convpc.structure()?, rows, seed)?)
    }

    /// The leaf family that the flags ask for.
    pub(crate) fn family(&self) -> Family {
        self.leaf.unwrap_or(LeafName::Categorical).family(self.levels)
    }

    fn initialization(&self) -> Result<Initialization, Usage> {
        let is_table = matches!(self.leaf, None | Some(LeafName::Categorical));
        let usual = match (is_table, self.shared_leaves) {
            (false, _) => LeafInit::Rows,
            (true, false) => LeafInit::Histograms,
            (true, true) => LeafInit::Windows,
        };
        let (noise, width) = (self.leaf_noise.unwrap_or(1.0), self.leaf_window.unwrap_or(0.1));
        let leaves = match self.leaf_init.unwrap_or(usual) {
            LeafInit::Rows => LeafInitialization::Rows,
            LeafInit::Random => LeafInitialization::Random,
            LeafInit::Clusters => LeafInitialization::Clusters { patch: self.leaf_patch.unwrap_or(2) },
            LeafInit::Histograms => LeafInitialization::Histogram { noise },
            LeafInit::Windows => LeafInitialization::Windows { noise, width },
        };
        let noisy = matches!(leaves, LeafInitialization::Histogram { .. } | LeafInitialization::Windows { .. });
        if let (Some(noise), false) = (self.leaf_noise, noisy) {
            return Err(Usage(format!(
                "--leaf-noise {noise} belongs to histograms; leave it out, or give --leaf-init histograms"
            )));
        }
        if let (Some(patch), false) = (self.leaf_patch, matches!(leaves, LeafInitialization::Clusters { .. })) {
            return Err(Usage(format!(
                "--leaf-patch {patch} belongs to clusters; leave it out, or give --leaf-init clusters"
            )));
        }
        if let (Some(width), false) = (self.leaf_window, matches!(leaves, LeafInitialization::Windows { .. })) {
            return Err(Usage(format!(
                "--leaf-window {width} belongs to windows; leave it out, or give --leaf-init windows"
            )));
        }
        Ok(Initialization { leaves, concentration: self.concentration.unwrap_or(1.0) })
    }

    fn shape(&self, images: &Images) -> Result<ImageShape, Usage> {
        let found = images.shape;
        if let Some(found) = found {
            self.check_shape(found)?;
        }
        let (height, width) = (self.height.or(found.map(|s| s.height)), self.width.or(found.map(|s| s.width)));
        let (Some(height), Some(width)) = (height, width) else {
            let problem = "the data do not say how their variables lie in an image; give --height and --width";
            return Err(Usage(problem.into()));
        };
        let colors = self.colors.or(found.map(|s| s.colors)).unwrap_or(1);
        let shape = ImageShape { height, width, colors };
        if shape.variables() == Some(images.values.ncols()) {
            return Ok(shape);
        }
        let given = images.values.ncols();
        Err(Usage(format!(
            "the data have {given} variables a row, which is not {shape}; mend --height, --width, --colors"
        )))
    }

    /// An error where a flag contradicts the axes of the file.
    fn check_shape(&self, found: ImageShape) -> Result<(), Usage> {
        let axes = [
            ("--height", self.height, found.height),
            ("--width", self.width, found.width),
            ("--colors", self.colors, found.colors),
        ];
        let wrong =
            |(flag, given, has): (&str, Option<usize>, usize)| Some(format!("{flag} {}", given.filter(|&n| n != has)?));
        let wrong: Vec<String> = axes.into_iter().filter_map(wrong).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Usage(format!(
            "the images are {found} (height x width x colors), not {}; leave these flags out, or say where the colors are (--layout)",
            wrong.join(", ")
        )))
    }

    /// An error where a flag was given that the model in the file does not agree with.
    pub(crate) fn check(&self, circuit: &Circuit, path: &Path) -> Result<(), String> {
        let (leaf, layers) = (circuit.structure().leaf(), circuit.structure().layers());
        let mut products = Vec::new();
        let mut sums = Vec::new();
        let mut leaf_sums = None;
        for layer in layers {
            if let (Layer::ProdConv(_), true) = (layer, products.is_empty()) {
                leaf_sums = sums.pop().map(|(channels, _): (usize, _)| channels);
            }
            match layer {
                Layer::ProdConv(product) => products.push(product.kernel),
                Layer::Sum(sum) => sums.push((sum.channels, None)),
                Layer::SumConv(sum) => sums.push((sum.channels, Some(patch((sum.kernel_size, sum.kernel_size))))),
                Layer::Leaf(_) | Layer::RepetitionMixing(_) => {}
            }
        }
        // The flags speak about neither the bottom product nor the root, of which the heads of classes are a part.
        let classes = circuit.structure().num_classes();
        sums.truncate(sums.len().saturating_sub(1 + usize::from(classes.is_some())));
        let above = products.get(1..).unwrap_or_default();
        let alternating = above.iter().any(|(rows, columns)| rows != columns && (*rows == 1 || *columns == 1));
        let a_level = if alternating { 2 } else { 1 };
        // Two halves are one patch.
        let kernels = above
            .chunks(a_level)
            .map(|parts| patch(parts.iter().fold((1, 1), |whole, part| (whole.0 * part.0, whole.1 * part.1))));
        let kernels = kernels.chain(sums.iter().filter_map(|(_, pattern)| pattern.clone()));
        let number = |given: Option<usize>| given.map(|given| given.to_string());
        let family = self.leaf.and_then(|leaf| Some(leaf.to_possible_value()?.get_name().to_owned()));
        // The other families have no levels to choose, with --resume as without.
        let levels =
            self.levels.filter(|_| ["categorical", "binomial", "discretized-logistic"].contains(&leaf.family.name()));
        let shared = sums.iter().all(|(_, pattern)| pattern.is_some());
        let flags = [
            ("--leaf", family, leaf.family.name().to_owned()),
            ("--levels", number(levels), distinct(leaf.family.cardinality())),
            (
                "--channels",
                self.channels.as_ref().map(|channels| levels_text(channels.iter().copied())),
                levels_text(sums.iter().step_by(a_level).map(|(channels, _)| *channels)),
            ),
            ("--leaf-sums", number(self.leaf_sums), number(leaf_sums).unwrap_or_else(|| "none".into())),
            (
                "--split",
                self.split.and_then(|split| Some(split.to_possible_value()?.get_name().to_owned())),
                if alternating { "alternating" } else { "square" }.into(),
            ),
            ("--leaf-channels", number(self.leaf_channels), leaf.channels.to_string()),
            ("--depth", number(self.depth), (above.len() / a_level).to_string()),
            ("--kernel-size", number(self.kernel_size), distinct(kernels)),
            ("--repetitions", number(self.repetitions), leaf.repetitions.to_string()),
            ("--shifts", self.shifts.as_deref().map(shifts_text), shifts_text(&shifts(circuit.structure()))),
            ("--classes", number(self.classes), number(classes).unwrap_or_else(|| "none".into())),
            ("--height", number(self.height), leaf.height.to_string()),
            ("--width", number(self.width), leaf.width.to_string()),
            ("--colors", number(self.colors), leaf.colors.to_string()),
        ];
        let disagree = |(flag, given, has): (&str, Option<String>, String)| {
            given.filter(|given| *given != has).map(|given| format!("{flag} {given} (the model has {has})"))
        };
        let mut conflicts: Vec<String> = flags.into_iter().filter_map(disagree).collect();
        if self.use_sum_conv && !shared {
            conflicts.push("--use-sum-conv (the model shares no weights)".into());
        }
        if self.shared_leaves && !leaf.shared {
            conflicts.push("--shared-leaves (the model's pixels have leaves of their own)".into());
        }
        if conflicts.is_empty() {
            return Ok(());
        }
        let (path, conflicts) = (path.display(), conflicts.join(", "));
        Err(format!(
            "--resume: the model in {path} is not what the flags ask for: {conflicts}; leave these flags out to go on \
             with it, or train anew to another file"
        ))
    }
}

/// How far the paddings of a circuit's bottom product are from even ones; nothing where all are padded alike.
fn shifts(structure: &Structure) -> Vec<Shift> {
    let bottom = structure.layers().iter().find_map(|layer| match layer {
        Layer::ProdConv(product) => Some(&product.padding),
        _ => None,
    });
    let Some(Paddings::Each(paddings)) = bottom else { return vec![] };
    let shift = |padding: &Padding| {
        let even = Padding::split(padding.top + padding.bottom, padding.left + padding.right);
        Shift(padding.top as isize - even.top as isize, padding.left as isize - even.left as isize)
    };
    paddings.iter().map(shift).collect()
}

/// Shifts as --shifts says them.
fn shifts_text(shifts: &[Shift]) -> String {
    if shifts.is_empty() { "none".into() } else { shifts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",") }
}

/// The size of a patch as --kernel-size says it, which knows only squares.
fn patch((rows, columns): (usize, usize)) -> String {
    if rows == columns { rows.to_string() } else { format!("{rows}×{columns}") }
}

/// Channels level by level, as --channels says them: the last number stands for all above.
fn levels_text(channels: impl Iterator<Item = usize>) -> String {
    let mut channels: Vec<usize> = channels.collect();
    while channels.len() > 1 && channels[channels.len() - 2] == channels[channels.len() - 1] {
        channels.pop();
    }
    let texts: Vec<String> = channels.iter().map(usize::to_string).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(",") }
}

/// The values that occur, each once; one for every model that `train` made.
fn distinct(values: impl IntoIterator<Item = impl ToString>) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in values.into_iter().map(|value| value.to_string()) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.is_empty() { "none".to_owned() } else { texts.join(" and ") }
}

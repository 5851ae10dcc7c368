use std::{
    io::{Write, stdout},
    path::{Path, PathBuf},
};

use clap::{ArgAction, Args, ValueEnum};
use convpc::{
    Circuit, Family, Scope, model,
    spflow::{self, Import, LeafKind},
};

use crate::{
    Outcome, Shared,
    failure::Usage,
    files::{self, Files},
};

/// The model that a command makes.
#[derive(Args)]
struct NewModel {
    /// The new model file; `train --resume -o` of it goes on learning.
    #[arg(short)]
    output: PathBuf,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

impl NewModel {
    /// An error where it cannot be written, or would replace what it is made of or another file.
    fn check<'a>(&self, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Outcome {
        Files::default().inputs("the input", inputs).output("-o", &self.output).check()?;
        files::check_new(&self.output, self.force, "")
    }

    fn save(&self, circuit: &Circuit) -> Outcome {
        Ok(model::save(&self.output, circuit)?)
    }
}

pub(crate) fn info(path: &Path) -> Outcome {
    write!(stdout(), "{}", model::load(path)?)?;
    Ok(())
}

/// Arguments of `marginalize`.
#[derive(Args)]
pub(crate) struct Marginalize {
    /// The model file.
    model: PathBuf,
    /// Variables to sum out: a list like 0,5,10-20, or left, right, top, bottom.
    #[arg(long)]
    drop: String,
    /// Keep the shapes of all layers.
    #[arg(long = "no-prune", action = ArgAction::SetFalse)]
    prune: bool,
    #[command(flatten)]
    new: NewModel,
}

impl Marginalize {
    pub(crate) fn run(self) -> Outcome {
        self.new.check([&self.model])?;
        let circuit = model::load(&self.model)?;
        let scope = variables(&circuit, &self.drop)?;
        self.new.save(&circuit.marginalize(&scope, self.prune)?)
    }
}

/// Arguments of `grow`.
#[derive(Args)]
pub(crate) struct Grow {
    /// The model file.
    model: PathBuf,
    /// Channels that come of each.
    #[arg(long, default_value_t = 2)]
    factor: usize,
    /// Standard deviation of the noise on the logarithms of weights and probabilities that parts them.
    #[arg(long, value_name = "NATS", default_value_t = 0.3)]
    noise: f64,
    #[command(flatten)]
    new: NewModel,
}

impl Grow {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        self.new.check([&self.model])?;
        let circuit = model::load(&self.model)?;
        self.new.save(&circuit.grow(self.factor, self.noise, shared.seed())?)
    }
}

/// Arguments of `mix`.
#[derive(Args)]
pub(crate) struct Mix {
    /// The model files; each becomes a repetition, or as many as it has.
    #[arg(required = true, num_args = 2..)]
    models: Vec<PathBuf>,
    /// What part each has in the mixture, in proportion: 2,1 for two thirds and one; even parts unless given.
    #[arg(long, value_delimiter = ',')]
    weights: Option<Vec<f64>>,
    #[command(flatten)]
    new: NewModel,
}

impl Mix {
    pub(crate) fn run(self) -> Outcome {
        self.new.check(&self.models)?;
        let circuits = self.models.iter().map(|path| model::load(path)).collect::<Result<Vec<_>, _>>()?;
        let weights = self.weights.unwrap_or_else(|| vec![1.0; circuits.len()]);
        self.new.save(&Circuit::mixture(&circuits, &weights)?)
    }
}

/// Arguments of `prune`.
#[derive(Args)]
pub(crate) struct Prune {
    /// The model file.
    model: PathBuf,
    /// Weights below this become zero before, the largest of a sum never; with 0 the distribution stays what it was.
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0)]
    below: f64,
    #[command(flatten)]
    new: NewModel,
}

impl Prune {
    pub(crate) fn run(self) -> Outcome {
        self.new.check([&self.model])?;
        let circuit = model::load(&self.model)?;
        self.new.save(&circuit.prune(self.below)?)
    }
}

/// Whether the pixel in a row and column of a height × width image is in the named part; `None` for an unknown name.
pub(crate) fn part(name: &str, (row, column): (usize, usize), (height, width): (usize, usize)) -> Option<bool> {
    Some(match name {
        "left" => column < width / 2,
        "right" => column >= width / 2,
        "top" => row < height / 2,
        "bottom" => row >= height / 2,
        "center" => {
            (height / 4..height - height / 4).contains(&row) && (width / 4..width - width / 4).contains(&column)
        }
        _ => return None,
    })
}

fn variables(circuit: &Circuit, list: &str) -> Result<Scope, Usage> {
    let leaf = circuit.structure().leaf();
    let position = |slot: usize| (slot / leaf.colors / leaf.width, slot / leaf.colors % leaf.width);
    if list != "center" && part(list, (0, 0), (1, 1)).is_some() {
        let inside = |slot| part(list, position(slot), (leaf.height, leaf.width)) == Some(true);
        return Ok(circuit.structure().columns().iter().filter(|c| inside(c.slot)).map(|c| c.variable).collect());
    }
    let wrong = |entry: &str| {
        Usage(format!("--drop: {entry:?} is neither a number, a range like 10-20, left, right, top nor bottom"))
    };
    let mut all = Vec::new();
    for entry in list.split(',') {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong(entry));
        let (first, last) = (number(first)?, number(last)?);
        let end = circuit.scope().iter().last().unwrap_or(0);
        if last > end || first > last {
            return Err(Usage(format!("--drop: {entry:?} is not a range of variables between 0 and {end}")));
        }
        all.extend(first..=last);
    }
    Ok(all.into_iter().collect())
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LeafName {
    Normal,
    Bernoulli,
    Categorical,
    Binomial,
    DiscretizedLogistic,
}

impl LeafName {
    /// The family with a number of levels, for those that have levels to choose: 256 unless given.
    pub(crate) fn family(self, levels: Option<usize>) -> Family {
        let levels = levels.unwrap_or(256);
        match self {
            LeafName::Normal => Family::normal(),
            LeafName::Bernoulli => Family::bernoulli(),
            LeafName::Categorical => Family::categorical(levels),
            LeafName::Binomial => Family::binomial(levels.saturating_sub(1)),
            LeafName::DiscretizedLogistic => Family::discretized_logistic(levels),
        }
    }
}

/// Arguments of `import-spflow`.
#[derive(Args)]
pub(crate) struct ImportSpflow {
    /// The state_dict.
    state: PathBuf,
    /// Its leaf family: Normal is loc and log_scale, Bernoulli and binomial are _logits with 3 axes, categorical is _logits with 4.
    /// Families of SPFlow with the same tensors cannot be told apart, such as Laplace and LogNormal from Normal: that it is the
    /// family given is for you to know.
    #[arg(long, value_enum)]
    leaf: LeafName,
    /// Rows of pixels; SPFlow's images are square, so that it need not be said.
    #[arg(long)]
    height: Option<usize>,
    /// Columns of pixels, as many.
    #[arg(long)]
    width: Option<usize>,
    /// Side of the product patches.
    #[arg(long, default_value_t = 2)]
    kernel_size: usize,
    /// Binomial without _total_count: trials + 1.
    #[arg(long)]
    levels: Option<usize>,
    #[command(flatten)]
    new: NewModel,
}

impl ImportSpflow {
    pub(crate) fn run(self) -> Outcome {
        let leaf = match self.leaf {
            LeafName::Normal => LeafKind::Normal,
            LeafName::Bernoulli => LeafKind::Bernoulli,
            LeafName::Categorical => LeafKind::Categorical,
            LeafName::Binomial => LeafKind::Binomial,
            LeafName::DiscretizedLogistic => {
                let problem = "SPFlow has no discretized logistic leaves; give --leaf as the model in SPFlow has it";
                return Err(Usage(problem.into()).into());
            }
        };
        self.new.check([&self.state])?;
        let Self { height, width, kernel_size, levels, .. } = self;
        let imported = spflow::import(&self.state, &Import { leaf, height, width, kernel_size, levels })?;
        self.new.save(&imported.circuit)?;
        for note in imported.notes {
            writeln!(stdout(), "note: {note}")?;
        }
        Ok(())
    }
}

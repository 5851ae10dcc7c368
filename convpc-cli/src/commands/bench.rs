use std::io::{Write, stdout};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use convpc::{
    Backend, BackendChoice, ConvPc, Error, Precision,
    bench::{Case, Query},
};

use super::edit::LeafName;
use crate::{
    Outcome, Shared,
    failure::note,
    memory::PeakMemory,
    report::{Line, Machine},
};

/// Arguments of `bench`.
#[derive(Args)]
pub(crate) struct Bench {
    /// Circuits of known names, which other programs are measured on too [default: mnist64]
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(Case::NAMES))]
    circuit: Vec<String>,
    /// Images in a batch.
    #[arg(long, default_value = "256", value_parser = at_least_one)]
    batch: usize,
    /// Operations to measure; all unless given.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(Query::ALL.map(Query::name)).try_map(|name| name.parse::<Query>()))]
    ops: Vec<Query>,
    /// Repetitions to take the median of; fewer where they take long.
    #[arg(long, default_value = "5", value_parser = at_least_one)]
    runs: usize,
    /// Prints how the backend cpu cuts the work on the circuits, and measures nothing.
    #[arg(long, conflicts_with = "json")]
    plan: bool,
    /// One JSON object a line in the place of the table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    own: Option<Own>,
}

/// A circuit of the user's.
#[derive(Args)]
#[group(id = "own", multiple = true, conflicts_with = "circuit")]
#[command(next_help_heading = "In the place of --circuit")]
struct Own {
    /// Height and width, and the variables a pixel if not 1: 28x28, 32x32x3 [default: 28x28]
    #[arg(long, value_name = "HxW[xC]", value_parser = image)]
    image: Option<Image>,
    /// Channels of the sums and the leaves [default: 64]
    #[arg(long)]
    channels: Option<usize>,
    /// Levels; chosen for the image unless given.
    #[arg(long)]
    depth: Option<usize>,
    /// Side of the product patches [default: 2]
    #[arg(long)]
    kernel_size: Option<usize>,
    /// Share weights between patches.
    #[arg(long, visible_alias = "use-sum-conv")]
    sum_conv: bool,
    /// Give all pixels the same leaf distributions.
    #[arg(long)]
    shared_leaves: bool,
    /// Independent copies [default: 1]
    #[arg(long)]
    repetitions: Option<usize>,
    /// Leaf family [default: normal]
    #[arg(long, value_enum)]
    leaf: Option<LeafName>,
    /// Number of values: K for categorical, n + 1 for binomial, grey values for discretized-logistic [default: 256]
    #[arg(long)]
    levels: Option<usize>,
}

#[derive(Clone, Copy)]
struct Image {
    height: usize,
    width: usize,
    colors: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number, at least 1".to_owned())
}

fn image(text: &str) -> Result<Image, String> {
    let numbers: Option<Vec<usize>> = text.split('x').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[height, width]) => Ok(Image { height, width, colors: 1 }),
        Some(&[height, width, colors]) => Ok(Image { height, width, colors }),
        _ => Err("expected height and width, like 28x28, and a number of colors where there are several, like 32x32x3"
            .into()),
    }
}

impl Own {
    /// The circuit under a name that says what it is.
    fn case(&self, batch: usize) -> Case {
        let Image { height, width, colors } = self.image.unwrap_or(Image { height: 28, width: 28, colors: 1 });
        let leaf = self.leaf.unwrap_or(LeafName::Normal);
        let (channels, repetitions) = (self.channels.unwrap_or(64), self.repetitions.unwrap_or(1));
        let kernel_size = self.kernel_size.unwrap_or(2);
        let mut shape = ConvPc::new(height, width, colors, leaf.family(self.levels))
            .channels(channels)
            .kernel_size(kernel_size)
            .repetitions(repetitions)
            .use_sum_conv(self.sum_conv)
            .shared_leaves(self.shared_leaves);
        if let Some(depth) = self.depth {
            shape = shape.depth(depth);
        }
        let sums = if self.sum_conv { "sumconv" } else { "sum" };
        let mut name = format!("{height}x{width}x{colors}/{sums}/{channels}ch/depth{}", shape.chosen_depth());
        if kernel_size != 2 {
            name += &format!("/kernel{kernel_size}");
        }
        if repetitions != 1 {
            name += &format!("/{repetitions}reps");
        }
        let shared = if self.shared_leaves { "/shared" } else { "" };
        Case::new(format!("{name}/{}{shared}", leaf.family(self.levels).name()), shape, batch)
    }
}

impl Bench {
    pub(crate) fn run(self, shared: &Shared) -> Outcome {
        let cases = self.cases()?;
        if self.plan {
            return print_plans(&cases, shared);
        }
        let ops = if self.ops.is_empty() { Query::ALL.to_vec() } else { self.ops };
        let mut out = stdout();
        let (backend, machine) = open(shared)?;
        if self.json {
            note(&machine);
        } else {
            writeln!(out, "{machine}")?;
        }
        let mut measured_any = false;
        for case in &cases {
            let circuit = case.circuit()?;
            if !self.json {
                writeln!(out, "\n{}: {} parameters, batch {}", case.name, circuit.parameter_count(), case.batch)?;
                writeln!(out, "{}", Line::HEAD)?;
            }
            for &query in &ops {
                if shared.backend == BackendChoice::Cpu && shared.precision != Precision::F32 && !query.is_score() {
                    note(format_args!(
                        "{} {query} is left out: backend cpu: only scores are computed in {}",
                        case.name, shared.precision
                    ));
                    continue;
                }
                let memory = PeakMemory::watch();
                // Loaded for each operation, so that none holds what another needed.
                let measure = || query.measure(&mut *backend.load(&circuit)?, &circuit, case.batch, self.runs);
                let measured = match measure() {
                    Ok(measured) => measured,
                    Err(error @ Error::Backend { .. }) => {
                        note(format_args!("{} {query} is left out: {error}", case.name));
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                measured_any = true;
                let data = (case.batch * circuit.variables() * size_of::<f32>()) as u64;
                let memory = memory.bytes().map(|bytes| bytes.saturating_sub(data));
                let line = Line { machine: &machine, case, query, measured, memory };
                if self.json {
                    writeln!(out, "{}", line.json())?;
                } else {
                    writeln!(out, "{line}")?;
                }
            }
        }
        if !measured_any {
            return Err(
                "nothing was measured, for the reasons above; choose other operations, or another backend".into()
            );
        }
        if !self.json {
            writeln!(out, "\n{}", Line::NOTES)?;
        }
        Ok(())
    }

    /// The circuits, all of them legal: known before a second is spent on the machine.
    fn cases(&self) -> convpc::Result<Vec<Case>> {
        let cases = match (&self.own, &self.circuit[..]) {
            (Some(own), _) => vec![own.case(self.batch)],
            (None, []) => vec![Case::named("mnist64")?],
            (None, names) => names.iter().map(|name| Case::named(name)).collect::<Result<_, _>>()?,
        };
        cases.iter().try_for_each(|case| case.shape.structure().map(drop))?;
        Ok(cases.into_iter().map(|case| Case { batch: self.batch, ..case }).collect())
    }
}

/// How the work on each circuit is cut.
#[cfg(feature = "cpu")]
fn print_plans(cases: &[Case], shared: &Shared) -> Outcome {
    if shared.backend != BackendChoice::Cpu {
        return Err("--plan speaks of the backend cpu; leave --backend out".into());
    }
    let cpu = convpc::Cpu::new(shared.threads())?;
    for case in cases {
        writeln!(stdout(), "{}\n{}\n", case.name, cpu.plan(case.circuit()?.structure()))?;
    }
    Ok(())
}

/// How the work on each circuit is cut.
#[cfg(not(feature = "cpu"))]
fn print_plans(_: &[Case], _: &Shared) -> Outcome {
    Err("--plan speaks of the backend cpu, which this build lacks".into())
}

/// The backend, and what is known of the machine under it.
fn open(shared: &Shared) -> convpc::Result<(Box<dyn Backend>, Machine)> {
    let backend = shared.backend()?;
    let threads = match &shared.backend {
        BackendChoice::Cuda { devices } => devices.len(),
        BackendChoice::Reference | BackendChoice::Cpu => 1,
    };
    let description = format!("{}: {}", backend.name(), backend.description());
    let machine = Machine::new(description, shared.backend.clone(), shared.precision, threads);
    #[cfg(feature = "cpu")]
    if shared.backend == BackendChoice::Cpu {
        let cpu = convpc::Cpu::new(shared.threads())?.with_precision(shared.precision)?;
        let machine = Machine { threads: cpu.threads(), ceilings: Some(cpu.ceilings()), ..machine };
        return Ok((Box::new(cpu), machine));
    }
    Ok((backend, machine))
}

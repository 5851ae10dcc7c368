use std::path::Path;

use clap::{Args, ValueEnum};
use convpc::{Adam, Blend, Curve, MiniBatchEm, Rule, Schedule, em, train::Options};

use crate::failure::Usage;

/// The names of the update rules.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Algorithm {
    Em,
    MinibatchEm,
    Adam,
}

/// The names of the schedules.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum CurveName {
    Constant,
    Linear,
    Cosine,
}

/// The names of the blends.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum BlendName {
    TopDown,
    Parameters,
}

/// The flags that say how a circuit is learned. None has a default that clap knows of, so that what was typed can be told
/// from what was not.
#[derive(Args)]
#[command(next_help_heading = "Learning")]
pub(crate) struct RunFlags {
    /// Update rule: full-batch EM with a step an epoch, mini-batch EM or Adam with a step a batch [default: em]
    #[arg(long, value_enum)]
    algorithm: Option<Algorithm>,
    /// Times that all images are seen [default: 20]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// The most images of a batch; for em it changes the speed, not the result [default: 512]
    #[arg(long)]
    batch_size: Option<usize>,
    /// Dirichlet pseudocount of EM, relative to the counts of all images [default: 0.01]
    #[arg(long)]
    pseudocount: Option<f64>,
    /// First step size [default: 0.4 for minibatch-em, 0.1 for adam]
    #[arg(long, value_name = "SIZE")]
    step: Option<f64>,
    /// Last step size [default: a twentieth of the first for minibatch-em, a tenth for adam]
    #[arg(long, value_name = "SIZE")]
    end_step: Option<f64>,
    /// The way from the first step size to the last [default: linear for minibatch-em, cosine for adam]
    #[arg(long, value_enum)]
    schedule: Option<CurveName>,
    /// Share of the training in which the step size grows from 0 [default: 0]
    #[arg(long, value_name = "SHARE")]
    warm_up: Option<f64>,
    /// Share of the training in which repetitions learn to part, after they have all learned from all images [default: 0.2; 0 for em]
    #[arg(long, value_name = "SHARE")]
    annealing: Option<f64>,
    /// minibatch-em: how much of earlier counts stays [default: 0]
    #[arg(long)]
    momentum: Option<f64>,
    /// minibatch-em: blend counts with those that the model expects, so that a node's step adapts to its use, or new
    /// parameters with old ones [default: top-down]
    #[arg(long, value_enum)]
    blend: Option<BlendName>,
    /// adam: how strongly distributions are drawn to even ones [default: 0]
    #[arg(long)]
    weight_decay: Option<f64>,
    /// adam: the largest norm of a gradient [default: none]
    #[arg(long, value_name = "NORM")]
    clip: Option<f64>,
    /// adam: how much of the running mean gradient stays [default: 0.9]
    #[arg(long)]
    beta1: Option<f64>,
    /// adam: how much of the running mean square stays [default: 0.999]
    #[arg(long)]
    beta2: Option<f64>,
    /// Share of the images that is held out, in the place of --valid.
    #[arg(long, value_name = "SHARE")]
    valid_fraction: Option<f64>,
    /// Epochs without a better held-out score after which it is enough.
    #[arg(long, value_name = "EPOCHS")]
    patience: Option<usize>,
    /// Full-batch EM steps at the end [default: 0]
    #[arg(long, value_name = "STEPS")]
    final_em_steps: Option<usize>,
    /// Batches between two checkpoints inside an epoch; there is always one after it.
    #[arg(long, value_name = "BATCHES")]
    checkpoint_batches: Option<usize>,
    /// Epochs from one scoring of the held-out images and checkpoint to the next [default: 1]
    #[arg(long, value_name = "EPOCHS")]
    evaluate_every: Option<usize>,
}

impl RunFlags {
    /// An error where flags need held-out images that are not there, or ask for them twice.
    pub(crate) fn check_held_out(&self, has_valid: bool) -> Result<(), Usage> {
        match (self.patience, self.valid_fraction) {
            (Some(_), None) if !has_valid => {
                Err(Usage("--patience needs held-out images; give --valid or --valid-fraction".into()))
            }
            (_, Some(_)) if has_valid => {
                Err(Usage("--valid and --valid-fraction are two ways to hold images out; leave one out".into()))
            }
            _ => Ok(()),
        }
    }

    /// What the flags ask for.
    pub(crate) fn options(&self, seed: u64) -> Result<Options, Usage> {
        let algorithm = self.algorithm.unwrap_or(Algorithm::Em);
        self.check_rule(algorithm)?;
        let pseudocount = self.pseudocount.unwrap_or(0.01);
        let rule = match algorithm {
            Algorithm::Em => Rule::Em(em::Options { pseudocount, ..Default::default() }),
            Algorithm::MinibatchEm => {
                let blend = match self.blend {
                    None | Some(BlendName::TopDown) => Blend::TopDown,
                    Some(BlendName::Parameters) => Blend::Parameters,
                };
                let momentum = self.momentum.unwrap_or(0.0);
                Rule::MiniBatchEm(MiniBatchEm { blend, momentum, pseudocount, ..Default::default() })
            }
            Algorithm::Adam => {
                let default = Adam::default();
                Rule::Adam(Adam {
                    beta1: self.beta1.unwrap_or(default.beta1),
                    beta2: self.beta2.unwrap_or(default.beta2),
                    weight_decay: self.weight_decay.unwrap_or(default.weight_decay),
                    clip: self.clip,
                    ..default
                })
            }
        };
        let default = Options::new(rule);
        let from = self.step.unwrap_or(default.step.from);
        let curve = match self.schedule {
            None => default.step.curve,
            Some(CurveName::Constant) => Curve::Constant,
            Some(CurveName::Linear) => Curve::Linear,
            Some(CurveName::Cosine) => Curve::Cosine,
        };
        let fall = default.step.from / default.step.to;
        let to = self.end_step.unwrap_or(if curve == Curve::Constant { from } else { from / fall });
        Ok(Options {
            step: Schedule { from, to, curve, warm_up: self.warm_up.unwrap_or(0.0) },
            annealing: self.annealing.unwrap_or(default.annealing),
            epochs: self.epochs.map_or(default.epochs, |epochs| epochs as usize),
            batch_size: self.batch_size.unwrap_or(default.batch_size),
            valid_fraction: self.valid_fraction,
            patience: self.patience,
            final_em_steps: self.final_em_steps.unwrap_or(0),
            final_em: em::Options { pseudocount, ..default.final_em },
            seed,
            checkpoint_batches: self.checkpoint_batches,
            evaluate_every: self.evaluate_every.unwrap_or(default.evaluate_every),
            ..default
        })
    }

    /// An error where a flag was given that the rule does not have.
    fn check_rule(&self, algorithm: Algorithm) -> Result<(), Usage> {
        use Algorithm::{Adam, MinibatchEm};
        let flags: [(_, _, &[Algorithm]); _] = [
            ("--step", self.step.is_some(), &[MinibatchEm, Adam]),
            ("--end-step", self.end_step.is_some(), &[MinibatchEm, Adam]),
            ("--schedule", self.schedule.is_some(), &[MinibatchEm, Adam]),
            ("--warm-up", self.warm_up.is_some(), &[MinibatchEm, Adam]),
            ("--checkpoint-batches", self.checkpoint_batches.is_some(), &[MinibatchEm, Adam]),
            ("--momentum", self.momentum.is_some(), &[MinibatchEm]),
            ("--blend", self.blend.is_some(), &[MinibatchEm]),
            ("--weight-decay", self.weight_decay.is_some(), &[Adam]),
            ("--clip", self.clip.is_some(), &[Adam]),
            ("--beta1", self.beta1.is_some(), &[Adam]),
            ("--beta2", self.beta2.is_some(), &[Adam]),
        ];
        let wrong: Vec<&str> =
            flags.iter().filter(|(_, given, of)| *given && !of.contains(&algorithm)).map(|(flag, ..)| *flag).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let (algorithm, wrong) = (name(&algorithm), wrong.join(", "));
        Err(Usage(format!("--algorithm {algorithm} has no {wrong}; leave that out, or choose another --algorithm")))
    }

    /// An error where a flag was given that the run in a checkpoint does not agree with.
    pub(crate) fn check(&self, seed: Option<u64>, run: &Options, path: &Path) -> Result<(), String> {
        let algorithm = match run.rule {
            Rule::Em(_) => Algorithm::Em,
            Rule::MiniBatchEm(_) => Algorithm::MinibatchEm,
            Rule::Adam(_) => Algorithm::Adam,
        };
        let (mini_batch, adam) = match run.rule {
            Rule::Em(_) => (None, None),
            Rule::MiniBatchEm(rule) => (Some(rule), None),
            Rule::Adam(rule) => (None, Some(rule)),
        };
        let curve = match run.step.curve {
            Curve::Constant => CurveName::Constant,
            Curve::Linear => CurveName::Linear,
            Curve::Cosine => CurveName::Cosine,
        };
        let blend = mini_batch.map(|rule| match rule.blend {
            Blend::TopDown => BlendName::TopDown,
            Blend::Parameters => BlendName::Parameters,
        });
        // EM has a schedule that it does not read.
        let step = Some(run.step).filter(|_| !run.rule.is_full_batch());
        let flags = [
            ("--algorithm", text(self.algorithm.map(|a| name(&a))), text(Some(name(&algorithm)))),
            ("--epochs", text(self.epochs), text(Some(run.epochs))),
            ("--batch-size", text(self.batch_size), text(Some(run.batch_size))),
            ("--pseudocount", text(self.pseudocount), text(Some(run.final_em.pseudocount))),
            ("--step", text(self.step), text(step.map(|step| step.from))),
            ("--end-step", text(self.end_step), text(step.map(|step| step.to))),
            ("--schedule", text(self.schedule.map(|s| name(&s))), text(step.map(|_| name(&curve)))),
            ("--warm-up", text(self.warm_up), text(step.map(|step| step.warm_up))),
            ("--annealing", text(self.annealing), text(Some(run.annealing))),
            ("--momentum", text(self.momentum), text(mini_batch.map(|rule| rule.momentum))),
            ("--blend", text(self.blend.map(|b| name(&b))), text(blend.map(|b| name(&b)))),
            ("--weight-decay", text(self.weight_decay), text(adam.map(|rule| rule.weight_decay))),
            ("--clip", text(self.clip), text(adam.and_then(|rule| rule.clip))),
            ("--beta1", text(self.beta1), text(adam.map(|rule| rule.beta1))),
            ("--beta2", text(self.beta2), text(adam.map(|rule| rule.beta2))),
            ("--valid-fraction", text(self.valid_fraction), text(run.valid_fraction)),
            ("--patience", text(self.patience), text(run.patience)),
            ("--final-em-steps", text(self.final_em_steps), text(Some(run.final_em_steps))),
            ("--checkpoint-batches", text(self.checkpoint_batches), text(run.checkpoint_batches)),
            ("--evaluate-every", text(self.evaluate_every), text(Some(run.evaluate_every))),
            ("--seed", text(seed), text(Some(run.seed))),
        ];
        let disagree = |(flag, given, has): (&str, Option<String>, Option<String>)| {
            let given = given.filter(|given| Some(given) != has.as_ref())?;
            Some(format!("{flag} {given} (the run has {})", has.unwrap_or_else(|| "none".into())))
        };
        let conflicts: Vec<String> = flags.into_iter().filter_map(disagree).collect();
        if conflicts.is_empty() {
            return Ok(());
        }
        let (path, conflicts) = (path.display(), conflicts.join(", "));
        Err(format!(
            "--resume: the unfinished run in {path} is not what the flags ask for: {conflicts}; leave these flags out to \
             go on with it, or train anew, with --force in the place of --resume"
        ))
    }
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// The name that clap gives a value.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

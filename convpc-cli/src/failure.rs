//! Prints the messages of the command and chooses its exit status.

use std::{
    error::Error,
    fmt::{self, Display},
    io::{self, Write, stderr},
    process::ExitCode,
};

use bytesize::ByteSize;
use convpc::data::DataError;

/// A command line that cannot be meant: exit status 2, as where clap refuses it.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}

/// The end of a command that a signal asked for: exit status 128 + signal, as shells have it.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) signal: u8,
    pub(crate) message: String,
}

impl Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Stopped {}

/// The signal that ends other commands whose reader has gone.
const SIGPIPE: u8 = 13;

/// Says on stderr why a command ends, and returns the exit status.
pub(crate) fn report(error: Box<dyn Error>) -> ExitCode {
    if is_closed_pipe(&*error) {
        return ExitCode::from(128 + SIGPIPE);
    }
    let error = match error.downcast::<convpc::Error>() {
        Ok(error) => in_words_of_the_command(*error),
        Err(error) => error,
    };
    let error = match error.downcast::<DataError>() {
        Ok(error) => data_in_words_of_the_command(*error),
        Err(error) => error,
    };
    if let Some(Stopped { signal, message }) = error.downcast_ref() {
        note(message);
        return ExitCode::from(128 + signal);
    }
    // Every file has an error that names it; what is left is standard output.
    let place = if error.is::<io::Error>() { "standard output cannot be written: " } else { "" };
    note(format_args!("error: {place}{error}"));
    if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Prints what clap says in place of arguments, and returns the exit status.
pub(crate) fn report_parsing(message: &clap::Error) -> ExitCode {
    match message.print() {
        Ok(()) => ExitCode::from(if message.use_stderr() { 2 } else { 0 }),
        Err(error) => report(error.into()),
    }
}

/// Writes a line to stderr. Where nobody reads it, nobody misses it.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// Returns true if the error is a closed pipe: the reader of the output has gone.
fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    let is_one = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref().is_some_and(is_one) || error.source().is_some_and(is_closed_pipe)
}

/// Rewords an error of the library about an argument as one about its flag.
fn in_words_of_the_command(error: convpc::Error) -> Box<dyn Error> {
    use convpc::Error::{Argument, NoClasses, UnknownClass, Zero};
    match &error {
        Zero { what } => match flag(what) {
            Some(flag) => Usage(format!("{flag} is 0; it must be at least 1")).into(),
            None => error.into(),
        },
        Argument { what, given, expected } => match flag(what) {
            Some(flag) => Usage(format!("{flag} is {given}; expected {expected}")).into(),
            None => error.into(),
        },
        UnknownClass { .. } => Usage(format!("--class: {error}")).into(),
        NoClasses => "the model has no classes; `convpc train` makes one that has, with --labels or --classes".into(),
        _ => error.into(),
    }
}

/// Rewords an error about a data file, if an option of the library mends it, as one about the flag of this option.
fn data_in_words_of_the_command(error: DataError) -> Box<dyn Error> {
    match error {
        DataError::OverLimit { path, shape, needed, limit } => {
            let sizes = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            let (path, needed, limit) = (path.display(), ByteSize(needed).display().si(), ByteSize(limit).display().si());
            format!(
                "the array of shape {sizes} in '{path}' needs {needed} of memory, more than the limit of {limit}; split it into smaller files, or raise \
                 the limit with --memory"
            )
            .into()
        }
        DataError::NotAFile { path } => {
            format!("'{}' is neither a file nor a folder; save its contents to a file, or send images through a pipe with --data -", path.display())
                .into()
        }
        other => other.into(),
    }
}

/// The flag that an argument of the library is set by.
fn flag(what: &str) -> Option<&'static str> {
    Some(match what {
        "annealing" | "the annealing" => "--annealing",
        "batch_size" => "--batch-size",
        "beta1" => "--beta1",
        "beta2" => "--beta2",
        "channels" => "--channels",
        "channels of the sums on leaves" => "--leaf-sums",
        "checkpoint_batches" => "--checkpoint-batches",
        "clip" => "--clip",
        "colors" => "--colors",
        "concentration" => "--concentration",
        "depth" => "--depth",
        "epochs" => "--epochs",
        "evaluate_every" => "--evaluate-every",
        "final_em_steps" => "--final-em-steps",
        "height" => "--height",
        "kernel_size" | "product kernel height" | "product kernel width" => "--kernel-size",
        "leaf channels" => "--leaf-channels",
        "momentum" => "--momentum",
        "num_classes" => "--classes",
        "patience" => "--patience",
        "pseudocount" => "--pseudocount",
        "repetitions" => "--repetitions",
        "the factor to grow by" => "--factor",
        "the family of leaves that begin as histograms" => "--leaf-init",
        "the least weight" => "--below",
        "the number of categories of a categorical leaf" | "the number of trials of a binomial leaf" => "--levels",
        "the shift of a repetition" => "--shifts",
        "the side of a patch" => "--leaf-patch",
        "the step size of Adam" | "the step size of mini-batch EM" => "--step",
        "the width of windows" => "--leaf-window",
        "valid_fraction" => "--valid-fraction",
        "weight_decay" => "--weight-decay",
        "width" => "--width",
        _ => return None,
    })
}

//! A folder that the command runs in.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use ndarray::{ArrayD, IxDyn};
use tempfile::TempDir;

/// Each file of tests begins with data of its own.
pub(crate) struct Bench(pub(crate) TempDir);

impl Bench {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes an array of this shape whose values are made from their positions.
    #[allow(dead_code, reason = "not all files of tests write arrays")]
    pub(crate) fn array(&self, name: &str, sizes: &[usize], value: impl Fn(usize) -> f32) {
        let count = sizes.iter().product();
        let array = ArrayD::from_shape_vec(IxDyn(sizes), (0..count).map(value).collect()).unwrap();
        convpc::data::write_npy_f32(&self.path(name), array.view()).unwrap();
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convpc"));
        command.current_dir(self.0.path()).args(arguments.split_whitespace());
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a run that must succeed prints.
    pub(crate) fn prints(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments}: {errors}");
        assert_eq!(errors, "", "{arguments}: no progress bar where no terminal is");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Begins a training run that ends after its first batch, because it cannot print what it read, and leaves a checkpoint. Where all
    /// images are one batch, it ends after its first epoch.
    #[allow(dead_code, reason = "not all files of tests train")]
    pub(crate) fn interrupt(&self, arguments: &str) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(self.command(arguments).stdout(writer).status().unwrap().code(), Some(141), "{arguments}");
    }

    /// The message of a run that must fail with this exit status, and print nothing else.
    #[allow(dead_code, reason = "not all files of tests look for errors")]
    pub(crate) fn fails(&self, status: i32, arguments: &str) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments}");
        assert!(output.stdout.is_empty(), "{arguments}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.starts_with("error: "), "{message}");
        message
    }
}

/// The number behind a label in a text.
#[allow(dead_code, reason = "not all files of tests look for numbers")]
pub(crate) fn number(text: &str, label: &str) -> f64 {
    let rest = text.split_once(label).unwrap_or_else(|| panic!("no {label:?} in {text}")).1;
    rest.split([' ', ',', '\n']).find(|word| !word.is_empty()).unwrap().parse().unwrap()
}

//! The files of a command, checked before it begins to work.

use std::{
    fs,
    path::{Path, PathBuf},
};

use convpc::{atomic, data};
use same_file::Handle;

use crate::{Outcome, failure::Usage, output::is_standard};

/// The files that a command reads, and those that it writes, each with the flag or the words that name it.
#[derive(Default)]
pub(crate) struct Files {
    inputs: Vec<(&'static str, PathBuf)>,
    outputs: Vec<(&'static str, PathBuf)>,
}

/// Identifies a file under all its names.
#[derive(PartialEq)]
enum Identity {
    Present(Handle),
    /// The path of what is not there, or of a device or pipe.
    Absent(PathBuf),
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        // A handle opens the file, and opening a pipe waits for its other end.
        let can_be_opened = fs::metadata(path).is_ok_and(|found| found.is_file() || found.is_dir());
        match can_be_opened.then(|| Handle::from_path(path)) {
            Some(Ok(handle)) => Some(Identity::Present(handle)),
            _ => atomic::resolve(path).ok().map(Identity::Absent),
        }
    }
}

impl Files {
    /// Adds a file or a folder that is read, unless it is standard input.
    pub(crate) fn input(mut self, name: &'static str, path: &Path) -> Self {
        if !is_standard(path) {
            self.inputs.push((name, path.to_path_buf()));
        }
        self
    }

    /// Adds those that are given.
    pub(crate) fn inputs<'a>(self, name: &'static str, paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        paths.into_iter().fold(self, |files, path| files.input(name, path))
    }

    /// Adds a file that is written.
    pub(crate) fn output(mut self, name: &'static str, path: &Path) -> Self {
        self.outputs.push((name, path.to_path_buf()));
        self
    }

    /// Adds a file that is written, unless it is standard output.
    pub(crate) fn stream(self, name: &'static str, path: &Path) -> Self {
        if is_standard(path) { self } else { self.output(name, path) }
    }

    /// Adds those that are given.
    pub(crate) fn outputs<'a>(self, name: &'static str, paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        paths.into_iter().fold(self, |files, path| files.output(name, path))
    }

    /// An error where an output is an input or another output, or cannot be written.
    pub(crate) fn check(&self) -> Outcome {
        for (at, (name, path)) in self.outputs.iter().enumerate() {
            if is_standard(path) {
                return Err(
                    Usage(format!("{name} - is standard output, where this cannot be written; name a file")).into()
                );
            }
            // Nothing is lost in what cannot be replaced: a device, a pipe.
            if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
                continue;
            }
            atomic::check(path).map_err(|e| {
                format!("{name} {} cannot be written: {e}; choose a folder that exists and is writable", path.display())
            })?;
            let identity = Identity::of(path);
            let mut others = self.inputs.iter().chain(&self.outputs[..at]);
            if let Some((other_name, other)) = others.find(|(_, other)| Identity::of(other) == identity) {
                let (path, other) = (path.display(), other.display());
                let problem =
                    format!("{name} {path} and {other_name} {other} are the same file; give {name} another name");
                return Err(Usage(problem).into());
            }
            self.check_folders(name, path)?;
        }
        Ok(())
    }

    /// An error where a picture would become one of the images in a folder that is read.
    fn check_folders(&self, name: &str, path: &Path) -> Outcome {
        if !ends_in(path, &["png"]) {
            return Ok(());
        }
        let Ok(path) = atomic::resolve(path) else { return Ok(()) };
        let is = |folder: Option<&Path>, other: &Path| {
            let [folder, other] = [folder, Some(other)].map(|path| path.and_then(|path| Handle::from_path(path).ok()));
            folder.is_some() && folder == other
        };
        let folder = path.parent();
        for (other_name, other) in &self.inputs {
            let has_classes = || data::class_names(other).is_ok_and(|names| !names.is_empty());
            let becomes_image = is(folder, other) || is(folder.and_then(Path::parent), other) && has_classes();
            if other.is_dir() && becomes_image {
                let (path, other) = (path.display(), other.display());
                let problem = format!(
                    "{name} {path} would be one of the images of {other_name} {other}; write it to another folder"
                );
                return Err(Usage(problem).into());
            }
        }
        Ok(())
    }
}

/// An error where a file is there that a new model would replace.
pub(crate) fn check_new(path: &Path, force: bool, otherwise: &str) -> Outcome {
    if force || !fs::metadata(path).is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    Err(format!("{} is there already; give {otherwise}--force to replace it, or another name", path.display()).into())
}

/// Returns true if a file name has one of these endings, in upper or lower case.
pub(crate) fn ends_in(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    endings.iter().any(|expected| ending.eq_ignore_ascii_case(expected))
}

/// An error where a name has none of these endings: they say what is written.
pub(crate) fn check_ending(name: &str, path: &Path, endings: &[&str]) -> Result<(), Usage> {
    if ends_in(path, endings) {
        return Ok(());
    }
    let endings = endings.iter().map(|ending| format!(".{ending}")).collect::<Vec<_>>();
    let expected = match endings.as_slice() {
        [one] => format!("does not end in {one}"),
        several => format!("ends in neither {}", several.join(" nor ")),
    };
    Err(Usage(format!("{name} {} {expected}; change the ending", path.display())))
}

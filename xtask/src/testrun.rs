//! Test executables: built once, run as often as needed, stopped at the first failure or when time is up.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::cargo;

/// A test executable and the folder that its tests expect to run in.
pub(crate) struct TestBinary {
    executable: PathBuf,
    folder: PathBuf,
}

/// How a run ended.
pub(crate) enum Outcome {
    /// All passed.
    Passed {
        /// How many.
        tests: usize,
    },
    /// Something failed.
    Failed {
        /// The first failing test, or what else happened.
        what: String,
    },
}

impl TestBinary {
    /// Builds the test that these arguments of `cargo test` choose.
    pub(crate) fn build(arguments: &[&str]) -> Result<Self> {
        let artifacts = artifacts(cargo().args(["test", "--no-run"]).args(arguments))?;
        match artifacts.as_slice() {
            [one] => Ok(Self { executable: one.executable.clone(), folder: one.folder.clone() }),
            found => bail!("{} test executables, not one, from cargo test {}", found.len(), arguments.join(" ")),
        }
    }

    /// Runs the tests with a variable set to a folder, until the first that fails.
    pub(crate) fn run(&self, variable: &str, folder: &Path, limit: Duration) -> Result<Outcome> {
        let mut child = Command::new(&self.executable)
            .current_dir(&self.folder)
            .env(variable, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} could not be started", self.executable.display()))?;
        let outcome = watch(&mut child, limit);
        // Harmless where it has ended already.
        let _ = child.kill();
        let status = child.wait().context("the tests could not be waited for")?;
        Ok(outcome.unwrap_or_else(|passed| ended(status, passed)))
    }
}

/// Reads what the tests print: how they failed, or, at the end of the output, how many passed.
fn watch(child: &mut Child, limit: Duration) -> Result<Outcome, usize> {
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in output.lines().map_while(|line| line.ok()) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let end = Instant::now() + limit;
    let mut passed = 0;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(test) = failed_test(&line) {
                    return Ok(Outcome::Failed { what: test.to_owned() });
                }
                passed += usize::from(line.starts_with("test ") && line.ends_with("... ok"));
            }
            Err(RecvTimeoutError::Timeout) => {
                return Ok(Outcome::Failed { what: format!("the time limit of {} s", limit.as_secs()) });
            }
            Err(RecvTimeoutError::Disconnected) => return Err(passed),
        }
    }
}

fn ended(status: ExitStatus, passed: usize) -> Outcome {
    if status.success() {
        Outcome::Passed { tests: passed }
    } else {
        Outcome::Failed { what: format!("the end of the test program ({status})") }
    }
}

/// The test that a line of libtest's output says has failed.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// An executable that cargo built.
pub(crate) struct Artifact {
    /// The target's name: of the test, the benchmark, the example, the program.
    pub(crate) name: String,
    /// `test`, `bench`, `example`, `bin` or `lib` (its unit tests).
    pub(crate) kind: String,
    /// Where it lies.
    pub(crate) executable: PathBuf,
    /// The folder of its package.
    pub(crate) folder: PathBuf,
}

/// Runs cargo and returns the executables that it built or found up to date.
pub(crate) fn artifacts(cargo: &mut Command) -> Result<Vec<Artifact>> {
    let output = cargo
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("cargo failed ({})", output.status);
    }
    let text = String::from_utf8(output.stdout).context("cargo printed a text that is not UTF-8")?;
    let mut artifacts = Vec::new();
    for line in text.lines() {
        let message: Value = serde_json::from_str(line).with_context(|| format!("not a message of cargo: {line}"))?;
        let (Some(executable), Some(manifest)) = (message["executable"].as_str(), message["manifest_path"].as_str())
        else {
            continue;
        };
        artifacts.push(Artifact {
            name: message["target"]["name"].as_str().unwrap_or_default().to_owned(),
            kind: message["target"]["kind"][0].as_str().unwrap_or_default().to_owned(),
            executable: executable.into(),
            folder: Path::new(manifest).parent().unwrap_or(Path::new(".")).to_path_buf(),
        });
    }
    Ok(artifacts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_libtest() {
        assert_eq!(failed_test("test cuda::golden::normal_8x8 ... FAILED"), Some("cuda::golden::normal_8x8"));
        assert_eq!(failed_test("test cuda::golden::normal_8x8 ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 3 passed; 1 failed"), None);
    }
}

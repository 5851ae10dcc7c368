//! `cargo xtask mutants`: breaks the kernels one way at a time and asks whether the conformance tests notice.
//!
//! The mutants are in `kernels/mutants.toml`. Each is compiled into a temporary folder; the software device of the tests
//! takes the PTX from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    ptx,
    testrun::{Outcome, TestBinary},
    tools::Tools,
    workspace::{self, files, read},
};

const LIST: &str = "kernels/mutants.toml";
/// Names the folder whose `<name>.ptx` the software device runs in place of the PTX that begins with `// convpc <name>`.
const REPLACEMENT: &str = "CONVPC_EMULATOR_PTX";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    mutant: Vec<Mutant>,
}

/// One way to break a kernel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    /// Below `kernels/`.
    file: String,
    /// Text of the file, where `nth` is missing exactly once.
    find: String,
    replace: String,
    /// Which occurrence, from 1.
    nth: Option<usize>,
    /// The file of the test suite that must notice.
    #[serde(default = "usual_test")]
    test: String,
    /// What the change breaks.
    breaks: String,
}

fn usual_test() -> String {
    "cuda".into()
}

impl Mutant {
    fn apply(&self, text: &str) -> Result<String> {
        if self.find.is_empty() || self.find == self.replace {
            bail!("`find` must hold a text that differs from `replace`");
        }
        let places: Vec<usize> = text.match_indices(&self.find).map(|(place, _)| place).collect();
        let place = match (self.nth, places.as_slice()) {
            (_, []) => bail!("`find` does not occur in kernels/{}", self.file),
            (None, [place]) => *place,
            (None, _) => bail!("`find` occurs {} times in kernels/{}: say which with `nth`", places.len(), self.file),
            (Some(nth), _) => *nth
                .checked_sub(1)
                .and_then(|index| places.get(index))
                .with_context(|| format!("nth = {nth}, but `find` occurs {} times", places.len()))?,
        };
        Ok([&text[..place], &self.replace, &text[place + self.find.len()..]].concat())
    }
}

/// The mutants, all or one, whose texts fit the kernels as they are.
fn fitting(only: Option<&str>) -> Result<Vec<Mutant>> {
    let mut mutants = toml::from_str::<List>(&read(&workspace::path(LIST))?)
        .with_context(|| format!("{LIST} could not be understood"))?
        .mutant;
    if let Some(only) = only {
        mutants.retain(|mutant| mutant.name == only);
        if mutants.is_empty() {
            bail!("{LIST} has no mutant {only}");
        }
    }
    for mutant in &mutants {
        mutated(&workspace::path("kernels"), mutant).with_context(|| format!("mutant {}", mutant.name))?;
    }
    Ok(mutants)
}

/// Sees that every mutant's text still fits the kernels.
pub(crate) fn check() -> Result<()> {
    fitting(None).map(|_| ())
}

/// Runs the mutants, all or one, or lists them.
pub(crate) fn run(only: Option<&str>, list: bool) -> Result<()> {
    let (mutants, kernels) = (fitting(only)?, workspace::path("kernels"));
    if list {
        for mutant in &mutants {
            println!("{:<32} {:<28} {}", mutant.name, mutant.file, mutant.breaks);
        }
        return Ok(());
    }

    let tools = Tools::ready()?;
    let original = tempfile::tempdir().context("no temporary folder could be made")?;
    compile_into(original.path(), &tools, &kernels, &files(&kernels, "cu")?)?;
    println!("building the tests, and running them on the unchanged kernels");
    let names: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.test.as_str()).collect();
    let tests = names.into_iter().map(|name| Ok((name, Tests::ready(name, original.path())?)));
    let tests = tests.collect::<Result<BTreeMap<_, _>>>()?;

    let mut survived = 0;
    for mutant in &mutants {
        let started = Instant::now();
        let verdict = judge(mutant, &tools, &kernels, original.path(), &tests[mutant.test.as_str()])
            .with_context(|| format!("mutant {}", mutant.name))?;
        let result = match &verdict {
            Verdict::Caught(test) => format!("caught by {test}"),
            Verdict::Same => "SURVIVED: the PTX is the same".to_owned(),
            Verdict::Survived => "SURVIVED".to_owned(),
        };
        survived += usize::from(!matches!(verdict, Verdict::Caught(_)));
        println!("{:<32} {result} ({:.0} s)", mutant.name, started.elapsed().as_secs_f64());
    }
    if survived > 0 {
        bail!("{survived} of {} mutants survived: a test is missing, or the change breaks nothing", mutants.len());
    }
    println!("{} mutants, all caught", mutants.len());
    Ok(())
}

/// A file of tests that pass on the unchanged kernels.
struct Tests {
    binary: TestBinary,
    /// Broken loops need not end.
    limit: Duration,
}

impl Tests {
    fn ready(name: &str, original: &Path) -> Result<Self> {
        let binary = TestBinary::build(&["--package", "testsuite", "--test", name])?;
        let started = Instant::now();
        match binary.run(REPLACEMENT, original, Duration::from_secs(1800))? {
            Outcome::Passed { tests: 0 } => bail!("the tests of {name} are empty: nothing can be caught"),
            Outcome::Passed { tests } => println!("{name}: {tests} passed in {:.0} s", started.elapsed().as_secs_f64()),
            Outcome::Failed { what } => bail!("the tests of {name} fail on the unchanged kernels: {what}"),
        }
        let tests = Tests { binary, limit: started.elapsed() * 10 + Duration::from_secs(30) };
        tests.must_read_replacements(original)?;
        Ok(tests)
    }

    fn run(&self, kernels: &Path) -> Result<Outcome> {
        self.binary.run(REPLACEMENT, kernels, self.limit)
    }

    /// Without kernels the tests must fail; else they run others than those that they are given, and nothing can be caught.
    fn must_read_replacements(&self, original: &Path) -> Result<()> {
        let empty = tempfile::tempdir().context("no temporary folder could be made")?;
        for path in files(original, "ptx")? {
            let first_line = format!("// convpc {}\n", workspace::stem(&path));
            workspace::write(&empty.path().join(path.file_name().unwrap_or_default()), first_line)?;
        }
        match self.run(empty.path())? {
            Outcome::Failed { .. } => Ok(()),
            Outcome::Passed { .. } => bail!("the tests pass without kernels: their device does not heed {REPLACEMENT}"),
        }
    }
}

enum Verdict {
    Caught(String),
    /// The change makes no difference to the compiler.
    Same,
    Survived,
}

fn judge(mutant: &Mutant, tools: &Tools, kernels: &Path, original: &Path, tests: &Tests) -> Result<Verdict> {
    let folder = tempfile::tempdir().context("no temporary folder could be made")?;
    let (copy, out) = (folder.path().join("kernels"), folder.path().join("ptx"));
    copy_sources(kernels, &copy)?;
    workspace::write(&copy.join(&mutant.file), mutated(kernels, mutant)?)?;
    // A changed header can change every kernel.
    let changed = copy.join(&mutant.file);
    let is_kernel = changed.extension().is_some_and(|end| end == "cu");
    let sources = if is_kernel { vec![changed] } else { files(&copy, "cu")? };
    for path in files(original, "ptx")? {
        workspace::write(&out.join(path.file_name().unwrap_or_default()), read(&path)?)?;
    }
    if !compile_into(&out, tools, &copy, &sources)? {
        return Ok(Verdict::Same);
    }
    Ok(match tests.run(&out)? {
        Outcome::Failed { what } => Verdict::Caught(what),
        Outcome::Passed { .. } => Verdict::Survived,
    })
}

fn mutated(kernels: &Path, mutant: &Mutant) -> Result<String> {
    mutant.apply(&read(&kernels.join(&mutant.file))?)
}

/// Compiles into a folder; whether any file there changed.
fn compile_into(folder: &Path, tools: &Tools, kernels: &Path, sources: &[PathBuf]) -> Result<bool> {
    let mut changed = false;
    for (name, ptx) in ptx::compile(tools, kernels, sources, &[])? {
        let path = folder.join(format!("{name}.ptx"));
        changed |= !fs::read_to_string(&path).is_ok_and(|before| before == ptx);
        workspace::write(&path, ptx)?;
    }
    Ok(changed)
}

/// Copies the kernels and the folders of their headers.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    for path in files(from, "cu")? {
        workspace::write(&to.join(path.file_name().unwrap_or_default()), read(&path)?)?;
    }
    copy_folder(&from.join("include"), &to.join("include"))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(from).with_context(|| format!("{} could not be read", workspace::shown(from)))? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            workspace::write(&target, read(&path)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(find: &str, nth: Option<usize>) -> Mutant {
        Mutant {
            name: "m".into(),
            file: "sum.cu".into(),
            find: find.into(),
            replace: "max".into(),
            nth,
            test: usual_test(),
            breaks: "".into(),
        }
    }

    #[test]
    fn the_text_is_replaced_once() {
        assert_eq!(mutant("min", None).apply("a min b").unwrap(), "a max b");
        assert_eq!(mutant("min", Some(2)).apply("min min min").unwrap(), "min max min");
    }

    #[test]
    fn doubtful_texts_are_refused() {
        for (find, nth, text) in
            [("min", None, "min min"), ("min", None, "none"), ("min", Some(0), "min"), ("min", Some(2), "min")]
        {
            assert!(mutant(find, nth).apply(text).is_err(), "{find} {nth:?} in {text}");
        }
        assert!(mutant("max", None).apply("max").is_err());
    }

    #[test]
    fn the_committed_list_is_understood() {
        let list = read(&workspace::path(LIST)).unwrap();
        let mut names: Vec<String> =
            toml::from_str::<List>(&list).unwrap().mutant.into_iter().map(|m| m.name).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "two mutants have one name");
    }
}

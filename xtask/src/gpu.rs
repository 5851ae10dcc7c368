//! `cargo xtask gpu`: the programs that a machine with an NVIDIA GPU needs to test and to measure, in one folder that runs
//! there without Rust and without a network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    testrun,
    workspace::{self, cargo, output, run, shown},
};

/// The test of `testsuite` that runs on the device.
const TEST: &str = "cuda_device";
/// The folder must fit through the narrowest door between two machines.
const LIMIT: u64 = 60 << 20;
const FILES: [(&str, &str); 3] = [
    ("run.sh", include_str!("../gpu/run.sh")),
    ("collect.py", include_str!("../gpu/collect.py")),
    ("ceilings.cu", include_str!("../gpu/ceilings.cu")),
];

/// Files from elsewhere for the pack.
#[derive(clap::Args)]
pub(crate) struct Extras {
    /// A wheel of a peer, or of what it imports, that the machine lacks; may be given again.
    #[arg(long = "wheel", value_name = "FILE")]
    wheels: Vec<PathBuf>,
}

/// Builds the pack, tests and measures with it on this machine, and keeps the results in `benches/results`.
pub(crate) fn pack_and_run(extras: &Extras) -> Result<()> {
    let smi = Command::new("nvidia-smi").arg("-L").output();
    if !smi.is_ok_and(|output| output.status.success()) && !Path::new("/dev/nvidia0").exists() {
        bail!(
            "this machine has no NVIDIA GPU: run `cargo xtask gpu pack` here, and the folder's run.sh on one that has"
        );
    }
    let folder = pack(extras)?;
    run(Command::new(folder.join("run.sh")).arg("--out").arg(workspace::path("benches/results")))
}

/// Builds the folder `target/gpu-pack`.
pub(crate) fn pack(extras: &Extras) -> Result<PathBuf> {
    let folder = workspace::target().join("gpu-pack");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("{} could not be emptied", shown(&folder)))?;
    }
    let packages = Packages::read()?;

    if packages.has_target("testsuite", "test", TEST) {
        let mut build = packages.cargo("testsuite", &["test", "--release", "--no-run", "--test", TEST]);
        for artifact in testrun::artifacts(&mut build)? {
            copy(&artifact.executable, &folder.join("tests").join(&artifact.name))?;
        }
        copy_files(&workspace::path("testsuite/golden"), "safetensors", &folder.join("golden"))?;
    } else {
        eprintln!("warning: testsuite has no test {TEST}: the pack is without conformance tests");
    }

    let mut build = packages.cargo("benches", &["build", "--release", "--benches", "--examples"]);
    for artifact in testrun::artifacts(&mut build)? {
        if artifact.kind == "bench" || artifact.kind == "example" {
            copy(&artifact.executable, &folder.join("bench").join(&artifact.name))?;
        }
    }
    let mut build = packages.cargo("convpc-cli", &["build", "--release", "--bins"]);
    for artifact in testrun::artifacts(&mut build)? {
        copy(&artifact.executable, &folder.join(&artifact.name))?;
    }

    for (name, text) in FILES {
        workspace::write(&folder.join(name), text)?;
    }
    make_executable(&folder.join("run.sh"))?;
    workspace::write(&folder.join("pack.json"), description()?)?;
    copy_files(&workspace::path("benches/peers"), "py", &folder.join("peers"))?;
    for wheel in &extras.wheels {
        copy(wheel, &folder.join("wheels").join(wheel.file_name().unwrap_or_default()))?;
    }

    let mut total = 0;
    for (path, size) in sizes(&folder)? {
        println!("{:>9.2} MiB  {}", mebibytes(size), path.strip_prefix(&folder).unwrap_or(&path).display());
        total += size;
    }
    println!("{:>9.2} MiB  {} in all", mebibytes(total), shown(&folder));
    if total > LIMIT {
        bail!("the pack is larger than {} MiB", LIMIT >> 20);
    }
    Ok(folder)
}

/// What cargo knows of the workspace's packages.
struct Packages(Value);

impl Packages {
    fn read() -> Result<Self> {
        let (text, _) = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        Ok(Self(serde_json::from_str(&text).context("cargo's metadata could not be understood")?))
    }

    fn package(&self, name: &str) -> &Value {
        let packages = self.0["packages"].as_array().map_or(&[][..], Vec::as_slice);
        packages.iter().find(|package| package["name"] == name).unwrap_or(&Value::Null)
    }

    fn has_target(&self, package: &str, kind: &str, name: &str) -> bool {
        let targets = self.package(package)["targets"].as_array().map_or(&[][..], Vec::as_slice);
        targets.iter().any(|target| target["name"] == name && target["kind"][0] == kind)
    }

    /// Cargo for executables without symbols, with the feature `cuda` where the package has it.
    fn cargo(&self, package: &str, arguments: &[&str]) -> Command {
        let mut cargo = cargo();
        cargo.args(arguments).args(["--package", package]);
        cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        if self.package(package)["features"].get("cuda").is_some() {
            cargo.args(["--features", "cuda"]);
        }
        cargo
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::copy(from, to))
        .with_context(|| format!("{} could not be copied to {}", shown(from), shown(to)))?;
    Ok(())
}

fn copy_files(from: &Path, extension: &str, to: &Path) -> Result<()> {
    for path in workspace::files(from, extension)? {
        copy(&path, &to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context("run.sh could not be made executable")
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    bail!("the pack is made on Linux, for Linux")
}

/// What the results say of the pack: the commit, and whether the tree differed from it.
fn description() -> Result<String> {
    let git = |arguments: &[&str]| output(Command::new("git").current_dir(workspace::root()).args(arguments));
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).map_or("unknown".to_owned(), |(text, _)| text.trim().into());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_ok_and(|(text, _)| !text.is_empty());
    let commit = if changed { format!("{commit} with changes") } else { commit };
    Ok(serde_json::to_string(&json!({ "commit": commit, "version": env!("CARGO_PKG_VERSION") }))?)
}

/// All files below a folder with their sizes, by name.
fn sizes(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{} could not be read", shown(folder)))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sizes.extend(self::sizes(&entry.path())?);
        } else {
            sizes.push((entry.path(), entry.metadata()?.len()));
        }
    }
    sizes.sort();
    Ok(sizes)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

//! The CUDA compiler and libclang, from the wheels of `xtask/cuda-requirements.txt`: pinned versions with pinned hashes,
//! in a Python virtual environment under `target/`, made once.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::workspace::{self, output};

const REQUIREMENTS: &str = include_str!("../cuda-requirements.txt");
const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };

/// The folder that holds the installed wheels.
pub(crate) struct Tools {
    packages: PathBuf,
}

impl Tools {
    /// The tools; installed first where they are not, or not in these versions.
    pub(crate) fn ready() -> Result<Self> {
        let folder = workspace::target().join("cuda-tools");
        fs::create_dir_all(&folder).with_context(|| format!("{} could not be made", folder.display()))?;
        // Two chores at once: the second waits until the first has installed.
        let lock = File::create(folder.join("lock")).context("the lock of target/cuda-tools could not be made")?;
        lock.lock().context("target/cuda-tools could not be locked")?;

        let environment = folder.join("venv");
        let stamp = folder.join("requirements.txt");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS)
            && let Some(packages) = packages_of(&environment)
        {
            return Ok(Self { packages });
        }
        println!("installing the wheels of xtask/cuda-requirements.txt into {}", workspace::shown(&environment));
        let _ = fs::remove_file(&stamp);
        install(&environment)?;
        let packages = packages_of(&environment).ok_or_else(|| anyhow!("the new environment has no site-packages"))?;
        workspace::write(&stamp, REQUIREMENTS)?;
        Ok(Self { packages })
    }

    /// The folder with libnvrtc and its builtins.
    pub(crate) fn nvrtc(&self) -> PathBuf {
        self.packages.join("nvidia/cuda_nvrtc/lib")
    }

    /// The assembler.
    pub(crate) fn ptxas(&self) -> PathBuf {
        self.packages.join("nvidia/cuda_nvcc/bin/ptxas")
    }

    /// The folder with libclang.
    pub(crate) fn libclang(&self) -> PathBuf {
        self.packages.join("clang/native")
    }
}

fn packages_of(environment: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(environment.join("lib")).ok()?;
    versions.flatten().map(|version| version.path().join("site-packages")).find(|packages| packages.is_dir())
}

fn install(environment: &Path) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the pinned wheels are for x86-64 Linux: compile PTX and bindings there");
    }
    output(Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(environment)).with_context(|| {
        format!("a Python environment could not be made: install {PYTHON} with its module venv (Debian: python3-venv)")
    })?;
    let requirements = workspace::path("xtask/cuda-requirements.txt");
    output(
        Command::new(environment.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
            .args(["--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement"])
            .arg(requirements),
    )
    .context("the wheels could not be installed: pip needs its package index (about 70 MB, once)")?;
    Ok(())
}

//! `cargo xtask bindings`: the parameter structs of the kernels in Rust, from the header that the kernels include.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    ptx,
    tools::Tools,
    workspace::{self, cargo, output, shown},
};

const HEADER: &str = "kernels/include/params.h";
const BINDINGS: &str = "convpc-cuda/src/params.rs";

/// Writes the bindings, or fails where those committed differ.
pub(crate) fn run(check: bool) -> Result<()> {
    let (header, bindings) = (workspace::path(HEADER), workspace::path(BINDINGS));
    if !header.is_file() {
        if check && !bindings.exists() {
            println!("there is no {HEADER}");
            return Ok(());
        }
        bail!("there is no {HEADER}");
    }
    let generated = formatted(&generate()?)?;
    let committed = std::fs::read_to_string(&bindings).unwrap_or_default();
    if committed == generated {
        println!("{BINDINGS} is up to date");
        return Ok(());
    }
    if check {
        let line = workspace::first_difference(&committed, &generated);
        bail!(
            "{BINDINGS} is not what {HEADER} gives (line {line})\nrun `cargo xtask bindings` and commit what it writes"
        );
    }
    workspace::write(&bindings, generated)?;
    println!("written {}", shown(&bindings));
    Ok(())
}

/// What bindgen makes of the header. It is a program of its own, built when first needed.
fn generate() -> Result<String> {
    let tools = Tools::ready()?;
    // The only system header, so that the machine's own cannot change the output.
    let system = tempfile::tempdir().context("no temporary folder could be made")?;
    workspace::write(&system.path().join("stdint.h"), ptx::STDINT)?;
    let (text, _) = output(
        cargo()
            .args(["run", "--quiet", "--profile", "chores", "--package", "xtask", "--features", "bindgen"])
            .args(["--bin", "bindgen-params", "--", HEADER])
            .arg(system.path())
            .env("LIBCLANG_PATH", tools.libclang()),
    )?;
    Ok(text)
}

fn formatted(source: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(workspace::root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("rustfmt could not be started")?;
    rustfmt.stdin.take().expect("piped").write_all(source.as_bytes()).context("rustfmt closed its input")?;
    let formatted = rustfmt.wait_with_output().context("rustfmt could not be waited for")?;
    if !formatted.status.success() {
        bail!("rustfmt refused the bindings");
    }
    String::from_utf8(formatted.stdout).context("rustfmt returned a text that is not UTF-8")
}

//! `cargo xtask ci`: all checks in a row, up to the first that fails.

use anyhow::{Context, Result};

use crate::{
    bindings, mutants, ptx,
    workspace::{cargo, run},
};

/// A step: its name and the arguments for cargo.
const TEST: (&str, &[&str]) = ("tests", &["test", "--workspace"]);
const CHECKS: [(&str, &[&str]); 5] = [
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    // What the default build leaves out.
    ("lints", &["clippy", "-p", "convpc-cli", "--features", "cuda", "--all-targets", "--", "-D", "warnings"]),
    ("lints", &["clippy", "-p", "benches", "--features", "cuda", "--all-targets", "--", "-D", "warnings"]),
    ("documentation", &["doc", "--workspace", "--no-deps"]),
];

/// Runs all checks, the tests first unless they are left out.
pub(crate) fn run_all(skip_tests: bool) -> Result<()> {
    let steps = (!skip_tests).then_some(TEST).into_iter().chain(CHECKS);
    for (name, arguments) in steps {
        println!("== {name}: cargo {}", arguments.join(" "));
        let mut cargo = cargo();
        if arguments[0] == "doc" {
            cargo.env("RUSTDOCFLAGS", "-D warnings");
        }
        run(cargo.args(arguments)).with_context(|| format!("{name} failed"))?;
    }
    println!("== PTX: cargo xtask ptx --check");
    ptx::check()?;
    println!("== bindings: cargo xtask bindings --check");
    bindings::run(true)?;
    println!("== mutants of the kernels: their texts");
    mutants::check()?;
    println!("all checks passed");
    Ok(())
}

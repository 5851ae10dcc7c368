//! Chores of the workspace: `cargo xtask ci` checks everything.
#![forbid(unsafe_code)]

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

/// Chores of the convpc workspace.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Tests, format, lints and documentation, as the continuous integration checks them.
    Ci {
        /// Leave out the tests, where they were run before.
        #[arg(long)]
        skip_tests: bool,
    },
}

/// A step: its name and the arguments for cargo.
const TEST: (&str, &[&str]) = ("tests", &["test", "--workspace"]);
const CHECKS: [(&str, &[&str]); 3] = [
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    ("documentation", &["doc", "--workspace", "--no-deps"]),
];

fn main() -> ExitCode {
    let Chore::Ci { skip_tests } = Arguments::parse().chore;
    let steps = (!skip_tests).then_some(TEST).into_iter().chain(CHECKS);
    for (name, arguments) in steps {
        println!("== {name}: cargo {}", arguments.join(" "));
        let mut cargo = Command::new("cargo");
        if arguments[0] == "doc" {
            cargo.env("RUSTDOCFLAGS", "-D warnings");
        }
        match cargo.args(arguments).status() {
            Ok(status) if status.success() => {}
            Ok(_) => {
                eprintln!("{name} failed");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("cargo could not be started: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("all checks passed");
    ExitCode::SUCCESS
}

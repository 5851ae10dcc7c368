//! What the command writes, and when: nothing is lost, and what cannot be written is known before work begins.
#![cfg(unix)]

mod common;

use std::{
    fs,
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Stdio,
};

use common::Bench;
use convpc::data::write_npy_f32;
use ndarray::Array3;

impl Bench {
    /// Images of 4×4 pixels with 3 levels, and a model of them.
    fn new() -> Self {
        let bench = Bench(tempfile::tempdir().unwrap());
        let images = Array3::from_shape_fn((30, 4, 4), |(row, i, j)| ((row + i + 2 * j) % 3) as f32);
        write_npy_f32(&bench.path("x.npy"), images.view().into_dyn()).unwrap();
        bench.prints(&format!("{TRAIN} -o m"));
        bench
    }

    /// The names and the contents of all files.
    fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(self.0.path()).unwrap().map(Result::unwrap).filter(|f| f.path().is_file());
        let mut files: Vec<_> =
            files.map(|f| (f.file_name().into_string().unwrap(), fs::read(f.path()).unwrap())).collect();
        files.sort();
        files
    }
}

const TRAIN: &str = "train --data x.npy --levels 3 --channels 2 --epochs 1";

#[test]
fn an_output_that_is_an_input_or_another_output_is_refused() {
    let bench = Bench::new();
    fs::hard_link(bench.path("x.npy"), bench.path("hard.npy")).unwrap();
    symlink("x.npy", bench.path("soft.npy")).unwrap();
    symlink("new.svg", bench.path("dangling.svg")).unwrap();
    fs::create_dir(bench.path("pictures")).unwrap();
    fs::create_dir_all(bench.path("classes/one")).unwrap();
    bench.prints("sample m -n 1 -o classes/one/1.png");
    let before = bench.contents();
    for arguments in [
        "train --data x.npy --levels 3 -o x.npy --force",
        "train --data x.npy --levels 3 -o soft.npy --force",
        "train --data x.npy --levels 3 -o hard.npy --force",
        "train --data x.npy --levels 3 -o n --metrics x.npy",
        "train --data x.npy --levels 3 -o n --metrics ./n",
        "train --data x.npy --levels 3 -o n --metrics n.checkpoint",
        "train --data x.npy --levels 3 -o n --metrics new.svg --curve dangling.svg",
        "train --data x.npy --valid hard.npy --levels 3 -o n --metrics hard.npy",
        "train --data pictures --levels 3 -o n --curve pictures/c.png",
        "train --data classes --levels 3 -o n --curve classes/one/c.png",
        "score m --data x.npy -o x.npy",
        "score m --data x.npy -o soft.npy",
        "complete m --data x.npy --mask left -o hard.npy",
        "prune m --force -o m",
        "mix m m --force -o m",
        "curve a=log.svg -o log.svg",
    ] {
        let message = bench.fails(2, arguments);
        let expected = ["are the same file", "would be one of the images"];
        assert!(expected.iter().any(|expected| message.contains(expected)), "{arguments}: {message}");
        assert_eq!(bench.contents(), before, "{arguments}");
    }
}

#[test]
fn a_model_is_replaced_only_where_that_is_asked_for() {
    let bench = Bench::new();
    let before = bench.contents();
    for arguments in
        [&format!("{TRAIN} -o m"), "prune m -o x.npy", "grow m -o x.npy", "marginalize m --drop left -o x.npy"]
    {
        assert!(bench.fails(1, arguments).contains("is there already"), "{arguments}");
        assert_eq!(bench.contents(), before, "{arguments}");
    }
    let message = bench.fails(1, &format!("{TRAIN} -o m"));
    insta::assert_snapshot!(message, @"error: m is there already; give --resume to go on with it, --force to replace it, or another name");
    // The checkpoint of a run that was interrupted in its first epoch is as dear as a model.
    bench.interrupt(&format!("{TRAIN} --force -o m"));
    fs::remove_file(bench.path("m")).unwrap();
    assert!(bench.fails(1, &format!("{TRAIN} -o m")).contains("m.checkpoint is there already"));
    bench.prints(&format!("{TRAIN} --force -o m"));
    bench.fails(2, &format!("{TRAIN} --force --resume -o m"));
}

#[test]
fn what_cannot_be_written_is_known_before_work_begins() {
    let bench = Bench::new();
    fs::create_dir(bench.path("folder.npy")).unwrap();
    fs::write(bench.path("fixed.npy"), "").unwrap();
    fs::set_permissions(bench.path("fixed.npy"), fs::Permissions::from_mode(0o444)).unwrap();
    symlink("loop.npy", bench.path("loop.npy")).unwrap();
    let before = bench.contents();
    for arguments in [
        "train --data x.npy --levels 3 -o .",
        "train --data x.npy --levels 3 -o no/m",
        "train --data x.npy --levels 3 -o n --curve no/c.png",
        "train --data x.npy --levels 3 -o n --metrics no/log",
        "train --data x.npy --levels 3 -o n --metrics folder.npy",
        "train --data x.npy --levels 3 -o fixed.npy --force",
        // Were the work begun, it would not end.
        "sample m -n 1000000000000 -o no/s.npy",
        "sample m -n 1000000000000 -o folder.npy",
        "sample m -n 1000000000000 -o fixed.npy",
        "sample m -n 1000000000000 -o loop.npy",
        "score m --data none.npy -o no/l.npy",
        "complete m --data none.npy -o no/c.npy",
        "prune none -o no/m",
        "curve a=none -o no/c.svg",
    ] {
        let message = bench.fails(1, arguments);
        assert!(message.contains("cannot be written"), "{arguments}: {message}");
        assert_eq!(bench.contents(), before, "{arguments}");
    }
}

#[test]
fn a_closed_pipe_ends_the_command_quietly() {
    let bench = Bench::new();
    for (arguments, closed_errors) in [("info m", false), ("score m --data x.npy", true), ("info none", true)] {
        let mut command = bench.command(arguments);
        // The ends that would be read are closed before the command begins.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer.try_clone().unwrap());
        command.stderr(if closed_errors { writer.into() } else { Stdio::piped() });
        let mut child = command.spawn().unwrap();
        let status = child.wait().unwrap();
        let mut errors = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut errors).unwrap();
        }
        assert_eq!(errors, "", "{arguments}");
        assert_eq!(status.code(), Some(if arguments == "info none" { 1 } else { 141 }), "{arguments}");
    }
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_is_in_use_stays() {
    let bench = Bench::new();
    let left = |name: &str| bench.path(name);
    fs::write(left(".convpc-abcdef.tmp"), "part of a model").unwrap();
    fs::write(left(".convpc-in-use.tmp"), "part of a model").unwrap();
    let in_use = fs::File::open(left(".convpc-in-use.tmp")).unwrap();
    in_use.lock().unwrap();
    bench.prints("sample m -n 1 -o s.npy");
    assert!(!left(".convpc-abcdef.tmp").exists() && left(".convpc-in-use.tmp").exists());
}

#[test]
fn two_runs_do_not_share_a_model() {
    let bench = Bench::new();
    let lock = convpc::lock::Lock::acquire(&bench.path("m")).unwrap();
    let before = bench.contents();
    for flag in ["--resume", "--force"] {
        let message = bench.fails(1, &format!("{TRAIN} {flag} -o m"));
        assert!(message.contains(&format!("m is in use by process {}", std::process::id())), "{message}");
    }
    assert_eq!(bench.contents(), before);
    drop(lock);
    bench.prints(&format!("{TRAIN} --resume -o m"));
    // A lock that a killed process left is no lock.
    fs::write(bench.path("m.lock"), "process 1").unwrap();
    bench.prints(&format!("{TRAIN} --resume -o m"));
    assert!(!Path::exists(&bench.path("m.lock")));
}

/// Opening a pipe waits for its writer, who may never come.
#[test]
fn a_pipe_by_name_is_an_error_at_once() {
    let bench = Bench::new();
    std::process::Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap();
    for (arguments, says) in [
        ("info pipe", "give a regular file"),
        ("prune pipe -o n", "give a regular file"),
        ("mix pipe m -o n", "give a regular file"),
        ("curve a=pipe -o c.svg", "give a regular file"),
        ("score m --data pipe -o l.npy", "send images through a pipe with --data -"),
        ("score m --data x.npy --labels pipe", "send images through a pipe with --data -"),
        ("complete m --data pipe -o c.npy", "send images through a pipe with --data -"),
        ("train --data pipe --valid pipe --levels 3 -o n", "send images through a pipe with --data -"),
    ] {
        let message = bench.fails(1, arguments);
        assert!(message.contains(says), "{arguments}: {message}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_what_was_written() {
    let bench = Bench::new();
    for arguments in ["info m", "score m --data x.npy", "sample m -n 3 -o -", "--help", "--version"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = bench.command(arguments).stdout(full).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {message}");
        assert!(message.contains("standard output") && message.contains("No space left"), "{arguments}: {message}");
    }
}

/// A limit of the size of files (`ulimit -f`) comes with a signal that ends a process which does not expect it.
#[test]
fn a_file_beyond_the_limit_of_sizes_is_an_error() {
    let bench = Bench::new();
    let before = bench.contents();
    let script = format!("ulimit -f 8; exec {} sample m -n 100000 -o s.npy", env!("CARGO_BIN_EXE_convpc"));
    let mut command = std::process::Command::new("sh");
    let output = command.current_dir(bench.0.path()).args(["-c", &script]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && message.contains("cannot write 's.npy': File too large"), "{message}");
    assert_eq!(bench.contents(), before);
}

/// Only `sample`, `complete` and `score` write to standard output; a file of the name `-` is not what anyone wants.
#[test]
fn standard_output_is_refused_where_files_are_written() {
    let bench = Bench::new();
    let before = bench.contents();
    for arguments in [
        "train --data x.npy --levels 3 -o -",
        "train --data x.npy --levels 3 -o n --metrics -",
        "train --data x.npy --levels 3 -o n --curve -",
        "prune m -o -",
    ] {
        let message = bench.fails(2, arguments);
        assert!(message.contains("- is standard output") || message.contains(" - ends in neither"), "{message}");
        assert_eq!(bench.contents(), before, "{arguments}");
    }
}

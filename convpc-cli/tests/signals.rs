//! SIGINT and SIGTERM: a training run can go on to the same bytes, and nothing half-written is left.
#![cfg(unix)]

mod common;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use common::Bench;
use convpc::{checkpoint, data::write_npy_f32};
use ndarray::Array3;

impl Bench {
    /// Images of a few patterns with some noise, of 3 levels.
    fn new(rows: usize, side: usize) -> Self {
        let bench = Bench(tempfile::tempdir().unwrap());
        let images = Array3::from_shape_fn((rows, side, side), |(row, i, j)| {
            let noise = usize::from((row * 31 + i * 17 + j * 13) % 11 == 0);
            ((row % 4 + i * (1 + row % 2) + 2 * j + noise) % 3) as f32
        });
        write_npy_f32(&bench.path("x.npy"), images.view().into_dyn()).unwrap();
        bench
    }

    fn start(&self, arguments: &str) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The names of all files in the folder.
    fn names(&self) -> Vec<String> {
        let files = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Waits until something has happened, for a minute at most.
fn wait_until(happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
        sleep(Duration::from_millis(1));
    }
}

fn send(child: &Child, signal: &str) {
    Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap();
}

/// Sends a signal to a command some time after `file` is there, and waits for its end.
fn interrupt(child: Child, signal: &str, file: &Path, delay: Duration) -> Output {
    wait_until(|| file.exists());
    sleep(delay);
    send(&child, signal);
    child.wait_with_output().unwrap()
}

/// One thread: two may add their counts in either order.
const BASE: &str = "train --data x.npy --levels 3 --channels 6 --threads 1 --seed 3";

#[test]
fn a_run_that_was_interrupted_says_how_to_go_on_and_ends_with_the_same_bytes() {
    let bench = Bench::new(300, 4);
    let mut inside_an_epoch = 0;
    for (name, flags) in [
        ("em", "--algorithm em --epochs 300 --batch-size 20"),
        (
            "mini",
            "--algorithm minibatch-em --epochs 120 --batch-size 10 --momentum 0.8 --valid-fraction 0.2 --evaluate-every 7",
        ),
        ("adam", "--algorithm adam --epochs 120 --batch-size 10 --clip 1 --weight-decay 0.01 --final-em-steps 2"),
    ] {
        let (whole, stopped) = (format!("{name}-whole"), format!("{name}-stopped"));
        let arguments = |model: &str| format!("{BASE} {flags} --metrics {model}.jsonl -o {model}");
        bench.prints(&arguments(&whole));
        let file = checkpoint::beside(&bench.path(&stopped));
        let mut resume = "";
        for (number, (signal, status)) in [("INT", 130), ("TERM", 143), ("INT", 130)].into_iter().enumerate() {
            let child = bench.start(&format!("{}{resume}", arguments(&stopped)));
            let output = interrupt(child, signal, &file, Duration::from_millis(60 * number as u64));
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(status), "{name}: {message}");
            if message == format!("ended by SIG{signal}\n") && !resume.is_empty() {
                // It came before the run went on, and the checkpoint is as it was.
                continue;
            }
            assert!(message.contains(&format!("stopped by SIG{signal}")), "{message}");
            let (_, command) = message.split_once("go on with: ").expect(&message);
            assert!(command.trim_end().ends_with(" --resume"), "{message}");
            assert!(command.contains(&arguments(&stopped)) && command.matches("--resume").count() == 1, "{message}");
            resume = " --resume";
            let (_, _, state) = checkpoint::load(&file).unwrap();
            inside_an_epoch += usize::from(state.batch > 0);
            let place = match (state.epoch, state.batch) {
                (0, 0) => "in the first epoch".into(),
                (epoch, 0) => format!("after epoch {epoch};"),
                (epoch, batch) => format!("after batch {batch} of epoch {};", epoch + 1),
            };
            assert!(message.contains(&format!("stopped by SIG{signal} {place}")), "{message}");
            assert!(
                bench.names().iter().all(|name| !name.ends_with(".tmp") && !name.ends_with(".lock")),
                "{:?}",
                bench.names()
            );
        }
        bench.prints(&format!("{} --resume", arguments(&stopped)));
        let [whole, stopped] = [&whole, &stopped].map(|model| fs::read(bench.path(model)).unwrap());
        assert!(whole == stopped, "{name}: other bytes");
        assert!(!file.exists(), "a run that is over leaves no checkpoint");
    }
    assert!(inside_an_epoch > 0, "no run was interrupted inside an epoch");
}

#[test]
fn the_command_that_goes_on_replaces_no_model_and_can_be_pasted_into_a_shell() {
    let bench = Bench::new(300, 4);
    let mut command = bench.command(&format!("{BASE} --algorithm em --epochs 100000 --force -o"));
    let child = command.arg("my model").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = interrupt(child, "INT", &bench.path("my model.checkpoint"), Duration::from_millis(100));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.ends_with(" --epochs 100000 -o 'my model' --resume\n"), "{message}");
}

#[test]
fn other_commands_leave_nothing_half_written() {
    let bench = Bench::new(30, 4);
    bench.prints(&format!("{BASE} --epochs 1 -o m"));
    let before = bench.names();
    for (signal, status) in [("INT", 130), ("TERM", 143)] {
        let child = bench.start("sample m -n 1000000000 -o s.npy");
        wait_until(|| bench.names().iter().any(|name| name.ends_with(".tmp")));
        sleep(Duration::from_millis(30));
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("ended by SIG{signal}\n"));
        assert_eq!(bench.names(), before);
    }
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let bench = Bench::new(400, 32);
    // The reference takes minutes for a batch of all images.
    let arguments = "train --data x.npy --levels 3 --channels 64 --batch-size 400 --backend reference -o m --force";
    let run = |_| {
        let _ = fs::remove_file(bench.path("m.checkpoint"));
        let child = bench.start(arguments);
        wait_until(|| bench.path("m.checkpoint").exists());
        sleep(Duration::from_millis(100));
        send(&child, "INT");
        sleep(Duration::from_millis(200));
        send(&child, "TERM");
        child.wait_with_output().unwrap()
    };
    // On a busy machine the first signal may come before the first batch has begun, and ends the run in good order.
    let output = (0..20).map(run).find(|output| output.status.code() != Some(130)).expect("a signal during a batch");
    assert_eq!(output.status.code(), Some(143));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message, "the training stops after this batch; a second signal ends it at once\nended by SIGTERM\n");
    assert_eq!(bench.names(), ["m.checkpoint", "x.npy"]);
}

/// A terminal that closes sends SIGHUP; a command that `nohup` has begun goes on.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_terminal_ends_a_command_unless_it_is_to_go_on_without() {
    let by_env = |signals: &[&str]| Command::new("env").args(signals).arg("true").status().unwrap().success();
    if !by_env(&["--default-signal=HUP"]) {
        return; // This env cannot say how signals are inherited.
    }
    for (flag, ends) in [("--default-signal=HUP", true), ("--ignore-signal=HUP", false)] {
        let bench = Bench::new(30, 4);
        bench.prints(&format!("{BASE} --epochs 1 -o m"));
        let before = bench.names();
        let mut command = Command::new("env");
        command.current_dir(bench.0.path()).args([flag, env!("CARGO_BIN_EXE_convpc")]);
        command.args("sample m -n 1000000000 -o s.npy".split(' ')).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        wait_until(|| bench.names().iter().any(|name| name.ends_with(".tmp")));
        sleep(Duration::from_millis(30));
        send(&child, "HUP");
        if !ends {
            sleep(Duration::from_millis(200));
            assert!(child.try_wait().unwrap().is_none(), "it is to go on");
            send(&child, "TERM");
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(if ends { 129 } else { 143 }));
        assert_eq!(bench.names(), before);
    }
}

//! Training as its users meet it: interrupted, gone on with, measured and drawn.

mod common;

use std::{
    fs,
    path::Path,
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use common::Bench;
use convpc::{checkpoint, data::write_npy_f32, model};
use ndarray::{Array3, s};

impl Bench {
    fn new() -> Self {
        let bench = Bench(tempfile::tempdir().unwrap());
        // 4×4 pixels with 3 levels, from a few patterns and some noise; a few values missing.
        let mut images = Array3::from_shape_fn((300, 4, 4), |(row, i, j)| {
            let noise = usize::from((row * 31 + i * 17 + j * 13) % 11 == 0);
            ((row % 4 + i * (1 + row % 2) + 2 * j + noise) % 3) as f32
        });
        images.iter_mut().step_by(23).for_each(|x| *x = f32::NAN);
        write_npy_f32(&bench.path("x.npy"), images.view().into_dyn()).unwrap();
        write_npy_f32(&bench.path("v.npy"), images.slice(s![..40, .., ..]).into_dyn()).unwrap();
        bench
    }

    /// The epochs and scores in a metrics file: all but what the clock says.
    fn metrics(&self, name: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        let record = |line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            for clock in ["seconds", "rows_per_second"] {
                assert!(record.as_object_mut().unwrap().remove(clock).unwrap().as_f64() > Some(0.0));
            }
            record
        };
        text.lines().map(record).collect()
    }
}

/// The structure, and one thread: two may add their counts in either order.
const BASE: &str = "train --data x.npy --leaf categorical --levels 3 --channels 6 --threads 1";

/// Starts a run, kills it (SIGKILL) some time after its first checkpoint, and says whether it was still running.
fn kill_after(bench: &Bench, arguments: &str, checkpoint: &Path, delay: Duration) -> bool {
    let mut child = bench.command(arguments).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !checkpoint.exists() && child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(1));
    }
    sleep(delay);
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

#[test]
fn a_run_that_was_killed_three_times_ends_with_the_same_bytes() {
    let bench = Bench::new();
    for (name, flags) in [
        ("em", "--algorithm em --epochs 200 --valid v.npy --patience 200"),
        (
            "mini",
            "--algorithm minibatch-em --epochs 20 --batch-size 10 --momentum 0.8 --checkpoint-batches 7 --valid-fraction 0.2",
        ),
        (
            "adam",
            "--algorithm adam --epochs 20 --batch-size 10 --clip 1 --weight-decay 0.01 --checkpoint-batches 11 --final-em-steps 2",
        ),
    ] {
        let arguments = |model: &str| format!("{BASE} {flags} --seed 3 --metrics {model}.jsonl -o {model}");
        let (whole, killed) = (format!("{name}-whole"), format!("{name}-killed"));
        let began = Instant::now();
        bench.prints(&arguments(&whole));
        let took = began.elapsed();
        // At a fifth of the time of the whole run each, so that some work is left for the last.
        let file = checkpoint::beside(&bench.path(&killed));
        let mut interrupted = 0;
        // On a busy machine a run may be over before it is killed: it begins again, and is killed sooner.
        for hurry in [1.0, 0.3, 0.1, 0.0] {
            for left in [bench.path(&killed), file.clone(), bench.path(&format!("{killed}.jsonl"))] {
                let _ = fs::remove_file(left);
            }
            for k in 0..3 {
                let resume = if k == 0 { "" } else { "--resume" };
                let arguments = format!("{} {resume}", arguments(&killed));
                let delay = took.mul_f64(hurry * (0.15 + 0.05 * f64::from(k)));
                interrupted += u32::from(kill_after(&bench, &arguments, &file, delay));
                // A run that is over leaves no checkpoint.
                if !file.exists() || checkpoint::load(&file).unwrap().2.finished {
                    break;
                }
                // The checkpoint counts, not what lies in the model file.
                fs::write(bench.path(&killed), "junk").unwrap();
            }
            if interrupted > 0 {
                break;
            }
        }
        assert!(interrupted > 0, "{name}: the run was too short to be killed");
        if file.exists() && !checkpoint::load(&file).unwrap().2.finished {
            bench.prints(&format!("{} --resume", arguments(&killed)));
        }
        let bytes = [&whole, &killed].map(|model| fs::read(bench.path(model)).unwrap());
        assert!(bytes[0] == bytes[1], "{name}: other bytes after {interrupted} interruptions");
        assert_eq!(bench.metrics(&format!("{whole}.jsonl")), bench.metrics(&format!("{killed}.jsonl")), "{name}");
    }
}

/// A model, and the checkpoint of a run that goes on after its first epoch.
fn interrupted(bench: &Bench, flags: &str) {
    bench.prints(&format!("{BASE} {flags} -o m"));
    bench.interrupt(&format!("{BASE} {flags} --force -o m"));
    let file = bench.path("m.checkpoint");
    let (_, _, state) = checkpoint::load(&file).unwrap();
    assert_eq!((state.epoch, state.batch), (1, 0));
}

#[test]
fn going_on_with_other_flags_or_data_is_an_error_that_names_them() {
    let bench = Bench::new();
    interrupted(
        &bench,
        "--algorithm minibatch-em --epochs 3 --step 0.3 --momentum 0.5 --valid v.npy --patience 2 --seed 3",
    );
    let before = fs::read(bench.path("m.checkpoint")).unwrap();
    let flags = [
        "--algorithm adam",
        "--epochs 4",
        "--batch-size 7",
        "--pseudocount 0.5",
        "--step 0.31",
        "--end-step 0.1",
        "--schedule cosine",
        "--warm-up 0.5",
        "--annealing 0.5",
        "--momentum 0.6",
        "--blend parameters",
        "--weight-decay 1",
        "--clip 2",
        "--beta1 0.5",
        "--beta2 0.5",
        "--valid-fraction 0.5",
        "--patience 3",
        "--final-em-steps 1",
        "--checkpoint-batches 9",
        "--seed 4",
    ];
    let resume = "train --data x.npy --valid v.npy --resume -o m";
    let message = bench.fails(1, &format!("{resume} {}", flags.join(" ")));
    insta::assert_snapshot!(message, @"error: --resume: the unfinished run in m.checkpoint is not what the flags ask for: --algorithm adam (the run has minibatch-em), --epochs 4 (the run has 3), --batch-size 7 (the run has 512), --pseudocount 0.5 (the run has 0.01), --step 0.31 (the run has 0.3), --end-step 0.1 (the run has 0.015), --schedule cosine (the run has linear), --warm-up 0.5 (the run has 0), --annealing 0.5 (the run has 0.2), --momentum 0.6 (the run has 0.5), --blend parameters (the run has top-down), --weight-decay 1 (the run has none), --clip 2 (the run has none), --beta1 0.5 (the run has none), --beta2 0.5 (the run has none), --valid-fraction 0.5 (the run has none), --patience 3 (the run has 2), --final-em-steps 1 (the run has 0), --checkpoint-batches 9 (the run has none), --seed 4 (the run has 3); leave these flags out to go on with it, or train anew, with --force in the place of --resume");
    for flag in flags {
        let message = bench.fails(1, &format!("{resume} {flag}"));
        assert!(message.contains(&format!(": {flag} (the run has ")), "{message}");
    }
    assert!(bench.fails(1, &format!("{resume} --channels 9")).contains("--channels 9 (the model has 6)"));
    let message = bench.fails(1, "train --data x.npy --resume -o m");
    insta::assert_snapshot!(message, @"error: --resume: --valid has none, the unfinished run has 40 images with the checksum 45f8f617; give the same images, or train anew, with --force in the place of --resume");
    let message = bench.fails(1, "train --data v.npy --valid v.npy --resume -o m");
    assert!(message.contains("--data has 40 images") && message.contains("has 300 images"), "{message}");
    // As many rows, other values.
    let other = Array3::zeros((40, 4, 4));
    write_npy_f32(&bench.path("w.npy"), other.view().into_dyn()).unwrap();
    assert!(bench.fails(1, "train --data x.npy --valid w.npy --resume -o m").contains("--valid has 40 images"));
    assert_eq!(fs::read(bench.path("m.checkpoint")).unwrap(), before);
    // Flags that agree, or none, go on.
    let printed =
        bench.prints(&format!("{resume} --algorithm minibatch-em --epochs 3 --step 0.3 --momentum 0.5 --seed 3"));
    assert_eq!(printed.lines().skip(1).map(|line| &line[..7]).collect::<Vec<_>>(), ["epoch 2", "epoch 3"]);
}

#[test]
fn broken_and_foreign_checkpoints_are_refused() {
    let bench = Bench::new();
    interrupted(&bench, "--algorithm adam --epochs 2");
    let file = bench.path("m.checkpoint");
    let whole = fs::read(&file).unwrap();
    // Every command reads the parameters in it.
    assert!(bench.prints("score m.checkpoint --data x.npy").contains("bits per dimension"));
    let message = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        bench.fails(1, "train --data x.npy --resume -o m")
    };
    for length in [0, 100, whole.len() - 1] {
        assert!(message(&whole[..length]).contains("m.checkpoint is not a whole safetensors file"));
    }
    let model = fs::read(bench.path("m")).unwrap();
    insta::assert_snapshot!(message(&model), @"error: m.checkpoint holds no training run, only a model; its metadata lack options and progress");
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = whole.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        message(&bytes)
    };
    insta::assert_snapshot!(replaced("\\\"memory\\\":\\\"moments\\\"", "\\\"memory\\\":\\\"running\\\""), @"error: m.checkpoint: tensor running/0 is missing");
    let unknown = replaced("\\\"batch_size\\\"", "\\\"batch_side\\\"");
    // Where in the header it is depends on the numbers in it.
    let unknown = unknown.split(" at line").next().unwrap();
    insta::assert_snapshot!(unknown, @"error: m.checkpoint: the options of the training run in the header are not legal: unknown field `batch_side`, expected one of `rule`, `step`, `annealing`, `epochs`, `batch_size`, `valid_fraction`, `patience`, `final_em_steps`, `final_em`, `seed`, `checkpoint_batches`, `evaluate_every`");
    insta::assert_snapshot!(replaced("\\\"epoch\\\":1", "\\\"epoch\\\":9"), @"error: the state of the run is at batch 0 of epoch 9, with 0 rows of it seen (best epoch: none, epochs before the final EM steps: none, finished: false); expected one that a run of 300 rows in 1 batches and 2 + 0 epochs leaves; give the options and data of the run");
}

#[test]
fn a_run_that_stops_early_leaves_the_best_model() {
    let bench = Bench::new();
    // Validation data of another kind: what is learned about the first is soon wrong about them.
    let other = Array3::from_shape_fn((60, 4, 4), |(row, i, j)| ((row * 5 + i * j + row / 3) % 3) as f32);
    write_npy_f32(&bench.path("other.npy"), other.view().into_dyn()).unwrap();
    fs::create_dir(bench.path("curves")).unwrap();
    let printed = bench.prints(&format!(
        "{BASE} --epochs 100 --valid other.npy --patience 2 --metrics log.jsonl --curve curves/curve.png -o m"
    ));
    let records = bench.metrics("log.jsonl");
    assert!(records.len() < 100 && printed.lines().count() == 1 + records.len());
    let score = |record: &serde_json::Value| record["valid_nats"].as_f64().unwrap();
    let best = records.iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap();
    assert_eq!(best["epoch"].as_u64().unwrap() as usize + 2, records.len());
    let printed = bench.prints("score m --data other.npy --threads 1");
    let mean = printed.split_once("mean log-likelihood").unwrap().1.split_whitespace().next().unwrap();
    assert!((mean.parse::<f64>().unwrap() - score(best)).abs() < 1e-3, "{printed} {best}");
    let bits = score(best) / (-16.0 * std::f64::consts::LN_2);
    assert!((best["valid_bits"].as_f64().unwrap() - bits).abs() < 1e-12);
    // A blue line and a red one, and black words, on white.
    let picture = convpc::data::read(&bench.path("curves")).unwrap();
    assert_eq!(picture.shape.map(|shape| (shape.height, shape.width, shape.colors)), Some((400, 640, 3)));
    let pixels = picture.values.as_slice().unwrap().as_chunks().0;
    let count = |color: [f32; 3]| pixels.iter().filter(|pixel| **pixel == color).count();
    let counts = [[0.0, 0.0, 255.0], [255.0, 0.0, 0.0], [0.0, 0.0, 0.0]].map(count);
    assert!(counts.iter().all(|n| (50..20_000).contains(n)) && count([255.0; 3]) > 100_000, "{counts:?}");
    // Two lines, their axes and words: neither blank nor black.
    bench.prints("curve first=log.jsonl second=log.jsonl -o both.svg");
    let both = fs::read_to_string(bench.path("both.svg")).unwrap();
    assert!(["first", "second", "seconds", "bits per dimension"].iter().all(|text| both.contains(text)), "{both}");
    assert!(bench.fails(2, "curve log.jsonl -o c.svg").contains("NAME=FILE"));
    assert!(bench.fails(1, "curve a=none.jsonl -o c.svg").contains("cannot be read"));
    bench.prints(&format!("{BASE} --epochs 2 --valid other.npy --curve curve.svg --force -o m"));
    let svg = fs::read_to_string(bench.path("curve.svg")).unwrap();
    assert!(["bits per dimension", "epoch", "train", "held out"].iter().all(|word| svg.contains(word)), "{svg}");
}

/// A finished run is not gone on with: a new one begins with its model, with flags of its own.
#[test]
fn a_finished_run_hands_its_model_to_a_new_one() {
    let bench = Bench::new();
    bench.prints(&format!("{BASE} --algorithm minibatch-em --epochs 3 --metrics log.jsonl -o m"));
    let first = model::load(&bench.path("m")).unwrap();
    let printed = bench.prints("train --data x.npy --resume --algorithm adam --epochs 2 --metrics log.jsonl -o m");
    assert_eq!(printed.lines().count(), 1 + 2);
    assert_ne!(model::load(&bench.path("m")).unwrap(), first);
    assert_eq!(bench.metrics("log.jsonl").len(), 2);
}

#[test]
fn flags_that_make_no_run_are_refused() {
    let bench = Bench::new();
    for (flags, expected) in [
        ("--momentum 0.5", "--algorithm em has no --momentum"),
        ("--step 0.5 --clip 1", "--algorithm em has no --step, --clip"),
        ("--algorithm minibatch-em --weight-decay 1", "--algorithm minibatch-em has no --weight-decay"),
        ("--algorithm adam --blend parameters", "--algorithm adam has no --blend"),
        ("--algorithm minibatch-em --step 1.5", "--step is 1.5"),
        ("--algorithm minibatch-em --momentum 1", "--momentum is 1"),
        ("--algorithm adam --clip 0", "--clip is 0"),
        ("--patience 3", "--patience needs held-out images"),
        ("--valid v.npy --valid-fraction 0.5", "leave one out"),
        ("--valid-fraction 1", "--valid-fraction is 1"),
        ("--curve c.gif", "neither .png nor .svg"),
    ] {
        let message = bench.fails(2, &format!("{BASE} {flags} -o m"));
        assert!(message.contains(expected), "{flags}: {message}");
        assert!(!bench.path("m").exists());
    }
}

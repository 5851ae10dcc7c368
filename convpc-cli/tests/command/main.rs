//! The command as its users meet it: what it writes, what it says, how it exits.

#[path = "../common/mod.rs"]
mod common;
mod statuses;

use std::path::Path;

use common::{Bench, number};
use convpc::data::{read, write_npy_f32};
use ndarray::{Array2, Array3, s};

impl Bench {
    fn new() -> Self {
        let bench = Bench(tempfile::tempdir().unwrap());
        // 4×4 pixels with 3 levels: stripes whose phase depends on the row.
        let images = Array3::from_shape_fn((30, 4, 4), |(row, i, j)| ((row + i + 2 * j) % 3) as f32);
        write_npy_f32(&bench.path("x.npy"), images.view().into_dyn()).unwrap();
        bench
    }

    fn train(&self) {
        self.prints(TRAIN);
    }
}

const TRAIN: &str = "train --data x.npy --leaf categorical --levels 3 --channels 4 --epochs 5 -o m";

fn records(path: &Path) -> Vec<serde_json::Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn values(path: &Path) -> Array2<f32> {
    read(path).unwrap().values
}

#[test]
fn training_raises_the_likelihood_and_resumes() {
    let bench = Bench::new();
    let printed = bench.prints(&format!("{TRAIN} --valid x.npy"));
    assert_eq!(printed.lines().count(), 1 + 5);
    let (first, last) = (printed.lines().nth(1).unwrap(), printed.lines().last().unwrap());
    assert!(number(last, "before the step") > number(first, "before the step") + 1.0, "{printed}");
    let resumed = bench.prints(&format!("{TRAIN} --resume --valid x.npy"));
    let (before, after) = (number(&resumed, "before the step"), number(last, "held-out after it"));
    assert!((before - after).abs() < 1e-2, "{before} is not {after}");
}

#[test]
fn resuming_with_flags_that_disagree_is_an_error() {
    let bench = Bench::new();
    bench.train();
    let before = std::fs::read(bench.path("m")).unwrap();
    let resume = "train --data x.npy --epochs 1 --resume -o m";
    let flags = [
        "--leaf normal",
        "--levels 4",
        "--channels 5",
        "--leaf-channels 6",
        "--depth 3",
        "--kernel-size 3",
        "--repetitions 2",
        "--height 2",
        "--width 8",
        "--colors 3",
        "--use-sum-conv",
        "--shared-leaves",
        "--leaf-sums 7",
        "--split alternating",
        "--shifts -1:0,0:2",
    ];
    insta::assert_snapshot!(bench.fails(1, &format!("{resume} {}", flags[..flags.len() - 1].join(" "))), @"error: --resume: the model in m is not what the flags ask for: --leaf normal (the model has categorical), --levels 4 (the model has 3), --channels 5 (the model has 4), --leaf-sums 7 (the model has none), --split alternating (the model has square), --leaf-channels 6 (the model has 4), --depth 3 (the model has 2), --kernel-size 3 (the model has 2), --repetitions 2 (the model has 1), --height 2 (the model has 4), --width 8 (the model has 4), --colors 3 (the model has 1), --use-sum-conv (the model shares no weights), --shared-leaves (the model's pixels have leaves of their own); leave these flags out to go on with it, or train anew to another file");
    for flag in flags {
        let message = bench.fails(1, &format!("{resume} {flag}"));
        assert!(message.contains(&format!(": {flag} (the model")), "{message}");
    }
    assert_eq!(std::fs::read(bench.path("m")).unwrap(), before);
    write_npy_f32(&bench.path("wide.npy"), Array3::zeros((2, 2, 8)).view().into_dyn()).unwrap();
    let message = bench.fails(1, "train --data wide.npy --resume -o m");
    assert!(message.contains("images of 2 x 8 x 1, the model is of 4 x 4 x 1"), "{message}");
}

#[test]
fn resuming_with_flags_that_agree_or_with_none_goes_on() {
    let bench = Bench::new();
    for flags in [
        "--leaf categorical --levels 3 --channels 3 --leaf-channels 2 --depth 1 --height 4 --width 4 --colors 1",
        "--levels 3 --channels 3 --shared-leaves --leaf-init histograms --leaf-noise 0.5 --concentration 2",
        "--levels 3 --channels 3 --shared-leaves --leaf-noise 0.5 --leaf-window 0.3",
        "--leaf normal --channels 3 --leaf-init clusters --leaf-patch 2",
        "--leaf discretized-logistic --levels 3 --channels 2",
        "--leaf discretized-logistic --levels 3 --channels 2 --shared-leaves --leaf-init histograms",
        "--leaf binomial --levels 3 --channels 2 --kernel-size 3 --repetitions 2 --use-sum-conv",
        "--levels 3 --channels 3 --depth 3 --shifts=-2:-1,0:0,2:1",
        "--levels 3 --channels 3,5 --leaf-sums 4 --split alternating --depth 2 --kernel-size 2",
        // Levels say nothing about these leaves, a new circuit's either.
        "--leaf normal --levels 3 --channels 2",
    ] {
        bench.prints(&format!("train --data x.npy --epochs 1 --force -o m {flags}"));
        bench.prints(&format!("train --data x.npy --epochs 1 -o m --resume {flags}"));
        bench.prints("train --data x.npy --epochs 1 -o m --resume");
    }
}

#[test]
fn a_grown_model_is_the_same_without_noise_and_can_be_learned_on() {
    let bench = Bench::new();
    bench.train();
    let score = |model: &str| number(&bench.prints(&format!("score {model} --data x.npy")), "mean log-likelihood");
    bench.prints("grow m --factor 3 --noise 0 -o same");
    assert!((score("same") - score("m")).abs() < 1e-3);
    bench.prints("grow m --factor 2 --noise 0.5 -o grown");
    assert!(bench.prints("info grown").contains("2×2×8"));
    let before = score("grown");
    bench.prints("train --data x.npy --channels 8 --epochs 3 --resume -o grown");
    assert!(score("grown") > before);
    let message = bench.fails(2, "grow m --factor 0 -o none");
    assert!(message.contains("factor"), "{message}");
}

#[test]
fn a_mixture_of_models_has_their_mean_likelihood_and_can_be_learned_on() {
    let bench = Bench::new();
    let train = |seed: u64, shifts: &str, model: &str| {
        let begin = format!("train --data x.npy --levels 3 --channels 3 --depth 3 --epochs 2 --seed {seed}");
        bench.prints(&format!("{begin} --shifts={shifts} -o {model}"));
    };
    train(1, "0:0", "a");
    train(2, "1:-1", "b");
    let score = |model: &str| number(&bench.prints(&format!("score {model} --data x.npy")), "mean log-likelihood");
    bench.prints("mix a b -o even");
    let info = bench.prints("info even");
    assert!(info.contains("pad 2,2,2,2 or 3,1,1,3") && info.contains("RepetitionMixing"), "{info}");
    // No part is worse than by the factor that it has in the mixture.
    let best = score("a").max(score("b"));
    assert!(score("even") >= best - 2f64.ln() - 1e-3 && score("even") < best + 1.0, "{} {best}", score("even"));
    bench.prints("mix a b --weights 1,0 -o first");
    assert!((score("first") - score("a")).abs() < 1e-3);
    let output = bench.run("train --data x.npy --algorithm em --pseudocount 0 --epochs 1 --resume -o first");
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && note.starts_with("note: 1 of 2 repetitions explain no image"), "{note}");
    let before = score("even");
    bench.prints("train --data x.npy --shifts=0:0,1:-1 --epochs 3 --resume -o even");
    assert!(score("even") > before);
    let message = bench.fails(1, "mix a b --weights 1,-1 -o none");
    assert!(message.contains("the list of a mixture's weights is [1.0, -1.0]"), "{message}");
    bench.train();
    let message = bench.fails(1, "mix a m -o none");
    assert!(message.contains("a circuit of a mixture is of"), "{message}");
    bench.fails(2, "mix a -o none");
}

#[test]
fn a_pruned_model_is_the_same_unless_weights_are_left_out() {
    let bench = Bench::new();
    bench.train();
    let score = |model: &str| number(&bench.prints(&format!("score {model} --data x.npy")), "mean log-likelihood");
    bench.prints("prune m -o same");
    assert!((score("same") - score("m")).abs() < 1e-3);
    bench.prints("prune m --below 1 -o small");
    assert!(bench.prints("info small").contains("2×2×1"), "{}", bench.prints("info small"));
    assert!(score("small") < score("m"));
    // Of a mixture that gives one model all its weight, one repetition is left.
    let train = |seed: u64, model: &str| {
        bench.prints(&format!("train --data x.npy --levels 3 --channels 3 --epochs 2 --seed {seed} -o {model}"));
    };
    train(1, "a");
    train(2, "b");
    bench.prints("mix a b --weights 0,1 -o mixed");
    bench.prints("prune mixed -o one");
    let repeated = |model: &str| bench.prints(&format!("info {model}")).contains(" ×2");
    assert!(repeated("mixed") && !repeated("one"), "{}", bench.prints("info one"));
    assert!((score("one") - score("mixed")).abs() < 1e-3);
    let message = bench.fails(2, "prune m --below 2 -o none");
    assert!(message.contains("a number from 0 to 1"), "{message}");
}

#[test]
fn ways_to_begin_that_do_not_fit_are_errors() {
    let bench = Bench::new();
    let message = bench.fails(2, "import-spflow x.npy --leaf discretized-logistic --height 4 --width 4 -o none");
    assert!(message.contains("SPFlow has no discretized logistic leaves"), "{message}");
    for (flags, expected) in [
        ("--leaf normal --leaf-init histograms", "expected a table"),
        ("--levels 3 --leaf-init rows --leaf-noise 1", "--leaf-noise 1 belongs to histograms"),
        ("--levels 3 --leaf-patch 2", "--leaf-patch 2 belongs to clusters"),
        ("--leaf normal --leaf-init clusters --leaf-patch 0", "must be at least 1"),
        ("--levels 3 --leaf-window 0.2", "--leaf-window 0.2 belongs to windows"),
        ("--levels 3 --concentration 0", "concentration"),
    ] {
        let message = bench.fails(2, &format!("train --data x.npy -o m {flags}"));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn defaults_are_those_that_the_help_tells() {
    let bench = Bench::new();
    let help = bench.prints("train --help");
    let default = |flag: &str| {
        let line = help.lines().find(|line| line.contains(&format!("{flag} <"))).expect(flag);
        line.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']')).expect(line).0
    };
    let flags = ["--leaf", "--levels", "--channels", "--kernel-size", "--repetitions"];
    let typed: Vec<String> = flags.iter().map(|flag| format!("{flag} {}", default(flag))).collect();
    bench.prints("train --data x.npy --epochs 1 -o m");
    bench.prints(&format!("train --data x.npy --epochs 1 -o m --resume {}", typed.join(" ")));
}

#[test]
fn score_prints_what_it_writes() {
    let bench = Bench::new();
    bench.train();
    let cpu = bench.prints("score m --data x.npy -o ll.npy --threads 2");
    let reference = bench.prints("--backend reference score m --data x.npy");
    assert_eq!(number(&cpu, "rows"), 30.0);
    let mean = number(&cpu, "mean log-likelihood");
    assert!((mean - number(&reference, "mean log-likelihood")).abs() < 1e-2);
    let bits = -mean / (16.0 * std::f64::consts::LN_2);
    assert!((number(&cpu, "bits per dimension") - bits).abs() < 1e-4);
    assert!(!cpu.contains("densities"));
    let bytes = std::fs::read(bench.path("ll.npy")).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("'<f8'"));
    let written: f64 = bytes[bytes.len() - 240..].as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).sum();
    assert!((written / 30.0 - mean).abs() < 1e-3);
}

/// Rows that miss different numbers of values count by what was observed, in all scores alike.
#[test]
fn bits_per_dimension_are_those_of_the_observed_variables() {
    let bench = Bench::new();
    bench.train();
    let mut data = values(&bench.path("x.npy"));
    for (row, mut values) in data.outer_iter_mut().enumerate() {
        values.iter_mut().take(row % 15).for_each(|x| *x = f32::NAN);
    }
    let images = |data: &Array2<f32>| data.clone().into_shape_with_order((data.nrows(), 4, 4)).unwrap().into_dyn();
    write_npy_f32(&bench.path("holes.npy"), images(&data).view()).unwrap();
    let observed = data.iter().filter(|x| !x.is_nan()).count() as f64 / 30.0;
    let bits = |nats: f64| -nats / (observed * std::f64::consts::LN_2);
    let printed = bench.prints("score m --data holes.npy");
    let nats = number(&printed, "mean log-likelihood");
    assert!((number(&printed, "bits per dimension") - bits(nats)).abs() < 2e-4, "{printed}");

    let train = "train --data holes.npy --valid holes.npy --levels 3 --channels 4 --epochs 2 --metrics log.jsonl -o n";
    let printed = bench.prints(train);
    for (line, record) in printed.lines().skip(1).zip(records(&bench.path("log.jsonl"))) {
        for (name, at, kind) in [("train", "before the step", "train"), ("held out", "held-out after it", "valid")] {
            let nats = record[format!("{kind}_nats")].as_f64().unwrap();
            let given = record[format!("{kind}_bits")].as_f64().unwrap();
            assert!((given - bits(nats)).abs() < 1e-12, "{name}: {record}");
            let rest = line.split_once(at).unwrap().1;
            assert!((number(rest, " nats,") - given).abs() < 1e-4, "{line}");
        }
    }
}

#[test]
fn what_observes_nothing_has_no_bits_and_zeros_have_no_sign() {
    let bench = Bench::new();
    bench.train();
    let nothing = Array3::from_elem((30, 4, 4), f32::NAN);
    write_npy_f32(&bench.path("nothing.npy"), nothing.view().into_dyn()).unwrap();
    for backend in ["cpu", "reference"] {
        let printed = bench.prints(&format!("--backend {backend} score m --data nothing.npy"));
        let lines: Vec<&str> = printed.lines().collect();
        let expected =
            ["mean log-likelihood  0.0000 nats", "bits per dimension   none, since no variable was observed"];
        assert_eq!(lines[1..], expected, "{backend}");
    }
    let printed =
        bench.prints("train --data x.npy --valid nothing.npy --levels 3 --channels 2 --epochs 1 --metrics l -o n");
    assert!(printed.contains("held-out after it 0.000 nats, no variable was observed"), "{printed}");
    assert!(records(&bench.path("l"))[0]["valid_bits"].is_null());
}

#[test]
fn scores_of_continuous_leaves_are_called_densities() {
    let bench = Bench::new();
    bench.prints("train --data x.npy --leaf normal --channels 2 --epochs 2 -o m");
    assert!(bench.prints("score m --data x.npy").contains("densities"));
}

#[test]
fn samples_depend_on_the_seed_alone() {
    let bench = Bench::new();
    bench.train();
    bench.prints("sample m -n 1500 --seed 4 -o a.npy --threads 1");
    bench.prints("sample m -n 3 --seed 4 -o b.npy --threads 2");
    bench.prints("sample m -n 3 --seed 5 -o c.npy");
    let (a, b, c) = (values(&bench.path("a.npy")), values(&bench.path("b.npy")), values(&bench.path("c.npy")));
    assert_eq!(a.dim(), (1500, 16));
    assert_eq!(a.slice(s![..3, ..]), b);
    assert_ne!(b, c);
    assert!(a.iter().all(|x| [0.0, 1.0, 2.0].contains(x)));
    bench.prints("sample m -n 3");
    assert!(bench.path("samples.png").is_file());
}

#[test]
fn completions_keep_what_was_seen() {
    let bench = Bench::new();
    bench.train();
    let mut data = values(&bench.path("x.npy"));
    data[[0, 15]] = f32::NAN;
    write_npy_f32(&bench.path("holes.npy"), data.view().into_dyn()).unwrap();
    let mask = Array2::from_shape_fn((4, 4), |(i, _)| f32::from(u8::from(i == 0)));
    write_npy_f32(&bench.path("mask.npy"), mask.view().into_dyn()).unwrap();
    for (mask, seen) in [("left", 2..4), ("right", 0..2), ("mask.npy", 0..4), ("top", 0..4), ("bottom", 0..0)] {
        for how in ["sample", "mpe", "greedy"] {
            bench.prints(&format!("complete m --data holes.npy --mask {mask} --how {how} -o y.npy"));
            let completed = values(&bench.path("y.npy"));
            assert_eq!(completed.dim(), (30, 16));
            assert!(completed.iter().all(|x| !x.is_nan()), "{mask} {how}");
            // Row 2 of pixels is never hidden by `top` or the mask's first row.
            for column in seen.clone().map(|j| 8 + j) {
                assert_eq!(completed.column(column), data.column(column), "{mask} {how}");
            }
        }
    }
    bench.prints("complete m --data holes.npy --mask center -o y.png");
    assert!(bench.path("y.png").is_file());
}

#[test]
fn marginals_score_as_missing_values_do() {
    let bench = Bench::new();
    bench.train();
    let mut data = values(&bench.path("x.npy"));
    let top = data.slice(s![.., ..8]).to_owned();
    write_npy_f32(&bench.path("top.npy"), top.view().into_dyn()).unwrap();
    data.slice_mut(s![.., 8..]).fill(f32::NAN);
    write_npy_f32(&bench.path("holes.npy"), data.view().into_dyn()).unwrap();
    let expected = number(&bench.prints("score m --data holes.npy"), "mean log-likelihood");
    for drop in ["bottom", "8-15", "8-15 --no-prune", "8,9,10,11,12-14,15"] {
        bench.prints(&format!("marginalize m --drop {drop} -o m2 --force"));
        let given = number(&bench.prints("score m2 --data top.npy"), "mean log-likelihood");
        assert!((given - expected).abs() < 1e-3, "{drop}: {given} is not {expected}");
        assert!(bench.prints("info m2").starts_with("ConvPc over 8 variables"));
    }
}

#[test]
fn a_circuit_of_spflow_scores_as_it_did() {
    let bench = Bench::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/golden/normal_8x8_reps3.safetensors");
    std::fs::copy(golden, bench.path("state")).unwrap();
    bench.prints("import-spflow state --leaf normal --height 8 --width 8 -o m");
    let note = bench.prints("import-spflow state --leaf normal -o m --force");
    assert!(note.starts_with("note: loc and log_scale are what SPFlow's Laplace and LogNormal leaves have"), "{note}");
    assert!(bench.prints("info m").starts_with("ConvPc over 64 variables (8×8, 1 color), normal leaves"));
    let message = bench.fails(1, "import-spflow state --leaf bernoulli --height 8 --width 8 -o m2");
    assert!(message.contains("another leaf family"), "{message}");
    assert!(message.contains("--leaf normal fits"), "{message}");
    let message = bench.fails(1, "import-spflow state --leaf normal --height 4 --width 16 -o m2");
    assert!(message.contains("64 variables = 8×8"), "{message}");
    bench.fails(1, "import-spflow x.npy --leaf normal --height 8 --width 8 -o m2");
}

#[test]
fn the_demo_beats_independent_pixels_and_writes_its_files() {
    let bench = Bench::new();
    let printed = bench.prints("demo --out made/here");
    // Behind a name: nats and bits of the training data, nats and bits of the held-out data.
    let held_out = |name: &str| -> f64 {
        let line = printed.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{printed}"));
        line[name.len()..].split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    assert!(held_out("convpc  ") > held_out("independent pixels") + 15.0, "{printed}");
    for file in ["model.safetensors", "samples.png", "completions.png", "curve.svg"] {
        assert!(bench.path("made/here").join(file).is_file(), "{file}");
    }
    assert!(bench.prints("info made/here/model.safetensors").starts_with("ConvPc over 64 variables"));
}

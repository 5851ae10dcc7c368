//! What `sample`, `complete` and `score` write: the shape and the type of arrays, pipes, and rows that have no answer.

mod common;

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

use common::{Bench, number};
use convpc::data::{Element, ImageShape, Images, read, write_npy_f32};
use ndarray::{Array2, Array3, s};

impl Bench {
    fn new() -> Self {
        Bench(tempfile::tempdir().unwrap())
    }

    fn images(&self, name: &str) -> Images {
        read(&self.path(name)).unwrap()
    }

    /// Runs a command that is given a file on its standard input.
    fn piped(&self, arguments: &str, input: &str) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&fs::read(self.path(input)).unwrap()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// A model that never saw level 7, and six images of which the rows 1 and 4 have it.
    fn with_impossible_rows(&self) {
        self.array("x.npy", &[20, 4, 4], |at| (at * 7 % 11 % 3) as f32);
        self.array("b.npy", &[6, 4, 4], |at| {
            if [1, 4].contains(&(at / 16)) && at % 16 == 3 { 7.0 } else { (at % 3) as f32 }
        });
        self.prints("train --data x.npy --levels 8 --channels 2 --pseudocount 0 --leaf-init rows --epochs 2 -o m");
    }
}

const TRAIN: &str = "--channels 2 --epochs 1 --force -o m";

/// The standard error of a command that must succeed.
fn warnings(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn arrays_have_the_shape_of_the_images_and_the_type_of_the_leaves() {
    let bench = Bench::new();
    bench.array("grey.npy", &[10, 4, 6], |at| (at % 3) as f32);
    bench.array("color.npy", &[10, 8, 5, 3], |at| (at % 2) as f32);
    let shape = |height, width, colors| Some(ImageShape { height, width, colors });
    for (data, leaf, element, expected) in [
        ("grey", "--levels 3", Element::U8, shape(4, 6, 1)),
        ("grey", "--levels 256", Element::U8, shape(4, 6, 1)),
        ("grey", "--levels 257", Element::U16, shape(4, 6, 1)),
        ("grey", "--leaf binomial --levels 65537", Element::U32, shape(4, 6, 1)),
        ("grey", "--leaf normal", Element::F32, shape(4, 6, 1)),
        ("color", "--leaf bernoulli", Element::U8, shape(8, 5, 3)),
    ] {
        bench.prints(&format!("train --data {data}.npy {leaf} {TRAIN}"));
        bench.prints("sample m -n 7 -o s.npy");
        bench.prints(&format!("complete m --data {data}.npy --mask left -o c.npy"));
        for (file, rows) in [("s.npy", 7), ("c.npy", 10)] {
            let images = bench.images(file);
            assert_eq!(
                (images.shape, images.element, images.values.nrows()),
                (expected, element, rows),
                "{leaf} {file}"
            );
            if file == "c.npy" {
                // The right side of the last row of pixels, which is not hidden.
                let given = bench.images(&format!("{data}.npy")).values;
                assert_eq!(images.values.slice(s![.., -3..]), given.slice(s![.., -3..]), "{leaf}");
            }
            // What was written is read back, shape and all.
            bench.prints(&format!("train --data {file} {leaf} --channels 2 --epochs 1 --force -o again"));
        }
    }
    // Without some of its variables an image has no shape.
    bench.prints("marginalize m --drop left -o part");
    bench.prints("sample part -n 3 -o s.npy");
    assert_eq!((bench.images("s.npy").shape, bench.images("s.npy").values.dim()), (None, (3, 72)));
}

#[test]
fn images_come_and_go_through_pipes() {
    let bench = Bench::new();
    bench.array("x.npy", &[30, 4, 4], |at| (at * 5 % 7 % 3) as f32);
    bench.prints(&format!("train --data x.npy --levels 3 {TRAIN}"));
    let (file, pipe) =
        (fs::read(bench.path("m")).unwrap(), bench.piped(&format!("train --data - --levels 3 {TRAIN}"), "x.npy"));
    assert_eq!(warnings(&pipe), "");
    assert!(String::from_utf8(pipe.stdout).unwrap().starts_with("30 images of 4 × 4"));
    assert_eq!(file, fs::read(bench.path("m")).unwrap());

    for (arguments, output) in [("sample m -n 2000", "s.npy"), ("complete m --mask left --data x.npy", "c.npy")] {
        bench.prints(&format!("{arguments} -o {output}"));
        let piped = bench.run(&format!("{arguments} -o -"));
        assert_eq!(warnings(&piped), "");
        assert!(piped.stdout == fs::read(bench.path(output)).unwrap(), "{arguments}");
    }
    let piped = bench.piped("complete m --mask left --data - -o -", "x.npy");
    assert!(piped.status.success() && piped.stdout == fs::read(bench.path("c.npy")).unwrap());
    assert!(!bench.path("-").exists());

    let said = bench.prints("score m --data x.npy");
    let piped = bench.piped("score m --data - -o -", "x.npy");
    assert_eq!(warnings(&piped), said);
    let scores: Vec<f64> = String::from_utf8(piped.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    let mean = scores.iter().sum::<f64>() / 30.0;
    assert!((mean - number(&said, "mean log-likelihood")).abs() < 1e-4 && scores.len() == 30, "{said}");

    let message = String::from_utf8(bench.piped("score m --data -", "m").stderr).unwrap();
    assert!(message.starts_with("error: 'standard input' "), "{message}");
    assert!(bench.fails(2, "train --data - --valid - --levels 3 -o n").contains("only once"));
}

#[test]
fn rows_of_probability_zero_stay_and_the_others_are_completed() {
    let bench = Bench::new();
    bench.with_impossible_rows();
    for how in ["sample", "mpe", "greedy"] {
        let output = bench.run(&format!("complete m --data b.npy --mask bottom --how {how} -o c.npy"));
        assert_eq!(
            warnings(&output),
            "warning: 2 of 6 rows have probability 0 under the model and are left as they were given: rows 1, 4 (the first is row 0)\n"
        );
        let (given, completed) = (bench.images("b.npy").values, bench.images("c.npy"));
        assert_eq!(
            (completed.element, completed.shape),
            (Element::U8, Some(ImageShape { height: 4, width: 4, colors: 1 }))
        );
        assert!([1, 4].iter().all(|row| completed.values.row(*row) == given.row(*row)), "{how}");
        assert_eq!(completed.values.slice(s![.., ..8]), given.slice(s![.., ..8]), "{how}");
        assert_ne!(completed.values, given, "{how}");
    }
    // The others are completed as if the impossible ones were not there.
    let possible = bench.images("b.npy").values.select(ndarray::Axis(0), &[0, 2]);
    write_npy_f32(&bench.path("p.npy"), possible.view().into_dyn()).unwrap();
    bench.prints("complete m --data p.npy --mask bottom --how mpe -o d.npy");
    bench.run("complete m --data b.npy --mask bottom --how mpe -o c.npy");
    assert_eq!(bench.images("d.npy").values, bench.images("c.npy").values.select(ndarray::Axis(0), &[0, 2]));
}

#[test]
fn images_that_lack_nothing_are_written_as_they_are_with_a_note() {
    let bench = Bench::new();
    bench.array("x.npy", &[20, 4, 4], |at| (at * 7 % 11 % 3) as f32);
    bench.prints(&format!("train --data x.npy --levels 3 {TRAIN}"));
    assert!(warnings(&bench.run("complete m --data x.npy -o c.npy")).starts_with("note: no value is missing"));
    assert_eq!(bench.images("c.npy").values, bench.images("x.npy").values);
    assert_eq!(warnings(&bench.run("complete m --data x.npy --mask left -o c.npy")), "");
}

#[test]
fn a_row_that_stays_as_it_was_given_keeps_its_missing_values() {
    let bench = Bench::new();
    bench.with_impossible_rows();
    let mut holes = bench.images("b.npy").values;
    holes[[2, 0]] = f32::NAN;
    let write = |holes: &Array2<f32>| {
        write_npy_f32(&bench.path("h.npy"), holes.clone().into_shape_with_order((6, 4, 4)).unwrap().view().into_dyn())
            .unwrap();
        let output = bench.run("complete m --data h.npy -o c.npy");
        assert!(warnings(&output).starts_with("warning: 2 of 6 rows"));
        bench.images("c.npy")
    };
    assert_eq!(write(&holes).element, Element::U8);
    holes[[4, 0]] = f32::NAN;
    let images = write(&holes);
    assert_eq!(images.element, Element::F32);
    let missing: Vec<_> = images.values.indexed_iter().filter(|(_, x)| x.is_nan()).map(|(at, _)| at).collect();
    assert_eq!(missing, [(4, 0)]);
}

#[test]
fn score_counts_rows_of_probability_zero_and_scores_the_others() {
    let bench = Bench::new();
    bench.with_impossible_rows();
    let output = bench.run("score m --data b.npy -o l.npy");
    let warning = warnings(&output);
    assert_eq!(warning, "warning: 2 of 6 rows have probability 0 under the model: rows 1, 4 (the first is row 0)\n");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(number(&said, "mean log-likelihood"), f64::NEG_INFINITY);
    assert_eq!(number(&said, "impossible rows"), 2.0);
    let possible = bench.images("b.npy").values.select(ndarray::Axis(0), &[0, 2, 3, 5]);
    write_npy_f32(&bench.path("p.npy"), possible.view().into_dyn()).unwrap();
    let others = bench.prints("score m --data p.npy");
    assert!(!others.contains("impossible"), "{others}");
    assert!(
        (number(&said, "mean of the others") - number(&others, "mean log-likelihood")).abs() < 1e-3,
        "{said}{others}"
    );
    assert!(
        said.contains(&format!("{} bits per dimension, 4 rows", number(&others, "bits per dimension"))),
        "{said}{others}"
    );
}

/// Batches have 1024 rows of such images.
#[test]
fn rows_that_are_refused_in_a_later_batch_have_their_numbers_in_the_file() {
    let bench = Bench::new();
    bench.with_impossible_rows();
    let images = Array3::from_shape_fn((1100, 4, 4), |(row, i, j)| match (row, i, j) {
        (3 | 1030, 0, 3) => 7.0,
        (3 | 1050, 1, 1) => f32::NAN,
        _ => ((4 * i + j) % 3) as f32,
    });
    write_npy_f32(&bench.path("x.npy"), images.view().into_dyn()).unwrap();
    let output = bench.run("complete m --data x.npy --mask bottom -o c.npy");
    assert_eq!(
        warnings(&output),
        "warning: 2 of 1100 rows have probability 0 under the model and are left as they were given: rows 3, 1030 (the first is row 0)\n"
    );
    let completed = bench.images("c.npy").values;
    let missing: Vec<_> = completed.indexed_iter().filter(|(_, x)| x.is_nan()).map(|(at, _)| at).collect();
    assert_eq!(missing, [(3, 5)]);
    // Images that are alike are completed by draws of their own.
    bench.array("alike.npy", &[1100, 4, 4], |at| (at % 16 % 3) as f32);
    bench.prints("complete m --data alike.npy --mask bottom -o c.npy");
    let completed = bench.images("c.npy").values;
    assert_ne!(completed.slice(s![..76, ..]), completed.slice(s![1024.., ..]));
}

/// `script` runs a command on a terminal of its own.
#[cfg(target_os = "linux")]
#[test]
fn numbers_are_neither_read_from_a_terminal_nor_written_to_one() {
    let bench = Bench::new();
    let convpc = env!("CARGO_BIN_EXE_convpc");
    for (command, says) in [
        ("sample m -n 3 -o -", "error: -o - writes to standard output, which is a terminal"),
        ("complete m --data x.npy --mask left -o -", "error: -o - writes to standard output, which is a terminal"),
        ("score m --data -", "error: - reads an array from standard input, which is a terminal"),
        ("train --data - -o n", "error: - reads an array from standard input, which is a terminal"),
    ] {
        let mut script = Command::new("script");
        script.current_dir(bench.0.path()).args(["-qec", &format!("{convpc} {command}"), "/dev/null"]);
        let Ok(output) = script.stdin(Stdio::null()).output() else {
            return; // This system has no `script`.
        };
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(2) && shown.contains(says), "{command}: {shown}");
    }
}

#[test]
fn nothing_but_rows_of_probability_zero_is_an_error() {
    let bench = Bench::new();
    bench.with_impossible_rows();
    let impossible = bench.images("b.npy").values.select(ndarray::Axis(0), &[1, 4]);
    write_npy_f32(&bench.path("p.npy"), impossible.view().into_dyn()).unwrap();
    for (arguments, says) in [
        ("complete m --data p.npy --mask bottom -o c.npy", "error: no row could be completed; give rows"),
        ("score m --data p.npy -o l.npy", "error: no row has a finite score"),
    ] {
        let output = bench.run(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && message.contains(says), "{message}");
    }
    assert!(!bench.path("c.npy").exists() && bench.path("l.npy").exists());
    assert!(
        fs::read_dir(bench.0.path()).unwrap().all(|file| !file
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .ends_with(".tmp"))
    );
}

/// 12,000 images of 64 × 64 pixels are 197 MB of float32, more than there is for them and everything else together.
#[cfg(target_os = "linux")]
#[test]
fn images_are_read_and_written_batch_by_batch() {
    let bench = Bench::new();
    bench.array("x.npy", &[8, 64, 64], |at| (at % 4) as f32);
    bench.prints(&format!("train --data x.npy --levels 4 {TRAIN}"));
    let convpc = env!("CARGO_BIN_EXE_convpc");
    for command in [
        "sample m -n 12000 -o s.npy",
        "sample m -n 12000 -o - > t.npy",
        "score m --data s.npy -o l.npy",
        "complete m --data s.npy --mask left --how greedy -o c.npy",
    ] {
        // In KiB of addresses, of which the allocator reserves more for each of its arenas than there are.
        let script = format!("ulimit -v 196608; export MALLOC_ARENA_MAX=1; exec {convpc} --threads 1 {command}");
        let output = Command::new("sh").current_dir(bench.0.path()).args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
    let [drawn, piped, completed] = ["s.npy", "t.npy", "c.npy"].map(|name| fs::read(bench.path(name)).unwrap());
    assert!(drawn.len() == 128 + 12_000 * 64 * 64 && drawn == piped && completed.len() == drawn.len());
    assert_eq!(fs::metadata(bench.path("l.npy")).unwrap().len(), 128 + 12_000 * 8);
}

/// A value that does not fit is told with its row in the file, and advice that depends on all values.
#[test]
fn a_value_outside_in_a_later_batch_has_its_row() {
    let bench = Bench::new();
    bench.array("x.npy", &[3000, 2, 2], |at| (at % 3) as f32);
    bench.prints(&format!("train --data x.npy --levels 3 {TRAIN}"));
    bench.array("y.npy", &[3000, 2, 2], |at| {
        if at == 11 {
            0.0
        } else if at == 9001 {
            7.0
        } else if at == 11_000 {
            9.0
        } else {
            1.0
        }
    });
    for command in ["score m --data y.npy -o l.npy", "complete m --data y.npy -o c.npy"] {
        let message = bench.fails(1, command);
        assert!(
            message.contains("y.npy: row 2250, variable 1 is 7, outside") && message.contains("from 0 to 9"),
            "{message}"
        );
        let piped = String::from_utf8(bench.piped(&command.replace("y.npy", "-"), "y.npy").stderr).unwrap();
        assert!(piped.contains("standard input: row 2250, variable 1 is 7, outside"), "{piped}");
    }
    assert!(!bench.path("l.npy").exists() && !bench.path("c.npy").exists());
}

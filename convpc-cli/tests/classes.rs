//! Classes as users of the command meet them: trained with labels, scored, sampled.

mod common;

use std::fs;

use common::{Bench, number};
use convpc::{
    data::{read, write_npy_f32},
    model,
};
use ndarray::{Array3, Axis};

/// Of 4×4 pixels: stripes along rows, or along columns, or neither; a few pixels are wrong.
fn class(row: usize) -> usize {
    row * 7 % 5 % 3
}

impl Bench {
    fn new() -> Self {
        let bench = Bench(tempfile::tempdir().unwrap());
        let images = Array3::from_shape_fn((100, 4, 4), |(row, i, j)| {
            let wrong = usize::from((row * 31 + i * 17 + j * 13) % 11 == 0);
            ([i % 2, j % 2, 0][class(row)] ^ wrong) as f32
        });
        write_npy_f32(&bench.path("x.npy"), images.view().into_dyn()).unwrap();
        bench.labels("y", 0..100);
        let held_out = images.select(Axis(0), &(0..40).collect::<Vec<_>>());
        write_npy_f32(&bench.path("v.npy"), held_out.view().into_dyn()).unwrap();
        bench.labels("w", 0..40);
        bench
    }

    /// The labels of rows, as MNIST has them.
    fn labels(&self, name: &str, rows: std::ops::Range<usize>) {
        let mut bytes = vec![0, 0, 8, 1, 0, 0, 0, rows.len() as u8];
        bytes.extend(rows.map(|row| class(row) as u8));
        fs::write(self.path(name), bytes).unwrap();
    }
}

const TRAIN: &str = "train --data x.npy --leaf bernoulli --threads 1 --force -o m";

#[test]
fn labels_teach_a_model_to_tell_classes_apart() {
    let bench = Bench::new();
    for flags in [
        "--epochs 20",
        "--algorithm minibatch-em --epochs 10 --batch-size 20",
        "--algorithm adam --epochs 20 --batch-size 20",
    ] {
        let printed = bench
            .prints(&format!("{TRAIN} --channels 4 --labels y --valid v.npy --valid-labels w --metrics log {flags}"));
        let last = printed.lines().last().unwrap();
        assert!(number(last, "accuracy") >= 0.95, "{flags}: {last}");
        let log = fs::read_to_string(bench.path("log")).unwrap();
        let record: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        let scored = bench.prints("score m --data v.npy --labels w -o scores.npy");
        // The model is the best of the run, which the last need not be.
        if record["best"] == true {
            assert!((number(&scored, "accuracy") - record["accuracy"].as_f64().unwrap()).abs() < 1e-4, "{scored}");
            // What is validated is the joint of image and class: that of the image, and the posterior of its class.
            let joint = number(&scored, "mean log-likelihood") + number(&scored, "mean log-posterior");
            assert!((joint - record["valid_nats"].as_f64().unwrap()).abs() < 1e-3, "{scored} {record}");
        }
        let right = number(&scored, "accuracy") * 40.0;
        assert!(scored.contains(&format!(", {right:.0} of the rows")), "{scored}");
        let plain = bench.prints("score m --data v.npy");
        assert!(scored.starts_with(plain.trim_end()), "{plain} {scored}");
        assert!(
            bench.prints("info m").starts_with("ConvPc over 16 variables (4×4, 1 color), bernoulli leaves, 3 classes")
        );
    }
    // Samples of a class are of that class.
    bench.prints("sample m -n 50 --class 1 -o s.npy");
    let samples = read(&bench.path("s.npy")).unwrap().values;
    let like = |row: ndarray::ArrayView1<f32>| row.iter().enumerate().filter(|(at, x)| **x == (at % 2) as f32).count();
    assert!(samples.outer_iter().filter(|row| like(*row) >= 12).count() >= 40);
    assert!(bench.fails(2, "sample m -n 5 --class 3 -o s.npy").contains("there is no class 3: the circuit has 3"));
}

#[test]
fn held_out_images_have_the_labels_of_their_rows() {
    let bench = Bench::new();
    let printed = bench.prints(&format!("{TRAIN} --labels y --valid-fraction 0.4 --channels 8 --epochs 20"));
    assert!(number(printed.lines().last().unwrap(), "accuracy") >= 0.9, "{printed}"); // 0.4 with the labels of other rows
}

#[test]
fn a_run_goes_on_only_with_its_labels() {
    let bench = Bench::new();
    let flags = "--labels y --valid v.npy --valid-labels w --algorithm minibatch-em --epochs 2";
    bench.prints(&format!("{TRAIN} {flags}"));
    let whole = model::load(&bench.path("m")).unwrap();
    bench.interrupt(&format!("{TRAIN} {flags}"));
    fs::copy(bench.path("w"), bench.path("other")).unwrap();
    bench.labels("z", 1..101);
    let resume = |flags: &str| format!("train --data x.npy --valid v.npy --resume -o m {flags}");
    let message = bench.fails(1, &resume("--labels z --valid-labels w"));
    assert!(message.contains("--labels has 100 labels") && message.contains("give the same labels"), "{message}");
    let message = bench.fails(1, &resume(""));
    assert!(message.contains("--labels has none, the unfinished run has 100 labels"), "{message}");
    bench.labels("u", 1..41);
    assert!(bench.fails(1, &resume("--labels y --valid-labels u")).contains("--valid-labels has 40 labels"));
    assert!(
        bench.fails(1, &resume("--labels y --valid-labels w --classes 4")).contains("--classes 4 (the model has 3)")
    );
    assert!(bench.prints(&resume("--labels y --valid-labels w --classes 3")).contains("f32\nepoch 2"));
    assert_eq!(model::load(&bench.path("m")).unwrap().structure(), whole.structure());
}

#[test]
fn labels_and_classes_that_do_not_fit_are_refused() {
    let bench = Bench::new();
    fs::write(bench.path("one"), [[0, 0, 8, 1, 0, 0, 0, 100].as_slice(), &[0; 100]].concat()).unwrap();
    // Of i32, the last label the largest.
    let far = [[0, 0, 12, 1, 0, 0, 0, 100].as_slice(), &[0; 99 * 4], &i32::MAX.to_be_bytes()].concat();
    fs::write(bench.path("far"), far).unwrap();
    for (status, flags, expected) in [
        (1, "--labels w", "40 labels were given for 100 rows"),
        (1, "--labels far", "the largest label is 2147483647, for 100 images; number the classes from 0"),
        (2, "--labels one", "labels need at least 2 classes, not 1"),
        (1, "--labels y --classes 2", "has the label 2, the circuit has 2 classes"),
        (2, "--labels y --valid v.npy", "give --valid-labels"),
        (1, "--labels y --valid v.npy --valid-labels y", "100 labels were given for 40 rows"),
        (1, "--labels x.npy", "a label for each image"),
        (1, "--labels none", "there is no file or folder 'none'"),
        (2, "--classes 0", "--classes is 0"),
    ] {
        let message = bench.fails(status, &format!("{TRAIN} {flags}"));
        assert!(message.contains(expected), "{flags}: {message}");
        assert!(!bench.path("m").exists());
    }
    // Without labels classes are the components of a mixture.
    bench.prints(&format!("{TRAIN} --classes 2 --epochs 1"));
    assert!(bench.fails(1, "score m --data x.npy --labels y").contains("has the label 2"));
    bench.prints(&format!("{TRAIN} --epochs 1"));
    assert!(bench.fails(1, "score m --data x.npy --labels y").contains("the model has no classes"));
    assert!(bench.fails(1, "sample m -n 1 --class 0").contains("the model has no classes"));
    assert!(bench.fails(1, "train --data x.npy --labels y --resume -o m").contains("the model has no classes"));
}

/// A thousand classes are no surprise, nor are as many as there are images.
#[test]
fn labels_may_name_many_classes() {
    let bench = Bench::new();
    bench.array("many.npy", &[1100, 2, 2], |at| (at % 2) as f32);
    let train = "--leaf bernoulli --channels 1 --epochs 1 --force -o m";
    for (images, count, most) in [("x", 100, 999), ("many", 1100, 1099)] {
        let labels = |most: usize| bench.array("many_y.npy", &[count], |at| if at == 7 { most as f32 } else { 0.0 });
        labels(most);
        bench.prints(&format!("train --data {images}.npy --labels many_y.npy {train}"));
        assert_eq!(model::load(&bench.path("m")).unwrap().structure().num_classes(), Some(most + 1));
        labels(most + 1);
        let message = bench.fails(1, &format!("train --data {images}.npy --labels many_y.npy {train}"));
        assert!(message.contains(&format!("the largest label is {}, for {count} images", most + 1)), "{message}");
    }
}

#[test]
fn the_label_of_a_row_that_no_class_explains_has_probability_zero() {
    let bench = Bench::new();
    bench.prints(
        "train --data x.npy --labels y --levels 8 --channels 2 --pseudocount 0 --leaf-init rows --epochs 2 --threads 1 -o m",
    );
    let mut images = read(&bench.path("x.npy")).unwrap().values.into_shape_with_order((100, 4, 4)).unwrap();
    images[[40, 0, 0]] = 7.0;
    write_npy_f32(&bench.path("b.npy"), images.view().into_dyn()).unwrap();
    let said = String::from_utf8(bench.run("score m --data b.npy --labels y").stdout).unwrap();
    assert_eq!(number(&said, "impossible rows"), 1.0, "{said}");
    assert_eq!(number(&said, "mean log-posterior"), f64::NEG_INFINITY, "{said}");
}

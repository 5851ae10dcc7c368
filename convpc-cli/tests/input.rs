//! Images as people have them: what the command says of them, and what it advises.

mod common;

use std::fs;

use common::{Bench, number};
use convpc::data::write_npy_f32;
use ndarray::{Array3, Array4};

impl Bench {
    fn new() -> Self {
        Bench(tempfile::tempdir().unwrap())
    }

    /// Writes an array of 8 × 8 unsigned 16-bit numbers, 10 images.
    fn sixteen_bit(&self, name: &str, value: impl Fn(usize) -> u16) {
        let header = "{'descr': '<u2', 'fortran_order': False, 'shape': (10, 8, 8), }\n";
        let mut bytes = b"\x93NUMPY\x01\0".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend((0..640).flat_map(|at| value(at).to_le_bytes()));
        fs::write(self.path(name), bytes).unwrap();
    }

    fn pictures(&self, folder: &str, count: usize) {
        fs::create_dir_all(self.path(folder)).unwrap();
        for at in 0..count {
            let pixels = Array3::from_elem((1, 8, 8), if at < count / 2 { 0.0 } else { 255.0 });
            let shape = convpc::data::ImageShape { height: 8, width: 8, colors: 3 };
            let pixels = pixels.into_shape_with_order((1, 64)).unwrap();
            let pixels = ndarray::Array2::from_shape_fn((1, 192), |(_, at)| pixels[(0, at / 3)]);
            let picture = convpc::picture::Picture::grid(pixels.view(), shape, (0.0, 255.0), 1, 1).unwrap();
            picture.write_png(&self.path(&format!("{folder}/{at}.png"))).unwrap();
        }
    }
}

const FLAGS: &str = "--channels 2 --epochs 1 --force -o m";

#[test]
fn train_says_what_it_read() {
    let bench = Bench::new();
    bench.array("grey.npy", &[30, 8, 12], |at| (at % 3) as f32);
    bench.array("chw.npy", &[24, 3, 8, 12], |at| (at % 3) as f32);
    bench.array("hwc.npy", &[1, 8, 12, 3], |at| (at % 3) as f32);
    bench.array("flat.npy", &[1234, 16], |at| (at % 3) as f32);
    bench.pictures("pictures", 6);
    for (flags, says) in [
        ("grey.npy --levels 3", "30 images of 8 × 12, 1 color, f32"),
        ("chw.npy --levels 3", "24 images of 8 × 12, 3 colors, f32"),
        ("hwc.npy --levels 3", "1 image of 8 × 12, 3 colors, f32"),
        ("chw.npy --levels 3 --layout hwc", "24 images of 3 × 8, 12 colors, f32"),
        ("flat.npy --levels 3 --height 4 --width 4", "1,234 rows of 16 variables, f32"),
        ("pictures", "6 images of 8 × 8, 3 colors, u8"),
        ("pictures/0.png", "1 image of 8 × 8, 3 colors, u8"),
    ] {
        let printed = bench.prints(&format!("train --data {flags} {FLAGS}"));
        assert_eq!(printed.lines().next(), Some(says), "{flags}");
    }
}

#[test]
fn colors_that_may_be_first_or_last_are_asked_for_unless_the_model_knows() {
    let bench = Bench::new();
    let images = Array4::from_shape_fn((20, 3, 7, 4), |(n, i, j, c)| ((n + i + j + c) % 2) as f32);
    write_npy_f32(&bench.path("x.npy"), images.view().into_dyn()).unwrap();
    let message = bench.fails(1, &format!("train --data x.npy --leaf bernoulli {FLAGS}"));
    assert!(message.contains("20 x 3 x 7 x 4") && message.contains("--layout chw or --layout hwc"), "{message}");
    for layout in ["chw", "hwc"] {
        bench.prints(&format!("train --data x.npy --leaf bernoulli --layout {layout} {FLAGS}"));
        let known = number(&bench.prints("score m --data x.npy"), "mean log-likelihood");
        let said = number(&bench.prints(&format!("score m --data x.npy --layout {layout}")), "mean log-likelihood");
        assert_eq!(known, said, "{layout}");
    }
}

#[test]
fn flags_and_masks_must_have_the_axes_of_the_images() {
    let bench = Bench::new();
    bench.array("x.npy", &[24, 8, 12], |at| (at % 2) as f32);
    bench.array("chw.npy", &[24, 3, 8, 12], |at| (at % 2) as f32);
    for (data, flags, wrong) in [
        ("x.npy", "--height 12 --width 8", "--height 12, --width 8"),
        ("x.npy", "--height 4 --width 24", "--height 4, --width 24"),
        ("x.npy", "--height 8 --width 4 --colors 3", "--width 4, --colors 3"),
        ("chw.npy", "--height 3 --width 8 --colors 12", "--height 3, --width 8, --colors 12"),
    ] {
        let message = bench.fails(2, &format!("train --data {data} {flags} --leaf bernoulli {FLAGS}"));
        assert!(message.contains(&format!("not {wrong};")) && message.contains("leave these flags out"), "{message}");
    }
    bench.prints(&format!("train --data x.npy --height 8 --width 12 --colors 1 --leaf bernoulli {FLAGS}"));
    for (sizes, fits) in [
        (&[8, 12][..], true),
        (&[8, 12, 1], true),
        (&[96], true),
        (&[12, 8], false),
        (&[1, 8, 12], false),
        (&[4, 24], false),
    ] {
        bench.array("mask.npy", sizes, |at| f32::from(at % 8 < 4));
        let complete = "complete m --data x.npy --mask mask.npy -o c.npy";
        if fits {
            bench.prints(complete);
        } else {
            let message = bench.fails(1, complete);
            assert!(message.contains("8 x 12 x 1") && message.contains("transpose"), "{message}");
        }
    }
}

#[test]
fn a_value_outside_is_told_with_the_range_and_what_helps() {
    let bench = Bench::new();
    bench.array("unit.npy", &[10, 8, 8], |at| (at % 11) as f32 / 10.0);
    bench.array("signed.npy", &[10, 8, 8], |at| (at % 9) as f32 / 4.0 - 1.0);
    bench.array("grey.npy", &[10, 8, 8], |at| (at % 256) as f32);
    bench.array("wide.npy", &[10, 8, 8], |at| (at % 600) as f32);
    bench.array("minus.npy", &[10, 8, 8], |at| (at % 5) as f32 - 1.0);
    bench.array("infinite.npy", &[10, 8, 8], |at| if at == 70 { f32::INFINITY } else { 0.5 });
    bench.sixteen_bit("deep.npy", |at| (at * 102) as u16);
    bench.sixteen_bit("twelve_bits.npy", |at| (at * 6) as u16);
    // The data, the flags, the parts of the message, and flags with which the advice is followed.
    for (data, flags, says, helps) in [
        (
            "unit",
            "",
            &["row 0, variable 1 is 0.1", "numbers from 0 to 1", "--quantize 256", "--leaf normal"][..],
            "--quantize 256",
        ),
        ("unit", "--leaf bernoulli", &["--binarize 0.5"], "--leaf bernoulli --binarize 0.5"),
        ("unit", "", &["categorical"], "--leaf normal"),
        ("signed", "--levels 9", &["--quantize 9 --range -1:1"], "--levels 9 --quantize 9 --range -1:1"),
        (
            "grey",
            "--leaf bernoulli",
            &["whole numbers from 0 to 255", "--binarize 127.5", "--levels 256"],
            "--leaf bernoulli --binarize 127.5",
        ),
        ("grey", "--leaf bernoulli", &["--leaf categorical"], "--leaf categorical --levels 256"),
        ("wide", "", &["row 4, variable 0 is 256", "--levels 600", "--quantize 256 --range 0:599"], "--levels 600"),
        ("wide", "--leaf binomial", &["binomial"], "--quantize 256 --range 0:599"),
        ("minus", "", &["row 0, variable 0 is -1", "missing, write NaN"], "--leaf normal"),
        ("deep", "", &["whole numbers from 0 to 65178", "--levels 65179, or --quantize 256. NaN"], "--quantize 256"),
        ("twelve_bits", "", &["--levels 3835, or --quantize 256 --range 0:3834"], "--quantize 256 --range 0:3834"),
        ("infinite", "--leaf normal", &["row 1, variable 6 is inf", "rescale"], "--binarize 1"),
    ] {
        let message = bench.fails(1, &format!("train --data {data}.npy {flags} {FLAGS}"));
        for part in [&[&format!("{data}.npy: row ")[..], "NaN marks a missing value"], says].concat() {
            assert!(message.contains(part), "{data} {flags}: no {part:?} in {message}");
        }
        bench.prints(&format!("train --data {data}.npy {helps} {FLAGS}"));
    }
    bench.prints(&format!("train --data grey.npy {FLAGS}"));
    let message = bench.fails(1, "score m --data unit.npy");
    assert!(message.contains("unit.npy: row 0, variable 1") && !message.contains("--leaf"), "{message}");
    bench.prints("score m --data unit.npy --quantize 256");
    bench.prints("complete m --data unit.npy --quantize 256 --mask left -o c.npy");
    bench.fails(2, &format!("train --data unit.npy --binarize 1 --quantize 3 {FLAGS}"));
    bench.fails(2, &format!("train --data unit.npy --range 0:1 {FLAGS}"));
}

#[test]
fn class_folders_give_images_and_labels_in_the_order_of_their_numbers() {
    let bench = Bench::new();
    bench.pictures("flat", 12);
    for at in 0..12 {
        let class = if at < 6 { "2" } else { "10" };
        fs::create_dir_all(bench.path(&format!("tree/{class}"))).unwrap();
        fs::copy(bench.path(&format!("flat/{at}.png")), bench.path(&format!("tree/{class}/{at}.png"))).unwrap();
    }
    let labels: Vec<u8> = [&[0, 0, 8, 1, 0, 0, 0, 12][..], &[0; 6], &[1; 6]].concat();
    fs::write(bench.path("y"), labels).unwrap();
    // White pictures are the second class, whichever way they are labelled.
    for (data, labels) in [("tree", "tree"), ("flat", "y"), ("tree", "y"), ("flat", "tree")] {
        bench.prints(&format!(
            "train --data {data} --labels {labels} --leaf normal --channels 2 --epochs 3 --force -o m"
        ));
        assert_eq!(number(&bench.prints("score m --data flat --labels y"), "accuracy"), 1.0, "{data} {labels}");
    }
}

#[test]
fn held_out_pictures_must_lie_in_the_same_class_folders() {
    let bench = Bench::new();
    for folder in ["tree/a", "tree/b", "tree/c", "same/a", "same/b", "same/c", "other/a", "other/c"] {
        bench.pictures(folder, 2);
    }
    let train = |valid: &str| {
        format!("train --data tree --labels tree --valid {valid} --valid-labels {valid} --leaf normal {FLAGS}")
    };
    bench.prints(&train("same"));
    // Else c would be class 1 there and class 2 here.
    let message = bench.fails(1, &train("other"));
    assert!(message.contains("other has the classes a, c, tree has a, b, c"), "{message}");
}

#[test]
fn files_that_are_passed_over_are_counted() {
    let bench = Bench::new();
    bench.pictures("d", 2);
    let train = format!("train --data d --leaf normal {FLAGS}");
    let note = |bench: &Bench| {
        let output = bench.run(&train);
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(note(&bench), "");
    fs::write(bench.path("d/notes.txt"), "").unwrap();
    assert!(note(&bench).starts_with("note: 1 file or folder is passed over in d"), "{}", note(&bench));
    fs::write(bench.path("d/a.gif"), "").unwrap();
    fs::write(bench.path("d/.hidden"), "").unwrap();
    let note = note(&bench);
    assert!(note.starts_with("note: 2 files or folders are passed over in d") && note.contains("d/a.gif, …"), "{note}");
}

#[test]
fn files_take_no_more_memory_than_the_flag_allows() {
    let bench = Bench::new();
    bench.array("x.npy", &[1000, 8, 8], |at| (at % 3) as f32);
    let train = |memory: &str| format!("train --data x.npy --levels 3 --memory {memory} {FLAGS}");
    bench.prints(&train("256kB"));
    let message = bench.fails(1, &train("255kB"));
    insta::assert_snapshot!(message, @"error: the array of shape 1000 x 8 x 8 in 'x.npy' needs 256.0 kB of memory, more than the limit of 255.0 kB; split it into smaller files, or raise the limit with --memory");
    // Where rows are read batch by batch, what counts is a batch.
    bench.prints("score m --data x.npy --memory 256kB");
    assert!(bench.fails(1, "score m --data x.npy --memory 1kB").contains("--memory"));
    bench.fails(2, &train("much"));
    // The flag holds for labels and masks too, which are read before it is clear whether they fit.
    bench.array("y.npy", &[40_000], |at| (at % 2) as f32);
    bench.array("mask.npy", &[8, 8], |at| f32::from(at < 32));
    for (arguments, file) in [
        (format!("{} --labels y.npy", train("256kB")), "y.npy"),
        ("score m --data x.npy --labels y.npy --memory 256kB".into(), "y.npy"),
        ("complete m --data x.npy --mask mask.npy -o c.npy --memory 63B".into(), "mask.npy"),
    ] {
        let message = bench.fails(1, &arguments);
        assert!(message.contains(&format!("'{file}' needs ")) && message.contains("--memory"), "{message}");
    }
}

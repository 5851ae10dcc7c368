//! Messages and exit statuses of command lines that cannot be carried out.

use convpc::data::{read, write_npy_f32};
use ndarray::{Array2, Array3};

use crate::common::Bench;

/// With or without the feature `cuda`, on a machine with few GPUs or none: what is missing, and what to use instead.
#[test]
fn a_missing_gpu_is_an_error_and_no_fall_back() {
    let bench = Bench::new();
    let message = bench.fails(1, "demo --backend cuda:99 --out d");
    assert!(message.contains("backend cuda: ") && message.contains("choose "), "{message}");
    assert!(!bench.path("d").join("model.safetensors").exists());
    let message = bench.fails(1, "demo --precision tf32 --out d");
    insta::assert_snapshot!(message, @"error: backend cpu: it does not compute in tf32; leave the precision out, or choose the backend cuda");
    let message = bench.fails(1, "demo --precision bf16 --backend reference --out d");
    insta::assert_snapshot!(message, @"error: backend reference: it computes in float64, not in bf16; leave the precision out");
}

#[test]
fn usage_errors_exit_with_2() {
    let bench = Bench::new();
    let message = bench.fails(2, "--backend gpu score m --data x.npy");
    insta::assert_snapshot!(message, @r"
    error: invalid value 'gpu' for '--backend <BACKEND>': backend is gpu; expected cpu, reference, cuda, cuda:N for GPU number N, or cuda:N,M for several

    For more information, try '--help'.
    ");
    for wrong in [
        "score m",
        "sample m -n 0",
        "train --data x.npy -o m --leaf cauchy",
        "dream",
        "train --data x.npy --epochs 0 -o m",
    ] {
        bench.fails(2, wrong);
    }
}

/// What clap cannot know: a flag that the others, the data or the model leave no sense.
#[test]
fn flags_that_cannot_be_meant_exit_with_2_too() {
    let bench = Bench::new();
    bench.train();
    write_npy_f32(&bench.path("flat.npy"), Array2::zeros((2, 5)).view().into_dyn()).unwrap();
    for (arguments, expected) in [
        ("score m --data x.npy --threads 0", "--threads"),
        ("sample m -n 2 -o x.gif", "neither .npy nor .png"),
        ("marginalize m --drop 3-99 -o m2", "between 0 and 15"),
        ("marginalize m --drop middle -o m2", "neither a number"),
        ("train --data flat.npy -o n", "--height"),
        ("train --data x.npy --height 5 -o n", "4 x 4 x 1 (height x width x colors), not --height 5"),
        ("train --data x.npy --levels 3 --channels 0 -o n", "--channels is 0; it must be at least 1"),
        ("train --data x.npy --levels 3 --depth 0 -o n", "--depth is 0"),
        ("train --data x.npy --levels 3 --kernel-size 0 -o n", "--kernel-size is 0"),
        ("train --data x.npy --levels 3 --batch-size 0 -o n", "--batch-size is 0"),
        ("train --data x.npy --levels 3 --pseudocount=-1 -o n", "--pseudocount is -1"),
        ("train --data x.npy --levels 3 --pseudocount 1e308 -o n", "--pseudocount is 1e308; expected at most 1e30"),
        ("score m --data x.npy -o ll.csv", "does not end in .npy"),
        ("sample m -n 2 -o x.jpg", "ends in neither .npy nor .png"),
        ("train --data x.npy --levels 3 --patience 5 -o n", "--patience needs held-out images; give --valid or"),
    ] {
        let message = bench.fails(2, arguments);
        assert!(message.contains(expected), "{arguments}: {message}");
        assert!(!bench.path("n.checkpoint").exists(), "{arguments}");
    }
    // Endings are known in capitals too.
    bench.prints("sample m -n 2 -o x.PNG");
    assert!(bench.path("x.PNG").is_file());
}

#[test]
fn other_errors_exit_with_1_and_say_what_to_do() {
    let bench = Bench::new();
    bench.train();
    write_npy_f32(&bench.path("wide.npy"), Array3::zeros((2, 2, 8)).view().into_dyn()).unwrap();
    write_npy_f32(&bench.path("flat.npy"), Array2::zeros((2, 5)).view().into_dyn()).unwrap();
    write_npy_f32(&bench.path("high.npy"), Array2::from_elem((2, 16), 7.0).view().into_dyn()).unwrap();
    for (arguments, expected) in [
        ("score none --data x.npy", "cannot be read"),
        ("score x.npy --data x.npy", "not a whole safetensors file"),
        ("score m --data none.npy", "none.npy"),
        ("score m --data flat.npy", "5"),
        ("score m --data wide.npy", "images of 2 x 8 x 1, the model is of 4 x 4 x 1"),
        ("score m --data high.npy", "7"),
        ("score m --data x.npy -o no/such/folder.npy", "no/such/folder.npy"),
        ("complete m --data x.npy --mask none.npy -o y.npy", "none.npy"),
        ("complete m --data x.npy --mask flat.npy -o y.npy", "flat.npy"),
        ("marginalize m --drop 0-15 -o m2", "variable"),
        ("train --data x.npy --leaf bernoulli -o n", "2"),
        ("train --data x.npy --resume -o none", "cannot be read"),
    ] {
        let message = bench.fails(1, arguments);
        assert!(message.contains(expected), "{arguments}: {message}");
    }
    // The model survives all of this.
    assert_eq!(read(&bench.path("x.npy")).unwrap().values.nrows(), 30);
    bench.prints("score m --data x.npy");
}

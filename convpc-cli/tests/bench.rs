//! `convpc bench`: what it prints, and what it refuses. How fast anything is is not tested.

use std::process::{Command, Output};

fn run(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convpc"));
    command.arg("bench").args(arguments.split_whitespace()).output().unwrap()
}

/// The message of a run that must fail with this exit status, and print nothing else.
fn fails(status: i32, arguments: &str) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(status), "{arguments}");
    assert!(output.stdout.is_empty(), "{arguments}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("error: "), "{message}");
    message
}

/// The lines of `bench --json`, and what went to stderr.
fn lines(arguments: &str) -> (Vec<serde_json::Value>, String) {
    let output = run(&format!("--json {arguments}"));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), errors)
}

const OPERATIONS: [&str; 5] = ["log_likelihood", "em_step", "sample", "complete", "mpe"];

#[test]
fn a_bench_prints_a_line_of_json_for_each_operation() {
    let (measured, errors) = lines("--image 4x4 --channels 2 --depth 1 --batch 3 --threads 2");
    assert!(errors.contains("2 threads") && errors.contains("bandwidth"), "{errors}");
    assert_eq!(measured.iter().map(|line| line["op"].as_str().unwrap()).collect::<Vec<_>>(), OPERATIONS);
    for line in &measured {
        for (key, expected) in [
            ("circuit", "4x4x1/sum/2ch/depth1/normal".into()),
            ("peer", "convpc".into()),
            ("device", "cpu".into()),
            ("precision", "f32".into()),
            ("threads", 2.into()),
            ("batch", 3.into()),
        ] as [(&str, serde_json::Value); 6]
        {
            assert_eq!(line[key], expected, "{line}");
        }
        let [seconds, rate, bandwidth] = ["seconds", "images_per_second", "bandwidth_gb_per_second"]
            .map(|key| line[key].as_f64().unwrap_or_else(|| panic!("no {key} in {line}")));
        assert!(seconds > 0.0 && bandwidth > 0.0 && (seconds * rate - 3.0).abs() < 0.01, "{line}");
        let counted = line["op"] == "log_likelihood" || line["op"] == "em_step";
        assert_eq!(line["gflops"].is_f64(), counted, "{line}");
        let known = counted && line["peak_gflops"].is_f64();
        assert_eq!(line["peak_fraction"].is_f64(), known, "{line}");
        for key in ["gflops", "peak_fraction", "peak_gflops", "memory_bytes"] {
            assert!(line.get(key).is_some_and(|value| value.is_null() || value.is_number()), "{key} in {line}");
        }
        if cfg!(target_os = "linux") {
            assert!(line["memory_bytes"].is_null() || line["memory_bytes"].as_u64() > Some(100_000), "{line}");
        }
    }
}

#[test]
fn a_bench_measures_the_circuits_and_the_operations_that_were_asked_for() {
    let (measured, _) = lines("--circuit small,mnist32 --batch 1 --runs 1 --ops mpe,em_step --threads 1");
    let named = |line: &serde_json::Value| [&line["circuit"], &line["op"]].map(|x| x.as_str().unwrap().to_owned());
    assert_eq!(
        measured.iter().map(named).collect::<Vec<_>>(),
        [["small", "mpe"], ["small", "em_step"], ["mnist32", "mpe"], ["mnist32", "em_step"]]
    );
    assert!(measured.iter().all(|line| line["batch"] == 1), "{measured:?}");
    // A part of mnist32's sums lies above nothing but padding.
    let fraction = |line: &serde_json::Value| {
        Some(line["peak_fraction"].as_f64()? * line["peak_gflops"].as_f64()? / line["gflops"].as_f64()?)
    };
    if let (Some(small), Some(padded)) = (fraction(&measured[1]), fraction(&measured[3])) {
        assert!((small - 1.0).abs() < 0.01 && padded < 0.9, "{small} {padded}");
    }
    for (leaf, name) in [
        ("--leaf bernoulli --repetitions 2", "4x6x3/sum/2ch/depth3/2reps/bernoulli"),
        ("--leaf categorical --levels 3 --sum-conv", "4x6x3/sumconv/2ch/depth3/categorical"),
        ("--leaf binomial --levels 3 --kernel-size 3", "4x6x3/sum/2ch/depth2/kernel3/binomial"),
        ("--leaf discretized-logistic --levels 5", "4x6x3/sum/2ch/depth3/discretized-logistic"),
    ] {
        let (measured, _) = lines(&format!("--image 4x6x3 --channels 2 --batch 2 --runs 1 {leaf}"));
        assert_eq!(measured.iter().filter(|line| line["circuit"] == name).count(), 5, "{measured:?}");
    }
}

#[test]
fn a_bench_of_another_backend_says_that_its_ceilings_are_left_out() {
    let tiny = "--image 4x4 --channels 2 --depth 1 --batch 3 --runs 1 --backend reference";
    let (measured, errors) = lines(tiny);
    assert!(errors.contains("left out"), "{errors}");
    assert_eq!(measured.len(), 5);
    for line in measured {
        assert_eq!((&line["device"], &line["threads"]), (&"reference".into(), &1.into()));
        assert!(line["peak_fraction"].is_null() && line["peak_gflops"].is_null(), "{line}");
        assert!(line["bandwidth_gb_per_second"].is_null(), "{line}");
    }
    let output = run(tiny);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("reference: ") && table.contains("left out"), "{table}");
    for operation in OPERATIONS {
        assert_eq!(table.lines().filter(|line| line.starts_with(operation)).count(), 1, "{table}");
    }
}

#[test]
fn a_bench_refuses_what_it_cannot_measure() {
    insta::assert_snapshot!(fails(2, "--circuit huge"), @r"
    error: invalid value 'huge' for '--circuit <CIRCUIT>'
      [possible values: small, mnist32, mnist64, mnist128]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(fails(2, "--ops sample,nonsense"), @r"
    error: invalid value 'nonsense' for '--ops <OPS>'
      [possible values: log_likelihood, em_step, sample, complete, mpe]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(fails(2, "--batch 0"), @r"
    error: invalid value '0' for '--batch <BATCH>': expected a whole number, at least 1

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(fails(2, "--image 28"), @r"
    error: invalid value '28' for '--image <HxW[xC]>': expected height and width, like 28x28, and a number of colors where there are several, like 32x32x3

    For more information, try '--help'.
    ");
    for (status, arguments, expected) in [
        (2, "--runs 0", "at least 1"),
        (2, "--batch 2.5", "at least 1"),
        (2, "--circuit small --channels 3", "cannot be used with"),
        (2, "--sum-conv --circuit small", "cannot be used with"),
        (2, "--channels 0", "channels is 0"),
        (2, "--depth 0", "depth is 0"),
        (2, "--image 0x4", "height is 0"),
        (2, "--image 4x4x0", "colors is 0"),
        (2, "--repetitions 0", "repetitions is 0"),
        (1, "--depth 40", "too large"),
        (2, "--threads 0", "--threads"),
        (1, "--precision tf32", "it does not compute in tf32"),
        (2, "--leaf categorical --levels 0", "--levels is 0"),
    ] {
        let message = fails(status, arguments);
        assert!(message.contains(expected), "{arguments}: {message}");
    }
    // What only the memory of the machine tells is an error once the circuit is made.
    for (arguments, expected) in [
        ("--channels 10000000", "the number of parameters is too large"),
        ("--channels 2 --batch 18446744073709551615", "no more images of 784 variables than fit into memory"),
    ] {
        let output = run(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && message.contains(expected), "{arguments}: {message}");
    }
}

#[test]
fn a_plan_is_printed_in_the_place_of_measuring() {
    let output = run("--image 4x4 --channels 2 --depth 1 --shared-leaves --plan");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        ["4x4x1/sum/2ch/depth1/normal/shared", "tiles of", "shares below the sums of layer 2"]
            .iter()
            .all(|t| text.contains(t)),
        "{text}"
    );
    let output = run("--plan --backend reference");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("backend cpu"));
}

/// Whether the machine has the instructions or not: what is computed in f32 is not called bf16.
#[test]
fn what_bf16_does_not_score_is_not_measured_as_bf16() {
    let output = run("--json --circuit small --precision bf16 --ops em_step");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("only scores are computed in bf16") || errors.contains("no dot products of bf16"),
        "{errors}"
    );
}

//! The command with `--backend cuda`, on the software device, which it takes for an NVIDIA driver.
#![cfg(target_os = "linux")]

use std::{
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output},
};

use convpc::{data, data::read, model};
use tempfile::TempDir;

/// A folder that the command runs in, with the software device in the place of the driver's library.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Bench(tempfile::tempdir().unwrap());
        std::fs::create_dir(bench.path("driver")).unwrap();
        for name in ["libcuda.so", "libcuda.so.1"] {
            symlink(emulator::library().unwrap().canonicalize().unwrap(), bench.path("driver").join(name)).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convpc"));
        command.env("LD_LIBRARY_PATH", self.path("driver")).current_dir(self.0.path());
        command.args(arguments.split_whitespace()).output().unwrap()
    }

    fn prints(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn parameters(&self, name: &str) -> Vec<f64> {
        let circuit = model::load(&self.path(name)).unwrap();
        circuit.parameters().0.iter().flatten().copied().collect()
    }
}

/// The largest difference between two lists of the same length.
fn farthest<'a>(a: impl IntoIterator<Item = &'a f64>, b: impl IntoIterator<Item = &'a f64>) -> f64 {
    let (a, b): (Vec<_>, Vec<_>) = (a.into_iter().collect(), b.into_iter().collect());
    assert_eq!(a.len(), b.len());
    a.into_iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The demonstration ends with the CPU's model.
#[test]
fn the_demonstration_ends_with_the_model_of_the_cpu() {
    let bench = Bench::new();
    let on_cpu = bench.prints("demo --epochs 2 --out on-cpu");
    let on_cuda = bench.prints("demo --epochs 2 --out on-cuda --backend cuda");
    assert!(on_cuda.contains("on cuda: CUDA emulator"), "{on_cuda}");
    // The table of log-likelihoods, to a hundredth of a nat.
    let table =
        |text: &str| text.lines().skip_while(|line| !line.contains("mean log-likelihood")).take(4).collect::<String>();
    assert_eq!(table(&on_cuda), table(&on_cpu));
    let [cuda, cpu] = ["on-cuda", "on-cpu"].map(|folder| bench.parameters(&format!("{folder}/model.safetensors")));
    let apart = farthest(&cuda, &cpu);
    assert!(apart < 1e-4, "{apart}");
}

/// What one backend has begun another goes on with; scores, samples and completions are the same on both.
#[test]
fn a_model_moves_between_backends() {
    let bench = Bench::new();
    let images = ndarray::Array3::from_shape_fn((30, 4, 4), |(row, i, j)| ((row * 5 + i + 2 * j) % 7 % 3) as f32);
    data::write_npy_f32(&bench.path("x.npy"), images.view().into_dyn()).unwrap();
    let train = |epochs: usize, backend: &str, model: &str, resume: &str| {
        bench.prints(&format!(
            "train --data x.npy --leaf categorical --levels 3 --channels 4 --epochs {epochs} --backend {backend} -o {model} {resume}"
        ))
    };
    train(4, "cpu", "cpu.safetensors", "");
    train(2, "cuda", "both.safetensors", "");
    train(2, "cpu", "both.safetensors", "--resume");
    let apart = farthest(&bench.parameters("cpu.safetensors"), &bench.parameters("both.safetensors"));
    assert!(apart < 1e-4, "{apart}");
    // Two devices share the rows.
    train(4, "cuda:0,0", "two.safetensors", "");
    let apart = farthest(&bench.parameters("cpu.safetensors"), &bench.parameters("two.safetensors"));
    assert!(apart < 1e-4, "{apart}");

    let [cpu, cuda] = ["cpu", "cuda"].map(|backend| {
        let text = bench.prints(&format!("score both.safetensors --data x.npy --backend {backend}"));
        text.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).collect::<Vec<_>>()
    });
    assert!(cpu.len() >= 3 && farthest(&cpu, &cuda) < 1e-3, "{cpu:?} {cuda:?}");
    // A number between two roundings of a distribution function is too rare for so few rows.
    let complete = |how| format!("complete both.safetensors --data x.npy --mask left --how {how} -o");
    let queries = ["sample", "mpe", "greedy"].map(complete);
    for query in queries.into_iter().chain(["sample both.safetensors -n 9 -o".to_string()]) {
        bench.prints(&format!("{query} cpu.npy"));
        bench.prints(&format!("{query} cuda.npy --backend cuda"));
        let [cpu, cuda] = ["cpu.npy", "cuda.npy"].map(|name| read(&bench.path(name)).unwrap().values);
        let apart = cpu.iter().zip(&cuda).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4, "{query}: {apart}");
    }
}

/// Every operation is measured on a device too.
#[test]
fn a_bench_measures_the_device() {
    let bench = Bench::new();
    let tiny = "--image 4x4 --channels 2 --depth 1 --batch 3 --runs 1 --json";
    for (device, precision) in [("cuda", "f32"), ("cuda:0,0", "tf32")] {
        let printed = bench.prints(&format!("bench {tiny} --backend {device} --precision {precision}"));
        let lines: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 5, "{printed}");
        for line in lines {
            assert_eq!((&line["device"], &line["precision"]), (&device.into(), &precision.into()));
            assert!(line["images_per_second"].as_f64() > Some(0.0) && line["peak_fraction"].is_null(), "{line}");
        }
    }
}

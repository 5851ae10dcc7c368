//! Kernels as NVRTC compiles them (`ptx/samples.cu`), in every order of threads, against plain Rust.

#[allow(dead_code, reason = "each test file uses a part")]
mod common;

use common::{Device, Parameters, noise};
use emulator::launch::Shape;
use emulator::machine::settings::{Order, Settings};

fn device() -> Device {
    Device::new(include_str!("ptx/samples.ptx"))
}

/// Every order, races looked for, and everything else as by default.
fn settings() -> impl Iterator<Item = Settings> {
    Order::ALL
        .into_iter()
        .flat_map(|order| [1, 2].map(|workers| Settings { order, races: true, workers, ..Settings::default() }))
}

#[test]
fn a_tile_in_shared_memory() {
    let (m, n, k) = (70u32, 65u32, 37u32);
    let (a, b) = (noise((m * k) as usize, 1), noise((k * n) as usize, 2));
    let mut expected = vec![0.0f32; (m * n) as usize];
    for (i, sum) in expected.iter_mut().enumerate() {
        let (row, column) = (i as u32 / n, i as u32 % n);
        for depth in 0..k {
            *sum = a[(row * k + depth) as usize].mul_add(b[(depth * n + column) as usize], *sum);
        }
    }
    for settings in settings() {
        let mut device = device();
        let (a, b) = (device.upload_floats(&a), device.upload_floats(&b));
        let c = device.memory.allocate(u64::from(4 * m * n)).unwrap();
        let parameters = Parameters::default().pointer(a).pointer(b).pointer(c).word(m).word(n).word(k);
        let shape = Shape { grid: [2, 2, 1], block: [256, 1, 1], dynamic_shared: 0 };
        let stats = device.launch("tile_f32", shape, &parameters, &settings).unwrap();
        assert_eq!(device.download_floats(c, (m * n) as usize), expected, "{settings:?}");
        // 4 blocks, 3 steps of 16 along k, 16 products a thread and step.
        assert_eq!(stats.fma, 4 * 256 * 3 * 16 * 16);
        assert_eq!(stats.barriers, 4 * 256 * 3 * 2);
    }
}

#[test]
fn a_tile_on_tensor_cores_with_asynchronous_copies() {
    let k = 40u32;
    // Multiples of 1/16 below 8: exact in tf32, and so are the sums.
    let small = |count, seed| noise(count, seed).into_iter().map(|x| (x * 64.0).round() / 16.0).collect::<Vec<_>>();
    let (a, b) = (small((16 * k) as usize, 3), small((8 * k) as usize, 4));
    let expected: Vec<f32> =
        (0..128).map(|i| (0..k as usize).map(|d| a[i / 8 * k as usize + d] * b[d * 8 + i % 8]).sum()).collect();
    for settings in settings() {
        let mut device = device();
        let (a, b) = (device.upload_floats(&a), device.upload_floats(&b));
        let c = device.memory.allocate(4 * 128).unwrap();
        let parameters = Parameters::default().pointer(a).pointer(b).pointer(c).word(k);
        let shape = Shape { grid: [1, 1, 1], block: [32, 1, 1], dynamic_shared: 4 * (16 * 8 + 8 * 8) };
        let stats = device.launch("tile_tf32", shape, &parameters, &settings).unwrap();
        assert_eq!(device.download_floats(c, 128), expected, "{settings:?}");
        assert_eq!((stats.mma, stats.mma_macs), (u64::from(k / 8), u64::from(k / 8) * 16 * 8 * 8));
        // One byte less of shared memory than the copies need.
        let shape = Shape { dynamic_shared: shape.dynamic_shared - 1, ..shape };
        assert!(device.launch("tile_tf32", shape, &parameters, &settings).is_err());
    }
}

#[test]
fn exponentials_and_logarithms() {
    let (rows, columns) = (9u32, 70u32);
    let mut x: Vec<f32> = noise((rows * columns) as usize, 5).into_iter().map(|x| 300.0 * x - 700.0).collect();
    x[3] = f32::NEG_INFINITY;
    for hardware_error in [false, true] {
        for settings in settings() {
            let settings = Settings { hardware_error, ..settings };
            let mut device = device();
            let input = device.upload_floats(&x);
            let out = device.memory.allocate(u64::from(4 * columns)).unwrap();
            let parameters = Parameters::default().pointer(input).pointer(out).word(rows).word(columns);
            let shape = Shape { grid: [3, 1, 1], block: [32, 1, 1], dynamic_shared: 0 };
            device.launch("log_sum_exp", shape, &parameters, &settings).unwrap();
            for (column, given) in device.download_floats(out, columns as usize).into_iter().enumerate() {
                let column = x.iter().skip(column).step_by(columns as usize).map(|x| f64::from(*x));
                let most = column.clone().fold(f64::NEG_INFINITY, f64::max);
                let expected = most + column.map(|x| (x - most).exp()).sum::<f64>().ln();
                assert!((f64::from(given) - expected).abs() < 2e-4, "{given} for {expected} with {settings:?}");
            }
        }
    }
}

#[test]
fn shuffles_atomics_and_module_variables() {
    let x: Vec<f32> = (0..5000).map(|i| (i % 17) as f32).collect();
    let total: f32 = x.iter().sum();
    for settings in settings() {
        let mut device = device();
        let (input, sum) = (device.upload_floats(&x), device.upload_floats(&[1.0]));
        let parameters = Parameters::default().pointer(input).pointer(sum).word(5000);
        let shape = Shape { grid: [5, 1, 1], block: [256, 1, 1], dynamic_shared: 0 };
        device.launch("reduce", shape, &parameters, &settings).unwrap();
        assert_eq!(device.download_floats(sum, 1), [1.0 + total]);
        assert_eq!(device.download(device.symbols.0["visits"], 1), [7 + 5]);
    }
}

/// The code that NVRTC makes of `expf`, `logf`, division by constants and a table in local memory.
#[test]
fn mathematics_of_c() {
    let n = 45u32;
    let x: Vec<f32> = noise(n as usize, 6).into_iter().map(|x| 20.0 * x.abs() + 0.01).collect();
    let index: Vec<u32> = (0..n).map(|i| i * 37 % 101).collect();
    let scale = [1.0f32, 0.5, 2.0, 0.25];
    for settings in settings() {
        let mut device = device();
        let (input, indices) = (device.upload_floats(&x), device.upload(&index));
        let out = device.memory.allocate(u64::from(24 * n)).unwrap();
        let parameters = Parameters::default().pointer(input).pointer(out).pointer(indices).word(n);
        let shape = Shape { grid: [1, 1, 1], block: [64, 1, 1], dynamic_shared: 0 };
        device.launch("mathematics", shape, &parameters, &settings).unwrap();
        for (i, out) in device.download_floats(out, 6 * n as usize).chunks_exact(6).enumerate() {
            let (v, j) = (x[i], (index[i] & 7) as usize);
            let near = |given: f32, expected: f64| {
                assert!((f64::from(given) - expected).abs() <= 3e-7 * expected.abs(), "{i}: {given} for {expected}");
            };
            assert_eq!(out[0], v / 3.0 + x[(i + j) % n as usize] * scale[j & 3]);
            assert_eq!(out[1], v.sqrt());
            near(out[2], f64::from(v).exp());
            assert!((f64::from(out[3]) - f64::from(v).ln()).abs() < 3e-7);
            assert_eq!(out[4], v.floor() + v.round_ties_even() + v.clamp(0.0, 1.0));
            let last = (f64::from(v) * 1.1) as f32 + (index[i] / 3) as f32;
            near(out[5], f64::from(last) + f64::from(index[i] % 7) + f64::from((i as u32).count_ones()));
        }
    }
}

#[test]
fn limits_of_a_launch() {
    let device = device();
    let parameters = Parameters(vec![0; 64]);
    let refused = |kernel: &str, grid, block, dynamic_shared| {
        let shape = Shape { grid, block, dynamic_shared };
        let program = &device.module.kernels[kernel];
        shape.check(program, 48 * 1024).map_err(|error| error.to_string()).unwrap_err()
    };
    assert!(refused("tile_f32", [1; 3], [257, 1, 1], 0).contains(".maxntid or .reqntid allows 256"));
    assert!(refused("tile_f32", [1; 3], [256, 1, 1], 40 * 1024 + 1).contains("49153 bytes of shared memory"));
    assert!(refused("log_sum_exp", [1; 3], [33, 32, 1], 0).contains("33 x 32 x 1 threads"));
    assert!(refused("log_sum_exp", [1; 3], [1, 1, 65], 0).contains("threads is not allowed"));
    assert!(refused("log_sum_exp", [0, 1, 1], [1; 3], 0).contains("a grid of 0"));
    assert!(refused("log_sum_exp", [1, 65536, 1], [1; 3], 0).contains("a grid of"));
    let shape = Shape { grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0 };
    assert!(shape.check(&device.module.kernels["log_sum_exp"], 48 * 1024).is_ok());
    let short = Parameters(parameters.0[..8].to_vec());
    assert!(device.launch("log_sum_exp", shape, &short, &Settings::default()).is_err());
}

//! Seconds a step of each update rule takes, at full size.

use std::time::Instant;

use convpc_core::{Adam, Backend, Blend, ConvPc, Family, MiniBatchEm, OptimizerState, Rule, em};
use convpc_cpu::Cpu;

/// `cargo test --release -p convpc-cpu --test update_speed -- --ignored --nocapture`, the channels in `CHANNELS`, the threads
/// in `THREADS`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let number = |name, default| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let (channels, threads) = (number("CHANNELS", 128), number("THREADS", 2));
    let circuit = ConvPc::new(28, 28, 1, Family::categorical(256)).channels(channels).depth(4).build(0).unwrap();
    let mut executable = Cpu::new(Some(threads)).unwrap().load(&circuit).unwrap();
    let data = executable.sample(0..512, 1).unwrap();
    let mini_batch = MiniBatchEm { pseudocount: 0.01, data_rows: Some(60_000), ..Default::default() };
    let rules = [
        ("em", Rule::Em(em::Options::default())),
        ("top-down", Rule::MiniBatchEm(mini_batch)),
        ("parameters", Rule::MiniBatchEm(MiniBatchEm { blend: Blend::Parameters, ..mini_batch })),
        ("top-down, momentum", Rule::MiniBatchEm(MiniBatchEm { momentum: 0.9, ..mini_batch })),
        ("adam", Rule::Adam(Adam::default())),
        ("adam, clip", Rule::Adam(Adam { clip: Some(1.0), weight_decay: 0.01, ..Adam::default() })),
    ];
    for (name, rule) in rules {
        let mut state = OptimizerState::default();
        let mut seconds = [vec![], vec![]];
        for _ in 0..4 {
            let start = Instant::now();
            executable.accumulate(data.view()).unwrap();
            let middle = Instant::now();
            executable.update(&rule, 0.1, &mut state).unwrap();
            seconds[0].push((middle - start).as_secs_f64());
            seconds[1].push(middle.elapsed().as_secs_f64());
        }
        let least = seconds.map(|all| all.into_iter().fold(f64::INFINITY, f64::min));
        println!("{name}: accumulate {:.3} s, step {:.3} s", least[0], least[1]);
    }
}

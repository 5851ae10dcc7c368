//! How fast the matrix product is, beside the fastest the registers allow, on one thread:
//! `cargo test --release -p convpc-cpu -- --ignored --nocapture measure`

use std::hint::black_box;
use std::time::Instant;

use super::{InstructionSet, Isa, Kernel, Lanes, MatMul, Matrix, Store, math, multiply_adds};

struct Exp<'a>(&'a [f32], &'a mut [f32]);

impl Kernel for Exp<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self(from, to) = self;
        for (from, to) in from.chunks_exact(L::LEN).zip(to.chunks_exact_mut(L::LEN)) {
            // SAFETY: both chunks have LEN elements; the instruction set is the caller's contract.
            unsafe {
                math::exp(L::load(from.as_ptr())).store(to.as_mut_ptr());
            }
        }
    }
}

/// The part of a buffer from the first cache line on: elsewhere every second AVX-512 load would touch two.
fn aligned(buffer: &mut [f32]) -> &mut [f32] {
    let skip = buffer.as_ptr().align_offset(64);
    &mut buffer[skip..]
}

/// The least time of many runs in seconds: what a shared machine disturbs least.
fn least_time(mut run: impl FnMut()) -> f64 {
    (0..2000)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    for set in InstructionSet::available() {
        let isa = Isa::new(set).unwrap();
        println!("{set}");
        let peak = multiply_adds(isa).map(|flops| flops / least_time(|| _ = multiply_adds(isa)) / 1e9);
        if let Some(peak) = peak {
            println!("  in registers: {peak:.1} GFLOP/s");
        }

        let shapes = [
            (64, 8, 64),
            (64, 16, 64),
            (64, 64, 64),
            (64, 128, 64),
            (64, 256, 64),
            (64, 512, 64),
            (32, 16, 32),
            (16, 16, 16),
            (128, 16, 128),
            (128, 128, 128),
            (10, 128, 64),
        ];
        for (m, n, k) in shapes {
            let a = vec![0.5_f32; m * k];
            let (mut b, mut c) = (vec![0.5_f32; k * n + 16], vec![0.0_f32; m * n + 16]);
            let (b, c) = (aligned(&mut b), aligned(&mut c));
            for (name, row_stride, col_stride) in [("A", k, 1), ("transposed A", 1, m)] {
                let time = least_time(|| {
                    isa.dispatch(MatMul {
                        m,
                        n,
                        k,
                        a: Matrix::new(black_box(&a), row_stride, col_stride),
                        b,
                        ldb: n,
                        c: black_box(&mut *c),
                        ldc: n,
                        store: Store::Set,
                    });
                });
                let rate = (2 * m * n * k) as f64 / time / 1e9;
                let share = peak.map_or(String::new(), |peak| format!(", {:.0} %", 100.0 * rate / peak));
                println!("  {m} x {n} x {k}, {name}: {rate:.1} GFLOP/s{share}");
            }
        }

        let from: Vec<f32> = (0..4096).map(|i| 0.01 + 0.01 * i as f32).collect();
        let mut to = vec![0.0; from.len()];
        let time = least_time(|| isa.dispatch(Exp(black_box(&from), &mut to)));
        println!("  exp: {:.3} ns per element", 1e9 * time / from.len() as f64);
    }
}

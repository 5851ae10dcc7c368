use super::*;
use crate::simd::{InstructionSet, Isa, numbers::uniforms};

fn every_isa() -> impl Iterator<Item = Isa> {
    InstructionSet::available().into_iter().filter_map(Isa::new)
}

/// Numbers in [-1, 1).
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    uniforms(count, seed).into_iter().map(|u| 2.0 * u - 1.0).collect()
}

/// How A lies in memory.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows,
    Columns,
    /// Neither stride is 1.
    Scattered,
}

impl Layout {
    fn strides(self, m: usize, k: usize) -> (usize, usize) {
        match self {
            Self::Rows => (k + 1, 1),
            Self::Columns => (1, m),
            Self::Scattered => (3 * k + 1, 3),
        }
    }
}

/// Compares with a triple loop in f64, also around C, where nothing may change.
fn compare(isa: Isa, [m, n, k]: [usize; 3], layout: Layout, kind: u8) {
    let (row_stride, col_stride) = layout.strides(m, k);
    let (ldb, ldc) = (n + 2, n + 3);
    let a = numbers(m * row_stride + k * col_stride, 1);
    let b = numbers(k * ldb, 2);
    let (before, factors) = (numbers(m * ldc, 3), numbers(m * ldc, 4));
    let mut c = before.clone();
    let a = Matrix { block: if k % 3 == 2 { 5 } else { usize::MAX }, ..Matrix::new(&a, row_stride, col_stride) };
    // Blocks that lie as if there were none, so that one formula tells where an element is.
    let a = Matrix { block_stride: a.block.min(k) * col_stride, ..a };
    let store = [Store::Set, Store::Largest, Store::Weighted(&factors)][usize::from(kind)];
    let least = isa.dispatch(MatMul { m, n, k, a, b: &b, ldb, c: &mut c, ldc, store });
    let a = a.data;
    let lanes = if isa.instruction_set() == InstructionSet::Avx512 { 16 } else { 8 };
    let full = |at: &usize| at % ldc < n / lanes * lanes;
    assert_eq!(least, (0..c.len()).filter(full).map(|at| c[at]).fold(f32::INFINITY, f32::min));

    for (at, (&c, &before)) in c.iter().zip(&before).enumerate() {
        let (i, j) = (at / ldc, at % ldc);
        if j >= n {
            assert_eq!(c, before, "beyond the row");
            continue;
        }
        let mut sum = 0.0_f64;
        for l in 0..k {
            let term = f64::from(a[i * row_stride + l * col_stride]) * f64::from(b[l * ldb + j]);
            sum = if kind == LARGEST { sum.max(term) } else { sum + term };
        }
        if kind == WEIGHTED {
            sum = f64::from(before) + f64::from(factors[at]) * sum;
        }
        // Each of k + 1 roundings errs by half an ULP of a partial sum below k + 1.
        let bound = ((k + 1) * (k + 1)) as f64 * f64::from(f32::EPSILON) / 2.0;
        assert!(
            (f64::from(c) - sum).abs() <= bound,
            "{} {m} x {n} x {k} {layout:?} {kind}: {c} instead of {sum} at {i}, {j}",
            isa.instruction_set()
        );
    }
}

#[test]
fn equals_the_triple_loop() {
    for isa in every_isa() {
        for m in [0, 1, 2, 3, 5, 8, 15, 23] {
            for n in [0, 1, 7, 8, 15, 16, 17, 32, 33, 47, 64, 81] {
                for k in [0, 1, 2, 17] {
                    for layout in [Layout::Rows, Layout::Columns, Layout::Scattered] {
                        for kind in [SET, LARGEST, WEIGHTED] {
                            compare(isa, [m, n, k], layout, kind);
                        }
                    }
                }
            }
        }
        compare(isa, [64, 128, 64], Layout::Rows, WEIGHTED);
        compare(isa, [64, 256, 64], Layout::Columns, SET);
    }
}

#[test]
fn a_result_does_not_depend_on_its_place() {
    let (m, k, columns) = (15, 33, 75);
    let a = numbers(m * k, 4);
    let column = numbers(k, 5);
    let start = numbers(1, 6)[0];
    for isa in every_isa() {
        // All columns of B are the same, so all columns of C are, in full and partial registers.
        let b: Vec<f32> = column.iter().flat_map(|&x| vec![x; columns]).collect();
        let (mut c, factors) = (vec![start; m * columns], vec![0.7; m * columns]);
        let (a, store) = (Matrix::new(&a, k, 1), Store::Weighted(&factors));
        isa.dispatch(MatMul { m, n: columns, k, a, b: &b, ldb: columns, c: &mut c, ldc: columns, store });
        for row in c.chunks(columns) {
            assert!(row.iter().all(|x| x.to_bits() == row[0].to_bits()));
        }

        // A column alone gives the same, and so does a row alone.
        for i in 0..m {
            let mut alone = [start];
            let (a, store) = (Matrix { data: &a.data[i * k..], ..a }, Store::Weighted(&[0.7]));
            isa.dispatch(MatMul { m: 1, n: 1, k, a, b: &column, ldb: 1, c: &mut alone, ldc: 1, store });
            assert_eq!(alone[0].to_bits(), c[i * columns].to_bits());
        }
    }
}

#[test]
fn short_slices_are_refused() {
    let refused = |a: usize, b: usize, c: usize, ldc: usize| {
        let (a, b, mut c) = (vec![0.0; a], vec![0.0; b], vec![0.0; c]);
        std::panic::catch_unwind(move || {
            let a = Matrix::new(&a, 4, 1);
            let (b, c, store) = (&b[..], &mut c[..], Store::Set);
            Isa::detect().dispatch(MatMul { m: 3, n: 5, k: 4, a, b, ldb: 5, c, ldc, store })
        })
        .is_err()
    };
    assert!(!refused(12, 20, 15, 5));
    assert!(refused(11, 20, 15, 5));
    assert!(refused(12, 19, 15, 5));
    assert!(refused(12, 20, 14, 5));
    assert!(refused(12, 20, 15, 4));
    assert!(refused(12, 20, 15, usize::MAX));
}

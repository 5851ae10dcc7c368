use convpc_core::{Family, Form, Semiring, Structure};

use crate::simd::{
    Isa,
    ops::{LocationScale, LocationScaleCounts},
};

/// Leaf parameters as the loops read them: for each (column, repetition) a few rows of `channels` values.
///
/// The rows are the family's coefficients, the last of which a missing value adds in the max-product semiring.
#[derive(Debug)]
pub(crate) struct Leaves {
    family: Family,
    channels: usize,
    repetitions: usize,
    rows: usize,
    values: Vec<f32>,
    /// Natural form, discrete: for each value its statistics and `h`.
    sufficient: Vec<f32>,
}

impl Leaves {
    pub(crate) fn new(structure: &Structure, tensor: &[f64]) -> Self {
        let (family, shape, columns) = (structure.leaf().family, structure.shape(0), structure.variables());
        let (channels, repetitions) = (shape.channels, shape.repetitions);
        let rows = family.coefficient_count();
        let mut values = vec![0.0; columns * repetitions * rows * channels];
        let mut coefficients = Vec::with_capacity(rows);
        for (index, p) in tensor.chunks_exact(family.parameters()).enumerate() {
            let (column, c, r) = (index / repetitions / channels, index / repetitions % channels, index % repetitions);
            let start = (column * repetitions + r) * rows * channels + c;
            coefficients.clear();
            family.coefficients(p, &mut coefficients);
            coefficients.iter().enumerate().for_each(|(row, v)| values[start + row * channels] = *v as f32);
        }
        let sufficient = family.sufficient_table().unwrap_or_default().into_iter().map(|v| v as f32).collect();
        Leaves { family, channels, repetitions, rows, values, sufficient }
    }

    fn of(&self, column: usize, repetition: usize) -> &[f32] {
        let size = self.rows * self.channels;
        let start = (column * self.repetitions + repetition) * size;
        &self.values[start..start + size]
    }

    /// Statistics and `h` of a value in the natural form.
    fn natural(&self, x: f32, t: &mut Vec<f32>) {
        let size = self.family.statistics();
        t.clear();
        if self.sufficient.is_empty() {
            let mut exact = vec![0.0; size];
            self.family.sufficient(&[], f64::from(x), &mut exact);
            t.extend(exact.iter().map(|v| *v as f32));
            t.push(self.family.log_base(f64::from(x)) as f32);
        } else {
            t.extend_from_slice(&self.sufficient[x as usize * (size + 1)..][..size + 1]);
        }
    }

    /// Adds the log-densities of one column to `out` `[channels][n]`; `x` holds the column's n values.
    pub(crate) fn upward(
        &self,
        isa: Isa,
        (column, repetition): (usize, usize),
        x: &[f32],
        semiring: Semiring,
        out: &mut [f32],
    ) {
        let (p, channels, n) = (self.of(column, repetition), self.channels, x.len());
        let max = semiring == Semiring::MaxProduct;
        if self.family.form() == Form::LocationScale {
            let (mean, rest) = p.split_at(channels);
            let (inv_std, bias) = rest.split_at(channels);
            let missing = f32::from(max);
            return isa.dispatch(LocationScale { x, mean, inv_std, bias, missing, out });
        }
        let mut t = Vec::new();
        for (j, &x) in x.iter().enumerate() {
            let mut add = |row: &[f32], factor: f32| {
                for (c, v) in row.iter().enumerate() {
                    out[c * n + j] += factor * v;
                }
            };
            if x.is_nan() {
                if max {
                    add(&p[(self.rows - 1) * channels..], 1.0);
                }
            } else if let Form::Table { .. } = self.family.form() {
                add(&p[x as usize * channels..][..channels], 1.0);
            } else {
                self.natural(x, &mut t);
                let (base, t) = t.split_last().expect("h follows the statistics");
                for (eta, &t) in p.chunks_exact(channels).zip(t).filter(|(_, t)| **t != 0.0) {
                    add(eta, t);
                }
                add(&p[t.len() * channels..][..channels], 1.0);
                out.iter_mut().skip(j).step_by(n).for_each(|y| *y += base);
            }
        }
    }

    /// Values of `counts` for one (column, repetition): `[1 + statistics][channels]`.
    pub(crate) fn counts_len(&self) -> usize {
        (1 + self.family.statistics()) * self.channels
    }

    /// Adds flow-weighted statistics of one column to `counts` `[column][repetition][1 + statistics][channels]`.
    pub(crate) fn downward(
        &self,
        isa: Isa,
        (column, repetition): (usize, usize),
        x: &[f32],
        flow: &[f32],
        counts: &mut [f32],
    ) {
        let (p, channels, n) = (self.of(column, repetition), self.channels, x.len());
        let counts = &mut counts[(column * self.repetitions + repetition) * self.counts_len()..][..self.counts_len()];
        if self.family.form() == Form::LocationScale {
            let (mean, inv_std) = (&p[..channels], &p[channels..2 * channels]);
            return isa.dispatch(LocationScaleCounts { x, mean, inv_std, flow, counts });
        }
        let mut t = Vec::new();
        for (j, &x) in x.iter().enumerate().filter(|(_, x)| !x.is_nan()) {
            let mut add = |row: usize, factor: f32| {
                for (c, v) in counts[row * channels..][..channels].iter_mut().enumerate() {
                    *v += factor * flow[c * n + j];
                }
            };
            add(0, 1.0);
            if let Form::Table { .. } = self.family.form() {
                add(1 + x as usize, 1.0);
            } else {
                self.natural(x, &mut t);
                let size = t.len() - 1;
                t[..size].iter().enumerate().filter(|(_, t)| **t != 0.0).for_each(|(k, t)| add(1 + k, *t));
            }
        }
    }

    /// The index in the circuit's statistics tensor of each value of counts, in order.
    pub(crate) fn statistics_offset(&self, at: usize) -> usize {
        let size = 1 + self.family.statistics();
        let (place, c) = (at / self.channels, at % self.channels);
        let (s, place) = (place % size, place / size);
        let (column, r) = (place / self.repetitions, place % self.repetitions);
        ((column * self.channels + c) * self.repetitions + r) * size + s
    }
}

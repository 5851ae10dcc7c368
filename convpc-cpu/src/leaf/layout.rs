//! The change from the circuit's parameter tensors to coefficients for the SIMD loops, and of counts back.

use std::f64::consts::FRAC_1_SQRT_2;

use convpc_core::{Family, Form};

use super::log_table;
use crate::{
    shares::Recent,
    simd::{
        Isa, MOST_LANES,
        ops::{LOCATION_SCALE_ROWS, Largest, Transpose},
    },
};

/// How the parameters of one row of the tensor become rows of coefficients, and the rows of its counts those of each leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(super) family: Family,
    pub(super) channels: usize,
    pub(super) repetitions: usize,
    pub(super) rows: usize,
    pub(super) isa: Isa,
}

/// Channels that are transposed together: whole registers, and whole lines of the cache.
pub(crate) const TOGETHER: usize = MOST_LANES;

/// What [`Layout`] transposes with.
#[derive(Debug, Default)]
pub(crate) struct Squares {
    from: Vec<f32>,
    to: Vec<f32>,
    coefficients: Vec<f64>,
}

impl Layout {
    /// From `theta`, `[channels][repetitions][parameters]`, to `values`, `[repetitions][rows][channels]`.
    pub(crate) fn lay(&self, theta: &[f64], values: &mut [f32], squares: &mut Squares) {
        let Layout { family, channels, repetitions, rows, isa } = *self;
        let (form, size, width) = (family.form(), family.parameters(), rows.next_multiple_of(TOGETHER));
        let Squares { from, to, coefficients } = squares;
        from.resize(TOGETHER * width, 0.0);
        to.resize(TOGETHER * width, 0.0);
        for (r, values) in values.chunks_exact_mut(rows * channels).enumerate() {
            let of_repetition = theta.chunks_exact(size).skip(r).step_by(repetitions);
            let peak = if form == Form::LocationScale { peak(family, of_repetition) } else { 0.0 };
            for first in (0..channels).step_by(TOGETHER) {
                let together = TOGETHER.min(channels - first);
                for (c, from) in (first..first + together).zip(from.chunks_exact_mut(width)) {
                    let theta = &theta[(c * repetitions + r) * size..][..size];
                    if let Form::Table { free: true, .. } = form {
                        table(isa, theta, &mut from[..rows]);
                    } else {
                        coefficients.clear();
                        family.coefficients(theta, coefficients);
                        match form {
                            Form::LocationScale => {
                                from[..LOCATION_SCALE_ROWS].copy_from_slice(&location_scale(coefficients, peak))
                            }
                            _ => from.iter_mut().zip(&*coefficients).for_each(|(to, v)| *to = *v as f32),
                        }
                    }
                }
                isa.dispatch(Transpose { from, to, width });
                for (values, to) in values.chunks_exact_mut(channels).zip(to.chunks_exact(TOGETHER)) {
                    values[first..first + together].copy_from_slice(&to[..together]);
                }
            }
        }
    }

    /// Adds counts of [`TOGETHER`] channels from the `first` on, or of those that there are, from `[1 + statistics][channels]`
    /// to `[channels][1 + statistics]`.
    pub(crate) fn add_counts(&self, counts: Recent, first: usize, sum: &mut [f64], squares: &mut Squares) {
        let Layout { family, channels, isa, .. } = *self;
        let size = 1 + family.statistics();
        let counts = match counts {
            Recent::Single(counts) => counts,
            Recent::Double(counts) => {
                for (c, sum) in (first..).zip(sum.chunks_exact_mut(size)) {
                    sum.iter_mut().zip(counts[c..].iter().step_by(channels)).for_each(|(sum, n)| *sum += n);
                }
                return;
            }
        };
        let (together, width) = (sum.len() / size, size.next_multiple_of(TOGETHER));
        let Squares { from, to, .. } = squares;
        from.resize(TOGETHER * width, 0.0);
        to.resize(TOGETHER * width, 0.0);
        for (counts, from) in counts.chunks_exact(channels).zip(from.chunks_exact_mut(TOGETHER)) {
            from[..together].copy_from_slice(&counts[first..first + together]);
        }
        isa.dispatch(Transpose { from, to, width: TOGETHER });
        for (sum, to) in sum.chunks_exact_mut(size).zip(to.chunks_exact(width)) {
            sum.iter_mut().zip(to).for_each(|(sum, n)| *sum += f64::from(*n));
        }
    }
}

/// The largest log-density that any of these leaves has at its mean, which is that of the narrowest one, rounded to f32.
fn peak<'a>(family: Family, leaves: impl Iterator<Item = &'a [f64]>) -> f32 {
    let narrowest = leaves.map(|theta| theta[1]).fold(f64::INFINITY, f64::min);
    family.log_density(&[0.0, narrowest], 0.0) as f32
}

/// The coefficients of a location and a scale: the mean rounded to f32, the rate `1/(√2 std)`, what the rounding left of the mean,
/// times the rate, the peak, and the log-density at the mean relative to the peak. The peak itself is added in float64, see
/// [`Peaks`], since the log-densities of narrow distributions are large, and those of many pixels add up.
fn location_scale(coefficients: &[f64], peak: f32) -> [f32; LOCATION_SCALE_ROWS] {
    let (mean, rate, bias) = (coefficients[0], coefficients[1] * FRAC_1_SQRT_2, coefficients[2]);
    let rounded = mean as f32;
    // It stays finite, so that adding it to an infinite number is harmless.
    let left = ((f64::from(rounded) - mean) * rate).clamp(f64::from(f32::MIN), f64::from(f32::MAX));
    [rounded, rate as f32, left as f32, peak, (bias - f64::from(peak)) as f32]
}

/// The coefficients of a table whose parameters are its probabilities: their logarithms, then the largest of them.
fn table(isa: Isa, p: &[f64], coefficients: &mut [f32]) {
    if let Some((mode, logarithms)) = coefficients.split_last_mut() {
        log_table(isa, p, logarithms);
        *mode = isa.dispatch(Largest { x: logarithms });
    }
}

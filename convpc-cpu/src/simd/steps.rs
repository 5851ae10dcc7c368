//! Inversion of many distribution functions at once.

use super::{Isa, Kernel, Lanes};

/// The distribution functions of a layer's outputs, rounded to 16 bits: half the size of the weights, and enough to decide
/// nearly every draw.
#[derive(Debug)]
pub struct Steps {
    inputs: usize,
    /// `[output][input]`: the sum of the weights up to and with this one.
    rounded: Vec<u16>,
    scales: Vec<Scale>,
}

/// How an output's sums are rounded: by products that grow with the sum, so that of two sums the greater is never rounded to
/// less.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// The sum of all weights.
    total: f64,
    factor: f64,
}

impl Scale {
    #[inline(always)]
    fn round(self, sum: f64) -> u16 {
        (sum * self.factor) as u16
    }
}

/// The values that are counted in 16 bits without overflow.
const COUNTED: usize = 1 << 15;

impl Steps {
    /// Of the weights `[output][input]`.
    pub fn new(weights: &[f32], inputs: usize) -> Self {
        let mut rounded = Vec::with_capacity(weights.len());
        let scale = |weights: &[f32]| {
            let total = weights.iter().map(|w| f64::from(*w)).sum();
            let scale = Scale { total, factor: f64::from(u16::MAX) / total };
            let sums = weights.iter().scan(0.0, |sum, w| {
                *sum += f64::from(*w);
                Some(*sum)
            });
            rounded.extend(sums.map(|sum| scale.round(sum)));
            scale
        };
        let scales = weights.chunks_exact(inputs).map(scale).collect();
        Steps { inputs, rounded, scales }
    }

    /// For each of `outputs` the input that the uniform beside it draws, as `rng::pick` would, or `None` where that takes the
    /// exact sums: where the uniform rounds to one of the steps.
    pub fn draw(&self, isa: Isa, outputs: &[usize], uniforms: &[f64], drawn: &mut [Option<usize>]) {
        isa.dispatch(Draw { steps: self, outputs, uniforms, drawn });
    }
}

struct Draw<'a> {
    steps: &'a Steps,
    outputs: &'a [usize],
    uniforms: &'a [f64],
    drawn: &'a mut [Option<usize>],
}

impl Kernel for Draw<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Steps { inputs, rounded, scales } = self.steps;
        for ((&output, u), drawn) in self.outputs.iter().zip(self.uniforms).zip(self.drawn) {
            let scale = scales[output];
            let target = scale.round(u * scale.total);
            let steps = &rounded[output * inputs..][..*inputs];
            let below = count_below(steps, target);
            *drawn = steps.get(below).is_some_and(|step| *step != target).then_some(below);
        }
    }
}

/// How many values are less than the target: a loop without a branch, of sixteen values and more at a time.
#[inline(always)]
fn count_below(values: &[u16], target: u16) -> usize {
    let mut count = 0;
    for part in values.chunks(COUNTED) {
        let mut of_part = 0_u16;
        for value in part {
            of_part += u16::from(*value < target);
        }
        count += usize::from(of_part);
    }
    count
}

#[cfg(test)]
mod tests {
    use convpc_core::rng::{self, Use};

    use super::{super::InstructionSet, *};

    /// Draws by both, at random uniforms, at steps and beside them; returns how many were decided.
    fn decided(weights: &[f32], inputs: usize) -> usize {
        let steps = Steps::new(weights, inputs);
        let (mut outputs, mut uniforms) = (Vec::new(), Vec::new());
        for (output, w) in weights.chunks_exact(inputs).enumerate() {
            let total: f64 = w.iter().map(|w| f64::from(*w)).sum();
            let mut sum = 0.0;
            let mut all: Vec<f64> = (0..50).map(|i| rng::uniforms(output as u64, i, 1, Use::Edge)[0]).collect();
            for (i, w) in w.iter().enumerate() {
                sum += f64::from(*w);
                if i % (1 + inputs / 200) > 0 {
                    continue;
                }
                all.extend([-1e-6, -1e-9, -1e-16, 0.0, 1e-16, 1e-9, 1e-6].map(|by| (sum / total + by).clamp(0.0, 1.0)));
            }
            outputs.extend(all.iter().map(|_| output));
            uniforms.extend(all);
        }
        let mut first = None;
        for isa in InstructionSet::available().into_iter().filter_map(Isa::new) {
            let mut drawn = vec![None; outputs.len()];
            steps.draw(isa, &outputs, &uniforms, &mut drawn);
            for ((output, u), drawn) in outputs.iter().zip(&uniforms).zip(&drawn) {
                let w = &weights[output * inputs..][..inputs];
                let exact = rng::pick(w.iter().map(|w| f64::from(*w)), *u);
                assert!(drawn.is_none_or(|drawn| drawn == exact), "{drawn:?}, not {exact}, by {u} of {w:?}");
            }
            assert_eq!(first.get_or_insert_with(|| drawn.clone()), &drawn);
        }
        first.unwrap_or_default().iter().flatten().count()
    }

    #[test]
    fn what_is_decided_is_what_rng_picks() {
        for inputs in [1, 2, 7, 64, 100] {
            let weight = |i: usize| rng::uniforms(3, i as u64, 0, Use::Initial)[0].powi(4) as f32;
            let weights: Vec<f32> = (0..inputs * 20).map(weight).collect();
            assert!(decided(&weights, inputs) >= 20 * 45, "hardly any of {inputs} inputs");
        }
    }

    #[test]
    fn weights_of_zero_are_never_drawn() {
        let weights = [0.0, 0.25, 0.0, 0.0, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert!(decided(&weights, 6) > 100);
    }

    #[test]
    fn steps_that_round_to_one_are_left_to_the_exact_sums() {
        // All but the last are below the unit of 16 bits.
        let mut weights = vec![1e-7_f32; 40];
        weights[39] = 1.0;
        decided(&weights, 40);
        assert_eq!(decided(&[0.0; 8], 4), 0);
        // More inputs than steps.
        decided(&vec![1.0; 1 << 17], 1 << 17);
    }

    #[test]
    fn counts_do_not_overflow() {
        assert_eq!(count_below(&vec![1; 200_001], 2), 200_001);
        assert_eq!(count_below(&[1, 2, 2, 3], 2), 1);
    }
}

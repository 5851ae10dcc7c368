//! Benchmarks of convpc: the circuits and data that they are taken on.
//!
//! ```sh
//! cargo bench -p benches                          # criterion: all circuits and queries, all cores
//! cargo bench -p benches -- mnist64/em_step       # one of them
//! cargo run --release -p benches --example peers -- --threads 2
//! ```
//!
//! The last prints one line of JSON for each circuit and query, as the script that times SPFlow and PyTorch does on the same
//! circuits, so that all can be compared in one run on one machine. Its medians are over `--runs` repetitions after one to
//! warm up. Compare only numbers taken with the same number of threads.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use convpc_core::{Circuit, ConvPc, Executable, Family, Layer, Result, em, rng};
use ndarray::{Array2, ArrayView2};

/// A circuit to measure, known by its name: square images, one color, Normal leaves with as many channels as the sums, kernel
/// size 2, a weight tensor for each feature.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Height and width of the images.
    pub size: usize,
    /// Channels of every layer but the root.
    pub channels: usize,
    /// Sum and product pairs above the bottom product.
    pub depth: usize,
    /// Images in a batch.
    pub batch: usize,
}

/// The circuits that convpc and its peers are measured on.
pub const CASES: [Case; 4] = [
    Case { name: "small", size: 16, channels: 16, depth: 3, batch: 256 },
    Case { name: "mnist32", size: 28, channels: 32, depth: 5, batch: 256 },
    Case { name: "mnist64", size: 28, channels: 64, depth: 5, batch: 256 },
    Case { name: "mnist128", size: 28, channels: 128, depth: 5, batch: 256 },
];

impl Case {
    /// The circuit with random parameters.
    ///
    /// # Errors
    /// Where a number of the case is 0.
    pub fn circuit(&self) -> Result<Circuit> {
        ConvPc::new(self.size, self.size, 1, Family::normal()).channels(self.channels).depth(self.depth).build(1)
    }

    /// A batch of standard normal noise.
    pub fn images(&self) -> Array2<f32> {
        let normal = Family::normal();
        Array2::from_shape_fn((self.batch, self.size * self.size), |(row, variable)| {
            normal.sample(&[0.0, 1.0], rng::uniforms(2, row as u64, variable as u32, rng::Use::Value)) as f32
        })
    }

    /// The same batch with the right half of every image missing.
    pub fn half_hidden(&self) -> Array2<f32> {
        let mut images = self.images();
        for ((_, variable), x) in images.indexed_iter_mut() {
            if variable % self.size >= self.size / 2 {
                *x = f32::NAN;
            }
        }
        images
    }
}

/// Multiplications and additions of the sum layers for one image, forward: two for every weight. Weights above padding count
/// too, though they need no work, so that rates compare with the peers'.
pub fn flop_per_image(circuit: &Circuit) -> f64 {
    let layers = circuit.structure().layers().iter().enumerate();
    let sums = layers.filter(|(_, layer)| matches!(layer, Layer::Sum(_)));
    sums.map(|(index, _)| 2.0 * circuit.parameters().count(index) as f64).sum()
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// Log-likelihoods of complete images.
    LogLikelihood,
    /// One EM step: forward, expected counts, new parameters.
    EmStep,
    /// Draws without evidence.
    Sample,
    /// Draws of the right half given the left half.
    Complete,
}

impl Query {
    /// All of them.
    pub const ALL: [Query; 4] = [Query::LogLikelihood, Query::EmStep, Query::Sample, Query::Complete];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Query::LogLikelihood => "log_likelihood",
            Query::EmStep => "em_step",
            Query::Sample => "sample",
            Query::Complete => "complete",
        }
    }

    /// The arithmetic of the sum layers as a multiple of one forward pass, where it is known.
    pub fn passes(self) -> Option<f64> {
        match self {
            Query::LogLikelihood => Some(1.0),
            Query::EmStep => Some(3.0),
            Query::Sample | Query::Complete => None,
        }
    }

    /// How long the query takes on one batch. An EM step begins at the parameters of `circuit` each time; putting them back is
    /// not measured.
    ///
    /// # Errors
    /// As the query.
    pub fn time(self, executable: &mut dyn Executable, circuit: &Circuit, images: ArrayView2<f32>) -> Result<Duration> {
        if self == Query::EmStep {
            executable.set_parameters(circuit.parameters())?;
        }
        let start = Instant::now();
        match self {
            Query::LogLikelihood => drop(std::hint::black_box(executable.log_likelihood(images)?)),
            Query::EmStep => {
                executable.accumulate(images)?;
                executable.em_step(&em::Options::default())?;
            }
            Query::Sample => drop(std::hint::black_box(executable.sample(0..images.nrows() as u64, 3)?)),
            Query::Complete => drop(std::hint::black_box(executable.sample_conditional(images, 3, 0)?)),
        }
        Ok(start.elapsed())
    }

    /// The images that the query is asked about.
    pub fn images(self, case: &Case) -> Array2<f32> {
        if self == Query::Complete { case.half_hidden() } else { case.images() }
    }
}

#[cfg(test)]
mod tests {
    use convpc_core::{Backend, Reference};

    use super::*;

    #[test]
    fn every_query_runs() {
        let case = Case { name: "tiny", size: 4, channels: 2, depth: 1, batch: 3 };
        let circuit = case.circuit().unwrap();
        let mut executable = Reference.load(&circuit).unwrap();
        for query in Query::ALL {
            let images = query.images(&case);
            assert_eq!(images.iter().any(|x| x.is_nan()), query == Query::Complete);
            query.time(&mut *executable, &circuit, images.view()).unwrap();
        }
        // Four features with 2 × 2 weights, the root with 2 × 1.
        assert_eq!(flop_per_image(&circuit), 2.0 * (4.0 * 4.0 + 2.0));
    }
}

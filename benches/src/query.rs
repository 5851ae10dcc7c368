use std::time::{Duration, Instant};

use convpc::{Backend, Circuit, Error, Executable, Result, em};
use ndarray::{Array2, ArrayView2};

use crate::case::{Case, flop_per_image};

/// Repetitions end early once they have taken this long.
const PATIENCE: Duration = Duration::from_secs(4);

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

/// How fast a query was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The median for one batch.
    pub seconds: f64,
    /// Images a second.
    pub images_per_second: f64,
    /// Billions of multiplications and additions of the sum layers a second, where their number is known.
    pub gflops: Option<f64>,
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

    /// The images that the query is asked about.
    pub fn images(self, case: &Case) -> Array2<f32> {
        if self == Query::Complete { case.half_hidden() } else { case.images() }
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

    /// The median over some runs, at least one, after one to warm up.
    ///
    /// # Errors
    /// As the query.
    pub fn measure(
        self,
        executable: &mut dyn Executable,
        case: &Case,
        circuit: &Circuit,
        runs: usize,
    ) -> Result<Measured> {
        let images = self.images(case);
        let begin = Instant::now();
        self.time(executable, circuit, images.view())?;
        let mut times = Vec::new();
        while times.is_empty() || (times.len() < runs && begin.elapsed() < PATIENCE) {
            times.push(self.time(executable, circuit, images.view())?);
        }
        let (seconds, batch) = (median(&mut times), case.batch as f64);
        let gflops = self.passes().map(|passes| passes * flop_per_image(circuit) * batch / seconds / 1e9);
        Ok(Measured { seconds, images_per_second: batch / seconds, gflops })
    }

    /// Why a backend cannot answer the query at all, if so: found out on a tiny circuit.
    pub fn refused(self, backend: &dyn Backend) -> Option<Error> {
        let case = Case { name: "tiny".into(), size: 4, sum_conv: false, channels: 2, depth: 1, batch: 3 };
        let answer = || {
            let circuit = case.circuit()?;
            self.time(&mut *backend.load(&circuit)?, &circuit, self.images(&case).view())
        };
        answer().err()
    }
}

/// Says on standard error that something is not measured, and why.
pub fn skipped(what: &str, backend: &str, why: &Error) {
    eprintln!("{what} on {backend} is skipped: {why}");
}

/// The median in seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let n = times.len();
    (times[(n - 1) / 2] + times[n / 2]).as_secs_f64() / 2.0
}

#[cfg(test)]
mod tests {
    use convpc::{Backend, Reference};

    use super::*;

    #[test]
    fn every_query_runs() {
        let case = Case { name: "tiny".into(), size: 4, sum_conv: true, channels: 2, depth: 1, batch: 3 };
        let circuit = case.circuit().unwrap();
        let mut executable = Reference.load(&circuit).unwrap();
        for query in Query::ALL {
            assert_eq!(query.images(&case).iter().any(|x| x.is_nan()), query == Query::Complete);
            let measured = query.measure(&mut *executable, &case, &circuit, 2).unwrap();
            assert_eq!(measured.gflops.is_some(), query.passes().is_some());
            assert!(query.refused(&Reference).is_none());
        }
    }

    #[test]
    fn medians() {
        let seconds = |times: &[u64]| median(&mut times.iter().map(|&s| Duration::from_secs(s)).collect::<Vec<_>>());
        assert_eq!(seconds(&[3, 1, 2]), 2.0);
        assert_eq!(seconds(&[4, 1, 2, 3]), 2.5);
    }
}

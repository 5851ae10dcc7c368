use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use convpc_core::{Circuit, Error, Executable, Mpe, Result, em};
use ndarray::{Array2, ArrayView2};

use super::case::{Flop, noise};

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
    /// The most probable right half given the left half, by [`Mpe::MaxProduct`].
    Mpe,
}

/// How fast a query was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The median for one batch.
    pub seconds: f64,
    /// Images a second.
    pub images_per_second: f64,
    /// Billions of multiplications and additions of the sum layers a second, where their number is known. Every weight counts
    /// as often as it is used, those above padding too, so that rates compare with those of programs that do that work.
    pub gflops: Option<f64>,
    /// The same without the weights above nothing but padding, which need no work: what the machine's peak compares with.
    pub needed_gflops: Option<f64>,
}

impl Query {
    /// All of them.
    pub const ALL: [Query; 5] = [Query::LogLikelihood, Query::EmStep, Query::Sample, Query::Complete, Query::Mpe];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Query::LogLikelihood => "log_likelihood",
            Query::EmStep => "em_step",
            Query::Sample => "sample",
            Query::Complete => "complete",
            Query::Mpe => "mpe",
        }
    }

    /// Whether it asks for scores alone.
    pub fn is_score(self) -> bool {
        self == Query::LogLikelihood
    }

    /// The arithmetic of the sum layers as a multiple of one forward pass, where it is known.
    pub fn passes(self) -> Option<f64> {
        match self {
            Query::LogLikelihood => Some(1.0),
            Query::EmStep => Some(3.0),
            Query::Sample | Query::Complete | Query::Mpe => None,
        }
    }

    /// A batch that the query is asked about: noise, the right half of every image missing where the query fills it.
    ///
    /// # Errors
    /// Where there are no images, or more than the machine has room for.
    pub fn images(self, circuit: &Circuit, batch: usize) -> Result<Array2<f32>> {
        let structure = circuit.structure();
        let mut images = noise(structure, batch)?;
        if matches!(self, Query::Complete | Query::Mpe) {
            let leaf = structure.leaf();
            for (mut column, at) in images.columns_mut().into_iter().zip(structure.columns()) {
                if at.slot / leaf.colors % leaf.width >= leaf.width / 2 {
                    column.fill(f32::NAN);
                }
            }
        }
        Ok(images)
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
                executable.synchronize()?;
            }
            Query::Sample => drop(std::hint::black_box(executable.sample(0..images.nrows() as u64, 3)?)),
            Query::Complete => drop(std::hint::black_box(executable.sample_conditional(images, 3, 0)?)),
            Query::Mpe => drop(std::hint::black_box(executable.mpe(images, Mpe::MaxProduct)?)),
        }
        Ok(start.elapsed())
    }

    /// The median over some runs, at least one, after one to warm up; over fewer where those take long.
    ///
    /// # Errors
    /// As the query and [`Query::images`].
    pub fn measure(
        self,
        executable: &mut dyn Executable,
        circuit: &Circuit,
        batch: usize,
        runs: usize,
    ) -> Result<Measured> {
        let images = self.images(circuit, batch)?;
        let begin = Instant::now();
        self.time(executable, circuit, images.view())?;
        let mut times = Vec::new();
        while times.is_empty() || (times.len() < runs && begin.elapsed() < PATIENCE) {
            times.push(self.time(executable, circuit, images.view())?);
        }
        // No clock is finer than a nanosecond, and a rate is to be finite.
        let (seconds, batch) = (median(&mut times).max(1e-9), batch as f64);
        let flop = self.passes().map(|passes| (passes, Flop::per_image(circuit.structure())));
        Ok(Measured {
            seconds,
            images_per_second: batch / seconds,
            gflops: flop.map(|(passes, flop)| passes * flop.all * batch / seconds / 1e9),
            needed_gflops: flop.map(|(passes, flop)| passes * flop.needed * batch / seconds / 1e9),
        })
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Query {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Query::ALL.into_iter().find(|query| query.name() == name).ok_or_else(|| Error::Argument {
            what: "operation",
            given: name.to_string(),
            expected: format!("one of {}", Query::ALL.map(Query::name).join(", ")),
        })
    }
}

/// The median in seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let n = times.len();
    (times[(n - 1) / 2] + times[n / 2]).as_secs_f64() / 2.0
}

#[cfg(test)]
mod tests {
    use convpc_core::{Backend, ConvPc, Family, Reference};

    use super::*;

    #[test]
    fn every_query_runs() {
        // Five pixels in a row, padded to eight: of 5 × 4 weights and the root's 2, those of two features need no work.
        let circuit = ConvPc::new(1, 5, 2, Family::normal()).channels(2).depth(3).build(1).unwrap();
        let mut executable = Reference.load(&circuit).unwrap();
        for query in Query::ALL {
            let missing = query.images(&circuit, 3).unwrap().iter().filter(|x| x.is_nan()).count();
            let fills = matches!(query, Query::Complete | Query::Mpe);
            assert_eq!(missing, if fills { 3 * 3 * 2 } else { 0 }, "{query}");
            let measured = query.measure(&mut *executable, &circuit, 3, 2).unwrap();
            assert!((measured.images_per_second * measured.seconds - 3.0).abs() < 1e-9);
            assert_eq!(measured.gflops.is_some(), query.passes().is_some());
            assert_eq!(measured.needed_gflops.is_some(), query.passes().is_some());
            if let (Some(all), Some(needed)) = (measured.gflops, measured.needed_gflops) {
                assert!(0.0 < needed && needed < all, "{needed} of {all}");
            }
            assert_eq!(query.measure(&mut *executable, &circuit, 0, 2), Err(Error::EmptyBatch));
        }
    }

    #[test]
    fn a_step_begins_at_the_parameters_of_the_circuit() {
        let circuit = ConvPc::new(4, 4, 1, Family::normal()).channels(2).build(1).unwrap();
        let images = Query::EmStep.images(&circuit, 3).unwrap();
        let after = |steps: usize| {
            let mut executable = Reference.load(&circuit).unwrap();
            for _ in 0..steps {
                Query::EmStep.time(&mut *executable, &circuit, images.view()).unwrap();
            }
            executable.parameters().unwrap()
        };
        assert_ne!(&after(1), circuit.parameters());
        assert_eq!(after(1), after(2));
    }

    #[test]
    fn names() {
        for query in Query::ALL {
            assert_eq!(query.to_string().parse::<Query>(), Ok(query));
        }
        let error = "dream".parse::<Query>().unwrap_err().to_string();
        assert_eq!(error, "operation is dream; expected one of log_likelihood, em_step, sample, complete, mpe");
    }

    #[test]
    fn medians() {
        let seconds = |times: &[u64]| median(&mut times.iter().map(|&s| Duration::from_secs(s)).collect::<Vec<_>>());
        assert_eq!(seconds(&[3, 1, 2]), 2.0);
        assert_eq!(seconds(&[4, 1, 2, 3]), 2.5);
    }
}

use std::{ops::Range, sync::Arc};

use ndarray::{Array1, Array2, ArrayView2};

use crate::{
    circuit::Circuit,
    classes,
    error::{Error, Result},
    evaluation::{Evaluation, Mpe, Semiring},
    learn::{OptimizerState, Rule, em, in_range},
    parameters::Parameters,
    statistics::Statistics,
    structure::Structure,
};

/// Something that computes with circuits: a CPU, a GPU, or the textbook loops of [`Reference`](crate::Reference).
///
/// A backend takes a whole circuit, so that it can fuse, block and schedule as its hardware likes.
pub trait Backend: Send + Sync {
    /// The name it is chosen by: `reference`, `cpu`, …
    fn name(&self) -> &str;

    /// What it runs on, for people: instruction set and threads, or the device.
    fn description(&self) -> String;

    /// Prepares a circuit for computation.
    fn load(&self, circuit: &Circuit) -> Result<Box<dyn Executable>>;
}

/// Log-likelihoods of a batch that was added to the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Accumulated {
    /// Rows of the batch.
    pub rows: u64,
    /// Rows of probability zero among them; they do not contribute to the statistics.
    pub impossible_rows: u64,
    /// Sum of the log-likelihoods of all rows, nats.
    pub log_likelihood: f64,
}

impl Accumulated {
    /// The rows that counts come from.
    ///
    /// # Errors
    /// [`Error::NoStatistics`] where there are none.
    pub fn counted_rows(&self) -> Result<f64> {
        match self.rows.saturating_sub(self.impossible_rows) {
            0 => Err(Error::NoStatistics),
            rows => Ok(rows as f64),
        }
    }

    /// Adds another batch.
    pub(crate) fn add(&mut self, other: &Accumulated) {
        self.rows = self.rows.saturating_add(other.rows);
        self.impossible_rows = self.impossible_rows.saturating_add(other.impossible_rows);
        self.log_likelihood += other.log_likelihood;
    }
}

/// A circuit loaded into a backend, with parameters that can be learned.
///
/// Data are rows × variables, f32, NaN = missing. Log-likelihoods are in nats. Every method checks its data:
/// [`Error::VariableCount`](crate::Error::VariableCount), [`Error::EmptyBatch`](crate::Error::EmptyBatch),
/// [`Error::OutsideSupport`](crate::Error::OutsideSupport).
pub trait Executable: Send {
    /// The circuit's structure.
    fn structure(&self) -> &Arc<Structure>;

    /// The current parameters.
    fn parameters(&self) -> Result<Parameters>;

    /// Returns the parameters as the backend computes with them: a backend of this kind that is given them, by
    /// [`set_parameters`](Self::set_parameters) or in a circuit, computes with the same numbers to the last bit.
    ///
    /// [`parameters`](Self::parameters) may differ in the last bits, because it scales weights that were rounded to f32 so that
    /// they sum to one in float64. These here sum to one within 1e-6.
    fn held_parameters(&self) -> Result<Parameters> {
        self.parameters()
    }

    /// Replaces the parameters and forgets the statistics. Errors as [`Circuit::new`].
    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()>;

    /// The log-likelihood of each row, missing values summed out exactly.
    fn log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array1<f64>>;

    /// The activations of every layer: for looking inside, and for small batches.
    fn evaluate(&self, data: ArrayView2<f32>, semiring: Semiring) -> Result<Evaluation>;

    /// Adds the expected counts of a batch to the statistics.
    fn accumulate(&mut self, data: ArrayView2<f32>) -> Result<Accumulated>;

    /// Adds the expected counts of rows whose classes are known: those of the joint log-likelihood `log p(x, class)`, which is also
    /// what is returned. All the flow at the root goes to the row's class. There is one label for each row, from 0 on.
    ///
    /// ```
    /// use convpc_core::{Backend, ConvPc, Family, Reference, em};
    /// use ndarray::array;
    /// let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).num_classes(2).build(1)?;
    /// let mut executable = Reference.load(&circuit)?;
    /// let (data, labels) = (array![[0., 0., 0., 0.], [1., 1., 1., 0.], [1., 0., 1., 1.]], [0, 1, 1]);
    /// for _ in 0..20 {
    ///     executable.accumulate_labeled(data.view(), &labels)?;
    ///     executable.em_step(&em::Options::default())?;
    /// }
    /// assert!((executable.class_prior()?[1] - 2.0 / 3.0).abs() < 1e-6);
    /// assert!(executable.class_posterior(array![[0., f32::NAN, 0., 0.]].view())?[[0, 0]] > 0.9);
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoClasses`](crate::Error::NoClasses) where the circuit has none, [`Error::LabelCount`](crate::Error::LabelCount)
    /// and [`Error::Label`](crate::Error::Label) where the labels do not fit; nothing was counted then.
    fn accumulate_labeled(&mut self, data: ArrayView2<f32>, labels: &[usize]) -> Result<Accumulated>;

    /// Flattens the posterior over repetitions by which rows are counted from now on: each repetition gets the share
    /// `p_r^β / Σ p^β` of the flow, where β is the inverse temperature, above 0 and at most 1; 1, as at first, is exact.
    ///
    /// Where repetitions begin to learn together, the first that is ahead by a little gets all rows, and then alone learns more.
    /// With β near 0 all learn from all rows; while β grows to 1 they part (deterministic annealing; Ueda and Nakano, 1998).
    /// Log-likelihoods are exact throughout; where nothing mixes repetitions it changes nothing.
    ///
    /// ```
    /// use convpc_core::{Backend, ConvPc, Family, Reference};
    /// let circuit = ConvPc::new(2, 2, 1, Family::normal()).channels(2).repetitions(2).build(1)?;
    /// let mut executable = Reference.load(&circuit)?;
    /// executable.set_inverse_temperature(1e-9)?;
    /// executable.accumulate(ndarray::Array2::zeros((10, 4)).view())?;
    /// let mixture = &executable.statistics()?.counts[5];
    /// assert!(mixture.iter().all(|count| (count - 5.0).abs() < 1e-6));
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where it is out of range.
    fn set_inverse_temperature(&mut self, inverse_temperature: f64) -> Result<()>;

    /// The statistics gathered since the last step or reset.
    fn statistics(&self) -> Result<Statistics>;

    /// Forgets the statistics.
    fn reset_statistics(&mut self);

    /// One EM step on the statistics, which are forgotten.
    ///
    /// # Errors
    /// [`Error::NoStatistics`](crate::Error::NoStatistics) where no row of positive probability was accumulated;
    /// [`Error::Argument`](crate::Error::Argument) where an option is out of range.
    fn em_step(&mut self, options: &em::Options) -> Result<()>;

    /// One step of an update rule on the statistics, which are forgotten. `step` is the step size, which EM does not have;
    /// `state` is what the rule remembered of its steps on this circuit, a new one at first.
    ///
    /// As provided it computes in float64 on the host; a backend may do better.
    ///
    /// # Errors
    /// As [`em_step`](Self::em_step), and [`Error::Argument`](crate::Error::Argument) where the step size is out of range or
    /// the state is that of another rule or circuit; nothing has changed then. Where a step was so long that it left the legal
    /// parameters, the error is that of [`set_parameters`](Self::set_parameters), and the state is of no more use: parameters
    /// that would be illegal stay, others may have moved.
    fn update(&mut self, rule: &Rule, step: f64, state: &mut OptimizerState) -> Result<()> {
        update_on_host(self, rule, step, state)
    }

    /// Waits until all work that was begun is done. Results need no waiting for; how long a step takes is known only then, where
    /// a backend computes beside its caller.
    ///
    /// # Errors
    /// Where the device failed meanwhile.
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    /// Draws the rows with the numbers `rows`; row i of any call with the same seed is the same.
    fn sample(&self, rows: Range<u64>, seed: u64) -> Result<Array2<f32>>;

    /// Completes missing values with draws from their exact posterior; row i of `data` uses the random numbers of row
    /// `first_row + i`.
    ///
    /// # Errors
    /// [`Error::ImpossibleEvidence`](crate::Error::ImpossibleEvidence) where a row has probability zero.
    fn sample_conditional(&self, data: ArrayView2<f32>, seed: u64, first_row: u64) -> Result<Array2<f32>>;

    /// Completes missing values with the most probable explanation; errors as
    /// [`sample_conditional`](Self::sample_conditional).
    fn mpe(&self, data: ArrayView2<f32>, method: Mpe) -> Result<Array2<f32>>;

    /// The log-likelihood of each row under each class, `log p(x | class)`, `[rows, classes]`, nats; missing values are summed
    /// out exactly.
    ///
    /// As provided it computes every layer's activations, some rows at a time; a backend may do better.
    ///
    /// # Errors
    /// [`Error::NoClasses`](crate::Error::NoClasses) where the circuit has none.
    fn class_log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array2<f64>> {
        classes::by_evaluation(self, data)
    }

    /// The prior probability of each class. Errors as [`class_log_likelihood`](Self::class_log_likelihood).
    fn class_prior(&self) -> Result<Vec<f64>> {
        classes::prior(self.structure(), &self.parameters()?)
    }

    /// The joint log-likelihood of each row and each class, `log p(x, class)`, `[rows, classes]`, nats. Its largest value in a row
    /// is at the most probable class; `log Σ exp` of a row is its log-likelihood. Errors as
    /// [`class_log_likelihood`](Self::class_log_likelihood).
    fn class_log_joint(&self, data: ArrayView2<f32>) -> Result<Array2<f64>> {
        let log_prior: Array1<f64> = self.class_prior()?.into_iter().map(f64::ln).collect();
        Ok(self.class_log_likelihood(data)? + log_prior)
    }

    /// The posterior probability of each class, `p(class | x)`, `[rows, classes]`.
    ///
    /// # Errors
    /// As [`class_log_likelihood`](Self::class_log_likelihood), and
    /// [`Error::ImpossibleEvidence`](crate::Error::ImpossibleEvidence) for the first row of probability zero, which has none.
    fn class_posterior(&self, data: ArrayView2<f32>) -> Result<Array2<f64>> {
        classes::posterior(self.class_log_joint(data)?)
    }

    /// The circuit with the current parameters.
    fn circuit(&self) -> Result<Circuit> {
        Circuit::new(self.structure().clone(), self.parameters()?)
    }

    /// The gradient of the accumulated log-likelihood with respect to the unconstrained parameters; see
    /// [`Statistics::gradient`].
    fn gradient(&self) -> Result<Parameters> {
        Ok(self.statistics()?.gradient(self.structure(), &self.parameters()?))
    }
}

/// What [`Executable::update`] does where a backend does no better: in float64 on the host, with the statistics and parameters
/// brought there and back. For backends that know some rules and not others.
///
/// # Errors
/// As [`Executable::update`].
pub fn update_on_host<E: Executable + ?Sized>(
    executable: &mut E,
    rule: &Rule,
    step: f64,
    state: &mut OptimizerState,
) -> Result<()> {
    if let Rule::Em(options) = rule {
        executable.em_step(options)?;
        state.count_step();
        return Ok(());
    }
    let mut parameters = executable.parameters()?;
    rule.apply(executable.structure(), &mut parameters, &executable.statistics()?, step, state)?;
    executable.set_parameters(&parameters)
}

/// What every backend checks first in [`Executable::set_inverse_temperature`].
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where the number is not above 0 and at most 1.
pub fn check_inverse_temperature(inverse_temperature: f64) -> Result<()> {
    let legal = inverse_temperature > 0.0 && inverse_temperature <= 1.0;
    in_range("the inverse temperature", inverse_temperature, legal, "a number above 0 and at most 1")
}

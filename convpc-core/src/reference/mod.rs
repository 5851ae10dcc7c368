//! The oracle: every formula of the design as a short loop in float64, to be read beside it and to check all others with.

mod upward;

use std::{ops::Range, sync::Arc};

use ndarray::{Array1, Array2, ArrayView2};

use crate::{
    backend::{Accumulated, Backend, Executable, check_inverse_temperature},
    circuit::Circuit,
    descent::{Choice, Descending, descend},
    error::{Error, Result},
    evaluation::{Evaluation, Mpe, Prior, Semiring},
    evidence,
    learn::em,
    parameters::Parameters,
    statistics::Statistics,
    structure::Structure,
};

/// The textbook backend: float64, one thread, no tricks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reference;

impl Reference {
    /// The activations of a circuit for data in float64, which the [`Executable`] interface would round to f32.
    ///
    /// # Errors
    /// Where the data do not fit the circuit.
    pub fn evaluate(circuit: &Arc<Circuit>, data: ArrayView2<f64>, semiring: Semiring) -> Result<Evaluation> {
        // The support is judged on the rounded values: a finite double beyond f32 is infinite there and refused.
        evidence::check(circuit.structure(), data.mapv(|x| x as f32).view())?;
        Ok(upward::evaluate(circuit, data.to_owned(), semiring))
    }
}

impl Backend for Reference {
    fn name(&self) -> &str {
        "reference"
    }

    fn description(&self) -> String {
        "textbook loops in float64, one thread".into()
    }

    fn load(&self, circuit: &Circuit) -> Result<Box<dyn Executable>> {
        let statistics = Statistics::zeros(circuit.structure());
        let circuit = Arc::new(circuit.clone());
        Ok(Box::new(ReferenceExecutable { circuit, statistics, inverse_temperature: 1.0 }))
    }
}

struct ReferenceExecutable {
    circuit: Arc<Circuit>,
    statistics: Statistics,
    inverse_temperature: f64,
}

impl ReferenceExecutable {
    fn replace(&mut self, parameters: Parameters) -> Result<()> {
        self.circuit = Arc::new(Circuit::new(self.circuit.structure().clone(), parameters)?);
        self.reset_statistics();
        Ok(())
    }

    fn add(&mut self, batch: &Statistics) -> Accumulated {
        self.statistics.add(batch);
        let Statistics { rows, impossible_rows, log_likelihood, .. } = *batch;
        Accumulated { rows, impossible_rows, log_likelihood }
    }
}

fn to_f32(rows: Array2<f64>) -> Array2<f32> {
    rows.mapv(|x| x as f32)
}

impl Executable for ReferenceExecutable {
    fn structure(&self) -> &Arc<Structure> {
        self.circuit.structure()
    }

    fn parameters(&self) -> Result<Parameters> {
        Ok(self.circuit.parameters().clone())
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()> {
        self.replace(parameters.clone())
    }

    fn log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array1<f64>> {
        Ok(self.evaluate(data, Semiring::SumProduct)?.log_likelihood())
    }

    fn evaluate(&self, data: ArrayView2<f32>, semiring: Semiring) -> Result<Evaluation> {
        evidence::check(self.structure(), data)?;
        Ok(upward::evaluate(&self.circuit, data.mapv(f64::from), semiring))
    }

    fn accumulate(&mut self, data: ArrayView2<f32>) -> Result<Accumulated> {
        let batch = self.evaluate(data, Semiring::SumProduct)?.annealed_statistics(self.inverse_temperature);
        Ok(self.add(&batch))
    }

    fn accumulate_labeled(&mut self, data: ArrayView2<f32>, labels: &[usize]) -> Result<Accumulated> {
        let evaluation = self.evaluate(data, Semiring::SumProduct)?;
        let batch = evaluation.annealed_labeled_statistics(labels, self.inverse_temperature)?;
        Ok(self.add(&batch))
    }

    fn set_inverse_temperature(&mut self, inverse_temperature: f64) -> Result<()> {
        check_inverse_temperature(inverse_temperature)?;
        self.inverse_temperature = inverse_temperature;
        Ok(())
    }

    fn statistics(&self) -> Result<Statistics> {
        Ok(self.statistics.clone())
    }

    fn reset_statistics(&mut self) {
        self.statistics = Statistics::zeros(self.circuit.structure());
    }

    fn em_step(&mut self, options: &em::Options) -> Result<()> {
        let mut parameters = self.circuit.parameters().clone();
        em::step(self.circuit.structure(), &mut parameters, &self.statistics, options)?;
        self.replace(parameters)
    }

    fn sample(&self, rows: Range<u64>, seed: u64) -> Result<Array2<f32>> {
        if rows.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let mut values = Array2::from_elem(((rows.end - rows.start) as usize, self.circuit.variables()), f64::NAN);
        for (row, mut values) in rows.zip(values.outer_iter_mut()) {
            let values = values.as_slice_mut().expect("standard layout");
            descend(&mut [Descending { inputs: Prior(&self.circuit), row, values }], Choice::Sample { seed });
        }
        Ok(to_f32(values))
    }

    fn sample_conditional(&self, data: ArrayView2<f32>, seed: u64, first_row: u64) -> Result<Array2<f32>> {
        self.evaluate(data, Semiring::SumProduct)?.sample(seed, first_row).map(to_f32)
    }

    fn mpe(&self, data: ArrayView2<f32>, method: Mpe) -> Result<Array2<f32>> {
        self.evaluate(data, method.semiring())?.arg_max().map(to_f32)
    }
}

//! Several devices as one: each has the whole circuit and a share of the rows.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate};

use crate::{
    backend::{Accumulated, Backend, Executable},
    circuit::Circuit,
    classes,
    error::{Error, Result},
    evaluation::{Evaluation, Mpe, Semiring},
    evidence,
    learn::em,
    parameters::Parameters,
    statistics::Statistics,
    structure::Structure,
};

/// A backend of several, say of several GPUs: rows are shared out among them, statistics are added, and all keep the same
/// parameters.
///
/// ```
/// use convpc_core::{Backend, ConvPc, Family, Reference, Replicas};
/// use ndarray::array;
/// let circuit = ConvPc::new(1, 2, 1, Family::bernoulli()).channels(2).build(1)?;
/// let two = Replicas::new(vec![Box::new(Reference), Box::new(Reference)])?;
/// let mut executable = two.load(&circuit)?;
/// assert_eq!(executable.accumulate(array![[0., 1.], [1., 1.], [0., 0.]].view())?.rows, 3);
/// # Ok::<(), convpc_core::Error>(())
/// ```
pub struct Replicas {
    backends: Vec<Box<dyn Backend>>,
}

impl Replicas {
    /// # Errors
    /// [`Error::Zero`] where there is no backend.
    pub fn new(backends: Vec<Box<dyn Backend>>) -> Result<Self> {
        if backends.is_empty() {
            return Err(Error::Zero { what: "the number of devices" });
        }
        Ok(Replicas { backends })
    }
}

impl Backend for Replicas {
    fn name(&self) -> &str {
        self.backends[0].name()
    }

    fn description(&self) -> String {
        self.backends.iter().map(|backend| backend.description()).collect::<Vec<_>>().join("; ")
    }

    fn load(&self, circuit: &Circuit) -> Result<Box<dyn Executable>> {
        let load = |backend: &dyn Backend| backend.load(circuit).map(Mutex::new);
        let parts = self.backends.iter().map(|backend| load(&**backend)).collect::<Result<_>>()?;
        Ok(Box::new(ReplicaExecutable { structure: circuit.structure().clone(), parts }))
    }
}

struct ReplicaExecutable {
    structure: Arc<Structure>,
    /// Behind locks because an executable is used by one thread at a time.
    parts: Vec<Mutex<Box<dyn Executable>>>,
}

impl ReplicaExecutable {
    /// The first, for what all know.
    fn with_first<T>(&self, f: impl FnOnce(&mut dyn Executable) -> T) -> T {
        f(&mut **self.parts[0].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Calls `f` with every part and its share of so many rows, at the same time; what they return in the order of the rows.
    fn share<T: Send>(
        &self,
        rows: usize,
        f: impl Fn(&mut dyn Executable, Range<usize>) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let each = rows.div_ceil(self.parts.len()).max(1);
        let f = &f;
        thread::scope(|scope| {
            let starts = (0..rows).step_by(each);
            let work = |(part, start): (&'_ Mutex<Box<dyn Executable>>, usize)| {
                let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
                // A row's number is that in the whole, not in the share.
                f(&mut **part, start..(start + each).min(rows)).map_err(|error| error.map_row(|row| start + row))
            };
            let threads: Vec<_> = self.parts.iter().zip(starts).map(|share| scope.spawn(move || work(share))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    /// What all count of their shares.
    fn count(
        &mut self,
        rows: usize,
        f: impl Fn(&mut dyn Executable, Range<usize>) -> Result<Accumulated> + Sync,
    ) -> Result<Accumulated> {
        // What some have counted and others have not is of no use.
        let parts = self.share(rows, f).inspect_err(|_| self.reset_statistics())?;
        let mut all = Accumulated::default();
        parts.iter().for_each(|part| all.add(part));
        Ok(all)
    }

    /// Rows that every part makes of its share, in order.
    fn rows(
        &self,
        rows: usize,
        f: impl Fn(&mut dyn Executable, Range<usize>) -> Result<Array2<f32>> + Sync,
    ) -> Result<Array2<f32>> {
        let parts = self.share(rows, f)?;
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        Ok(concatenate(Axis(0), &views).expect("rows of one circuit"))
    }
}

impl Executable for ReplicaExecutable {
    fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }

    fn parameters(&self) -> Result<Parameters> {
        self.with_first(|part| part.parameters())
    }

    fn held_parameters(&self) -> Result<Parameters> {
        self.with_first(|part| part.held_parameters())
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()> {
        self.share(self.parts.len(), |part, _| part.set_parameters(parameters)).map(|_| ())
    }

    fn log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array1<f64>> {
        evidence::check(&self.structure, data)?;
        let parts =
            self.share(data.nrows(), |part, rows| part.log_likelihood(data.slice_axis(Axis(0), rows.into())))?;
        Ok(parts.into_iter().flatten().collect())
    }

    fn evaluate(&self, data: ArrayView2<f32>, semiring: Semiring) -> Result<Evaluation> {
        self.with_first(|part| part.evaluate(data, semiring))
    }

    fn accumulate(&mut self, data: ArrayView2<f32>) -> Result<Accumulated> {
        evidence::check(&self.structure, data)?;
        self.count(data.nrows(), |part, rows| part.accumulate(data.slice_axis(Axis(0), rows.into())))
    }

    fn accumulate_labeled(&mut self, data: ArrayView2<f32>, labels: &[usize]) -> Result<Accumulated> {
        evidence::check(&self.structure, data)?;
        classes::check_labels(&self.structure, data.nrows(), labels)?;
        self.count(data.nrows(), |part, rows| {
            part.accumulate_labeled(data.slice_axis(Axis(0), rows.clone().into()), &labels[rows])
        })
    }

    fn class_log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array2<f64>> {
        classes::heads(&self.structure)?;
        evidence::check(&self.structure, data)?;
        let score = |part: &mut dyn Executable, rows: Range<usize>| {
            part.class_log_likelihood(data.slice_axis(Axis(0), rows.into()))
        };
        Ok(classes::joined(&self.share(data.nrows(), score)?))
    }

    fn set_inverse_temperature(&mut self, inverse_temperature: f64) -> Result<()> {
        let mut parts = self.parts.iter_mut().map(|part| part.get_mut().unwrap_or_else(PoisonError::into_inner));
        parts.try_for_each(|part| part.set_inverse_temperature(inverse_temperature))
    }

    fn statistics(&self) -> Result<Statistics> {
        let parts = self.share(self.parts.len(), |part, _| part.statistics())?;
        let mut all = Statistics::zeros(&self.structure);
        parts.iter().for_each(|part| all.add(part));
        Ok(all)
    }

    fn reset_statistics(&mut self) {
        for part in &mut self.parts {
            part.get_mut().unwrap_or_else(PoisonError::into_inner).reset_statistics();
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.share(self.parts.len(), |part, _| part.synchronize()).map(drop)
    }

    fn em_step(&mut self, options: &em::Options) -> Result<()> {
        if let [one] = &mut self.parts[..] {
            return one.get_mut().unwrap_or_else(PoisonError::into_inner).em_step(options);
        }
        let mut parameters = self.parameters()?;
        em::step(&self.structure, &mut parameters, &self.statistics()?, options)?;
        self.set_parameters(&parameters)
    }

    fn sample(&self, rows: Range<u64>, seed: u64) -> Result<Array2<f32>> {
        if rows.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let count = (rows.end - rows.start) as usize;
        let first = rows.start;
        self.rows(count, |part, share| part.sample(first + share.start as u64..first + share.end as u64, seed))
    }

    fn sample_conditional(&self, data: ArrayView2<f32>, seed: u64, first_row: u64) -> Result<Array2<f32>> {
        evidence::check(&self.structure, data)?;
        self.rows(data.nrows(), |part, share| {
            let first = first_row + share.start as u64;
            part.sample_conditional(data.slice_axis(Axis(0), share.into()), seed, first)
        })
    }

    fn mpe(&self, data: ArrayView2<f32>, method: Mpe) -> Result<Array2<f32>> {
        evidence::check(&self.structure, data)?;
        self.rows(data.nrows(), |part, share| part.mpe(data.slice_axis(Axis(0), share.into()), method))
    }
}

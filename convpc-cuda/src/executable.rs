use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use convpc_core::{
    Accumulated, Circuit, Evaluation, Executable, Mpe, Parameters, Precision, Result, Semiring, Statistics, Structure,
    em, evidence,
};
use ndarray::{Array1, Array2, Array4, ArrayView2, Axis, s};

use crate::{
    driver::{Device, Queue},
    error::CudaError,
    model::Model,
    plan::{Limits, Purpose},
    session::{Context, Session},
    statistics::{Counts, LeafFlow},
};

pub(crate) struct CudaExecutable {
    queue: Queue,
    circuit: Arc<Circuit>,
    model: Model,
    precision: Precision,
    limits: Limits,
    session: Mutex<Session>,
    counts: Option<Counts>,
    seen: Accumulated,
}

impl CudaExecutable {
    pub(crate) fn new(
        device: Arc<Device>,
        circuit: &Circuit,
        precision: Precision,
        limits: Limits,
    ) -> Result<Self, CudaError> {
        let queue = Queue::new(device)?;
        let model = Model::new(&queue, circuit.structure(), circuit.parameters(), precision)?;
        Ok(CudaExecutable {
            queue,
            circuit: Arc::new(circuit.clone()),
            model,
            precision,
            limits,
            session: Mutex::new(Session::default()),
            counts: None,
            seen: Accumulated::default(),
        })
    }

    fn context(&self) -> Context<'_> {
        let CudaExecutable { queue, circuit, model, precision, limits, .. } = self;
        Context { queue, structure: circuit.structure(), model, precision: *precision, limits: *limits }
    }
}

impl CudaExecutable {
    /// Runs `f` with the session; after an error what it left unfinished is waited for and forgotten.
    fn with_session<T>(&self, f: impl FnOnce(&mut Session) -> Result<T, CudaError>) -> Result<T, CudaError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut session);
        if result.is_err() {
            // The error that is returned is the first; memory must be free of copies and kernels before it is given back.
            let _ = self.queue.synchronize();
            *session = Session::default();
        }
        result
    }

    /// Computes every layer of some rows and adds what is found to the activations from row `first` on.
    fn evaluate_rows(
        &self,
        session: &mut Session,
        data: ArrayView2<f32>,
        semiring: Semiring,
        first: usize,
        activations: &mut [Array4<f64>],
    ) -> Result<(), CudaError> {
        let structure = self.structure();
        let (stride, outputs) = session.every_layer(self.context(), data, semiring)?;
        for (layer, tensor) in activations.iter_mut().enumerate() {
            let shape = structure.shape(layer);
            let nodes = shape.repetitions * shape.features();
            let values = self.queue.download(&outputs[&layer].values, nodes * shape.channels * stride)?;
            let offsets = self.queue.download(&outputs[&layer].offsets, nodes * stride)?;
            let mut to = tensor.slice_mut(s![.., .., .., first..first + data.nrows()]);
            for ((r, f, c, row), to) in to.indexed_iter_mut() {
                // What has no scope is the constant 0 and was not computed.
                if !structure.is_empty(layer, f) {
                    let node = r * shape.features() + f;
                    let value = values[(node * shape.channels + c) * stride + row];
                    *to = f64::from(value) + f64::from(offsets[node * stride + row]);
                }
            }
        }
        Ok(())
    }
}

impl Drop for CudaExecutable {
    fn drop(&mut self) {
        // Memory that a kernel or a copy still uses must not be given back; an error here has surfaced before.
        let _ = self.queue.synchronize();
    }
}

fn unsupported<T>(operation: &'static str) -> Result<T> {
    Err(CudaError::UnsupportedOperation { operation }.into())
}

impl Executable for CudaExecutable {
    fn structure(&self) -> &Arc<Structure> {
        self.circuit.structure()
    }

    fn parameters(&self) -> Result<Parameters> {
        Ok(self.circuit.parameters().clone())
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()> {
        let circuit = Circuit::new(self.structure().clone(), parameters.clone())?;
        self.model.replace(&self.queue, circuit.structure(), circuit.parameters())?;
        self.circuit = Arc::new(circuit);
        Ok(())
    }

    fn log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array1<f64>> {
        evidence::check(self.structure(), data)?;
        Ok(self.with_session(|session| session.log_likelihood(self.context(), data))?.into())
    }

    fn evaluate(&self, data: ArrayView2<f32>, semiring: Semiring) -> Result<Evaluation> {
        evidence::check(self.structure(), data)?;
        let (structure, rows) = (self.structure(), data.nrows());
        let zeros = |layer| {
            let shape = structure.shape(layer);
            Array4::zeros((shape.repetitions, shape.features(), shape.channels, rows))
        };
        let mut activations: Vec<Array4<f64>> = (0..structure.layers().len()).map(zeros).collect();
        self.with_session(|session| {
            let at_a_time = session.rows_at_a_time(self.context(), rows, Purpose::EveryLayer(semiring))?;
            for (index, batch) in data.axis_chunks_iter(Axis(0), at_a_time).enumerate() {
                self.evaluate_rows(session, batch, semiring, index * at_a_time, &mut activations)?;
            }
            Ok(())
        })?;
        Ok(Evaluation::new(self.circuit.clone(), data.mapv(f64::from), semiring, activations))
    }

    fn accumulate(&mut self, data: ArrayView2<f32>) -> Result<Accumulated> {
        let structure = self.structure().clone();
        if !crate::tree::sums(&structure).is_empty() {
            return unsupported("learning");
        }
        let log_likelihood = self.log_likelihood(data)?;
        if self.counts.is_none() {
            self.counts = Some(Counts::new(&self.queue, &structure)?);
        }
        let stride = crate::plan::stride(data.nrows());
        let flow: Vec<f32> = log_likelihood.iter().map(|ll| f32::from(*ll > f64::NEG_INFINITY)).collect();
        let flow = self.queue.upload_new(&flow, crate::driver::Need::Circuit)?;
        let CudaExecutable { queue, model, session, counts, limits, .. } = self;
        let session = session.get_mut().unwrap_or_else(PoisonError::into_inner);
        let batch = LeafFlow { data: session.data.as_ref().unwrap(), flow: &flow, stride, rows: data.nrows() };
        counts.as_mut().unwrap().add_leaves(queue, &structure, model, batch, limits.shared_memory)?;
        let batch = Accumulated {
            rows: data.nrows() as u64,
            impossible_rows: log_likelihood.iter().filter(|ll| **ll == f64::NEG_INFINITY).count() as u64,
            log_likelihood: log_likelihood.sum(),
        };
        self.seen.rows += batch.rows;
        self.seen.impossible_rows += batch.impossible_rows;
        self.seen.log_likelihood += batch.log_likelihood;
        Ok(batch)
    }

    fn statistics(&self) -> Result<Statistics> {
        let counts = self.counts.as_ref();
        Ok(counts.map_or_else(
            || Ok(Statistics::zeros(self.structure())),
            |c| c.statistics(&self.queue, self.structure(), &self.seen),
        )?)
    }

    fn reset_statistics(&mut self) {
        self.seen = Accumulated::default();
        if let Some(counts) = &mut self.counts {
            let _ = counts.clear(&self.queue);
        }
    }

    fn em_step(&mut self, options: &em::Options) -> Result<()> {
        options.check()?;
        let structure = self.structure().clone();
        let CudaExecutable { queue, model, counts, seen, .. } = self;
        let counts = counts.as_mut().ok_or(convpc_core::Error::NoStatistics)?;
        counts.step(queue, &structure, model, seen, options)?;
        *seen = Accumulated::default();
        self.circuit = Arc::new(Circuit::new(structure.clone(), self.model.parameters(&self.queue, &structure)?)?);
        Ok(())
    }

    fn gradient(&self) -> Result<Parameters> {
        let counts = self.counts.as_ref();
        Ok(counts.map_or_else(
            || Ok(Parameters::zeros(self.structure())),
            |c| c.gradient(&self.queue, self.structure(), &self.model),
        )?)
    }

    fn sample(&self, _rows: Range<u64>, _seed: u64) -> Result<Array2<f32>> {
        unsupported("sampling")
    }

    fn sample_conditional(&self, _data: ArrayView2<f32>, _seed: u64, _first_row: u64) -> Result<Array2<f32>> {
        unsupported("completing missing values")
    }

    fn mpe(&self, _data: ArrayView2<f32>, _method: Mpe) -> Result<Array2<f32>> {
        unsupported("completing missing values")
    }
}

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
};

pub(crate) struct CudaExecutable {
    queue: Queue,
    circuit: Arc<Circuit>,
    model: Model,
    precision: Precision,
    limits: Limits,
    session: Mutex<Session>,
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
        })
    }

    fn context(&self) -> Context<'_> {
        let CudaExecutable { queue, circuit, model, precision, limits, .. } = self;
        Context { queue, structure: circuit.structure(), model, precision: *precision, limits: *limits }
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
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let result = session.log_likelihood(self.context(), data);
        if result.is_err() {
            // What a failed call left in its slots belongs to nobody.
            *session = Session::default();
        }
        Ok(result?.into())
    }

    fn evaluate(&self, data: ArrayView2<f32>, semiring: Semiring) -> Result<Evaluation> {
        evidence::check(self.structure(), data)?;
        let (structure, rows) = (self.structure(), data.nrows());
        let shape = |layer| structure.shape(layer);
        let zeros = |layer| {
            let s = shape(layer);
            Array4::zeros((s.repetitions, s.features(), s.channels, rows))
        };
        let mut activations: Vec<Array4<f64>> = (0..structure.layers().len()).map(zeros).collect();
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let at_a_time = session.rows_at_a_time(self.context(), rows, Purpose::EveryLayer(semiring))?;
        for (index, batch) in data.axis_chunks_iter(Axis(0), at_a_time).enumerate() {
            let (stride, outputs) = session.every_layer(self.context(), batch, semiring)?;
            for (layer, tensor) in activations.iter_mut().enumerate() {
                let nodes = shape(layer).repetitions * shape(layer).features();
                let values = self.queue.download(&outputs[&layer].values, nodes * shape(layer).channels * stride)?;
                let offsets = self.queue.download(&outputs[&layer].offsets, nodes * stride)?;
                let first = index * at_a_time;
                let mut to = tensor.slice_mut(s![.., .., .., first..first + batch.nrows()]);
                for ((r, f, c, row), to) in to.indexed_iter_mut() {
                    // What has no scope is the constant 0 and was not computed.
                    if !structure.is_empty(layer, f) {
                        let node = r * shape(layer).features() + f;
                        let value = values[(node * shape(layer).channels + c) * stride + row];
                        *to = f64::from(value) + f64::from(offsets[node * stride + row]);
                    }
                }
            }
        }
        Ok(Evaluation::new(self.circuit.clone(), data.mapv(f64::from), semiring, activations))
    }

    fn accumulate(&mut self, _data: ArrayView2<f32>) -> Result<Accumulated> {
        unsupported("learning")
    }

    fn statistics(&self) -> Result<Statistics> {
        unsupported("learning")
    }

    fn reset_statistics(&mut self) {}

    fn em_step(&mut self, _options: &em::Options) -> Result<()> {
        unsupported("learning")
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

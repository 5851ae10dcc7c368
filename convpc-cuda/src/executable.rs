use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use convpc_core::{
    Accumulated, Adam, Choice, Circuit, Error, Evaluation, Executable, MiniBatchEm, Mpe, OptimizerState, Parameters,
    Precision, Result, Rule, Semiring, Statistics, Structure, check_inverse_temperature, classes, em,
};
use ndarray::{Array1, Array2, Array4, ArrayView2, ArrayViewMut4, Axis, s};

use crate::{
    ascend::Ascent,
    compiled::Outputs,
    driver::{Device, Queue},
    error::CudaError,
    host::Host,
    learn::Learning,
    memory::{Kind, Remembered},
    model::Model,
    plan::{Limits, Purpose},
    session::{Context, Query, Session, check_range},
    top_down::TopDown,
    update::{Running, Step},
};

pub(crate) struct CudaExecutable {
    queue: Arc<Queue>,
    host: Host,
    structure: Arc<Structure>,
    /// With the parameters on the device, which are downloaded when they are first asked for after a step.
    circuit: OnceLock<Arc<Circuit>>,
    model: Model,
    precision: Precision,
    limits: Limits,
    session: Mutex<Session>,
    /// Once something was accumulated.
    learning: Option<Learning>,
    /// What the device has.
    inverse_temperature: f64,
}

impl CudaExecutable {
    pub(crate) fn new(
        device: Arc<Device>,
        host: Host,
        circuit: &Circuit,
        precision: Precision,
        limits: Limits,
    ) -> Result<Self, CudaError> {
        let queue = Arc::new(Queue::new(device)?);
        let model = Model::new(&queue, circuit.structure(), circuit.parameters(), precision)?;
        Ok(CudaExecutable {
            queue,
            host,
            structure: circuit.structure().clone(),
            circuit: OnceLock::from(Arc::new(circuit.clone())),
            model,
            precision,
            limits,
            session: Mutex::new(Session::default()),
            learning: None,
            inverse_temperature: 1.0,
        })
    }

    fn context(&self) -> Context<'_> {
        let CudaExecutable { queue, host, structure, model, precision, limits, .. } = self;
        Context { queue, host, structure, model, precision: *precision, limits: *limits }
    }

    /// The circuit with the current parameters.
    fn current(&self) -> Result<Arc<Circuit>> {
        if let Some(circuit) = self.circuit.get() {
            return Ok(circuit.clone());
        }
        let parameters = self.model.parameters(&self.queue, &self.structure)?;
        let circuit = Circuit::new(self.structure.clone(), parameters)?;
        Ok(self.circuit.get_or_init(|| Arc::new(circuit)).clone())
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

    /// Adds the expected counts of rows that were checked, and of their classes, where they are given.
    fn count(&mut self, data: ArrayView2<f32>, labels: Option<&[usize]>) -> Result<Accumulated> {
        self.model.prepare_way_down(&self.queue)?;
        if self.learning.is_none() {
            self.learning = Some(Learning::new(&self.queue, &self.structure)?);
        }
        let purpose = if labels.is_some() { Purpose::LearnLabeled } else { Purpose::Learn };
        // Where there is no room nothing has been counted yet, and what was counted before stays.
        let at_a_time = self.with_session(|session| session.rows_at_a_time(self.context(), data.nrows(), purpose))?;
        let Some(mut learning) = self.learning.take() else { return Err(Error::NoStatistics) };
        // Any other error leaves part of the rows in the statistics, which are then dropped with it; a row that is too far too.
        let found =
            self.with_session(|session| session.accumulate(self.context(), data, labels, at_a_time, &learning))?;
        let batch = learning.see(&found);
        self.learning = Some(learning);
        Ok(batch)
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
        let (stride, outputs) = session.layers(self.context(), data, Purpose::EveryLayer(semiring))?;
        for (layer, tensor) in activations.iter_mut().enumerate() {
            self.download_layer(stride, outputs, layer, tensor.slice_mut(s![.., .., .., first..first + data.nrows()]))?;
        }
        Ok(())
    }

    /// What was computed of a layer, `[repetition][feature][channel][row]`, given the distance between channels.
    fn download_layer(
        &self,
        stride: usize,
        outputs: &HashMap<usize, Outputs>,
        layer: usize,
        mut to: ArrayViewMut4<f64>,
    ) -> Result<(), CudaError> {
        let (structure, shape) = (self.structure(), self.structure().shape(layer));
        let nodes = shape.repetitions * shape.features();
        let values = self.queue.download(&outputs[&layer].values, nodes * shape.channels * stride)?;
        let offsets = self.queue.download(&outputs[&layer].offsets, nodes * stride)?;
        for ((r, f, c, row), to) in to.indexed_iter_mut() {
            // What has no scope is the constant 0 and was not computed.
            if !structure.is_empty(layer, f, r) {
                let node = r * shape.features() + f;
                let value = values[(node * shape.channels + c) * stride + row];
                *to = f64::from(value) + offsets[node * stride + row];
            }
        }
        Ok(())
    }

    /// An error where nothing was counted.
    fn check_counted(&self) -> Result<()> {
        self.learning.as_ref().ok_or(Error::NoStatistics)?.seen.counted_rows().map(|_| ())
    }

    /// A step of EM.
    fn em(&mut self, step: Step) -> Result<()> {
        self.step(step.needs_top_down(), |queue, structure, model, learning| {
            let top_down = learning.top_down.as_ref().filter(|_| step.needs_top_down());
            learning.counts.step(queue, structure, model, &learning.seen, step, top_down)
        })
    }

    /// A step on the statistics, which are forgotten.
    fn step(
        &mut self,
        needs_top_down: bool,
        step: impl FnOnce(&Queue, &Arc<Structure>, &mut Model, &mut Learning) -> Result<()>,
    ) -> Result<()> {
        self.check_counted()?;
        let Some(mut learning) = self.learning.take() else { return Err(Error::NoStatistics) };
        let CudaExecutable { queue, structure, model, .. } = self;
        let top_down = match needs_top_down && learning.top_down.is_none() {
            true => TopDown::new(queue, structure).map(|top_down| learning.top_down = Some(top_down)),
            false => Ok(()),
        };
        let stepped = top_down.map_err(Error::from).and_then(|()| step(queue, structure, model, &mut learning));
        if matches!(stepped, Err(Error::Backend { .. })) {
            // Some parameters are stepped, others not: all are legal, and the statistics are dropped. What is packed has to
            // agree with them; recorded launches point to the statistics.
            let _ = self.model.lay_leaves(&self.queue, &self.structure);
            let _ = self.model.pack(&self.queue);
            let _ = self.queue.synchronize();
            *self.session.get_mut().unwrap_or_else(PoisonError::into_inner) = Session::default();
            self.circuit = OnceLock::new();
            return stepped;
        }
        learning.seen = Accumulated::default();
        // The truth is on the device now.
        self.circuit = OnceLock::new();
        self.learning = Some(learning);
        stepped
    }

    fn mini_batch_step(&mut self, rule: &MiniBatchEm, step: f64, state: &mut OptimizerState) -> Result<()> {
        rule.check_step(step)?;
        self.check_counted()?;
        if rule.momentum == 0.0 {
            state.memory.none()?;
            return self.em(Step::MiniBatchEm(rule, step, None));
        }
        let bias = state.next_bias(rule.momentum);
        let remembered = Remembered::of(&mut state.memory, &self.queue, &self.structure, Kind::Running)?;
        self.em(Step::MiniBatchEm(rule, step, Some(Running { mean: &remembered[0], bias })))
    }

    fn adam_step(&mut self, rule: &Adam, step: f64, state: &mut OptimizerState) -> Result<()> {
        rule.check_step(step)?;
        self.check_counted()?;
        let bias = [rule.beta1, rule.beta2].map(|beta| state.next_bias(beta));
        let remembered = Remembered::of(&mut state.memory, &self.queue, &self.structure, Kind::Moments)?;
        let ascent = Ascent { rule, step, moments: [&remembered[0], &remembered[1]], bias };
        self.step(false, |queue, structure, model, learning| {
            learning.counts.ascend(queue, structure, model, &learning.seen, ascent)
        })
    }

    /// Fills in what is missing.
    fn complete(&self, mut rows: Array2<f32>, query: Query) -> Result<Array2<f32>> {
        match self.with_session(|session| session.complete(self.context(), query, rows.view_mut()))? {
            Some(row) => Err(Error::ImpossibleEvidence { row }),
            None => Ok(rows),
        }
    }
}

impl Drop for CudaExecutable {
    fn drop(&mut self) {
        // Memory that a kernel or a copy still uses must not be given back; an error here has surfaced before.
        let _ = self.queue.synchronize();
    }
}

impl Executable for CudaExecutable {
    fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }

    fn parameters(&self) -> Result<Parameters> {
        Ok(self.current()?.parameters().clone())
    }

    fn held_parameters(&self) -> Result<Parameters> {
        Ok(self.model.held_parameters(&self.queue, &self.structure)?)
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()> {
        let circuit = Circuit::new(self.structure().clone(), parameters.clone())?;
        self.model.replace(&self.queue, circuit.structure(), circuit.parameters())?;
        self.circuit = OnceLock::from(Arc::new(circuit));
        self.reset_statistics();
        Ok(())
    }

    fn log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array1<f64>> {
        self.host.check(self.structure(), data)?;
        Ok(self.with_session(|session| session.log_likelihood(self.context(), data))?.into())
    }

    fn evaluate(&self, data: ArrayView2<f32>, semiring: Semiring) -> Result<Evaluation> {
        self.host.check(self.structure(), data)?;
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
        let root = activations.last().into_iter().flatten().copied().enumerate();
        check_range(&self.structure, root)?;
        Ok(Evaluation::new(self.current()?, data.mapv(f64::from), semiring, activations))
    }

    fn accumulate(&mut self, data: ArrayView2<f32>) -> Result<Accumulated> {
        self.host.check(self.structure(), data)?;
        self.count(data, None)
    }

    fn accumulate_labeled(&mut self, data: ArrayView2<f32>, labels: &[usize]) -> Result<Accumulated> {
        self.host.check(self.structure(), data)?;
        classes::check_labels(self.structure(), data.nrows(), labels)?;
        self.count(data, Some(labels))
    }

    fn set_inverse_temperature(&mut self, inverse_temperature: f64) -> Result<()> {
        check_inverse_temperature(inverse_temperature)?;
        if self.inverse_temperature != inverse_temperature {
            self.queue.replace(&mut self.model.inverse_temperature, &[inverse_temperature as f32])?;
            self.inverse_temperature = inverse_temperature;
        }
        Ok(())
    }

    fn class_log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array2<f64>> {
        let heads = classes::heads(self.structure())?;
        self.host.check(self.structure(), data)?;
        let mut all = Array2::zeros((data.nrows(), self.structure().shape(heads).channels));
        self.with_session(|session| {
            let purpose = Purpose::Tape(Semiring::SumProduct);
            let at_a_time = session.rows_at_a_time(self.context(), data.nrows(), purpose)?;
            let parts = data.axis_chunks_iter(Axis(0), at_a_time).zip(all.axis_chunks_iter_mut(Axis(0), at_a_time));
            for (rows, to) in parts {
                let (stride, outputs) = session.layers(self.context(), rows, purpose)?;
                let to = to.reversed_axes().insert_axis(Axis(0)).insert_axis(Axis(0));
                self.download_layer(stride, outputs, heads, to)?;
            }
            Ok(())
        })?;
        check_range(&self.structure, all.indexed_iter().map(|((row, _), value)| (row, *value)))?;
        Ok(all)
    }

    fn statistics(&self) -> Result<Statistics> {
        match &self.learning {
            Some(learning) => Ok(learning.statistics(&self.queue, self.structure())?),
            None => Ok(Statistics::zeros(self.structure())),
        }
    }

    fn reset_statistics(&mut self) {
        let Some(mut learning) = self.learning.take() else { return };
        if self.with_session(|_| learning.clear(&self.queue)).is_ok() {
            self.learning = Some(learning);
        }
    }

    fn em_step(&mut self, options: &em::Options) -> Result<()> {
        options.check()?;
        self.em(Step::Em(options))
    }

    fn update(&mut self, rule: &Rule, step: f64, state: &mut OptimizerState) -> Result<()> {
        match rule {
            Rule::Em(options) => self.em_step(options)?,
            Rule::MiniBatchEm(rule) => self.mini_batch_step(rule, step, state)?,
            Rule::Adam(rule) => self.adam_step(rule, step, state)?,
        }
        state.count_step();
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(self.queue.synchronize()?)
    }

    fn gradient(&self) -> Result<Parameters> {
        match &self.learning {
            Some(learning) => Ok(learning.counts.gradient(&self.queue, &self.structure, &self.model)?),
            None => Ok(Parameters::zeros(&self.structure)),
        }
    }

    fn sample(&self, rows: Range<u64>, seed: u64) -> Result<Array2<f32>> {
        if rows.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let all = Array2::zeros(((rows.end - rows.start) as usize, self.structure().variables()));
        self.complete(all, Query { evidence: None, choice: Choice::Sample { seed }, first_row: rows.start })
    }

    fn sample_conditional(&self, data: ArrayView2<f32>, seed: u64, first_row: u64) -> Result<Array2<f32>> {
        self.host.check(self.structure(), data)?;
        let query = Query { evidence: Some(Semiring::SumProduct), choice: Choice::Sample { seed }, first_row };
        self.complete(data.to_owned(), query)
    }

    fn mpe(&self, data: ArrayView2<f32>, method: Mpe) -> Result<Array2<f32>> {
        self.host.check(self.structure(), data)?;
        let query = Query { evidence: Some(method.semiring()), choice: Choice::ArgMax, first_row: 0 };
        self.complete(data.to_owned(), query)
    }
}

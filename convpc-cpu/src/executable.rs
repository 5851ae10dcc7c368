use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use convpc_core::{
    Accumulated, Choice, Circuit, Descending, Error, Evaluation, Executable, Mpe, OptimizerState, Parameters, Result,
    Rule, Semiring, Statistics, Structure, check_inverse_temperature, classes, descend, em, evidence,
};
use ndarray::{Array1, Array2, Array4, ArrayView2, ArrayViewMut2, Axis};
use rayon::{ThreadPool, prelude::*};

use crate::{
    model::Model,
    product::Sums,
    reach::Reach,
    scores::may_cancel,
    shares::{Counts, Share},
    simd::{Isa, bf16::Bf16},
    unobserved,
    update::Full,
    walk::{Cut, Row, Tape, Tile, Walk, Workspace},
};

pub(crate) struct CpuExecutable {
    pub(crate) model: Model,
    pub(crate) pool: Arc<ThreadPool>,
    /// Of threads that are not computing.
    workspaces: Mutex<Vec<Workspace>>,
    pub(crate) seen: Accumulated,
    pub(crate) counts: Counts,
    pub(crate) reach: Reach,
}

/// What walks does so on the threads of the current pool.
impl CpuExecutable {
    pub(crate) fn new(circuit: &Circuit, pool: Arc<ThreadPool>, isa: Isa, bf16: Option<Bf16>) -> Self {
        let model = pool.install(|| Model::new(circuit.structure(), circuit.parameters(), isa, bf16));
        let counts = Counts::default();
        let (seen, reach) = (Accumulated::default(), Reach::default());
        CpuExecutable { model, pool, workspaces: Mutex::default(), seen, counts, reach }
    }

    /// Runs `f` in a workspace.
    pub(crate) fn with_workspace<T>(&self, f: impl FnOnce(&mut Workspace) -> T) -> T {
        let pop = || self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut work = pop().unwrap_or_default();
        let result = f(&mut work);
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(work);
        result
    }

    /// What `ask` finds out from the top about a tile: threads take shares, one of them the rest.
    pub(crate) fn by_shares<T>(
        &self,
        tile: Tile,
        semiring: Semiring,
        tapes: Option<&mut [Tape]>,
        ask: impl FnOnce(&mut Walk) -> T,
    ) -> T {
        let (model, plan) = (&self.model, &self.model.plan);
        let cut = plan.cut.unwrap_or_default();
        let mut tapes: Vec<Option<&mut Tape>> = match tapes {
            Some(tapes) => tapes.iter_mut().map(Some).collect(),
            None => (0..plan.shares()).map(|_| None).collect(),
        };
        for (share, tape) in tapes.iter_mut().enumerate() {
            if let Some(tape) = tape {
                tape.prepare(plan, share, tile.n);
            }
        }
        let top = tapes.pop().expect("there is always the top");
        let walk = |(&(feature, repetition), tape): (&(usize, usize), Option<&mut Tape>)| {
            self.with_workspace(|work| {
                Walk { model, tile, semiring, work, tape, cut: None }.sums(cut, feature, repetition)
            })
        };
        let sums: Vec<Sums> = plan.roots.par_iter().zip(tapes).map(walk).collect();
        let cut = plan.cut.map(|_| Cut { sums: &sums, flows: &mut [] });
        self.with_workspace(|work| ask(&mut Walk { model, tile, semiring, work, tape: top, cut }))
    }

    /// Refuses a row whose log-likelihood came out as −∞ in a circuit of Normal leaves: a Normal density is never zero, so f32 was
    /// out of range. `first_row` is the number of the first row.
    ///
    /// # Errors
    /// [`Error::TooFar`] for the first such row.
    fn check_range(&self, log_likelihood: impl IntoIterator<Item = f64>, first_row: usize) -> Result<()> {
        match self.out_of_range(log_likelihood).next() {
            Some(row) => Err(Error::TooFar { row: first_row + row }),
            None => Ok(()),
        }
    }

    /// Completes the missing values of `data` in place, each row by its own way down.
    fn complete(
        &self,
        mut data: Array2<f32>,
        semiring: Semiring,
        choice: Choice,
        first_row: u64,
    ) -> Result<Array2<f32>> {
        evidence::check(self.structure(), data.view())?;
        let plan = &self.model.plan;
        let mut tapes: Vec<Tape> = (0..plan.shares()).map(|_| Tape::default()).collect();
        for (block, mut rows) in data.axis_chunks_iter_mut(Axis(0), plan.recorded_tile).enumerate() {
            let evidence = rows.to_owned();
            let tile = Tile::new(plan, evidence.view());
            let log_likelihood = self.by_shares(tile, semiring, Some(&mut tapes), |walk| walk.log_likelihood());
            let first = block * plan.recorded_tile;
            self.check_range(log_likelihood.iter().copied(), first)?;
            if let Some(row) = log_likelihood.iter().position(|ll| *ll == f64::NEG_INFINITY) {
                return Err(Error::ImpossibleEvidence { row: first + row });
            }
            let descent = |(share, mut rows): (usize, ArrayViewMut2<f32>)| {
                let mut all: Vec<Vec<f64>> =
                    rows.outer_iter().map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
                let row = |(at, values)| {
                    let at = share + at;
                    let inputs = Row { model: &self.model, tapes: &tapes, tile, row: at };
                    Descending { inputs, row: first_row + (first + at) as u64, values }
                };
                descend(&mut all.iter_mut().map(Vec::as_mut_slice).enumerate().map(row).collect::<Vec<_>>(), choice);
                for (mut row, values) in rows.outer_iter_mut().zip(all) {
                    row.iter_mut().zip(values).for_each(|(x, v)| *x = v as f32);
                }
            };
            let share = rows.nrows().div_ceil(self.pool.current_num_threads());
            let shares: Vec<_> = (0..).step_by(share).zip(rows.axis_chunks_iter_mut(Axis(0), share)).collect();
            shares.into_par_iter().for_each(descent);
        }
        Ok(data)
    }
}

impl CpuExecutable {
    /// Adds the expected counts of a tile: shares up, the top up and down, shares down.
    fn accumulate_tile(&self, tile: Tile, labels: Option<&[usize]>, shares: &mut [Share]) -> Vec<f64> {
        let (model, plan) = (&self.model, &self.model.plan);
        let semiring = Semiring::SumProduct;
        for (number, share) in shares.iter_mut().enumerate() {
            share.tape.prepare(plan, number, tile.n);
        }
        let (top, shares) = shares.split_last_mut().expect("there is always the top");
        let cut = plan.cut.unwrap_or_default();
        let up = |(share, &(feature, repetition)): (&mut Share, &(usize, usize))| {
            let tape = Some(&mut share.tape);
            self.with_workspace(|work| {
                Walk { model, tile, semiring, work, tape, cut: None }.sums(cut, feature, repetition)
            })
        };
        let sums: Vec<Sums> = shares.par_iter_mut().zip(&plan.roots).map(up).collect();
        let mut flows = vec![Vec::new(); sums.len()];
        let log_likelihood = self.with_workspace(|work| {
            let cut = plan.cut.map(|_| Cut { sums: &sums, flows: &mut flows });
            let mut walk = Walk { model, tile, semiring, work, tape: Some(&mut top.tape), cut };
            if let Some(labels) = labels {
                return walk.labeled(labels, &mut top.counts);
            }
            let log_likelihood = walk.log_likelihood();
            // A row of probability zero has no posterior, and the rows that fill up the tile are none.
            let mut flow = vec![0.0; tile.n];
            flow.iter_mut().zip(&log_likelihood).for_each(|(f, ll)| *f = f32::from(*ll > f64::NEG_INFINITY));
            walk.downward(model.sums.len() - 1, 0, 0, &flow, &mut top.counts);
            log_likelihood
        });
        let down = |((share, &(feature, repetition)), flow): ((&mut Share, &(usize, usize)), &Vec<f32>)| {
            let Share { tape, counts } = share;
            let tape = Some(tape);
            self.with_workspace(|work| {
                Walk { model, tile, semiring, work, tape, cut: None }.downward(cut, feature, repetition, flow, counts);
            });
        };
        shares.par_iter_mut().zip(&plan.roots).zip(&flows).for_each(down);
        log_likelihood
    }

    /// Adds the expected counts of rows, whose classes are known or not.
    ///
    /// # Errors
    /// As [`check_range`](Self::check_range); all statistics are forgotten then.
    fn count(&mut self, data: ArrayView2<f32>, labels: Option<&[usize]>) -> Result<Accumulated> {
        let prior = if labels.is_some() { self.class_prior()? } else { Vec::new() };
        let mut counts = std::mem::take(&mut self.counts);
        counts.prepare(&self.model.plan);
        // One way into the pool for the whole batch: each costs two switches of threads, which small circuits would notice.
        let batch = self.pool.install(|| -> Result<Accumulated> {
            let mut batch = Accumulated::default();
            let at_a_time = self.model.plan.recorded_tile;
            for (first, rows) in (0..).step_by(at_a_time).zip(data.axis_chunks_iter(Axis(0), at_a_time)) {
                let labels = labels.map(|labels| &labels[first..first + rows.nrows()]);
                let tile = Tile::new(&self.model.plan, rows);
                let log_likelihood = self.accumulate_tile(tile, labels, counts.shares_mut());
                // The rows of a class of prior probability 0 are impossible.
                let has_prior = |at: usize| labels.is_none_or(|labels| prior[labels[at]] > 0.0);
                let possible = |(at, ll): (usize, &f64)| if has_prior(at) { *ll } else { 0.0 };
                self.check_range(log_likelihood.iter().enumerate().map(possible), first)?;
                batch.rows += log_likelihood.len() as u64;
                batch.impossible_rows += log_likelihood.iter().filter(|ll| **ll == f64::NEG_INFINITY).count() as u64;
                batch.log_likelihood += log_likelihood.iter().sum::<f64>();
                counts.rows_added(log_likelihood.len(), &self.model);
            }
            Ok(batch)
        });
        self.counts = counts;
        if batch.is_err() {
            self.reset_statistics();
        }
        let batch = batch?;
        self.seen.rows += batch.rows;
        self.seen.impossible_rows += batch.impossible_rows;
        self.seen.log_likelihood += batch.log_likelihood;
        Ok(batch)
    }

    /// The parameters, the weights of each output divided by what `scale` makes of them.
    fn parameters_by(&self, scale: impl Fn(&mut dyn Iterator<Item = f64>) -> f64) -> Parameters {
        let mut parameters = Parameters::zeros(self.structure());
        parameters.0[0].iter_mut().zip(&self.model.leaf_tensor).for_each(|(p, v)| *p = *v);
        for (layer, weights) in self.model.sums.iter().enumerate() {
            let (Some(weights), Some(tensor)) = (weights, parameters.0[layer].as_slice_mut()) else { continue };
            let outputs = weights.values().len() / weights.inputs;
            let mut offsets = weights.offsets();
            for output in 0..outputs {
                let scale = scale(&mut weights.of_output(output));
                weights.of_output(output).zip(&mut offsets).for_each(|(w, offset)| tensor[offset] = w / scale);
            }
        }
        parameters
    }
}

impl Executable for CpuExecutable {
    fn structure(&self) -> &Arc<Structure> {
        &self.model.structure
    }

    fn parameters(&self) -> Result<Parameters> {
        // Rounded to f32, weights sum to one within 1e-7; here they do to the last bit of float64.
        Ok(self.parameters_by(|weights| weights.sum()))
    }

    fn held_parameters(&self) -> Result<Parameters> {
        Ok(self.parameters_by(|_| 1.0))
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()> {
        let circuit = Circuit::new(self.structure().clone(), parameters.clone())?;
        self.pool.install(|| self.model.set_parameters(circuit.parameters()));
        self.moved();
        Ok(())
    }

    fn log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array1<f64>> {
        evidence::check(self.structure(), data)?;
        let root = self.model.sums.len() - 1;
        let scores = self.scores(data, root, |exact, data| Ok(exact.log_likelihood(data)?.insert_axis(Axis(1))))?;
        Ok(scores.index_axis_move(Axis(1), 0))
    }

    fn class_log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array2<f64>> {
        let heads = classes::heads(self.structure())?;
        evidence::check(self.structure(), data)?;
        self.scores(data, heads, |exact, data| exact.class_log_likelihood(data))
    }

    fn class_prior(&self) -> Result<Vec<f64>> {
        let root = classes::heads(self.structure())? + 1;
        let weights = self.model.sums[root].as_ref().expect("a sum");
        let total: f64 = weights.of_output(0).sum();
        Ok(weights.of_output(0).map(|w| w / total).collect())
    }

    fn evaluate(&self, data: ArrayView2<f32>, semiring: Semiring) -> Result<Evaluation> {
        evidence::check(self.structure(), data)?;
        let structure = self.structure();
        let exact = may_cancel(0.0, self.model.leaves.gains(structure));
        let tile = Tile { exact, ..Tile::new(&self.model.plan, data) };
        let mut activations = Vec::new();
        for layer in 0..structure.layers().len() {
            let shape = structure.shape(layer);
            let mut tensor = Array4::zeros((shape.repetitions, shape.features(), shape.channels, data.nrows()));
            for (r, mut features) in tensor.outer_iter_mut().enumerate() {
                for (feature, mut channels) in features.outer_iter_mut().enumerate() {
                    let node = self.with_workspace(|work| {
                        Walk { model: &self.model, tile, semiring, work, tape: None, cut: None }.node(layer, feature, r)
                    });
                    for (mut rows, node) in channels.outer_iter_mut().zip(node.chunks_exact(tile.n)) {
                        rows.iter_mut().zip(node).for_each(|(to, y)| *to = *y);
                    }
                }
            }
            activations.push(tensor);
        }
        let root = activations.last().map(|root| root.iter().copied()).into_iter().flatten();
        self.check_range(root, 0)?;
        Ok(Evaluation::new(Arc::new(self.circuit()?), data.mapv(f64::from), semiring, activations))
    }

    fn accumulate(&mut self, data: ArrayView2<f32>) -> Result<Accumulated> {
        evidence::check(self.structure(), data)?;
        self.count(data, None)
    }

    fn accumulate_labeled(&mut self, data: ArrayView2<f32>, labels: &[usize]) -> Result<Accumulated> {
        evidence::check(self.structure(), data)?;
        classes::check_labels(self.structure(), data.nrows(), labels)?;
        self.count(data, Some(labels))
    }

    fn set_inverse_temperature(&mut self, inverse_temperature: f64) -> Result<()> {
        check_inverse_temperature(inverse_temperature)?;
        self.model.inverse_temperature = inverse_temperature;
        Ok(())
    }

    fn statistics(&self) -> Result<Statistics> {
        let mut statistics = Statistics::zeros(self.structure());
        statistics.rows = self.seen.rows;
        statistics.impossible_rows = self.seen.impossible_rows;
        statistics.log_likelihood = self.seen.log_likelihood;
        for layer in 0..self.structure().layers().len() {
            let Some(tensor) = statistics.counts[layer].as_slice_mut() else { continue };
            let counts = self.counts.of_layer(&self.model, layer);
            match &self.model.sums[layer] {
                Some(weights) => weights.offsets().zip(counts).for_each(|(offset, count)| tensor[offset] = count),
                None => counts.into_iter().enumerate().for_each(|(at, count)| {
                    tensor[self.model.leaves.statistics_offset(at)] = count;
                }),
            }
        }
        Ok(statistics)
    }

    fn reset_statistics(&mut self) {
        self.seen = Accumulated::default();
        let CpuExecutable { pool, counts, .. } = self;
        pool.install(|| counts.clear());
    }

    fn em_step(&mut self, options: &em::Options) -> Result<()> {
        options.check()?;
        self.seen.counted_rows()?;
        self.step(&Full { step: options.leaf_step() }, [None, None])?;
        Ok(())
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

    fn sample(&self, rows: Range<u64>, seed: u64) -> Result<Array2<f32>> {
        if rows.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let mut drawn = Array2::zeros(((rows.end - rows.start) as usize, self.structure().variables()));
        let together = drawn.nrows().div_ceil(self.pool.current_num_threads()).clamp(1, unobserved::TOGETHER);
        let model = &self.reached()?.model;
        let draw = |(tile, to)| unobserved::sample(model, seed, rows.start + (tile * together) as u64, to);
        let tiles: Vec<_> = drawn.axis_chunks_iter_mut(Axis(0), together).enumerate().collect();
        self.pool.install(|| tiles.into_par_iter().for_each(draw));
        Ok(drawn)
    }

    fn sample_conditional(&self, data: ArrayView2<f32>, seed: u64, first_row: u64) -> Result<Array2<f32>> {
        let data = data.to_owned();
        let reached = self.reached()?;
        self.pool.install(|| reached.complete(data, Semiring::SumProduct, Choice::Sample { seed }, first_row))
    }

    fn mpe(&self, data: ArrayView2<f32>, method: Mpe) -> Result<Array2<f32>> {
        let data = data.to_owned();
        let reached = self.reached()?;
        self.pool.install(|| reached.complete(data, method.semiring(), Choice::ArgMax, 0))
    }
}

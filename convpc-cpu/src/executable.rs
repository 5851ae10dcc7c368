use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use convpc_core::{
    Accumulated, Choice, Circuit, Descending, Error, Evaluation, Executable, Mpe, Parameters, Result, Semiring,
    Statistics, Structure, descend, em, evidence,
};
use ndarray::{Array1, Array2, Array4, ArrayView2, ArrayViewMut2, Axis};
use rayon::{ThreadPool, prelude::*};

use crate::{
    model::Model,
    simd::Isa,
    walk::{Done, Node, Row, Walk, Workspace},
};

/// Rows of a tile: enough that a weight read from memory is used often, few enough that a node's buffers stay in the
/// second-level cache. Both are multiples of every register's lanes.
const TILE: Range<usize> = 16..128;

/// Bytes that one thread's tape may take: what the way up leaves for the way down.
const TAPE_BYTES: usize = 256 << 20;

/// Rows that are sampled together: as many as share what a node is made of while it is in the cache.
const SAMPLED_TOGETHER: usize = 64;

/// Shares of the subtrees for each thread, so that none waits long for the last.
const SHARES: usize = 4;

pub(crate) struct CpuExecutable {
    model: Model,
    pool: Arc<ThreadPool>,
    /// Of threads that are not computing.
    workspaces: Mutex<Vec<Workspace>>,
    seen: Accumulated,
    /// For each layer the expected counts, in the order of the model's tensors.
    counts: Vec<Vec<f64>>,
}

impl CpuExecutable {
    pub(crate) fn new(circuit: &Circuit, pool: Arc<ThreadPool>, isa: Isa) -> Self {
        let model = Model::new(circuit.structure(), circuit.parameters(), isa);
        CpuExecutable { model, pool, workspaces: Mutex::default(), seen: Accumulated::default(), counts: Vec::new() }
    }

    fn tile_rows(&self, rows: usize, tape: bool) -> usize {
        let share = rows.div_ceil(self.pool.current_num_threads()).next_multiple_of(TILE.start);
        let fits = if tape { TAPE_BYTES / 4 / self.model.tape_len().max(1) } else { TILE.end };
        let fits = fits / TILE.start * TILE.start;
        share.min(fits).clamp(TILE.start, TILE.end)
    }

    /// Walks up over tiles of rows on all threads, and calls `then(workspace, tile rows, first row, log-likelihoods)`.
    fn for_tiles<T: Send>(
        &self,
        data: ArrayView2<f32>,
        semiring: Semiring,
        record: bool,
        then: impl Fn(&mut Workspace, usize, usize, &[f64]) -> T + Sync,
    ) -> Vec<T> {
        let n = self.tile_rows(data.nrows(), record);
        let tiles: Vec<(usize, ArrayView2<f32>)> = data.axis_chunks_iter(Axis(0), n).enumerate().collect();
        let tile = |(index, rows): &(usize, ArrayView2<f32>)| {
            let mut work = self.pop_workspace();
            work.prepare(&self.model, *rows, n, record);
            let walk = Walk { model: &self.model, work: &mut work, n, semiring, record, done: None };
            let log_likelihood = walk.log_likelihood(rows.nrows());
            let result = then(&mut work, n, index * n, &log_likelihood);
            self.push_workspace(work);
            result
        };
        self.pool.install(|| tiles.par_iter().map(tile).collect())
    }

    /// The log-likelihoods of rows that are too few to give each thread a tile: threads take subtrees, one of them the rest.
    fn by_subtrees(&self, data: ArrayView2<f32>, layer: usize) -> Vec<f64> {
        let model = &self.model;
        let (n, semiring) = (data.nrows().next_multiple_of(TILE.start), Semiring::SumProduct);
        let nodes = model.nodes(layer);
        let share = nodes.len().div_ceil(SHARES * self.pool.current_num_threads());
        let walk = |share: &[(usize, usize)]| {
            let mut work = self.pop_workspace();
            work.prepare(model, data, n, false);
            let mut walk = Walk { model, work: &mut work, n, semiring, record: false, done: None };
            let all: Vec<Node> = share.iter().map(|&(feature, r)| walk.node(layer, feature, r)).collect();
            self.push_workspace(work);
            all
        };
        let nodes = self.pool.install(|| nodes.par_chunks(share).flat_map_iter(walk).collect());
        let mut work = self.pop_workspace();
        work.prepare(model, data, n, false);
        let done = Some(&Done { layer, nodes });
        let walk = Walk { model, work: &mut work, n, semiring, record: false, done };
        let log_likelihood = walk.log_likelihood(data.nrows());
        self.push_workspace(work);
        log_likelihood
    }

    fn pop_workspace(&self) -> Workspace {
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn push_workspace(&self, work: Workspace) {
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner).push(work);
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
        let tiles = self.for_tiles(data.view(), semiring, true, |work, n, first, log_likelihood| {
            if let Some(row) = log_likelihood.iter().position(|ll| *ll == f64::NEG_INFINITY) {
                return Err(Error::ImpossibleEvidence { row: first + row });
            }
            let work = &*work;
            let rows = data.outer_iter().skip(first).take(log_likelihood.len());
            let mut all: Vec<Vec<f64>> = rows.map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
            let row = |(at, values)| {
                let inputs = Row { model: &self.model, tape: Some((work, n, at)) };
                Descending { inputs, row: first_row + (first + at) as u64, values }
            };
            descend(&mut all.iter_mut().map(Vec::as_mut_slice).enumerate().map(row).collect::<Vec<_>>(), choice);
            Ok(all)
        });
        let mut completed = Vec::with_capacity(data.nrows());
        for tile in tiles {
            completed.extend(tile?);
        }
        for (mut row, values) in data.outer_iter_mut().zip(completed) {
            row.iter_mut().zip(values).for_each(|(x, v)| *x = v as f32);
        }
        Ok(data)
    }

    /// Moves the workspaces' counts into the float64 ones.
    fn gather_counts(&mut self) {
        let Self { model, pool, workspaces, counts, .. } = self;
        if counts.is_empty() {
            *counts = vec![Vec::new(); model.sums.len()];
        }
        for work in workspaces.get_mut().unwrap_or_else(PoisonError::into_inner) {
            for (layer, new) in work.counts.drain(..).enumerate() {
                let total = &mut counts[layer];
                total.resize(new.len(), 0.0);
                pool.install(|| match &model.sums[layer] {
                    // The walk leaves the factor w of an edge's count to this place.
                    Some(w) => total
                        .par_iter_mut()
                        .zip(&new)
                        .zip(w.values())
                        .with_min_len(1 << 14)
                        .for_each(|((t, n), w)| *t += f64::from(*n) * f64::from(*w)),
                    None => total.iter_mut().zip(&new).for_each(|(t, n)| *t += f64::from(*n)),
                });
            }
        }
    }

    fn step_leaves(&mut self, options: &em::Options) {
        let Self { model, counts, .. } = self;
        let structure = &model.structure;
        let (family, size) = (structure.leaf().family, family_sizes(structure));
        let mut tensor = vec![0.0; model.leaf_tensor.len() / size.0 * size.1];
        for (at, count) in counts[0].iter().enumerate() {
            tensor[model.leaves.statistics_offset(at)] = *count;
        }
        for (theta, t) in model.leaf_tensor.chunks_exact_mut(size.0).zip(tensor.chunks_exact(size.1)) {
            family.maximum_likelihood(theta, t[0], &t[1..], &options.leaf_step());
        }
        model.leaves = crate::leaf::Leaves::new(structure, &model.leaf_tensor);
    }
}

/// Values of one leaf's parameters, and of its statistics with the flow.
fn family_sizes(structure: &Structure) -> (usize, usize) {
    let family = &structure.leaf().family;
    (family.parameters(), 1 + family.statistics())
}

impl Executable for CpuExecutable {
    fn structure(&self) -> &Arc<Structure> {
        &self.model.structure
    }

    fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::zeros(self.structure());
        parameters.0[0].iter_mut().zip(&self.model.leaf_tensor).for_each(|(p, v)| *p = *v);
        for (layer, weights) in self.model.sums.iter().enumerate() {
            let (Some(weights), Some(tensor)) = (weights, parameters.0[layer].as_slice_mut()) else { continue };
            // Rounded to f32, weights sum to one within 1e-7; here they do to the last bit of float64.
            let sums: Vec<f64> =
                weights.values().chunks_exact(weights.inputs).map(|w| w.iter().map(|w| f64::from(*w)).sum()).collect();
            for (at, offset) in weights.offsets().enumerate() {
                tensor[offset] = f64::from(weights.values()[at]) / sums[at / weights.inputs];
            }
        }
        Ok(parameters)
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()> {
        let circuit = Circuit::new(self.structure().clone(), parameters.clone())?;
        self.model = Model::new(circuit.structure(), circuit.parameters(), self.model.isa);
        self.reset_statistics();
        Ok(())
    }

    fn log_likelihood(&self, data: ArrayView2<f32>) -> Result<Array1<f64>> {
        evidence::check(self.structure(), data)?;
        let threads = self.pool.current_num_threads();
        let few = data.nrows().div_ceil(TILE.start) < threads && data.nrows() <= TILE.end;
        if let Some(layer) = few.then(|| self.model.layer_with(SHARES * threads)).flatten() {
            return Ok(self.by_subtrees(data, layer).into());
        }
        let tiles = self.for_tiles(data, Semiring::SumProduct, false, |_, _, _, root| root.to_vec());
        Ok(tiles.into_iter().flatten().collect())
    }

    fn evaluate(&self, data: ArrayView2<f32>, semiring: Semiring) -> Result<Evaluation> {
        evidence::check(self.structure(), data)?;
        let structure = self.structure();
        let n = data.nrows().next_multiple_of(TILE.start);
        let mut work = self.pop_workspace();
        work.prepare(&self.model, data, n, false);
        let mut activations = Vec::new();
        for layer in 0..structure.layers().len() {
            let shape = structure.shape(layer);
            let mut tensor = Array4::zeros((shape.repetitions, shape.features(), shape.channels, data.nrows()));
            for (r, mut features) in tensor.outer_iter_mut().enumerate() {
                for (feature, mut channels) in features.outer_iter_mut().enumerate() {
                    let mut walk = Walk { model: &self.model, work: &mut work, n, semiring, record: false, done: None };
                    let node = walk.node(layer, feature, r);
                    for (c, mut rows) in channels.outer_iter_mut().enumerate() {
                        rows.iter_mut().zip(node.channel(c)).for_each(|(to, y)| *to = y);
                    }
                }
            }
            activations.push(tensor);
        }
        self.push_workspace(work);
        Ok(Evaluation::new(Arc::new(self.circuit()?), data.mapv(f64::from), semiring, activations))
    }

    fn accumulate(&mut self, data: ArrayView2<f32>) -> Result<Accumulated> {
        evidence::check(self.structure(), data)?;
        let root = self.model.sums.len() - 1;
        let tiles = self.for_tiles(data, Semiring::SumProduct, true, |work, n, _, log_likelihood| {
            if work.counts.is_empty() {
                work.clear_counts(&self.model);
            }
            // A row of probability zero has no posterior, and the rows that fill up the tile are none.
            let mut flow = vec![0.0; n];
            flow.iter_mut().zip(log_likelihood).for_each(|(f, ll)| *f = f32::from(*ll > f64::NEG_INFINITY));
            let semiring = Semiring::SumProduct;
            Walk { model: &self.model, work, n, semiring, record: true, done: None }.downward(root, 0, 0, &flow);
            Accumulated {
                rows: log_likelihood.len() as u64,
                impossible_rows: log_likelihood.iter().filter(|ll| **ll == f64::NEG_INFINITY).count() as u64,
                log_likelihood: log_likelihood.iter().sum(),
            }
        });
        self.gather_counts();
        let mut batch = Accumulated::default();
        for tile in tiles {
            batch.rows += tile.rows;
            batch.impossible_rows += tile.impossible_rows;
            batch.log_likelihood += tile.log_likelihood;
        }
        self.seen.rows += batch.rows;
        self.seen.impossible_rows += batch.impossible_rows;
        self.seen.log_likelihood += batch.log_likelihood;
        Ok(batch)
    }

    fn statistics(&self) -> Result<Statistics> {
        let mut statistics = Statistics::zeros(self.structure());
        statistics.rows = self.seen.rows;
        statistics.impossible_rows = self.seen.impossible_rows;
        statistics.log_likelihood = self.seen.log_likelihood;
        for (layer, counts) in self.counts.iter().enumerate() {
            let Some(tensor) = statistics.counts[layer].as_slice_mut() else { continue };
            match &self.model.sums[layer] {
                Some(weights) => weights.offsets().zip(counts).for_each(|(offset, count)| tensor[offset] = *count),
                None => counts.iter().enumerate().for_each(|(at, count)| {
                    tensor[self.model.leaves.statistics_offset(at)] = *count;
                }),
            }
        }
        Ok(statistics)
    }

    fn reset_statistics(&mut self) {
        self.seen = Accumulated::default();
        self.counts.iter_mut().for_each(|counts| counts.fill(0.0));
    }

    fn em_step(&mut self, options: &em::Options) -> Result<()> {
        options.check()?;
        if self.seen.rows == self.seen.impossible_rows {
            return Err(Error::NoStatistics);
        }
        for (weights, counts) in self.model.sums.iter_mut().zip(&self.counts) {
            let Some(weights) = weights else { continue };
            let inputs = weights.inputs;
            self.pool.install(|| {
                weights.values_mut().par_chunks_exact_mut(inputs).zip(counts.par_chunks_exact(inputs)).for_each(
                    |(w, n)| {
                        let total = n.iter().sum::<f64>() + options.pseudocount * inputs as f64;
                        if total > 0.0 {
                            w.iter_mut().zip(n).for_each(|(w, n)| *w = ((n + options.pseudocount) / total) as f32);
                        }
                    },
                );
            });
        }
        self.step_leaves(options);
        self.reset_statistics();
        Ok(())
    }

    fn sample(&self, rows: Range<u64>, seed: u64) -> Result<Array2<f32>> {
        if rows.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let mut drawn = Array2::zeros(((rows.end - rows.start) as usize, self.structure().variables()));
        let together = drawn.nrows().div_ceil(self.pool.current_num_threads()).clamp(1, SAMPLED_TOGETHER);
        let draw = |(tile, mut to): (usize, ArrayViewMut2<f32>)| {
            let mut values = vec![f64::NAN; to.len()];
            let rows = values.chunks_exact_mut(to.ncols()).zip(rows.start + (tile * together) as u64..);
            let inputs = || Row { model: &self.model, tape: None };
            let mut all: Vec<_> = rows.map(|(values, row)| Descending { inputs: inputs(), row, values }).collect();
            descend(&mut all, Choice::Sample { seed });
            to.iter_mut().zip(values).for_each(|(to, v)| *to = v as f32);
        };
        let tiles: Vec<_> = drawn.axis_chunks_iter_mut(Axis(0), together).enumerate().collect();
        self.pool.install(|| tiles.into_par_iter().for_each(draw));
        Ok(drawn)
    }

    fn sample_conditional(&self, data: ArrayView2<f32>, seed: u64, first_row: u64) -> Result<Array2<f32>> {
        self.complete(data.to_owned(), Semiring::SumProduct, Choice::Sample { seed }, first_row)
    }

    fn mpe(&self, data: ArrayView2<f32>, method: Mpe) -> Result<Array2<f32>> {
        self.complete(data.to_owned(), method.semiring(), Choice::ArgMax, 0)
    }
}

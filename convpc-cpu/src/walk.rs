//! The depth-first walk over a tile of rows: up for likelihoods, down for flows.
//!
//! The log-likelihoods of a node's channels are kept as one offset a row, in float64, and what each channel differs from it
//! by, in f32. A sum moves its largest input into the offset, so that the differences stay near zero: flows and choices
//! depend on them alone, and f32 would round log-likelihoods of a thousand nats to a ten-thousandth.

use convpc_core::{Inputs, Layer, Semiring, Structure};

use crate::{
    memory::Aligned,
    model::Model,
    simd::{
        Matrix, matmul,
        ops::{Exponentials, LogAdd, MaxPlus, Multiply, Quotients, SMALLEST_SUM, Transposed},
    },
};

/// What one thread works in. Every buffer of the walk is `[channel][row]`.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Data of the tile, `[column][row]`.
    data: Aligned,
    /// For each layer the buffers that a node of it needs on the way up or down.
    scratch: Vec<Scratch>,
    /// For each sum layer and node what the way up found: inputs, sums, maxima.
    tape: Vec<Aligned>,
    /// For each layer the counts (for sums: divided by the weight).
    pub(crate) counts: Vec<Vec<f32>>,
}

#[derive(Debug, Default)]
struct Scratch {
    x: Aligned,
    e: Aligned,
    sum: Aligned,
    max: Aligned,
    transposed: Aligned,
    offset: Vec<f64>,
}

/// A way through the circuit for a tile of `n` rows.
pub(crate) struct Walk<'a> {
    pub(crate) model: &'a Model,
    pub(crate) work: &'a mut Workspace,
    pub(crate) n: usize,
    pub(crate) semiring: Semiring,
    /// Whether sums are written to the tape.
    pub(crate) record: bool,
    /// A layer whose nodes other threads have walked already.
    pub(crate) done: Option<&'a Done>,
}

/// The log-likelihoods of all nodes of a sum layer; see [`Model::nodes`] for the nodes.
///
/// A sum layer, because a sum adds one number to what is above it, and so the result is the same to the last bit.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) layer: usize,
    pub(crate) nodes: Vec<Node>,
}

/// The log-likelihoods of one node: `values[channel][row] + offset[row]`.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) values: Vec<f32>,
    pub(crate) offset: Vec<f64>,
}

impl Node {
    /// What nothing was added to yet.
    pub(crate) fn zeros(channels: usize, n: usize) -> Self {
        Node { values: vec![0.0; channels * n], offset: vec![0.0; n] }
    }

    /// The log-likelihoods of one channel.
    pub(crate) fn channel(&self, channel: usize) -> impl Iterator<Item = f64> {
        let n = self.offset.len();
        self.values[channel * n..][..n].iter().zip(&self.offset).map(|(v, offset)| f64::from(*v) + offset)
    }
}

impl Workspace {
    /// Fits the workspace to a circuit, and takes in a tile of `n` rows; rows beyond `data` are missing throughout.
    pub(crate) fn prepare(&mut self, model: &Model, data: ndarray::ArrayView2<f32>, n: usize, tape: bool) {
        let columns = model.structure.variables();
        let tile = self.data.at_least(columns * n);
        tile.fill(f32::NAN);
        for (row, values) in data.outer_iter().enumerate() {
            for (column, v) in values.iter().enumerate() {
                tile[column * n + row] = *v;
            }
        }
        let layers = model.sums.len();
        self.scratch.resize_with(layers, Scratch::default);
        self.tape.resize_with(layers, Aligned::default);
        if tape {
            for (layer, tape) in self.tape.iter_mut().enumerate() {
                tape.at_least(model.layer_tape_len(layer, n));
            }
        }
    }

    /// Makes room for counts, set to zero.
    pub(crate) fn clear_counts(&mut self, model: &Model) {
        let leaf = model.structure.variables() * model.structure.shape(0).repetitions * model.leaves.counts_len();
        let len = |layer: usize| match layer {
            0 => leaf,
            _ => model.sums[layer].as_ref().map_or(0, |w| w.values().len()),
        };
        self.counts.resize_with(model.sums.len(), Vec::new);
        for (layer, counts) in self.counts.iter_mut().enumerate() {
            counts.clear();
            counts.resize(len(layer), 0.0);
        }
    }
}

impl Walk<'_> {
    /// The log-likelihoods of the first `rows` rows.
    pub(crate) fn log_likelihood(mut self, rows: usize) -> Vec<f64> {
        self.node(self.model.sums.len() - 1, 0, 0).channel(0).take(rows).collect()
    }

    /// The log-likelihoods of a node.
    pub(crate) fn node(&mut self, layer: usize, feature: usize, repetition: usize) -> Node {
        let mut node = Node::zeros(self.model.structure.shape(layer).channels, self.n);
        self.upward(layer, feature, repetition, &mut node.values, &mut node.offset);
        node
    }

    /// Adds the log-likelihoods of a node's channels to `out` and `offset`.
    fn upward(&mut self, layer: usize, feature: usize, repetition: usize, out: &mut [f32], offset: &mut [f64]) {
        let model = self.model;
        if model.structure.is_empty(layer, feature) {
            return;
        }
        if let Some(done) = self.done.filter(|done| done.layer == layer) {
            let node = &done.nodes[model.node_number(layer, feature, repetition)];
            out.iter_mut().zip(&node.values).for_each(|(out, y)| *out += y);
            return offset.iter_mut().zip(&node.offset).for_each(|(offset, o)| *offset += o);
        }
        match &model.structure.layers()[layer] {
            Layer::Leaf(_) => {
                for column in model.structure.pixel_columns(feature) {
                    let x = column_of(&self.work.data, column, self.n);
                    model.leaves.upward(model.isa, (column, repetition), x, self.semiring, out);
                }
            }
            Layer::ProdConv(_) => {
                for &child in &model.children[layer][feature] {
                    self.upward(layer - 1, child, repetition, out, offset);
                }
            }
            Layer::RepetitionMixing(_) => self.mix(layer, feature, out, offset),
            Layer::Sum(_) | Layer::SumConv(_) => self.sum(layer, feature, repetition, out, offset),
        }
    }

    /// Runs `f` with the buffers of a node: on the tape where it is recorded, in scratch memory otherwise.
    fn with_node(
        &mut self,
        layer: usize,
        feature: usize,
        repetition: usize,
        f: impl FnOnce(&mut Self, &mut Scratch, &mut [f32]),
    ) {
        let (model, n) = (self.model, self.n);
        let len = model.node_len(layer, n);
        let mut scratch = std::mem::take(&mut self.work.scratch[layer]);
        if self.record {
            let mut tape = std::mem::take(&mut self.work.tape[layer]);
            let start = model.node_start(layer, feature, repetition, n);
            f(self, &mut scratch, &mut tape.as_mut()[start..start + len]);
            self.work.tape[layer] = tape;
        } else {
            let mut x = std::mem::take(&mut scratch.x);
            f(self, &mut scratch, x.at_least(len));
            scratch.x = x;
        }
        self.work.scratch[layer] = scratch;
    }

    /// `y = m + log(W · exp(x − m))`, the m going to the offset.
    fn sum(&mut self, layer: usize, feature: usize, repetition: usize, out: &mut [f32], offset: &mut [f64]) {
        let (model, n) = (self.model, self.n);
        let weights = model.sums[layer].as_ref().expect("a sum layer");
        let (inputs, outputs) = (weights.inputs, weights.outputs);
        let w = weights.of(feature, repetition);
        self.with_node(layer, feature, repetition, |walk, scratch, node| {
            let (x, rest) = node.split_at_mut(inputs * n);
            let (sum, max) = rest.split_at_mut(outputs * n);
            x.fill(0.0);
            scratch.offset.clear();
            scratch.offset.resize(n, 0.0);
            walk.upward(layer - 1, feature, repetition, x, &mut scratch.offset);
            if walk.semiring == Semiring::MaxProduct {
                for (d, w) in w.chunks_exact(inputs).enumerate() {
                    let log_w: Vec<f32> = w.iter().map(|w| w.ln()).collect();
                    model.isa.dispatch(MaxPlus { x, log_w: &log_w, out: &mut out[d * n..][..n] });
                }
                return offset.iter_mut().zip(&scratch.offset).for_each(|(offset, below)| *offset += below);
            }
            let e = scratch.e.at_least(inputs * n);
            model.isa.dispatch(Exponentials { x, e, max, n });
            let a = Matrix { data: w, row_stride: inputs, col_stride: 1 };
            matmul(model.isa, a, e, n, sum, n, outputs, n, inputs, false);
            if model.isa.dispatch(LogAdd { sum, out }) {
                for at in (0..outputs * n).filter(|&at| sum[at] < SMALLEST_SUM) {
                    let y = log_sum(x, &w[at / n * inputs..][..inputs], at % n, n);
                    out[at] += (y - f64::from(max[at % n])) as f32;
                }
            }
            let below = scratch.offset.iter().zip(&*max);
            offset.iter_mut().zip(below).for_each(|(offset, (below, max))| *offset += below + f64::from(*max));
        });
    }

    /// `y[c] = log sum_r w[c,r] exp x[c,r]`; few enough to be done in logarithms and float64.
    fn mix(&mut self, layer: usize, feature: usize, out: &mut [f32], offset: &mut [f64]) {
        let (model, n) = (self.model, self.n);
        let weights = model.sums[layer].as_ref().expect("a sum layer");
        let (repetitions, channels) = (weights.inputs, weights.outputs);
        let w = weights.of(feature, 0);
        self.with_node(layer, feature, 0, |walk, scratch, x| {
            x.fill(0.0);
            let offsets = &mut scratch.offset;
            offsets.clear();
            offsets.resize(repetitions * n, 0.0);
            for (r, x) in x.chunks_exact_mut(channels * n).enumerate() {
                walk.upward(layer - 1, feature, r, x, &mut offsets[r * n..][..n]);
            }
            for (row, offset) in offset.iter_mut().enumerate() {
                let of_row = || offsets.iter().skip(row).step_by(n);
                let largest = of_row().copied().fold(f64::NEG_INFINITY, f64::max);
                for (own, x) in of_row().zip(x.chunks_exact_mut(channels * n)) {
                    x.iter_mut().skip(row).step_by(n).for_each(|x| *x += (own - largest) as f32);
                }
                *offset += largest;
            }
            for (at, out) in out.iter_mut().enumerate() {
                let w = &w[at / n * repetitions..][..repetitions];
                *out += match walk.semiring {
                    Semiring::SumProduct => log_sum(x, w, at, channels * n),
                    Semiring::MaxProduct => log_terms(x, w, at, channels * n).fold(f64::NEG_INFINITY, f64::max),
                } as f32;
            }
        });
    }

    /// Sends flow `[channel][row]` down from a node whose upward pass was recorded, and adds to the counts.
    pub(crate) fn downward(&mut self, layer: usize, feature: usize, repetition: usize, flow: &[f32]) {
        let model = self.model;
        if model.structure.is_empty(layer, feature) {
            return;
        }
        match &model.structure.layers()[layer] {
            Layer::Leaf(_) => {
                for column in model.structure.pixel_columns(feature) {
                    let x = column_of(&self.work.data, column, self.n);
                    let counts = &mut self.work.counts[0];
                    model.leaves.downward(model.isa, (column, repetition), x, flow, counts);
                }
            }
            Layer::ProdConv(_) => {
                for &child in &model.children[layer][feature] {
                    self.downward(layer - 1, child, repetition, flow);
                }
            }
            Layer::RepetitionMixing(_) => self.unmix(layer, feature, flow),
            Layer::Sum(_) | Layer::SumConv(_) => self.unsum(layer, feature, repetition, flow),
        }
    }

    /// With `q = flow / sum`: `flow_in = e ⊙ (Wᵀ q)`, and the counts divided by the weights are `q eᵀ`.
    fn unsum(&mut self, layer: usize, feature: usize, repetition: usize, flow: &[f32]) {
        let (model, n) = (self.model, self.n);
        let weights = model.sums[layer].as_ref().expect("a sum layer");
        let (inputs, outputs) = (weights.inputs, weights.outputs);
        let (w, start) = (weights.of(feature, repetition), weights.start(feature, repetition));
        self.with_node(layer, feature, repetition, |walk, scratch, node| {
            let (x, rest) = node.split_at_mut(inputs * n);
            let (sum, max) = rest.split_at_mut(outputs * n);
            let (e, transposed) = (scratch.e.at_least(inputs * n), scratch.transposed.at_least(inputs * n));
            let (q, below) = (scratch.sum.at_least(outputs * n), scratch.max.at_least(inputs * n));
            let mut counts = std::mem::take(&mut walk.work.counts[layer]);
            let here = &mut counts[start..start + outputs * inputs];
            model.isa.dispatch(Transposed { x, max, e, transposed });
            let left = model.isa.dispatch(Quotients { flow, sum, q });
            let by_row = Matrix { data: q, row_stride: n, col_stride: 1 };
            matmul(model.isa, by_row, transposed, inputs, here, inputs, outputs, inputs, n, true);
            let across = Matrix { data: w, row_stride: 1, col_stride: inputs };
            matmul(model.isa, across, q, n, below, n, inputs, n, outputs, false);
            model.isa.dispatch(Multiply { e, flow: below });
            if left {
                for at in (0..outputs * n).filter(|&at| sum[at] < SMALLEST_SUM && flow[at] > 0.0) {
                    let (d, row) = (at / n, at % n);
                    let w = &w[d * inputs..][..inputs];
                    let y = log_sum(x, w, row, n);
                    for (c, term) in log_terms(x, w, row, n).enumerate().filter(|(c, _)| w[*c] > 0.0) {
                        let share = flow[at] * (term - y).exp() as f32;
                        below[c * n + row] += share;
                        here[d * inputs + c] += share / w[c];
                    }
                }
            }
            walk.work.counts[layer] = counts;
            walk.downward(layer - 1, feature, repetition, below);
        });
    }

    fn unmix(&mut self, layer: usize, feature: usize, flow: &[f32]) {
        let (model, n) = (self.model, self.n);
        let weights = model.sums[layer].as_ref().expect("a sum layer");
        let (repetitions, channels) = (weights.inputs, weights.outputs);
        let (w, start) = (weights.of(feature, 0), weights.start(feature, 0));
        self.with_node(layer, feature, 0, |walk, scratch, x| {
            let below = scratch.max.at_least(x.len());
            below.fill(0.0);
            for (at, &flow) in flow.iter().enumerate().filter(|(_, flow)| **flow > 0.0) {
                let first = at / n * repetitions;
                let w = &w[first..first + repetitions];
                let y = log_sum(x, w, at, channels * n);
                for (r, term) in log_terms(x, w, at, channels * n).enumerate().filter(|(r, _)| w[*r] > 0.0) {
                    let share = flow * (term - y).exp() as f32;
                    below[r * channels * n + at] += share;
                    walk.work.counts[layer][start + first + r] += share / w[r];
                }
            }
            for (r, flow) in below.chunks_exact(channels * n).enumerate() {
                walk.downward(layer - 1, feature, r, flow);
            }
        });
    }
}

/// The values of one data column in a tile `[column][n]`.
fn column_of(tile: &Aligned, column: usize, n: usize) -> &[f32] {
    &tile.as_ref()[column * n..][..n]
}

/// `log w_k + x[k · stride + at]`, in float64.
fn log_terms<'a>(x: &'a [f32], w: &'a [f32], at: usize, stride: usize) -> impl Iterator<Item = f64> + 'a {
    w.iter().enumerate().map(move |(k, w)| f64::from(*w).ln() + f64::from(x[k * stride + at]))
}

fn log_sum(x: &[f32], w: &[f32], at: usize, stride: usize) -> f64 {
    let max = log_terms(x, w, at, stride).fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + log_terms(x, w, at, stride).map(|t| (t - max).exp()).sum::<f64>().ln()
}

/// The sums' inputs for one row of a recorded tile, or with nothing observed.
pub(crate) struct Row<'a> {
    pub(crate) model: &'a Model,
    /// The workspace with the tape, the tile's row count and the row in it.
    pub(crate) tape: Option<(&'a Workspace, usize, usize)>,
}

impl Inputs for Row<'_> {
    fn structure(&self) -> &Structure {
        &self.model.structure
    }

    fn edges(&self, layer: usize, feature: usize, channel: usize, repetition: usize, edges: &mut Vec<(f64, f64)>) {
        let weights = self.model.sums[layer].as_ref().expect("a sum layer");
        let w = &weights.of(feature, repetition)[channel * weights.inputs..][..weights.inputs];
        match self.tape {
            None => edges.extend(w.iter().map(|w| (f64::from(*w), 0.0))),
            Some((work, n, row)) => {
                let node = &work.tape[layer].as_ref()[self.model.node_start(layer, feature, repetition, n)..];
                let (at, stride) = match weights.mixes_repetitions() {
                    true => (channel * n + row, weights.outputs * n),
                    false => (row, n),
                };
                let all = w.iter().enumerate();
                edges.extend(all.map(|(k, w)| (f64::from(*w), f64::from(node[k * stride + at]))));
            }
        }
    }

    fn draw(&self, layer: usize, feature: usize, channel: usize, repetition: usize, u: f64) -> Option<usize> {
        let weights = self.model.sums[layer].as_ref().filter(|_| self.tape.is_none())?;
        Some(weights.draw(feature, repetition, channel, u))
    }

    fn leaf_parameters(&self, column: usize, channel: usize, repetition: usize, parameters: &mut Vec<f64>) {
        let (shape, size) = (self.model.structure.shape(0), self.model.structure.leaf().family.parameters());
        let start = ((column * shape.channels + channel) * shape.repetitions + repetition) * size;
        parameters.extend_from_slice(&self.model.leaf_tensor[start..start + size]);
    }
}

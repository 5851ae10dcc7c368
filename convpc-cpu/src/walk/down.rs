use convpc_core::Layer;

use super::{Tape, Walk, Wide};
use crate::{
    shares::ShareCounts,
    simd::{
        MatMul, Matrix, Store,
        ops::{Quotients, RescueFlow, SMALLEST_FLOW, Scale, Transpose},
    },
    weights::{Weights, WideWeights},
};

impl Walk<'_, '_> {
    /// Sends flow `[panel][channel][width]` down from a node whose way up is on the tape, and adds to the share's counts.
    pub(crate) fn downward(
        &mut self,
        layer: usize,
        feature: usize,
        repetition: usize,
        flow: &[f32],
        counts: &mut ShareCounts,
    ) {
        let model = self.model;
        if model.structure.is_empty(layer, feature, repetition) {
            return;
        }
        match &model.structure.layers()[layer] {
            Layer::Leaf(_) => self.leaf(feature, repetition, flow, counts),
            Layer::ProdConv(_) => {
                for child in model.structure.children(layer, feature, repetition) {
                    self.downward(layer - 1, child, repetition, flow, counts);
                }
            }
            Layer::RepetitionMixing(_) => self.unmix(layer, feature, flow, counts),
            _ if self.cut.is_some() && model.plan.cut == Some(layer) => {
                let (number, _) = model.plan.node(layer, feature, repetition);
                let to = &mut self.cut.as_mut().expect("there is one").flows[number];
                to.clear();
                to.extend_from_slice(flow);
            }
            _ => self.unsum(layer, feature, repetition, flow, counts),
        }
    }

    /// Up to the heads, and down again with the flow of each row at the head of its class, as if there were no others; counts the
    /// classes at the root. The joint log-likelihoods of rows and their classes, nats.
    pub(crate) fn labeled(&mut self, labels: &[usize], counts: &mut ShareCounts) -> Vec<f64> {
        let (model, n, width) = (self.model, self.tile.n, self.tile.width);
        let root = model.sums.len() - 1;
        let weights = model.sums[root].as_ref().expect("a sum layer");
        let prior: Vec<f64> = weights.of_output(0).collect();
        let start = self.counts_of(root, weights, 0, 0);
        let x = self.node(root - 1, 0, 0);
        let mut flow = vec![0.0; x.len()];
        let mut of_tile = vec![0_u32; weights.inputs];
        let mut count = |(row, &class): (usize, &usize)| {
            let joint = prior[class].ln() + x[class * n + row];
            if joint > f64::NEG_INFINITY {
                flow[(row / width * weights.inputs + class) * width + row % width] = 1.0;
                of_tile[class] += 1;
            }
            joint
        };
        let joint = labels.iter().enumerate().map(&mut count).collect();
        counts.sums[start..].iter_mut().zip(of_tile).for_each(|(count, rows)| *count += rows as f32);
        self.downward(root - 1, 0, 0, &flow, counts);
        joint
    }

    fn leaf(&mut self, feature: usize, repetition: usize, flow: &[f32], counts: &mut ShareCounts) {
        let (model, width) = (self.model, self.tile.width);
        let repetitions = model.structure.shape(0).repetitions;
        let mut x = std::mem::take(&mut self.work.column);
        x.resize(self.tile.n, 0.0);
        for column in model.structure.pixel_columns(feature) {
            self.tile.column(column, 0, &mut x);
            let leaf = model.structure.leaf_row(column);
            let start = model.plan.counts(0)[leaf * repetitions + repetition];
            let (theta, scratch) = (model.leaf_row(leaf), &mut self.work.leaf);
            model.leaves.downward(model.isa, (leaf, repetition, theta), (&x, width), flow, scratch, (counts, start));
        }
        self.work.column = x;
    }

    /// With `q = flow / sum`: `flow_in = e ⊙ (Wᵀ q)`, and the counts are `W ⊙ (q eᵀ)`.
    fn unsum(&mut self, layer: usize, feature: usize, repetition: usize, flow: &[f32], counts: &mut ShareCounts) {
        let (model, n, width) = (self.model, self.tile.n, self.tile.width);
        let weights = model.sums[layer].as_ref().expect("a sum layer");
        let (inputs, outputs) = (weights.inputs, weights.outputs);
        let (w, start) = (weights.of(feature, repetition), self.counts_of(layer, weights, feature, repetition));
        let counts_here = start..start + outputs * inputs;
        let (_, start) = model.plan.node(layer, feature, repetition);
        let tape = self.tape.as_mut().expect("the way up was recorded");
        let taped = std::mem::take(&mut tape.layers[layer]);
        let (e, sums) = taped.as_ref()[start * n..][..(inputs + outputs) * n].split_at(inputs * n);
        self.work.prepare(model.sums.len());
        let mut level = std::mem::take(&mut self.work.levels[layer]);
        let below = level.flow.at_least(inputs * n);
        let (transposed, q) = (self.work.transposed.at_least(inputs * n), self.work.q.at_least(outputs * n));

        let (input_panels, output_panels) = (inputs * width, outputs * width);
        let mut untrusted = false;
        for panel in 0..n / width {
            let (of_inputs, of_outputs) = (panel * input_panels.., panel * output_panels..);
            let (e, to) = (&e[of_inputs.clone()][..input_panels], &mut transposed[of_inputs.clone()][..input_panels]);
            model.isa.dispatch(Transpose { from: e, to, width });
            let [flow, sum] = [flow, sums].map(|of| &of[of_outputs.clone()][..output_panels]);
            let q = &mut q[of_outputs][..output_panels];
            untrusted |= model.isa.dispatch(Quotients { flow, sum, q });
            let (a, below) = (Matrix::new(w, 1, inputs), &mut below[of_inputs][..input_panels]);
            let (m, k, store) = (inputs, outputs, Store::Set);
            model.isa.dispatch(MatMul { m, n: width, k, a, b: q, ldb: width, c: below, ldc: width, store });
            model.isa.dispatch(Scale { e, flow: below });
        }
        let by_row = Matrix { block: width, block_stride: output_panels, ..Matrix::new(q, width, 1) };
        let (m, k, c, store) = (outputs, n, &mut counts.sums[counts_here.clone()], Store::Weighted(w));
        model.isa.dispatch(MatMul { m, n: inputs, k, a: by_row, b: transposed, ldb: inputs, c, ldc: inputs, store });
        if untrusted {
            let counts = &mut counts.sums[counts_here];
            let mut wide_weights = WideWeights::default();
            let wide = self.tape.as_ref().expect("as above").wide.range((layer, start, 0)..(layer, start, usize::MAX));
            for (&(_, _, panel), wide) in wide {
                let Wide { inputs: [mantissas, exponents], outputs: [out, out_exponents] } = wide;
                let below = &mut below[panel * input_panels..][..input_panels];
                for d in 0..outputs {
                    let lanes = panel * output_panels + d * width..panel * output_panels + (d + 1) * width;
                    let own = d * width..(d + 1) * width;
                    let (w, w_exponents) = wide_weights.of(weights, (feature, repetition), d);
                    model.isa.dispatch(RescueFlow {
                        w,
                        w_exponents,
                        mantissas,
                        exponents,
                        sum: &sums[lanes.clone()],
                        out: &out[own.clone()],
                        out_exponents: &out_exponents[own],
                        flow: &flow[lanes],
                        below,
                        counts: &mut counts[d * inputs..][..inputs],
                    });
                }
            }
        }
        self.downward(layer - 1, feature, repetition, below, counts);
        self.work.levels[layer] = level;
        self.put_back(layer, taped);
    }

    fn unmix(&mut self, layer: usize, feature: usize, flow: &[f32], counts: &mut ShareCounts) {
        let (model, n, width) = (self.model, self.tile.n, self.tile.width);
        let weights = model.sums[layer].as_ref().expect("a sum layer");
        let (repetitions, channels) = (weights.inputs, weights.outputs);
        let (matrix, len) = (weights.start(feature, 0), channels * repetitions);
        let w: Vec<f64> = weights.exact(matrix..matrix + len).collect();
        let first = self.counts_of(layer, weights, feature, 0);
        let (_, start) = model.plan.node(layer, feature, 0);
        let tape = self.tape.as_mut().expect("the way up was recorded");
        let taped = std::mem::take(&mut tape.layers[layer]);
        let x = &taped.as_ref()[start * n..][..repetitions * channels * n];
        let mut below = vec![vec![0.0; channels * n]; repetitions];
        // Added up for the whole tile first: single rows would be lost beside the counts of many.
        let mut of_tile = vec![0.0_f64; channels * repetitions];
        for (at, &flow) in flow.iter().enumerate().filter(|(_, flow)| **flow > 0.0) {
            let (panel, channel) = (at / (channels * width), at / width % channels);
            let row = panel * width + at % width;
            let w = &w[channel * repetitions..][..repetitions];
            let posterior = |r: usize| w[r].ln() + f64::from(x[(r * channels + channel) * n + row]);
            let terms: Vec<f64> = (0..repetitions).map(|r| model.inverse_temperature * posterior(r)).collect();
            let max = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = terms.iter().map(|t| (t - max).exp()).sum();
            for (r, term) in terms.iter().enumerate().filter(|(r, _)| w[*r] > 0.0) {
                let share = flow * ((term - max).exp() / total) as f32;
                if share >= SMALLEST_FLOW {
                    below[r][at] += share;
                    of_tile[channel * repetitions + r] += f64::from(share);
                }
            }
        }
        counts.sums[first..].iter_mut().zip(of_tile).for_each(|(count, sum)| *count += sum as f32);
        for (r, flow) in below.iter().enumerate() {
            self.downward(layer - 1, feature, r, flow, counts);
        }
        self.put_back(layer, taped);
    }

    /// Where the counts of a node's matrix begin in those of its share.
    fn counts_of(&self, layer: usize, weights: &Weights, feature: usize, repetition: usize) -> usize {
        self.model.plan.counts(layer)[weights.matrix(feature, repetition)]
    }

    fn put_back(&mut self, layer: usize, taped: crate::memory::Aligned) {
        if let Some(Tape { layers, .. }) = self.tape.as_deref_mut() {
            layers[layer] = taped;
        }
    }
}

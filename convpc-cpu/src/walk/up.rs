use std::f64::consts::LN_2;

use convpc_core::{Layer, Semiring, Structure};
use ndarray::Array2;

use super::{
    Level, Walk, Wide, Workspace,
    rescue::{Inputs, Sum},
};
use crate::{
    leaf::{Columns, Peaks},
    memory::Aligned,
    product::{Above, Panel, Product, Sums, add, log},
    simd::{
        MOST_WIDTH, MatMul, MatVec, Matrix, Store,
        bf16::PairProduct,
        ops::{Exponentials, Normalise, NormaliseWide, PRODUCT_EXPONENT, SMALLEST_SUM},
    },
    weights::Weights,
};

/// Visits the columns of the leaves of a node without sums below it.
fn columns_below(
    structure: &Structure,
    (layer, feature, repetition): (usize, usize, usize),
    visit: &mut impl FnMut(usize),
) {
    if layer == 0 {
        structure.pixel_columns(feature).for_each(visit);
    } else {
        let children = structure.children(layer, feature, repetition);
        children.for_each(|child| columns_below(structure, (layer - 1, child, repetition), visit));
    }
}

impl Walk<'_, '_> {
    /// The log-likelihoods of the rows.
    pub(crate) fn log_likelihood(&mut self) -> Vec<f64> {
        let all = self.node(self.model.sums.len() - 1, 0, 0);
        all[..self.tile.data.nrows()].to_vec()
    }

    /// The log-likelihoods of the rows under each class, `[rows, classes]`, nats.
    pub(crate) fn class_log_likelihood(&mut self, heads: usize) -> Array2<f64> {
        let (n, all) = (self.tile.n, self.node(heads, 0, 0));
        Array2::from_shape_fn((self.tile.data.nrows(), all.len() / n), |(row, class)| all[class * n + row])
    }

    /// The log-likelihoods of a node, `[channel][n]`, nats.
    pub(crate) fn node(&mut self, layer: usize, feature: usize, repetition: usize) -> Vec<f64> {
        let (n, width, channels) = (self.tile.n, self.tile.width, self.model.structure.shape(layer).channels);
        let row_of = |panel: usize, at: usize| at / width * n + panel * width + at % width;
        let mut logs = vec![0.0; channels * n];
        if self.model.structure.is_empty(layer, feature, repetition) {
            return logs;
        }
        self.work.prepare(self.model.sums.len());
        if self.has_logarithms_below(layer + 1) {
            let mut out = vec![0.0; channels * width];
            for panel in 0..n / width {
                out.fill(0.0);
                self.exact_logarithms(layer, feature, repetition, panel, &mut out);
                out.iter().enumerate().for_each(|(at, x)| logs[row_of(panel, at)] = *x);
            }
        } else if self.model.sums[layer].is_some() {
            let sums = self.sums(layer, feature, repetition);
            for (channel, logs) in logs.chunks_exact_mut(n).enumerate() {
                logs.iter_mut().zip(sums.channel(channel)).for_each(|(to, x)| *to = x);
            }
        } else {
            let (mut values, mut level) = (Aligned::zeros(channels * n), Level::default());
            let mut product = Product::new(values.as_mut(), &mut level.extra, n, width);
            self.upward(layer, feature, repetition, &mut Above::Product(&mut product));
            product.finish();
            let exponents = level.extra.exponents.at_least(channels * n);
            for (panel, state) in level.extra.panels.iter().enumerate() {
                for at in 0..channels * width {
                    let (value, exponent) =
                        (values.as_ref()[panel * channels * width + at], &mut exponents[panel * channels * width + at]);
                    let exponent = if *state == Panel::Wide { *exponent } else { 0.0 };
                    let to = row_of(panel, at);
                    logs[to] = log(value, exponent - PRODUCT_EXPONENT) + level.extra.offset[to % n];
                }
            }
        }
        logs
    }

    /// The values of a sum node.
    pub(crate) fn sums(&mut self, layer: usize, feature: usize, repetition: usize) -> Sums {
        self.work.prepare(self.model.sums.len());
        let channels = self.model.structure.shape(layer).channels;
        let mut sums = Sums::new(channels, self.tile.n, self.tile.width);
        self.upward(layer, feature, repetition, &mut Above::Sums(&mut sums));
        sums
    }

    /// Hands on the values of a node that has sums at or below it.
    fn upward(&mut self, layer: usize, feature: usize, repetition: usize, above: &mut Above) {
        let model = self.model;
        match &model.structure.layers()[layer] {
            Layer::ProdConv(_) => {
                for child in model.structure.children(layer, feature, repetition) {
                    self.upward(layer - 1, child, repetition, above);
                }
            }
            Layer::RepetitionMixing(_) => self.mix(layer, feature, above),
            _ if self.cut.is_some() && model.plan.cut == Some(layer) => {
                let (number, _) = model.plan.node(layer, feature, repetition);
                self.cut.as_ref().expect("there is one").sums[number].give(model.isa, above);
            }
            _ => self.sum(layer, feature, repetition, above),
        }
    }

    /// Adds the log-densities of a node without sums below it, for one panel, relative to peaks of the rows, which are added too.
    fn logarithms(
        &mut self,
        (layer, feature, repetition): (usize, usize, usize),
        panel: usize,
        out: &mut [f32],
        peaks: &mut Peaks,
    ) {
        let (model, semiring, width) = (self.model, self.semiring, self.tile.width);
        let Workspace { columns, leaf, .. } = &mut *self.work;
        let mut add = |columns: &mut Columns| {
            model.leaves.upward(model.isa, (columns, repetition), semiring, leaf, (out, peaks));
            columns.clear(width);
        };
        columns.clear(width);
        columns_below(&model.structure, (layer, feature, repetition), &mut |column| {
            if columns.is_full() {
                add(columns);
            }
            self.tile.column(column, panel * width, columns.push(model.structure.leaf_row(column)));
        });
        if !columns.is_empty() {
            add(columns);
        }
    }

    /// Adds the log-densities of a node without sums below it, for one panel, in float64.
    fn exact_logarithms(&mut self, layer: usize, feature: usize, repetition: usize, panel: usize, out: &mut [f64]) {
        let (model, semiring, width) = (self.model, self.semiring, self.tile.width);
        let mut x = [0.0; MOST_WIDTH];
        let x = &mut x[..width];
        columns_below(&model.structure, (layer, feature, repetition), &mut |column| {
            self.tile.column(column, panel * width, x);
            let leaf = model.structure.leaf_row(column);
            let place = (leaf, repetition, model.leaf_row(leaf));
            model.leaves.upward_exact(model.isa, place, x, semiring, &mut self.work.leaf, out);
        });
    }

    /// The largest absolute log-density, in nats, for which a row is computed in f32; below zero if no row is.
    fn trusted(&self) -> f32 {
        if self.tile.exact { -1.0 } else { self.model.leaves.trusted() }
    }

    /// Replaces the log-densities of rows that f32 cannot be trusted with: they are computed in float64, made relative to the
    /// largest of their row, which becomes the row's peak, and rounded. Other rows of the panel stay as they are, so that no
    /// row depends on its neighbours.
    fn replace_untrusted(
        &mut self,
        (layer, feature, repetition): (usize, usize, usize),
        panel: usize,
        x: &mut [f32],
        peaks: &mut Peaks,
    ) {
        let width = self.tile.width;
        let mut exact = vec![0.0; x.len()];
        self.exact_logarithms(layer, feature, repetition, panel, &mut exact);
        let limit = self.trusted();
        for row in 0..width {
            let is_trusted = |largest: f32| largest.abs() <= limit;
            if is_trusted(x.iter().skip(row).step_by(width).copied().fold(f32::NEG_INFINITY, f32::max)) {
                continue;
            }
            let largest = exact.iter().skip(row).step_by(width).copied().fold(f64::NEG_INFINITY, f64::max);
            let largest = if largest == f64::NEG_INFINITY { 0.0 } else { largest };
            let relative = exact.iter().skip(row).step_by(width).map(|value| (value - largest) as f32);
            x[row..].iter_mut().step_by(width).zip(relative).for_each(|(x, relative)| *x = relative);
            peaks.set(row, width, largest);
        }
    }

    /// `W · e`, where e are the inputs relative to the largest of their row.
    fn sum(&mut self, layer: usize, feature: usize, repetition: usize, above: &mut Above) {
        let (model, n, width) = (self.model, self.tile.n, self.tile.width);
        let weights = model.sums[layer].as_ref().expect("a sum layer");
        let (inputs, outputs) = (weights.inputs, weights.outputs);
        let sum = Sum { weights, feature, repetition };
        let logarithms_below = self.has_logarithms_below(layer);
        let mut level = std::mem::take(&mut self.work.levels[layer]);
        let mut taped = self.tape.as_mut().map(|tape| std::mem::take(&mut tape.layers[layer]));
        let (_, start) = model.plan.node(layer, feature, repetition);
        let recorded = taped.as_mut().map(|tape| &mut tape.as_mut()[start * n..][..(inputs + outputs) * n]);
        let (values, mut kept) = match recorded {
            Some(node) => {
                let (values, sums) = node.split_at_mut(inputs * n);
                (values, Some(sums))
            }
            None if logarithms_below => (level.product.at_least(inputs * width), None),
            None => (level.product.at_least(inputs * n), None),
        };
        if logarithms_below {
            level.extra.clear(n, width);
        } else {
            let mut product = Product::new(values, &mut level.extra, n, width);
            self.upward(layer - 1, feature, repetition, &mut Above::Product(&mut product));
            product.finish();
        }
        let mut scratch = std::mem::take(&mut self.work.panel);
        for panel in 0..n / width {
            let slot = if values.len() == inputs * n { panel } else { 0 };
            let e = &mut values[slot * inputs * width..][..inputs * width];
            let offset = &mut level.extra.offset[panel * width..][..width];
            let wide_inputs = if logarithms_below {
                let (x, below) = (scratch.logarithms.at_least(inputs * width), (layer - 1, feature, repetition));
                x.fill(0.0);
                scratch.peaks.clear();
                self.logarithms(below, panel, x, &mut scratch.peaks);
                let (max, limit) = (scratch.row.at_least(width), self.trusted());
                if model.isa.dispatch(Exponentials { x, e, max, limit }) {
                    self.replace_untrusted(below, panel, x, &mut scratch.peaks);
                    model.isa.dispatch(Exponentials { x, e, max, limit: f32::INFINITY });
                }
                offset.iter_mut().zip(&*max).for_each(|(offset, max)| *offset += f64::from(*max));
                scratch.peaks.add_to(offset);
                Inputs::Logarithms
            } else {
                let row = scratch.row.at_least(width);
                let state = level.extra.panels[panel];
                if state == Panel::Wide {
                    let [mantissas, exponents] = scratch.inputs.each_mut().map(|to| to.at_least(inputs * width));
                    mantissas.copy_from_slice(e);
                    exponents
                        .copy_from_slice(&level.extra.exponents.as_ref()[panel * inputs * width..][..inputs * width]);
                    model.isa.dispatch(NormaliseWide { mantissas, exponents, values: e, row_exponents: row });
                } else {
                    model.isa.dispatch(Normalise { p: e, exponents: row });
                }
                let nats = |k: f32| f64::from(k - PRODUCT_EXPONENT) * LN_2;
                offset.iter_mut().zip(row).for_each(|(offset, k)| *offset += nats(*k));
                if state == Panel::Wide { Inputs::Wide } else { Inputs::Plain }
            };
            let kept = kept.as_mut().map(|sums| &mut sums[panel * outputs * width..][..outputs * width]);
            let mut own = std::mem::take(&mut scratch.sums);
            let sums = kept.unwrap_or_else(|| own.at_least(outputs * width));
            let least = self.multiply(weights, (feature, repetition), e, sums, &mut scratch.pairs);
            if least < SMALLEST_SUM && sum.rescue(model.isa, wide_inputs, self.semiring, e, sums, &mut scratch) {
                let [mantissas, exponents] = scratch.outputs.each_ref().map(|to| &to.as_ref()[..outputs * width]);
                above.take(model.isa, panel, mantissas, Some(exponents));
                if let Some(tape) = self.tape.as_mut() {
                    let of = |buffers: &[Aligned; 2], len| buffers.each_ref().map(|b| b.as_ref()[..len].to_vec());
                    let inputs = of(&scratch.inputs, inputs * width);
                    let outputs = of(&scratch.outputs, outputs * width);
                    tape.wide.insert((layer, start, panel), Wide { inputs, outputs });
                }
            } else {
                above.take(model.isa, panel, sums, None);
            }
            scratch.sums = own;
        }
        add(above.offset(), &level.extra.offset);
        self.work.panel = scratch;
        self.work.levels[layer] = level;
        if let (Some(tape), Some(buffer)) = (self.tape.as_mut(), taped) {
            tape.layers[layer] = buffer;
        }
    }

    /// The sums of one panel; returns the least of them.
    fn multiply(
        &self,
        weights: &Weights,
        (feature, repetition): (usize, usize),
        e: &[f32],
        sums: &mut [f32],
        pairs: &mut Aligned<u32>,
    ) -> f32 {
        let (isa, width, inputs, outputs) = (self.model.isa, self.tile.width, weights.inputs, weights.outputs);
        let summed = self.semiring == Semiring::SumProduct;
        // Flows are to be those of the sums to the last bit: what is recorded is exact.
        if let (Some(bf16), None, true) = (self.model.bf16, &self.tape, summed) {
            let pairs = pairs.at_least(inputs.div_ceil(2) * width);
            bf16.pack(e, width, pairs);
            let product = match width {
                1 => PairProduct { a: pairs, b: weights.pair_columns_of(feature, repetition), c: sums, n: outputs },
                _ => PairProduct { a: weights.pairs_of(feature, repetition), b: pairs, c: sums, n: width },
            };
            return bf16.product(product);
        }
        if width == 1 && summed {
            return isa.dispatch(MatVec { w: weights.columns_of(feature, repetition), x: e, y: sums });
        }
        let store = if summed { Store::Set } else { Store::Largest };
        let a = Matrix::new(weights.of(feature, repetition), inputs, 1);
        isa.dispatch(MatMul { m: outputs, n: width, k: inputs, a, b: e, ldb: width, c: sums, ldc: width, store })
    }

    /// `y[c] = log sum_r w[c,r] exp x[c,r]`; few enough to be done in logarithms and float64.
    fn mix(&mut self, layer: usize, feature: usize, above: &mut Above) {
        let (model, n, width) = (self.model, self.tile.n, self.tile.width);
        let weights = model.sums[layer].as_ref().expect("a sum layer");
        let (repetitions, channels) = (weights.inputs, weights.outputs);
        let (first, len) = (weights.start(feature, 0), channels * repetitions);
        let w: Vec<f64> = weights.exact(first..first + len).collect();
        let mut x: Vec<f64> = Vec::with_capacity(repetitions * channels * n);
        (0..repetitions).for_each(|r| x.extend(self.node(layer - 1, feature, r)));
        let mut y = vec![0.0; channels * n];
        for row in 0..n {
            let largest = x.iter().skip(row).step_by(n).copied().fold(f64::NEG_INFINITY, f64::max);
            if largest == f64::NEG_INFINITY {
                y.iter_mut().skip(row).step_by(n).for_each(|y| *y = largest);
                continue;
            }
            x.iter_mut().skip(row).step_by(n).for_each(|x| *x -= largest);
            for channel in 0..channels {
                let terms =
                    (0..repetitions).map(|r| (w[channel * repetitions + r], x[(r * channels + channel) * n + row]));
                let terms = terms.filter(|(w, _)| *w > 0.0).map(|(w, x)| w.ln() + x);
                let max = terms.clone().fold(f64::NEG_INFINITY, f64::max);
                y[channel * n + row] = match self.semiring {
                    Semiring::SumProduct if max > f64::NEG_INFINITY => {
                        max + terms.map(|t| (t - max).exp()).sum::<f64>().ln()
                    }
                    _ => max,
                };
            }
            above.offset()[row] += largest;
        }
        if let Some(tape) = self.tape.as_mut() {
            let (_, start) = model.plan.node(layer, feature, 0);
            let node = &mut tape.layers[layer].as_mut()[start * n..][..x.len()];
            node.iter_mut().zip(&x).for_each(|(to, x)| *to = *x as f32);
        }
        for panel in 0..n / width {
            let y = (0..channels * width).map(|at| y[at / width * n + panel * width + at % width]);
            // Powers of two near the logarithms, so that mantissas are near one.
            let exponents: Vec<f32> = y.clone().map(|y| (y / LN_2).round() as f32).collect();
            let mantissas = y.zip(&exponents).map(|(y, k)| match *k {
                f32::NEG_INFINITY => 0.75,
                // Beyond about 2^24 the f32 exponent is not exact, so the remainder is clamped.
                k => (y - f64::from(k) * LN_2).clamp(-LN_2, LN_2).exp() as f32,
            });
            let mut values: Vec<f32> = mantissas.collect();
            if exponents.iter().any(|k| *k < -99.0 && *k > f32::NEG_INFINITY) {
                above.take(model.isa, panel, &values, Some(&exponents));
            } else {
                values.iter_mut().zip(&exponents).for_each(|(value, k)| *value *= k.exp2());
                above.take(model.isa, panel, &values, None);
            }
        }
    }
}

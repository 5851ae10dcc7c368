use ndarray::{ArrayD, IxDyn};

use crate::{layer::Layer, parameters::Parameters, structure::Structure, top_down::top_down};

/// Expected counts: how often each part of a circuit was used, given the data. EM and gradients are functions of them.
///
/// Sums over rows (and over all positions that share a weight) of the edge flows, in the shapes of the weights; at the leaf
/// `[rows, channels, repetitions, 1 + family.statistics()]`: the flow, then the flow-weighted `T(x)` of the rows in which
/// the variable was observed. They belong to the parameters they were gathered at.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// Rows seen.
    pub rows: u64,
    /// Rows of probability zero among them: no posterior exists, so they count for nothing below.
    pub impossible_rows: u64,
    /// Sum of the log-likelihoods of all rows, nats.
    pub log_likelihood: f64,
    /// One tensor a layer; empty (`[0]`) for products.
    pub counts: Vec<ArrayD<f64>>,
}

impl Statistics {
    /// No data seen yet.
    pub fn zeros(structure: &Structure) -> Self {
        let tensor = |layer| ArrayD::zeros(IxDyn(&structure.statistics_shape(layer)));
        let counts = (0..structure.layers().len()).map(tensor).collect();
        Statistics { rows: 0, impossible_rows: 0, log_likelihood: 0.0, counts }
    }

    /// Adds the statistics of more data, gathered at the same parameters of the same structure.
    pub fn add(&mut self, other: &Statistics) {
        self.rows = self.rows.saturating_add(other.rows);
        self.impossible_rows = self.impossible_rows.saturating_add(other.impossible_rows);
        self.log_likelihood += other.log_likelihood;
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }

    /// What one row adds on average if it is drawn from the circuit itself: the top-down probability of each node times the
    /// weights of its edges, and at the leaves times the expected statistics of the family. EM on them changes nothing.
    ///
    /// These are also the expected counts of a row of which nothing is observed, with the leaves counted all the same.
    ///
    /// ```
    /// use convpc_core::{ConvPc, Family, Statistics, em};
    /// let (structure, parameters) = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(2).build(1)?.into_parts();
    /// let expected = Statistics::expected(&structure, &parameters);
    /// assert!((expected.counts[4].sum() - 1.0).abs() < 1e-12); // the root is used once
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    pub fn expected(structure: &Structure, parameters: &Parameters) -> Self {
        let mut statistics = Statistics { rows: 1, ..Statistics::zeros(structure) };
        let Statistics { counts, .. } = &mut statistics;
        let used = top_down(structure, |layer, outputs, inputs| {
            let edges = structure.edges(layer).expect("a sum-like layer");
            let weights = parameters.slice(layer);
            let counts = counts[layer].as_slice_mut().expect("standard layout");
            for ((r, f, d), p) in outputs.indexed_iter() {
                for edge in edges.of(f, d, r) {
                    let share = p * weights[edge.weight];
                    inputs[[edge.repetition, f, edge.channel]] += share;
                    counts[edge.weight] += share;
                }
            }
        });
        let family = &structure.leaf().family;
        let (repetitions, _, channels) = used[0].dim();
        let theta = parameters.slice(0);
        let counts = statistics.counts[0].as_slice_mut().expect("standard layout");
        let mut t = vec![0.0; family.statistics()];
        for ((r, pixel, c), &flow) in used[0].indexed_iter() {
            for column in structure.pixel_columns(pixel) {
                let leaf = (structure.leaf_row(column) * channels + c) * repetitions + r;
                family.expected(&theta[leaf * family.parameters()..][..family.parameters()], &mut t);
                let counts = &mut counts[leaf * (1 + t.len())..][..1 + t.len()];
                counts[0] += flow;
                counts.iter_mut().skip(1).zip(&t).for_each(|(n, t)| *n += flow * t);
            }
        }
        statistics
    }

    /// Gradient of the summed log-likelihood (nats) with respect to the unconstrained parameters: the logits of sum weights,
    /// `count − w · Σ count`, and those of the leaf family (mean and log std, logits), in the shapes of the parameters.
    ///
    /// `parameters` are those that the statistics were gathered at.
    pub fn gradient(&self, structure: &Structure, parameters: &Parameters) -> Parameters {
        let mut gradient = Parameters::zeros(structure);
        for (index, layer) in structure.layers().iter().enumerate() {
            let (counts, theta, out) = (&self.counts[index], &parameters.0[index], &mut gradient.0[index]);
            if let Layer::Leaf(leaf) = layer {
                let lanes = counts.rows().into_iter().zip(theta.rows()).zip(out.rows_mut());
                for ((count, theta), mut out) in lanes {
                    let (count, theta) = (count.to_vec(), theta.to_vec());
                    leaf.family.gradient(&theta, count[0], &count[1..], out.as_slice_mut().expect("innermost axis"));
                }
            }
            if let Some(axis) = layer.normalized_axis() {
                let axis = ndarray::Axis(axis);
                let lanes = counts.lanes(axis).into_iter().zip(theta.lanes(axis)).zip(out.lanes_mut(axis));
                for ((count, w), mut out) in lanes {
                    let total = count.sum();
                    out.iter_mut().zip(count.iter().zip(w)).for_each(|(g, (n, w))| *g = n - w * total);
                }
            }
        }
        gradient
    }
}

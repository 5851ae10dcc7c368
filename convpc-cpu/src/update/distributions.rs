//! Every distribution of a circuit, one after another, with its counts and what an update rule remembers of it.
//!
//! A sum's weights are those of a categorical distribution over its inputs: sums and leaves go one way.

use std::ops::Range;

use convpc_core::{Error, Family, Result, Structure, WeightMatrices, kept_possible};
use ndarray::{Array3, ArrayD, Axis, aview1};
use rayon::prelude::*;

use crate::{
    leaf::{Leaves, Squares, TOGETHER},
    model::Model,
    plan::Plan,
    shares::Counts,
    simd::Isa,
    weights::Weights,
};

/// A leaf, or the weights of a sum.
pub(crate) struct Distribution<'a> {
    pub(crate) family: &'a Family,
    /// The parameters that the counts were gathered at.
    pub(crate) before: &'a [f64],
    /// The same, to be moved.
    pub(crate) theta: &'a mut [f64],
    /// The flow, then the flow-weighted statistics; of no use after the visit.
    pub(crate) counts: &'a mut [f64],
    /// The top-down probability, where it was asked for; added up over the nodes that share the weights.
    pub(crate) used: f64,
    /// What is remembered of it, as many values as the tensors of the state have; empty without memory.
    pub(crate) memory: [&'a mut [f64]; 2],
}

/// What is done to each distribution.
pub(crate) trait Visit: Sync {
    /// Whether it reads the top-down probabilities.
    fn needs_top_down(&self) -> bool {
        false
    }

    /// Whether it moves parameters.
    fn moves(&self) -> bool {
        true
    }

    /// The pseudocount, where the new weights of a sum are those of the exact step whatever the old ones were: nothing but counts
    /// is gathered then, and there is no visit.
    fn replaces_weights(&self) -> Option<f64> {
        None
    }

    /// Whether it may move a distribution to where it is none.
    fn goes_astray(&self, family: &Family) -> bool;

    /// Visits a distribution; two vectors are for its own use. The answers are added up.
    fn visit(&self, it: Distribution, scratch: &mut [Vec<f64>; 2]) -> f64;
}

/// What a thread needs.
#[derive(Default)]
struct Scratch {
    before: Vec<f64>,
    theta: Vec<f64>,
    counts: Vec<f64>,
    memory: [Vec<f64>; 2],
    squares: Squares,
    visit: [Vec<f64>; 2],
}

/// Visits all distributions on the threads of the current pool; the sum of the answers, always in the same order. `used` are
/// the top-down probabilities or nothing, `memory` tensors in the shapes of the circuit's.
///
/// # Errors
/// [`Error::Weights`] and [`Error::LeafParameters`] where a distribution was moved out of what is legal; it is left as it was.
pub(crate) fn each<V: Visit>(
    model: &mut Model,
    counts: &Counts,
    used: &[Array3<f64>],
    memory: [Option<&mut Vec<ArrayD<f64>>>; 2],
    visit: &V,
) -> Result<f64> {
    let mut memory = memory.map(|tensors| tensors.into_iter().flatten().map(values).collect::<Vec<_>>().into_iter());
    let Model { structure, leaf_tensor, leaves, sums, plan, isa, .. } = model;
    let mut sum = 0.0;
    for (layer, weights) in sums.iter_mut().enumerate() {
        let memory = memory.each_mut().map(|tensors| tensors.next().unwrap_or_default());
        let (used, at) = (used.get(layer), Place { structure, layer, counts, plan });
        if let Some(weights) = weights {
            let used = used.map(|used| weights.shared(used));
            sum += each_sum(at, weights, used.as_deref(), memory, visit)?;
        } else if layer == 0 {
            sum += each_leaf(at, *isa, leaf_tensor, leaves, used, memory, visit)?;
        }
    }
    Ok(sum)
}

/// A tensor's values in row-major order.
fn values(tensor: &mut ArrayD<f64>) -> &mut [f64] {
    if !tensor.is_standard_layout() {
        *tensor = tensor.as_standard_layout().into_owned();
    }
    tensor.as_slice_mut().unwrap_or_default()
}

/// Where the distributions of a layer are counted.
#[derive(Clone, Copy)]
struct Place<'a> {
    structure: &'a Structure,
    layer: usize,
    counts: &'a Counts,
    plan: &'a Plan,
}

/// `pieces` parts of a tensor that may be empty.
fn cut(tensors: [&mut [f64]; 2], pieces: usize) -> Vec<[&mut [f64]; 2]> {
    let mut parts = tensors.map(|tensor| {
        let len = tensor.len() / pieces.max(1);
        tensor.chunks_exact_mut(len.max(1))
    });
    (0..pieces).map(|_| parts.each_mut().map(|parts| parts.next().unwrap_or_default())).collect()
}

fn each_sum<V: Visit>(
    at: Place,
    weights: &mut Weights,
    used: Option<&[f64]>,
    memory: [&mut [f64]; 2],
    visit: &V,
) -> Result<f64> {
    let (matrices, values) = weights.values_mut();
    let WeightMatrices { groups, repetitions, outputs, inputs, .. } = matrices;
    // A thread takes what lies together here and in the circuit's tensors.
    let pieces = if matrices.groups_are_apart() { groups } else { 1 };
    let (len, family) = (values.len() / pieces, Family::categorical(inputs));
    let piece = |scratch: &mut Scratch, (piece, (values, mut memory)): (usize, (&mut [f32], [&mut [f64]; 2]))| {
        let Scratch { before, theta, counts, memory: remembered, visit: own, .. } = scratch;
        let mut sum = 0.0;
        for (output, w) in values.chunks_exact_mut(inputs).enumerate() {
            let number = piece * (len / inputs) + output;
            let (matrix, d) = (number / outputs, number % outputs);
            let (group, r) = (matrix / repetitions, matrix % repetitions);
            let part = d * inputs..(d + 1) * inputs;
            if let Some(pseudocount) = visit.replaces_weights() {
                counts.clear();
                counts.resize(inputs, 0.0);
                at.add_counts(matrix, outputs * inputs, part, counts);
                exact_weights(counts, pseudocount, w);
                continue;
            }
            // Rounded to f32 they sum to one within 1e-7; here they do to the last bit of float64.
            let total: f64 = w.iter().map(|w| f64::from(*w)).sum();
            before.clear();
            before.extend(w.iter().map(|w| f64::from(*w) / total));
            theta.clone_from(before);
            counts.clear();
            counts.resize(1 + inputs, 0.0);
            at.add_counts(matrix, outputs * inputs, part, &mut counts[1..]);
            counts[0] = counts[1..].iter().sum();
            let start = matrices.offset((group, r), d, 0) - piece * len;
            let stride = if inputs > 1 { matrices.offset((group, r), d, 1) - piece * len - start } else { 1 };
            for (own, all) in remembered.iter_mut().zip(&memory) {
                own.clear();
                own.extend(all.iter().skip(start).step_by(stride).take(inputs));
            }
            let memory_of_it = remembered.each_mut().map(Vec::as_mut_slice);
            let used = used.map_or(0.0, |used| used[number]);
            sum +=
                visit.visit(Distribution { family: &family, before, theta, counts, used, memory: memory_of_it }, own);
            for (own, all) in remembered.iter().zip(&mut memory) {
                all.iter_mut().skip(start).step_by(stride).zip(own).for_each(|(to, own)| *to = *own);
            }
            // What did not move stays to the last bit, small weights too.
            if visit.moves() && theta != before {
                if visit.goes_astray(&family) && family.problem(theta).is_some() {
                    let (layer, sum) = (at.layer, theta.iter().sum::<f64>());
                    let index = match matrices.groups_are_apart() {
                        true => (group * outputs + d) * repetitions + r,
                        false => (d * groups + group) * repetitions + r,
                    };
                    let (kind, problem) = (at.structure.layers()[layer].kind(), format!("sum to {sum:?}"));
                    return Err(Error::Weights { layer, kind, index, problem });
                }
                w.iter_mut().zip(&*theta).for_each(|(w, new)| *w = kept_possible(*new, f64::from(*w)) as f32);
            }
        }
        Ok(sum)
    };
    let pieces = values.par_chunks_exact_mut(len).zip(cut(memory, pieces)).enumerate();
    let sum = pieces.map_init(Scratch::default, piece).collect::<Vec<_>>().into_iter().sum();
    weights.settle();
    sum
}

/// The exact step of a sum's weights; they stay where nothing was counted.
fn exact_weights(counts: &[f64], pseudocount: f64, w: &mut [f32]) {
    let total = aview1(counts).sum() + pseudocount * counts.len() as f64;
    if total > 0.0 {
        w.iter_mut().zip(counts).for_each(|(w, n)| *w = kept_possible((n + pseudocount) / total, f64::from(*w)) as f32);
    }
}

fn each_leaf<V: Visit>(
    at: Place,
    isa: Isa,
    tensor: &mut [f64],
    leaves: &mut Leaves,
    used: Option<&Array3<f64>>,
    memory: [&mut [f64]; 2],
    visit: &V,
) -> Result<f64> {
    let (structure, family, shape) = (at.structure, &at.structure.leaf().family, at.structure.shape(0));
    let (channels, repetitions) = (shape.channels, shape.repetitions);
    let (parameters, statistics) = (family.parameters(), 1 + family.statistics());
    let astray = visit.moves() && visit.goes_astray(family);
    let (layout, rows) = leaves.rows_mut(isa);
    let used = used.map(|used| used_by_row(structure, used));
    type Row<'a> = (usize, ((&'a mut [f32], &'a mut [f64]), [&'a mut [f64]; 2]));
    let row = |scratch: &mut Scratch, (row, ((values, tensor), mut memory)): Row| {
        let Scratch { before, counts, squares, visit: own, .. } = scratch;
        let remembered = memory.each_ref().map(|memory| memory.len() / (channels * repetitions));
        let (mut sum, mut wrong) = (0.0, None);
        for (first, r) in (0..channels).step_by(TOGETHER).flat_map(|c| (0..repetitions).map(move |r| (c, r))) {
            let together = TOGETHER.min(channels - first);
            counts.clear();
            counts.resize(together * statistics, 0.0);
            let (matrix, len) = (row * repetitions + r, statistics * channels);
            if let Some(total) = at.counts.total(0, matrix, len) {
                for (c, counts) in (first..).zip(counts.chunks_exact_mut(statistics)) {
                    counts.iter_mut().zip(total[c..].iter().step_by(channels)).for_each(|(n, total)| *n += total);
                }
            }
            for recent in at.counts.recent(at.plan, 0, matrix, len) {
                layout.add_counts(recent, first, counts, squares);
            }
            for (c, counts) in (first..).zip(counts.chunks_exact_mut(statistics)) {
                let leaf = c * repetitions + r;
                let theta = &mut tensor[leaf * parameters..][..parameters];
                before.clear();
                before.extend_from_slice(theta);
                let [a, b] = &mut memory;
                let memory =
                    [&mut a[leaf * remembered[0]..][..remembered[0]], &mut b[leaf * remembered[1]..][..remembered[1]]];
                let used = used.as_ref().map_or(0.0, |used| used[[row, r, c]]);
                sum += visit.visit(Distribution { family, before, theta, counts, used, memory }, own);
                if let Some(problem) = astray.then(|| family.problem(theta)).flatten() {
                    theta.copy_from_slice(before);
                    // The first in the order of the parameters is named.
                    if wrong.as_ref().is_none_or(|(first, _)| leaf < *first) {
                        wrong = Some((leaf, problem));
                    }
                }
            }
        }
        if visit.moves() {
            layout.lay(tensor, values, squares);
        }
        wrong.map_or(Ok(sum), |(leaf, problem)| {
            let variable = (0..structure.variables()).find(|&column| structure.leaf_row(column) == row);
            let (variable, channel, repetition) = (variable.unwrap_or(row), leaf / repetitions, leaf % repetitions);
            Err(Error::LeafParameters { variable, channel, repetition, family: family.name(), problem })
        })
    };
    let cut = cut(memory, structure.leaf_rows());
    let tensors = rows.zip(tensor.par_chunks_exact_mut(channels * repetitions * parameters)).zip(cut);
    tensors.enumerate().map_init(Scratch::default, row).collect::<Vec<_>>().into_iter().sum()
}

/// The top-down probabilities of leaves, `[repetition, pixel, channel]`, added up over the pixels that share them: `[row of the
/// tensor, repetition, channel]`.
fn used_by_row(structure: &Structure, used: &Array3<f64>) -> Array3<f64> {
    let (repetitions, pixels, channels) = used.dim();
    let mut rows = Array3::zeros((structure.leaf_rows(), repetitions, channels));
    for pixel in 0..pixels {
        for column in structure.pixel_columns(pixel) {
            let mut row = rows.index_axis_mut(Axis(0), structure.leaf_row(column));
            row += &used.index_axis(Axis(1), pixel);
        }
    }
    rows
}

impl Place<'_> {
    /// Adds a part of the counts of a matrix, which has `len` of them.
    fn add_counts(&self, matrix: usize, len: usize, part: Range<usize>, to: &mut [f64]) {
        if let Some(total) = self.counts.total(self.layer, matrix, len) {
            to.iter_mut().zip(&total[part.clone()]).for_each(|(to, n)| *to += n);
        }
        for recent in self.counts.recent(self.plan, self.layer, matrix, len) {
            recent.part(part.clone()).add_to(to);
        }
    }
}

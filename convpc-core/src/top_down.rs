use ndarray::{Array3, Axis};

use crate::structure::Structure;

/// The top-down probability of each node, the chance that a draw from the circuit itself uses it:
/// `[repetition, feature, channel]` for each layer, leaf first. That of a feature with an empty scope is 0.
///
/// A product hands its probability to each child. What a sum-like layer does is the caller's, who knows how its weights lie:
/// `mix(layer, outputs, inputs)` adds to each input the probabilities of its sums times the weights of their edges,
/// `inputs[c] += Σ_d outputs[d] · w[c,d]`, given those of the layer's outputs and zeros for its inputs.
///
/// ```
/// use convpc_core::{ConvPc, Family, top_down};
/// let (structure, parameters) = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(2).build(1)?.into_parts();
/// let used = top_down(&structure, |layer, outputs, inputs| {
///     let edges = structure.edges(layer).expect("a sum");
///     for ((r, f, d), p) in outputs.indexed_iter() {
///         for edge in edges.of(f, d, r) {
///             inputs[[edge.repetition, f, edge.channel]] += p * parameters.slice(layer)[edge.weight];
///         }
///     }
/// });
/// assert!((used[0].sum() - 4.0).abs() < 1e-12); // of each pixel's leaves a draw uses one
/// # Ok::<(), convpc_core::Error>(())
/// ```
pub fn top_down(structure: &Structure, mut mix: impl FnMut(usize, &Array3<f64>, &mut Array3<f64>)) -> Vec<Array3<f64>> {
    let zeros = |layer: usize| {
        let shape = structure.shape(layer);
        Array3::<f64>::zeros((shape.repetitions, shape.features(), shape.channels))
    };
    let layers = structure.layers().len();
    let mut all: Vec<_> = (0..layers).map(zeros).collect();
    if !structure.is_empty(layers - 1, 0, 0) {
        all[layers - 1].fill(1.0);
    }
    for layer in (1..layers).rev() {
        let (inputs, outputs) = all.split_at_mut(layer);
        let (inputs, outputs) = (&mut inputs[layer - 1], &outputs[0]);
        if structure.edges(layer).is_some() {
            mix(layer, outputs, inputs);
        } else {
            for (r, outputs) in outputs.outer_iter().enumerate() {
                for (feature, outputs) in outputs.outer_iter().enumerate() {
                    for child in structure.children(layer, feature, r) {
                        inputs.index_axis_mut(Axis(0), r).index_axis_mut(Axis(0), child).assign(&outputs);
                    }
                }
            }
        }
    }
    all
}

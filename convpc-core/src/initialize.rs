//! Parameters to begin learning from.

use ndarray::{ArrayView2, Axis};

use crate::{
    circuit::Circuit,
    error::{Error, Result},
    evidence,
    family::LeafStep,
    layer::Layer,
    normalize::normalize,
    parameters::Parameters,
    rng::{self, Use},
    structure::Structure,
};

/// A stream of uniforms for one layer.
fn uniform_stream(seed: u64, layer: usize) -> impl FnMut() -> f64 {
    let mut row = 0;
    move || {
        row += 1;
        rng::uniforms(seed, row, layer as u32, Use::Initial)[0]
    }
}

/// An error where the parameters do not fit into memory: a few digits too many in a number of channels ask for that.
pub(crate) fn check_size(structure: &Structure) -> Result<()> {
    let count = (0..structure.layers().len()).try_fold(0_usize, |sum, layer| {
        let shape = structure.parameter_shape(layer);
        sum.checked_add(shape.into_iter().try_fold(1_usize, usize::checked_mul)?)
    });
    let mut room = Vec::<f64>::new();
    let fits = count.is_some_and(|count| room.try_reserve_exact(count).is_ok());
    // The compiler must not leave out an allocation that nothing uses.
    std::hint::black_box(&mut room);
    if fits { Ok(()) } else { Err(Error::TooLarge { what: "the number of parameters" }) }
}

/// Weights uniform on the simplex, leaves as their family likes to begin.
pub(crate) fn random(structure: &Structure, seed: u64) -> Parameters {
    let mut parameters = Parameters::zeros(structure);
    for (index, (layer, tensor)) in structure.layers().iter().zip(&mut parameters.0).enumerate() {
        let mut uniform = uniform_stream(seed, index);
        if let Layer::Leaf(leaf) = layer {
            for mut lane in tensor.lanes_mut(Axis(3)) {
                leaf.family.random(&mut uniform, lane.as_slice_mut().expect("innermost axis"));
            }
        }
        if let Some(axis) = layer.normalized_axis() {
            // Exponential variables divided by their sum are uniform on the simplex.
            tensor.iter_mut().for_each(|w| *w = -uniform().ln());
            tensor.lanes_mut(Axis(axis)).into_iter().for_each(|mut lane| normalize(lane.iter_mut()));
        }
    }
    parameters
}

/// A circuit whose leaves are fitted to data: channel c of every pixel takes the maximum-likelihood step on the same few
/// random rows, mixed with all rows as a prior, so that channels differ from the start and agree between neighbours. Where
/// pixels share their leaves, it is a few random pixels of random rows, and all pixels.
///
/// `data` is rows × variables, NaN = missing. The sum weights stay as they are.
///
/// # Errors
/// Where the data do not fit the circuit.
pub fn fit_leaves(circuit: &Circuit, data: ArrayView2<f32>, seed: u64) -> Result<Circuit> {
    /// Rows that a channel is fitted to, and what all rows together weigh against them.
    const ROWS: usize = 8;
    const PRIOR: f64 = 1.0;
    let structure = circuit.structure();
    evidence::check(structure, data)?;
    let (shape, family) = (structure.shape(0), &structure.leaf().family);
    let step = LeafStep { pseudocount: 0.1, minimum_std: 1e-3, bias_correction: false };
    let mut parameters = circuit.parameters().clone();
    let size = family.statistics();
    let mut t = vec![0.0; size];
    for (leaf, mut leaves) in parameters.0[0].outer_iter_mut().enumerate() {
        let columns: Vec<usize> = (0..data.ncols()).filter(|&column| structure.leaf_row(column) == leaf).collect();
        if columns.is_empty() {
            continue;
        }
        let start = leaves.iter().copied().take(family.parameters()).collect::<Vec<f64>>();
        let mut sum_over = |places: &mut dyn Iterator<Item = (usize, usize)>| {
            let (mut count, mut sum) = (0.0, vec![0.0; size]);
            for x in places.map(|place| f64::from(data[place])).filter(|x| !x.is_nan()) {
                family.sufficient(&start, x, &mut t);
                sum.iter_mut().zip(&t).for_each(|(s, t)| *s += t);
                count += 1.0;
            }
            (count, sum)
        };
        let each_row = |column| (0..data.nrows()).map(move |row| (row, column));
        let (all_count, all) = sum_over(&mut columns.iter().copied().flat_map(each_row));
        let prior = if all_count > 0.0 { PRIOR / all_count } else { 0.0 };
        for (index, mut lane) in leaves.lanes_mut(Axis(2)).into_iter().enumerate() {
            // index = channel · repetitions + repetition, the same for every column.
            let mut places = (0..ROWS).map(|k| {
                let node = u32::try_from(index).unwrap_or(u32::MAX);
                let [u, v] = rng::uniforms(seed, k as u64, node, Use::Initial);
                let pick = |u: f64, n: usize| ((u * n as f64) as usize).min(n - 1);
                (pick(u, data.nrows()), columns[pick(v, columns.len())])
            });
            let (count, mut sum) = sum_over(&mut places);
            sum.iter_mut().zip(&all).for_each(|(s, a)| *s += prior * a);
            let leaf = lane.as_slice_mut().expect("innermost axis");
            leaf.copy_from_slice(&start);
            family.maximum_likelihood(leaf, count + prior * all_count, &sum, &step);
        }
        debug_assert_eq!(leaves.shape()[..2], [shape.channels, shape.repetitions]);
    }
    Circuit::new(structure.clone(), parameters)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::{Circuit, ConvPc, Family};

    #[test]
    fn parameters_that_fit_into_no_memory_are_an_error() {
        // 2^58 weights can be counted, and are more than a machine has room for.
        let structure = ConvPc::new(2, 2, 1, Family::normal()).channels(1 << 28).depth(1).structure().unwrap();
        assert_eq!(Circuit::random(structure, 1), Err(Error::TooLarge { what: "the number of parameters" }));
    }

    #[test]
    fn fitted_leaves_are_near_the_data_differ_between_channels_and_agree_between_pixels() {
        let circuit = ConvPc::new(2, 2, 1, Family::normal()).channels(4).build(0).unwrap();
        // The same value at all pixels of a row, 100 to 139.
        let data = Array2::from_shape_fn((40, 4), |(row, _)| 100.0 + row as f32);
        let fitted = fit_leaves(&circuit, data.view(), 3).unwrap();
        let mean = |pixel, channel| fitted.leaf_parameters(pixel, channel, 0)[0];
        for channel in 0..4 {
            assert!((100.0..139.0).contains(&mean(0, channel)));
            assert!((1..4).all(|pixel| (mean(pixel, channel) - mean(0, channel)).abs() < 1e-9));
            assert!((0..channel).all(|other| (mean(0, channel) - mean(0, other)).abs() > 0.1));
        }
        assert_eq!(fitted.parameters().0[2], circuit.parameters().0[2], "the sums stay as they are");
    }
}

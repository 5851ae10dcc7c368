//! Parameters to begin learning from.

use std::{f64::consts::TAU, sync::Arc};

use ndarray::{ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use crate::{
    circuit::Circuit,
    error::{Error, Result},
    evidence,
    family::{Form, LeafStep},
    layer::Layer,
    learn::in_range,
    normalize::normalize,
    parameters::Parameters,
    rng::{self, Use},
    structure::Structure,
};

/// How a new circuit begins: its leaves, and the weights of its sums.
///
/// ```
/// use convpc_core::{ConvPc, Family, Initialization, LeafInitialization};
/// use ndarray::array;
/// let structure = ConvPc::new(1, 3, 1, Family::categorical(4)).channels(2).structure()?;
/// let data = array![[0., 1., 3.], [0., f32::NAN, 2.], [1., 1., 3.]];
/// let begin = Initialization { leaves: LeafInitialization::Histogram { noise: 0.5 }, ..Default::default() };
/// let circuit = begin.circuit(structure, data.view(), 7)?;
/// assert!(circuit.leaf_parameters(0, 0, 0)[0] > circuit.leaf_parameters(0, 0, 0)[3]);
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Initialization {
    /// What the leaves begin as.
    pub leaves: LeafInitialization,
    /// The weights of each sum are drawn from the symmetric Dirichlet distribution with this concentration, above 0: 1 is
    /// uniform on the simplex, less gives few large weights, more gives nearly equal ones.
    pub concentration: f64,
}

/// What the leaves of a new circuit begin as.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeafInitialization {
    /// What the family likes to begin with, whatever the data.
    Random,
    /// Each channel fitted to a few random rows; see [`fit_leaves`].
    Rows,
    /// The histogram of the values of each pixel (of all pixels, where they share leaves), in each channel with log-normal
    /// noise of this standard deviation on every probability; for families that are tables.
    Histogram {
        /// Standard deviation of the noise on logarithms, nats; at least 0.
        noise: f64,
    },
    /// The same, each channel through a Gaussian window around a value of its own: channels are spread evenly over the values.
    /// A dictionary to begin with where pixels share their leaves; of channels that are all alike learning makes one at best
    /// by chance.
    Windows {
        /// Standard deviation of the noise on logarithms, nats; at least 0.
        noise: f64,
        /// Standard deviation of the window, a share of the number of values; above 0.
        width: f64,
    },
}

impl Default for Initialization {
    /// Leaves from rows, weights uniform on the simplex.
    fn default() -> Self {
        Initialization { leaves: LeafInitialization::Rows, concentration: 1.0 }
    }
}

impl Initialization {
    /// # Errors
    /// [`Error::Argument`] where a number is out of range.
    pub fn check(&self) -> Result<()> {
        let legal = |x: f64| x > 0.0 && x.is_finite();
        in_range("concentration", self.concentration, legal(self.concentration), "a finite number above 0")?;
        let (noise, width) = match self.leaves {
            LeafInitialization::Random | LeafInitialization::Rows => return Ok(()),
            LeafInitialization::Histogram { noise } => (noise, 1.0),
            LeafInitialization::Windows { noise, width } => (noise, width),
        };
        in_range("noise", noise, noise == 0.0 || legal(noise), "a finite number of at least 0")?;
        in_range("the width of windows", width, legal(width), "a finite number above 0")
    }

    /// A circuit that begins so; `data` are rows × variables, NaN = missing. The same seed gives the same circuit.
    ///
    /// # Errors
    /// [`Error::Argument`] where a number is out of range, or histograms are asked for of a family that is no table; where the
    /// data do not fit the structure or the parameters do not fit into memory.
    pub fn circuit(&self, structure: impl Into<Arc<Structure>>, data: ArrayView2<f32>, seed: u64) -> Result<Circuit> {
        self.check()?;
        let structure = structure.into();
        check_size(&structure)?;
        let circuit = Circuit::new(structure.clone(), random(&structure, self.concentration, seed))?;
        match self.leaves {
            LeafInitialization::Random => Ok(circuit),
            LeafInitialization::Rows => fit_leaves(&circuit, data, seed),
            LeafInitialization::Histogram { noise } => histograms(&circuit, data, noise, None, seed),
            LeafInitialization::Windows { noise, width } => histograms(&circuit, data, noise, Some(width), seed),
        }
    }
}

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

/// A draw from the gamma distribution with this shape and scale 1 (Marsaglia and Tsang, 2000; below 1 by Stuart's theorem).
fn gamma(shape: f64, uniform: &mut dyn FnMut() -> f64) -> f64 {
    if shape == 1.0 {
        return -uniform().ln();
    }
    if shape < 1.0 {
        return gamma(shape + 1.0, uniform) * uniform().powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(uniform);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// A standard normal draw (Box and Muller, 1958).
pub(crate) fn normal(uniform: &mut dyn FnMut() -> f64) -> f64 {
    (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos()
}

/// Weights from the Dirichlet distribution, leaves as their family likes to begin.
pub(crate) fn random(structure: &Structure, concentration: f64, seed: u64) -> Parameters {
    let mut parameters = Parameters::zeros(structure);
    for (index, (layer, tensor)) in structure.layers().iter().zip(&mut parameters.0).enumerate() {
        let mut uniform = uniform_stream(seed, index);
        if let Layer::Leaf(leaf) = layer {
            for mut lane in tensor.lanes_mut(Axis(3)) {
                leaf.family.random(&mut uniform, lane.as_slice_mut().expect("innermost axis"));
            }
        }
        if let Some(axis) = layer.normalized_axis() {
            // Gamma variables divided by their sum are Dirichlet's.
            tensor.iter_mut().for_each(|w| *w = gamma(concentration, &mut uniform));
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

/// A circuit whose leaves are the histograms of the data with noise, through windows of this width or as they are.
fn histograms(circuit: &Circuit, data: ArrayView2<f32>, noise: f64, width: Option<f64>, seed: u64) -> Result<Circuit> {
    /// Added to the count of each value: one that was not seen is not impossible.
    const UNSEEN: f64 = 0.1;
    /// What a window lets through far from its value.
    const FAR: f64 = 1e-3;
    let structure = circuit.structure();
    evidence::check(structure, data)?;
    let family = &structure.leaf().family;
    let Form::Table { size } = family.form() else {
        return Err(Error::Argument {
            what: "the family of leaves that begin as histograms",
            given: family.name().into(),
            expected: "a table, as categorical; begin with rows or at random".into(),
        });
    };
    let mut counts = vec![UNSEEN; structure.leaf_rows() * size];
    for (column, values) in data.columns().into_iter().enumerate() {
        let counts = &mut counts[structure.leaf_row(column) * size..][..size];
        values.iter().filter(|x| !x.is_nan()).for_each(|x| counts[*x as usize] += 1.0);
    }
    let mut parameters = circuit.parameters().clone();
    let mut uniform = uniform_stream(seed, 0);
    let step = LeafStep { pseudocount: 0.0, minimum_std: 0.0, bias_correction: false };
    let mut noisy = vec![0.0; size];
    for (mut leaves, counts) in parameters.0[0].outer_iter_mut().zip(counts.chunks_exact(size)) {
        let lanes = (leaves.shape()[0] * leaves.shape()[1]) as f64;
        for (number, mut leaf) in leaves.lanes_mut(Axis(2)).into_iter().enumerate() {
            noisy.iter_mut().zip(counts).for_each(|(to, n)| *to = n * (noise * normal(&mut uniform)).exp());
            if let Some(width) = width {
                let centre = (number as f64 + 0.5) / lanes - 0.5 / size as f64;
                for (value, n) in noisy.iter_mut().enumerate() {
                    let z = (value as f64 / size as f64 - centre) / width;
                    *n *= FAR + (-0.5 * z * z).exp();
                }
            }
            let leaf = leaf.as_slice_mut().expect("innermost axis");
            family.maximum_likelihood(leaf, noisy.iter().sum(), &noisy, &step);
        }
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
    fn weights_have_the_moments_of_the_dirichlet_distribution() {
        let structure = ConvPc::new(1, 2, 1, Family::bernoulli()).channels(4000).leaf_channels(5).structure().unwrap();
        for concentration in [0.2, 1.0, 1.5, 4.5] {
            let parameters = random(&structure, concentration, 3);
            let w = &parameters.0[2];
            assert_eq!(w.shape()[1..], [5, 4000, 1]);
            let n = w.len() as f64;
            // Of k = 5 shares: mean 1/k, variance (k − 1) / (k² (k α + 1)).
            let variance = 4.0 / (25.0 * (5.0 * concentration + 1.0));
            let second = w.iter().map(|w| (w - 0.2) * (w - 0.2)).sum::<f64>() / n;
            assert!((second / variance - 1.0).abs() < 0.05, "{concentration}: {second} {variance}");
            // The third moment of one share, E[w³] = α (α + 1) (α + 2) / (k α (k α + 1) (k α + 2)).
            let (a, total) = (concentration, 5.0 * concentration);
            let expected = a * (a + 1.0) * (a + 2.0) / (total * (total + 1.0) * (total + 2.0));
            let third = w.iter().map(|w| w.powi(3)).sum::<f64>() / n;
            assert!((third / expected - 1.0).abs() < 0.05, "{concentration}: {third} {expected}");
        }
    }

    #[test]
    fn histograms_are_those_of_the_pixels_times_noise() {
        // Values 0, 1 and 2 of four; a pixel never seen.
        let data = Array2::from_shape_fn((90, 3), |(row, v)| [(row % 3) as f32, (row % 2) as f32, f32::NAN][v]);
        let convpc = ConvPc::new(1, 3, 1, Family::categorical(4)).channels(200).depth(2);
        let begin = |noise| Initialization { leaves: LeafInitialization::Histogram { noise }, concentration: 1.0 };
        let of = |convpc: &ConvPc, noise| begin(noise).circuit(convpc.structure().unwrap(), data.view(), 3).unwrap();
        let exact = of(&convpc, 0.0);
        let expected = [[30.1, 30.1, 30.1, 0.1].map(|n| n / 90.4), [45.1, 45.1, 0.1, 0.1].map(|n| n / 90.4), [0.25; 4]];
        for (pixel, expected) in expected.iter().enumerate() {
            let given = exact.leaf_parameters(pixel, 7, 0);
            assert!(given.iter().zip(expected).all(|(p, e)| (p - e).abs() < 1e-12), "{given:?}");
        }
        let shared = of(&convpc.clone().shared_leaves(true), 0.0);
        let pooled = [75.1, 75.1, 30.1, 0.1].map(|n| n / 180.4);
        assert!(shared.leaf_parameters(2, 7, 0).iter().zip(pooled).all(|(p, e)| (p - e).abs() < 1e-12));
        // The logarithm of the ratio of two values is that of their counts and two independent draws of noise.
        let noisy = of(&convpc, 0.7);
        let ratios: Vec<f64> = (0..200).map(|c| noisy.leaf_parameters(0, c, 0)).map(|p| (p[0] / p[1]).ln()).collect();
        let mean = ratios.iter().sum::<f64>() / 200.0;
        let std = (ratios.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / 200.0).sqrt();
        assert!(mean.abs() < 0.25 && (std - 0.7 * 2_f64.sqrt()).abs() < 0.15, "{mean} {std}");
        assert_eq!(noisy, of(&convpc, 0.7), "a function of the seed");
    }

    #[test]
    fn windows_are_spread_over_the_values() {
        // Every value as often as any other.
        let data = Array2::from_shape_fn((40, 2), |(row, _)| (row % 8) as f32);
        let structure = ConvPc::new(1, 2, 1, Family::categorical(8)).leaf_channels(4).depth(1).structure().unwrap();
        let leaves = LeafInitialization::Windows { noise: 0.0, width: 0.125 };
        let circuit = Initialization { leaves, concentration: 1.0 }.circuit(structure, data.view(), 3).unwrap();
        for (channel, centre) in [0.5, 2.5, 4.5, 6.5].into_iter().enumerate() {
            let weight = |value: usize| 1e-3 + (-0.5 * (value as f64 - centre) * (value as f64 - centre)).exp();
            let total: f64 = (0..8).map(weight).sum();
            let given = circuit.leaf_parameters(1, channel, 0);
            assert!((0..8).all(|value| (given[value] - weight(value) / total).abs() < 1e-12), "{given:?}");
        }
    }

    #[test]
    fn what_cannot_begin_so_is_refused() {
        let data = Array2::zeros((3, 1));
        let structure = ConvPc::new(1, 1, 1, Family::normal()).channels(2).structure().unwrap();
        let with = |leaves, concentration| {
            let begin = Initialization { leaves, concentration };
            begin.circuit(structure.clone(), data.view(), 1).map_err(|error| error.to_string())
        };
        let histogram = |noise| LeafInitialization::Histogram { noise };
        let refused = [
            with(LeafInitialization::Rows, 0.0),
            with(LeafInitialization::Random, f64::NAN),
            with(histogram(-1.0), 1.0),
            with(LeafInitialization::Windows { noise: 1.0, width: 0.0 }, 1.0),
            with(histogram(1.0), 1.0),
        ];
        for (given, expected) in refused.into_iter().zip(["concentration", "concentration", "noise", "width", "normal"])
        {
            let error = given.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(with(LeafInitialization::Random, 2.0).is_ok());
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

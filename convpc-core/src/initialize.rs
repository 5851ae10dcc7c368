//! Parameters to begin learning from.

mod clusters;

use std::{f64::consts::TAU, sync::Arc};

use ndarray::{ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use crate::{
    circuit::Circuit,
    error::{Error, Result, positive},
    evidence,
    family::{Family, Form, LeafStep},
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
    /// Each channel fitted to rows that are alike: the rows' patches of `patch` × `patch` pixels in as many clusters as there
    /// are channels, by k-means. Channel c is the same cluster at all pixels of a patch; where each pixel has its own leaves.
    Clusters {
        /// Side of a patch, pixels; at least 1.
        patch: usize,
    },
    /// The histogram of the values of each pixel (of all pixels, where they share leaves), in each channel with log-normal
    /// noise of this standard deviation on every probability; for families that are tables. Where fewer parameters make the
    /// table, they are fitted to the histogram, and the noise is on them: a mean moves by as many scales, a scale by as many
    /// nats.
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
            LeafInitialization::Clusters { patch } => return positive("the side of a patch", patch),
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
        let parameters = match self.leaves {
            LeafInitialization::Random => random(&structure, self.concentration, seed),
            _ => with_equal_leaves(&structure, self.concentration, seed),
        };
        let circuit = Circuit::new(structure, parameters)?;
        match self.leaves {
            LeafInitialization::Random => Ok(circuit),
            LeafInitialization::Rows => fit_leaves(&circuit, data, seed),
            LeafInitialization::Clusters { patch } => clusters::fit(&circuit, data, patch, seed),
            LeafInitialization::Histogram { noise } => histograms(&circuit, data, noise, None, seed),
            LeafInitialization::Windows { noise, width } => histograms(&circuit, data, noise, Some(width), seed),
        }
    }
}

/// The uniforms that make the initial parameters of a layer.
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

/// Moves a leaf's unconstrained parameters by normal noise of this standard deviation, in their units.
pub(crate) fn disturb_leaf(family: &Family, theta: &mut [f64], noise: f64, uniform: &mut dyn FnMut() -> f64) {
    let (mut by, mut units) = (vec![0.0; theta.len()], vec![0.0; theta.len()]);
    family.units(theta, &mut units);
    by.iter_mut().zip(&units).for_each(|(by, unit)| *by = unit * noise * normal(uniform));
    family.shift(theta, &by, 1.0, 0.0);
}

/// Weights from the Dirichlet distribution, leaves as their family likes to begin.
pub(crate) fn random(structure: &Structure, concentration: f64, seed: u64) -> Parameters {
    parameters(structure, concentration, seed, &mut uniform_stream(seed, 0))
}

/// The same weights, with equal leaves. The caller fits the leaves to data.
fn with_equal_leaves(structure: &Structure, concentration: f64, seed: u64) -> Parameters {
    parameters(structure, concentration, seed, &mut || 0.5)
}

/// Weights from the Dirichlet distribution, leaves as their family makes them of these uniforms.
fn parameters(structure: &Structure, concentration: f64, seed: u64, of_leaves: &mut dyn FnMut() -> f64) -> Parameters {
    let mut parameters = Parameters::zeros(structure);
    for (index, (layer, tensor)) in structure.layers().iter().zip(&mut parameters.0).enumerate() {
        if let Layer::Leaf(leaf) = layer {
            for mut lane in tensor.lanes_mut(Axis(3)) {
                leaf.family.random(of_leaves, lane.as_slice_mut().expect("innermost axis"));
            }
        }
        if let Some(axis) = layer.normalized_axis() {
            let mut uniform = uniform_stream(seed, index);
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
    /// Rows that a channel is fitted to.
    const ROWS: usize = 8;
    let shape = circuit.structure().shape(0);
    let draws = |index: usize| {
        let node = u32::try_from(index).unwrap_or(u32::MAX);
        std::array::from_fn::<_, ROWS, _>(|k| rng::uniforms(seed, k as u64, node, Use::LeafRows))
    };
    let draws: Vec<_> = (0..shape.channels * shape.repetitions).map(draws).collect();
    let pick = |u: f64, n: usize| ((u * n as f64) as usize).min(n - 1);
    fit(circuit, data, |columns, index| {
        draws[index].iter().map(|[u, v]| (pick(*u, data.nrows()), columns[pick(*v, columns.len())])).collect()
    })
}

/// A circuit whose leaves are fitted to the values at some `(row, column)` and, as a prior, to all. `places` are told the
/// columns of a leaf's row and channel · repetitions + repetition.
fn fit(
    circuit: &Circuit,
    data: ArrayView2<f32>,
    places: impl Fn(&[usize], usize) -> Vec<(usize, usize)>,
) -> Result<Circuit> {
    /// What all rows together weigh, in rows.
    const PRIOR: f64 = 1.0;
    let structure = circuit.structure();
    evidence::check(structure, data)?;
    let (shape, family) = (structure.shape(0), &structure.leaf().family);
    // A tenth of a count for each value where each is by itself; one for all where neighbouring ones are alike.
    let (table, pseudocount) = match family.form() {
        Form::Table { size, free } => (true, if free { 0.1 } else { 1.0 / size as f64 }),
        Form::LocationScale | Form::Natural => (false, 0.1),
    };
    let step = LeafStep { pseudocount, minimum_std: 1e-3, bias_correction: false };
    let mut parameters = circuit.parameters().clone();
    let size = family.statistics();
    let mut t = vec![0.0; size];
    let mut columns_of = vec![Vec::new(); structure.leaf_rows()];
    (0..data.ncols()).for_each(|column| columns_of[structure.leaf_row(column)].push(column));
    for (leaf, mut leaves) in parameters.0[0].outer_iter_mut().enumerate() {
        let columns = &columns_of[leaf];
        if columns.is_empty() {
            continue;
        }
        let start = leaves.iter().copied().take(family.parameters()).collect::<Vec<f64>>();
        let mut sum_over = |places: &mut dyn Iterator<Item = (usize, usize)>| {
            let (mut count, mut sum) = (0.0, vec![0.0; size]);
            for x in places.map(|place| f64::from(data[place])).filter(|x| !x.is_nan()) {
                if table {
                    // All of the indicator but this is zero.
                    sum[x as usize] += 1.0;
                } else {
                    family.sufficient(&start, x, &mut t);
                    sum.iter_mut().zip(&t).for_each(|(s, t)| *s += t);
                }
                count += 1.0;
            }
            (count, sum)
        };
        let each_row = |column| (0..data.nrows()).map(move |row| (row, column));
        let (all_count, all) = sum_over(&mut columns.iter().copied().flat_map(each_row));
        let prior = if all_count > 0.0 { PRIOR / all_count } else { 0.0 };
        for (index, mut lane) in leaves.lanes_mut(Axis(2)).into_iter().enumerate() {
            let (count, mut sum) = sum_over(&mut places(columns, index).into_iter());
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
    let Form::Table { size, free } = family.form() else {
        return Err(Error::Argument {
            what: "the family of leaves that begin as histograms",
            given: family.name().into(),
            expected: "a table, as categorical and discretized-logistic; begin with rows or at random".into(),
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
            noisy.copy_from_slice(counts);
            if free {
                noisy.iter_mut().for_each(|n| *n *= (noise * normal(&mut uniform)).exp());
            }
            if let Some(width) = width {
                let centre = (number as f64 + 0.5) / lanes - 0.5 / size as f64;
                for (value, n) in noisy.iter_mut().enumerate() {
                    let z = (value as f64 / size as f64 - centre) / width;
                    *n *= FAR + (-0.5 * z * z).exp();
                }
            }
            let leaf = leaf.as_slice_mut().expect("innermost axis");
            family.maximum_likelihood(leaf, noisy.iter().sum(), &noisy, &step);
            if !free {
                disturb_leaf(family, leaf, noise, &mut uniform);
            }
        }
    }
    Circuit::new(structure.clone(), parameters)
}

#[cfg(test)]
mod tests;

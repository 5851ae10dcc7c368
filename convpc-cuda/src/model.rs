//! A circuit's parameters in device memory, as the kernels read them.

use convpc_core::{Form, Layer, Parameters, Precision, Structure, WeightMatrices};

use crate::{
    choices::draw_family,
    driver::{Buffer, Need, Queue},
    error::CudaError,
    params::{self, ConvpcLayLeaves, ConvpcPack},
    update::{Leaves, WARPS},
};

/// A sum-like layer's weights.
pub(crate) struct Weights {
    pub(crate) matrices: WeightMatrices,
    /// `[matrix][output][input]`; those below the smallest normal number as their logarithms.
    pub(crate) linear: Buffer<f32>,
    /// Fragments; none for mixtures of repetitions, which are not multiplied.
    pub(crate) packed: Option<Buffer<u32>>,
    /// Fragments of the transposed matrices, once there is a way down.
    pub(crate) transposed: Option<Buffer<u32>>,
}

impl Weights {
    /// Makes fragments of the weights, and of their transposes where these are kept.
    pub(crate) fn pack(&self, queue: &Queue, precision: Precision) -> Result<(), CudaError> {
        let (outputs, inputs) = (self.matrices.outputs, self.matrices.inputs);
        let ways = [(&self.packed, outputs, inputs, inputs, 1), (&self.transposed, inputs, outputs, 1, inputs)];
        for (packed, outputs, inputs, output_stride, input_stride) in ways {
            let Some(packed) = packed else { continue };
            let arguments = ConvpcPack {
                linear: self.linear.address(),
                packed: packed.address(),
                matrices: (self.matrices.groups * self.matrices.repetitions) as u32,
                outputs: outputs as u32,
                inputs: inputs as u32,
                output_stride: output_stride as u32,
                input_stride: input_stride as u32,
            };
            let lanes = fragments(&self.matrices, outputs, inputs, precision) * 32;
            let blocks = lanes.div_ceil(params::CONVPC_THREADS as usize);
            queue.launch(&format!("pack_{}", precision.name()), arguments, blocks, 0)?;
        }
        Ok(())
    }
}

pub(crate) struct Model {
    /// The family's own parameters, `[leaf row][repetition][channel][parameter]`.
    pub(crate) theta: Buffer<f64>,
    /// The probabilities of a table's values, laid out as the parameters, where these are something else.
    probabilities: Option<Buffer<f64>>,
    /// `[leaf row][repetition][channel][leaf_stride]`
    pub(crate) leaves: Buffer<f32>,
    /// `[column]`: the row of its distributions, where columns share them.
    pub(crate) leaf_rows: Option<Buffer<u32>>,
    pub(crate) leaf_stride: usize,
    /// Normal leaves: `[leaf row][repetition][channel][3]`, what log-densities in float64 are computed from.
    pub(crate) exact: Option<Buffer<f64>>,
    /// Natural form: `[value][statistics + 1]`.
    pub(crate) sufficient: Option<Buffer<f32>>,
    /// Natural form: `[value][2]`, the logarithm of the base measure as a sum of two numbers.
    pub(crate) base: Option<Buffer<f32>>,
    /// One a layer; `None` for leaves and products.
    pub(crate) sums: Vec<Option<Weights>>,
    /// One number: the power that posteriors over repetitions are taken to on the way down.
    pub(crate) inverse_temperature: Buffer<f32>,
    precision: Precision,
}

impl Model {
    pub(crate) fn new(
        queue: &Queue,
        structure: &Structure,
        parameters: &Parameters,
        precision: Precision,
    ) -> Result<Self, CudaError> {
        let family = structure.leaf().family;
        draw_family(family)?;
        Leaves::of(family)?;
        let table = family.sufficient_table();
        if family.form() == Form::Natural && table.is_none() {
            return Err(CudaError::UnsupportedFamily { family: family.name() });
        }
        let sufficient = table.as_ref().map(|table| table.iter().map(|v| *v as f32).collect::<Vec<_>>());
        let base = table.map(|table| {
            let of_values = table.into_iter().skip(family.statistics()).step_by(family.statistics() + 1);
            of_values.flat_map(two_numbers).collect::<Vec<f32>>()
        });
        check_indices(structure)?;
        let leaf_stride = match family.form() {
            // Four values are one load.
            Form::LocationScale | Form::Natural => 4,
            _ => family.coefficient_count(),
        };
        let leaves = leaf_count(structure);
        let shared = structure.leaf().shared;
        let leaf_rows: Vec<u32> = (0..structure.variables()).map(|c| structure.leaf_row(c) as u32).collect();
        let mut sums = Vec::new();
        for layer in 0..structure.layers().len() {
            let weights = WeightMatrices::new(structure, layer).map(|matrices| {
                let words =
                    fragments(&matrices, matrices.outputs, matrices.inputs, precision) * fragment_words(precision);
                let linear = queue.allocate(matrices.weights(), Need::Circuit)?;
                let multiplied = !matrices.mixes_repetitions();
                let packed = multiplied.then(|| queue.allocate(words, Need::Circuit)).transpose()?;
                Ok(Weights { matrices, linear, packed, transposed: None })
            });
            sums.push(weights.transpose()?);
        }
        let table = match family.form() {
            Form::Table { size, free: false } => Some(queue.allocate(leaves * size, Need::Circuit)?),
            _ => None,
        };
        let exact = family.form() == Form::LocationScale;
        let mut model = Model {
            theta: queue.allocate(leaves * family.parameters(), Need::Circuit)?,
            probabilities: table,
            leaves: queue.allocate(leaves * leaf_stride, Need::Circuit)?,
            leaf_rows: shared.then(|| queue.upload_new(&leaf_rows, Need::Circuit)).transpose()?,
            leaf_stride,
            exact: exact.then(|| queue.allocate(3 * leaves, Need::Circuit)).transpose()?,
            sufficient: sufficient.map(|table| queue.upload_new(&table, Need::Circuit)).transpose()?,
            base: base.map(|base| queue.upload_new(&base, Need::Circuit)).transpose()?,
            sums,
            inverse_temperature: queue.upload_new(&[1.0], Need::Circuit)?,
            precision,
        };
        model.replace(queue, structure, parameters)?;
        Ok(model)
    }

    /// Copies other parameters of the same structure to where the old ones are.
    pub(crate) fn replace(
        &mut self,
        queue: &Queue,
        structure: &Structure,
        parameters: &Parameters,
    ) -> Result<(), CudaError> {
        let theta = by_repetition(structure, structure.leaf().family.parameters(), parameters.slice(0));
        if self.exact.is_none() {
            queue.replace(&mut self.leaves, &leaf_values(structure, &theta, self.leaf_stride))?;
        }
        if let Some(probabilities) = &mut self.probabilities {
            queue.replace(probabilities, &expected(structure, &theta))?;
        }
        queue.replace(&mut self.theta, &theta)?;
        self.lay_leaves(queue, structure)?;
        for (layer, weights) in self.sums.iter_mut().enumerate() {
            let Some(weights) = weights else { continue };
            let tensor = parameters.slice(layer);
            let values: Vec<f32> = weights.matrices.offsets().map(|offset| stored(tensor[offset])).collect();
            queue.replace(&mut weights.linear, &values)?;
        }
        self.pack(queue)
    }

    /// What values are drawn from: the parameters, or the probabilities that they make.
    pub(crate) fn drawn_from(&self) -> u64 {
        self.probabilities.as_ref().unwrap_or(&self.theta).address()
    }

    /// Computes the coefficients of Normal leaves, whose parameters have changed.
    pub(crate) fn lay_leaves(&self, queue: &Queue, structure: &Structure) -> Result<(), CudaError> {
        let Some(exact) = &self.exact else { return Ok(()) };
        let channels = structure.shape(0).channels;
        let places = leaf_count(structure) / channels;
        let arguments = ConvpcLayLeaves {
            theta: self.theta.address(),
            leaves: self.leaves.address(),
            exact: exact.address(),
            places: places as u32,
            channels: channels as u32,
        };
        queue.launch("lay_location_scale", arguments, places.div_ceil(WARPS), 0)
    }

    /// Makes fragments of the linear weights, which have changed.
    pub(crate) fn pack(&self, queue: &Queue) -> Result<(), CudaError> {
        self.sums.iter().flatten().try_for_each(|weights| weights.pack(queue, self.precision))
    }

    /// The parameters as they are on the device now.
    pub(crate) fn parameters(&self, queue: &Queue, structure: &Structure) -> Result<Parameters, CudaError> {
        // Rounded to f32, weights sum to one within 1e-7; here they do to the last bit of float64.
        self.parameters_by(queue, structure, |weights| weights.sum())
    }

    /// The same, but weights that were rounded to f32 stay as they are.
    pub(crate) fn held_parameters(&self, queue: &Queue, structure: &Structure) -> Result<Parameters, CudaError> {
        self.parameters_by(queue, structure, |_| 1.0)
    }

    /// The parameters, the weights of each output divided by what `scale` makes of them.
    fn parameters_by(
        &self,
        queue: &Queue,
        structure: &Structure,
        scale: impl Fn(&mut dyn Iterator<Item = f64>) -> f64,
    ) -> Result<Parameters, CudaError> {
        let mut parameters = Parameters::zeros(structure);
        let size = structure.leaf().family.parameters();
        let theta = queue.download(&self.theta, leaf_count(structure) * size)?;
        parameters.0[0].iter_mut().zip(by_channel(structure, size, &theta)).for_each(|(p, v)| *p = v);
        for (layer, weights) in self.sums.iter().enumerate() {
            let (Some(weights), Some(tensor)) = (weights, parameters.0[layer].as_slice_mut()) else { continue };
            let linear = queue.download(&weights.linear, weights.matrices.weights())?;
            let mut offsets = weights.matrices.offsets();
            for row in linear.chunks_exact(weights.matrices.inputs) {
                let scale = scale(&mut row.iter().map(|w| of_stored(*w)));
                row.iter().zip(&mut offsets).for_each(|(w, offset)| tensor[offset] = of_stored(*w) / scale);
            }
        }
        Ok(parameters)
    }

    /// Makes what the way down needs besides: transposed weights, where they are not there.
    pub(crate) fn prepare_way_down(&mut self, queue: &Queue) -> Result<(), CudaError> {
        for weights in self.sums.iter_mut().flatten() {
            if weights.transposed.is_some() || weights.packed.is_none() {
                continue;
            }
            let matrices = &weights.matrices;
            let fragments = fragments(matrices, matrices.inputs, matrices.outputs, self.precision);
            weights.transposed = Some(queue.allocate(fragments * fragment_words(self.precision), Need::Circuit)?);
            weights.pack(queue, self.precision)?;
        }
        Ok(())
    }

    /// Where the kernels find which row a column's distributions are in; null where each has its own.
    pub(crate) fn leaf_rows(&self) -> u64 {
        self.leaf_rows.as_ref().map_or(0, Buffer::address)
    }

    /// How the kernels are told the leaf family's form.
    pub(crate) fn source_kind(structure: &Structure) -> u32 {
        match structure.leaf().family.form() {
            Form::LocationScale => params::CONVPC_SOURCE_LOCATION_SCALE,
            Form::Natural => params::CONVPC_SOURCE_NATURAL,
            Form::Table { .. } => params::CONVPC_SOURCE_TABLE,
        }
    }
}

/// A number as a sum of two.
fn two_numbers(number: f64) -> [f32; 2] {
    let high = number as f32;
    [high, (number - f64::from(high)) as f32]
}

/// A weight as the kernels have it, see numbers.cuh: what f32 holds only in part, or not at all, as its logarithm, in the digits
/// of a negative subnormal number.
fn stored(weight: f64) -> f32 {
    if weight > 0.0 && weight < f64::from(f32::MIN_POSITIVE) {
        let digits = (-weight.ln() * f64::from(params::CONVPC_TINY_STEPS)).round() as u32;
        return f32::from_bits(SIGN | digits.min(DIGITS));
    }
    weight as f32
}

/// What such a weight stands for.
fn of_stored(weight: f32) -> f64 {
    let bits = weight.to_bits();
    if bits & SIGN == 0 {
        return f64::from(weight);
    }
    (-f64::from(bits & DIGITS) / f64::from(params::CONVPC_TINY_STEPS)).exp()
}

/// The bits of a float.
const SIGN: u32 = 1 << 31;
const DIGITS: u32 = (1 << 23) - 1;

/// The number of fragments of matrices with so many outputs and inputs: tiles of outputs times steps of inputs.
fn fragments(matrices: &WeightMatrices, outputs: usize, inputs: usize, precision: Precision) -> usize {
    let step_inputs = params::CONVPC_STEP_ROWS as usize * if precision == Precision::Bf16 { 2 } else { 1 };
    let of_matrix = outputs.div_ceil(params::CONVPC_TILE_OUTPUTS as usize) * inputs.div_ceil(step_inputs);
    matrices.groups * matrices.repetitions * of_matrix
}

/// Words of a fragment: four for each lane, twice as many where a weight is a sum of two.
fn fragment_words(precision: Precision) -> usize {
    let parts = if precision == Precision::F32 { 2 } else { 1 };
    parts * 32 * 4
}

/// Leaves of a circuit.
pub(crate) fn leaf_count(structure: &Structure) -> usize {
    let shape = structure.shape(0);
    structure.leaf_rows() * shape.channels * shape.repetitions
}

/// A tensor `[leaf row][channel][repetition][size]` of the leaves as `[leaf row][repetition][channel][size]`.
pub(crate) fn by_repetition(structure: &Structure, size: usize, tensor: &[f64]) -> Vec<f64> {
    let shape = structure.shape(0);
    exchange(tensor, shape.channels, shape.repetitions, size)
}

/// The other way round.
pub(crate) fn by_channel(structure: &Structure, size: usize, values: &[f64]) -> Vec<f64> {
    let shape = structure.shape(0);
    exchange(values, shape.repetitions, shape.channels, size)
}

/// `[..][a][b][size]` as `[..][b][a][size]`.
fn exchange(values: &[f64], a: usize, b: usize, size: usize) -> Vec<f64> {
    let mut exchanged = vec![0.0; values.len()];
    for (index, from) in values.chunks_exact(size).enumerate() {
        let (outer, i, j) = (index / b / a, index / b % a, index % b);
        exchanged[((outer * b + j) * a + i) * size..][..size].copy_from_slice(from);
    }
    exchanged
}

/// The coefficients of leaves that are not Normal, `[leaf row][repetition][channel][stride]`.
fn leaf_values(structure: &Structure, theta: &[f64], stride: usize) -> Vec<f32> {
    let family = structure.leaf().family;
    let mut values = vec![0.0; theta.len() / family.parameters() * stride];
    let mut coefficients = Vec::with_capacity(stride);
    for (p, to) in theta.chunks_exact(family.parameters()).zip(values.chunks_exact_mut(stride)) {
        coefficients.clear();
        family.coefficients(p, &mut coefficients);
        if family.form() == Form::Natural {
            // By the most probable value, see source.cuh.
            let (mode, logit, density) = (family.mode(p), coefficients[0] - coefficients[1], coefficients[3]);
            let [high, low] = two_numbers(family.log_base(mode)).map(f64::from);
            coefficients.splice(.., [mode, logit, density - low, high]);
        }
        to.iter_mut().zip(&coefficients).for_each(|(to, from)| *to = *from as f32);
    }
    values
}

/// The expected statistics of each leaf: of a table the probabilities of its values, `[leaf row][repetition][channel][value]`.
fn expected(structure: &Structure, theta: &[f64]) -> Vec<f64> {
    let family = structure.leaf().family;
    let (parameters, size) = (family.parameters(), family.statistics());
    let mut expected = vec![0.0; theta.len() / parameters * size];
    let leaves = theta.chunks_exact(parameters).zip(expected.chunks_exact_mut(size));
    leaves.for_each(|(p, to)| family.expected(p, to));
    expected
}

/// Features, columns and groups are 32-bit numbers in the kernels; values are counted in 64 bits.
fn check_indices(structure: &Structure) -> Result<(), CudaError> {
    for layer in 0..structure.layers().len() {
        let shape = structure.shape(layer);
        let counts = [
            shape.features().checked_mul(shape.repetitions),
            structure.variables().checked_mul(shape.repetitions),
            // A choice names both in one number.
            shape.channels.checked_mul(shape.repetitions),
            WeightMatrices::new(structure, layer).map_or(Some(0), |m| m.groups.checked_mul(m.repetitions)),
        ];
        // A channel count is multiplied by another in 32 bits where a weight is addressed.
        let square = WeightMatrices::new(structure, layer).map_or(Some(0), |m| m.inputs.checked_mul(m.outputs));
        if counts.into_iter().chain([square]).any(|n| n.is_none_or(|n| n > u32::MAX as usize)) {
            let kinds = ["the leaf layer", "a product layer", "a sum layer"];
            let at = match structure.layers()[layer] {
                Layer::Leaf(_) => 0,
                Layer::ProdConv(_) => 1,
                _ => 2,
            };
            return Err(CudaError::TooLarge { what: kinds[at] });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_is_that_of_core() {
        assert_eq!(params::CONVPC_LARGEST_VALUE, convpc_core::Normal::LARGEST);
    }

    #[test]
    fn weights_keep_their_logarithms() {
        for weight in [1.0, 0.3, 1e-30, 1.2e-38, 1.17e-38, 1e-38, 1e-40, 1e-46, 1e-100, 1e-300, 2.5e-308, 5e-324] {
            let given = of_stored(stored(weight));
            assert!((given.ln() - weight.ln()).abs() < 5e-5, "{given:e} instead of {weight:e}");
            assert!(
                (f64::from(stored(weight)) - weight).abs() < 2.4e-38 + 1e-7 * weight,
                "{weight:e} is nothing to a product"
            );
        }
        assert_eq!([0.0, 1.0].map(|w| of_stored(stored(w))), [0.0, 1.0]);
    }
}

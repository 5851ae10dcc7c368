use ndarray::{ArrayD, Axis, IxDyn};

use crate::{
    error::{Error, Result},
    layer::Layer,
    structure::Structure,
};

/// The parameters of a circuit, one tensor a layer; products have none (shape `[0]`).
///
/// Leaf: `[columns, channels, repetitions, family.parameters()]`; sums: linear weights in the layers' documented shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters(pub Vec<ArrayD<f64>>);

impl Parameters {
    /// Tensors of zeros in the shapes of `structure`'s parameters: a place to write to, not a legal circuit.
    pub fn zeros(structure: &Structure) -> Self {
        let tensor = |layer| ArrayD::zeros(IxDyn(&structure.parameter_shape(layer)));
        Parameters((0..structure.layers().len()).map(tensor).collect())
    }

    /// The number of parameters of a layer.
    pub fn count(&self, layer: usize) -> usize {
        self.0[layer].len()
    }

    /// The elements of a layer in row-major order.
    ///
    /// # Panics
    /// If a tensor is not in standard layout; a [`Circuit`](crate::Circuit)'s tensors are.
    pub fn slice(&self, layer: usize) -> &[f64] {
        self.0[layer].as_slice().expect("the tensors of a circuit are in standard layout")
    }

    /// Brings tensors into row-major order and checks that they are legal parameters of `structure`.
    pub(crate) fn validated(self, structure: &Structure) -> Result<Self> {
        let layers = structure.layers();
        if self.0.len() != layers.len() {
            return Err(Error::ParameterCount { given: self.0.len(), expected: layers.len() });
        }
        let tensors = self.0.into_iter().enumerate().map(|(index, tensor)| {
            let expected = structure.parameter_shape(index);
            if tensor.shape() != expected {
                let (kind, given) = (layers[index].kind(), tensor.shape().to_vec());
                return Err(Error::ParameterShape { layer: index, kind, given, expected });
            }
            let tensor = tensor.as_standard_layout().into_owned();
            match &layers[index] {
                Layer::Leaf(_) => check_leaves(structure, &tensor)?,
                layer => check_weights(index, layer, &tensor)?,
            }
            Ok(tensor)
        });
        Ok(Parameters(tensors.collect::<Result<_>>()?))
    }
}

fn check_leaves(structure: &Structure, tensor: &ArrayD<f64>) -> Result<()> {
    let family = &structure.leaf().family;
    let shape = structure.shape(0);
    for (index, parameters) in tensor.lanes(Axis(3)).into_iter().enumerate() {
        let parameters = parameters.to_slice().expect("standard layout");
        if let Some(problem) = family.problem(parameters) {
            let (place, repetition) = (index / shape.repetitions, index % shape.repetitions);
            let (variable, channel) = (place / shape.channels, place % shape.channels);
            return Err(Error::LeafParameters { variable, channel, repetition, family: family.name(), problem });
        }
    }
    Ok(())
}

fn check_weights(index: usize, layer: &Layer, tensor: &ArrayD<f64>) -> Result<()> {
    let Some(axis) = layer.normalized_axis() else { return Ok(()) };
    for (group, weights) in tensor.lanes(Axis(axis)).into_iter().enumerate() {
        let sum = weights.sum();
        let problem = match weights.iter().find(|w| w.is_nan() || **w < 0.0) {
            Some(w) => format!("include {w}"),
            None if (sum - 1.0).abs() > 1e-6 => format!("sum to {sum:?}"),
            None => continue,
        };
        return Err(Error::Weights { layer: index, kind: layer.kind(), index: group, problem });
    }
    Ok(())
}

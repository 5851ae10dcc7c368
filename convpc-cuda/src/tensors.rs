//! A number for each weight and some for each leaf, in device memory.

use convpc_core::{Structure, WeightMatrices};
use ndarray::{ArrayD, IxDyn};

use crate::{
    driver::{Buffer, Need, Queue},
    error::CudaError,
    model,
};

/// Tensors of one value a weight, `[matrix][output][input]` as [`WeightMatrices`], and of `size` values a leaf,
/// `[leaf row][repetition][channel][size]`.
pub(crate) struct Tensors {
    /// One a layer, `None` for leaves and products.
    pub(crate) sums: Vec<Option<Buffer<f64>>>,
    pub(crate) leaves: Buffer<f64>,
    size: usize,
}

impl Tensors {
    /// What they hold is unspecified.
    pub(crate) fn new(queue: &Queue, structure: &Structure, size: usize) -> Result<Self, CudaError> {
        let sum = |layer| {
            let matrices = WeightMatrices::new(structure, layer);
            matrices.map(|m| queue.allocate(m.weights(), Need::Circuit)).transpose()
        };
        let sums = (0..structure.layers().len()).map(sum).collect::<Result<_, _>>()?;
        Ok(Tensors { sums, leaves: queue.allocate(model::leaf_count(structure) * size, Need::Circuit)?, size })
    }

    /// All of them.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = &Buffer<f64>> {
        self.sums.iter().flatten().chain([&self.leaves])
    }

    /// Sets all to zero.
    pub(crate) fn clear(&mut self, queue: &Queue) -> Result<(), CudaError> {
        self.sums.iter_mut().flatten().try_for_each(|sum| queue.clear(sum))?;
        queue.clear(&mut self.leaves)
    }

    /// Takes core's tensors, one a layer.
    pub(crate) fn upload(
        &mut self,
        queue: &Queue,
        structure: &Structure,
        from: &[ArrayD<f64>],
    ) -> Result<(), CudaError> {
        let flat = |layer: usize| from[layer].iter().copied().collect::<Vec<f64>>();
        queue.replace(&mut self.leaves, &model::by_repetition(structure, self.size, &flat(0)))?;
        for (layer, sum) in self.sums.iter_mut().enumerate() {
            let Some((sum, matrices)) = sum.as_mut().zip(WeightMatrices::new(structure, layer)) else { continue };
            let tensor = flat(layer);
            queue.replace(sum, &matrices.offsets().map(|offset| tensor[offset]).collect::<Vec<f64>>())?;
        }
        Ok(())
    }

    /// As core's tensors, one a layer.
    pub(crate) fn download(&self, queue: &Queue, structure: &Structure) -> Result<Vec<ArrayD<f64>>, CudaError> {
        let zeros = |layer| {
            let mut shape = structure.parameter_shape(layer);
            if layer == 0 {
                shape[3] = self.size;
            }
            ArrayD::zeros(IxDyn(&shape))
        };
        let mut to: Vec<ArrayD<f64>> = (0..structure.layers().len()).map(zeros).collect();
        let leaves = model::by_channel(structure, self.size, &queue.download(&self.leaves, self.leaves.len())?);
        to[0].iter_mut().zip(leaves).for_each(|(to, from)| *to = from);
        for (layer, sum) in self.sums.iter().enumerate() {
            let Some((sum, matrices)) = sum.as_ref().zip(WeightMatrices::new(structure, layer)) else { continue };
            let values = queue.download(sum, matrices.weights())?;
            let Some(tensor) = to[layer].as_slice_mut() else { continue };
            matrices.offsets().zip(values).for_each(|(offset, value)| tensor[offset] = value);
        }
        Ok(to)
    }
}

//! How often a draw from the circuit itself uses each distribution, computed on the device from the weights that are there.

use convpc_core::{Structure, WeightMatrices};

use crate::{
    driver::{Buffer, Need, Queue},
    error::CudaError,
    model::Model,
    params::{self, ConvpcPoolTopDown, ConvpcTopDown},
    tree,
};

const THREADS: usize = params::CONVPC_THREADS as usize;

/// The memory and the wiring of a circuit's top-down probabilities.
pub(crate) struct TopDown {
    /// The highest first.
    levels: Vec<Level>,
    leaves: Pool,
}

struct Level {
    layer: usize,
    matrices: WeightMatrices,
    features: usize,
    /// Of the inputs, `[repetition][feature][channel]`.
    below: Buffer<f64>,
    pool: Pool,
}

/// The distributions of a layer, or the leaves, and the features of the layer above that use them.
struct Pool {
    /// `[repetition][place]`: the feature whose inputs it is among, or CONVPC_NO_FEATURE.
    parents: Buffer<u32>,
    /// `[place]`: its row.
    rows_of: Buffer<u32>,
    /// Whether several places have one row; else place and row are one.
    shared: bool,
    rows: usize,
    repetitions: usize,
    channels: usize,
    above_features: usize,
    /// `[row][repetition][channel]`
    used: Buffer<f64>,
}

impl TopDown {
    pub(crate) fn new(queue: &Queue, structure: &Structure) -> Result<Self, CudaError> {
        let sums = tree::sums(structure);
        let mut levels = Vec::new();
        for (index, &layer) in sums.iter().enumerate().rev() {
            let Some(matrices) = WeightMatrices::new(structure, layer) else { continue };
            let (shape, input) = (structure.shape(layer), structure.input_shape(layer));
            let groups: Vec<u32> = (0..shape.features()).map(|feature| matrices.group(feature) as u32).collect();
            let parents = tree::parents(structure, &sums[index + 1..], shape.features(), shape.repetitions);
            levels.push(Level {
                layer,
                matrices,
                features: shape.features(),
                pool: Pool {
                    parents: queue.upload_new(&parents, Need::Circuit)?,
                    rows_of: queue.upload_new(&groups, Need::Circuit)?,
                    shared: matrices.groups < shape.features(),
                    rows: matrices.groups,
                    repetitions: matrices.repetitions,
                    channels: matrices.outputs,
                    above_features: sums.get(index + 1).map_or(1, |&above| structure.shape(above).features()),
                    used: queue.allocate(matrices.groups * matrices.repetitions * matrices.outputs, Need::Circuit)?,
                },
                below: queue.allocate(input.repetitions * shape.features() * input.channels, Need::Circuit)?,
            });
        }
        let (shape, columns) = (structure.shape(0), structure.variables());
        let rows_of: Vec<u32> = (0..columns).map(|column| structure.leaf_row(column) as u32).collect();
        let leaves = Pool {
            parents: queue.upload_new(&tree::parents(structure, &sums, columns, shape.repetitions), Need::Circuit)?,
            rows_of: queue.upload_new(&rows_of, Need::Circuit)?,
            shared: structure.leaf().shared,
            rows: structure.leaf_rows(),
            repetitions: shape.repetitions,
            channels: shape.channels,
            above_features: sums.first().map_or(1, |&above| structure.shape(above).features()),
            used: queue.allocate(structure.leaf_rows() * shape.repetitions * shape.channels, Need::Circuit)?,
        };
        Ok(TopDown { levels, leaves })
    }

    /// Computes all at the weights that the model has now.
    pub(crate) fn compute(&self, queue: &Queue, model: &Model) -> Result<(), CudaError> {
        let mut above = 0;
        for level in &self.levels {
            let weights = model.sums[level.layer].as_ref().expect("a sum-like layer");
            let WeightMatrices { repetitions, outputs, inputs, .. } = level.matrices;
            let arguments = ConvpcTopDown {
                above,
                parents: level.pool.parents.address(),
                groups: level.pool.rows_of.address(),
                linear: weights.linear.address(),
                below: level.below.address(),
                features: level.features as u32,
                above_features: level.pool.above_features as u32,
                outputs: outputs as u32,
                inputs: inputs as u32,
                repetitions: repetitions as u32,
                mixes: u32::from(level.matrices.mixes_repetitions()),
            };
            queue.launch("top_down", arguments, level.features * repetitions, 0)?;
            level.pool.compute(queue, above)?;
            above = level.below.address();
        }
        self.leaves.compute(queue, above)
    }

    /// The probability of each distribution of a sum layer, `[matrix][output]`.
    pub(crate) fn of_sums(&self, layer: usize) -> u64 {
        self.levels.iter().find(|level| level.layer == layer).map_or(0, |level| level.pool.used.address())
    }

    /// The probability of each leaf.
    pub(crate) fn of_leaves(&self) -> u64 {
        self.leaves.used.address()
    }
}

impl Pool {
    fn compute(&self, queue: &Queue, above: u64) -> Result<(), CudaError> {
        let arguments = ConvpcPoolTopDown {
            above,
            parents: self.parents.address(),
            rows_of: if self.shared { self.rows_of.address() } else { 0 },
            to: self.used.address(),
            places: (self.parents.len() / self.repetitions) as u32,
            above_features: self.above_features as u32,
            rows: self.rows as u32,
            repetitions: self.repetitions as u32,
            channels: self.channels as u32,
        };
        queue.launch("pool_top_down", arguments, self.used.len().div_ceil(THREADS), 0)
    }
}

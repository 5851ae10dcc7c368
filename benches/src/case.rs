use convpc::{Circuit, ConvPc, Family, Layer, Precision, Result, rng};
use ndarray::Array2;

/// A circuit to measure, known by its name: square images, one color, Normal leaves with as many channels as the sums, kernel
/// size 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its name: a word, or one like `28x28/sum/64ch/batch4096`.
    pub name: String,
    /// Height and width of the images.
    pub size: usize,
    /// Whether all patches share weights; otherwise each feature has its own.
    pub sum_conv: bool,
    /// Channels of every layer but the root.
    pub channels: usize,
    /// Sum and product pairs above the bottom product.
    pub depth: usize,
    /// Images in a batch.
    pub batch: usize,
}

/// The circuits that convpc and its peers are measured on.
pub fn named() -> Vec<Case> {
    [("small", 16, 16, 3), ("mnist32", 28, 32, 5), ("mnist64", 28, 64, 5), ("mnist128", 28, 128, 5)]
        .map(|(name, size, channels, depth)| Case {
            name: name.into(),
            size,
            sum_conv: false,
            channels,
            depth,
            batch: 256,
        })
        .into()
}

/// Circuits of other sizes and batches: what limits the speed differs between them.
pub fn sweep() -> Vec<Case> {
    let (sum, sum_conv) = (false, true);
    [
        (28, sum, 64, 1),
        (28, sum, 64, 32),
        (28, sum, 16, 4096),
        (28, sum, 64, 4096),
        (28, sum, 256, 256),
        (28, sum_conv, 16, 256),
        (28, sum_conv, 64, 256),
        (28, sum_conv, 64, 4096),
        (28, sum_conv, 512, 256),
        (64, sum, 32, 256),
        (64, sum_conv, 32, 1024),
        (64, sum_conv, 128, 256),
    ]
    .map(|(size, sum_conv, channels, batch)| Case {
        name: format!("{size}x{size}/{}/{channels}ch/batch{batch}", if sum_conv { "sumconv" } else { "sum" }),
        size,
        sum_conv,
        channels,
        depth: if size == 28 { 5 } else { 6 },
        batch,
    })
    .into()
}

impl Case {
    /// The circuit with random parameters.
    ///
    /// # Errors
    /// Where a number of the case is 0.
    pub fn circuit(&self) -> Result<Circuit> {
        ConvPc::new(self.size, self.size, 1, Family::normal())
            .channels(self.channels)
            .depth(self.depth)
            .use_sum_conv(self.sum_conv)
            .build(1)
    }

    /// A batch of standard normal noise.
    pub fn images(&self) -> Array2<f32> {
        let normal = Family::normal();
        Array2::from_shape_fn((self.batch, self.size * self.size), |(row, variable)| {
            normal.sample(&[0.0, 1.0], rng::uniforms(2, row as u64, variable as u32, rng::Use::Value)) as f32
        })
    }

    /// The same batch with the right half of every image missing.
    pub fn half_hidden(&self) -> Array2<f32> {
        let mut images = self.images();
        for ((_, variable), x) in images.indexed_iter_mut() {
            if variable % self.size >= self.size / 2 {
                *x = f32::NAN;
            }
        }
        images
    }
}

/// Multiplications and additions of the sum layers for one image, forward: two for every weight, as often as it is used.
/// Weights above padding count too, though they need no work, so that rates compare with the peers'.
pub fn flop_per_image(circuit: &Circuit) -> f64 {
    let structure = circuit.structure();
    let sums = structure.layers().iter().enumerate();
    sums.filter(|(_, layer)| matches!(layer, Layer::Sum(_) | Layer::SumConv(_)))
        .map(|(index, _)| 2.0 * structure.input_shape(index).channels as f64 * structure.shape(index).nodes() as f64)
        .sum()
}

/// The fewest bytes that a forward pass over a batch moves: every parameter, every value and every log-likelihood once.
pub fn least_bytes(circuit: &Circuit, batch: usize, precision: Precision) -> f64 {
    let structure = circuit.structure();
    let weight = if precision == Precision::Bf16 { 2.0 } else { 4.0 };
    let parameters = (0..structure.layers().len()).map(|layer| circuit.parameters().count(layer)).sum::<usize>();
    weight * parameters as f64 + 4.0 * (batch * (structure.variables() + 1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_count_as_often_as_they_are_used() {
        let case = |sum_conv| Case { name: "tiny".into(), size: 4, sum_conv, channels: 2, depth: 1, batch: 3 };
        let (own, shared) = (case(false).circuit().unwrap(), case(true).circuit().unwrap());
        // Four features with 2 × 2 weights, the root with 2 × 1.
        assert_eq!(flop_per_image(&own), 2.0 * (4.0 * 4.0 + 2.0));
        assert_eq!(flop_per_image(&shared), flop_per_image(&own));
        // Means and standard deviations of 16 pixels in 2 channels; weights; 3 images of 16 pixels and 3 log-likelihoods.
        assert_eq!(least_bytes(&own, 3, Precision::F32), 4.0 * (64.0 + 16.0 + 2.0 + 48.0 + 3.0));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = named().into_iter().chain(sweep()).map(|case| case.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

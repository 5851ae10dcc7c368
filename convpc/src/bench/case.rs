use convpc_core::{Circuit, ConvPc, Error, Family, Layer, Result, Structure, rng};
use ndarray::Array2;

/// A circuit to measure, known by its name, and the size of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its name: a word, or one like `28x28/sum/64ch/batch4096`.
    pub name: String,
    /// The circuit without its parameters.
    pub shape: ConvPc,
    /// Images in a batch.
    pub batch: usize,
}

impl Case {
    /// The names of the circuits that convpc and its peers are measured on.
    pub const NAMES: [&'static str; 4] = ["small", "mnist32", "mnist64", "mnist128"];

    /// A circuit under a name.
    pub fn new(name: impl Into<String>, shape: ConvPc, batch: usize) -> Self {
        Case { name: name.into(), shape, batch }
    }

    /// One of the circuits that convpc and its peers are measured on, in batches of 256: square images, one color, Normal
    /// leaves with as many channels as the sums, kernel size 2.
    ///
    /// # Errors
    /// Where no circuit has the name.
    pub fn named(name: &str) -> Result<Self> {
        let (size, channels, depth) = match name {
            "small" => (16, 16, 3),
            "mnist32" => (28, 32, 5),
            "mnist64" => (28, 64, 5),
            "mnist128" => (28, 128, 5),
            _ => {
                let expected = format!("one of {}", Self::NAMES.join(", "));
                return Err(Error::Argument { what: "circuit", given: name.to_string(), expected });
            }
        };
        let shape = ConvPc::new(size, size, 1, Family::normal()).channels(channels).depth(depth);
        Ok(Case::new(name, shape, 256))
    }

    /// The circuit with random parameters, the same each time.
    ///
    /// # Errors
    /// As [`ConvPc::structure`].
    pub fn circuit(&self) -> Result<Circuit> {
        self.shape.build(1)
    }
}

/// Images that a circuit can be asked about: standard normal noise, or levels each as likely.
///
/// # Errors
/// Where there are none, or more than the machine has room for.
pub(super) fn noise(structure: &Structure, images: usize) -> Result<Array2<f32>> {
    let (family, variables) = (structure.leaf().family, structure.variables());
    if images == 0 {
        return Err(Error::EmptyBatch);
    }
    let mut values: Vec<f32> = Vec::new();
    let room = images.checked_mul(variables).map(|count| values.try_reserve_exact(count));
    if !matches!(room, Some(Ok(()))) {
        let expected = format!("no more images of {variables} variables than fit into memory");
        return Err(Error::Argument { what: "batch", given: images.to_string(), expected });
    }
    let normal = Family::normal();
    for row in 0..images {
        values.extend((0..variables).map(|variable| {
            let uniforms = rng::uniforms(2, row as u64, variable as u32, rng::Use::Value);
            match family.cardinality() {
                Some(levels) => (uniforms[0] * levels as f64).floor() as f32,
                None => normal.sample(&[0.0, 1.0], uniforms) as f32,
            }
        }));
    }
    Ok(Array2::from_shape_vec((images, variables), values).expect("as many as reserved"))
}

/// Multiplications and additions of the sum layers for one image, forward: two for every weight, as often as it is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Flop {
    /// Of all weights.
    pub(super) all: f64,
    /// Without those above nothing but padding, which need no work.
    pub(super) needed: f64,
}

impl Flop {
    pub(super) fn per_image(structure: &Structure) -> Self {
        let mut flop = Flop { all: 0.0, needed: 0.0 };
        for (index, layer) in structure.layers().iter().enumerate() {
            if matches!(layer, Layer::Sum(_) | Layer::SumConv(_)) {
                let (input, output) = (structure.input_shape(index), structure.shape(index));
                let node = 2.0 * (input.channels * output.channels) as f64;
                let needed: usize = (0..output.repetitions).map(|r| structure.occupied(index, r).count()).sum();
                flop.all += node * (output.features() * output.repetitions) as f64;
                flop.needed += node * needed as f64;
            }
        }
        flop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(size: usize, family: Family) -> ConvPc {
        ConvPc::new(size, size, 1, family).channels(2).depth(1)
    }

    #[test]
    fn weights_count_as_often_as_they_are_used() {
        let own = tiny(4, Family::normal()).structure().unwrap();
        let shared = tiny(4, Family::normal()).use_sum_conv(true).structure().unwrap();
        // Four features with 2 × 2 weights, the root with 2 × 1.
        let all = 2.0 * (4.0 * 4.0 + 2.0);
        assert_eq!(Flop::per_image(&own), Flop { all, needed: all });
        assert_eq!(Flop::per_image(&shared), Flop { all, needed: all });
        let twice = tiny(4, Family::normal()).repetitions(2).structure().unwrap();
        assert_eq!(Flop::per_image(&twice), Flop { all: 2.0 * all, needed: 2.0 * all });
        // One pixel, padded to four features.
        let padded = tiny(1, Family::normal()).structure().unwrap();
        assert_eq!(Flop::per_image(&padded), Flop { all, needed: 2.0 * (4.0 + 2.0) });
    }

    #[test]
    fn every_name_has_a_circuit_and_others_are_errors() {
        for name in Case::NAMES {
            let case = Case::named(name).unwrap();
            assert_eq!((case.name.as_str(), case.batch), (name, 256));
            assert!(case.shape.structure().is_ok());
        }
        let error = Case::named("mnist").unwrap_err().to_string();
        assert_eq!(error, "circuit is mnist; expected one of small, mnist32, mnist64, mnist128");
    }

    #[test]
    fn noise_lies_in_the_support_of_every_family() {
        for (family, levels) in [
            (Family::normal(), None),
            (Family::bernoulli(), Some(2)),
            (Family::categorical(3), Some(3)),
            (Family::binomial(3), Some(4)),
            (Family::discretized_logistic(3), Some(3)),
        ] {
            let structure = tiny(4, family).structure().unwrap();
            let images = noise(&structure, 50).unwrap();
            assert_eq!(images.dim(), (50, 16));
            convpc_core::evidence::check(&structure, images.view()).unwrap();
            if let Some(levels) = levels {
                assert!((0..levels).all(|level| images.iter().any(|&x| x == level as f32)), "{}", family.name());
            }
        }
    }

    #[test]
    fn batches_of_no_images_or_too_many_are_errors() {
        let structure = tiny(4, Family::normal()).structure().unwrap();
        assert_eq!(noise(&structure, 0), Err(Error::EmptyBatch));
        for images in [usize::MAX, usize::MAX / 16, usize::MAX / 64] {
            let error = noise(&structure, images).unwrap_err().to_string();
            assert!(error.starts_with(&format!("batch is {images}; expected no more")), "{error}");
        }
    }
}

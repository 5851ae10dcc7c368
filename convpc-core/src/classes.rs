//! Circuits with classes: the root mixes one head for each class, and its weights are the classes' prior.
//!
//! Such a circuit is the joint distribution of an image and its class. Every query that does not speak of classes sums the class
//! out; what speaks of them reads the heads, whose log-likelihoods are those of an image *given* its class.
//!
//! ```
//! use convpc_core::{Backend, ConvPc, Family, Reference, classes};
//! let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).num_classes(3).build(1)?;
//! let executable = Reference.load(&circuit)?;
//! let (images, labels) = (executable.sample(0..20, 1)?, vec![2; 20]);
//! classes::check_labels(circuit.structure(), images.nrows(), &labels)?;
//! let joint = executable.class_log_joint(images.view())?; // rows × classes
//! let log_posterior = classes::of_labels(joint.view(), &labels) - classes::total(joint.view());
//! assert!(log_posterior.iter().all(|p| *p <= 0.0));
//! println!("accuracy {}", classes::right(joint.view(), &labels) as f64 / 20.0);
//! # Ok::<(), convpc_core::Error>(())
//! ```

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate};

use crate::{
    backend::Executable,
    circuit::Circuit,
    error::{Error, Result},
    evaluation::Semiring,
    evidence,
    layer::Layer,
    parameters::Parameters,
    rng,
    structure::Structure,
};

/// Bytes of activations that are held at a time where a backend finds log-likelihoods of classes by
/// [`Executable::evaluate`].
const MOST_BYTES: usize = 1 << 26;

impl Structure {
    /// The number of classes: the inputs of the root, where it is a [`Sum`](crate::Sum) right above at least two channels that
    /// are sums themselves, be they over channels or over repetitions. The root of other circuits mixes products, or
    /// repetitions, and they have none.
    ///
    /// ```
    /// use convpc_core::{ConvPc, Family};
    /// let convpc = ConvPc::new(4, 4, 1, Family::bernoulli()).channels(3);
    /// assert_eq!(convpc.structure()?.num_classes(), None);
    /// assert_eq!(convpc.repetitions(2).num_classes(5).structure()?.num_classes(), Some(5));
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    pub fn num_classes(&self) -> Option<usize> {
        let [.., heads, Layer::Sum(_)] = self.layers() else { return None };
        let is_sum = matches!(heads, Layer::Sum(_) | Layer::SumConv(_) | Layer::RepetitionMixing(_));
        // A sum keeps features and repetitions, of which a root has one.
        let classes = self.input_shape(self.layers().len() - 1).channels;
        (is_sum && classes > 1).then_some(classes)
    }
}

impl Circuit {
    /// The prior probability of each class.
    ///
    /// # Errors
    /// [`Error::NoClasses`] where the circuit has none.
    pub fn class_prior(&self) -> Result<Vec<f64>> {
        prior(self.structure(), self.parameters())
    }

    /// The distribution of one class, `p(x | class)`: the same circuit with this class as the only one that has a prior. It is
    /// sampled, completed and scored as any other.
    ///
    /// ```
    /// use convpc_core::{Backend, ConvPc, Family, Reference};
    /// let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).num_classes(3).build(1)?;
    /// let data = Reference.load(&circuit)?.sample(0..5, 1)?;
    /// let alone = Reference.load(&circuit.of_class(2)?)?.log_likelihood(data.view())?;
    /// let all = Reference.load(&circuit)?.class_log_likelihood(data.view())?;
    /// assert!(alone.iter().zip(all.column(2)).all(|(a, b)| (a - b).abs() < 1e-12));
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoClasses`] where the circuit has none, [`Error::UnknownClass`] where it has not this one.
    pub fn of_class(&self, class: usize) -> Result<Circuit> {
        let heads = heads(self.structure())?;
        let classes = self.structure().shape(heads).channels;
        if class >= classes {
            return Err(Error::UnknownClass { class, classes });
        }
        let mut parameters = self.parameters().clone();
        let weights = parameters.0[heads + 1].iter_mut().enumerate();
        weights.for_each(|(other, weight)| *weight = f64::from(other == class));
        Circuit::new(self.structure().clone(), parameters)
    }
}

/// The layer of the heads, one channel a class; the root is the layer above it.
///
/// # Errors
/// [`Error::NoClasses`] where the circuit has none.
pub fn heads(structure: &Structure) -> Result<usize> {
    match structure.num_classes() {
        Some(_) => Ok(structure.layers().len() - 2),
        None => Err(Error::NoClasses),
    }
}

/// Checks that labels are classes of the circuit, one for each of so many rows.
///
/// # Errors
/// [`Error::NoClasses`], [`Error::LabelCount`], or [`Error::Label`] for the first that is none.
pub fn check_labels(structure: &Structure, rows: usize, labels: &[usize]) -> Result<()> {
    let classes = structure.num_classes().ok_or(Error::NoClasses)?;
    if labels.len() != rows {
        return Err(Error::LabelCount { given: labels.len(), rows });
    }
    match labels.iter().position(|&label| label >= classes) {
        Some(row) => Err(Error::Label { row, label: labels[row], classes }),
        None => Ok(()),
    }
}

/// What each row's label takes of `[rows, classes]`.
///
/// # Panics
/// If a label is no class; [`check_labels`] says so before.
pub fn of_labels(by_class: ArrayView2<f64>, labels: &[usize]) -> Array1<f64> {
    by_class.outer_iter().zip(labels).map(|(row, &label)| row[label]).collect()
}

/// Of how many rows the most probable class, the first of several, is the label, given joint log-likelihoods `[rows, classes]`. Of a
/// row of probability zero none is.
///
/// # Panics
/// As [`of_labels`].
pub fn right(joint: ArrayView2<f64>, labels: &[usize]) -> usize {
    let is_right = |(row, label): &(ArrayView1<f64>, &usize)| {
        row[**label] > f64::NEG_INFINITY && rng::arg_max(row.iter().copied()) == **label
    };
    joint.outer_iter().zip(labels).filter(is_right).count()
}

/// `log Σ exp` of each row of `[rows, classes]`: of joint log-likelihoods, the log-likelihoods.
pub fn total(joint: ArrayView2<f64>) -> Array1<f64> {
    joint.map_axis(Axis(1), |row| {
        let max = row.fold(f64::NEG_INFINITY, |a, b| a.max(*b));
        // All are -inf, and so is their sum; max - max would be NaN.
        if max == f64::NEG_INFINITY { max } else { max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln() }
    })
}

/// The prior of the classes, as parameters have it.
pub(crate) fn prior(structure: &Structure, parameters: &Parameters) -> Result<Vec<f64>> {
    Ok(parameters.slice(heads(structure)? + 1).to_vec())
}

/// As [`Executable::class_log_likelihood`], from the activations of some rows at a time.
pub(crate) fn by_evaluation<E: Executable + ?Sized>(executable: &E, data: ArrayView2<f32>) -> Result<Array2<f64>> {
    by_evaluation_within(MOST_BYTES, executable, data)
}

/// The same, of as many rows at a time as so many bytes hold, at least one.
fn by_evaluation_within<E: Executable + ?Sized>(
    most_bytes: usize,
    executable: &E,
    data: ArrayView2<f32>,
) -> Result<Array2<f64>> {
    let structure = executable.structure();
    heads(structure)?;
    // All of it here, so that an error names the row of the whole.
    evidence::check(structure, data)?;
    let values = |layer| {
        let shape = structure.shape(layer);
        shape.repetitions * shape.features() * shape.channels
    };
    let values_a_row: usize = (0..structure.layers().len()).map(values).sum();
    let rows = (most_bytes / size_of::<f64>() / values_a_row).max(1);
    let evaluate = |rows| executable.evaluate(rows, Semiring::SumProduct)?.class_log_likelihood();
    Ok(joined(&data.axis_chunks_iter(Axis(0), rows).map(evaluate).collect::<Result<Vec<_>>>()?))
}

/// Rows of one circuit that were computed part by part, `[rows, classes]`.
///
/// # Panics
/// If the parts do not have the same number of classes, or there are none.
pub fn joined(parts: &[Array2<f64>]) -> Array2<f64> {
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    concatenate(Axis(0), &views).expect("rows of one circuit")
}

/// As [`Executable::class_posterior`], of joint log-likelihoods.
pub(crate) fn posterior(mut joint: Array2<f64>) -> Result<Array2<f64>> {
    let total = total(joint.view());
    if let Some(row) = total.iter().position(|total| *total == f64::NEG_INFINITY) {
        return Err(Error::ImpossibleEvidence { row });
    }
    for (mut row, total) in joint.outer_iter_mut().zip(total) {
        row.mapv_inplace(|x| (x - total).exp());
    }
    Ok(joint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, ConvPc, Family, Leaf, ProdConv, Reference, StructureBuilder};

    #[test]
    fn rows_by_parts_are_those_of_the_whole() {
        let circuit = ConvPc::new(2, 2, 1, Family::bernoulli()).channels(3).num_classes(4).build(1).unwrap();
        let executable = Reference.load(&circuit).unwrap();
        let mut data = executable.sample(0..11, 1).unwrap();
        let whole = executable.class_log_likelihood(data.view()).unwrap();
        // A row has 44 values: one row at a time, and a few.
        for bytes in [0, 3 * 44 * 8, 7 * 44 * 8] {
            assert_eq!(by_evaluation_within(bytes, &*executable, data.view()).unwrap(), whole);
        }
        // An error names the row of the whole.
        data[[9, 1]] = 0.5;
        let error = by_evaluation_within(0, &*executable, data.view()).unwrap_err();
        assert!(matches!(error, Error::OutsideSupport { row: 9, variable: 1, .. }), "{error}");
    }

    #[test]
    fn several_sums_below_a_sum_at_the_root_are_classes_and_nothing_else_is() {
        let chain = || Structure::builder(Leaf::new(1, 1, 1, Family::bernoulli(), 2));
        let classes = |chain: StructureBuilder| chain.build().unwrap().num_classes();
        assert_eq!(classes(chain().sum(3).sum(1)), Some(3));
        assert_eq!(classes(chain().sum_conv(2, 1).sum(1)), Some(2));
        assert_eq!(classes(chain().sum(1).sum(1)), None);
        assert_eq!(classes(chain().sum(1)), None);
        assert_eq!(classes(chain().sum(3).prod_conv(ProdConv::new(1, 1)).sum(1)), None);
        assert_eq!(classes(chain().sum(3).sum_conv(1, 1)), None);
    }

    #[test]
    fn the_most_probable_class_is_right_and_nothing_is_where_all_are_impossible() {
        let none = f64::NEG_INFINITY;
        let joint = ndarray::array![[-1.0, -2.0], [none, -3.0], [none, none], [-4.0, -4.0]];
        assert_eq!([[0, 1, 0, 0], [1, 0, 1, 1]].map(|labels| right(joint.view(), &labels)), [3, 0]);
        let total = total(joint.view());
        assert_eq!((total[1], total[2]), (-3.0, none));
        assert!((total[3] - (2f64.ln() - 4.0)).abs() < 1e-15 && total[0] > -1.0);
    }
}

use std::sync::Arc;

use ndarray::{Array1, Array2, Array4, ArrayView4, Axis};

use crate::{
    circuit::Circuit,
    classes,
    descent::{Choice, Descending, Inputs, descend},
    error::{Error, Result},
    layer::{Edge, Layer},
    statistics::Statistics,
};

/// What a sum does with its inputs on the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Semiring {
    /// Sum them: likelihoods; a missing variable is summed out and adds 0.
    #[default]
    SumProduct,
    /// Take the largest: the probability of the best latent choices; a missing variable adds the log-density of its mode.
    MaxProduct,
}

/// How missing values are completed by the most probable explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mpe {
    /// Likelihoods on the way up, the best edge at each sum on the way down, as SPFlow does: fast and approximate.
    Greedy,
    /// The true maximum over missing values and latent choices together (Viterbi).
    MaxProduct,
}

impl Mpe {
    /// What the upward pass computes for this method.
    pub fn semiring(self) -> Semiring {
        match self {
            Mpe::Greedy => Semiring::SumProduct,
            Mpe::MaxProduct => Semiring::MaxProduct,
        }
    }
}

/// The activations of every layer for a batch: what conditional sampling, completion and learning are computed from.
///
/// An evaluation owns its circuit and its evidence, so that no query can be asked without it or of the wrong one. It holds
/// everything in float64: for looking inside and for small batches. Backends stream large ones without building it.
#[derive(Debug, Clone)]
pub struct Evaluation {
    circuit: Arc<Circuit>,
    evidence: Array2<f64>,
    semiring: Semiring,
    activations: Vec<Array4<f64>>,
}

impl Evaluation {
    /// Joins what an upward pass found: `activations` of each layer are `[repetition][feature][channel][row]`.
    ///
    /// # Panics
    /// If the activations do not have the shapes of the circuit's layers: they come from a backend, not from a user.
    pub fn new(
        circuit: Arc<Circuit>,
        evidence: Array2<f64>,
        semiring: Semiring,
        activations: Vec<Array4<f64>>,
    ) -> Self {
        let structure = circuit.structure();
        assert_eq!(activations.len(), structure.layers().len(), "one tensor a layer");
        for (index, tensor) in activations.iter().enumerate() {
            let shape = structure.shape(index);
            assert_eq!(tensor.dim(), (shape.repetitions, shape.features(), shape.channels, evidence.nrows()));
        }
        Evaluation { circuit, evidence, semiring, activations }
    }

    /// The circuit.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// The log-likelihoods of a layer's nodes, nats: `[repetition][feature][channel][row]`.
    pub fn activations(&self, layer: usize) -> ArrayView4<'_, f64> {
        self.activations[layer].view()
    }

    /// The log-likelihood of each row, nats.
    pub fn log_likelihood(&self) -> Array1<f64> {
        self.activations[self.activations.len() - 1].iter().copied().collect()
    }

    /// The expected counts of the rows: flows go down as likelihoods went up.
    ///
    /// Through a sum `flow_in[c] = sum_d flow_out[d] · w[c,d] · exp(x[c] − y[d])`, each term also being the edge's count;
    /// through a product every child gets the parent's flow. A feature with an empty scope is a constant and has no flow.
    pub fn statistics(&self) -> Statistics {
        self.annealed_statistics(1.0)
    }

    /// The same with the posterior over repetitions flattened, as [`Executable::set_inverse_temperature`] says.
    ///
    /// [`Executable::set_inverse_temperature`]: crate::Executable::set_inverse_temperature
    pub fn annealed_statistics(&self, inverse_temperature: f64) -> Statistics {
        let flow = self.activations[self.activations.len() - 1].mapv(|ll| f64::from(ll > f64::NEG_INFINITY));
        self.count(self.activations.len() - 1, flow, &self.log_likelihood(), inverse_temperature)
    }

    /// The log-likelihood of each row under each class, nats, `[rows, classes]`.
    ///
    /// # Errors
    /// [`Error::NoClasses`] where the circuit has none.
    pub fn class_log_likelihood(&self) -> Result<Array2<f64>> {
        let heads = classes::heads(self.circuit.structure())?;
        // One feature and one repetition, as the root above has.
        Ok(self.activations[heads].index_axis(Axis(0), 0).index_axis(Axis(0), 0).t().to_owned())
    }

    /// The expected counts of rows whose classes are known, those of the joint log-likelihood `log p(x, class)`: the flow at the
    /// root goes to the row's class alone, not to all by their posterior. What has probability zero is judged by the joint too.
    ///
    /// # Errors
    /// [`Error::NoClasses`] where the circuit has none; [`Error::LabelCount`] and [`Error::Label`] where the labels do not fit.
    pub fn labeled_statistics(&self, labels: &[usize]) -> Result<Statistics> {
        self.annealed_labeled_statistics(labels, 1.0)
    }

    /// The same with the posterior over repetitions flattened, as [`annealed_statistics`](Self::annealed_statistics).
    ///
    /// # Errors
    /// As [`labeled_statistics`](Self::labeled_statistics).
    pub fn annealed_labeled_statistics(&self, labels: &[usize], inverse_temperature: f64) -> Result<Statistics> {
        let (structure, rows) = (self.circuit.structure(), self.evidence.nrows());
        classes::check_labels(structure, rows, labels)?;
        let heads = classes::heads(structure)?;
        let (x, prior) = (&self.activations[heads], self.circuit.parameters().slice(heads + 1));
        let mut flow = Array4::zeros(x.raw_dim());
        let mut root = vec![0.0; prior.len()];
        let mut joint = Array1::zeros(rows);
        for (row, &class) in labels.iter().enumerate() {
            joint[row] = prior[class].ln() + x[[0, 0, class, row]];
            let used = f64::from(joint[row] > f64::NEG_INFINITY);
            flow[[0, 0, class, row]] = used;
            root[class] += used;
        }
        let mut statistics = self.count(heads, flow, &joint, inverse_temperature);
        statistics.counts[heads + 1].iter_mut().zip(root).for_each(|(to, count)| *to = count);
        Ok(statistics)
    }

    /// The counts of the rows below `top`, given the flow to it and what the log-likelihood of each row is.
    fn count(
        &self,
        top: usize,
        mut flow: Array4<f64>,
        log_likelihood: &Array1<f64>,
        inverse_temperature: f64,
    ) -> Statistics {
        let structure = self.circuit.structure();
        let mut statistics = Statistics::zeros(structure);
        statistics.rows = self.evidence.nrows() as u64;
        statistics.log_likelihood = log_likelihood.sum();
        statistics.impossible_rows = log_likelihood.iter().filter(|ll| **ll == f64::NEG_INFINITY).count() as u64;
        for layer in (1..=top).rev() {
            flow = match structure.edges(layer) {
                Some(_) => {
                    let mixes = matches!(structure.layers()[layer], Layer::RepetitionMixing(_));
                    let power = if mixes { inverse_temperature } else { 1.0 };
                    self.flow_through_sum(layer, &flow, power, &mut statistics)
                }
                None => self.flow_through_product(layer, &flow),
            };
        }
        self.count_leaves(&flow, &mut statistics);
        statistics
    }

    fn flow_through_product(&self, layer: usize, flow: &Array4<f64>) -> Array4<f64> {
        let structure = self.circuit.structure();
        let mut below = Array4::zeros(self.activations[layer - 1].raw_dim());
        for (r, flow) in flow.outer_iter().enumerate() {
            for (feature, flow) in flow.outer_iter().enumerate() {
                for child in structure.children(layer, feature, r) {
                    below.index_axis_mut(Axis(0), r).index_axis_mut(Axis(0), child).assign(&flow);
                }
            }
        }
        below
    }

    /// Each edge gets its posterior probability, to a power, of the flow.
    fn flow_through_sum(
        &self,
        layer: usize,
        flow: &Array4<f64>,
        power: f64,
        statistics: &mut Statistics,
    ) -> Array4<f64> {
        let structure = self.circuit.structure();
        let edges = structure.edges(layer).expect("a sum");
        let weights = self.circuit.parameters().slice(layer);
        let counts = statistics.counts[layer].as_slice_mut().expect("standard layout");
        let (x, y) = (&self.activations[layer - 1], &self.activations[layer]);
        let mut below = Array4::zeros(x.raw_dim());
        for ((r, f, d, row), &flow) in flow.indexed_iter() {
            if flow == 0.0 || structure.is_empty(layer, f, r) {
                continue;
            }
            let input = |edge: &Edge| [edge.repetition, f, edge.channel, row];
            // In logarithms: beside a weight near the smallest number, exp(x − y) alone would overflow.
            let posterior =
                |edge: &Edge| (power * (weights[edge.weight].ln() + x[input(edge)] - y[[r, f, d, row]])).exp();
            let total: f64 = if power < 1.0 { edges.of(f, d, r).map(|edge| posterior(&edge)).sum() } else { 1.0 };
            for edge in edges.of(f, d, r) {
                let share = flow * posterior(&edge) / total;
                below[input(&edge)] += share;
                counts[edge.weight] += share;
            }
        }
        below
    }

    fn count_leaves(&self, flow: &Array4<f64>, statistics: &mut Statistics) {
        let structure = self.circuit.structure();
        let family = &structure.leaf().family;
        let mut t = vec![0.0; family.statistics()];
        for ((r, pixel, c, row), &flow) in flow.indexed_iter() {
            for column in structure.pixel_columns(pixel) {
                let x = self.evidence[[row, column]];
                if !x.is_nan() && flow > 0.0 {
                    family.sufficient(self.circuit.leaf_parameters(column, c, r), x, &mut t);
                    let (counts, leaf) = (&mut statistics.counts[0], structure.leaf_row(column));
                    counts[[leaf, c, r, 0]] += flow;
                    t.iter().enumerate().for_each(|(k, t)| counts[[leaf, c, r, 1 + k]] += flow * t);
                }
            }
        }
    }

    /// The evidence completed: missing values are drawn from their exact posterior. Row i of the batch uses the random
    /// numbers of row `first_row + i`.
    ///
    /// # Errors
    /// [`Error::ImpossibleEvidence`] where a row has probability zero.
    pub fn sample(&self, seed: u64, first_row: u64) -> Result<Array2<f64>> {
        self.complete(Choice::Sample { seed }, first_row)
    }

    /// The evidence completed by the best edges on the way down: [`Mpe::Greedy`] after a SumProduct evaluation,
    /// [`Mpe::MaxProduct`] after a MaxProduct one. Errors as [`sample`](Self::sample).
    pub fn arg_max(&self) -> Result<Array2<f64>> {
        self.complete(Choice::ArgMax, 0)
    }

    fn complete(&self, choice: Choice, first_row: u64) -> Result<Array2<f64>> {
        let log_likelihood = self.log_likelihood();
        let mut rows = self.evidence.clone();
        for (row, mut values) in rows.outer_iter_mut().enumerate() {
            if log_likelihood[row] == f64::NEG_INFINITY {
                return Err(Error::ImpossibleEvidence { row });
            }
            let values = values.as_slice_mut().expect("standard layout");
            let inputs = InputsOfRow { evaluation: self, row };
            descend(&mut [Descending { inputs, row: first_row + row as u64, values }], choice);
        }
        Ok(rows)
    }

    /// Which upward pass this is.
    pub fn semiring(&self) -> Semiring {
        self.semiring
    }
}

/// The inputs of the sums for one row of an evaluation.
struct InputsOfRow<'a> {
    evaluation: &'a Evaluation,
    row: usize,
}

impl Inputs for InputsOfRow<'_> {
    fn structure(&self) -> &crate::Structure {
        self.evaluation.circuit.structure()
    }

    fn edges(&self, layer: usize, feature: usize, channel: usize, repetition: usize, edges: &mut Vec<(f64, f64)>) {
        let structure = self.structure();
        let weights = self.evaluation.circuit.parameters().slice(layer);
        let x = &self.evaluation.activations[layer - 1];
        let wiring = structure.edges(layer).expect("a sum");
        let all = wiring.of(feature, channel, repetition);
        edges.extend(all.map(|e| (weights[e.weight], x[[e.repetition, feature, e.channel, self.row]])));
    }

    fn leaf_parameters(&self, column: usize, channel: usize, repetition: usize, parameters: &mut Vec<f64>) {
        parameters.extend_from_slice(self.evaluation.circuit.leaf_parameters(column, channel, repetition));
    }
}

/// Sampling without evidence needs no upward pass: with nothing observed every input of a sum is 0.
pub(crate) struct Prior<'a>(pub &'a Circuit);

impl Inputs for Prior<'_> {
    fn structure(&self) -> &crate::Structure {
        self.0.structure()
    }

    fn edges(&self, layer: usize, feature: usize, channel: usize, repetition: usize, edges: &mut Vec<(f64, f64)>) {
        let weights = self.0.parameters().slice(layer);
        let wiring = self.0.structure().edges(layer).expect("a sum");
        edges.extend(wiring.of(feature, channel, repetition).map(|e| (weights[e.weight], 0.0)));
    }

    fn leaf_parameters(&self, column: usize, channel: usize, repetition: usize, parameters: &mut Vec<f64>) {
        parameters.extend_from_slice(self.0.leaf_parameters(column, channel, repetition));
    }
}

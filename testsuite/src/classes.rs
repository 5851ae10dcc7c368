//! Checks of circuits with classes, and what is known of them without heads: a circuit for each class alone.

use convpc::{Backend, Circuit, Layer, Parameters, Reference, Statistics, Structure, Sum, SumConv};
use ndarray::{Array2, Axis};

use crate::{Subject, assert_close, circuits, downward};

/// What is left of a circuit where one head is its root: another structure, whose tensors are parts of the circuit's.
///
/// # Panics
/// If the circuit has no classes.
pub fn alone(circuit: &Circuit, class: usize) -> Circuit {
    let mut layers = circuit.structure().layers().to_vec();
    let mut tensors = circuit.parameters().0.clone();
    layers.pop();
    tensors.pop();
    // Heads over repetitions are two layers.
    let lowest = layers.iter().rposition(|layer| !matches!(layer, Layer::RepetitionMixing(_))).expect("a sum");
    for (layer, tensor) in layers.iter_mut().zip(&mut tensors).skip(lowest) {
        let axis_of_channels = match layer {
            Layer::Sum(_) => 2,
            Layer::SumConv(_) => 0,
            _ => 1,
        };
        *tensor = tensor.select(Axis(axis_of_channels), &[class]);
        if let Layer::Sum(Sum { channels }) | Layer::SumConv(SumConv { channels, .. }) = layer {
            *channels = 1;
        }
    }
    let structure = Structure::new(layers).expect("a root");
    Circuit::new(structure, Parameters(tensors)).expect("parts of the circuit's tensors")
}

/// Labels that are no pattern of the rows' number.
pub fn labels(rows: usize, classes: usize) -> Vec<usize> {
    (0..rows).map(|row| (row * row + row / 3) % classes).collect()
}

/// The counts of each class alone, from plain `accumulate` on the circuit that only has its head, put in their places.
///
/// # Panics
/// If the circuit has no classes, or the data do not fit.
pub fn from_classes(circuit: &Circuit, data: &Array2<f32>, labels: &[usize]) -> Statistics {
    let structure = circuit.structure();
    let (classes, root) = (structure.num_classes().expect("classes"), structure.layers().len() - 1);
    let mut all = Statistics::zeros(structure);
    for class in 0..classes {
        let rows: Vec<usize> = (0..labels.len()).filter(|row| labels[*row] == class).collect();
        if rows.is_empty() {
            continue;
        }
        let prior = circuit.parameters().0[root][[0, class, 0, 0]];
        let mut executable = Reference.load(&alone(circuit, class)).expect("a circuit");
        executable.accumulate(data.select(Axis(0), &rows).view()).expect("fitting data");
        let part = executable.statistics().expect("statistics");
        let possible = (part.rows - part.impossible_rows) as f64;
        all.rows += part.rows;
        all.impossible_rows += part.impossible_rows;
        all.log_likelihood += part.log_likelihood + rows.len() as f64 * prior.ln();
        all.counts[root][[0, class, 0, 0]] += possible;
        for (layer, counts) in part.counts.iter().enumerate() {
            let to = &mut all.counts[layer];
            let differs = (0..to.ndim()).find(|&axis| to.shape()[axis] != counts.shape()[axis]);
            match differs {
                None => *to += counts,
                Some(channels) => {
                    let mut head = to.index_axis_mut(Axis(channels), class);
                    head += &counts.index_axis(Axis(channels), 0);
                }
            }
        }
    }
    all
}

/// The log-likelihoods of all classes, and the counts of labeled rows.
///
/// # Panics
/// If they are further off than the subject's precision allows.
pub fn against_float64(subject: &Subject, circuit: &Circuit, rows: u64) {
    let data = circuits::data(circuit, rows);
    let labels = labels(data.nrows(), circuit.structure().num_classes().expect("classes"));
    let find = |backend: &dyn Backend| {
        let mut executable = backend.load(circuit).expect("a circuit");
        let scores = executable.class_log_likelihood(data.view()).expect("fitting data");
        executable.accumulate_labeled(data.view(), &labels).expect("fitting labels");
        (scores, executable.statistics().expect("statistics"))
    };
    let ((exact, exact_counts), (given, given_counts)) = (find(&Reference), find(&*subject.backend));
    let what = format!("{}, {rows} rows\n{circuit}", subject.backend.description());
    assert_close(&what, &given, &exact, subject.tolerance(circuit.structure()));
    downward::assert_counts(&what, subject, circuit, &given_counts, &exact_counts);
}

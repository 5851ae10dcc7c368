//! The upward pass, layer by layer, as the design states it.

use std::sync::Arc;

use ndarray::{Array2, Array4};

use crate::{
    circuit::Circuit,
    evaluation::{Evaluation, Semiring},
    layer::Layer,
};

pub(super) fn evaluate(circuit: &Arc<Circuit>, data: Array2<f64>, semiring: Semiring) -> Evaluation {
    let mut activations: Vec<Array4<f64>> = vec![leaf(circuit, &data, semiring)];
    for (index, layer) in circuit.structure().layers().iter().enumerate().skip(1) {
        let x = &activations[index - 1];
        activations.push(match layer {
            Layer::ProdConv(_) => product(circuit, index, x),
            _ => sum(circuit, index, x, semiring),
        });
    }
    Evaluation::new(circuit.clone(), data, semiring, activations)
}

/// `y[f,c,r] = sum over the variables v of pixel f of log p(x_v | theta[v,c,r])`
fn leaf(circuit: &Circuit, data: &Array2<f64>, semiring: Semiring) -> Array4<f64> {
    let (structure, shape) = (circuit.structure(), circuit.structure().shape(0));
    let family = &structure.leaf().family;
    let dim = (shape.repetitions, shape.features(), shape.channels, data.nrows());
    Array4::from_shape_fn(dim, |(r, pixel, c, row)| {
        let log_density = |column| {
            let (x, theta) = (data[[row, column]], circuit.leaf_parameters(column, c, r));
            match semiring {
                _ if !x.is_nan() => family.log_density(theta, x),
                Semiring::SumProduct => 0.0,
                Semiring::MaxProduct => family.log_density(theta, family.mode(theta)),
            }
        };
        structure.pixel_columns(pixel).map(log_density).sum()
    })
}

/// `y[(i,j),c,r] = sum of x[(i·kh+a−top, j·kw+b−left),c,r]`; a child with an empty scope is the constant 0.
fn product(circuit: &Circuit, layer: usize, x: &Array4<f64>) -> Array4<f64> {
    let (structure, shape) = (circuit.structure(), circuit.structure().shape(layer));
    let of_repetition = |r| (0..shape.features()).map(move |f| structure.children(layer, f, r).collect()).collect();
    let children: Vec<Vec<Vec<usize>>> = (0..shape.repetitions).map(of_repetition).collect();
    Array4::from_shape_fn((shape.repetitions, shape.features(), shape.channels, x.dim().3), |(r, f, c, row)| {
        children[r][f].iter().map(|&child| x[[r, child, c, row]]).sum()
    })
}

/// `y[f,d,r] = log sum_k w_k exp x_k` over the edges of the node, or `max_k (log w_k + x_k)`.
fn sum(circuit: &Circuit, layer: usize, x: &Array4<f64>, semiring: Semiring) -> Array4<f64> {
    let (structure, shape) = (circuit.structure(), circuit.structure().shape(layer));
    let (edges, weights) = (structure.edges(layer).expect("a sum"), circuit.parameters().slice(layer));
    Array4::from_shape_fn((shape.repetitions, shape.features(), shape.channels, x.dim().3), |(r, f, d, row)| {
        if structure.is_empty(layer, f, r) {
            return 0.0;
        }
        let terms = edges.of(f, d, r).map(|e| weights[e.weight].ln() + x[[e.repetition, f, e.channel, row]]);
        let max = terms.clone().fold(f64::NEG_INFINITY, f64::max);
        match semiring {
            // All terms are -inf, and so is their sum; max - max would be NaN.
            _ if max == f64::NEG_INFINITY => max,
            Semiring::SumProduct => max + terms.map(|t| (t - max).exp()).sum::<f64>().ln(),
            Semiring::MaxProduct => max,
        }
    })
}

//! The best explanation against all explanations: every choice of an input at every sum, times every value of the missing variables.
//! Nothing here comes from the library's passes; the wiring is written out from the definitions of the layers.

use convpc::{Circuit, ConvPc, Family, Layer, Leaf, Mpe, Padding, ProdConv, Semiring, Split, Structure};
use ndarray::{Array2, ArrayView1, array};
use testsuite::{assert_close, subjects};

/// The inputs of a product inside the grid, row by row.
fn children(product: &ProdConv, (height, width): (usize, usize), at: (usize, usize), repetition: usize) -> Vec<usize> {
    let (Padding { top, left, .. }, (kh, kw)) = (product.padding.of(repetition), product.kernel);
    let positions = (0..kh).flat_map(|a| (0..kw).map(move |b| (at.0 * kh + a, at.1 * kw + b)));
    let inside = positions.filter(|&(i, j)| (top..top + height).contains(&i) && (left..left + width).contains(&j));
    inside.map(|(i, j)| (i - top) * width + j - left).collect()
}

/// A circuit taken node by node.
struct Nodes<'a>(&'a Circuit);

impl Nodes<'_> {
    fn layer(&self, layer: usize) -> &Layer {
        &self.0.structure().layers()[layer]
    }

    /// The inputs of a product that say anything.
    fn factors(&self, layer: usize, feature: usize, repetition: usize) -> Vec<usize> {
        let Layer::ProdConv(product) = self.layer(layer) else { panic!("a product") };
        let (from, to) = (self.0.structure().shape(layer - 1), self.0.structure().shape(layer));
        let at = (feature / to.width, feature % to.width);
        let mut children = children(product, (from.height, from.width), at, repetition);
        children.retain(|&child| self.says_anything(layer - 1, child, repetition));
        children
    }

    /// Whether there are variables below.
    fn says_anything(&self, layer: usize, feature: usize, repetition: usize) -> bool {
        match self.layer(layer) {
            Layer::Leaf(_) => true,
            Layer::ProdConv(_) => !self.factors(layer, feature, repetition).is_empty(),
            _ => self.says_anything(layer - 1, feature, repetition),
        }
    }

    /// A weight, and the channel and the repetition of the input, for each input of a sum.
    fn edges(&self, layer: usize, f: usize, d: usize, r: usize) -> Vec<(f64, usize, usize)> {
        let (w, input) = (&self.0.parameters().0[layer], self.0.structure().shape(layer - 1));
        match self.layer(layer) {
            Layer::Sum(_) => (0..input.channels).map(|c| (w[[f, c, d, r]], c, r)).collect(),
            Layer::SumConv(sum) => {
                let (i, j) = (f / input.width % sum.kernel_size, f % input.width % sum.kernel_size);
                (0..input.channels).map(|c| (w[[d, c, i, j, r]], c, r)).collect()
            }
            Layer::RepetitionMixing(_) => (0..input.repetitions).map(|r| (w[[f, d, r]], d, r)).collect(),
            _ => panic!("no sum"),
        }
    }

    /// The probability of complete data and a latent choice, for each of the choices below a node.
    fn explanations(&self, x: ArrayView1<f32>, layer: usize, f: usize, d: usize, r: usize) -> Vec<f64> {
        match self.layer(layer) {
            Layer::Leaf(leaf) => {
                let columns = f * leaf.colors..(f + 1) * leaf.colors;
                let density = |column| self.density(leaf.family, column, d, r, f64::from(x[column]));
                vec![columns.map(density).product()]
            }
            Layer::ProdConv(_) => self.factors(layer, f, r).into_iter().fold(vec![1.0], |all, child| {
                let below = self.explanations(x, layer - 1, child, d, r);
                all.iter().flat_map(|p| below.iter().map(move |q| p * q)).collect()
            }),
            _ => {
                let edges = self.edges(layer, f, d, r).into_iter();
                edges
                    .flat_map(|(w, c, r)| self.explanations(x, layer - 1, f, c, r).into_iter().map(move |p| w * p))
                    .collect()
            }
        }
    }

    fn density(&self, family: Family, column: usize, channel: usize, repetition: usize, x: f64) -> f64 {
        let p = self.0.leaf_parameters(column, channel, repetition);
        match family {
            Family::Bernoulli(_) => [1.0 - p[0], p[0]][x as usize],
            Family::Categorical(_) => p[x as usize],
            Family::Binomial(binomial) => {
                let (n, k) = (binomial.trials as i32, x as i32);
                let choose: f64 = (0..k).map(|i| f64::from(n - i) / f64::from(i + 1)).product();
                choose * p[0].powi(k) * (1.0 - p[0]).powi(n - k)
            }
            Family::DiscretizedLogistic(logistic) => {
                let below = |x: f64| 1.0 / (1.0 + (-(x - p[0]) / p[1]).exp());
                let upper = if x as usize + 1 == logistic.levels { 1.0 } else { below(x + 0.5) };
                let lower = if x == 0.0 { 0.0 } else { below(x - 0.5) };
                upper - lower
            }
            Family::Normal(_) => {
                let z = (x - p[0]) / p[1];
                (-0.5 * z * z).exp() / (p[1] * (2.0 * std::f64::consts::PI).sqrt())
            }
        }
    }

    /// The logarithm of the largest probability of complete data and a latent choice.
    fn best_of_complete(&self, x: ArrayView1<f32>) -> f64 {
        let root = self.0.structure().layers().len() - 1;
        self.explanations(x, root, 0, 0, 0).into_iter().fold(0.0, f64::max).ln()
    }

    /// The values that a missing variable may have in a best explanation: of continuous leaves their means.
    fn values(&self, column: usize) -> Vec<f32> {
        let shape = self.0.structure().shape(0);
        match self.0.structure().leaf().family.cardinality() {
            Some(values) => (0..values).map(|value| value as f32).collect(),
            None => (0..shape.channels)
                .flat_map(|c| (0..shape.repetitions).map(move |r| (c, r)))
                .map(|(c, r)| self.0.leaf_parameters(column, c, r)[0] as f32)
                .collect(),
        }
    }

    /// The same over all values of the missing variables too.
    fn best(&self, x: ArrayView1<f32>) -> f64 {
        let Some(missing) = x.iter().position(|value| value.is_nan()) else { return self.best_of_complete(x) };
        let with = |value| {
            let mut x = x.to_owned();
            x[missing] = value;
            self.best(x.view())
        };
        self.values(missing).into_iter().map(with).fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Each kind of layer, padding and family, small enough that a node has at most some hundred explanations.
fn circuits() -> Vec<Circuit> {
    let base = |height, width, family| ConvPc::new(height, width, 1, family).channels(2).leaf_channels(2);
    // The first patch is all padding.
    let padding = Padding { top: 1, left: 2, right: 1, ..Padding::default() };
    let chain = Structure::builder(Leaf::new(1, 3, 1, Family::bernoulli(), 2))
        .sum_conv(2, 2)
        .prod_conv(ProdConv::new(2, 2).padding(padding))
        .sum_conv(2, 3)
        .prod_conv(ProdConv::new(1, 3))
        .sum(1);
    let mut circuits: Vec<Circuit> = [
        base(2, 2, Family::bernoulli()).depth(1),
        base(1, 3, Family::categorical(3)).depth(2).repetitions(2),
        base(2, 2, Family::binomial(2)).depth(2).split(Split::Alternating).use_sum_conv(true),
        base(1, 3, Family::normal()).depth(2).repetitions(2),
        base(1, 3, Family::discretized_logistic(4)).depth(2).use_sum_conv(true),
        ConvPc::new(1, 2, 3, Family::bernoulli()).channels(2).leaf_channels(3).depth(1).shared_leaves(true),
        base(1, 3, Family::categorical(2)).depth(2).shifts([(0, 0), (0, 1)]),
        base(2, 2, Family::normal()).depth(2).shifts([(0, 0), (1, 1)]),
        base(2, 2, Family::bernoulli()).depth(1).num_classes(3),
        base(1, 3, Family::bernoulli()).depth(2).repetitions(2).num_classes(2),
    ]
    .into_iter()
    .enumerate()
    .map(|(seed, convpc)| convpc.build(seed as u64).unwrap())
    .collect();
    circuits.push(Circuit::random(chain.build().unwrap(), 7).unwrap());
    circuits
}

/// Rows of a circuit with nothing, something and everything missing.
fn evidence(circuit: &Circuit) -> Array2<f32> {
    let nodes = Nodes(circuit);
    let missing = |row: usize, column: usize| (row * 5 + row / 2) >> column & 1 == 1 || row == 7;
    Array2::from_shape_fn((8, circuit.variables()), |(row, column)| {
        let values = nodes.values(column);
        if missing(row, column) { f32::NAN } else { values[(row * 3 + column) % values.len()] }
    })
}

#[test]
fn the_best_explanation_is_the_best_of_all() {
    for circuit in circuits() {
        let (nodes, data) = (Nodes(&circuit), evidence(&circuit));
        let expected: Vec<f64> = data.outer_iter().map(|row| nodes.best(row)).collect();
        for subject in subjects() {
            let executable = subject.backend.load(&circuit).unwrap();
            let what = format!("{}\n{circuit}", subject.backend.name());
            let tolerance = (subject.relative, subject.absolute.max(1e-6));
            let given = executable.evaluate(data.view(), Semiring::MaxProduct).unwrap().log_likelihood();
            assert_close(&what, &given, &expected, tolerance);
            let completed = executable.mpe(data.view(), Mpe::MaxProduct).unwrap();
            let kept = data.iter().zip(&completed).all(|(given, x)| given.is_nan() || given == x);
            assert!(kept, "{what}");
            let attained: Vec<f64> = completed.outer_iter().map(|row| nodes.best_of_complete(row)).collect();
            assert_close(&format!("completed, {what}"), &attained, &expected, tolerance);
        }
    }
}

/// The sum over all explanations is the likelihood: what is enumerated here is the circuit.
#[test]
fn all_explanations_together_are_the_likelihood() {
    for circuit in circuits() {
        let nodes = Nodes(&circuit);
        let data = Array2::from_shape_fn((4, circuit.variables()), |(row, v)| nodes.values(v)[(row + v) % 2]);
        let root = circuit.structure().layers().len() - 1;
        let total = |row| nodes.explanations(row, root, 0, 0, 0).iter().sum::<f64>().ln();
        let expected: Vec<f64> = data.outer_iter().map(total).collect();
        for subject in subjects() {
            let executable = subject.backend.load(&circuit).unwrap();
            let given = executable.log_likelihood(data.view()).unwrap();
            let tolerance = (subject.relative, subject.absolute.max(1e-6));
            assert_close(subject.backend.name(), &given, &expected, tolerance);
        }
    }
}

/// The most probable value is not that of the most probable leaf: the best explanation chooses latent inputs and values together.
#[test]
fn latent_choices_and_values_are_chosen_together() {
    let structure = Structure::builder(Leaf::new(1, 1, 1, Family::categorical(4), 2)).sum(1).build().unwrap();
    let (_, mut parameters) = Circuit::random(structure.clone(), 1).unwrap().into_parts();
    // The heavier leaf is spread evenly, the lighter one is sure of value 2.
    let leaves = [0.25, 0.25, 0.25, 0.25, 0.0, 0.0, 1.0, 0.0];
    parameters.0[0].iter_mut().zip(leaves).for_each(|(p, value)| *p = value);
    parameters.0[1].iter_mut().zip([0.6, 0.4]).for_each(|(w, value)| *w = value);
    let circuit = Circuit::new(structure, parameters).unwrap();
    for subject in subjects() {
        let executable = subject.backend.load(&circuit).unwrap();
        let missing = array![[f32::NAN]];
        let given = executable.evaluate(missing.view(), Semiring::MaxProduct).unwrap().log_likelihood();
        assert_close(subject.backend.name(), &given, &[0.4_f64.ln()], (1e-6, 0.0));
        assert_eq!(executable.mpe(missing.view(), Mpe::MaxProduct).unwrap(), array![[2.0]]);
        // The best edge by likelihood is another.
        assert_eq!(executable.mpe(missing.view(), Mpe::Greedy).unwrap(), array![[0.0]]);
    }
}

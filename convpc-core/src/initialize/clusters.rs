//! Rows of a patch in clusters that are alike.

use std::collections::BTreeMap;

use ndarray::{ArrayView2, Axis};

use super::uniform_stream;
use crate::{
    circuit::Circuit,
    error::{Error, Result},
    evidence, rng,
};

/// Rows that are clustered, spread evenly over the data: more would move the centres little.
const ROWS: usize = 4096;

/// Steps of Lloyd's algorithm: later ones move few rows.
const STEPS: usize = 10;

/// A circuit whose leaves are fitted to the rows of a cluster each.
pub(super) fn fit(circuit: &Circuit, data: ArrayView2<f32>, patch: usize, seed: u64) -> Result<Circuit> {
    let structure = circuit.structure();
    evidence::check(structure, data)?;
    let (leaf, shape) = (structure.leaf(), structure.shape(0));
    if leaf.shared {
        return Err(Error::Argument {
            what: "the leaves that begin as clusters of patches",
            given: "shared by all pixels".into(),
            expected: "each pixel's own; begin with windows or rows".into(),
        });
    }
    let patch_of = |column: usize| {
        let pixel = structure.columns()[column].slot / leaf.colors;
        (pixel / leaf.width / patch, pixel % leaf.width / patch)
    };
    let mut patches: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    (0..data.ncols()).for_each(|column| patches.entry(patch_of(column)).or_default().push(column));
    let chosen: Vec<usize> = (0..data.nrows().min(ROWS)).map(|i| i * data.nrows() / data.nrows().min(ROWS)).collect();
    let rows = data.select(Axis(0), &chosen);
    let mut uniform = uniform_stream(seed, 0);
    let mut members = BTreeMap::new();
    for (patch, columns) in &patches {
        for repetition in 0..shape.repetitions {
            let mut of_clusters = vec![Vec::new(); shape.channels];
            let clusters = assign(rows.view(), columns, shape.channels, &mut uniform);
            clusters.into_iter().zip(&chosen).for_each(|(cluster, row)| of_clusters[cluster].push(*row));
            members.insert((*patch, repetition), of_clusters);
        }
    }
    super::fit(circuit, data, |columns, index| {
        let (channel, repetition) = (index / shape.repetitions, index % shape.repetitions);
        let mut places = Vec::new();
        for &column in columns {
            let members = &members[&(patch_of(column), repetition)][channel];
            places.extend(members.iter().map(|row| (*row, column)));
        }
        places
    })
}

/// For each row its cluster among `count`, by its values in `columns`: k-means (Lloyd, 1982) from centres that are rows, each
/// drawn in proportion to its squared distance from those before (k-means++; Arthur and Vassilvitskii, 2007). A missing value
/// is as far from all centres as from itself.
pub(super) fn assign(
    data: ArrayView2<f32>,
    columns: &[usize],
    count: usize,
    uniform: &mut dyn FnMut() -> f64,
) -> Vec<usize> {
    let rows: Vec<Vec<f32>> =
        data.outer_iter().map(|row| columns.iter().map(|&column| row[column]).collect()).collect();
    let mut centres: Vec<Vec<f32>> = Vec::with_capacity(count);
    let mut nearest = vec![f64::INFINITY; rows.len()];
    while centres.len() < count {
        let weights = nearest.iter().map(|d| if d.is_finite() { *d } else { 1.0 });
        let uniform = uniform();
        let drawn = match nearest.iter().any(|d| *d > 0.0) {
            true => rng::pick(weights, uniform),
            // Fewer different rows than clusters.
            false => (uniform * rows.len() as f64) as usize % rows.len(),
        };
        // A missing value of a centre is like any other.
        let centre = rows[drawn].clone();
        nearest.iter_mut().zip(&rows).for_each(|(d, row)| *d = d.min(distance(row, &centre)));
        centres.push(centre);
    }
    let closest = |row: &Vec<f32>, centres: &[Vec<f32>]| {
        let distances = centres.iter().map(|centre| distance(row, centre)).enumerate();
        distances.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(cluster, _)| cluster)
    };
    let mut clusters: Vec<usize> = rows.iter().map(|row| closest(row, &centres)).collect();
    for _ in 0..STEPS {
        for (number, centre) in centres.iter_mut().enumerate() {
            let members = || rows.iter().zip(&clusters).filter(|(_, cluster)| **cluster == number).map(|(row, _)| row);
            for (at, centre) in centre.iter_mut().enumerate() {
                let observed = members().map(|row| f64::from(row[at])).filter(|x| !x.is_nan());
                let (sum, n) = observed.fold((0.0, 0.0), |(sum, n), x| (sum + x, n + 1.0));
                // What nothing speaks about stays.
                *centre = if n > 0.0 { (sum / n) as f32 } else { *centre };
            }
        }
        let moved: Vec<usize> = rows.iter().map(|row| closest(row, &centres)).collect();
        if moved == clusters {
            break;
        }
        clusters = moved;
    }
    clusters
}

/// Squared, over the values that both have.
fn distance(row: &[f32], centre: &[f32]) -> f64 {
    let by = row.iter().zip(centre).map(|(x, c)| f64::from(x - c)).filter(|d| !d.is_nan());
    by.map(|d| d * d).sum()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis};

    use crate::{Circuit, ConvPc, Error, Family, Initialization, LeafInitialization, initialize::uniform_stream};

    /// Rows of two kinds in each half of an image of 2 × 4, one after another: halves are alike in two kinds by themselves.
    fn data() -> Array2<f32> {
        Array2::from_shape_fn((40, 8), |(row, column)| {
            let (left, kind) = (column % 4 < 2, [row % 2, row / 2 % 2]);
            let kind = if left { kind[0] } else { kind[1] };
            10.0 * kind as f32 + if left { 0.0 } else { 3.0 } + ((row * 7 + column * 5) % 11) as f32 / 100.0
        })
    }

    fn begin(patch: usize, data: &Array2<f32>, convpc: ConvPc, seed: u64) -> crate::Result<Circuit> {
        let leaves = LeafInitialization::Clusters { patch };
        Initialization { leaves, ..Initialization::default() }.circuit(convpc.structure()?, data.view(), seed)
    }

    fn convpc() -> ConvPc {
        ConvPc::new(2, 4, 1, Family::normal()).channels(2)
    }

    #[test]
    fn channels_are_the_kinds_of_each_patch() {
        for seed in 0..5 {
            let mut data = data();
            data.iter_mut().step_by(13).for_each(|x| *x = f32::NAN);
            let circuit = begin(2, &data, convpc().repetitions(2), seed).unwrap();
            for repetition in 0..2 {
                let mean = |column, channel| circuit.leaf_parameters(column, channel, repetition)[0];
                for column in 0..8 {
                    let low = if column % 4 < 2 { 0.0 } else { 3.0 };
                    let mut means = [mean(column, 0), mean(column, 1)];
                    // A channel is the same kind at all pixels of the patch.
                    let first = column % 4 / 2 * 2;
                    assert_eq!(means[0] < means[1], mean(first, 0) < mean(first, 1));
                    means.sort_by(f64::total_cmp);
                    // Moved by the prior, which is the mean of all rows and weighs one of twenty.
                    for (mean, kind) in means.iter().zip([low, low + 10.0]) {
                        assert!((mean - kind).abs() < 0.7, "{means:?}, column {column}, seed {seed}");
                    }
                }
            }
            assert_eq!(circuit, begin(2, &data, convpc().repetitions(2), seed).unwrap());
        }
    }

    /// Each row is nearest to the mean of its own cluster: what Lloyd's steps come to.
    #[test]
    fn clusters_are_those_of_the_nearest_means() {
        let data = Array2::from_shape_fn((60, 2), |(row, column)| ((row * (31 + 6 * column)) % 61) as f32);
        for seed in 0..10 {
            let clusters = super::assign(data.view(), &[0, 1], 4, &mut uniform_stream(seed, 0));
            let mean = |cluster: usize, column: usize| {
                let members = (0..60).filter(|&row| clusters[row] == cluster).map(|row| f64::from(data[[row, column]]));
                members.clone().sum::<f64>() / members.count() as f64
            };
            let centres: Vec<[f64; 2]> = (0..4).map(|cluster| [mean(cluster, 0), mean(cluster, 1)]).collect();
            for (row, &cluster) in clusters.iter().enumerate() {
                let to = |c: &[f64; 2]| (0..2).map(|i| (f64::from(data[[row, i]]) - c[i]).powi(2)).sum::<f64>();
                assert!(
                    centres.iter().all(|centre| to(&centres[cluster]) <= to(centre) + 1e-6),
                    "row {row}, seed {seed}"
                );
            }
        }
    }

    #[test]
    fn rows_that_differ_are_apart_where_clusters_are_left_over() {
        let data = Array2::from_shape_fn((30, 1), |(row, _)| (row % 3) as f32);
        for seed in 0..10 {
            let clusters = super::assign(data.view(), &[0], 5, &mut uniform_stream(seed, 0));
            assert!((0..30).all(|row| clusters[row] == clusters[row % 3]), "{clusters:?}");
            assert!(clusters[0] != clusters[1] && clusters[1] != clusters[2] && clusters[0] != clusters[2]);
        }
    }

    #[test]
    fn more_clusters_than_rows_and_nothing_observed() {
        let missing = Array2::from_elem((3, 8), f32::NAN);
        for data in [data().select(Axis(0), &[0, 1]), missing] {
            let circuit = begin(3, &data, convpc().channels(5), 1).unwrap();
            assert!(circuit.leaf_parameters(7, 4, 0).iter().all(|p| p.is_finite()));
        }
    }

    #[test]
    fn patches_of_nothing_and_shared_leaves_are_refused() {
        assert!(matches!(begin(0, &data(), convpc(), 1), Err(Error::Zero { .. })));
        let shared = convpc().depth(2).shared_leaves(true);
        assert!(matches!(begin(2, &data(), shared, 1), Err(Error::Argument { .. })));
    }
}

//! How the work on a circuit is cut: rows into tiles and panels, the tree into shares.
//!
//! What a row's likelihood is does not depend on any of it, and neither do the statistics on the number of threads: they are
//! added tile by tile, and those of weights that several shares have in common share by share.

use std::{fmt, ops::Range};

use convpc_core::{Layer, Structure, WeightMatrices};

use crate::{caches::Caches, leaf::Leaves};

/// Nodes that the tree is cut at, at least: enough for many threads to be busy until the end, few enough that hardly
/// anything is above them, for one thread alone.
const SHARES: usize = 16;

/// The most rows of a tile: from some size on, a weight's way from memory is no longer what counts.
const MOST_ROWS: usize = 256;

/// Bytes that the tapes of all shares may take, if that leaves them a panel.
const MOST_TAPE: usize = 512 << 20;

/// The sum layers of a circuit, cut into shares; see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Rows of a panel: two registers.
    pub(crate) width: usize,
    /// Rows of a panel where there are no more: one register.
    pub(crate) narrow: usize,
    /// The most rows that go up one by one, lanes being channels.
    pub(crate) singly: usize,
    /// Rows of a tile whose likelihoods are computed.
    pub(crate) tile: usize,
    /// Rows of a tile that is remembered for the way down.
    pub(crate) recorded_tile: usize,
    /// The sum layer whose nodes are the roots of the shares; `None` where the whole tree is one.
    pub(crate) cut: Option<usize>,
    /// The (feature, repetition) of the shares' roots. What is above them is one share more, the last.
    pub(crate) roots: Vec<(usize, usize)>,
    /// Values a row of each share's tape, by layer.
    pub(crate) tape_len: Vec<Vec<usize>>,
    /// The lengths of each share's counts.
    pub(crate) counts_len: Vec<CountsLen>,
    /// Whether leaves are counted in float64, in counts of their own.
    pub(crate) leaves_in_float64: bool,
    /// The most nodes of a share that have the same weights.
    sharing: usize,
    /// `[layer]`: where the layer's nodes are.
    layers: Vec<LayerPlan>,
    caches: Caches,
}

/// How many counts a share has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CountsLen {
    pub(crate) sums: usize,
    pub(crate) leaves: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct LayerPlan {
    /// `[repetition · features + feature]`: the node's share and the start of its tape, values a row.
    nodes: Vec<(usize, usize)>,
    /// `[matrix]` (for the leaf: `[row of its tensor · repetitions + repetition]`): where its counts begin in those of its share. The
    /// same place in all shares that have it in common.
    counts: Vec<usize>,
    /// `[matrix]`: the shares that add to it.
    owners: Vec<Range<usize>>,
    features: usize,
}

impl Plan {
    /// `leaf_counts`: values of the counts of one (row of the leaf's tensor, repetition).
    pub(crate) fn new(structure: &Structure, leaf_counts: usize, lanes: usize, caches: Caches) -> Self {
        let layers = structure.layers().len();
        let sums: Vec<_> = (0..layers).map(|layer| WeightMatrices::new(structure, layer)).collect();
        let nodes = |layer: usize| {
            let shape = structure.shape(layer);
            (0..shape.repetitions).flat_map(move |r| structure.occupied(layer, r).map(move |f| (f, r)))
        };
        let is_sum = |layer: &usize| sums[*layer].is_some_and(|w| !w.mixes_repetitions());
        let many = (1..layers).rev().filter(is_sum).find(|&layer| nodes(layer).count() >= SHARES);
        let most = || (1..layers).rev().filter(is_sum).max_by_key(|&layer| nodes(layer).count());
        let cut = many.or_else(most).filter(|&layer| nodes(layer).count() > 1);
        let roots: Vec<_> = cut.map(|layer| nodes(layer).collect()).unwrap_or_default();

        let (width, narrow) = (2 * lanes, lanes);
        let whole = |rows: usize| (rows / width * width).clamp(width, MOST_ROWS / width * width);
        // On the way up each level of the tree has a product that waits for its other factors. On the way down a node has
        // quotients, transposed inputs and flows besides.
        let channels = |layer: usize| structure.input_shape(layer).channels;
        let waiting: usize = (1..layers).filter(|l| sums[*l].is_some()).map(channels).sum();
        let node = (1..layers).filter(|l| sums[*l].is_some()).map(channels).max().unwrap_or(1);
        let tile = whole(caches.second / 2 / 4 / waiting.max(1));
        let taped = |layer: usize| sums[layer].map_or(0, |w| nodes(layer).count() * node_len(structure, layer, &w));
        let tape: usize = (1..layers).map(taped).sum();
        let recorded_tile = whole((caches.second / 2 / 4 / (5 * node)).min(MOST_TAPE / 4 / tape.max(1)));
        // A panel of few rows costs what a full one does; a row by itself what its channels' registers do and some work besides
        // for each node, which is measured to be a panel's at 2 rows of 16 channels and at 8 to 16 rows of 64 and 128.
        let singly = (narrow * node / 128).clamp(1, narrow / 2);
        let sharing = |layer: usize| {
            let matrices = sums[layer].map_or(usize::MAX, |w| w.groups * w.repetitions);
            let shares = if cut.is_some_and(|cut| layer <= cut) { roots.len() } else { 1 };
            nodes(layer).count().div_ceil(matrices).div_ceil(shares)
        };
        let sharing = (1..layers).map(sharing).max().unwrap_or(0);

        let mut plan = Plan {
            width,
            narrow,
            singly,
            tile,
            recorded_tile,
            cut,
            tape_len: vec![vec![0; layers]; roots.len() + 1],
            counts_len: vec![CountsLen::default(); roots.len() + 1],
            leaves_in_float64: Leaves::counts_in_float64(structure),
            sharing,
            layers: vec![LayerPlan::default(); layers],
            roots,
            caches,
        };
        for (layer, to) in plan.layers.iter_mut().enumerate() {
            let shape = structure.shape(layer);
            to.features = shape.features();
            to.nodes = vec![(0, 0); shape.features() * shape.repetitions];
            let matrices = sums[layer].map_or(0, |w| w.groups * w.repetitions);
            let matrices = if layer == 0 { structure.leaf_rows() * shape.repetitions } else { matrices };
            to.counts = vec![usize::MAX; matrices];
            to.owners = vec![0..0; matrices];
        }
        plan.place_shared(structure, &sums, leaf_counts);
        for share in 0..plan.roots.len() {
            let (feature, repetition) = plan.roots[share];
            let root = (cut.expect("it has roots"), feature, repetition);
            plan.place(structure, &sums, leaf_counts, share, root);
        }
        plan.place(structure, &sums, leaf_counts, plan.roots.len(), (layers - 1, 0, 0));
        plan
    }

    /// Gives the matrices that nodes of several shares may have in common the first places in all shares.
    fn place_shared(&mut self, structure: &Structure, sums: &[Option<WeightMatrices>], leaf_counts: usize) {
        let mut shared = CountsLen::default();
        for (layer, matrices) in sums.iter().enumerate() {
            let next = if layer == 0 && self.leaves_in_float64 { &mut shared.leaves } else { &mut shared.sums };
            let len = match &structure.layers()[layer] {
                Layer::Leaf(leaf) if leaf.shared => leaf_counts,
                Layer::SumConv(_) => matrices.map_or(0, |w| w.outputs * w.inputs),
                _ => continue,
            };
            for counts in &mut self.layers[layer].counts {
                *counts = *next;
                *next += len;
            }
            let all = if self.cut.is_some_and(|cut| layer <= cut) {
                0..self.roots.len()
            } else {
                self.roots.len()..self.roots.len() + 1
            };
            self.layers[layer].owners.fill(all);
        }
        self.counts_len.fill(shared);
    }

    /// Places a node and what is below it, as far as another share does not begin there.
    fn place(
        &mut self,
        structure: &Structure,
        sums: &[Option<WeightMatrices>],
        leaf_counts: usize,
        share: usize,
        (layer, feature, repetition): (usize, usize, usize),
    ) {
        let top = share == self.roots.len();
        if structure.is_empty(layer, feature, repetition) || (top && self.cut == Some(layer)) {
            return;
        }
        let CountsLen { sums: of_sums, leaves: of_leaves } = &mut self.counts_len[share];
        let next = if layer == 0 && self.leaves_in_float64 { of_leaves } else { of_sums };
        let mut counts = |layer: &mut LayerPlan, matrix: usize, len: usize| {
            if layer.counts[matrix] == usize::MAX {
                layer.counts[matrix] = *next;
                layer.owners[matrix] = share..share + 1;
                *next += len;
            }
        };
        let to = &mut self.layers[layer];
        let node = repetition * to.features + feature;
        if let Some(w) = &sums[layer] {
            counts(to, w.group(feature) * w.repetitions + repetition, w.outputs * w.inputs);
            let len = &mut self.tape_len[share][layer];
            to.nodes[node] = (share, *len);
            *len += node_len(structure, layer, w);
            let below = if w.mixes_repetitions() { 0..w.inputs } else { repetition..repetition + 1 };
            below.for_each(|r| self.place(structure, sums, leaf_counts, share, (layer - 1, feature, r)));
        } else if layer == 0 {
            let repetitions = structure.shape(0).repetitions;
            let place = |column| structure.leaf_row(column) * repetitions + repetition;
            structure.pixel_columns(feature).for_each(|column| counts(to, place(column), leaf_counts));
        } else {
            for child in structure.children(layer, feature, repetition) {
                self.place(structure, sums, leaf_counts, share, (layer - 1, child, repetition));
            }
        }
    }

    /// The share of a sum node, and the start of its part of the share's tape of the layer, in values a row.
    pub(crate) fn node(&self, layer: usize, feature: usize, repetition: usize) -> (usize, usize) {
        let plan = &self.layers[layer];
        plan.nodes[repetition * plan.features + feature]
    }

    /// Where the counts of each matrix of a layer begin (for the leaf, of each row of its tensor and repetition).
    pub(crate) fn counts(&self, layer: usize) -> &[usize] {
        &self.layers[layer].counts
    }

    /// The shares that add to the counts of a matrix, in order.
    pub(crate) fn shares_of(&self, layer: usize, matrix: usize) -> Range<usize> {
        self.layers[layer].owners[matrix].clone()
    }

    /// An upper bound on how much a tile adds to one f32 count, in units of one row. A leaf table gets one flow per row. A weight
    /// gets one sum over the tile per node that shares it; each counts as 16 rows.
    pub(crate) fn additions(&self, rows: usize) -> usize {
        const ROWS_OF_A_SUM: usize = 16;
        let to_weights = ROWS_OF_A_SUM * self.sharing;
        if self.leaves_in_float64 { to_weights } else { to_weights.max(rows) }
    }

    /// The number of shares, with that of the top.
    pub(crate) fn shares(&self) -> usize {
        self.roots.len() + 1
    }

    /// The width of panels for so many rows.
    pub(crate) fn width_for(&self, rows: usize) -> usize {
        if rows <= self.narrow { self.narrow } else { self.width }
    }
}

/// Values of the tape of one node at one row: inputs and sums; of a mixture of repetitions the inputs.
fn node_len(structure: &Structure, layer: usize, w: &WeightMatrices) -> usize {
    match w.mixes_repetitions() {
        true => w.inputs * w.outputs,
        false => structure.input_shape(layer).channels + w.outputs,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.caches)?;
        writeln!(
            f,
            "panels of {} rows ({} for few, up to {} one by one), tiles of {} on the way up, of {} for both ways",
            self.width, self.narrow, self.singly, self.tile, self.recorded_tile
        )?;
        match self.cut {
            Some(layer) => write!(f, "{} shares below the sums of layer {layer}, one above", self.roots.len())?,
            None => write!(f, "one share")?,
        }
        let row: usize = self.tape_len.iter().flatten().sum();
        write!(f, ", {} KiB of tape a row", (4 * row).div_ceil(1024))
    }
}

#[cfg(test)]
mod tests {
    use convpc_core::{ConvPc, Family};

    use super::*;

    const LANES: usize = 8;
    const CACHES: Caches = Caches { first: 32 << 10, second: 1 << 20 };

    fn structures() -> Vec<Structure> {
        let base = |family| ConvPc::new(13, 9, 2, family).channels(12).depth(3);
        let chains = [
            base(Family::normal()),
            base(Family::categorical(5)).repetitions(3).use_sum_conv(true),
            base(Family::binomial(4)).shared_leaves(true).repetitions(2),
            ConvPc::new(28, 28, 1, Family::normal()).channels(64).depth(5),
            ConvPc::new(1, 1, 1, Family::bernoulli()).channels(1).depth(1),
        ];
        chains.map(|convpc| convpc.structure().unwrap()).to_vec()
    }

    fn plan(structure: &Structure, caches: Caches) -> Plan {
        let leaf_counts = (1 + structure.leaf().family.statistics()) * structure.shape(0).channels;
        Plan::new(structure, leaf_counts, LANES, caches)
    }

    #[test]
    fn a_plan_in_words() {
        // 1,064 sums of 64 inputs and 64 outputs, and the root, 4 bytes a value.
        let structure = ConvPc::new(28, 28, 1, Family::normal()).channels(64).depth(5).structure().unwrap();
        let expected = "caches of a core: 32 KiB, 1024 KiB\n\
                        panels of 16 rows (8 for few, up to 4 one by one), tiles of 256 on the way up, of 256 for both ways\n\
                        16 shares below the sums of layer 8, one above, 533 KiB of tape a row";
        assert_eq!(plan(&structure, CACHES).to_string(), expected);
    }

    #[test]
    fn tiles_are_as_large_as_half_the_second_cache_allows() {
        for structure in structures() {
            let sums = || (1..structure.layers().len()).filter(|&layer| structure.edges(layer).is_some());
            let waiting: usize = sums().map(|layer| structure.input_shape(layer).channels).sum();
            let widest = sums().map(|layer| structure.input_shape(layer).channels).max().unwrap();
            for second in [64 << 10, 256 << 10, 1 << 20, 8 << 20] {
                let plan = plan(&structure, Caches { second, ..CACHES });
                let tape: usize = plan.tape_len.iter().flatten().sum();
                assert!(4 * tape * plan.recorded_tile <= MOST_TAPE, "small enough not to count here");
                for (tile, values) in [(plan.tile, waiting), (plan.recorded_tile, 5 * widest)] {
                    let bytes = |rows: usize| 4 * rows * values;
                    assert!(tile.is_multiple_of(plan.width) && (plan.width..=MOST_ROWS).contains(&tile));
                    assert!(tile == plan.width || bytes(tile) <= second / 2, "{tile} {values} {second}");
                    assert!(tile + plan.width > MOST_ROWS || bytes(tile + plan.width) > second / 2, "{tile} {second}");
                }
            }
        }
    }

    #[test]
    fn tapes_are_bounded() {
        for (side, tile) in [(28, 256), (64, 192), (128, 48), (256, 16)] {
            let structure = ConvPc::new(side, side, 1, Family::normal()).channels(64).structure().unwrap();
            let plan = plan(&structure, Caches { second: 8 << 20, ..CACHES });
            let bytes: usize = plan.tape_len.iter().flatten().map(|len| 4 * len * plan.recorded_tile).sum();
            assert_eq!(plan.recorded_tile, tile, "{side}, {bytes}");
            assert!(bytes <= MOST_TAPE || tile == plan.width);
        }
    }

    #[test]
    fn more_rows_go_one_by_one_where_channels_are_many() {
        let singly = |channels| {
            let convpc = ConvPc::new(8, 8, 1, Family::normal()).channels(channels).depth(3);
            plan(&convpc.structure().unwrap(), CACHES).singly
        };
        assert_eq!([1, 16, 32, 64, 512].map(singly), [1, 1, 2, 4, 4]);
    }

    #[test]
    fn tiles_shrink_with_depth_not_with_the_image() {
        let tile = |side: usize, depth| {
            let convpc = ConvPc::new(side, side, 1, Family::normal()).channels(64).depth(depth);
            plan(&convpc.structure().unwrap(), Caches { second: 256 << 10, ..CACHES }).tile
        };
        assert_eq!(tile(32, 5), tile(64, 5));
        assert!(tile(64, 6) <= tile(64, 3));
    }

    /// What a tile adds to one f32 count bounds how long it may stay there.
    #[test]
    fn additions_are_those_to_the_count_that_gets_most() {
        let additions = |convpc: ConvPc, rows| plan(&convpc.structure().unwrap(), CACHES).additions(rows);
        let image = |side, family| ConvPc::new(side, side, 1, family).channels(2);
        assert_eq!(additions(image(64, Family::normal()), 256), 16);
        // Each pixel's own table gets a number a row; shared ones are in float64.
        assert_eq!(additions(image(64, Family::categorical(4)), 256), 256);
        assert_eq!(additions(image(64, Family::categorical(4)).shared_leaves(true), 256), 16);
        // The lowest sums of 16 shares: 128 × 128 with four matrices.
        assert_eq!(additions(image(256, Family::normal()).depth(7).use_sum_conv(true), 16), 16 * 128 * 128 / 4 / 16);
    }

    #[test]
    fn every_node_has_its_own_part_of_a_tape_and_every_matrix_its_counts() {
        for structure in structures() {
            let plan = plan(&structure, CACHES);
            let mut taken = Vec::new();
            for layer in 1..structure.layers().len() {
                let Some(w) = WeightMatrices::new(&structure, layer) else { continue };
                let shape = structure.shape(layer);
                for (r, f) in (0..w.repetitions).flat_map(|r| (0..shape.features()).map(move |f| (r, f))) {
                    if structure.is_empty(layer, f, r) {
                        continue;
                    }
                    let (share, start) = plan.node(layer, f, r);
                    taken.push((share, layer, start, start + node_len(&structure, layer, &w)));
                    let matrix = w.group(f) * w.repetitions + r;
                    assert!(plan.shares_of(layer, matrix).contains(&share), "layer {layer}, feature {f}");
                    assert!(plan.counts(layer)[matrix] + w.outputs * w.inputs <= plan.counts_len[share].sums);
                }
            }
            taken.sort();
            for parts in taken.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
                // Side by side, and the tape is no longer than that.
                let (share, layer, first, _) = parts[0];
                assert!(parts.windows(2).all(|pair| pair[0].3 == pair[1].2), "{parts:?}");
                assert_eq!((first, parts[parts.len() - 1].3), (0, plan.tape_len[share][layer]));
            }
            let leaves = plan.counts(0);
            assert_eq!(leaves.len(), structure.leaf_rows() * structure.shape(0).repetitions);
            assert!(leaves.iter().all(|&start| start != usize::MAX));
        }
    }
}

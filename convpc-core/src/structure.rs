use std::ops::Range;

use crate::{
    error::{Error, Result},
    layer::{Column, Edges, Layer, Leaf, ProdConv, RepetitionMixing, Sum, SumConv},
    scope::Scope,
    shape::Shape,
};

/// A validated chain of layers, leaf first, root last: everything about a circuit but its parameters.
///
/// ```
/// use convpc_core::{Family, Leaf, ProdConv, Structure};
/// // A binary tree over an image of 2×2 pixels: pairs of columns first, then pairs of rows.
/// let structure = Structure::builder(Leaf::new(2, 2, 1, Family::bernoulli(), 3))
///     .prod_conv(ProdConv::new(1, 2))
///     .sum(4)
///     .prod_conv(ProdConv::new(2, 1))
///     .sum(1)
///     .build()?;
/// assert_eq!(structure.scope(2, 1, 0).to_string(), "{2–3}");
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Structure {
    layers: Vec<Layer>,
    shapes: Vec<Shape>,
    columns: Vec<Column>,
    /// Whether repetitions are padded differently, so that a feature's scope depends on the repetition.
    shifted: bool,
    /// `[layer]`: whether a feature has no scope, `[repetition · features + feature]` where repetitions are shifted, else `[feature]`.
    empty: Vec<Vec<bool>>,
}

/// The most features that all layers together may have, and the most variables. Each is listed here at the cost of a few
/// bytes, which a short file must not ask for by the billion; the chain for an image of 4096 × 4096 pixels still fits.
const MAX_FEATURES: usize = 1 << 26;

/// Walks go as deep as there are layers, each on the stack; a binary tree over the most variables has fewer than 80.
const MAX_LAYERS: usize = 1 << 10;

impl Structure {
    /// Validates a chain of layers.
    ///
    /// # Errors
    /// Where the chain does not begin with its only leaf layer, a size is zero, a product kernel does not divide its
    /// padded input, or the last layer is not one feature with one channel and one repetition; where repetitions that are padded
    /// differently are mixed at more than one feature, since their scopes differ there. [`Error::TooLarge`] where there are more
    /// than 1024 layers, 2^26 variables, or as many features (padded ones too, where repetitions are padded differently those of
    /// each) in all layers together.
    pub fn new(layers: Vec<Layer>) -> Result<Self> {
        let Some(Layer::Leaf(leaf)) = layers.first() else {
            return Err(match layers.first() {
                Some(other) => Error::LeafPosition { layer: 0, found: other.kind() },
                None => Error::NoLayers,
            });
        };
        if layers.len() > MAX_LAYERS {
            return Err(Error::TooLarge { what: "the number of layers (limit 1024)" });
        }
        let shifted = layers.iter().any(|layer| matches!(layer, Layer::ProdConv(product) if product.shifts()));
        // Of a layer, places where a scope may differ.
        let places = |shape: Shape| shape.features().saturating_mul(if shifted { shape.repetitions } else { 1 });
        let mut shapes: Vec<Shape> = Vec::with_capacity(layers.len());
        let mut input = leaf.output()?;
        let mut shifted_below = false;
        let mut features = 0_usize;
        for (index, layer) in layers.iter().enumerate() {
            if index > 0 && matches!(layer, Layer::Leaf(_)) {
                return Err(Error::LeafPosition { layer: index, found: layer.kind() });
            }
            if matches!(layer, Layer::RepetitionMixing(_)) && shifted_below && input.features() > 1 {
                return Err(Error::Argument {
                    what: "the place where repetitions of different paddings are mixed",
                    given: format!("layer {index}, on a grid of {}×{} features", input.height, input.width),
                    expected: "a mixture above the products, where there is a single feature".into(),
                });
            }
            shifted_below |= matches!(layer, Layer::ProdConv(product) if product.shifts());
            input = layer.output(index, input)?;
            shapes.push(input);
            features = features.saturating_add(places(input));
            if features > MAX_FEATURES {
                return Err(Error::TooLarge { what: "the number of features of all layers (limit 2^26)" });
            }
        }
        let slots = leaf.height * leaf.width * leaf.colors;
        if leaf.kept.as_ref().map_or(slots, Vec::len) > MAX_FEATURES {
            return Err(Error::TooLarge { what: "the number of variables (limit 2^26)" });
        }
        if (input.features(), input.channels, input.repetitions) != (1, 1, 1) {
            let Shape { channels, repetitions, .. } = input;
            return Err(Error::NotARoot { features: input.features(), channels, repetitions });
        }
        let columns = leaf.columns().into_owned();
        let mut empty = vec![vec![true; places(shapes[0])]];
        for column in &columns {
            empty[0].iter_mut().skip(column.slot / leaf.colors).step_by(shapes[0].features()).for_each(|e| *e = false);
        }
        for index in 1..layers.len() {
            let (below, from, to) = (&empty[index - 1], shapes[index - 1], shapes[index]);
            let this = match &layers[index] {
                Layer::ProdConv(product) => (0..places(to))
                    .map(|place| {
                        let (repetition, feature) = (place / to.features(), place % to.features());
                        let of_repetition = &below[repetition * from.features()..];
                        product.children(feature, repetition, from, to).all(|child| of_repetition[child])
                    })
                    .collect(),
                // What repetitions have in common after they are mixed, the first has.
                _ => below[..places(to)].to_vec(),
            };
            empty.push(this);
        }
        Ok(Structure { layers, shapes, columns, shifted, empty })
    }

    /// Begins a chain with its leaf layer.
    pub fn builder(leaf: Leaf) -> StructureBuilder {
        StructureBuilder { layers: vec![Layer::Leaf(leaf)] }
    }

    /// The layers, leaf first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The leaf layer.
    pub fn leaf(&self) -> &Leaf {
        match &self.layers[0] {
            Layer::Leaf(leaf) => leaf,
            _ => unreachable!("checked by new"),
        }
    }

    /// The output shape of a layer.
    pub fn shape(&self, layer: usize) -> Shape {
        self.shapes[layer]
    }

    /// The shape of a layer's input; a leaf's is its own output shape.
    pub fn input_shape(&self, layer: usize) -> Shape {
        self.shapes[layer.saturating_sub(1)]
    }

    /// The number of variables: columns of the data.
    pub fn variables(&self) -> usize {
        self.columns.len()
    }

    /// For each column of the data, where its variable is.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The data columns of a pixel (leaf feature).
    pub fn pixel_columns(&self, feature: usize) -> Range<usize> {
        let Leaf { colors, ref kept, .. } = *self.leaf();
        if kept.is_none() {
            return feature * colors..(feature + 1) * colors;
        }
        // Columns are in ascending slot order, so those of a pixel are neighbours.
        let first = |pixel| self.columns.partition_point(|column| column.slot / colors < pixel);
        first(feature)..first(feature + 1)
    }

    /// The number of rows of the leaf's parameter tensor: one for each data column, or one a color where pixels share them.
    pub fn leaf_rows(&self) -> usize {
        self.leaf().rows()
    }

    /// The row of the leaf's parameter tensor that a data column's distributions are in.
    pub fn leaf_row(&self, column: usize) -> usize {
        let Leaf { shared, colors, .. } = *self.leaf();
        if shared { self.columns[column].slot % colors } else { column }
    }

    /// Whether repetitions are padded differently: the scope of a feature then depends on the repetition.
    pub fn is_shifted(&self) -> bool {
        self.shifted
    }

    /// Whether a feature of a repetition has an empty scope: it covers only padding or marginalised variables and is the
    /// constant 0.
    pub fn is_empty(&self, layer: usize, feature: usize, repetition: usize) -> bool {
        let first = if self.shifted { repetition * self.shapes[layer].features() } else { 0 };
        self.empty[layer][first + feature]
    }

    /// The features of a repetition that have a scope.
    pub fn occupied(&self, layer: usize, repetition: usize) -> impl Iterator<Item = usize> {
        (0..self.shapes[layer].features()).filter(move |&feature| !self.is_empty(layer, feature, repetition))
    }

    /// The input features that a feature of a repetition depends on and whose scope is not empty: several for a product, one for
    /// a sum, none for a leaf. Those of a mixture of repetitions are the same in each of them.
    pub fn children(&self, layer: usize, feature: usize, repetition: usize) -> impl Iterator<Item = usize> {
        let (of_product, of_sum) = match &self.layers[layer] {
            Layer::Leaf(_) => (None, None),
            Layer::ProdConv(product) => {
                (Some(product.children(feature, repetition, self.input_shape(layer), self.shapes[layer])), None)
            }
            _ => (None, Some(feature)),
        };
        let candidates = of_product.into_iter().flatten().chain(of_sum);
        candidates.filter(move |&child| !self.is_empty(layer - 1, child, repetition))
    }

    /// The variables that a feature of a repetition speaks about.
    pub fn scope(&self, layer: usize, feature: usize, repetition: usize) -> Scope {
        if layer == 0 {
            return self.columns[self.pixel_columns(feature)].iter().map(|c| c.variable).collect();
        }
        let children = self.children(layer, feature, repetition);
        children.flat_map(|child| self.scope(layer - 1, child, repetition).iter().collect::<Vec<_>>()).collect()
    }

    /// The wiring of a sum-like layer; `None` for leaves and products.
    pub fn edges(&self, layer: usize) -> Option<Edges> {
        self.layers[layer].edges(self.input_shape(layer))
    }

    /// The shape of a layer's parameter tensor, `[0]` for products.
    pub fn parameter_shape(&self, layer: usize) -> Vec<usize> {
        self.layers[layer].parameter_shape(self.input_shape(layer))
    }

    /// The shape of a layer's statistics: that of the weights, and for the leaf `[rows, channels, repetitions,
    /// 1 + family.statistics()]`, the flow first.
    pub fn statistics_shape(&self, layer: usize) -> Vec<usize> {
        let mut shape = self.parameter_shape(layer);
        if let Layer::Leaf(leaf) = &self.layers[layer] {
            shape[3] = 1 + leaf.family.statistics();
        }
        shape
    }

    /// The number of a feature among all features of all layers: the place in a random number's counter.
    pub fn node(&self, layer: usize, feature: usize) -> u32 {
        let below: usize = self.shapes[..layer].iter().map(Shape::features).sum();
        // Wrapping only makes two of more than 2^32 features share random numbers.
        (below + feature) as u32
    }
}

/// Builds any chain of layers; see [`Structure::builder`].
#[derive(Debug, Clone)]
pub struct StructureBuilder {
    layers: Vec<Layer>,
}

impl StructureBuilder {
    /// Appends any layer.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Appends products over patches.
    pub fn prod_conv(self, product: ProdConv) -> Self {
        self.layer(Layer::ProdConv(product))
    }

    /// Appends mixtures with weights of their own at each feature.
    pub fn sum(self, channels: usize) -> Self {
        self.layer(Layer::Sum(Sum { channels }))
    }

    /// Appends mixtures with shared weights.
    pub fn sum_conv(self, channels: usize, kernel_size: usize) -> Self {
        self.layer(Layer::SumConv(SumConv { channels, kernel_size }))
    }

    /// Appends the mixture of all repetitions.
    pub fn repetition_mixing(self) -> Self {
        self.layer(Layer::RepetitionMixing(RepetitionMixing {}))
    }

    /// Validates the chain; errors as [`Structure::new`].
    pub fn build(self) -> Result<Structure> {
        Structure::new(self.layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{conv_pc::ConvPc, family::Family, shape::Padding};

    fn leaf(height: usize, colors: usize) -> Leaf {
        Leaf::new(height, 1, colors, Family::bernoulli(), 1)
    }

    fn padded(features: usize) -> Result<Structure> {
        let padding = Padding { top: features - 1, ..Padding::default() };
        Structure::builder(leaf(1, 1))
            .prod_conv(ProdConv::new(1, 1).padding(padding))
            .prod_conv(ProdConv::new(features, 1))
            .build()
    }

    fn assert_too_large(structure: Result<Structure>) {
        assert!(matches!(structure, Err(Error::TooLarge { .. })), "{structure:?}");
    }

    #[test]
    fn padding_may_be_far_wider_than_the_grid() {
        let structure = padded(1000).unwrap();
        assert_eq!((0..1000).filter(|&f| !structure.is_empty(1, f, 0)).collect::<Vec<_>>(), [999]);
        assert_eq!(structure.scope(2, 0, 0).len(), 1);
    }

    #[test]
    fn features_are_bounded() {
        for features in [MAX_FEATURES, 1 << 40, 1 << 59] {
            assert_too_large(padded(features));
        }
        // Each layer is small enough, all together are not.
        let features = MAX_FEATURES / 4;
        let first = ProdConv::new(1, 1).padding(Padding { top: features - 1, ..Padding::default() });
        let mut chain = Structure::builder(leaf(1, 1)).prod_conv(first);
        for _ in 0..4 {
            chain = chain.prod_conv(ProdConv::new(1, 1));
        }
        assert_too_large(chain.build());
        assert_too_large(ConvPc::new(4, 4, 1, Family::bernoulli()).depth(20).structure());
    }

    #[test]
    fn variables_are_bounded_where_they_are_and_where_they_were() {
        let chain = |leaf: Leaf| {
            let product = ProdConv::new(leaf.height, 1);
            Structure::builder(leaf).prod_conv(product).build()
        };
        assert_too_large(chain(leaf(1, 1 << 40)));
        assert_too_large(chain(leaf(1 << 40, 1)));
        let kept = Some(vec![Column { slot: 2, variable: 2 }, Column { slot: 1 << 39, variable: 1 << 39 }]);
        assert_too_large(chain(Leaf { kept: kept.clone(), ..leaf(1 << 40, 1) }));
        // Marginalised variables cost nothing where the grid is small.
        let structure = chain(Leaf { kept, ..leaf(1, 1 << 40) }).unwrap();
        assert_eq!((structure.variables(), structure.pixel_columns(0)), (2, 0..2));
    }

    #[test]
    fn layers_are_bounded() {
        let chain = |products| {
            let layers = (0..products).fold(Structure::builder(leaf(1, 1)), |c, _| c.prod_conv(ProdConv::new(1, 1)));
            layers.build()
        };
        assert_eq!(chain(MAX_LAYERS - 1).unwrap().scope(MAX_LAYERS - 1, 0, 0).len(), 1);
        assert_too_large(chain(MAX_LAYERS));
    }

    #[test]
    fn scopes_of_shifted_repetitions() {
        // Three pixels on a line of four places, in pairs: a place is free before or after them.
        let shifted = ConvPc::new(1, 3, 1, Family::bernoulli()).channels(2).depth(2).shifts([(0, 0), (0, 1)]);
        let structure = shifted.structure().unwrap();
        assert!(structure.is_shifted() && !ConvPc::new(1, 3, 1, Family::bernoulli()).structure().unwrap().is_shifted());
        let scopes = |layer: usize, repetition| {
            let features = 0..structure.shape(layer).features();
            features.map(|f| structure.scope(layer, f, repetition).to_string()).collect::<Vec<_>>()
        };
        let rest = |mut first: Vec<&'static str>, len| {
            first.resize(len, "{}");
            first
        };
        // Rows below the first, on a grid of 4 × 4 and of 2 × 2, have no scope; the image is in the second row after a shift of none.
        let row = |repetition| scopes(1, repetition)[4..8].to_vec();
        assert_eq!([row(0), row(1)], [["{0}", "{1}", "{2}", "{}"], ["{}", "{0}", "{1}", "{2}"]]);
        assert_eq!(scopes(3, 0), rest(vec!["{0–1}", "{2}"], 4));
        assert_eq!(scopes(3, 1), rest(vec!["{0}", "{1–2}"], 4));
        let all = |layer| [0, 1].map(|r| structure.occupied(layer, r).collect::<Vec<_>>());
        assert_eq!(all(2), [[4, 5, 6], [5, 6, 7]]);
        assert_eq!(all(0), [[0, 1, 2], [0, 1, 2]]);
        let children = |f, r| structure.children(3, f, r).collect::<Vec<_>>();
        assert_eq!(
            [children(0, 0), children(1, 0), children(0, 1), children(1, 1)],
            [vec![4, 5], vec![6], vec![5], vec![6, 7]]
        );
        assert!([0, 1].iter().all(|&r| structure.scope(5, 0, r).len() == 3));
    }

    #[test]
    fn columns_of_a_pixel() {
        let columns = [1, 2, 5].map(|slot| Column { slot, variable: slot });
        let kept = Leaf { kept: Some(columns.into()), ..leaf(4, 2) };
        for (leaf, expected) in [(leaf(4, 2), [0..2, 2..4, 4..6, 6..8]), (kept, [0..1, 1..2, 2..3, 3..3])] {
            let structure = Structure::builder(leaf).prod_conv(ProdConv::new(4, 1)).build().unwrap();
            let ranges = [0, 1, 2, 3].map(|pixel| structure.pixel_columns(pixel));
            assert_eq!(ranges, expected);
            let empty = [0, 1, 2, 3].map(|pixel| structure.is_empty(0, pixel, 0));
            assert_eq!(empty, expected.map(|range| range.is_empty()));
        }
    }
}

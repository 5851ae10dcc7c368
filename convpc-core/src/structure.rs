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
/// assert_eq!(structure.scope(2, 1).to_string(), "{2–3}");
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Structure {
    layers: Vec<Layer>,
    shapes: Vec<Shape>,
    columns: Vec<Column>,
    pixel_columns: Vec<Range<usize>>,
    empty: Vec<Vec<bool>>,
}

impl Structure {
    /// Validates a chain of layers.
    ///
    /// # Errors
    /// Where the chain does not begin with its only leaf layer, a size is zero, a product kernel does not divide its
    /// padded input, or the last layer is not one feature with one channel and one repetition.
    pub fn new(layers: Vec<Layer>) -> Result<Self> {
        let Some(Layer::Leaf(leaf)) = layers.first() else {
            return Err(match layers.first() {
                Some(other) => Error::LeafPosition { layer: 0, found: other.kind() },
                None => Error::NoLayers,
            });
        };
        let mut shapes: Vec<Shape> = Vec::with_capacity(layers.len());
        let mut input = leaf.output()?;
        for (index, layer) in layers.iter().enumerate() {
            if index > 0 && matches!(layer, Layer::Leaf(_)) {
                return Err(Error::LeafPosition { layer: index, found: layer.kind() });
            }
            input = layer.output(index, input)?;
            shapes.push(input);
        }
        if (input.features(), input.channels, input.repetitions) != (1, 1, 1) {
            let Shape { channels, repetitions, .. } = input;
            return Err(Error::NotARoot { features: input.features(), channels, repetitions });
        }
        let columns = leaf.columns().into_owned();
        let pixel_columns = pixel_columns(leaf, &columns);
        let mut empty = vec![pixel_columns.iter().map(Range::is_empty).collect::<Vec<bool>>()];
        for index in 1..layers.len() {
            let below = &empty[index - 1];
            let this = match &layers[index] {
                Layer::ProdConv(product) => (0..shapes[index].features())
                    .map(|f| product.children(f, shapes[index - 1], shapes[index]).all(|child| below[child]))
                    .collect(),
                _ => below.clone(),
            };
            empty.push(this);
        }
        Ok(Structure { layers, shapes, columns, pixel_columns, empty })
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
        self.pixel_columns[feature].clone()
    }

    /// Whether a feature has an empty scope: it covers only padding or marginalised variables and is the constant 0.
    pub fn is_empty(&self, layer: usize, feature: usize) -> bool {
        self.empty[layer][feature]
    }

    /// The input features that a feature depends on and whose scope is not empty: several for a product, one for a sum,
    /// none for a leaf.
    pub fn children(&self, layer: usize, feature: usize) -> Vec<usize> {
        let candidates: Vec<usize> = match &self.layers[layer] {
            Layer::Leaf(_) => vec![],
            Layer::ProdConv(product) => {
                product.children(feature, self.input_shape(layer), self.shapes[layer]).collect()
            }
            _ => vec![feature],
        };
        candidates.into_iter().filter(|&child| !self.empty[layer - 1][child]).collect()
    }

    /// The variables that a feature speaks about.
    pub fn scope(&self, layer: usize, feature: usize) -> Scope {
        if layer == 0 {
            return self.columns[self.pixel_columns(feature)].iter().map(|c| c.variable).collect();
        }
        let children = self.children(layer, feature);
        children.into_iter().flat_map(|child| self.scope(layer - 1, child).iter().collect::<Vec<_>>()).collect()
    }

    /// The wiring of a sum-like layer; `None` for leaves and products.
    pub fn edges(&self, layer: usize) -> Option<Edges> {
        self.layers[layer].edges(self.input_shape(layer))
    }

    /// The shape of a layer's parameter tensor, `[0]` for products.
    pub fn parameter_shape(&self, layer: usize) -> Vec<usize> {
        self.layers[layer].parameter_shape(self.input_shape(layer))
    }

    /// The shape of a layer's statistics: that of the weights, and for the leaf `[columns, channels, repetitions,
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

/// Columns are in ascending slot order, so those of a pixel are neighbours.
fn pixel_columns(leaf: &Leaf, columns: &[Column]) -> Vec<Range<usize>> {
    (0..leaf.height * leaf.width)
        .map(|pixel| {
            let start = columns.partition_point(|c| c.slot / leaf.colors < pixel);
            start..columns.partition_point(|c| c.slot / leaf.colors <= pixel)
        })
        .collect()
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

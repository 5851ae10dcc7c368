use crate::{
    circuit::Circuit,
    error::{Error, Result, positive},
    family::Family,
    layer::{Leaf, ProdConv},
    shape::Padding,
    structure::Structure,
};

/// The convolutional circuit of an image size: Leaf → ProdConv(bottom) → \[sum → ProdConv(k, k)\] × depth → Sum(1) →
/// RepetitionMixing if there are repetitions.
///
/// With side = k^depth the bottom kernel is (⌈height/side⌉, ⌈width/side⌉), so that every rectangle, odd sizes too, ends in
/// one root; the padding is split evenly, the smaller half above and to the left.
///
/// ```
/// use convpc_core::{ConvPc, Family};
/// let circuit = ConvPc::new(27, 14, 3, Family::categorical(256)).channels(8).depth(2).repetitions(2).build(42)?;
/// assert_eq!(circuit.variables(), 27 * 14 * 3);
/// # Ok::<(), convpc_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ConvPc {
    height: usize,
    width: usize,
    colors: usize,
    family: Family,
    leaf_channels: Option<usize>,
    channels: usize,
    depth: Option<usize>,
    kernel_size: usize,
    repetitions: usize,
    use_sum_conv: bool,
    shared_leaves: bool,
}

impl ConvPc {
    /// A circuit for images of `height × width` pixels with `colors` variables each. Until told otherwise it has 16
    /// channels, kernel size 2, one repetition, [`Sum`](crate::Sum) layers, and a depth chosen for the image.
    pub fn new(height: usize, width: usize, colors: usize, family: impl Into<Family>) -> Self {
        ConvPc {
            height,
            width,
            colors,
            family: family.into(),
            leaf_channels: None,
            channels: 16,
            depth: None,
            kernel_size: 2,
            repetitions: 1,
            use_sum_conv: false,
            shared_leaves: false,
        }
    }

    /// Channels of every sum layer but the root.
    pub fn channels(self, channels: usize) -> Self {
        ConvPc { channels, ..self }
    }

    /// Channels of the leaf layer; as many as the sums have unless told otherwise.
    pub fn leaf_channels(self, leaf_channels: usize) -> Self {
        ConvPc { leaf_channels: Some(leaf_channels), ..self }
    }

    /// The number of (sum, product) pairs above the bottom product.
    pub fn depth(self, depth: usize) -> Self {
        ConvPc { depth: Some(depth), ..self }
    }

    /// Side of the product patches, and of the weight pattern with `use_sum_conv`.
    pub fn kernel_size(self, kernel_size: usize) -> Self {
        ConvPc { kernel_size, ..self }
    }

    /// Independent copies of the stack, mixed at the root.
    pub fn repetitions(self, repetitions: usize) -> Self {
        ConvPc { repetitions, ..self }
    }

    /// Whether weights are shared by all patches ([`SumConv`](crate::SumConv)).
    pub fn use_sum_conv(self, use_sum_conv: bool) -> Self {
        ConvPc { use_sum_conv, ..self }
    }

    /// Whether all pixels have the same leaf distributions, a dictionary of values that the lowest sums mix; see
    /// [`Leaf::shared`]. It wants sums right above the leaves, thus a depth with k^depth ≥ height and width.
    pub fn shared_leaves(self, shared_leaves: bool) -> Self {
        ConvPc { shared_leaves, ..self }
    }

    /// The depth that is used: the one asked for, or the smallest at which a bottom patch is a single pixel (at least 1).
    pub fn chosen_depth(&self) -> usize {
        self.depth.unwrap_or_else(|| {
            let (k, size) = (self.kernel_size.max(2), self.height.max(self.width));
            (1..).find(|&depth| k.checked_pow(depth).is_none_or(|side| side >= size)).unwrap_or(1) as usize
        })
    }

    /// The chain of layers.
    ///
    /// # Errors
    /// Where height, width, colors, channels, leaf channels, depth, kernel size or repetitions is 0, or the circuit is too
    /// large to count.
    pub fn structure(&self) -> Result<Structure> {
        let ConvPc { height, width, kernel_size: k, repetitions, .. } = *self;
        let depth = self.chosen_depth();
        positive("height", height)?;
        positive("width", width)?;
        positive("channels", self.channels)?;
        positive("depth", depth)?;
        positive("kernel_size", k)?;
        positive("repetitions", repetitions)?;
        let too_large = Error::TooLarge { what: "kernel_size to the power of depth" };
        // A million features a side is more than any machine holds; the bound keeps the padded sizes countable.
        let exponent = u32::try_from(depth).map_err(|_| too_large.clone())?;
        let side = k.checked_pow(exponent).filter(|&side| side <= 1 << 20).ok_or(too_large)?;
        let bottom = (height.div_ceil(side), width.div_ceil(side));
        let padding = Padding::split(bottom.0 * side - height, bottom.1 * side - width);
        let leaf_channels = self.leaf_channels.unwrap_or(self.channels);
        let leaf = Leaf::new(height, width, self.colors, self.family, leaf_channels).repetitions(repetitions);
        let leaf = leaf.shared(self.shared_leaves);
        let mut chain = Structure::builder(leaf).prod_conv(ProdConv::new(bottom.0, bottom.1).padding(padding));
        for _ in 0..depth {
            chain = if self.use_sum_conv { chain.sum_conv(self.channels, k) } else { chain.sum(self.channels) };
            chain = chain.prod_conv(ProdConv::new(k, k));
        }
        chain = chain.sum(1);
        if repetitions > 1 {
            chain = chain.repetition_mixing();
        }
        chain.build()
    }

    /// The circuit with random parameters; the same seed gives the same circuit. Errors as
    /// [`structure`](Self::structure).
    pub fn build(&self, seed: u64) -> Result<Circuit> {
        Circuit::random(self.structure()?, seed)
    }
}

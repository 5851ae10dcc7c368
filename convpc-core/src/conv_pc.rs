use crate::{
    circuit::Circuit,
    error::{Error, Result, positive},
    family::Family,
    layer::{Leaf, ProdConv},
    shape::{Padding, Paddings},
    structure::{Structure, StructureBuilder},
};

/// How a patch of k × k features comes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// In one product, as a sum's k² children: a tree over quadrants where k is 2.
    #[default]
    Square,
    /// In two products with a sum between them, first along rows, kernel (1, k), then along columns, kernel (k, 1): a binary tree
    /// where k is 2. The sums between cost about as much as those above them again.
    Alternating,
}

/// The convolutional circuit of an image size: Leaf → ProdConv(bottom) → \[sum → ProdConv(k, k)\] × depth → Sum(1) →
/// RepetitionMixing if there are repetitions. With classes it ends … → Sum(classes) → RepetitionMixing if there are
/// repetitions → Sum(1).
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
    channels: Vec<usize>,
    leaf_sums: Option<usize>,
    split: Split,
    depth: Option<usize>,
    kernel_size: usize,
    repetitions: usize,
    shifts: Vec<(isize, isize)>,
    use_sum_conv: bool,
    shared_leaves: bool,
    num_classes: usize,
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
            channels: vec![16],
            leaf_sums: None,
            split: Split::Square,
            depth: None,
            kernel_size: 2,
            repetitions: 1,
            shifts: vec![],
            use_sum_conv: false,
            shared_leaves: false,
            num_classes: 1,
        }
    }

    /// Channels of every sum layer but the root.
    pub fn channels(self, channels: usize) -> Self {
        self.channels_by_level([channels])
    }

    /// Channels of the sums of each of the `depth` levels, the lowest first; the last number stands for all levels above. Where
    /// features are few, wide sums cost little.
    ///
    /// ```
    /// use convpc_core::{ConvPc, Family};
    /// let structure = ConvPc::new(8, 8, 1, Family::bernoulli()).channels_by_level([4, 16]).depth(3).structure()?;
    /// assert_eq!([2, 4, 6].map(|layer| structure.shape(layer).channels), [4, 16, 16]);
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    pub fn channels_by_level(self, channels: impl Into<Vec<usize>>) -> Self {
        ConvPc { channels: channels.into(), ..self }
    }

    /// Sums with so many channels on each pixel's leaves, below the bottom product: mixtures before and after it. Of use where
    /// pixels share their leaves and a bottom patch has several pixels; where a patch is a single pixel, the lowest sums are
    /// mixtures of its leaves already.
    pub fn leaf_sums(self, channels: usize) -> Self {
        ConvPc { leaf_sums: Some(channels), ..self }
    }

    /// How the patches of each level come together; in one product unless told otherwise.
    pub fn split(self, split: Split) -> Self {
        ConvPc { split, ..self }
    }

    /// Channels of the leaf layer; as many as the lowest sums have unless told otherwise.
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

    /// Independent copies of the stack, mixed at the root, all padded alike; see [`shifts`](Self::shifts) for others.
    pub fn repetitions(self, repetitions: usize) -> Self {
        ConvPc { repetitions, shifts: vec![], ..self }
    }

    /// Repetitions whose bottom paddings are shifted, as many as shifts are given: each by so many rows and columns, by which the
    /// image moves down and to the right on the padded grid (up and to the left if negative). Patches of different repetitions then
    /// overlap, and what the border of a patch cuts apart in one lies within a patch of another. There is room where the bottom
    /// product pads: a greater depth makes more.
    ///
    /// ```
    /// use convpc_core::{ConvPc, Family};
    /// // 28 × 28 pixels on a grid of 32 × 32: two rows and columns on each side.
    /// let structure = ConvPc::new(28, 28, 1, Family::bernoulli()).shifts([(-1, -1), (0, 0), (2, 1)]).structure()?;
    /// assert_eq!(structure.layers()[1].to_string(), "ProdConv 1×1 pad 1,1,3,3 or 2,2,2,2 or 4,3,0,1");
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    pub fn shifts(self, shifts: impl Into<Vec<(isize, isize)>>) -> Self {
        let shifts = shifts.into();
        ConvPc { repetitions: shifts.len(), shifts, ..self }
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

    /// Heads for so many classes, which share all that is below: the root becomes the mixture of the classes, with their prior as
    /// weights; see [`Structure::num_classes`]. With 1, which is the default, there are none.
    ///
    /// ```
    /// use convpc_core::{ConvPc, Family};
    /// let structure = ConvPc::new(8, 8, 1, Family::bernoulli()).num_classes(10).structure()?;
    /// assert_eq!(structure.num_classes(), Some(10));
    /// # Ok::<(), convpc_core::Error>(())
    /// ```
    pub fn num_classes(self, num_classes: usize) -> Self {
        ConvPc { num_classes, ..self }
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
    /// Where height, width, colors, channels, leaf channels, depth, kernel size, repetitions or the number of classes is 0, a
    /// shift is larger than the padding, or the circuit is too large to count.
    pub fn structure(&self) -> Result<Structure> {
        let ConvPc { height, width, kernel_size: k, repetitions, .. } = *self;
        let depth = self.chosen_depth();
        positive("height", height)?;
        positive("width", width)?;
        if self.channels.is_empty() {
            return Err(Error::Zero { what: "the number of levels that channels are given for" });
        }
        self.channels.iter().try_for_each(|&channels| positive("channels", channels))?;
        positive("channels of the sums on leaves", self.leaf_sums.unwrap_or(1))?;
        positive("depth", depth)?;
        positive("kernel_size", k)?;
        positive("repetitions", repetitions)?;
        positive("num_classes", self.num_classes)?;
        let too_large = Error::TooLarge { what: "kernel_size to the power of depth" };
        // A million features a side is more than any machine holds; the bound keeps the padded sizes countable.
        let exponent = u32::try_from(depth).map_err(|_| too_large.clone())?;
        let side = k.checked_pow(exponent).filter(|&side| side <= 1 << 20).ok_or(too_large)?;
        let bottom = (height.div_ceil(side), width.div_ceil(side));
        let padding = self.paddings(Padding::split(bottom.0 * side - height, bottom.1 * side - width))?;
        let of_level = |level: usize| self.channels[level.min(self.channels.len() - 1)];
        let leaf_channels = self.leaf_channels.unwrap_or(of_level(0));
        let leaf = Leaf::new(height, width, self.colors, self.family, leaf_channels).repetitions(repetitions);
        let leaf = leaf.shared(self.shared_leaves);
        let sums = |chain: StructureBuilder, channels: usize| match self.use_sum_conv {
            true => chain.sum_conv(channels, k),
            false => chain.sum(channels),
        };
        let mut chain = Structure::builder(leaf);
        if let Some(channels) = self.leaf_sums {
            chain = sums(chain, channels);
        }
        chain = chain.prod_conv(ProdConv::new(bottom.0, bottom.1).padding(padding));
        for level in 0..depth {
            chain = sums(chain, of_level(level));
            chain = match self.split {
                Split::Square => chain.prod_conv(ProdConv::new(k, k)),
                Split::Alternating => {
                    sums(chain.prod_conv(ProdConv::new(1, k)), of_level(level)).prod_conv(ProdConv::new(k, 1))
                }
            };
        }
        chain = chain.sum(self.num_classes);
        if repetitions > 1 {
            chain = chain.repetition_mixing();
        }
        if self.num_classes > 1 {
            chain = chain.sum(1);
        }
        chain.build()
    }

    /// The paddings of the repetitions, given the one that is split evenly.
    fn paddings(&self, even: Padding) -> Result<Paddings> {
        if self.shifts.is_empty() {
            return Ok(even.into());
        }
        let shifted = |&(down, right): &(isize, isize)| {
            let moved = || {
                Some(Padding {
                    top: even.top.checked_add_signed(down)?,
                    left: even.left.checked_add_signed(right)?,
                    bottom: even.bottom.checked_add_signed(down.checked_neg()?)?,
                    right: even.right.checked_add_signed(right.checked_neg()?)?,
                })
            };
            moved().ok_or_else(|| Error::Argument {
                what: "the shift of a repetition",
                given: format!("{down} rows and {right} columns"),
                expected: format!(
                    "{} to {} rows and {} to {} columns, as much as the bottom product pads; a greater depth pads more",
                    -(even.top as isize),
                    even.bottom,
                    -(even.left as isize),
                    even.right
                ),
            })
        };
        Ok(Paddings::Each(self.shifts.iter().map(shifted).collect::<Result<_>>()?))
    }

    /// The circuit with random parameters; the same seed gives the same circuit. Errors as
    /// [`structure`](Self::structure).
    pub fn build(&self, seed: u64) -> Result<Circuit> {
        Circuit::random(self.structure()?, seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(convpc: &ConvPc) -> Vec<String> {
        let structure = convpc.structure().unwrap();
        let layers = structure.layers().iter().enumerate();
        layers.map(|(index, layer)| format!("{layer} → {}", structure.shape(index))).collect()
    }

    #[test]
    fn options_change_the_chain() {
        let convpc = ConvPc::new(5, 6, 1, Family::bernoulli()).depth(2).leaf_channels(2);
        let by_level = convpc.clone().channels_by_level([3, 4]).leaf_sums(5).split(Split::Alternating);
        let expected = [
            "Leaf bernoulli → 5×6×2",
            "Sum → 5×6×5",
            "ProdConv 2×2 pad 1,1,2,1 → 4×4×5",
            "Sum → 4×4×3",
            "ProdConv 1×2 → 4×2×3",
            "Sum → 4×2×3",
            "ProdConv 2×1 → 2×2×3",
            "Sum → 2×2×4",
            "ProdConv 1×2 → 2×1×4",
            "Sum → 2×1×4",
            "ProdConv 2×1 → 1×1×4",
            "Sum → 1×1×1",
        ];
        assert_eq!(chain(&by_level), expected);
        let shared = by_level.use_sum_conv(true).repetitions(2).shared_leaves(true);
        let kinds = |convpc: &ConvPc| chain(convpc).iter().map(|l| l[..4].to_string()).collect::<Vec<_>>();
        let sums =
            ["Leaf", "SumC", "Prod", "SumC", "Prod", "SumC", "Prod", "SumC", "Prod", "SumC", "Prod", "Sum ", "Repe"];
        assert_eq!(kinds(&shared), sums);
        assert!(shared.structure().unwrap().leaf().shared);
        // Heads are the last but one, with one head for each class over all repetitions.
        let heads = |repetitions| chain(&convpc.clone().channels(3).num_classes(7).repetitions(repetitions));
        assert_eq!(heads(1)[6..], ["Sum → 1×1×7", "Sum → 1×1×1"]);
        assert_eq!(heads(2)[6..], ["Sum → 1×1×7 ×2", "RepetitionMixing → 1×1×7", "Sum → 1×1×1"]);
        // One number is the same for all levels, and the usual chain is as it was.
        assert_eq!(chain(&convpc.clone().channels_by_level([3])), chain(&convpc.channels(3)));
    }

    #[test]
    fn levels_without_channels_are_refused() {
        let convpc = ConvPc::new(4, 4, 1, Family::bernoulli());
        for convpc in [
            convpc.clone().channels_by_level([]),
            convpc.clone().channels_by_level([2, 0]).depth(1),
            convpc.clone().leaf_sums(0),
        ] {
            assert!(matches!(convpc.structure(), Err(Error::Zero { .. })), "{:?}", convpc.structure());
        }
        assert_eq!(convpc.num_classes(0).structure(), Err(Error::Zero { what: "num_classes" }));
    }
}

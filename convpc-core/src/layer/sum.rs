use serde::{Deserialize, Serialize};

use crate::{
    error::{Result, positive},
    shape::Shape,
};

/// Mixtures over channels with weights of its own at each feature:
/// `y[f,d,r] = log sum_c w[f,c,d,r] exp x[f,c,r]`, `sum_c w = 1`.
///
/// Weights have the shape `[features, input channels, channels, repetitions]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// Output channels.
    pub channels: usize,
}

impl Sum {
    pub(crate) fn output(&self, input: Shape) -> Result<Shape> {
        positive("channels", self.channels)?;
        weights_fit(input.features(), self.channels, input)?;
        Ok(Shape { channels: self.channels, ..input })
    }
}

/// Mixtures over channels with a `kernel_size × kernel_size` pattern of weights that all patches share: feature (i,j)
/// takes `w[d,c,i mod K,j mod K,r]`, which sums to 1 over c. Any grid size is legal.
///
/// Weights have the shape `[channels, input channels, kernel_size, kernel_size, repetitions]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SumConv {
    /// Output channels.
    pub channels: usize,
    /// Side of the weight pattern.
    pub kernel_size: usize,
}

impl SumConv {
    pub(crate) fn output(&self, input: Shape) -> Result<Shape> {
        positive("channels", self.channels)?;
        positive("kernel_size", self.kernel_size)?;
        weights_fit(self.kernel_size.saturating_mul(self.kernel_size), self.channels, input)?;
        let shape = Shape { channels: self.channels, ..input };
        shape.check_size()?;
        Ok(shape)
    }
}

/// Mixture over repetitions: `y[f,c] = log sum_r w[f,c,r] exp x[f,c,r]`; the output has one repetition.
///
/// Weights have the shape `[features, channels, repetitions]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepetitionMixing {}

fn weights_fit(groups: usize, channels: usize, input: Shape) -> Result<()> {
    Shape { height: groups, width: channels, ..input }.check_size()
}

/// The wiring of a sum-like layer: output (feature, channel, repetition) has `count` weighted edges to inputs at the same
/// feature. One description serves Sum, SumConv and RepetitionMixing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edges {
    /// Edges of each output.
    pub count: usize,
    width: usize,
    channels: usize,
    repetitions: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sum { outputs: usize },
    SumConv { kernel: usize },
    RepetitionMixing,
}

/// One weighted edge of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Offset of the weight in the layer's parameter tensor (row-major).
    pub weight: usize,
    /// Input channel.
    pub channel: usize,
    /// Input repetition.
    pub repetition: usize,
}

impl Edges {
    pub(crate) fn sum(sum: &Sum, input: Shape) -> Self {
        Self::new(input.channels, input, Kind::Sum { outputs: sum.channels })
    }

    pub(crate) fn sum_conv(sum: &SumConv, input: Shape) -> Self {
        Self::new(input.channels, input, Kind::SumConv { kernel: sum.kernel_size })
    }

    pub(crate) fn repetition_mixing(input: Shape) -> Self {
        Self::new(input.repetitions, input, Kind::RepetitionMixing)
    }

    fn new(count: usize, input: Shape, kind: Kind) -> Self {
        Edges { count, width: input.width, channels: input.channels, repetitions: input.repetitions, kind }
    }

    /// Edge number `k < count` of the output at (feature, channel, repetition).
    #[inline]
    pub fn edge(&self, feature: usize, channel: usize, repetition: usize, k: usize) -> Edge {
        let Edges { channels, repetitions, width, .. } = *self;
        match self.kind {
            Kind::Sum { outputs } => Edge {
                weight: ((feature * channels + k) * outputs + channel) * repetitions + repetition,
                channel: k,
                repetition,
            },
            Kind::SumConv { kernel } => {
                let (i, j) = (feature / width % kernel, feature % width % kernel);
                let weight = (((channel * channels + k) * kernel + i) * kernel + j) * repetitions + repetition;
                Edge { weight, channel: k, repetition }
            }
            Kind::RepetitionMixing => {
                Edge { weight: (feature * channels + channel) * repetitions + k, channel, repetition: k }
            }
        }
    }

    /// All edges of an output, in order.
    pub fn of(&self, feature: usize, channel: usize, repetition: usize) -> impl Iterator<Item = Edge> + Clone + use<> {
        let edges = *self;
        (0..edges.count).map(move |k| edges.edge(feature, channel, repetition, k))
    }
}

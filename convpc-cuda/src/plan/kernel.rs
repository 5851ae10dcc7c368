//! The kernels of the way up.

use convpc_core::Precision;

use crate::params;

/// How a block of a fused launch divides its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tile {
    /// 128 rows, 128 outputs at a time: the fewest bytes for a product.
    Wide,
    /// 64 rows, 64 outputs at a time.
    Base,
    /// 64 rows, 16 outputs at a time: for few channels.
    Thin,
    /// 16 rows, 64 outputs at a time: for few rows.
    Slim,
    /// 16 columns, 64 outputs at a time: the rows of several patches that share weights, side by side.
    Fold,
}

impl Tile {
    /// Columns of a block: rows, but for folded patches.
    pub fn columns(self) -> usize {
        match self {
            Tile::Wide => 128,
            Tile::Base | Tile::Thin => 64,
            Tile::Slim | Tile::Fold => 16,
        }
    }

    /// Words in which a block marks the sums that it cannot trust.
    pub(super) fn marks(self) -> usize {
        // Tiles of 16 outputs, tiles of 8 rows and registers of a warp, times the warps.
        let warps = params::CONVPC_THREADS as usize / 32;
        warps
            * 4
            * match self {
                Tile::Wide => 4 * 8,
                Tile::Base => 2 * 4,
                Tile::Thin | Tile::Slim | Tile::Fold => 2,
            }
    }

    /// The name of its kernels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tile::Wide => "wide",
            Tile::Base => "base",
            Tile::Thin => "thin",
            Tile::Slim => "slim",
            Tile::Fold => "fold",
        }
    }
}

/// A kernel of the upward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Sums of one or more levels on tensor cores.
    Fused(Precision, Tile),
    /// Sums with few outputs.
    LseRows,
    /// Sums in the max-product semiring.
    MaxRows,
    /// Mixtures of repetitions.
    Mix,
    /// Mixtures of repetitions in the max-product semiring.
    MixMax,
    /// Products or leaves, written out.
    Gather,
}

impl Kernel {
    /// The name of its entry in the PTX.
    pub fn entry(self) -> String {
        match self {
            Kernel::Fused(precision, tile) => format!("lse_fused_{}_{}", precision.name(), tile.name()),
            Kernel::LseRows => "lse_rows".into(),
            Kernel::MaxRows => "max_rows".into(),
            Kernel::Mix => "mix".into(),
            Kernel::MixMax => "mix_max".into(),
            Kernel::Gather => "gather".into(),
        }
    }

    /// Columns of a block.
    pub fn columns(self) -> usize {
        match self {
            Kernel::Fused(_, tile) => tile.columns(),
            _ => params::CONVPC_THREADS as usize,
        }
    }
}

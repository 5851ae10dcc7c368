//! How kernels are run.

/// The order in which the threads of a block run between two barriers.
///
/// A kernel whose result depends on it lacks a barrier or a `__syncwarp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Warps in ascending order, each as far as it can; the lanes of a warp together. Several times faster than the
    /// thread-by-thread orders.
    #[default]
    Lockstep,
    /// Warps in descending order, the lanes of a warp together.
    WarpsDescending,
    /// Warps take turns of random length; the lanes of a warp together.
    WarpsInterleaved(u64),
    /// One thread after the other, each as far as it can.
    Ascending,
    /// One thread after the other, the last one first.
    Descending,
    /// One thread after the other, in an order drawn anew for every block.
    Shuffled(u64),
}

impl Order {
    /// One of each kind.
    pub const ALL: [Self; 6] = [
        Self::Lockstep,
        Self::WarpsDescending,
        Self::WarpsInterleaved(1),
        Self::Ascending,
        Self::Descending,
        Self::Shuffled(1),
    ];

    /// Whether lanes run one by one.
    pub(crate) fn is_by_thread(self) -> bool {
        matches!(self, Self::Ascending | Self::Descending | Self::Shuffled(_))
    }

    /// A number for the kind and one for the seed.
    pub(crate) fn to_numbers(self) -> (u32, u64) {
        match self {
            Self::Lockstep => (0, 0),
            Self::WarpsDescending => (1, 0),
            Self::WarpsInterleaved(seed) => (2, seed),
            Self::Ascending => (3, 0),
            Self::Descending => (4, 0),
            Self::Shuffled(seed) => (5, seed),
        }
    }

    /// The inverse of [`Self::to_numbers`].
    pub(crate) fn from_numbers(kind: u32, seed: u64) -> Option<Self> {
        Some(match kind {
            0 => Self::Lockstep,
            1 => Self::WarpsDescending,
            2 => Self::WarpsInterleaved(seed),
            3 => Self::Ascending,
            4 => Self::Descending,
            5 => Self::Shuffled(seed),
            _ => return None,
        })
    }
}

/// How kernels are run and what is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The order of threads.
    pub order: Order,
    /// Reading bytes that were never written is a fault. Otherwise they read as NaN.
    pub strict: bool,
    /// Look for data races in shared memory; costs speed.
    pub races: bool,
    /// Move the results of approximate functions by the error that the manual allows, and cut the sums of matrix
    /// products off instead of rounding them, as tensor cores do.
    pub hardware_error: bool,
    /// Operating-system threads among which the blocks of a grid are divided. 0 is as many as the machine has cores.
    pub workers: usize,
    /// Instructions that a warp may execute before the kernel counts as hanging.
    pub budget: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { order: Order::default(), strict: true, races: false, hardware_error: false, workers: 0, budget: 1 << 34 }
    }
}

/// A small deterministic generator (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Shuffles (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}

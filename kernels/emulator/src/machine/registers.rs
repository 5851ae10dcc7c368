//! The registers of a warp: for each register, one value a lane.

use super::memory::POISON;
use crate::ptx::op::{NONE, Reg};

/// Lanes of a warp.
pub(super) const LANES: usize = 32;

/// One value a lane.
pub(super) type Row<T> = [T; LANES];

/// Every lane.
pub(super) const ALL: u32 = u32::MAX;

/// Runs a block for each lane of a mask.
macro_rules! for_lanes {
    ($mask:expr, $lane:ident, $body:block) => {
        let mask: u32 = $mask;
        if mask == u32::MAX {
            for $lane in 0..32usize $body
        } else {
            let mut rest = mask;
            while rest != 0 {
                let $lane = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                $body
            }
        }
    };
}
pub(super) use for_lanes;

// Loops over lanes go through iterators and not through indices: only then does the compiler make vector code of them.

/// The three files.
#[derive(Debug, Default)]
pub(super) struct Registers {
    pub(super) narrow: Vec<Row<u32>>,
    pub(super) wide: Vec<Row<u64>>,
    pub(super) predicates: Vec<u32>,
}

impl Registers {
    /// Poisons what may be read before it is written.
    pub(super) fn poison(&mut self, narrow: &[Reg], wide: &[Reg]) {
        for &register in narrow {
            self.narrow[usize::from(register)] = [POISON; LANES];
        }
        for &register in wide {
            self.wide[usize::from(register)] = [u64::MAX; LANES];
        }
    }

    #[inline(always)]
    pub(super) fn n(&self, register: Reg) -> &Row<u32> {
        &self.narrow[usize::from(register)]
    }

    #[inline(always)]
    pub(super) fn w(&self, register: Reg) -> &Row<u64> {
        &self.wide[usize::from(register)]
    }

    #[inline(always)]
    pub(super) fn p(&self, register: Reg) -> u32 {
        self.predicates[usize::from(register)]
    }

    /// Writes a row for the lanes of a mask.
    #[inline(always)]
    pub(super) fn put_n(&mut self, mask: u32, d: Reg, row: Row<u32>) {
        if d != NONE {
            blend(mask, &mut self.narrow[usize::from(d)], row);
        }
    }

    #[inline(always)]
    pub(super) fn put_w(&mut self, mask: u32, d: Reg, row: Row<u64>) {
        if d != NONE {
            blend(mask, &mut self.wide[usize::from(d)], row);
        }
    }

    #[inline(always)]
    pub(super) fn put_p(&mut self, mask: u32, d: Reg, bits: u32) {
        if d != NONE {
            let old = &mut self.predicates[usize::from(d)];
            *old = *old & !mask | bits & mask;
        }
    }

    #[inline(always)]
    pub(super) fn map1(&mut self, mask: u32, d: Reg, a: Reg, f: impl Fn(u32) -> u32) {
        let a = self.n(a);
        let mut row = [0; LANES];
        for (d, a) in row.iter_mut().zip(a) {
            *d = f(*a);
        }
        self.put_n(mask, d, row);
    }

    #[inline(always)]
    pub(super) fn map2(&mut self, mask: u32, d: Reg, a: Reg, b: Reg, f: impl Fn(u32, u32) -> u32) {
        let (a, b) = (self.n(a), self.n(b));
        let mut row = [0; LANES];
        for ((d, a), b) in row.iter_mut().zip(a).zip(b) {
            *d = f(*a, *b);
        }
        self.put_n(mask, d, row);
    }

    #[inline(always)]
    pub(super) fn map3(&mut self, mask: u32, d: Reg, [a, b, c]: [Reg; 3], f: impl Fn(u32, u32, u32) -> u32) {
        let (a, b, c) = (self.n(a), self.n(b), self.n(c));
        let mut row = [0; LANES];
        for (((d, a), b), c) in row.iter_mut().zip(a).zip(b).zip(c) {
            *d = f(*a, *b, *c);
        }
        self.put_n(mask, d, row);
    }

    #[inline(always)]
    pub(super) fn wide1(&mut self, mask: u32, d: Reg, a: Reg, f: impl Fn(u64) -> u64) {
        let a = self.w(a);
        let mut row = [0; LANES];
        for (d, a) in row.iter_mut().zip(a) {
            *d = f(*a);
        }
        self.put_w(mask, d, row);
    }

    #[inline(always)]
    pub(super) fn wide2(&mut self, mask: u32, d: Reg, a: Reg, b: Reg, f: impl Fn(u64, u64) -> u64) {
        let (a, b) = (self.w(a), self.w(b));
        let mut row = [0; LANES];
        for ((d, a), b) in row.iter_mut().zip(a).zip(b) {
            *d = f(*a, *b);
        }
        self.put_w(mask, d, row);
    }

    /// Two narrow operands, a wide result.
    #[inline(always)]
    pub(super) fn widen2(&mut self, mask: u32, d: Reg, a: Reg, b: Reg, f: impl Fn(u32, u32) -> u64) {
        let (a, b) = (self.n(a), self.n(b));
        let mut row = [0; LANES];
        for ((d, a), b) in row.iter_mut().zip(a).zip(b) {
            *d = f(*a, *b);
        }
        self.put_w(mask, d, row);
    }

    /// A wide operand and a narrow one, a wide result.
    #[inline(always)]
    pub(super) fn wide_narrow(&mut self, mask: u32, d: Reg, a: Reg, b: Reg, f: impl Fn(u64, u32) -> u64) {
        let (a, b) = (self.w(a), self.n(b));
        let mut row = [0; LANES];
        for ((d, a), b) in row.iter_mut().zip(a).zip(b) {
            *d = f(*a, *b);
        }
        self.put_w(mask, d, row);
    }

    /// A bit a lane from two narrow operands.
    #[inline(always)]
    pub(super) fn test2(&self, a: Reg, b: Reg, f: impl Fn(u32, u32) -> bool) -> u32 {
        let (a, b) = (self.n(a), self.n(b));
        let mut bits = 0;
        for (lane, (a, b)) in a.iter().zip(b).enumerate() {
            bits |= u32::from(f(*a, *b)) << lane;
        }
        bits
    }

    #[inline(always)]
    pub(super) fn test2_wide(&self, a: Reg, b: Reg, f: impl Fn(u64, u64) -> bool) -> u32 {
        let (a, b) = (self.w(a), self.w(b));
        let mut bits = 0;
        for (lane, (a, b)) in a.iter().zip(b).enumerate() {
            bits |= u32::from(f(*a, *b)) << lane;
        }
        bits
    }
}

#[inline(always)]
fn blend<T: Copy>(mask: u32, old: &mut Row<T>, new: Row<T>) {
    if mask == ALL {
        *old = new;
    } else if mask.is_power_of_two() {
        let lane = mask.trailing_zeros() as usize;
        old[lane] = new[lane];
    } else {
        for (lane, (old, new)) in old.iter_mut().zip(new).enumerate() {
            *old = if mask >> lane & 1 != 0 { new } else { *old };
        }
    }
}

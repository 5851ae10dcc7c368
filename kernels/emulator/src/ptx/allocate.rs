//! Numbers for registers.
//!
//! A compiler's PTX names a new register for every value: thousands in an unrolled kernel, of which few are alive at
//! once. Those that are never alive together share a number here, so that a warp's registers fit the first cache.
//! The analysis is that of single threads, which suffices: lanes of one register are separate storage.

mod liveness;

use super::syntax::Entry;
use super::types::Class;

/// The number of each register, and how many there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Allocation {
    /// By [`super::syntax::Register`].
    pub(super) numbers: Vec<u32>,
    /// Of each class, in the order narrow, wide, predicate.
    pub(super) counts: [u32; 3],
    /// Numbers of narrow and wide registers that may be read before they are written.
    pub(super) unwritten: [Vec<u32>; 2],
}

/// The place of a class in [`Allocation::counts`].
pub(super) fn class_index(class: Class) -> usize {
    match class {
        Class::Narrow => 0,
        Class::Wide => 1,
        Class::Pred => 2,
    }
}

/// Allocates by linear scan over the registers' lifetimes.
pub(super) fn allocate(entry: &Entry) -> Allocation {
    let lifetimes = liveness::lifetimes(entry);
    let mut order: Vec<usize> = (0..entry.registers.len()).collect();
    order.sort_by_key(|&register| lifetimes[register].start);
    let mut result = Allocation { numbers: vec![0; entry.registers.len()], ..Allocation::default() };
    // Numbers of each class with the instruction at which each becomes free.
    let mut ends: [Vec<u32>; 3] = Default::default();
    for register in order {
        let class = class_index(entry.registers[register].class());
        let lifetime = &lifetimes[register];
        let ends = &mut ends[class];
        // A number that frees at an instruction is not given out there: an operation may write before it has read all.
        let number = ends.iter().position(|&end| end < lifetime.start).unwrap_or_else(|| {
            ends.push(0);
            ends.len() - 1
        });
        ends[number] = lifetime.end;
        result.numbers[register] = number as u32;
        if lifetime.is_unwritten && class < 2 {
            result.unwritten[class].push(number as u32);
        }
    }
    result.counts = ends.map(|ends| ends.len() as u32);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::parser::parse;

    fn allocated(body: &str) -> (Entry, Allocation) {
        let text = format!(
            ".version 8.2\n.target sm_80\n.entry k() {{ .reg .pred %p<9>; .reg .b32 %r<99>; .reg .b64 %rd<9>; {body} }}"
        );
        let entry = parse(&text).unwrap().entries.remove(0);
        let allocation = allocate(&entry);
        (entry, allocation)
    }

    fn number(entry: &Entry, allocation: &Allocation, name: &str) -> u32 {
        let register = entry.registers.iter().position(|register| register.name == name).unwrap();
        allocation.numbers[register]
    }

    #[test]
    fn a_chain_of_values_needs_two_registers() {
        let body: String = (1..50).map(|i| format!("add.s32 %r{}, %r{i}, 1;", i + 1)).collect();
        let (_, allocation) = allocated(&format!("mov.u32 %r1, 5; {body} ret;"));
        assert_eq!(allocation.counts[0], 2);
        assert_eq!(allocation.unwritten, [vec![], vec![]]);
    }

    #[test]
    fn what_a_loop_needs_again_stays() {
        let (entry, allocation) = allocated(
            "mov.u32 %r1, 1; mov.u32 %r2, 0; $L: mov.u32 %r3, 7; add.s32 %r2, %r2, %r3; mov.u32 %r4, 9; \
             add.s32 %r2, %r2, %r4; add.s32 %r2, %r2, %r1; setp.lt.u32 %p1, %r2, 100; @%p1 bra $L; ret;",
        );
        let of = |name| number(&entry, &allocation, name);
        assert_eq!(of("%r3"), of("%r4"));
        assert!(![of("%r2"), of("%r3")].contains(&of("%r1")));
        assert_eq!(allocation.counts[0], 3);
    }

    #[test]
    fn a_register_that_is_written_under_a_predicate_may_be_read_unwritten() {
        let (entry, allocation) = allocated(
            "mov.u32 %r9, 1; setp.eq.u32 %p1, %r9, 0; @%p1 mov.u32 %r1, 2; add.s32 %r2, %r1, 1; \
             st.global.u32 [%rd1], %r2; ret;",
        );
        let of = |name| number(&entry, &allocation, name);
        assert_eq!(allocation.unwritten, [vec![of("%r1")], vec![of("%rd1")]]);
        assert_ne!(of("%r1"), of("%r9"));
    }
}

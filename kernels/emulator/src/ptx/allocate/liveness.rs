//! From where to where registers are alive.

use crate::ptx::syntax::{Entry, Instruction, Operand, Register};

/// The instructions between which a register's value matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub(super) start: u32,
    pub(super) end: u32,
    /// A thread may read it before it has written it.
    pub(super) is_unwritten: bool,
}

/// A set of registers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set(Vec<u64>);

impl Set {
    fn new(registers: usize) -> Self {
        Self(vec![0; registers.div_ceil(64)])
    }

    fn insert(&mut self, register: Register) {
        self.0[register.0 as usize / 64] |= 1 << (register.0 % 64);
    }

    fn contains(&self, register: Register) -> bool {
        self.0[register.0 as usize / 64] >> (register.0 % 64) & 1 != 0
    }

    fn members(&self) -> impl Iterator<Item = usize> {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(index, &word)| (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| 64 * index + bit))
    }
}

/// Instructions that follow each other, entered at the first and left after the last.
struct Stretch {
    start: u32,
    end: u32,
    next: Vec<usize>,
    /// Read before they are written here.
    used: Set,
    /// Written here by every thread.
    written: Set,
    alive_before: Set,
    alive_after: Set,
}

/// The lifetime of every register of a kernel.
pub(super) fn lifetimes(entry: &Entry) -> Vec<Lifetime> {
    let mut stretches = stretches(entry);
    propagate(&mut stretches);
    let nowhere = Lifetime { start: u32::MAX, end: 0, is_unwritten: false };
    let mut lifetimes = vec![nowhere; entry.registers.len()];
    let mut extend = |register: usize, at: u32| {
        let lifetime = &mut lifetimes[register];
        lifetime.start = lifetime.start.min(at);
        lifetime.end = lifetime.end.max(at);
    };
    for stretch in &stretches {
        stretch.alive_before.members().for_each(|register| extend(register, stretch.start));
        stretch.alive_after.members().for_each(|register| extend(register, stretch.end));
        for at in stretch.start..stretch.end {
            visit(&entry.instructions[at as usize], &mut |register, _| extend(register.0 as usize, at));
        }
    }
    if let Some(first) = stretches.first() {
        for register in first.alive_before.members() {
            lifetimes[register].is_unwritten = true;
            lifetimes[register].start = 0;
        }
    }
    lifetimes
}

/// How an instruction touches a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touch {
    Read,
    Write,
}

/// Names the registers of an instruction, those that are read first.
fn visit(instruction: &Instruction, see: &mut dyn FnMut(Register, Touch)) {
    let results = usize::from(has_destination(&instruction.opcode));
    if let Some((guard, _)) = instruction.guard {
        see(guard, Touch::Read);
    }
    let (results, sources) = instruction.operands.split_at(results.min(instruction.operands.len()));
    sources.iter().for_each(|source| visit_operand(source, Touch::Read, see));
    results.iter().for_each(|result| visit_operand(result, Touch::Write, see));
}

fn visit_operand(operand: &Operand, touch: Touch, see: &mut dyn FnMut(Register, Touch)) {
    match operand {
        Operand::Register(register) | Operand::Not(register) => see(*register, touch),
        Operand::Pair(first, second) => {
            see(*first, touch);
            see(*second, touch);
        }
        Operand::Address(base, _) => visit_operand(base, Touch::Read, see),
        Operand::Vector(elements) => elements.iter().for_each(|element| visit_operand(element, touch, see)),
        _ => {}
    }
}

/// Whether the first operand is where the result goes.
fn has_destination(opcode: &str) -> bool {
    let mut parts = opcode.split('.');
    match parts.next().unwrap_or("") {
        "bar" | "barrier" => parts.any(|part| part == "red"),
        "st" | "red" | "bra" | "cp" | "membar" | "fence" | "prefetch" | "prefetchu" | "ret" | "exit" | "trap"
        | "nanosleep" => false,
        _ => true,
    }
}

/// Where an instruction may go apart from the next one, and whether it may go there.
fn flow(instruction: &Instruction) -> (Option<u32>, bool) {
    let conditional = instruction.guard.is_some();
    let target = instruction.operands.iter().find_map(|operand| match operand {
        Operand::Target(target) => Some(*target),
        _ => None,
    });
    let leaves = matches!(instruction.opcode.split('.').next(), Some("ret" | "exit" | "trap"));
    (target, conditional || target.is_none() && !leaves)
}

fn stretches(entry: &Entry) -> Vec<Stretch> {
    let count = entry.instructions.len();
    let mut starts = vec![false; count + 1];
    starts[0] = true;
    for (at, instruction) in entry.instructions.iter().enumerate() {
        let (target, goes_on) = flow(instruction);
        if let Some(target) = target {
            starts[(target as usize).min(count)] = true;
        }
        if target.is_some() || !goes_on {
            starts[at + 1] = true;
        }
    }
    let places: Vec<usize> = (0..count).filter(|&at| starts[at]).collect();
    let of = |at: usize| places.binary_search(&at).ok();
    let registers = entry.registers.len();
    places
        .iter()
        .enumerate()
        .map(|(index, &start)| {
            let end = places.get(index + 1).copied().unwrap_or(count);
            let (target, goes_on) = flow(&entry.instructions[end - 1]);
            let next = target.and_then(|target| of(target as usize)).into_iter();
            let next = next.chain(of(end).filter(|_| goes_on)).collect();
            let (mut used, mut written) = (Set::new(registers), Set::new(registers));
            for instruction in &entry.instructions[start..end] {
                visit(instruction, &mut |register, touch| match touch {
                    Touch::Read if !written.contains(register) => used.insert(register),
                    // Under a predicate the old value may stay.
                    Touch::Write if instruction.guard.is_none() => written.insert(register),
                    _ => {}
                });
            }
            Stretch {
                start: start as u32,
                end: end as u32,
                next,
                alive_before: used.clone(),
                alive_after: Set::new(registers),
                used,
                written,
            }
        })
        .collect()
}

/// Carries what is alive against the flow until nothing changes.
fn propagate(stretches: &mut [Stretch]) {
    let mut changed = true;
    while changed {
        changed = false;
        for index in (0..stretches.len()).rev() {
            let mut after = stretches[index].alive_after.clone();
            for next in stretches[index].next.clone() {
                for (word, other) in after.0.iter_mut().zip(&stretches[next].alive_before.0) {
                    *word |= other;
                }
            }
            if after == stretches[index].alive_after {
                continue;
            }
            let stretch = &mut stretches[index];
            for (word, before) in stretch.alive_before.0.iter_mut().enumerate() {
                *before = stretch.used.0[word] | after.0[word] & !stretch.written.0[word];
            }
            stretch.alive_after = after;
            changed = true;
        }
    }
}

//! Data races in shared memory.
//!
//! Every warp has a clock that advances at each of its barriers, and knows the clock of every other warp as of their
//! last common barrier. An access conflicts with an earlier one of another warp, at least one of them a write, unless
//! the barrier made the earlier one known; and with one of another lane of its own warp unless `bar.warp.sync` or a
//! barrier lies between. A shuffle or a vote orders nothing, as the manual says.
//!
//! Of the reads of a word, the last ones of two warps are kept, which is enough: of two reads that nothing orders, at
//! least one is not of the warp that writes next.

/// No thread.
const NOBODY: u16 = u16::MAX;
/// More than one lane of a warp; the lane bits are meaningless.
const SEVERAL: u16 = 1 << 15;

/// How a word is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An atomic operation; two of them do not conflict.
    Atomic,
}

/// An access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The thread's number in its block.
    pub thread: u16,
    /// The clock of its warp.
    pub clock: u32,
    /// The instruction.
    pub pc: u32,
    /// What it does.
    pub how: How,
}

impl Access {
    const NONE: Self = Self { thread: NOBODY, clock: 0, pc: 0, how: How::Read };

    fn warp(&self) -> usize {
        usize::from((self.thread & !SEVERAL) / 32)
    }
}

#[derive(Clone, Copy, Debug)]
struct Word {
    write: Access,
    reads: [Access; 2],
}

const UNTOUCHED: Word = Word { write: Access::NONE, reads: [Access::NONE; 2] };

/// The accesses to a block's shared memory.
#[derive(Debug, Default)]
pub struct Races {
    words: Vec<Word>,
    /// `known[a][b]`: the clock of warp `b` that warp `a` knows of; its own clock at `[a][a]`.
    known: Vec<[u32; 32]>,
}

impl Races {
    /// Forgets everything, for a block with so many words.
    pub fn reset(&mut self, words: usize) {
        self.words.clear();
        self.words.resize(words, UNTOUCHED);
        self.known.clear();
        self.known.resize(32, [0; 32]);
        for (warp, known) in self.known.iter_mut().enumerate() {
            known[warp] = 1;
        }
    }

    /// The clock of a warp.
    pub fn clock(&self, warp: usize) -> u32 {
        self.known.get(warp).map_or(0, |known| known[warp])
    }

    /// The lanes of a warp have met.
    pub fn warp_sync(&mut self, warp: usize) {
        self.known[warp][warp] += 1;
    }

    /// Warps have met at a barrier, those of a bit set.
    pub fn barrier(&mut self, warps: u32) {
        let mut joined = [0; 32];
        for warp in (0..32).filter(|warp| warps >> warp & 1 != 0) {
            for (joined, known) in joined.iter_mut().zip(self.known[warp]) {
                *joined = known.max(*joined);
            }
        }
        for warp in (0..32).filter(|warp| warps >> warp & 1 != 0) {
            self.known[warp] = joined;
            self.known[warp][warp] += 1;
        }
    }

    /// Notes an access to words `start..end`; gives an earlier one that it conflicts with.
    pub fn note(&mut self, start: usize, end: usize, access: Access) -> Option<Access> {
        let warp = access.warp();
        let known = *self.known.get(warp)?;
        let unordered = |earlier: &Access| {
            earlier.thread != NOBODY
                && earlier.thread != access.thread
                && if earlier.warp() == warp {
                    earlier.clock == access.clock
                } else {
                    earlier.clock > known[earlier.warp()]
                }
        };
        for word in self.words.get_mut(start..end)? {
            let atomics = access.how == How::Atomic && word.write.how == How::Atomic;
            if !atomics && unordered(&word.write) {
                return Some(word.write);
            }
            if access.how == How::Read {
                word.remember_read(access);
                continue;
            }
            if let Some(read) = word.reads.iter().find(|read| unordered(read)) {
                return Some(*read);
            }
            word.write = access;
        }
        None
    }
}

impl Word {
    fn remember_read(&mut self, access: Access) {
        if let Some(own) = self.reads.iter_mut().find(|read| read.thread != NOBODY && read.warp() == access.warp()) {
            let several = own.clock == access.clock && own.thread != access.thread;
            *own = access;
            if several {
                own.thread |= SEVERAL;
            }
        } else if self.reads[0].thread == NOBODY {
            self.reads[0] = access;
        } else {
            self.reads.swap(0, 1);
            self.reads[0] = access;
        }
    }
}

impl Access {
    /// The thread for a message; the lane is the last of several.
    pub fn thread(&self) -> u16 {
        self.thread & !SEVERAL
    }
}

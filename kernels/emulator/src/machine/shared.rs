//! Shared memory of a block, which of its bytes have been written, and who touched them since the last barrier.

use super::races::{Access, Races};

/// What fresh shared memory holds: a NaN in every floating-point format.
const POISON: u32 = u32::MAX;
/// All four bytes of a word have been written.
const WRITTEN: u8 = 0xf;
/// An asynchronous copy to the word is under way.
const IN_FLIGHT: u8 = 0x10;

/// Why an access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Beyond the end.
    OutOfBounds,
    /// Not a multiple of its size.
    Misaligned,
    /// Never written.
    Unwritten,
    /// The destination of a copy that has not been waited for.
    InFlight,
}

/// Shared memory.
#[derive(Debug, Default)]
pub struct Shared {
    words: Vec<u32>,
    state: Vec<u8>,
    bytes: u32,
    strict: bool,
    /// Present if races are looked for.
    pub races: Option<Races>,
}

impl Shared {
    /// Fresh memory for a block.
    pub fn reset(&mut self, bytes: u32, strict: bool, races: bool) {
        let words = bytes.div_ceil(4) as usize;
        self.bytes = bytes;
        self.strict = strict;
        self.words.clear();
        self.words.resize(words, POISON);
        self.state.clear();
        self.state.resize(words, 0);
        if races {
            self.races.get_or_insert_default().reset(words);
        } else {
            self.races = None;
        }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    #[inline(always)]
    fn check(&self, offset: u32, bytes: u32) -> Result<usize, Refusal> {
        if offset & (bytes - 1) != 0 {
            return Err(Refusal::Misaligned);
        }
        if offset >= self.bytes || bytes > self.bytes - offset {
            return Err(Refusal::OutOfBounds);
        }
        Ok((offset / 4) as usize)
    }

    #[inline(always)]
    fn readable(&self, word: usize, needed: u8) -> Result<(), Refusal> {
        let state = self.state[word];
        if state & IN_FLIGHT != 0 {
            return Err(Refusal::InFlight);
        }
        if state & needed == needed { Ok(()) } else { Err(Refusal::Unwritten) }
    }

    /// Reads `N` words, 4 to 16 bytes.
    #[inline(always)]
    pub fn load_words<const N: usize>(&self, offset: u32) -> Result<[u32; N], Refusal> {
        let first = self.check(offset, 4 * N as u32)?;
        if self.strict {
            for word in first..first + N {
                self.readable(word, WRITTEN)?;
            }
        }
        let mut words = [0; N];
        words.copy_from_slice(&self.words[first..first + N]);
        Ok(words)
    }

    /// Writes `N` words.
    #[inline(always)]
    pub fn store_words<const N: usize>(&mut self, offset: u32, words: [u32; N]) -> Result<(), Refusal> {
        let first = self.check(offset, 4 * N as u32)?;
        self.words[first..first + N].copy_from_slice(&words);
        self.state[first..first + N].fill(WRITTEN);
        Ok(())
    }

    /// Reads 1 or 2 bytes.
    pub fn load_part(&self, offset: u32, bytes: u32) -> Result<u32, Refusal> {
        let word = self.check(offset, bytes)?;
        let shift = offset % 4;
        if self.strict {
            self.readable(word, ((1u8 << bytes) - 1) << shift)?;
        }
        Ok((self.words[word] >> (8 * shift)) & ((1 << (8 * bytes)) - 1))
    }

    /// Writes 1 or 2 bytes.
    pub fn store_part(&mut self, offset: u32, bytes: u32, value: u32) -> Result<(), Refusal> {
        let word = self.check(offset, bytes)?;
        let shift = offset % 4;
        let mask = ((1u32 << (8 * bytes)) - 1) << (8 * shift);
        self.words[word] = self.words[word] & !mask | (value << (8 * shift)) & mask;
        self.state[word] |= ((1u8 << bytes) - 1) << shift;
        Ok(())
    }

    /// Marks the destination of an asynchronous copy: it holds poison until the copy is delivered.
    pub fn begin_copy(&mut self, offset: u32, bytes: u32) -> Result<(), Refusal> {
        let first = self.check(offset, bytes)?;
        let words = (bytes / 4) as usize;
        self.words[first..first + words].fill(POISON);
        self.state[first..first + words].fill(IN_FLIGHT);
        Ok(())
    }

    /// Delivers an asynchronous copy that was begun.
    pub fn deliver(&mut self, offset: u32, words: &[u32]) {
        let first = (offset / 4) as usize;
        if let Some(place) = self.words.get_mut(first..first + words.len()) {
            place.copy_from_slice(words);
            self.state[first..first + words.len()].fill(WRITTEN);
        }
    }

    /// Notes an access where races are looked for; gives the earlier access that it conflicts with.
    #[inline(always)]
    pub fn note(&mut self, offset: u32, bytes: u32, access: Access) -> Option<Access> {
        let races = self.races.as_mut()?;
        races.note((offset / 4) as usize, (offset + bytes).div_ceil(4) as usize, access)
    }
}

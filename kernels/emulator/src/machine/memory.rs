//! Global memory: allocations with red zones between them, and which of their bytes have been written.
//!
//! An address is never used twice, so a stale one is always recognised. Memory consists of relaxed atomic words, which
//! lets blocks run on several threads: what a kernel may not race on is undefined there as it is on a GPU, but not
//! here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};

/// The first device address.
const FIRST_ADDRESS: u64 = 0x10_0000_0000;
/// Allocations begin at multiples of this, as `cuMemAlloc` promises.
const ALIGNMENT: u64 = 256;
/// At least so many bytes lie between allocations.
const RED_ZONE: u64 = 4096;
/// Freed allocations that are remembered for error messages.
const REMEMBERED: usize = 4096;
/// What fresh memory holds: a NaN in every floating-point format.
pub const POISON: u32 = u32::MAX;

/// The bytes of an allocation.
#[derive(Debug)]
pub struct Buffer {
    words: Box<[AtomicU32]>,
    /// Four bits a word: which of its bytes have been written.
    written: Box<[AtomicU8]>,
    /// Every byte has been written.
    complete: AtomicBool,
    bytes: u64,
}

impl Buffer {
    fn new(bytes: u64) -> Self {
        let words = bytes.div_ceil(4) as usize;
        Self {
            words: (0..words).map(|_| AtomicU32::new(POISON)).collect(),
            written: (0..words).map(|_| AtomicU8::new(0)).collect(),
            complete: AtomicBool::new(false),
            bytes,
        }
    }

    /// The word at a byte offset that is a multiple of 4.
    #[inline(always)]
    pub fn word(&self, offset: u64) -> Option<&AtomicU32> {
        self.words.get((offset / 4) as usize)
    }

    /// Whether all of `bytes` bytes at an offset have been written.
    #[inline(always)]
    pub fn is_written(&self, offset: u64, bytes: u64) -> bool {
        if self.complete.load(Relaxed) {
            return true;
        }
        (offset / 4..(offset + bytes).div_ceil(4)).all(|word| {
            let needed = byte_mask(word, offset, bytes);
            self.written.get(word as usize).is_some_and(|written| written.load(Relaxed) & needed == needed)
        })
    }

    /// Notes that bytes have been written.
    #[inline(always)]
    pub fn mark_written(&self, offset: u64, bytes: u64) {
        if self.complete.load(Relaxed) {
            return;
        }
        for word in offset / 4..(offset + bytes).div_ceil(4) {
            let mask = byte_mask(word, offset, bytes);
            if let Some(written) = self.written.get(word as usize) {
                if mask == 0xf {
                    written.store(0xf, Relaxed);
                } else {
                    written.fetch_or(mask, Relaxed);
                }
            }
        }
    }

    /// Reads `bytes` bytes, up to 8, at an aligned offset.
    #[inline(always)]
    pub fn load(&self, offset: u64, bytes: u32) -> u64 {
        let word = |offset: u64| self.word(offset).map_or(0, |word| word.load(Relaxed));
        match bytes {
            8 => u64::from(word(offset)) | u64::from(word(offset + 4)) << 32,
            4 => u64::from(word(offset)),
            _ => u64::from(word(offset) >> (8 * (offset % 4))) & ((1 << (8 * bytes)) - 1),
        }
    }

    /// Writes the low `bytes` bytes of a value at an aligned offset.
    #[inline(always)]
    pub fn store(&self, offset: u64, bytes: u32, value: u64) {
        let Some(word) = self.word(offset) else { return };
        match bytes {
            8 => {
                word.store(value as u32, Relaxed);
                if let Some(upper) = self.word(offset + 4) {
                    upper.store((value >> 32) as u32, Relaxed);
                }
            }
            4 => word.store(value as u32, Relaxed),
            _ => {
                let shift = 8 * (offset % 4) as u32;
                let mask = ((1u32 << (8 * bytes)) - 1) << shift;
                let value = ((value as u32) << shift) & mask;
                let _ = word.fetch_update(Relaxed, Relaxed, |old| Some(old & !mask | value));
            }
        }
        self.mark_written(offset, u64::from(bytes));
    }

    /// Copies bytes in.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            if at.is_multiple_of(4) && rest.len() >= 4 {
                for (word, chunk) in self.words[(at / 4) as usize..].iter().zip(rest.chunks_exact(4)) {
                    word.store(u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]), Relaxed);
                }
                let whole = rest.len() / 4 * 4;
                self.mark_written(at, whole as u64);
                at += whole as u64;
                rest = &rest[whole..];
            } else {
                self.store(at, 1, u64::from(rest[0]));
                at += 1;
                rest = &rest[1..];
            }
        }
        if offset == 0 && bytes.len() as u64 == self.bytes {
            self.complete.store(true, Relaxed);
        }
    }

    /// Copies bytes out; what was never written reads as poison.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            if at.is_multiple_of(4) && rest.len() >= 4 {
                let whole = rest.len() / 4 * 4;
                let (now, later) = rest.split_at_mut(whole);
                for (word, chunk) in self.words[(at / 4) as usize..].iter().zip(now.chunks_exact_mut(4)) {
                    chunk.copy_from_slice(&word.load(Relaxed).to_le_bytes());
                }
                at += whole as u64;
                rest = later;
            } else {
                rest[0] = self.load(at, 1) as u8;
                at += 1;
                rest = &mut rest[1..];
            }
        }
    }
}

/// Which bytes of a word lie in a range.
#[inline(always)]
fn byte_mask(word: u64, offset: u64, bytes: u64) -> u8 {
    let start = offset.saturating_sub(4 * word).min(4);
    let end = (offset + bytes).saturating_sub(4 * word).min(4);
    ((0xf << start) & 0xf & !(0xf << end)) as u8
}

/// An allocation.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// Its first address.
    pub base: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its contents.
    pub buffer: Arc<Buffer>,
}

impl Allocation {
    /// The offset of an access of `bytes` bytes, if it lies inside.
    #[inline(always)]
    pub fn offset(&self, address: u64, bytes: u64) -> Option<u64> {
        let offset = address.wrapping_sub(self.base);
        (offset < self.bytes && bytes <= self.bytes - offset).then_some(offset)
    }
}

/// Why memory could not be had or reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The limit would be exceeded.
    #[error("out of memory: {wanted} bytes wanted, {free} free")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes left.
        free: u64,
    },
    /// No allocation contains the bytes.
    #[error("{0}")]
    OutOfBounds(String),
}

/// All allocations of a device.
#[derive(Clone, Debug)]
pub struct Memory {
    /// In the order of their addresses.
    allocations: Vec<Allocation>,
    freed: Vec<(u64, u64)>,
    next: u64,
    limit: u64,
    in_use: u64,
    peak: u64,
    allocated_ever: u64,
}

impl Memory {
    /// No allocations, and room for `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            allocations: Vec::new(),
            freed: Vec::new(),
            next: FIRST_ADDRESS,
            limit,
            in_use: 0,
            peak: 0,
            allocated_ever: 0,
        }
    }

    /// Changes the room; what is allocated stays.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The room in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes allocated now.
    pub fn in_use(&self) -> u64 {
        self.in_use
    }

    /// The most bytes that were ever allocated at once.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// Allocations now.
    pub fn count(&self) -> u64 {
        self.allocations.len() as u64
    }

    /// Allocations since the start.
    pub fn allocated_ever(&self) -> u64 {
        self.allocated_ever
    }

    /// Allocates; the bytes are poison.
    pub fn allocate(&mut self, bytes: u64) -> Result<u64, MemoryError> {
        let free = self.limit.saturating_sub(self.in_use);
        if bytes > free {
            return Err(MemoryError::OutOfMemory { wanted: bytes, free });
        }
        let base = self.next;
        self.next = (base + bytes + RED_ZONE).next_multiple_of(ALIGNMENT);
        self.allocations.push(Allocation { base, bytes, buffer: Arc::new(Buffer::new(bytes)) });
        self.in_use += bytes;
        self.peak = self.peak.max(self.in_use);
        self.allocated_ever += 1;
        Ok(base)
    }

    /// Frees an allocation by its first address.
    pub fn free(&mut self, base: u64) -> Result<(), MemoryError> {
        match self.allocations.binary_search_by_key(&base, |allocation| allocation.base) {
            Ok(index) => {
                let allocation = self.allocations.remove(index);
                self.in_use -= allocation.bytes;
                if self.freed.len() >= REMEMBERED {
                    self.freed.remove(0);
                }
                self.freed.push((allocation.base, allocation.bytes));
                Ok(())
            }
            Err(_) => Err(MemoryError::OutOfBounds(self.describe(base, 0))),
        }
    }

    /// The place of the allocation that contains an address.
    #[inline]
    pub fn find(&self, address: u64) -> Option<usize> {
        let index = self.allocations.partition_point(|allocation| allocation.base <= address).checked_sub(1)?;
        (address - self.allocations[index].base < self.allocations[index].bytes).then_some(index)
    }

    /// The allocation at a place that [`Self::find`] gave.
    #[inline(always)]
    pub fn at(&self, index: usize) -> Option<&Allocation> {
        self.allocations.get(index)
    }

    /// The buffer and offset of a range.
    ///
    /// # Errors
    ///
    /// [`MemoryError::OutOfBounds`] if no allocation contains it all.
    pub fn range(&self, address: u64, bytes: u64) -> Result<(&Arc<Buffer>, u64), MemoryError> {
        self.find(address)
            .and_then(|index| {
                let allocation = &self.allocations[index];
                Some((&allocation.buffer, allocation.offset(address, bytes)?))
            })
            .ok_or_else(|| MemoryError::OutOfBounds(self.describe(address, bytes)))
    }

    /// What is known about an address that must not be accessed.
    pub fn describe(&self, address: u64, bytes: u64) -> String {
        let what = format!("{bytes} bytes at {address:#x}");
        if let Some((base, length)) =
            self.freed.iter().rev().find(|(base, length)| (*base..base + length.max(&1)).contains(&address))
        {
            return format!("{what}: {} bytes into an allocation of {length} that was freed", address - base);
        }
        let after = self.allocations.partition_point(|allocation| allocation.base <= address);
        if let Some(before) = after.checked_sub(1).and_then(|index| self.allocations.get(index))
            && address - before.base < before.bytes + RED_ZONE
        {
            return format!("{what}: {} bytes into an allocation of {}", address - before.base, before.bytes);
        }
        if let Some(next) = self.allocations.get(after)
            && next.base - address < RED_ZONE
        {
            return format!("{what}: {} bytes before an allocation of {}", next.base - address, next.bytes);
        }
        format!("{what}: in no allocation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_in_and_come_out_at_any_offset() {
        let mut memory = Memory::new(1 << 20);
        let base = memory.allocate(37).unwrap();
        let (buffer, offset) = memory.range(base, 37).unwrap();
        let bytes: Vec<u8> = (0..37).collect();
        buffer.write(offset, &bytes);
        for (start, end) in [(0, 37), (1, 6), (3, 4), (4, 36), (35, 37)] {
            let mut out = vec![0; end - start];
            buffer.read(start as u64, &mut out);
            assert_eq!(out, bytes[start..end]);
        }
        assert_eq!(buffer.load(8, 8), 0x0f0e_0d0c_0b0a_0908);
        buffer.store(2, 2, 0xaabb);
        assert_eq!(buffer.load(0, 4), 0xaabb_0100);
    }

    #[test]
    fn written_bytes_are_known_one_by_one() {
        let buffer = Buffer::new(16);
        buffer.store(5, 1, 1);
        assert!(buffer.is_written(5, 1));
        assert!(!buffer.is_written(4, 4));
        buffer.write(6, &[1, 2]);
        buffer.store(4, 1, 1);
        assert!(buffer.is_written(4, 4));
        assert!(!buffer.is_written(4, 8));
    }

    #[test]
    fn what_is_outside_is_described() {
        let mut memory = Memory::new(1000);
        let (first, second) = (memory.allocate(100).unwrap(), memory.allocate(100).unwrap());
        assert!(memory.range(first + 96, 8).unwrap_err().to_string().contains("96 bytes into an allocation of 100"));
        assert!(memory.range(second - 4, 4).unwrap_err().to_string().contains("4 bytes before an allocation"));
        memory.free(first).unwrap();
        assert!(memory.range(first, 4).unwrap_err().to_string().contains("that was freed"));
        assert!(memory.free(first).is_err());
        assert_eq!(memory.allocate(1000), Err(MemoryError::OutOfMemory { wanted: 1000, free: 900 }));
        assert_eq!((memory.in_use(), memory.peak(), memory.count(), memory.allocated_ever()), (100, 200, 1, 2));
    }
}

//! gzip as `gzip` itself reads it: several members are one stream, and what follows the last one (zeros that fill a block
//! of a tape, a web server's words) is passed over. Each member's checksum is compared.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

pub(super) const MAGIC: &[u8] = &[0x1f, 0x8b];

/// The best that deflate can do is 258 bytes from two bits.
pub(super) const MAX_DEFLATE_RATIO: u64 = 1032;

/// A decompressing reader.
pub(super) struct Gunzip<R> {
    /// `None` after the last member.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { member: Some(GzDecoder::new(reader)) }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.member =
                self.member.take().and_then(|member| next_member(member.into_inner()).transpose()).transpose()?;
        }
        Ok(0)
    }
}

/// The member that begins where the last one ended.
fn next_member<R: BufRead>(mut reader: R) -> io::Result<Option<GzDecoder<R>>> {
    // A buffer may end between the two bytes: the first is taken for the magic, and the decoder sees the second.
    let begins = reader.fill_buf()?.first() == MAGIC.first();
    Ok(begins.then(|| GzDecoder::new(reader)))
}

//! Reads little-endian numbers and strings, never past the end.

use super::GgufError;
use std::ops::Range;

pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    /// Steps over `count` bytes and says where they are.
    pub(crate) fn skip(
        &mut self,
        count: u64,
        what: &'static str,
    ) -> Result<Range<usize>, GgufError> {
        if count > self.remaining() {
            return Err(GgufError::Truncated {
                what,
                offset: self.position,
            });
        }
        let start = self.position;
        self.position += count as usize;
        Ok(start..self.position)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let range = self.skip(N as u64, what)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Steps over a string (its length in 64 bits, then its bytes) and says where the bytes are.
    pub(crate) fn string(&mut self, what: &'static str) -> Result<Range<usize>, GgufError> {
        let length = self.u64(what)?;
        self.skip(length, what)
    }

    /// A string that names something, and so must be UTF-8.
    pub(crate) fn name(&mut self, what: &'static str) -> Result<String, GgufError> {
        let range = self.string(what)?;
        let offset = range.start;
        std::str::from_utf8(&self.bytes[range])
            .map(str::to_owned)
            .map_err(|_| GgufError::Utf8 { what, offset })
    }
}

//! Bytes in a block that others may hold too, and how much memory that block takes.

use std::ops::{Deref, Range};

use bytes::{Buf, Bytes};

/// A piece that is less than one part in this many of its block is a copy.
pub(super) const SHARE_MIN: usize = 8;

/// Bytes by reference. Whoever holds a piece keeps its whole block in memory, so that is what it
/// counts; pieces that would keep many times their own size are copies instead.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use node_lua::buf::Piece;
///
/// let block = Piece::from(Bytes::from(vec![7; 8000]));
/// assert_eq!(block.slice(0..1000).block_bytes(), 8000); // by reference
/// assert_eq!(block.slice(0..999).block_bytes(), 999); // a copy
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    bytes: Bytes,
    block_bytes: usize,
}

impl Piece {
    /// A piece of a block that takes `block_bytes` bytes of memory.
    pub fn new(bytes: Bytes, block_bytes: usize) -> Piece {
        Piece { bytes, block_bytes }
    }

    /// A copy of `bytes`.
    pub fn copy(bytes: &[u8]) -> Piece {
        Piece::from(Bytes::copy_from_slice(bytes))
    }

    /// Bytes of memory that it keeps.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Whether this many bytes of a block are enough to hold it by reference.
    #[inline]
    pub fn is_shared(bytes: usize, block_bytes: usize) -> bool {
        bytes * SHARE_MIN >= block_bytes
    }

    /// The bytes of `range`, which must be within it: by reference, or a copy if they are few for
    /// the block.
    pub fn slice(&self, range: Range<usize>) -> Piece {
        if Piece::is_shared(range.len(), self.block_bytes) {
            Piece { bytes: self.bytes.slice(range), block_bytes: self.block_bytes }
        } else {
            Piece::copy(&self.bytes[range])
        }
    }

    /// Drops `count` bytes from the front.
    pub fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    /// The bytes, to be referred to.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes alone.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Bytes> for Piece {
    /// All of a block.
    fn from(bytes: Bytes) -> Piece {
        let block_bytes = bytes.len();
        Piece { bytes, block_bytes }
    }
}

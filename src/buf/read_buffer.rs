//! The block that sockets are read into.

#![allow(unsafe_code, reason = "not behind a safe face yet")]

use std::io;
use std::mem::MaybeUninit;

use bytes::BytesMut;

use super::block::INLINE_MAX;
use super::piece::{Piece, SHARE_MIN};

/// Capacity of a fresh block. Frames of less than an eighth of it are copied (`Piece`). Below the
/// C allocator's threshold for mapping pages anew each time.
const BLOCK_BYTES: usize = 120 * 1024;

/// A block shared by all sockets that one worker reads. What arrives is used where it is, and the
/// next read goes to the same place, which the caches hold; or it is cut off without a copy, and
/// the rest of the block serves the next read. Sockets that wait hold no memory.
///
/// # Examples
/// ```
/// use node_lua::buf::ReadBuffer;
///
/// let mut buffer = ReadBuffer::default();
/// let read = buffer.fill(b"he", 100, |room| {
///     for (place, byte) in room.iter_mut().zip(b"llo") {
///         place.write(*byte);
///     }
///     Ok(3)
/// });
/// assert_eq!((read.unwrap(), buffer.content()), (3, &b"hello"[..]));
/// assert_eq!(&*buffer.take(), b"hello");
/// ```
#[derive(Debug, Default)]
pub struct ReadBuffer {
    block: BytesMut,
    /// What the memory of `block` takes, however much of it was cut off.
    block_bytes: usize,
    /// The usual block, while a larger one stands in for it.
    usual: Option<(BytesMut, usize)>,
}

impl ReadBuffer {
    /// Calls `read` once with room for exactly `room` bytes; returns how many were read. They
    /// follow `prefix` in [`ReadBuffer::content`], which replaces what was there.
    ///
    /// # Errors
    /// Those of `read`; there is no content then.
    pub fn fill(
        &mut self,
        prefix: &[u8],
        room: usize,
        read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.clear();
        let wanted = prefix.len() + room;
        if room > BLOCK_BYTES {
            // Much is to come: a block of its own, which small frames of others do not pin.
            let usual = std::mem::replace(&mut self.block, BytesMut::with_capacity(wanted));
            self.usual = Some((usual, self.block_bytes));
            self.block_bytes = wanted;
        } else if self.block.capacity() < wanted && !self.block.try_reclaim(wanted) {
            self.block_bytes = wanted.max(BLOCK_BYTES);
            self.block = BytesMut::with_capacity(self.block_bytes);
        }
        self.block.extend_from_slice(prefix);
        let result = fill_block(&mut self.block, room, read);
        if result.is_err() {
            self.clear();
        }
        result
    }

    /// What the last read has left here.
    pub fn content(&self) -> &[u8] {
        &self.block
    }

    /// Pieces of the content that are to be copied have at most so many bytes.
    pub fn copied_max(&self) -> usize {
        INLINE_MAX.max(self.block_bytes.saturating_sub(1) / SHARE_MIN)
    }

    /// Takes the content, without a copy.
    pub fn take(&mut self) -> Piece {
        let content = Piece::new(self.block.split().freeze(), self.block_bytes);
        self.clear();
        content
    }

    /// Forgets the content.
    pub fn clear(&mut self) {
        if let Some(usual) = self.usual.take() {
            (self.block, self.block_bytes) = usual;
        }
        self.block.clear();
    }
}

/// Reads once into the free room of `block`, at most `room` bytes; returns how many came.
///
/// # Errors
/// Those of `read`.
pub fn fill_block(
    block: &mut BytesMut,
    room: usize,
    read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
) -> io::Result<usize> {
    block.reserve(room);
    let count = read(&mut block.spare_capacity_mut()[..room])?;
    debug_assert!(count <= room);
    let filled = block.len() + count.min(room);
    // SAFETY: `read` has initialised the first `count` bytes behind what there was, as its result
    // says (recv(2) in use; the callers pass nothing else).
    unsafe { block.set_len(filled) };
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(text: &'static [u8]) -> impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize> {
        move |space| {
            for (slot, byte) in space.iter_mut().zip(text) {
                slot.write(*byte);
            }
            Ok(text.len().min(space.len()))
        }
    }

    #[test]
    fn what_was_read_follows_the_prefix() {
        let mut scratch = ReadBuffer::default();
        assert_eq!(scratch.fill(b"ab", 4, reader(b"cdef")).expect("reads"), 4);
        assert_eq!(scratch.content(), b"abcdef");
        assert_eq!(&scratch.take()[..], b"abcdef");
        assert!(scratch.content().is_empty());
    }

    #[test]
    fn pieces_that_are_taken_stay_apart() {
        let mut scratch = ReadBuffer::default();
        let rooms = [5000, 2 * BLOCK_BYTES].into_iter().cycle();
        let pieces: Vec<Piece> = rooms
            .take(50)
            .map(|room| {
                scratch.fill(b"", room, reader(b"hello")).expect("reads");
                scratch.take()
            })
            .collect();
        assert!(pieces.iter().all(|piece| **piece == *b"hello"));
        assert!(pieces.iter().all(|piece| piece.block_bytes() >= BLOCK_BYTES));
    }

    #[test]
    fn what_is_not_taken_makes_room_for_the_next() {
        let mut scratch = ReadBuffer::default();
        for room in [100, 2 * BLOCK_BYTES, 100] {
            scratch.fill(b"", 100, reader(b"first")).expect("reads");
            let place = scratch.content().as_ptr();
            scratch.fill(b"", room, reader(b"second")).expect("reads");
            assert_eq!(scratch.content(), b"second");
            assert_eq!(room == 100, scratch.content().as_ptr() == place);
            scratch.clear();
        }
    }

    #[test]
    fn a_failed_read_leaves_nothing_behind() {
        let mut scratch = ReadBuffer::default();
        let error = scratch.fill(b"lost", 10, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(error.is_err() && scratch.content().is_empty());
        scratch.fill(b"", 10, reader(b"next")).expect("reads");
        assert_eq!(scratch.content(), b"next");
    }
}

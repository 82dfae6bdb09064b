//! The block that sockets are read into.

use std::io;
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;

use bytes::BytesMut;

use super::block::{FRAME_INLINE_MAX, INLINE_MAX, fill_block};
use super::piece::{Piece, SHARE_MIN};

/// Capacity of a fresh block. Frames of less than an eighth of it are copied (`Piece`).
const BLOCK_BYTES: usize = 120 * 1024;

/// A block with less room than this is not read into any more.
const ROOM_MIN: usize = 64 * 1024;

/// What a read takes beyond whole frames, to see whether there is more.
const BEYOND_BYTES: usize = 64;

/// What is read to see how long a long frame is.
const HEAD_BYTES: usize = 4096;

/// A block that is being used up.
#[derive(Debug, Default)]
struct Block {
    rest: BytesMut,
    /// What all of it takes.
    bytes: usize,
}

/// A block shared by all sockets that one worker reads. What arrives is used where it is, and the
/// next read goes to the same place, which the caches hold; or it is cut off without a copy, and
/// the rest of the block serves the next read. Sockets that wait hold no memory.
///
/// # Examples
/// ```
/// use node_lua::buf::ReadBuffer;
///
/// let mut buffer = ReadBuffer::default();
/// let read = buffer.fill(b"he", 0, |room| {
///     for (place, byte) in room.iter_mut().zip(b"llo") {
///         place.write(*byte);
///     }
///     Ok(3)
/// });
/// assert_eq!((read.unwrap(), buffer.content()), ((3, false), &b"hello"[..]));
/// assert_eq!(&*buffer.take(), b"hello");
/// ```
#[derive(Debug, Default)]
pub struct ReadBuffer {
    usual: Block,
    /// For frames that are a large part of a smaller block.
    small: Block,
    is_small: bool,
}

impl ReadBuffer {
    /// The most that is read at once where nothing is known of frames.
    pub const BYTES_MAX: usize = BLOCK_BYTES;

    /// How long a frame, with its head, may be for a block that holds just so many that each is
    /// shown there, instead of being copied.
    pub const LOT_FRAMES: RangeInclusive<usize> = FRAME_INLINE_MAX + 16..=80 * 1024;

    /// Calls `read` once with all the room that there is; returns how many bytes were read, and
    /// whether that was all the room. They follow `prefix` in [`ReadBuffer::content`], which
    /// replaces what was there. If frames of `frame` bytes are expected, one of
    /// [`ReadBuffer::LOT_FRAMES`], these get a block of their own; if longer ones, little is read,
    /// since they are going to be read elsewhere.
    ///
    /// # Errors
    /// Those of `read`; there is no content then.
    pub fn fill(
        &mut self,
        prefix: &[u8],
        frame: usize,
        read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
    ) -> io::Result<(usize, bool)> {
        self.clear();
        self.is_small = ReadBuffer::LOT_FRAMES.contains(&frame);
        let (bytes, least) = match self.is_small {
            false => (BLOCK_BYTES, ROOM_MIN),
            true => (frame * SHARE_MIN + BEYOND_BYTES, frame),
        };
        let wanted = prefix.len() + least;
        let block = self.block_mut();
        let is_used_up = block.rest.capacity() < wanted && !block.rest.try_reclaim(wanted);
        if is_used_up || block.bytes != bytes {
            *block = Block { rest: BytesMut::with_capacity(bytes.max(wanted)), bytes };
        }
        let rest = &mut block.rest;
        rest.extend_from_slice(prefix);
        let is_large = frame > *ReadBuffer::LOT_FRAMES.end();
        let room = if is_large { HEAD_BYTES } else { rest.capacity() - rest.len() };
        let result = fill_block(rest, room, read);
        if result.is_err() {
            self.clear();
        }
        result.map(|count| (count, count == room))
    }

    fn block(&self) -> &Block {
        if self.is_small { &self.small } else { &self.usual }
    }

    fn block_mut(&mut self) -> &mut Block {
        if self.is_small { &mut self.small } else { &mut self.usual }
    }

    /// What a part of the block counts: what stands between frames with nobody.
    fn counted(&self) -> usize {
        let bytes = self.block().bytes;
        bytes - bytes / 64
    }

    /// What the last read has left here.
    pub fn content(&self) -> &[u8] {
        &self.block().rest
    }

    /// Pieces of the content that are to be copied have at most this many bytes.
    pub fn copied_max(&self) -> usize {
        INLINE_MAX.max(self.counted().saturating_sub(1) / SHARE_MIN)
    }

    /// Takes the content, without a copy.
    pub fn take(&mut self) -> Piece {
        let counted = self.counted();
        Piece::new(self.block_mut().rest.split().freeze(), counted)
    }

    /// Forgets the content.
    pub fn clear(&mut self) {
        self.block_mut().rest.clear();
    }
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
        assert_eq!(scratch.fill(b"ab", 0, reader(b"cdef")).expect("reads"), (4, false));
        assert_eq!(scratch.content(), b"abcdef");
        assert_eq!(&scratch.take()[..], b"abcdef");
        assert!(scratch.content().is_empty());
    }

    #[test]
    fn pieces_that_are_taken_stay_apart() {
        let mut scratch = ReadBuffer::default();
        let pieces: Vec<Piece> = (0..50)
            .map(|_| {
                scratch.fill(b"", 0, reader(b"hello")).expect("reads");
                scratch.take()
            })
            .collect();
        assert!(pieces.iter().all(|piece| **piece == *b"hello"));
        assert!(pieces.iter().all(|piece| piece.block_bytes() > BLOCK_BYTES / 2));
    }

    #[test]
    fn blocks_are_used_up_before_there_is_another() {
        let mut scratch = ReadBuffer::default();
        let mut rooms = Vec::new();
        let mut pieces = Vec::new();
        for _ in 0..8 {
            let read = scratch.fill(b"xyz", 0, |space| {
                rooms.push(space.len());
                space[..20_000].fill(MaybeUninit::new(7));
                Ok(20_000)
            });
            assert_eq!(read.expect("reads"), (20_000, false));
            pieces.push(scratch.take());
        }
        let first = BLOCK_BYTES - 3;
        let block = [first, first - 20_003, first - 2 * 20_003];
        assert_eq!(rooms, [block, block, block].concat()[..8]);
        // All that is left of a block is offered, and so it may be full.
        let read = scratch.fill(b"", 0, |space| {
            space.fill(MaybeUninit::new(1));
            Ok(space.len())
        });
        assert!(read.expect("reads").1);
    }

    #[test]
    fn frames_of_middle_size_come_by_the_lot() {
        let mut scratch = ReadBuffer::default();
        for (prefix, count) in [(0, 8 * 6000), (100, 8 * 6000 - 100), (0, 7), (0, 8 * 6000 - 7)] {
            let read = scratch.fill(&vec![1; prefix], 6000, |space| {
                space[..count].fill(MaybeUninit::new(1));
                Ok(count)
            });
            assert_eq!(read.expect("reads"), (count, false));
            assert!(scratch.copied_max() < 5990);
            let piece = scratch.take();
            assert!(Piece::is_shared(5990, piece.block_bytes()));
            assert_eq!(piece.len(), prefix + count);
        }
        scratch.fill(b"", 0, reader(b"hello")).expect("reads");
        assert!(scratch.copied_max() > 6000);
        let head = scratch.fill(b"", 1 << 20, |space| {
            space.fill(MaybeUninit::new(1));
            Ok(space.len())
        });
        assert_eq!(head.expect("reads"), (HEAD_BYTES, true));
    }

    #[test]
    fn what_is_not_taken_makes_room_for_the_next() {
        let mut scratch = ReadBuffer::default();
        scratch.fill(b"", 0, reader(b"first")).expect("reads");
        let place = scratch.content().as_ptr();
        scratch.fill(b"", 0, reader(b"second")).expect("reads");
        assert_eq!(scratch.content(), b"second");
        assert_eq!(scratch.content().as_ptr(), place);
    }

    #[test]
    fn a_failed_read_leaves_nothing_behind() {
        let mut scratch = ReadBuffer::default();
        let error = scratch.fill(b"lost", 0, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(error.is_err() && scratch.content().is_empty());
        scratch.fill(b"", 0, reader(b"next")).expect("reads");
        assert_eq!(scratch.content(), b"next");
    }
}

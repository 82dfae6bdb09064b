//! The block that sockets are read into.

use std::io;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};

/// Capacity of a fresh block. Below the C allocator's threshold for mapping pages anew each time.
const BLOCK_BYTES: usize = 120 * 1024;

/// A block shared by all sockets that one worker reads. What arrives is used where it is, and the
/// next read goes to the same place, which the caches hold; or it is cut off without a copy, and
/// the rest of the block serves the next read. Sockets that wait hold no memory.
#[derive(Debug, Default)]
pub struct Scratch {
    block: BytesMut,
    /// The usual block, while a larger one stands in for it.
    usual: BytesMut,
}

impl Scratch {
    /// Calls `read` once with room for exactly `room` bytes; returns how many were read. They
    /// follow `prefix` in [`Scratch::content`], which replaces what was there.
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
            self.usual = std::mem::replace(&mut self.block, BytesMut::with_capacity(wanted));
        } else if self.block.capacity() < wanted && !self.block.try_reclaim(wanted) {
            self.block = BytesMut::with_capacity(wanted.max(BLOCK_BYTES));
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

    /// Takes the content, without a copy.
    pub fn take(&mut self) -> Bytes {
        let content = self.block.split().freeze();
        self.clear();
        content
    }

    /// Forgets the content.
    pub fn clear(&mut self) {
        if self.usual.capacity() > 0 {
            self.block = std::mem::take(&mut self.usual);
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
        let mut scratch = Scratch::default();
        assert_eq!(scratch.fill(b"ab", 4, reader(b"cdef")).expect("reads"), 4);
        assert_eq!(scratch.content(), b"abcdef");
        assert_eq!(&scratch.take()[..], b"abcdef");
        assert!(scratch.content().is_empty());
    }

    #[test]
    fn pieces_that_are_taken_stay_apart() {
        let mut scratch = Scratch::default();
        let rooms = [5000, 2 * BLOCK_BYTES].into_iter().cycle();
        let pieces: Vec<Bytes> = rooms
            .take(50)
            .map(|room| {
                scratch.fill(b"", room, reader(b"hello")).expect("reads");
                scratch.take()
            })
            .collect();
        assert!(pieces.iter().all(|piece| piece == "hello"));
    }

    #[test]
    fn what_is_not_taken_makes_room_for_the_next() {
        let mut scratch = Scratch::default();
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
        let mut scratch = Scratch::default();
        let error = scratch.fill(b"lost", 10, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(error.is_err() && scratch.content().is_empty());
        scratch.fill(b"", 10, reader(b"next")).expect("reads");
        assert_eq!(scratch.content(), b"next");
    }
}

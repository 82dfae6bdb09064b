//! The block that sockets are read into.

use std::io;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};

/// Capacity of a fresh block. Below the C allocator's threshold for mapping pages anew each time.
const BLOCK_BYTES: usize = 120 * 1024;

/// A block shared by all sockets that one worker reads: what arrives is cut off without a copy, and
/// the rest of the block serves the next read. Sockets that wait hold no memory.
#[derive(Debug, Default)]
pub struct Scratch {
    block: BytesMut,
}

impl Scratch {
    /// Calls `read` once with room for exactly `room` bytes; returns `prefix` and what was read
    /// behind it as one piece, with the count of bytes read.
    ///
    /// # Errors
    /// Those of `read`; nothing is kept then.
    pub fn fill(
        &mut self,
        prefix: &[u8],
        room: usize,
        read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
    ) -> io::Result<(Bytes, usize)> {
        let wanted = prefix.len() + room;
        if room > BLOCK_BYTES {
            // Much is to come: a block of its own, which small frames of others do not pin.
            let mut block = BytesMut::with_capacity(wanted);
            block.extend_from_slice(prefix);
            let count = fill_block(&mut block, room, read)?;
            return Ok((block.freeze(), count));
        }
        if self.block.capacity() < wanted && !self.block.try_reclaim(wanted) {
            self.block = BytesMut::with_capacity(wanted.max(BLOCK_BYTES));
        }
        self.block.extend_from_slice(prefix);
        let count = match read(&mut self.block.spare_capacity_mut()[..room]) {
            Ok(count) => count,
            Err(error) => {
                self.block.clear();
                return Err(error);
            }
        };
        debug_assert!(count <= room);
        // SAFETY: `read` has initialised the first `count` bytes behind the prefix, as its result
        // says (recv(2) in use; the callers pass nothing else).
        unsafe { self.block.set_len(prefix.len() + count.min(room)) };
        Ok((self.block.split().freeze(), count))
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
    // SAFETY: as in `Scratch::fill`.
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
        let (bytes, count) = scratch.fill(b"ab", 4, reader(b"cdef")).expect("reads");
        assert_eq!((&bytes[..], count), (&b"abcdef"[..], 4));
    }

    #[test]
    fn pieces_stay_apart() {
        let mut scratch = Scratch::default();
        let pieces: Vec<Bytes> =
            (0..50).map(|_| scratch.fill(b"", 5000, reader(b"hello")).expect("reads").0).collect();
        assert!(pieces.iter().all(|piece| piece == "hello"));
    }

    #[test]
    fn a_failed_read_leaves_nothing_behind() {
        let mut scratch = Scratch::default();
        let error = scratch.fill(b"lost", 10, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(error.is_err());
        let (bytes, _) = scratch.fill(b"", 10, reader(b"next")).expect("reads");
        assert_eq!(&bytes[..], b"next");
    }
}

//! Memory for what is staged, which a thread keeps.

use std::cell::RefCell;

/// Bytes of memory for staged bytes that a thread keeps, in pieces of at most so many each.
const SPARE_BYTES: usize = 4 * 1024 * 1024;
const SPARE_PIECE_BYTES: usize = 128 * 1024;

thread_local! {
    pub(super) static SPARE: RefCell<Spare> =
        const { RefCell::new(Spare { pieces: Vec::new(), bytes: 0 }) };
}

/// What was written makes room for what is staged next, on whatever connection: few pieces stay in
/// the caches where one for each connection would not.
pub(super) struct Spare {
    /// Most recently used last.
    pieces: Vec<Vec<u8>>,
    /// Bytes of all of them.
    bytes: usize,
}

impl Spare {
    #[inline]
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let piece = self.pieces.pop()?;
        self.bytes -= piece.capacity();
        Some(piece)
    }

    #[inline]
    pub(super) fn keep(&mut self, mut piece: Vec<u8>) {
        let bytes = piece.capacity();
        if (1..=SPARE_PIECE_BYTES).contains(&bytes) && self.bytes + bytes <= SPARE_BYTES {
            piece.clear();
            self.bytes += bytes;
            self.pieces.push(piece);
        }
    }
}

//! WebSocket's frames, on their way out.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};

use super::{Body, WriteBatch};
use crate::buf::Piece;
use crate::frame::websocket::{CONTROL_BYTES_MAX, NoFrame, Writer, mask};
use crate::frame::{FrameError, Head};
use crate::rt;
use crate::sched::is_interrupted;

thread_local! {
    /// Masks that this thread has given out.
    static MASKS: Cell<u64> = const { Cell::new(0) };
}

/// A mask that nobody can guess: numbers in a row, hashed with a key of the process.
fn next_mask() -> [u8; 4] {
    const MASK: u64 = u64::from_ne_bytes(*b"ws mask\0");
    let number = MASKS.get();
    MASKS.set(number + 1);
    let thread = MASKS.with(|place| std::ptr::from_ref(place).addr() as u64);
    let unique = if rt::is_simulated() { 0 } else { thread };
    let [a, b, c, d, ..] = rt::secret((MASK ^ unique, number)).to_ne_bytes();
    [a, b, c, d]
}

impl WriteBatch {
    /// Adds a message, or what else the writer makes of `body`. What can be referred to, and is
    /// neither masked nor packed, is not touched.
    #[inline(never)]
    pub(in crate::net) fn write_message(
        &mut self,
        writer: &Writer,
        body: Body<'_>,
    ) -> Result<(), FrameError> {
        let (bytes, shared) = match &body {
            Body::Slice(slice) => (*slice, None),
            Body::Shared(piece) => (&**piece, Some(piece.bytes())),
            Body::Lost => return Ok(()),
        };
        let key = if writer.is_client() { next_mask() } else { [0; 4] };
        let frame =
            writer.frame(bytes, shared, key, is_interrupted).map_err(|error| match error {
                NoFrame::Over => FrameError::Over,
                NoFrame::NoText { at } => FrameError::NoText { at },
                NoFrame::TooLong { length } => {
                    FrameError::TooLong { length: length as u64, max: CONTROL_BYTES_MAX as u32 }
                }
            })?;
        // Room for all of it at once.
        let length = frame.packed.as_ref().map_or(bytes.len(), Bytes::len);
        let room = frame.head().len() + 2 * Head::BYTES_MAX + length;
        if length < WriteBatch::BY_REFERENCE_BYTES
            && self.copied.capacity() - self.copied.len() < room
        {
            self.reserve(room);
        }
        self.push_copy(Head::NONE, frame.head());
        let body = match frame.packed {
            Some(packed) if frame.mask.is_some() && packed.len() >= WriteBatch::APART_BYTES => {
                // Copied only if somebody else has it.
                let mut masked = BytesMut::from(packed);
                mask(key, 0, &mut masked);
                self.push_large(Head::NONE, Body::Shared(Piece::from(masked.freeze())));
                return Ok(());
            }
            Some(packed) => Body::Shared(Piece::from(packed)),
            None => body,
        };
        let bytes = match &body {
            Body::Slice(slice) => slice,
            Body::Shared(piece) => &**piece,
            Body::Lost => return Ok(()),
        };
        match frame.mask {
            Some(key) if bytes.len() >= WriteBatch::APART_BYTES => {
                let mut masked = bytes.to_vec();
                mask(key, 0, &mut masked);
                self.push_large(Head::NONE, Body::Shared(Piece::from(Bytes::from(masked))));
            }
            Some(key) => {
                let start = self.copied.len();
                self.push_copy(Head::NONE, bytes);
                mask(key, 0, &mut self.copied[start..]);
            }
            None if bytes.len() < WriteBatch::BY_REFERENCE_BYTES => {
                self.push_copy(Head::NONE, bytes);
            }
            None => self.push_large(Head::NONE, body),
        }
        Ok(())
    }
}

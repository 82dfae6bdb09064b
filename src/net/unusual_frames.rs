//! Frames whose heads are not plain, on their way out.

#[cfg(feature = "websocket")]
#[path = "websocket_frames.rs"]
mod websocket_frames;

use super::{Body, WriteBatch};
use crate::frame::{Encoder, FrameError, Head};

impl WriteBatch {
    /// Adds a frame whose head is not plain.
    #[inline(never)]
    pub(super) fn write_unusual(
        &mut self,
        encoder: &Encoder,
        body: Body<'_>,
    ) -> Result<(), FrameError> {
        #[cfg(feature = "websocket")]
        if let Some(writer) = encoder.websocket_writer() {
            return self.write_message(writer, body);
        }
        let bytes = match &body {
            Body::Slice(slice) => slice,
            Body::Shared(piece) => &**piece,
            Body::Lost => return Ok(()),
        };
        let packet = encoder.packet(bytes)?;
        self.push_copy(Head::NONE, &bytes[..packet.front]);
        self.push_copy(Head::NONE, packet.field.as_slice());
        match body {
            Body::Slice(slice) if slice.len() < WriteBatch::APART_BYTES => {
                self.push_copy(Head::NONE, &slice[packet.rest..]);
            }
            Body::Slice(slice) => {
                self.push_large(Head::NONE, Body::Slice(&slice[packet.rest..]));
            }
            Body::Shared(mut piece) => {
                piece.advance(packet.rest);
                self.push_large(Head::NONE, Body::Shared(piece));
            }
            Body::Lost => {}
        }
        Ok(())
    }
}

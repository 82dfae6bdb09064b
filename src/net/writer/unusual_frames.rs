//! What rarely goes out: frames whose heads are not plain, large ones, and bytes past the queue.

#[cfg(feature = "http")]
use std::io::IoSlice;

use super::{Body, WriteBatch, Writer};
#[cfg(feature = "http")]
use crate::error::Code;
use crate::frame::{Encoder, FrameError, Head};
use crate::message::Held;
use crate::sync::lock;

impl WriteBatch {
    /// What has just been staged was counted before.
    #[cold]
    pub fn keep_held(&mut self, held: Held) {
        match &mut self.held {
            Some(all) => all.add(held),
            none => *none = Some(held),
        }
    }

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

impl Writer {
    /// What the context is counted for what waits, if it has a memory limit: whole blocks, of which
    /// a part may have left.
    pub(in crate::net) fn held_bytes(&self) -> usize {
        lock(&self.queue)
            .pieces
            .iter()
            .filter_map(|piece| piece.held.as_ref())
            .map(Held::bytes)
            .sum()
    }
}

#[cfg(feature = "http")]
impl Writer {
    /// Sends bytes while the queue is empty: how many went; with none the owner is woken when the
    /// socket takes more.
    ///
    /// # Errors
    /// The connection has failed.
    pub(in crate::net) fn send_now(&self, pieces: &[IoSlice<'_>]) -> Result<usize, Code> {
        let mut queue = lock(&self.queue);
        if let Some(code) = queue.refusal() {
            return Err(code);
        }
        match self.transport.send(pieces) {
            Ok(Some(count)) => Ok(count),
            Ok(None) => {
                self.wait_until_ready();
                Ok(0)
            }
            Err(error) => {
                let code = Code::from(&error);
                self.fail(&mut queue, code);
                Err(code)
            }
        }
    }
}

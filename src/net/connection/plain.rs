//! Bytes as they are, for protocols that divide them by themselves.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;

use super::{Connection, Input};
use crate::buf::Piece;
use crate::error::Code;
use crate::frame::Encoder;
use crate::net::writer::Body;

impl Connection {
    /// Receives bytes; none at the end of the stream. If there are none for now the context is
    /// woken once there may be some.
    ///
    /// # Errors
    /// Nothing comes any more, for this reason.
    pub fn receive(&mut self, space: &mut [MaybeUninit<u8>]) -> Poll<Result<usize, Code>> {
        if !self.buffered.is_empty() {
            let count = space.len().min(self.buffered.len());
            for (to, from) in space.iter_mut().zip(&self.buffered[..count]) {
                to.write(*from);
            }
            self.buffered.advance(count);
            return Poll::Ready(Ok(count));
        }
        loop {
            match self.input {
                Input::Ended(Code::END_OF_FILE) => return Poll::Ready(Ok(0)),
                Input::Ended(code) => return Poll::Ready(Err(code)),
                Input::Drained => {
                    let cx = &mut TaskContext::from_waker(&self.read_waker);
                    if self.transport.poll_read_ready(cx).is_pending() {
                        self.transport.shrink();
                        return Poll::Pending;
                    }
                }
                Input::Ready => {}
            }
            match self.transport.receive(space) {
                Ok(0) => self.input = Input::Ended(self.broken.unwrap_or(Code::END_OF_FILE)),
                Ok(count) => {
                    let is_ready = count == space.len() || self.transport.has_more();
                    self.input = if is_ready { Input::Ready } else { Input::Drained };
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.note_nothing();
                    if self.input == Input::Ready {
                        self.read_waker.wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Err(error) => self.input = Input::Ended(Code::from(&error)),
            }
        }
    }

    /// Whether there may be something to receive, or the end; if not the context is woken then.
    pub fn may_receive(&mut self) -> bool {
        if self.input == Input::Drained && self.buffered.is_empty() {
            let cx = &mut TaskContext::from_waker(&self.read_waker);
            if self.transport.poll_read_ready(cx).is_pending() {
                return false;
            }
            self.input = Input::Ready;
        }
        true
    }

    /// Gives bytes back that were received.
    pub fn unreceive(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            let all = [&bytes[..], &self.buffered[..]].concat();
            self.buffered = Piece::from(Bytes::from(all));
        }
    }

    /// Stages bytes.
    pub fn stage(&mut self, bytes: &[u8]) {
        // Without a head nothing is too long.
        let _ = self.staged.write(&Encoder::default(), Body::Slice(bytes), 0);
    }

    /// Sends bytes at once, past what is staged, of which there is none: how many went. With none
    /// the context is woken when the system takes more.
    ///
    /// # Errors
    /// Nothing can be sent any more, for this reason.
    pub fn send_now(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, Code> {
        self.writer.send_now(pieces)
    }

    /// Whether bytes may go past the queue: not if there are some in it, nor with TLS, which must
    /// be given the same bytes again.
    pub fn may_send_now(&self) -> bool {
        self.staged.is_empty() && self.transport.secure().is_none() && self.waiting() == 0
    }

    /// Bytes in the write queue.
    pub fn waiting(&self) -> usize {
        self.writer.waiting().0
    }
}

//! What connections rarely do: reading in other forms than their frames', changing these, ending.

use std::ops::Range;
use std::task::{Context as TaskContext, Waker};

use bytes::{Bytes, BytesMut};

use super::{Connection, Input, OptionsRefused, Read, SINGLE_READS};
use crate::buf::{Piece, ReadBuffer};
use crate::error::Code;
use crate::frame::{Decoder, HeadPatch, ReadPatch};
use crate::os;

impl Connection {
    /// Why the connection can no longer be written, or its peer has gone; nothing if neither is
    /// so: then `waker` is woken once it is.
    pub fn watch_end(&mut self, waker: &Waker) -> Option<Code> {
        if self.transport.poll_end(&mut TaskContext::from_waker(waker)).is_pending() {
            return self.writer.failed();
        }
        // Writes that fail end the stream, and set their code before this finds it.
        if let Some(code) = self.writer.failed().or(self.broken) {
            return Some(code);
        }
        match self.ended() {
            None | Some(Code::MESSAGE_TOO_LONG | Code::BAD_HEAD) => {}
            code => return code,
        }
        let Ok(Some(error)) = self.transport.take_error() else {
            self.broken = Some(Code::END_OF_FILE);
            return self.broken;
        };
        // Nobody else is told by the system after this.
        let code = Code::from(&error);
        self.broken = Some(code);
        self.writer.abandon(code);
        Some(code)
    }

    /// Wakes nobody for [`Connection::watch_end`] any more.
    pub fn forget_end(&self) {
        self.transport.forget_end();
    }

    /// Changes options at any time: for what was not handed out, or staged, yet.
    ///
    /// # Errors
    /// Those of values; nothing has changed then.
    pub fn reframe(&mut self, read: ReadPatch, write: HeadPatch) -> Result<(), OptionsRefused> {
        self.change_options(read, write)?;
        self.settle();
        if self.awaited.is_some() {
            // What has come may be frames now.
            self.read_waker.wake_by_ref();
        }
        if let Some(shared) = &self.shared {
            shared.set_encoder(self.encoder);
        }
        Ok(())
    }

    /// Takes one piece of what is received, that this decoder finds, whatever the frames are. Who
    /// asks for the same piece again says so by the same `number`, which is not 0. What is
    /// incomplete at the end of the stream stays.
    pub fn read_piece(
        &mut self,
        scratch: &mut ReadBuffer,
        place: &mut [Range<usize>; 1],
        decoder: Decoder,
        number: u64,
    ) -> Read {
        if self.piece != number {
            self.settle();
            self.piece = number;
        }
        self.single = SINGLE_READS;
        let frames = std::mem::replace(&mut self.decoder, decoder);
        let read = self.read_frames(scratch, place);
        self.decoder = frames;
        self.note_read(&read, 0);
        read
    }

    /// What was gathered of one piece, or frame, is there for the next one, of whatever form.
    pub(super) fn settle(&mut self) {
        self.piece = 0;
        self.gather_need = 0;
        if !self.gathering.is_empty() {
            let block_bytes = self.gathering.capacity();
            let gathered = std::mem::take(&mut self.gathering).freeze();
            self.buffered = Piece::new(gathered, block_bytes);
        }
    }

    /// Takes frames back that were handed out, given by their bodies, which are those that came
    /// last.
    pub fn restore<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) {
        self.settle();
        let mut bytes = Vec::new();
        bodies.for_each(|body| self.decoder.restore(body, &mut bytes));
        bytes.extend_from_slice(&self.buffered);
        self.buffered = Piece::from(Bytes::from(bytes));
    }

    /// Nothing comes any more, and what has come of a frame is of no use. What has of another piece
    /// may be read in another form.
    pub(super) fn drop_half(&mut self) {
        if self.piece != 0 {
            let piece = self.piece;
            self.settle();
            self.piece = piece;
            return;
        }
        self.truncated += self.read_ahead();
        (self.buffered, self.gathering, self.gather_need) = (Piece::default(), BytesMut::new(), 0);
    }

    /// Bytes of a frame, or another piece, that the stream ended in.
    pub fn truncated(&self) -> usize {
        match self.input {
            Input::Ended(Code::MESSAGE_TOO_LONG | Code::BAD_HEAD | Code::NO_MEMORY) => 0,
            Input::Ended(_) => self.truncated + self.read_ahead(),
            Input::Ready | Input::Drained => 0,
        }
    }

    /// Drops what waits and has the peer find the connection reset.
    pub fn abort(&self) {
        self.close();
        self.writer.abandon(Code::SOCKET_CLOSED);
        self.transport.reset();
    }

    /// Has the system ask a silent peer whether it is there: after some seconds, then every few,
    /// and how many times; nothing for unix sockets.
    pub fn set_keepalive(&self, keepalive: Option<os::Keepalive>) {
        if !self.is_unix {
            self.transport.set_keepalive(keepalive);
        }
    }
}

//! A connection whose frames are WebSocket's: messages on their way in, and what the protocol has
//! us answer by itself.

use std::io;
use std::task::Context as TaskContext;
use std::time::Duration;

use super::{
    Connection, DETACH_BYTES, FULL_READS_PER_TURN, GATHER_BYTES, GATHER_ROOM_BYTES, Input,
};
use crate::buf::{Piece, ReadBuffer, fill_block};
use crate::error::Code;
use crate::frame::websocket::{Close, Event, Form, Kind, Reader, Role, Violation, Writer};
use crate::frame::{Encoder, FrameError};
use crate::net::Body;
use crate::rt;

/// Pings are not answered while as much waits to be written: the peer does not read.
const PONG_QUEUE_BYTES: usize = 64 * 1024;

/// What one call may do of what a peer sends, in bytes that are unpacked (see [`Reader::allow`]):
/// some milliseconds. The rest is for another turn.
const CALL_WORK: usize = 1 << 19;

/// How a connection speaks WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct WebSocketOptions {
    /// Which side it is.
    pub role: Role,
    /// What messages are of which nothing is said.
    pub kind: Kind,
    /// The longest message that may come, in bytes.
    pub message_max: usize,
    /// The window of what is compressed, if that was agreed on: the binary logarithm of its bytes.
    pub window: Option<u8>,
    /// Whether [`Connection::silence`] is asked for.
    pub is_timed: bool,
}

/// What a connection that speaks WebSocket knows beside what all know. At rest it holds nothing of
/// any message.
#[derive(Debug)]
pub(super) struct WebSocket {
    reader: Reader,
    /// Why nothing comes any more, in words.
    reason: String,
    /// We have said that nothing follows.
    has_said: bool,
    is_timed: bool,
    /// When something came last.
    heard: u64,
}

impl WebSocket {
    /// This many bytes are received next where they stay, if what comes is much of one message.
    fn directly(&self) -> Option<usize> {
        let wanted = self.reader.wanted();
        (wanted > GATHER_BYTES).then(|| wanted.min(GATHER_ROOM_BYTES.max(self.reader.length())))
    }
}

/// What [`Connection::read_message`] found.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message(Kind, Piece),
    /// Nothing yet; the context is woken.
    Wait,
    /// Nothing any more: the code of the peer's close frame, or of ours if it did not keep to the
    /// protocol, with the reason; otherwise of what has happened to the connection.
    Ended(Code, String),
}

type Found = Result<Option<Event>, Violation>;

impl Connection {
    /// Has what was not read yet be WebSocket's frames, and what is written from now on.
    pub fn start_websocket(&mut self, options: WebSocketOptions) {
        let WebSocketOptions { role, kind, message_max, window, is_timed } = options;
        self.settle();
        self.encoder = Encoder::websocket(Writer::new(role, kind, window));
        if let Some(shared) = &self.shared {
            shared.set_encoder(self.encoder);
        }
        (self.read_frozen, self.write_frozen) = (true, true);
        self.awaited = None;
        self.websocket = Some(Box::new(WebSocket {
            reader: Reader::new(role, window.is_some(), message_max),
            reason: String::new(),
            has_said: false,
            is_timed,
            heard: rt::now(),
        }));
    }

    /// Takes the next message, reading from the kernel if need be, and answers what is no message.
    /// If there is none the context is woken once there may be.
    pub fn read_message(&mut self, scratch: &mut ReadBuffer) -> Incoming {
        let found = self.next_message(scratch);
        self.awaited = matches!(found, Incoming::Wait).then_some(0);
        let ahead = self.buffered.block_bytes() + self.half_message_bytes();
        if let Some(held) = &mut self.held {
            held.set(ahead);
        }
        found
    }

    /// Bytes of memory that a message takes which is not whole.
    fn half_message_bytes(&self) -> usize {
        self.websocket.as_ref().map_or(0, |websocket| websocket.reader.held_bytes())
    }

    /// Bytes of memory that are going to be held while more of a message is waited for.
    fn ahead_of_message(&self) -> usize {
        let Some(websocket) = &self.websocket else { return 0 };
        let coming = websocket.directly().unwrap_or(ReadBuffer::BYTES_MAX);
        let half = websocket.reader.held_bytes();
        websocket.reader.held_bytes_with(coming).max(half + ReadBuffer::BYTES_MAX)
    }

    /// Tells the reader how much may be held, which what others do changes.
    fn tell_room(&mut self) {
        if let (Some(held), Some(websocket)) = (&self.held, &mut self.websocket) {
            websocket.reader.set_room(held.most().saturating_sub(self.buffered.block_bytes()));
        }
    }

    /// How many bytes the last [`Connection::read_message`] has gone through, of those that it may.
    pub fn message_work(&self) -> usize {
        self.websocket.as_ref().map_or(0, |websocket| CALL_WORK - websocket.reader.credit())
    }

    fn next_message(&mut self, scratch: &mut ReadBuffer) -> Incoming {
        if let Some(websocket) = &mut self.websocket {
            websocket.reader.allow(CALL_WORK);
        }
        loop {
            while let Some(websocket) = &self.websocket {
                let is_unpacking = websocket.reader.is_unpacking();
                if websocket.reader.credit() == 0 {
                    self.read_waker.wake_by_ref();
                    return Incoming::Wait;
                }
                if self.buffered.is_empty() && !is_unpacking {
                    break;
                }
                self.tell_room();
                let found = self.look_at_buffered();
                if let Some(incoming) = self.react(found) {
                    return incoming;
                }
            }
            match self.input {
                Input::Ended(code) => {
                    let websocket = self.websocket.as_ref();
                    let reason = websocket.map_or_else(String::new, |one| one.reason.clone());
                    return Incoming::Ended(code, reason);
                }
                Input::Drained => {
                    let cx = &mut TaskContext::from_waker(&self.read_waker);
                    if self.transport.poll_read_ready(cx).is_pending() {
                        self.transport.shrink();
                        return Incoming::Wait;
                    }
                    self.input = Input::Ready;
                }
                Input::Ready => {}
            }
            if self.full_reads >= FULL_READS_PER_TURN {
                self.read_waker.wake_by_ref();
                return Incoming::Wait;
            }
            self.tell_room();
            let ahead = self.ahead_of_message();
            let has_room = self.held.as_mut().is_none_or(|held| held.try_set(ahead));
            let found = match has_room.then(|| self.receive_frames(scratch)) {
                None => Err(Violation::no_room()),
                Some(Ok(found)) => found,
                Some(Err(error)) => {
                    if error.kind() == io::ErrorKind::WouldBlock {
                        self.note_nothing();
                    } else {
                        self.end(Code::from(&error));
                    }
                    continue;
                }
            };
            if let Some(incoming) = self.react(found) {
                return incoming;
            }
        }
    }

    /// Has the reader look at what was received before.
    fn look_at_buffered(&mut self) -> Found {
        let Some(websocket) = &mut self.websocket else { return Ok(None) };
        let mut input = &*self.buffered;
        let found = websocket.reader.read(&mut input);
        let taken = self.buffered.len() - input.len();
        self.buffered.advance(taken);
        if self.buffered.is_empty() {
            self.buffered = Piece::default();
        }
        found
    }

    /// One read from the kernel; much of one message goes where it stays.
    fn receive_frames(&mut self, scratch: &mut ReadBuffer) -> io::Result<Found> {
        let Some(websocket) = &mut self.websocket else { return Ok(Ok(None)) };
        let directly = websocket.directly();
        let (transport, reader) = (&self.transport, &mut websocket.reader);
        let (count, is_full, found) = if let Some(room) = directly {
            scratch.clear();
            let count = fill_block(reader.body(), room, |space| transport.receive(space))?;
            (count, count == room, reader.received_directly(count))
        } else {
            let (count, is_full) = scratch.fill(&[], 0, |space| transport.receive(space))?;
            let mut input = scratch.content();
            let found = reader.read(&mut input);
            let rest = input.len();
            if rest > DETACH_BYTES {
                self.buffered = scratch.take();
                self.buffered.advance(count - rest);
            } else if rest > 0 {
                self.buffered = Piece::copy(input);
            }
            (count, is_full, found)
        };
        if websocket.is_timed {
            websocket.heard = rt::now();
        }
        self.note_filled(count, is_full);
        if count == 0 {
            let code = self.writer.failed().or(self.broken);
            self.end(code.unwrap_or(Code::END_OF_FILE));
        }
        Ok(found)
    }

    /// Does what the protocol demands.
    fn react(&mut self, found: Found) -> Option<Incoming> {
        match found {
            Ok(None | Some(Event::Pong(_))) => {}
            Ok(Some(Event::Message(kind, body))) => {
                let capacity = body.capacity();
                return Some(Incoming::Message(kind, Piece::new(body.freeze(), capacity)));
            }
            Ok(Some(Event::Ping(payload))) => {
                if self.writer.waiting().0 + self.staged.bytes() <= PONG_QUEUE_BYTES {
                    // A payload that came in a frame fits into one.
                    let _ = self.write_message(Form::Pong, Body::Slice(&payload), 0);
                }
            }
            Ok(Some(Event::Close(close))) => {
                self.say_close(&Close { code: close.code, reason: String::new() });
                self.finish(close.code, close.reason);
            }
            Err(Violation { code, why }) => {
                self.say_close(&Close { code, reason: why.clone() });
                self.finish(code, why);
            }
        }
        None
    }

    fn finish(&mut self, code: u16, reason: String) {
        if let Some(websocket) = &mut self.websocket {
            websocket.reason = reason;
        }
        self.end(Code(code));
    }

    /// Stages a frame: see [`Connection::write`].
    ///
    /// # Errors
    /// The body is no such frame; nothing is staged.
    pub fn write_message(
        &mut self,
        form: Form,
        body: Body<'_>,
        token: u64,
    ) -> Result<bool, FrameError> {
        self.staged.write(&self.encoder.with_form(form), body, token)
    }

    /// Stages the frame that says why nothing follows, unless one was; nothing for a connection
    /// that speaks no WebSocket.
    pub fn say_close(&mut self, close: &Close) {
        let Some(websocket) = &mut self.websocket else { return };
        if !std::mem::replace(&mut websocket.has_said, true) {
            let _ = self.write_message(Form::Close, Body::Slice(&close.payload()), 0);
        }
    }

    /// For how long nothing has come, although we would have taken it; nothing if we would not.
    pub fn silence(&self) -> Option<Duration> {
        let heard = self.websocket.as_ref()?.heard;
        self.awaited?;
        Some(Duration::from_nanos(rt::now().saturating_sub(heard)))
    }

    /// Nobody waits for a message, but control frames are still answered: has the context woken.
    pub(super) fn rearm(&mut self) {
        if self.websocket.is_none() || self.awaited.is_some() || self.ended().is_some() {
            return;
        }
        self.awaited = Some(0);
        let cx = &mut TaskContext::from_waker(&self.read_waker);
        let has_more = !self.buffered.is_empty() || self.input == Input::Ready;
        if has_more || self.transport.poll_read_ready(cx).is_ready() {
            self.read_waker.wake_by_ref();
        }
    }
}

//! TLS on a socket.
//!
//! What is sent counts as sent once all of the records that hold it are: the write queue above
//! keeps the plaintext until then, so that bounds, notices and lingering are those of plain
//! connections.

use std::cell::RefCell;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};

use bytes::BytesMut;

use crate::buf::fill_block;
use crate::error::Code;
use crate::message::Held;
use crate::rt::Stream;
use crate::sync::lock;
use crate::tls::{Details, Rest, Session};

/// The least and the most that one read takes from the kernel.
const PULL_BYTES_MIN: usize = 4096;
const PULL_BYTES_MAX: usize = 64 * 1024;

/// Bytes that come to nothing, records being empty, before the rest is left for another turn.
const EMPTY_BYTES: usize = 128 * 1024;

thread_local! {
    /// What was received and not decrypted yet; nothing between two calls.
    static RECEIVED: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A session and its side of the socket.
#[derive(Debug)]
pub(super) struct Secure {
    state: Mutex<State>,
    is_handshaking: AtomicBool,
    /// There is something to read without asking the kernel.
    has_more: AtomicBool,
}

#[derive(Debug)]
struct State {
    session: Session,
    /// Bytes in the write queue that were written before the session began: they leave as they are.
    plain: usize,
    /// Bytes of the write queue that are in records which have not all left.
    owed: usize,
    /// We have said that we say no more.
    is_closed: bool,
    /// Why nothing can be received any more, if it is not TLS that says so.
    broken: Option<Code>,
    /// What the session takes counts here, if the context has a memory limit.
    held: Option<Held>,
}

/// A socket as something that is written to.
struct Output<'a>(&'a Stream);

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What one read from the kernel has come to.
enum Pulled {
    Some,
    /// Some, or the end; the kernel had nothing left.
    Last,
    Nothing,
}

impl State {
    /// Sends what the session has to say; false if the system takes no more for now.
    fn flush(&mut self, stream: &Stream) -> io::Result<bool> {
        while self.session.wants_flush() {
            match self.session.flush(&mut Output(stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// One read from the kernel, of this many bytes at most.
    fn pull(&mut self, stream: &Stream, room: usize) -> Pulled {
        RECEIVED.with_borrow_mut(|block| {
            block.clear();
            match fill_block(block, room, |space| stream.read(space)) {
                Ok(0) => self.session.end(),
                Ok(count) => {
                    self.session.feed(block);
                    if count == room {
                        return Pulled::Some;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Pulled::Nothing,
                Err(error) => self.broken = Some(Code::from(&error)),
            }
            Pulled::Last
        })
    }

    /// Counts what the session takes now; the connection breaks if that is too much.
    fn count(&mut self) {
        let Some(held) = &mut self.held else { return };
        let bytes = self.session.held_bytes(self.owed);
        if !held.try_set(bytes) {
            self.broken.get_or_insert(Code::NO_MEMORY);
            held.set(bytes);
        }
    }

    /// Why the session has failed, or nothing comes any more.
    fn failed(&self) -> Option<Code> {
        self.session.failure().map(|failure| failure.code).or(self.broken)
    }
}

impl Secure {
    /// A session that begins once `plain` bytes of the write queue are out.
    pub(super) fn new(session: Session, plain: usize, held: Option<Held>) -> Secure {
        let mut state = State { session, plain, owed: 0, is_closed: false, broken: None, held };
        state.count();
        Secure {
            state: Mutex::new(state),
            is_handshaking: AtomicBool::new(true),
            has_more: AtomicBool::new(false),
        }
    }

    /// Whether nothing can be read or written yet.
    pub(super) fn is_handshaking(&self) -> bool {
        // Acquire: pairs with the store in `advance`; what follows takes the lock anyway.
        self.is_handshaking.load(Ordering::Acquire)
    }

    /// Whether bytes are kept until the handshake is over, however many the system would take.
    pub(super) fn is_held(&self) -> bool {
        self.is_handshaking() && lock(&self.state).plain == 0
    }

    /// Whether there is something to read without asking the kernel.
    pub(super) fn has_more(&self) -> bool {
        // Relaxed: only the owner of the connection reads.
        self.has_more.load(Ordering::Relaxed)
    }

    /// Goes on with the handshake as far as possible; then one of the wakers is woken.
    pub(super) fn advance(
        &self,
        stream: &Stream,
        read_waker: &Waker,
        write_waker: &Waker,
    ) -> Poll<Result<(), Code>> {
        let mut state = lock(&self.state);
        if state.plain > 0 {
            return Poll::Pending;
        }
        let result = loop {
            let flushed = state.flush(stream);
            state.count();
            if let Some(code) = state.failed() {
                break Err(code);
            }
            match flushed {
                Ok(true) => {}
                Ok(false) => {
                    let cx = &mut TaskContext::from_waker(write_waker);
                    if stream.poll_write_ready(cx).is_pending() {
                        return Poll::Pending;
                    }
                    continue;
                }
                Err(error) => break Err(Code::from(&error)),
            }
            if !state.session.is_handshaking() {
                break Ok(());
            }
            if let Pulled::Nothing = state.pull(stream, PULL_BYTES_MIN) {
                let cx = &mut TaskContext::from_waker(read_waker);
                if stream.poll_read_ready(cx).is_pending() {
                    return Poll::Pending;
                }
                stream.clear_read_ready();
            }
        };
        state.count();
        if result.is_ok() {
            self.is_handshaking.store(false, Ordering::Release);
        }
        Poll::Ready(result)
    }

    /// See `Transport::receive`.
    pub(super) fn receive(
        &self,
        stream: &Stream,
        space: &mut [MaybeUninit<u8>],
    ) -> io::Result<usize> {
        if self.is_handshaking() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut state = lock(&self.state);
        let (mut filled, mut pulled, mut came) = (0, Pulled::Some, 0);
        let (result, has_more) = loop {
            let (count, rest) = state.session.read(&mut space[filled..]);
            filled += count;
            let end = match rest {
                Rest::More => break (Ok(filled), true),
                Rest::Closed => Some(Ok(0)),
                Rest::Failed(code) => Some(Err(io::Error::other(code))),
                Rest::Nothing => state.broken.map(|code| Err(io::Error::other(code))),
            };
            // What has come before the end goes first.
            match end {
                Some(_) if filled > 0 => break (Ok(filled), true),
                Some(end) => break (end, true),
                None if filled == space.len() => break (Ok(filled), true),
                None => {}
            }
            let nothing = io::Error::from(io::ErrorKind::WouldBlock);
            if let Pulled::Some = pulled {
                if filled == 0 && came >= EMPTY_BYTES {
                    break (Err(nothing), true);
                }
                let room = (space.len() - filled).clamp(PULL_BYTES_MIN, PULL_BYTES_MAX);
                came += room;
                pulled = state.pull(stream, room);
                if !matches!(pulled, Pulled::Nothing) {
                    continue;
                }
            }
            break (if filled > 0 { Ok(filled) } else { Err(nothing) }, false);
        };
        self.has_more.store(has_more, Ordering::Relaxed);
        state.count();
        // Answers to what the peer asks of the protocol, and why the session ends. What does not
        // leave now leaves with the next bytes that are written.
        let _ = state.flush(stream);
        result
    }

    /// See `Transport::send`. The same pieces must come again, behind what was sent, until all are.
    pub(super) fn send(
        &self,
        stream: &Stream,
        pieces: &[IoSlice<'_>],
    ) -> io::Result<Option<usize>> {
        let mut state = lock(&self.state);
        if state.plain > 0 {
            return state.send_plain(stream, pieces);
        }
        if self.is_handshaking() {
            return Ok(None);
        }
        if let Some(code) = state.failed() {
            return Err(io::Error::other(code));
        }
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut sent = 0;
        loop {
            if !state.flush(stream)? {
                return Ok(Some(sent).filter(|sent| *sent > 0));
            }
            sent += std::mem::take(&mut state.owed);
            if sent >= all {
                return Ok(Some(sent));
            }
            state.owed = state.session.write(pieces, sent);
            state.count();
        }
    }

    /// See `Transport::finish`. Says that we say no more, once everything else has left.
    pub(super) fn finish(&self, stream: &Stream, is_closed: bool) -> bool {
        let mut state = lock(&self.state);
        if state.failed().is_some() {
            return true;
        }
        if self.is_handshaking() {
            return is_closed;
        }
        if !std::mem::replace(&mut state.is_closed, true) {
            state.session.close();
        }
        // Errors are for those to find who still want something.
        state.flush(stream).unwrap_or(true)
    }

    /// Gives memory back that an idle connection does not need.
    pub(super) fn shrink(&self) {
        lock(&self.state).session.shrink();
    }

    /// What the handshake has come to, and why the session has failed, if it has.
    pub(super) fn details(&self) -> (Option<Details>, Option<String>) {
        let state = lock(&self.state);
        let failure = state.session.failure().map(|failure| failure.text.clone());
        (Some(state.session.details()).filter(|_| !self.is_handshaking()), failure)
    }
}

impl State {
    fn send_plain(&mut self, stream: &Stream, pieces: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        // More than was there then is for the session.
        let (mut left, mut parts) = (self.plain, Vec::new());
        for piece in pieces {
            let part = &piece[..left.min(piece.len())];
            left -= part.len();
            parts.push(IoSlice::new(part));
        }
        match stream.write(&parts) {
            Ok(count) => {
                self.plain -= count;
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

//! A connection's bytes, as hyper reads and writes them.

#![allow(unsafe_code, reason = "hyper's buffer is received into as it is")]

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use memchr::memmem;

use super::lines::{LINES_BYTES, Lines};
use super::scan::{Refusal, Scan};
use crate::buf::fill_block;
use crate::error::Code;
use crate::net;
use crate::sched::Context;
use crate::sync::lock;

/// Bytes that are received on one connection in a turn before other work goes first: what 15,000
/// frames of HTTP/2 may be in, each of which is answered.
const TURN_BYTES: usize = 1 << 18;

/// What one read of what is looked at takes.
const SCAN_BYTES: usize = 16 * 1024;

/// What hyper reads at once in a context with a memory limit, and what it has room for anyway.
const LIMITED_BYTES: usize = 32 * 1024;
const READ_USUAL: usize = 4096;

/// Staged bytes that leave at once.
const STAGED_BYTES: usize = 256 * 1024;

/// Writes of at least this many bytes go to the system without being staged, if nothing is before
/// them.
const DIRECT_BYTES: usize = 16 * 1024;

thread_local! {
    /// Where heads are received; nothing between two calls.
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What hyper's side of a connection and ours share.
pub(super) struct Wire {
    pub(super) net: net::Connection,
    context: Arc<Context>,
    /// Who looks at requests before hyper does.
    pub(super) scan: Option<Scan>,
    /// Bytes that are sound, and hyper has not taken.
    passed: Bytes,
    /// A part of a head or line, or what was refused.
    held: BytesMut,
    /// Why nothing more is read.
    pub(super) refusal: Option<Refusal>,
    /// An answer has said that it is the last one: nothing follows it.
    pub(super) is_closed: bool,
    /// Bytes that may still be received in this turn, and those that were since this was asked.
    budget: usize,
    received: usize,
    /// Hyper has found no room, and is to be told of it.
    pub(super) wants_room: bool,
    /// The end of the stream is not told before it is let go, as h2 gives up all answers then; and
    /// whether it has come.
    pub(super) keeps_end: bool,
    has_end: bool,
    /// Why the last read has failed.
    failure: Option<Code>,
    /// Bytes that were sent so far.
    sent: u64,
    /// The most that one read has given to hyper, which has room for twice as much then.
    pub(super) most_read: usize,
    /// Who of hyper's waits for bytes, and for room.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What comes next.
pub(super) enum Next {
    /// A request that hyper need not read.
    Plain(Lines),
    /// Something for hyper.
    Other,
    /// Nothing.
    End,
}

/// Notes who waits.
fn note(place: &mut Option<Waker>, cx: &TaskContext<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}

fn copy(space: &mut [MaybeUninit<u8>], bytes: &[u8]) {
    for (to, from) in space.iter_mut().zip(bytes) {
        to.write(*from);
    }
}

impl Wire {
    pub(super) fn new(net: net::Connection, context: &Arc<Context>) -> Wire {
        Wire {
            net,
            context: Arc::clone(context),
            scan: None,
            passed: Bytes::new(),
            held: BytesMut::new(),
            refusal: None,
            is_closed: false,
            budget: TURN_BYTES,
            received: 0,
            wants_room: false,
            keeps_end: false,
            has_end: false,
            failure: None,
            sent: 0,
            most_read: 0,
            reader: None,
            writer: None,
        }
    }

    /// The system has told of bytes: a new turn's share begins.
    pub(super) fn on_readable(&mut self) {
        self.budget = TURN_BYTES;
        self.net.on_ready();
        if let Some(waker) = &self.reader {
            waker.wake_by_ref();
        }
    }

    /// The socket takes more: whether hyper is to be told of it.
    pub(super) fn on_writable(&mut self) -> bool {
        self.net.writer().on_ready();
        let has_room = self.net.waiting() == 0 || self.failed().is_some();
        let is_wanted = has_room && std::mem::take(&mut self.wants_room);
        if is_wanted && let Some(waker) = &self.writer {
            waker.wake_by_ref();
        }
        is_wanted
    }

    /// Writes what is staged.
    pub(super) fn flush(&mut self) {
        // Nothing of it asks for notices.
        self.net.flush(&self.context, |_, _| {});
    }

    /// About what it holds, and hyper for it, beyond what any connection does.
    pub(super) fn held_bytes(&self) -> usize {
        let ours = self.held.capacity() + self.passed.len();
        ours + 2 * self.most_read.saturating_sub(READ_USUAL)
    }

    /// Whether nothing more of a head may be kept that has not come whole.
    fn is_full(&self) -> bool {
        let allowance = self.context.allowance().filter(|_| !self.held.is_empty());
        allowance.is_some_and(|allowance| allowance.room() < self.held.len() + 4 * SCAN_BYTES)
    }

    /// Bytes that were received since this was asked last.
    pub(super) fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// Why nothing can be written any more, if that is so.
    pub(super) fn failed(&self) -> Option<Code> {
        self.net.writer().failed()
    }

    /// Whether a head has come in part.
    pub(super) fn has_half_a_head(&self) -> bool {
        !self.held.is_empty()
            && self.refusal.is_none()
            && self.scan.as_ref().is_some_and(Scan::is_at_head)
    }

    /// Whether a body was refused, of a request that hyper has been given when it has been given
    /// `called`.
    pub(super) fn has_bad_body(&self, called: u64) -> bool {
        let scan = self.scan.as_ref().filter(|_| self.refusal.is_some());
        scan.is_some_and(|scan| !scan.is_at_head() && scan.heads == called)
    }

    /// Whether bytes wait for the peer to take some, and how many it has taken so far.
    pub(super) fn progress(&self) -> (bool, u64) {
        let waiting = self.net.waiting();
        (waiting > 0 || self.wants_room, self.sent.saturating_sub(waiting as u64))
    }

    /// Gives back to the socket what was received and is no business of hyper's; `read` is what
    /// hyper has had of that.
    pub(super) fn unread(&mut self, read: &[u8]) {
        let all = [read, &self.passed, &self.held].concat();
        (self.passed, self.held) = (Bytes::new(), BytesMut::new());
        self.net.unreceive(Bytes::from(all));
    }

    /// See [`net::Connection::receive`].
    pub(super) fn receive(&mut self, space: &mut [MaybeUninit<u8>]) -> Poll<io::Result<usize>> {
        if self.budget == 0 {
            self.budget = TURN_BYTES;
            self.net.read_later(0);
            return Poll::Pending;
        }
        if self.has_end {
            return if self.keeps_end { Poll::Pending } else { Poll::Ready(Ok(0)) };
        }
        match self.net.receive(space) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) if self.keeps_end => {
                self.has_end = true;
                Poll::Pending
            }
            Poll::Ready(Ok(count)) => {
                self.budget = self.budget.saturating_sub(count);
                self.received += count;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(code)) => {
                self.failure = Some(code);
                Poll::Ready(Err(io::Error::other(code)))
            }
        }
    }

    /// Whether the stream has ended, and that was not told.
    pub(super) fn has_kept_end(&self) -> bool {
        self.has_end && self.keeps_end
    }

    /// Why TLS has ended the connection, if it has.
    #[cfg(feature = "tls")]
    pub(super) fn tls_failure(&self) -> Option<(Code, String)> {
        let text = self.net.tls()?.1?;
        self.failure.map(|code| (code, text))
    }

    /// What hyper reads: whole heads, and bodies as they come, as far as they are sound. What is
    /// refused looks like the end of the stream.
    fn read(&mut self, space: &mut [MaybeUninit<u8>]) -> Poll<io::Result<usize>> {
        let most = if self.context.allowance().is_some() { LIMITED_BYTES } else { usize::MAX };
        let room = space.len().min(most);
        let result = self.read_sound(&mut space[..room]);
        if let Poll::Ready(Ok(count)) = result {
            self.most_read = self.most_read.max(count);
        }
        result
    }

    fn read_sound(&mut self, space: &mut [MaybeUninit<u8>]) -> Poll<io::Result<usize>> {
        loop {
            if !self.passed.is_empty() {
                let count = self.passed.len().min(space.len());
                copy(space, &self.passed[..count]);
                self.passed.advance(count);
                return Poll::Ready(Ok(count));
            }
            let Some(scan) = &mut self.scan else { return self.receive(space) };
            if self.refusal.is_some() {
                return Poll::Ready(Ok(0));
            }
            let free = scan.free();
            if free > 0 && self.held.is_empty() {
                let room = usize::try_from(free).unwrap_or(usize::MAX).min(space.len());
                let received = self.receive(&mut space[..room]);
                if let (Poll::Ready(Ok(count)), Some(scan)) = (&received, &mut self.scan) {
                    scan.skip(*count as u64);
                }
                return received;
            }
            let count = match SCRATCH.with_borrow_mut(|scratch| self.look(scratch, space)) {
                Poll::Ready(Ok(Some(count))) => count,
                Poll::Ready(Ok(None)) => continue,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            return Poll::Ready(Ok(count));
        }
    }

    /// Reads on until it is known what comes next.
    pub(super) fn next(&mut self) -> Poll<io::Result<Next>> {
        if !self.passed.is_empty() {
            return Poll::Ready(Ok(Next::Other));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            while self.refusal.is_none() {
                let sound = match ready!(self.scan_more(scratch))? {
                    None => break,
                    Some(0) => continue,
                    Some(sound) => sound,
                };
                let is_short = scratch.len() <= LINES_BYTES;
                let scan = self.scan.as_mut().filter(|_| is_short);
                if let Some(plain) = scan.and_then(|scan| scan.take_plain(scratch.len())) {
                    return Poll::Ready(Ok(Next::Plain(Lines::new(scratch, plain))));
                }
                self.passed = Bytes::copy_from_slice(&scratch[..sound]);
                return Poll::Ready(Ok(Next::Other));
            }
            Poll::Ready(Ok(Next::End))
        })
    }

    /// Gives hyper these bytes, which are sound and come before all others.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        debug_assert!(self.passed.is_empty(), "nothing was read since");
        self.passed = Bytes::copy_from_slice(bytes);
    }

    /// Reads and looks at what has come; how much of it is now in `space`, unless nothing is.
    fn look(
        &mut self,
        scratch: &mut BytesMut,
        space: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<Option<usize>>> {
        let sound = match ready!(self.scan_more(scratch))? {
            None => return Poll::Ready(Ok(Some(0))),
            Some(0) => return Poll::Ready(Ok(None)),
            Some(sound) => &scratch[..sound],
        };
        let count = sound.len().min(space.len());
        copy(space, &sound[..count]);
        if count < sound.len() {
            self.passed = Bytes::copy_from_slice(&sound[count..]);
        }
        Poll::Ready(Ok(Some(count)))
    }

    /// Reads on and looks at what there is, which is in `scratch` then: how much of it is sound;
    /// nothing at the end of the stream.
    fn scan_more(&mut self, scratch: &mut BytesMut) -> Poll<io::Result<Option<usize>>> {
        if self.is_full() {
            return Poll::Ready(Err(io::Error::other(Code::NO_MEMORY)));
        }
        scratch.clear();
        scratch.extend_from_slice(&self.held);
        let read = fill_block(scratch, SCAN_BYTES, |space| match self.receive(space) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        });
        match read {
            Ok(0) => return Poll::Ready(Ok(None)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
        let Some(scan) = &mut self.scan else { return Poll::Ready(Ok(Some(0))) };
        let found = scan.scan(scratch);
        self.refusal = found.refusal;
        let rest = &scratch[found.sound..];
        if !rest.is_empty() || !self.held.is_empty() {
            self.held = BytesMut::from(rest);
        }
        Poll::Ready(Ok(Some(found.sound)))
    }

    /// Stages an answer that is whole; false if it is to go the way of all others.
    pub(super) fn write_plain(&mut self, bytes: &[u8]) -> bool {
        let is_free = self.net.waiting() == 0 && self.net.staged.bytes() < STAGED_BYTES;
        if !is_free || self.failed().is_some() {
            return false;
        }
        self.net.stage(bytes);
        self.sent += bytes.len() as u64;
        true
    }

    fn write(&mut self, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(code) = self.failed() {
            return Poll::Ready(Err(io::Error::other(code)));
        }
        // What else looks like that is told less than it might be.
        let closes = |head: &IoSlice<'_>| {
            head.starts_with(b"HTTP/1.")
                && memmem::find(head, b"\r\nconnection: close\r\n").is_some()
        };
        self.is_closed |= self.scan.is_some() && pieces.first().is_some_and(closes);
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        let is_direct = all >= DIRECT_BYTES;
        if is_direct && !self.net.staged.is_empty() || self.net.staged.bytes() >= STAGED_BYTES {
            self.flush();
        }
        if self.net.waiting() > 0 {
            // Only once the system takes more: what is staged makes room by itself.
            self.wants_room = true;
            return Poll::Pending;
        }
        if is_direct && self.net.may_send_now() {
            return match self.net.send_now(pieces) {
                Ok(0) => {
                    self.wants_room = true;
                    Poll::Pending
                }
                Ok(count) => {
                    self.sent += count as u64;
                    Poll::Ready(Ok(count))
                }
                Err(code) => Poll::Ready(Err(io::Error::other(code))),
            };
        }
        pieces.iter().for_each(|piece| self.net.stage(piece));
        self.sent += all as u64;
        Poll::Ready(Ok(all))
    }
}

/// Hyper's side.
pub(super) struct Io(pub(super) Arc<Mutex<Wire>>);

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = lock(&self.0);
        // SAFETY: `read` writes, and so much of the space as it says was written is what is
        // advanced by; nothing of it is made uninitialised.
        unsafe {
            let Poll::Ready(count) = wire.read(buffer.as_mut())? else {
                note(&mut wire.reader, cx);
                return Poll::Pending;
            };
            buffer.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0);
        let written = wire.write(pieces);
        if written.is_pending() {
            note(&mut wire.writer, cx);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        // The turn does.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        // Closing does.
        Poll::Ready(Ok(()))
    }
}

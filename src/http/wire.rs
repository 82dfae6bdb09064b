//! The bytes of a connection, between the socket and hyper: requests are scanned before hyper reads
//! them.

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

use super::plain::{HEAD_BYTES_MAX, PlainHead};
use super::scan::{Refusal, Scan};
use crate::buf::fill_block;
use crate::error::Code;
use crate::net;
use crate::rt;
use crate::sched::Context;
use crate::sync::lock;

/// Bytes that are received on one connection in a turn before others have theirs: up to 15,000
/// frames of HTTP/2, each of which may have to be answered.
const TURN_BYTES: usize = 1 << 18;

/// Nanoseconds after which a turn polls no more connections, and receives no more on one of them:
/// frames and headers of HTTP/2 cost more than their bytes tell.
pub const TURN_TIME: u64 = 4_000_000;

/// Bytes that are received without a look at the clock.
const QUICK_BYTES: usize = 4096;

/// Bytes that are received at once of what is scanned.
const SCAN_BYTES: usize = 16 * 1024;

/// Bytes that hyper reads at once in a context with a memory limit, and those that the size of an
/// idle connection includes.
const LIMITED_BYTES: usize = 32 * 1024;
const READ_USUAL: usize = 4096;

/// Staged bytes that are written before the turn ends.
const STAGED_BYTES: usize = 256 * 1024;

/// Writes of at least this many bytes are not staged, if nothing waits before them.
const DIRECT_BYTES: usize = 16 * 1024;

thread_local! {
    /// Where heads are received; empty between two calls.
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What hyper, through [`Io`], and the connection share.
pub(super) struct Wire {
    pub(super) net: net::Connection,
    context: Arc<Context>,
    /// Of servers with HTTP/1: checks requests before hyper parses them.
    pub(super) scan: Option<Scan>,
    /// Bytes that were found sound, and that hyper has not read yet.
    checked: Bytes,
    /// An incomplete head or line, or what was refused.
    partial: BytesMut,
    /// Why nothing more is read.
    pub(super) refusal: Option<Refusal>,
    /// A response had `connection: close`: nothing follows it.
    pub(super) has_said_close: bool,
    /// Bytes that may still be received in this turn, when the first look at the clock was, and
    /// whether the rest waits for the next turn.
    budget: usize,
    began: Option<u64>,
    is_over: bool,
    /// Bytes that were received since [`Wire::take_received`].
    received: usize,
    /// Hyper waits for room to write.
    pub(super) wants_room: bool,
    /// The end of the stream is withheld from h2, which drops all unsent responses when it sees it.
    pub(super) withholds_end: bool,
    /// The peer has ended the stream.
    has_end: bool,
    /// Why the last read has failed.
    failure: Option<Code>,
    /// Bytes that hyper has written so far.
    sent: u64,
    /// The most bytes that one read has given to hyper, whose buffer is twice as large then.
    pub(super) read_most: usize,
    /// Hyper's wakers, for bytes to read and for room to write.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a peer has sent.
pub(super) enum Next {
    /// A plain request.
    Plain(PlainHead),
    /// Something that hyper has to read.
    Other,
    /// Nothing more, or something that was refused.
    End,
}

fn store_waker(place: &mut Option<Waker>, cx: &TaskContext<'_>) {
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
            checked: Bytes::new(),
            partial: BytesMut::new(),
            refusal: None,
            has_said_close: false,
            budget: TURN_BYTES,
            began: None,
            is_over: false,
            received: 0,
            wants_room: false,
            withholds_end: false,
            has_end: false,
            failure: None,
            sent: 0,
            read_most: 0,
            reader: None,
            writer: None,
        }
    }

    /// The socket is readable: a new turn's budget begins.
    pub(super) fn on_readable(&mut self) {
        (self.budget, self.began, self.is_over) = (TURN_BYTES, None, false);
        self.net.on_ready();
        if let Some(waker) = &self.reader {
            waker.wake_by_ref();
        }
    }

    /// The socket is writable; true if hyper has waited for that.
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
        // None of these writes asks for notices.
        self.net.flush(&self.context, |_, _| {});
    }

    /// About how many bytes this and hyper hold beyond those of an idle connection.
    pub(super) fn held_bytes(&self) -> usize {
        let ours = self.partial.capacity() + self.checked.len();
        ours + 2 * self.read_most.saturating_sub(READ_USUAL)
    }

    /// Whether the context's memory limit has no room for more of an incomplete head. It counts at
    /// the end of the poll: what others take of that room meanwhile is exceeded by as much as one
    /// connection receives in a turn.
    fn is_full(&self) -> bool {
        let allowance = self.context.allowance().filter(|_| !self.partial.is_empty());
        allowance.is_some_and(|allowance| allowance.room() < self.partial.len() + 4 * SCAN_BYTES)
    }

    /// Bytes that were received since the last call.
    pub(super) fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// Why nothing can be written any more.
    pub(super) fn failed(&self) -> Option<Code> {
        self.net.writer().failed()
    }

    /// Whether a head has been received in part.
    pub(super) fn has_half_a_head(&self) -> bool {
        !self.partial.is_empty()
            && self.refusal.is_none()
            && self.scan.as_ref().is_some_and(Scan::is_at_head)
    }

    /// Whether the body of request number `begun` was refused, the last that hyper has been given.
    pub(super) fn has_bad_body(&self, begun: u64) -> bool {
        let scan = self.scan.as_ref().filter(|_| self.refusal.is_some());
        scan.is_some_and(|scan| !scan.is_at_head() && scan.heads == begun)
    }

    /// Whether bytes wait for the peer, and how many it has taken so far.
    pub(super) fn progress(&self) -> (bool, u64) {
        let waiting = self.net.waiting();
        (waiting > 0 || self.wants_room, self.sent.saturating_sub(waiting as u64))
    }

    /// Gives back to the socket what was received but not used; `read` is what hyper had of it.
    pub(super) fn give_back(&mut self, read: &[u8]) {
        let all = [read, &self.checked, &self.partial].concat();
        (self.checked, self.partial) = (Bytes::new(), BytesMut::new());
        self.net.unreceive(Bytes::from(all));
    }

    /// Whether others have their turn before more is received here, which is asked for then.
    fn has_had_its_turn(&mut self) -> bool {
        // Asked for once, however often h2 tries, as it does for each request that it hands on:
        // each time that it comes a new budget begins.
        if self.is_over || self.budget > TURN_BYTES - QUICK_BYTES {
            return self.is_over;
        }
        let now = rt::now();
        let began = *self.began.get_or_insert(now);
        self.is_over = self.budget == 0 || now.saturating_sub(began) >= TURN_TIME;
        if self.is_over {
            self.net.read_later(0);
        }
        self.is_over
    }

    /// As [`net::Connection::receive`], within the turn's budget.
    pub(super) fn receive(&mut self, space: &mut [MaybeUninit<u8>]) -> Poll<io::Result<usize>> {
        if self.has_had_its_turn() {
            return Poll::Pending;
        }
        if self.has_end {
            return if self.withholds_end { Poll::Pending } else { Poll::Ready(Ok(0)) };
        }
        match self.net.receive(space) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) if self.withholds_end => {
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

    /// Whether the stream has ended and hyper does not know.
    pub(super) fn has_withheld_end(&self) -> bool {
        self.has_end && self.withholds_end
    }

    /// Why TLS has ended the connection, if it has.
    #[cfg(feature = "tls")]
    pub(super) fn tls_failure(&self) -> Option<(Code, String)> {
        let text = self.net.tls()?.1?;
        self.failure.map(|code| (code, text))
    }

    /// What hyper reads: complete heads, and bodies as they arrive, as far as they are sound. What
    /// is refused looks like the end of the stream.
    fn read(&mut self, space: &mut [MaybeUninit<u8>]) -> Poll<io::Result<usize>> {
        let most = if self.context.allowance().is_some() { LIMITED_BYTES } else { usize::MAX };
        let room = space.len().min(most);
        let result = self.read_checked(&mut space[..room]);
        if let Poll::Ready(Ok(count)) = result {
            self.read_most = self.read_most.max(count);
        }
        result
    }

    fn read_checked(&mut self, space: &mut [MaybeUninit<u8>]) -> Poll<io::Result<usize>> {
        loop {
            if !self.checked.is_empty() {
                let count = self.checked.len().min(space.len());
                copy(space, &self.checked[..count]);
                self.checked.advance(count);
                return Poll::Ready(Ok(count));
            }
            let Some(scan) = &mut self.scan else { return self.receive(space) };
            if self.refusal.is_some() {
                return Poll::Ready(Ok(0));
            }
            let free = scan.free();
            if free > 0 && self.partial.is_empty() {
                let room = usize::try_from(free).unwrap_or(usize::MAX).min(space.len());
                let received = self.receive(&mut space[..room]);
                if let (Poll::Ready(Ok(count)), Some(scan)) = (&received, &mut self.scan) {
                    scan.skip(*count as u64);
                }
                return received;
            }
            let count = match SCRATCH.with_borrow_mut(|scratch| self.read_scanned(scratch, space)) {
                Poll::Ready(Ok(Some(count))) => count,
                Poll::Ready(Ok(None)) => continue,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            return Poll::Ready(Ok(count));
        }
    }

    /// Receives until it is known what the peer sends next.
    pub(super) fn next(&mut self) -> Poll<io::Result<Next>> {
        if !self.checked.is_empty() {
            return Poll::Ready(Ok(Next::Other));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            while self.refusal.is_none() {
                let sound = match ready!(self.scan_more(scratch))? {
                    None => break,
                    Some(0) => continue,
                    Some(sound) => sound,
                };
                let is_short = scratch.len() <= HEAD_BYTES_MAX;
                let scan = self.scan.as_mut().filter(|_| is_short);
                if let Some(plain) = scan.and_then(|scan| scan.take_plain(scratch.len())) {
                    return Poll::Ready(Ok(Next::Plain(PlainHead::new(scratch, plain))));
                }
                self.checked = Bytes::copy_from_slice(&scratch[..sound]);
                return Poll::Ready(Ok(Next::Other));
            }
            Poll::Ready(Ok(Next::End))
        })
    }

    /// Has hyper read these bytes first, which are sound.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        debug_assert!(self.checked.is_empty(), "nothing was received since");
        self.checked = Bytes::copy_from_slice(bytes);
    }

    /// Receives and scans; returns how many sound bytes are in `space` now, 0 at the end of the
    /// stream, or `None` if only a part of a head or line has come.
    fn read_scanned(
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
            self.checked = Bytes::copy_from_slice(&sound[count..]);
        }
        Poll::Ready(Ok(Some(count)))
    }

    /// Receives behind what is partial, into `scratch`, and scans all of that; returns how many
    /// bytes are sound, or `None` at the end of the stream.
    fn scan_more(&mut self, scratch: &mut BytesMut) -> Poll<io::Result<Option<usize>>> {
        if self.is_full() {
            return Poll::Ready(Err(io::Error::other(Code::NO_MEMORY)));
        }
        scratch.clear();
        scratch.extend_from_slice(&self.partial);
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
        if !rest.is_empty() || !self.partial.is_empty() {
            self.partial = BytesMut::from(rest);
        }
        Poll::Ready(Ok(Some(found.sound)))
    }

    /// Stages a complete response; false if hyper has to write it.
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
        // Whatever else looks like this is at worst refused without saying why.
        let closes = |head: &IoSlice<'_>| {
            head.starts_with(b"HTTP/1.")
                && memmem::find(head, b"\r\nconnection: close\r\n").is_some()
        };
        self.has_said_close |= self.scan.is_some() && pieces.first().is_some_and(closes);
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        let is_direct = all >= DIRECT_BYTES;
        if is_direct && !self.net.staged.is_empty() || self.net.staged.bytes() >= STAGED_BYTES {
            self.flush();
        }
        if self.net.waiting() > 0 {
            // Only the system makes room: what is staged leaves by itself.
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

/// The wire, as hyper uses it.
pub(super) struct Io(pub(super) Arc<Mutex<Wire>>);

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = lock(&self.0);
        // SAFETY: `read` has initialised as many bytes as it returns, by which the cursor advances,
        // and it makes none uninitialised.
        unsafe {
            let Poll::Ready(count) = wire.read(buffer.as_mut())? else {
                store_waker(&mut wire.reader, cx);
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
            store_waker(&mut wire.writer, cx);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        // The end of the turn flushes.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        // Closing the connection ends its output.
        Poll::Ready(Ok(()))
    }
}

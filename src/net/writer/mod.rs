//! The way out of a connection: what a turn writes is staged, and leaves in one system call at the
//! end of the turn; what the kernel does not take waits in a bounded queue.

mod spare;
mod unusual_frames;
#[cfg(feature = "websocket")]
mod websocket_frames;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};

use bytes::{Buf, Bytes};

use self::spare::{SPARE, Spare};
#[cfg(feature = "tls")]
use super::secure::Secure;
use super::transport::Transport;
use crate::buf::Piece;
use crate::error::Code;
use crate::frame::{Encoder, FrameError, Head};
use crate::logging::Seldom;
use crate::message::{Event, Held};
use crate::sched::Context;
use crate::sync::lock;
#[cfg(feature = "tls")]
use crate::tls::Session;

/// The log has a word on connections that were ended at the write limit.
static OVERFLOWS: Seldom = Seldom::new();

/// Bytes a connection may hold unsent before it fails, unless set otherwise.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Pieces per system call.
const PIECES_MAX: usize = 64;

/// About what a piece in the queue takes beside its bytes.
const PIECE_BYTES: usize = 128;

/// Pieces by reference, and notices, that a batch keeps room for.
const KEPT: usize = 32;

/// What one context has written to a connection in its present turn: copied bytes, with others
/// that are referred to in between.
#[derive(Debug, Default)]
#[repr(C)]
pub struct WriteBatch {
    copied: Vec<u8>,
    bytes: usize,
    /// Bytes that are not copied, each behind this many of the copied ones.
    shared: Vec<(usize, Piece)>,
    notices: Vec<(usize, u64)>,
    /// What counts a large body among them, which was counted before it was copied.
    held: Option<Held>,
}

/// The body of a write.
#[derive(Debug)]
pub enum Body<'a> {
    /// Bytes that must be copied if they do not leave at once.
    Slice(&'a [u8]),
    /// Bytes that can be referred to.
    Shared(Piece),
    /// None, nor a head: the connection has failed.
    Lost,
}

impl Body<'_> {
    /// Bytes of the body.
    pub fn len(&self) -> usize {
        match self {
            Body::Slice(slice) => slice.len(),
            Body::Shared(piece) => piece.len(),
            Body::Lost => 0,
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that it keeps once it is staged.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        if let Body::Shared(piece) = self { piece.block_bytes() } else { self.len() }
    }
}

impl WriteBatch {
    /// Bodies of at least this many bytes are written from where they are; shorter ones are copied
    /// behind each other, which costs less than a piece of their own in the system call.
    pub const BY_REFERENCE_BYTES: usize = 8192;

    /// Bodies at least this long are copied into a block of their own, of exactly their size.
    const APART_BYTES: usize = 64 * 1024;

    /// Bytes staged after which a turn does not wait for its end to write.
    pub const BYTES_MAX: usize = 256 * 1024;

    /// True if nothing is staged.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0 && self.notices.is_empty()
    }

    /// Bytes staged.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a frame, and with a token that is not 0, asks for a notice once all that is staged then
    /// is written; true if so much is staged now that it is to be written.
    ///
    /// # Errors
    /// The encoder makes no frame of the body; nothing is done.
    #[inline(always)]
    pub fn write(
        &mut self,
        encoder: &Encoder,
        body: Body<'_>,
        token: u64,
    ) -> Result<bool, FrameError> {
        if !encoder.is_plain() {
            self.write_unusual(encoder, body)?;
        } else {
            let head = encoder.head(body.len())?;
            match body {
                Body::Slice(slice) if slice.len() < WriteBatch::APART_BYTES => {
                    self.push_copy(head, slice);
                }
                body => self.push_large(head, body),
            }
        }
        if token != 0 {
            self.notices.push((self.bytes, token));
        }
        Ok(self.bytes >= WriteBatch::BYTES_MAX)
    }

    #[inline(never)]
    fn push_large(&mut self, head: Head, body: Body<'_>) {
        let piece = match body {
            Body::Slice(slice) => Piece::copy(slice),
            Body::Shared(piece) => piece,
            Body::Lost => return,
        };
        if piece.len() < WriteBatch::BY_REFERENCE_BYTES {
            return self.push_copy(head, &piece);
        }
        self.push_copy(head, &[]);
        self.bytes += piece.len();
        self.shared.push((self.copied.len(), piece));
    }

    /// Adds a head and a copy of a body.
    #[inline(always)]
    pub(super) fn push_copy(&mut self, head: Head, body: &[u8]) {
        let start = self.copied.len();
        if self.copied.capacity() - start < Head::BYTES_MAX + body.len() {
            self.reserve(Head::BYTES_MAX + body.len());
        }
        // All of the head's place is copied, since a length that is known costs less.
        self.copied.extend_from_slice(head.padded());
        self.copied.truncate(start + head.len());
        self.copied.extend_from_slice(body);
        self.bytes += self.copied.len() - start;
    }

    #[inline(never)]
    fn reserve(&mut self, more: usize) {
        if self.copied.capacity() == 0 {
            self.copied = SPARE.with_borrow_mut(Spare::take).unwrap_or_default();
        }
        self.copied.reserve(more);
    }

    /// Drops what is staged; who waits for it is told `code`.
    pub fn refuse(&mut self, code: Code, mut notify: impl FnMut(u64, Result<(), Code>)) {
        self.notices.drain(..).for_each(|(_, token)| notify(token, Err(code)));
        self.clear();
    }

    fn clear(&mut self) {
        let copied = std::mem::take(&mut self.copied);
        self.bytes = 0;
        SPARE.with_borrow_mut(|spare| spare.keep(copied));
        if self.shared.capacity() > 0 || self.notices.capacity() > KEPT || self.held.is_some() {
            self.clear_others();
        }
    }

    #[inline(never)]
    fn clear_others(&mut self) {
        self.held = None;
        self.shared.clear();
        self.shared.shrink_to(KEPT);
        self.notices.shrink_to(KEPT);
    }

    /// Writes as much as goes; returns how many bytes went.
    fn send(&self, transport: &Transport) -> io::Result<usize> {
        if self.shared.is_empty() {
            return match self.copied.as_slice() {
                [] => Ok(0),
                // All is one piece, as it mostly is.
                piece => Ok(transport.send(&[IoSlice::new(piece)])?.unwrap_or(0)),
            };
        }
        let mut total = 0;
        while total < self.bytes {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let count = self.slices(total, &mut slices);
            let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            let sent = transport.send(&slices[..count])?.unwrap_or(0);
            total += sent;
            if sent < offered {
                break;
            }
        }
        Ok(total)
    }

    /// Fills `slices` with what follows the first `skip` bytes; returns how many it used.
    fn slices<'a>(&'a self, mut skip: usize, slices: &mut [IoSlice<'a>; PIECES_MAX]) -> usize {
        let mut count = 0;
        let mut add = |bytes: &'a [u8]| {
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            if skipped < bytes.len() && count < PIECES_MAX {
                slices[count] = IoSlice::new(&bytes[skipped..]);
                count += 1;
            }
        };
        let mut start = 0;
        for (end, bytes) in &self.shared {
            add(&self.copied[start..*end]);
            add(bytes);
            start = *end;
        }
        add(&self.copied[start..]);
        count
    }

    /// Bytes of memory that it keeps.
    fn held_bytes(&self) -> usize {
        let shared: usize = self.shared.iter().map(|(_, piece)| piece.block_bytes()).sum();
        self.copied.capacity() + shared + PIECE_BYTES * (1 + self.shared.len())
    }

    /// Gives back room that is much larger than what is there.
    fn shrink(&mut self) {
        if !Piece::is_shared(self.copied.len(), self.copied.capacity()) {
            self.copied.shrink_to_fit();
        }
    }

    /// What follows the first `skip` bytes, as pieces that own their bytes. `held` counts them
    /// until the last one is out.
    fn move_to(&mut self, mut skip: usize, queue: &mut VecDeque<Queued>, held: Option<Held>) {
        let mut add = |mut bytes: Bytes| {
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            bytes.advance(skipped);
            if !bytes.is_empty() {
                queue.push_back(Queued { bytes, held: None });
            }
        };
        let mut copied = Bytes::from(std::mem::take(&mut self.copied));
        let mut start = 0;
        for (end, piece) in self.shared.drain(..) {
            add(copied.split_to(end - start));
            add(piece.into_bytes());
            start = end;
        }
        add(copied);
        if let Some(last) = queue.back_mut()
            && held.is_some()
        {
            last.held = held;
        }
    }
}

/// Somebody to tell when the queue has been written up to a point.
#[derive(Debug)]
struct Notice {
    /// Position in the stream of queued bytes.
    at: u64,
    context: Arc<Context>,
    token: u64,
}

/// Bytes that wait; once they are out, what is counted with them is let go.
#[derive(Debug)]
struct Queued {
    bytes: Bytes,
    held: Option<Held>,
}

/// What each write looks at comes first.
#[derive(Debug, Default)]
#[repr(C)]
struct Queue {
    bytes: usize,
    failed: Option<Code>,
    /// The owner is gone: nothing more is accepted.
    closed: bool,
    /// The end of the stream follows what waits.
    ended: bool,
    pieces: VecDeque<Queued>,
    /// Bytes that ever left the queue.
    written: u64,
    notices: VecDeque<Notice>,
    high_water: usize,
}

/// The queue of a connection, shared by all contexts that write to it.
#[derive(Debug)]
#[repr(C)]
pub struct Writer {
    transport: Arc<Transport>,
    queue: Mutex<Queue>,
    pub(super) waker: Waker,
    limit: AtomicUsize,
}

impl Writer {
    /// A writer whose owner is woken by `waker` when the socket takes more.
    pub(super) fn new(transport: Arc<Transport>, waker: Waker) -> Writer {
        Writer {
            transport,
            waker,
            queue: Mutex::new(Queue::default()),
            limit: AtomicUsize::new(QUEUE_BYTES_MAX),
        }
    }

    /// Sets how many bytes may wait before the connection fails.
    pub fn set_limit(&self, bytes: usize) {
        // Relaxed: a setting; it orders nothing.
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// How many bytes may wait.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Bytes that wait, and the most that ever did.
    pub fn waiting(&self) -> (usize, usize) {
        let queue = lock(&self.queue);
        (queue.bytes, queue.high_water)
    }

    /// The failure that all writes meet, if there is one.
    pub fn failed(&self) -> Option<Code> {
        lock(&self.queue).failed
    }

    /// Writes what `context` has staged, or queues what does not go. Its notices that are due at
    /// once are handed to `notify`; later ones are delivered to the context.
    pub fn flush(
        &self,
        staged: &mut WriteBatch,
        context: &Arc<Context>,
        mut notify: impl FnMut(u64, Result<(), Code>),
    ) {
        let mut queue = lock(&self.queue);
        if let Some(code) = queue.refusal() {
            drop(queue);
            return staged.refuse(code, notify);
        }
        let result = match queue.bytes {
            0 => staged.send(&self.transport),
            _ => Ok(0),
        };
        let written = match result {
            Ok(written) => written,
            Err(error) => {
                self.fail(&mut queue, Code::from(&error));
                drop(queue);
                return self.flush(staged, context, notify);
            }
        };
        if queue.bytes == 0 && written == staged.bytes {
            drop(queue);
            staged.notices.drain(..).for_each(|(_, token)| notify(token, Ok(())));
            return staged.clear();
        }
        let rest = staged.bytes - written;
        // What waits is bounded, whatever a script writes at once: a frame larger than the limit
        // may still be sent to a peer that keeps up.
        let is_full = queue.bytes > 0 && queue.bytes + rest > self.limit();
        staged.shrink();
        let allowance = context.allowance().filter(|_| rest > 0);
        let held = allowance.map(|allowance| {
            let mut held = staged.held.take().unwrap_or_else(|| allowance.empty());
            held.try_set(staged.held_bytes()).then_some(held)
        });
        if is_full || matches!(held, Some(None)) {
            drop(queue);
            self.overflow(context);
            return self.flush(staged, context, notify);
        }
        // Positions of notices count from the start of what is staged, of which `written` is gone.
        let end = queue.written + queue.bytes as u64;
        for (at, token) in staged.notices.drain(..) {
            if at <= written {
                notify(token, Ok(()));
            } else {
                let at = end + (at - written) as u64;
                queue.notices.push_back(Notice { at, context: Arc::clone(context), token });
            }
        }
        staged.move_to(written, &mut queue.pieces, held.flatten());
        staged.clear();
        queue.bytes += rest;
        queue.high_water = queue.high_water.max(queue.bytes);
        self.wait_until_ready();
    }

    /// Ends the connection, since more would wait than may.
    #[cold]
    pub fn overflow(&self, context: &Context) {
        let mut queue = lock(&self.queue);
        if queue.failed.is_some() {
            return;
        }
        let waiting = queue.bytes;
        self.fail(&mut queue, Code::WRITE_QUEUE_FULL);
        drop(queue);
        // Whoever writes without waiting learns of it by the end of the connection only.
        if OVERFLOWS.is_due() {
            log::warn!(
                "{}: a connection whose peer reads too slowly was ended (212): {waiting} bytes \
                 wait, {} at most (set_write_limit)",
                context.label(),
                self.limit()
            );
        }
    }

    /// Makes the owner be woken when the socket takes more.
    fn wait_until_ready(&self) {
        // The end of a handshake calls `on_ready`.
        if self.transport.is_held() {
            return;
        }
        match self.transport.poll_write_ready(&mut TaskContext::from_waker(&self.waker)) {
            Poll::Pending => {}
            Poll::Ready(()) => self.waker.wake_by_ref(),
        }
    }

    /// Ends the connection, whatever the system makes of it: bytes are missing, and both the peer
    /// and our own reads must learn of it.
    fn fail(&self, queue: &mut Queue, code: Code) {
        self.transport.shutdown();
        self.lose(queue, code);
    }

    fn lose(&self, queue: &mut Queue, code: Code) {
        queue.failed = Some(code);
        queue.pieces = VecDeque::new();
        queue.bytes = 0;
        for notice in std::mem::take(&mut queue.notices) {
            notice.tell(Err(code));
        }
    }

    /// Has all that is written from now on go through a session. False if there is one.
    #[cfg(feature = "tls")]
    pub(super) fn start_tls(&self, session: Session, held: Option<Held>) -> bool {
        let queue = lock(&self.queue);
        self.transport.set_secure(Secure::new(session, queue.bytes, held))
    }

    /// Goes on writing the queue, after the socket has become ready for that.
    pub fn on_ready(&self) {
        if !self.drain() {
            self.wait_until_ready();
        }
    }

    /// Writes until the queue is out, or lost (true; see [`Writer::failed`]), or the system takes
    /// no more (false).
    fn drain(&self) -> bool {
        let mut queue = lock(&self.queue);
        while queue.bytes > 0 {
            let result = {
                let mut slices = [IoSlice::new(&[]); PIECES_MAX];
                let mut count = 0;
                for (slice, piece) in slices.iter_mut().zip(&queue.pieces) {
                    *slice = IoSlice::new(&piece.bytes);
                    count += 1;
                }
                self.transport.send(&slices[..count])
            };
            match result {
                Ok(Some(count)) => queue.advance(count),
                Ok(None) => return false,
                Err(error) => self.fail(&mut queue, Code::from(&error)),
            }
        }
        self.is_finished(&queue)
    }

    /// Whether the peer was told that nothing follows, if it is to be.
    fn is_finished(&self, queue: &Queue) -> bool {
        if queue.failed.is_some() || !(queue.closed || queue.ended) {
            return true;
        }
        let is_told = self.transport.finish(queue.closed);
        if is_told && queue.ended {
            self.transport.end_output();
        }
        is_told
    }

    /// Sends the end of the stream behind what waits; later writes fail. False if it was sent
    /// already.
    pub fn end(&self) -> bool {
        let mut queue = lock(&self.queue);
        let is_first = !std::mem::replace(&mut queue.ended, true);
        if is_first && queue.bytes == 0 && !self.is_finished(&queue) {
            self.wait_until_ready();
        }
        is_first
    }

    /// Refuses writes from now on; what waits still leaves.
    pub fn close(&self) {
        lock(&self.queue).closed = true;
    }

    /// True once nothing waits any more.
    pub fn is_drained(&self) -> bool {
        let queue = lock(&self.queue);
        queue.bytes == 0 && self.is_finished(&queue)
    }

    /// Drops what waits; who waits for it is told `code`.
    pub fn abandon(&self, code: Code) {
        self.lose(&mut lock(&self.queue), code);
    }

    /// Polls until the queue is out; for connections whose owner has ended.
    pub fn poll_drained(&self, cx: &mut TaskContext<'_>) -> Poll<()> {
        // Readiness is told once: only after the system has taken all it can will it tell again.
        while !self.drain() {
            if self.transport.poll_write_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

impl Queue {
    /// Why nothing more is accepted, if that is so.
    fn refusal(&self) -> Option<Code> {
        let closed = self.closed.then_some(Code::SOCKET_CLOSED);
        self.failed.or(closed).or(self.ended.then_some(Code::BROKEN_PIPE))
    }

    fn advance(&mut self, count: usize) {
        self.bytes -= count;
        self.written += count as u64;
        let mut left = count;
        while let Some(piece) = self.pieces.front_mut() {
            if left < piece.bytes.len() {
                piece.bytes.advance(left);
                break;
            }
            left -= piece.bytes.len();
            self.pieces.pop_front();
        }
        let told = self.notices.partition_point(|notice| notice.at <= self.written);
        self.notices.drain(..told).for_each(|notice| notice.tell(Ok(())));
        if self.bytes == 0 {
            (self.pieces, self.notices) = (VecDeque::new(), VecDeque::new());
        }
    }
}

impl Notice {
    fn tell(self, result: Result<(), Code>) {
        // Who has ended does not wait any more.
        let _ = self.context.deliver(Event::Complete { token: self.token, result });
    }
}

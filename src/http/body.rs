//! Bodies that are sent; hyper's `Incoming` is the other direction.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};

use super::count::counted;
use super::ready::{Item, Ready};
use super::response::{RequestGuard, Traffic};
use crate::message::{Allowance, Held};
use crate::sync::lock;

/// Bytes that may wait in a channel before its writers have to wait.
const HIGH_BYTES: usize = 128 * 1024;

/// What HTTP/2 is given at once of a body that is complete: h2 keeps what it has been given, and
/// nothing there counts against the context's limit.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes that are read of a file at once.
const FILE_BYTES: usize = 64 * 1024;

/// A body that is sent.
#[derive(Debug)]
pub struct Outgoing {
    source: Source,
    /// Its request is in flight until hyper drops this: all was taken, or no more is wanted.
    guard: Option<RequestGuard>,
}

#[derive(Debug)]
enum Source {
    /// All of it.
    Whole(Bytes),
    /// What a script writes piece by piece.
    Channel(Arc<Channel>),
    /// `left` bytes of a file, from offset `at` on; what is read of it counts against `allowance`.
    File { file: File, at: u64, left: u64, allowance: Option<Arc<Allowance>> },
}

impl Outgoing {
    fn new(source: Source) -> Outgoing {
        Outgoing { source, guard: None }
    }

    /// These bytes, counted as `held` while anybody has them.
    pub fn whole(bytes: Bytes, held: Option<Held>) -> Outgoing {
        Outgoing::new(Source::Whole(counted(bytes, held)))
    }

    /// Has the request count as in flight until this body is dropped.
    pub(super) fn keep_in_flight(&mut self, guard: Option<RequestGuard>) {
        self.guard = guard;
        let Some(RequestGuard(traffic)) = &self.guard else { return };
        match &self.source {
            Source::Channel(channel) => channel.report_to(traffic),
            _ => traffic.add_unsent(self.left()),
        }
    }

    /// Bytes that hyper has not taken yet; 0 for a channel, which counts its own.
    fn left(&self) -> u64 {
        match &self.source {
            Source::Whole(bytes) => bytes.len() as u64,
            Source::File { left, .. } => *left,
            Source::Channel(_) => 0,
        }
    }

    /// Hyper has taken this many bytes, or does not want them.
    fn remove_unsent(&self, bytes: u64) {
        if let Some(RequestGuard(traffic)) = &self.guard {
            traffic.remove_unsent(bytes);
        }
    }

    /// What hyper is given next of a whole body: for HTTP/2 at most [`PIECE_BYTES`].
    fn next_piece(bytes: &mut Bytes, guard: Option<&RequestGuard>) -> Bytes {
        let is_http2 = guard.is_some_and(|RequestGuard(traffic)| traffic.is_http2());
        let count = if is_http2 { bytes.len().min(PIECE_BYTES) } else { bytes.len() };
        bytes.split_to(count)
    }

    /// The body, if it is known as a whole.
    pub(super) fn as_whole(&self) -> Option<&Bytes> {
        if let Source::Whole(bytes) = &self.source { Some(bytes) } else { None }
    }

    /// All that is written to a channel.
    pub fn channel(channel: &Arc<Channel>) -> Outgoing {
        Outgoing::new(Source::Channel(Arc::clone(channel)))
    }

    /// `left` bytes of a file, from offset `at` on; what is read of it counts against `allowance`.
    pub fn file(file: File, at: u64, left: u64, allowance: Option<Arc<Allowance>>) -> Outgoing {
        Outgoing::new(Source::File { file, at, left, allowance })
    }
}

/// Carries the bytes of a body from the script that writes them to hyper.
#[derive(Debug)]
pub struct Channel {
    ready: Arc<Ready>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
    /// How many bytes the head has announced, if it has.
    said: Option<u64>,
    /// How many were written.
    written: u64,
    has_ended: bool,
    has_failed: bool,
    /// Counts what is unsent, once a response has this body.
    traffic: Option<Arc<Traffic>>,
    /// What is written is dropped.
    is_sink: bool,
    /// Hyper takes no more.
    is_closed: bool,
    /// Woken when more is written.
    reader: Option<Waker>,
    /// Tokens of those who wait for room.
    writers: Vec<u64>,
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Taken, and there is room for more.
    Done,
    /// Taken, but there is no room for more.
    Full,
    /// Dropped: hyper takes no more.
    Closed,
    /// Refused: the body would exceed its length.
    TooLong(WrongLength),
}

/// A body that is not as long as its head has announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongLength {
    bytes: u64,
    said: u64,
}

impl std::fmt::Display for WrongLength {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let WrongLength { bytes, said } = self;
        write!(f, "the body has {bytes} bytes, but content-length says {said}")
    }
}

impl Channel {
    /// For a body of `length` bytes, if that is known.
    pub fn new(ready: &Arc<Ready>, length: Option<u64>) -> Arc<Channel> {
        let state = State { said: length, ..State::default() };
        Arc::new(Channel { ready: Arc::clone(ready), state: Mutex::new(state) })
    }

    /// For a body that is not sent, as in a response to HEAD.
    pub fn sink(ready: &Arc<Ready>, length: Option<u64>) -> Arc<Channel> {
        let channel = Channel::new(ready, length);
        lock(&channel.state).is_sink = true;
        channel
    }

    /// Has `traffic` count what is unsent from now on.
    fn report_to(&self, traffic: &Arc<Traffic>) {
        let mut state = lock(&self.state);
        traffic.add_unsent(state.bytes as u64);
        state.traffic = Some(Arc::clone(traffic));
    }

    fn wake_reader(state: &mut State) {
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
    }

    /// Adds bytes, counted as `held` while anybody has them.
    pub fn write(&self, bytes: Bytes, held: Option<Held>) -> Written {
        let bytes = counted(bytes, held);
        let mut state = lock(&self.state);
        if state.is_closed || state.has_failed {
            return Written::Closed;
        }
        let all = state.written + bytes.len() as u64;
        if let Some(said) = state.said.filter(|said| all > *said) {
            return Written::TooLong(WrongLength { bytes: all, said });
        }
        state.written = all;
        if !bytes.is_empty() && !state.is_sink {
            state.bytes += bytes.len();
            if let Some(traffic) = &state.traffic {
                traffic.add_unsent(bytes.len() as u64);
            }
            state.pieces.push_back(bytes);
            Channel::wake_reader(&mut state);
        }
        if state.bytes >= HIGH_BYTES { Written::Full } else { Written::Done }
    }

    /// As [`Channel::write`]; if that leaves no room, `token` is told once there is some.
    pub fn write_and_wait(&self, bytes: Bytes, held: Option<Held>, token: u64) -> Written {
        match self.write(bytes, held) {
            Written::Full if !self.wait_for_room(token) => Written::Done,
            written => written,
        }
    }

    /// Whether the writer has to wait; `token` is told then once there is room.
    fn wait_for_room(&self, token: u64) -> bool {
        let mut state = lock(&self.state);
        let must_wait = state.bytes >= HIGH_BYTES && !state.is_closed;
        if must_wait {
            state.writers.push(token);
        }
        must_wait
    }

    /// Ends the body, with these trailers behind it.
    ///
    /// # Errors
    /// It is shorter than its length, and somebody is to have it.
    pub fn end(&self, trailers: Option<HeaderMap>) -> Result<(), WrongLength> {
        let mut state = lock(&self.state);
        let bytes = state.written;
        let missed = state.said.filter(|said| bytes < *said);
        let is_short = missed.is_some();
        state.has_ended = true;
        state.has_failed |= is_short;
        state.trailers = trailers;
        Channel::wake_reader(&mut state);
        match missed {
            Some(said) if !state.is_closed && !state.is_sink => Err(WrongLength { bytes, said }),
            _ => Ok(()),
        }
    }

    /// Cuts the body off: the peer sees that it is incomplete.
    pub fn fail(&self) {
        let mut state = lock(&self.state);
        state.has_failed |= !state.has_ended;
        Channel::wake_reader(&mut state);
    }

    fn wake_writers(&self, state: &mut State) {
        for token in state.writers.drain(..) {
            self.ready.push(Item::Waiter(token));
        }
    }

    fn poll_frame(&self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut state = lock(&self.state);
        if let Some(bytes) = state.pieces.pop_front() {
            state.bytes -= bytes.len();
            if let Some(traffic) = &state.traffic {
                traffic.remove_unsent(bytes.len() as u64);
            }
            if state.bytes < HIGH_BYTES / 2 {
                self.wake_writers(&mut state);
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if state.has_failed {
            return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into())));
        }
        if state.has_ended {
            let trailers = state.trailers.take();
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Hyper takes no more.
    fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        if let Some(traffic) = state.traffic.take() {
            traffic.remove_unsent(state.bytes as u64);
        }
        state.pieces.clear();
        state.bytes = 0;
        self.wake_writers(&mut state);
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let out = &mut *self;
        let before = out.left();
        let result = match &mut out.source {
            Source::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes) => {
                let piece = Outgoing::next_piece(bytes, out.guard.as_ref());
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Source::Channel(channel) => channel.poll_frame(cx),
            Source::File { left: 0, .. } => Poll::Ready(None),
            Source::File { file, at, left, allowance } => {
                let size = FILE_BYTES.min(usize::try_from(*left).unwrap_or(FILE_BYTES));
                let Some(held) = Allowance::hold_of(allowance.as_ref(), size) else {
                    return Poll::Ready(Some(Err(io::ErrorKind::OutOfMemory.into())));
                };
                let mut block = vec![0; size];
                let result = match file.read_at(&mut block, *at) {
                    // The file has become shorter.
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => {
                        block.truncate(count);
                        (*at, *left) = (*at + count as u64, *left - count as u64);
                        Ok(Frame::data(counted(Bytes::from(block), held)))
                    }
                    Err(error) => Err(error),
                };
                Poll::Ready(Some(result))
            }
        };
        out.remove_unsent(before - out.left());
        result
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::File { left, .. } => *left == 0,
            Source::Channel(channel) => {
                let state = lock(&channel.state);
                let is_over = state.has_ended && !state.has_failed && state.trailers.is_none();
                is_over && state.pieces.is_empty()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::File { left, .. } => SizeHint::with_exact(*left),
            Source::Channel(channel) => {
                let state = lock(&channel.state);
                let taken = state.written - state.bytes as u64;
                let left = state.said.map(|said| said - taken);
                left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.remove_unsent(self.left());
        if let Source::Channel(channel) = &self.source {
            channel.close();
        }
    }
}

//! Bodies on their way out.

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

use super::answer::{Guard, Traffic};
use super::count::counted;
use super::ready::{Item, Ready};
use crate::message::{Allowance, Held};
use crate::sync::lock;

/// Bytes of a body that wait in it before whoever writes has to wait.
const HIGH_BYTES: usize = 128 * 1024;

/// What HTTP/2 takes at a time of a body that is there, so that the rest waits where it is counted.
const PIECE_BYTES: usize = 16 * 1024;

/// What one read of a file takes.
const FILE_BYTES: usize = 64 * 1024;

/// A body that is sent.
#[derive(Debug)]
pub struct Out {
    source: Source,
    /// Told when it is dropped, by which hyper has taken all of it, or wants no more.
    end: Option<Arc<Channel>>,
    /// What lasts as long as it does.
    guard: Option<Guard>,
}

#[derive(Debug)]
enum Source {
    /// All of it.
    Whole(Bytes),
    /// What a script writes by and by.
    Channel(Arc<Channel>),
    /// This many bytes of a file, from this place on; what was read of it counts there.
    File { file: File, at: u64, left: u64, allowance: Option<Arc<Allowance>> },
}

impl Out {
    fn new(source: Source, end: Option<Arc<Channel>>) -> Out {
        Out { source, end, guard: None }
    }

    /// These bytes, which count so for the context.
    pub fn whole(bytes: Bytes, held: Option<Held>) -> Out {
        Out::new(Source::Whole(counted(bytes, held)), None)
    }

    /// Has something last as long as this.
    pub(super) fn guard(&mut self, guard: Option<Guard>) {
        self.guard = guard;
        let Some(Guard(traffic)) = &self.guard else { return };
        match &self.source {
            Source::Channel(channel) => channel.owe_to(traffic),
            _ => traffic.owe(self.left()),
        }
    }

    /// Bytes that are there, of what is no channel.
    fn left(&self) -> u64 {
        match &self.source {
            Source::Whole(bytes) => bytes.len() as u64,
            Source::File { left, .. } => *left,
            Source::Channel(_) => 0,
        }
    }

    /// This many were taken, or are not wanted.
    fn pay(&self, bytes: u64) {
        if let Some(Guard(traffic)) = &self.guard {
            traffic.pay(bytes);
        }
    }

    /// All that is left of a body that is there; of HTTP/2 no more than a piece.
    fn next_of(bytes: &mut Bytes, guard: Option<&Guard>) -> Bytes {
        let is_http2 = guard.is_some_and(|Guard(traffic)| traffic.is_http2());
        let count = if is_http2 { bytes.len().min(PIECE_BYTES) } else { bytes.len() };
        bytes.split_to(count)
    }

    /// All of it, if it is there.
    pub(super) fn as_whole(&self) -> Option<&Bytes> {
        if let Source::Whole(bytes) = &self.source { Some(bytes) } else { None }
    }

    /// What is written to a channel.
    pub fn channel(channel: &Arc<Channel>) -> Out {
        Out::new(Source::Channel(Arc::clone(channel)), Some(Arc::clone(channel)))
    }

    /// `left` bytes of a file, from `at` on.
    pub fn file(file: File, at: u64, left: u64, allowance: Option<Arc<Allowance>>) -> Out {
        Out::new(Source::File { file, at, left, allowance }, None)
    }
}

/// The way of a body's bytes from a script to hyper.
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
    /// How long the whole body is, if that is known, less what was written.
    left: Option<u64>,
    has_ended: bool,
    has_failed: bool,
    /// Who counts what waits, once it is sent.
    traffic: Option<Arc<Traffic>>,
    /// Nobody is to have what is written.
    is_sink: bool,
    /// Nobody takes anything any more.
    is_gone: bool,
    /// Who is woken once there is more.
    reader: Option<Waker>,
    /// Who wait for room.
    writers: Vec<u64>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// There is room for more.
    Done,
    /// It was taken, but there is no room for more.
    Full,
    /// Nobody takes it any more.
    Gone,
    /// It would be more than was said.
    TooLong,
}

impl Channel {
    /// Of a body of this many bytes, if that is known.
    pub fn new(ready: &Arc<Ready>, length: Option<u64>) -> Arc<Channel> {
        let state = State { left: length, ..State::default() };
        Arc::new(Channel { ready: Arc::clone(ready), state: Mutex::new(state) })
    }

    /// The same of a body that nobody is to have, as of an answer to HEAD.
    pub fn sink(ready: &Arc<Ready>, length: Option<u64>) -> Arc<Channel> {
        let channel = Channel::new(ready, length);
        lock(&channel.state).is_sink = true;
        channel
    }

    /// What waits counts there from now on.
    fn owe_to(&self, traffic: &Arc<Traffic>) {
        let mut state = lock(&self.state);
        traffic.owe(state.bytes as u64);
        state.traffic = Some(Arc::clone(traffic));
    }

    fn wake_reader(state: &mut State) {
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
    }

    /// Adds bytes, which count so for the context.
    pub fn write(&self, bytes: Bytes, held: Option<Held>) -> Written {
        let bytes = counted(bytes, held);
        let mut state = lock(&self.state);
        if state.is_gone || state.has_failed {
            return Written::Gone;
        }
        if let Some(left) = state.left {
            let Some(left) = left.checked_sub(bytes.len() as u64) else { return Written::TooLong };
            state.left = Some(left);
        }
        if !bytes.is_empty() && !state.is_sink {
            state.bytes += bytes.len();
            if let Some(traffic) = &state.traffic {
                traffic.owe(bytes.len() as u64);
            }
            state.pieces.push_back(bytes);
            Channel::wake_reader(&mut state);
        }
        if state.bytes >= HIGH_BYTES { Written::Full } else { Written::Done }
    }

    /// The same; `token` is told when there is room, if there is none now.
    pub fn write_and_wait(&self, bytes: Bytes, held: Option<Held>, token: u64) -> Written {
        match self.write(bytes, held) {
            Written::Full if !self.wait_for_room(token) => Written::Done,
            written => written,
        }
    }

    /// Whether whoever writes has to wait; then `token` is told when there is room.
    fn wait_for_room(&self, token: u64) -> bool {
        let mut state = lock(&self.state);
        let must_wait = state.bytes >= HIGH_BYTES && !state.is_gone;
        if must_wait {
            state.writers.push(token);
        }
        must_wait
    }

    /// Nothing follows but these trailers. False if less was written than was said, to somebody who
    /// takes it.
    pub fn end(&self, trailers: Option<HeaderMap>) -> bool {
        let mut state = lock(&self.state);
        let is_short = state.left.is_some_and(|left| left > 0);
        state.has_ended = true;
        state.has_failed |= is_short;
        state.trailers = trailers;
        Channel::wake_reader(&mut state);
        !is_short || state.is_gone || state.is_sink
    }

    /// What follows is missing: the peer is to find the body cut off.
    pub fn fail(&self) {
        let mut state = lock(&self.state);
        state.has_failed |= !state.has_ended;
        Channel::wake_reader(&mut state);
    }

    fn tell_writers(&self, state: &mut State) {
        for token in state.writers.drain(..) {
            self.ready.push(Item::Waiter(token));
        }
    }

    fn poll_frame(&self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut state = lock(&self.state);
        if let Some(bytes) = state.pieces.pop_front() {
            state.bytes -= bytes.len();
            if let Some(traffic) = &state.traffic {
                traffic.pay(bytes.len() as u64);
            }
            if state.bytes < HIGH_BYTES / 2 {
                self.tell_writers(&mut state);
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

    fn go(&self) {
        let mut state = lock(&self.state);
        state.is_gone = true;
        if let Some(traffic) = state.traffic.take() {
            traffic.pay(state.bytes as u64);
        }
        state.pieces.clear();
        state.bytes = 0;
        self.tell_writers(&mut state);
    }
}

impl Body for Out {
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
                let piece = Out::next_of(bytes, out.guard.as_ref());
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
                    // It has become shorter.
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
        out.pay(before - out.left());
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
                let left = state.left.map(|left| left + state.bytes as u64);
                left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.pay(self.left());
        if let Some(channel) = &self.end {
            channel.go();
        }
    }
}

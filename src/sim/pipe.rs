//! One end of a simulated connection, and what readiness it has told of.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

/// Readiness of one direction: told once per edge, as by an edge-triggered epoll instance.
#[derive(Debug, Default)]
pub(super) struct Direction {
    is_ready: bool,
    /// This direction has ended, and never waits any more.
    pub(super) is_over: bool,
    waker: Option<Waker>,
}

impl Direction {
    /// Something has happened; who waits for it is added to `woken`.
    pub(super) fn fire(&mut self, woken: &mut Vec<Waker>) {
        self.is_ready = true;
        woken.extend(self.waker.take());
    }

    pub(super) fn end(&mut self, woken: &mut Vec<Waker>) {
        self.is_over = true;
        self.fire(woken);
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>, dropped: &mut Vec<Waker>) -> Poll<()> {
        if std::mem::take(&mut self.is_ready) || self.is_over {
            return Poll::Ready(());
        }
        dropped.extend(self.waker.replace(cx.waker().clone()));
        Poll::Pending
    }

    pub(super) fn forget(&mut self) {
        self.is_ready = false;
    }

    pub(super) fn into_waker(self) -> Option<Waker> {
        self.waker
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Connecting,
    Open,
    /// Refused, or reset.
    Dead,
}

#[derive(Debug, Default)]
pub(super) struct End {
    /// The other end; 0, or gone, if there is none.
    pub(super) peer: u64,
    pub(super) state: State,
    pub(super) is_unix: bool,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    /// The local port is this connection's alone.
    pub(super) owns_port: bool,
    /// What the next call reports.
    pub(super) error: Option<i32>,
    /// Bytes that the peer has written and we have not read, …
    inbox: VecDeque<u8>,
    /// … of which this many have arrived.
    visible: usize,
    /// As many as `inbox` holds.
    capacity: usize,
    /// When what was sent last arrives here.
    pub(super) last_arrival: u64,
    /// The peer's end of its output has arrived.
    pub(super) has_fin: bool,
    /// The peer's end of its output is under way.
    pub(super) fin_sent: bool,
    pub(super) output_ended: bool,
    pub(super) input_ended: bool,
    /// A write found less room than it wanted.
    pub(super) is_starved: bool,
    pub(super) read: Direction,
    pub(super) write: Direction,
    /// Woken, once, when the peer has gone or closed its side.
    pub(super) watcher: Option<Waker>,
}

impl End {
    /// An end with room for `capacity` bytes that nobody has read.
    pub(super) fn new(state: State, is_unix: bool, capacity: usize) -> End {
        End { state, is_unix, capacity, ..End::default() }
    }

    /// Nothing will come any more.
    pub(super) fn end_read(&mut self, woken: &mut Vec<Waker>) {
        self.read.end(woken);
        woken.extend(self.watcher.take());
    }

    pub(super) fn poll_end(&mut self, cx: &Context<'_>, dropped: &mut Vec<Waker>) -> Poll<()> {
        if self.read.is_over {
            return Poll::Ready(());
        }
        dropped.extend(self.watcher.replace(cx.waker().clone()));
        Poll::Pending
    }

    /// Bytes that the peer may write now.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.inbox.len())
    }

    /// Bytes that can be read now.
    pub(super) fn visible(&self) -> usize {
        self.visible
    }

    /// Bytes under way to this end.
    pub(super) fn under_way(&self) -> usize {
        self.inbox.len() - self.visible
    }

    /// Whether nothing is left unread or under way.
    pub(super) fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }

    /// Takes the first `count` bytes of what the peer writes.
    pub(super) fn push(&mut self, pieces: &[IoSlice<'_>], mut count: usize) {
        for piece in pieces {
            let part = &piece[..count.min(piece.len())];
            self.inbox.extend(part);
            count -= part.len();
        }
    }

    /// This many more bytes have arrived.
    pub(super) fn arrive(&mut self, count: usize) {
        self.visible = (self.visible + count).min(self.inbox.len());
    }

    /// All that is under way has arrived.
    pub(super) fn arrive_all(&mut self) {
        self.visible = self.inbox.len();
    }

    /// Puts what has arrived under way again; returns how many bytes those are.
    pub(super) fn hold_back(&mut self) -> usize {
        std::mem::take(&mut self.visible)
    }

    /// Reads `count` bytes, of at most those that have arrived.
    pub(super) fn pull(&mut self, space: &mut [MaybeUninit<u8>], count: usize) {
        for (slot, byte) in space.iter_mut().zip(self.inbox.drain(..count)) {
            slot.write(byte);
        }
        self.visible -= count;
    }

    /// The result of a read that finds no bytes.
    pub(super) fn read_nothing(&mut self) -> io::Result<usize> {
        if let Some(error) = self.error.take() {
            return Err(io::Error::from_raw_os_error(error));
        }
        let is_over = match self.state {
            State::Connecting => false,
            State::Open => self.input_ended || (self.has_fin && self.inbox.is_empty()),
            State::Dead => true,
        };
        if is_over { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Why nothing can be written at all, if so.
    pub(super) fn write_error(&mut self) -> Option<io::Error> {
        if let Some(error) = self.error.take() {
            return Some(io::Error::from_raw_os_error(error));
        }
        match self.state {
            State::Connecting => Some(io::ErrorKind::WouldBlock.into()),
            State::Open if !self.output_ended => None,
            _ => Some(io::Error::from_raw_os_error(libc::EPIPE)),
        }
    }

    /// The connection is broken, with this error; what is under way is lost.
    pub(super) fn break_off(&mut self, error: i32, woken: &mut Vec<Waker>) {
        self.state = State::Dead;
        self.error = Some(error);
        self.inbox.truncate(self.visible);
        self.end_read(woken);
        self.write.end(woken);
    }
}

//! Datagrams that one context has written to a socket in its present turn.

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::Range;

use crate::buf::Piece;
use crate::net::Body;
use crate::os::{DATAGRAMS_MAX, Departure};

/// With this many datagrams, or this many bytes, a batch does not wait for the end of the turn.
const BATCH_MAX: usize = 2 * DATAGRAMS_MAX;
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Longer bodies are referred to.
const COPIED_MAX: usize = 4096;

thread_local! {
    /// Room of batches that have left, for the next one of this worker: none of a socket's own.
    static SPARE: Cell<UdpBatch> = Cell::default();
}

#[derive(Debug)]
pub(super) struct Staged {
    /// Nothing for the address that the socket is connected to.
    pub(super) to: Option<SocketAddr>,
    bytes: Bytes,
    /// The token of who is to be told, or 0.
    pub(super) token: u64,
}

#[derive(Debug)]
enum Bytes {
    Copied(Range<usize>),
    Shared(Piece),
}

/// Datagrams that leave together.
#[derive(Debug, Default)]
pub struct UdpBatch {
    copied: Vec<u8>,
    staged: Vec<Staged>,
    bytes: usize,
}

impl UdpBatch {
    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }

    /// Adds a datagram; true if there are so many now that they are to leave.
    pub fn push(&mut self, to: Option<SocketAddr>, body: Body<'_>, token: u64) -> bool {
        if self.staged.capacity() == 0 {
            *self = SPARE.take();
        }
        self.bytes += body.len();
        let bytes = match body {
            Body::Shared(piece) if piece.len() > COPIED_MAX => Bytes::Shared(piece),
            Body::Shared(piece) => self.copy(&piece),
            Body::Slice(slice) => self.copy(slice),
            Body::Lost => self.copy(&[]),
        };
        self.staged.push(Staged { to, bytes, token });
        self.staged.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn copy(&mut self, bytes: &[u8]) -> Bytes {
        let start = self.copied.len();
        self.copied.extend_from_slice(bytes);
        Bytes::Copied(start..self.copied.len())
    }

    pub(super) fn len(&self) -> usize {
        self.staged.len()
    }

    /// A datagram, by its place.
    pub(super) fn get(&self, at: usize) -> &Staged {
        &self.staged[at]
    }

    pub(super) fn bytes_of(&self, at: usize) -> &[u8] {
        match &self.staged[at].bytes {
            Bytes::Copied(place) => &self.copied[place.clone()],
            Bytes::Shared(piece) => piece,
        }
    }

    /// The same, to be kept.
    pub(super) fn piece_of(&self, at: usize) -> Piece {
        match &self.staged[at].bytes {
            Bytes::Copied(place) => Piece::copy(&self.copied[place.clone()]),
            Bytes::Shared(piece) => piece.clone(),
        }
    }

    /// As many as leave in one system call, from one place on; how many there are.
    pub(super) fn fill<'a>(
        &'a self,
        from: usize,
        departures: &mut [Departure<'a>; DATAGRAMS_MAX],
    ) -> usize {
        let count = (self.len() - from).min(DATAGRAMS_MAX);
        for (at, departure) in (from..).zip(&mut departures[..count]) {
            *departure = (self.staged[at].to, self.bytes_of(at));
        }
        count
    }

    /// Forgets all. The memory serves the worker's next batch, if it is not much.
    pub(super) fn clear(&mut self) {
        self.staged.clear();
        self.copied.clear();
        self.bytes = 0;
        let batch = std::mem::take(self);
        if batch.copied.capacity() <= BATCH_BYTES_MAX {
            SPARE.set(batch);
        }
    }
}

//! What HTTP holds on behalf of a context, which counts against its memory limit: hyper keeps bytes
//! that a peer does not take, and heads that a script does not release.

use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use http::HeaderMap;

use crate::message::{Allowance, Held};
use crate::sync::lock;

/// About how many bytes a header takes beside its name and value, in maps that are half full.
pub const HEADER_BYTES: usize = 192;

/// About how many bytes of a body may wait to be read, which count for a context with a limit.
pub const BODY_BYTES: usize = 128 * 1024;

/// About the most bytes that wait, unread, of bodies of one connection of HTTP/2 in a context with
/// a memory limit: its window, in frames of at least 256 bytes but for some, as h2 sees to, each of
/// which takes some 300 bytes beside its own.
pub(super) const BODIES_BYTES: usize = 3 * BODY_BYTES;

/// A head of at most this many bytes is part of what its connection counts.
const HEAD_BYTES_USUAL: usize = 2048;

/// Bytes, and what they count for a context.
struct Counted {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The same bytes, counted as `held` until nobody has any part of them any more.
pub fn counted(bytes: Bytes, held: Option<Held>) -> Bytes {
    match held {
        Some(held) => Bytes::from_owner(Counted { bytes, _held: held }),
        None => bytes,
    }
}

/// About how many bytes a map of headers takes.
pub fn head_bytes(headers: &HeaderMap) -> usize {
    let each = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES);
    each.sum()
}

/// What the bodies of requests count that wait on one connection of HTTP/2, while there is one.
#[derive(Debug, Default)]
pub(super) struct Bodies(Mutex<Weak<Held>>);

impl Bodies {
    /// Counts them for as long as the result, or that of another such call, lives; `None` if there
    /// is no room for them.
    pub(super) fn hold(&self, allowance: &Arc<Allowance>) -> Option<Arc<Held>> {
        let mut known = lock(&self.0);
        if let Some(held) = known.upgrade() {
            return Some(held);
        }
        let held = Arc::new(allowance.hold(BODIES_BYTES)?);
        *known = Arc::downgrade(&held);
        Some(held)
    }
}

/// What the long heads of responses count, until the peer has taken all that hyper has written.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<Option<Held>>);

impl Heads {
    /// None yet; without an allowance nothing is counted.
    pub(super) fn new(allowance: Option<&Arc<Allowance>>) -> Heads {
        Heads(Mutex::new(allowance.map(Allowance::empty)))
    }

    /// Counts one more head; false, and it is not counted, if there is no room for it.
    pub(super) fn add(&self, headers: &HeaderMap) -> bool {
        let Some(held) = &mut *lock(&self.0) else { return true };
        let more = head_bytes(headers);
        if more <= HEAD_BYTES_USUAL {
            return true;
        }
        held.try_set(held.bytes() + more)
    }

    /// The peer has taken all of them.
    pub(super) fn clear(&self) {
        if let Some(held) = &mut *lock(&self.0) {
            held.set(0);
        }
    }
}

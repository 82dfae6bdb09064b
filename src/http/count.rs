//! What HTTP holds for a context, which counts with its memory limit: hyper keeps bytes that a peer
//! does not take, and heads that a script does not let go.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;

use crate::message::{Allowance, Held};
use crate::sync::lock;

/// About how many bytes a header takes beside its name and value, in maps that are half full.
pub(super) const HEADER_BYTES: usize = 192;

/// A head that is no longer than this counts with its connection.
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

/// The same bytes, which count so as long as any part of them is held, by whomever.
pub fn counted(bytes: Bytes, held: Option<Held>) -> Bytes {
    match held {
        Some(held) => Bytes::from_owner(Counted { bytes, _held: held }),
        None => bytes,
    }
}

/// About what a map of headers takes.
pub fn head_bytes(headers: &HeaderMap) -> usize {
    let each = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES);
    each.sum()
}

/// Heads of answers that hyper has made bytes of, until the peer has taken them.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<Option<(Held, usize)>>);

impl Heads {
    /// None yet.
    pub(super) fn new(allowance: Option<&Arc<Allowance>>) -> Heads {
        Heads(Mutex::new(allowance.map(|allowance| (allowance.empty(), 0))))
    }

    /// Counts one more; false, and it is not counted, if there is no room for it.
    pub(super) fn add(&self, headers: &HeaderMap) -> bool {
        let Some((held, bytes)) = &mut *lock(&self.0) else { return true };
        let more = head_bytes(headers);
        if more <= HEAD_BYTES_USUAL {
            return true;
        }
        let is_room = held.may_be(*bytes + more);
        if is_room {
            *bytes += more;
            held.set(*bytes);
        }
        is_room
    }

    /// The peer has taken all.
    pub(super) fn clear(&self) {
        if let Some((held, bytes)) = &mut *lock(&self.0)
            && *bytes > 0
        {
            *bytes = 0;
            held.set(0);
        }
    }
}

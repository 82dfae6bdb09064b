//! Sessions: the numbers that replies to a context's queries need.
//!
//! A context that is asked gets the session, may pass it on, and may reply with it; nobody else
//! may. So sessions cannot be guessed from each other. The library knows its queries by tokens,
//! small numbers in order.

use crate::message::{ByNumber, Id, SESSION_BITS};
use crate::rt;

/// The open sessions of one context.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// The last one that was opened, or 0, and its token: whoever asks one after the other needs no
    /// table.
    last: (u64, u64),
    /// The tokens of the others.
    tokens: ByNumber<u64>,
}

impl Sessions {
    fn number(id: Id, token: u64) -> u64 {
        // 0 is the session of what is no query.
        (rt::secret((id.to_bits(), token)) >> (64 - SESSION_BITS)).max(1)
    }

    /// A session of context `id` for a query that it knows by `token`.
    #[inline]
    pub(super) fn open(&mut self, id: Id, token: u64) -> u64 {
        let session = Sessions::number(id, token);
        let before = std::mem::replace(&mut self.last, (session, token));
        if before.0 != 0 {
            self.tokens.insert(before.0, before.1);
        }
        session
    }

    /// An answer has come: the token of the query, if it waits for one.
    #[inline]
    pub(super) fn close(&mut self, session: u64) -> Option<u64> {
        if session == self.last.0 && session != 0 {
            self.last.0 = 0;
            return Some(self.last.1);
        }
        if self.tokens.is_empty() { None } else { self.tokens.remove(&session) }
    }

    /// Nobody waits for an answer to this query any more; returns its session.
    pub(super) fn forget(&mut self, id: Id, token: u64) -> u64 {
        let session = Sessions::number(id, token);
        self.close(session);
        session
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_open_until_it_is_answered_or_forgotten() {
        let (mut sessions, id) = (Sessions::default(), Id::new(3, 1));
        let first = sessions.open(id, 1);
        let second = sessions.open(id, 2);
        assert_eq!(sessions.close(first), Some(1));
        assert_eq!(sessions.close(first), None);
        sessions.forget(id, 2);
        assert_eq!(sessions.close(second), None);
    }

    #[test]
    fn sessions_differ_and_fit_a_lua_number() {
        let (mut one, mut other) = (Sessions::default(), Sessions::default());
        let all: std::collections::HashSet<u64> = (0..10_000)
            .flat_map(|token| [one.open(Id::new(0, 0), token), other.open(Id::new(1, 0), token)])
            .collect();
        assert_eq!(all.len(), 20_000);
        assert!(all.iter().all(|&session| session > 0 && session < 1 << SESSION_BITS));
        // None of the bits stands still.
        for bit in 0..SESSION_BITS {
            let ones = all.iter().filter(|&session| session >> bit & 1 == 1).count();
            assert!((8_000..12_000).contains(&ones), "bit {bit}: {ones}");
        }
    }
}

//! What is refused on behalf of scripts, and clients that take too long.

use ::http::StatusCode;

use super::super::sockets::Socket;
use super::{Exchange, Http};
use crate::error::Code;
use crate::http::{Due, refusal_of};
use crate::lua::host::{self, Host};
use crate::rt;
use crate::vm::stack::Stack;

/// How long the rate of a body is looked at before it is judged, in nanoseconds.
const WINDOW: u64 = 10_000_000_000;

impl Exchange {
    /// Answers so on behalf of the script, or, if that has begun to, cuts its answer off.
    pub(super) fn refuse(&mut self, status: StatusCode, code: Code) {
        self.failed.get_or_insert(code);
        if std::mem::replace(&mut self.is_refused, true) {
            return;
        }
        match &self.channel {
            Some(channel) => channel.fail(),
            None if self.has_begun => {}
            None => {
                self.has_begun = true;
                self.answer.give(refusal_of(status));
            }
        }
    }

    /// When the body is to be looked at again; refuses what comes too slowly.
    fn check(&mut self, now: u64) -> Due {
        let Some((since, before)) = self.waits.filter(|_| self.rate > 0 && !self.is_refused) else {
            return Due::Never;
        };
        if now < since + WINDOW {
            return Due::At(since + WINDOW);
        }
        let wanted = u128::from(self.rate) * u128::from(now - since);
        if u128::from(self.read - before) * 1_000_000_000 < wanted {
            self.refuse(StatusCode::REQUEST_TIMEOUT, Code::TIMEOUT);
            return Due::Over;
        }
        self.waits = Some((now, self.read));
        Due::At(now + WINDOW)
    }
}

impl Http {
    /// Refuses the requests of a connection.
    pub(super) fn refuse(&mut self, connection: u64, status: StatusCode) {
        self.inbox.retain(|arrived| {
            let is_other = arrived.connection != connection;
            if !is_other {
                arrived.answer.give(refusal_of(status));
            }
            is_other
        });
        for (_, exchange) in self.exchanges.iter_mut() {
            if exchange.connection == connection {
                exchange.refuse(status, Code::CONNECTION_ABORTED);
            }
        }
    }
}

/// native.http_sweep(): ends what has taken too long; in how many seconds something may have the
/// next time; nothing if there is nothing.
pub(super) fn sweep(_: Stack<'_>) -> Option<f64> {
    host::with(sweep_all).map(|next| next as f64 / 1e9)
}

fn sweep_all(host: &mut Host) -> Option<u64> {
    let now = rt::now();
    let (mut next, mut over) = (u64::MAX, Vec::new());
    for (key, socket) in host.sockets.all.iter_mut() {
        let Socket::Http(connection) = socket else { continue };
        match connection.check(now) {
            Due::At(time) => next = next.min(time),
            Due::Never => {}
            Due::Over => over.push(key),
        }
    }
    for key in over {
        host.sockets.end_http(key, &host.context);
    }
    let Http { exchanges, ready, .. } = &mut **host.sockets.http.as_mut()?;
    for (_, exchange) in exchanges.iter_mut() {
        match exchange.check(now) {
            Due::At(time) => next = next.min(time),
            Due::Never => {}
            // Who waits for the body is to look at it again.
            Due::Over => exchange.wake(ready),
        }
    }
    (next < u64::MAX).then(|| next.saturating_sub(now))
}

//! Clients that take too long, and refusing requests on behalf of scripts.

use ::http::StatusCode;

use super::super::sockets::Socket;
use super::{Exchange, Http};
use crate::error::Code;
use crate::http::{Due, refusal_response};
use crate::lua::host::{self, Host};
use crate::rt;
use crate::vm::stack::Stack;

impl Exchange {
    /// Responds on behalf of the script, or, if that has begun to, cuts its response off.
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
                self.slot.respond(refusal_response(status));
            }
        }
    }

    /// Refuses a request whose body comes too slowly.
    fn check(&mut self, now: u64) -> Due {
        let pace = self.pace.as_mut().filter(|_| self.rate > 0 && !self.is_refused);
        let due = pace.map_or(Due::Never, |pace| pace.check(now, self.read, self.rate));
        if due == Due::Over {
            self.refuse(StatusCode::REQUEST_TIMEOUT, Code::TIMEOUT);
        }
        due
    }
}

impl Http {
    /// Refuses all requests of a connection.
    pub(super) fn refuse(&mut self, connection: u64, status: StatusCode) {
        self.inbox.retain(|arrived| {
            let is_other = arrived.connection != connection;
            if !is_other {
                arrived.slot.respond(refusal_response(status));
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

/// native.http_sweep(): ends what has taken too long; returns in how many seconds to look again, or
/// nothing if there is nothing to look at.
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

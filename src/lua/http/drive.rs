//! What a turn does for its connections.

use std::sync::Arc;

use ::http::StatusCode;

use super::super::host::Host;
use super::super::sockets::{KIND_END, Socket, Sockets, source};
use super::Taken;
use crate::error::Code;
use crate::http::{Due, Item};
use crate::net::{self, linger};
use crate::rt;
use crate::sched::{Context, ReadyWaker};

/// What a request costs a turn, and how many bytes cost as much as an event.
const REQUEST_COST: usize = 4;
const COST_BYTES: usize = 1024;

/// This many nanoseconds after it has begun with them, a turn begins with no more connections:
/// small frames of HTTP/2 cost more than their bytes say.
const SHARE: u64 = 4_000_000;

/// After this many connections that have brought little it looks at the clock.
const LOOKS: usize = 8;

impl Host {
    /// The next request.
    pub(in crate::lua) fn next_request(&mut self) -> Option<Taken> {
        let http = self.sockets.http.as_mut()?;
        let found = http.take_request();
        if found.is_some() {
            self.turn.charge(REQUEST_COST);
        }
        found
    }

    /// Looks at one connection.
    pub(super) fn poll_http_now(&mut self, key: u64) {
        self.sockets.poll_http(key, &self.context, rt::now());
    }

    /// Looks at all that was woken; true if there is something for the script then.
    pub(in crate::lua) fn drive_http(&mut self) -> bool {
        let Some(http) = &mut self.sockets.http else { return false };
        let (ready, inbox) = (Arc::clone(&http.ready), Arc::clone(&http.inbox));
        let mut work = std::mem::take(&mut http.work);
        let (mut has_news, mut has_time) = (false, true);
        let began = rt::now();
        let (mut now, mut looks) = (began, 0);
        while !has_news && !ready.is_empty() {
            ready.take(&mut work);
            let mut tasks = 0;
            for item in work.drain(..) {
                match item {
                    // The turn ends before the others are looked at.
                    item if !has_time && !matches!(item, Item::Waiter(_)) => ready.push(item),
                    Item::Connection(key) => {
                        let bytes = self.sockets.poll_http(key, &self.context, now);
                        looks += 1;
                        if looks % LOOKS == 0 || bytes >= COST_BYTES {
                            now = rt::now();
                        }
                        has_time = self.turn.charge(bytes / COST_BYTES)
                            && now.saturating_sub(began) < SHARE;
                    }
                    Item::Waiter(token) => {
                        self.turn.notices.done(token, Ok(()));
                        has_news = true;
                    }
                    // The script first: mostly the task waits for it.
                    Item::Task(..) if !inbox.is_empty() => {
                        ready.push(item);
                        tasks += 1;
                    }
                    Item::Task(key, slot) => self.sockets.run_http_task(key, slot),
                }
            }
            has_news |= !has_time || tasks > 0 || !inbox.is_empty();
        }
        if let Some(http) = &mut self.sockets.http {
            http.work = work;
        }
        has_news
    }
}

/// Whether something is staged that was not before.
fn has_news(net: &mut net::Connection) -> bool {
    !net.staged.is_empty() && !std::mem::replace(&mut net.is_dirty, true)
}

impl Sockets {
    /// Looks at a connection, at this time; how many bytes were received.
    fn poll_http(&mut self, key: u64, context: &Arc<Context>, now: u64) -> usize {
        let (result, (is_bad, is_new, bytes)) = match self.all.get_mut(key) {
            Some(Socket::Http(connection)) => {
                (connection.poll(now), connection.take_stock(has_news))
            }
            Some(Socket::HttpClient(client)) => {
                (client.poll(), (false, client.with_net(has_news), client.take_received()))
            }
            _ => return 0,
        };
        if result.is_ready() {
            self.end_http(key, context);
            return bytes;
        }
        if let (Some(Socket::Http(connection)), Some(http)) = (self.all.get(key), &mut self.http)
            && connection.has_kept_end()
            && http.exchanges.iter_mut().any(|(_, one)| one.connection == key && one.is_waiting())
        {
            // What somebody waits for does not come.
            connection.tell_end();
        }
        if is_bad && let Some(http) = &mut self.http {
            http.refuse(key, StatusCode::BAD_REQUEST);
        }
        if is_new {
            self.list_dirty(key);
        }
        bytes
    }

    /// Has the context told of a peer that has gone.
    pub(in crate::lua) fn watch_http(&mut self, key: u64, context: &Arc<Context>) {
        let Some(Socket::Http(connection)) = self.all.get_mut(key) else { return };
        let waker = ReadyWaker::waker(context, source(key, KIND_END));
        let end = connection.with_net(|net| net.watch_end(&waker));
        // Who has only said all may still listen.
        if end.is_some_and(|code| code != Code::END_OF_FILE) {
            self.end_http(key, context);
        }
    }

    fn run_http_task(&mut self, key: u64, slot: usize) {
        match self.all.get_mut(key) {
            Some(Socket::Http(connection)) => connection.run_task(slot),
            Some(Socket::HttpClient(client)) => client.run_task(slot),
            _ => return,
        }
        self.note_http(key);
    }

    /// What a connection has staged is to leave.
    pub(super) fn note_http(&mut self, key: u64) {
        let is_new = match self.all.get_mut(key) {
            Some(Socket::Http(connection)) => connection.with_net(has_news),
            Some(Socket::HttpClient(client)) => client.with_net(has_news),
            _ => false,
        };
        if is_new {
            self.list_dirty(key);
        }
    }

    /// A server has one connection less.
    pub(super) fn forget_http(&mut self, number: u64) {
        let Some(http) = &mut self.http else { return };
        let Some(serving) = http.servers.get_mut(number) else { return };
        serving.connections -= 1;
        if serving.connections == 0
            && let Some(token) = serving.closing.take()
        {
            http.ready.push(Item::Waiter(token));
        }
    }

    /// A server's connection takes no more requests.
    pub(super) fn close_http(&mut self, key: u64, context: &Arc<Context>) {
        if let Some(Socket::Http(connection)) = self.all.get_mut(key)
            && connection.close() == Due::Over
        {
            self.end_http(key, context);
        }
    }

    /// A connection is over: what is staged still leaves.
    pub(in crate::lua) fn end_http(&mut self, key: u64, context: &Arc<Context>) {
        let net = match self.all.remove(key) {
            Some(Socket::Http(connection)) => {
                self.forget_http(connection.server());
                connection.into_net()
            }
            Some(Socket::HttpClient(client)) => {
                if let (Some(http), Some(failure)) = (&mut self.http, client.tls_failure()) {
                    http.note_failure(key, failure);
                }
                client.into_net()
            }
            _ => None,
        };
        if let Some(mut net) = net {
            net.flush(context, |_, _| {});
            linger(net);
        }
    }
}

//! Polling the connections of HTTP in a turn.

use std::sync::Arc;

use ::http::StatusCode;

use super::super::host::Host;
use super::super::sockets::{KIND_END, Socket, Sockets, source};
use super::NewRequest;
use crate::error::Code;
use crate::http::{Due, Item, TURN_TIME};
use crate::net::{self, linger};
use crate::rt;
use crate::sched::{Context, ReadyWaker};

/// What a request costs a turn, in events, and how many bytes cost as much as an event.
const REQUEST_COST: usize = 4;
pub(super) const COST_BYTES: usize = 1024;

/// How many connections that bring little are polled between two looks at the clock.
const LOOKS: usize = 8;

impl Host {
    pub(in crate::lua) fn next_request(&mut self) -> Option<NewRequest> {
        let http = self.sockets.http.as_mut()?;
        let found = http.take_request();
        if found.is_some() {
            self.turn.charge(REQUEST_COST);
        }
        found
    }

    pub(super) fn poll_http_now(&mut self, key: u64) {
        self.sockets.poll_http(key, &self.context, rt::now());
    }

    /// Polls all that was woken; true if the script has something to do then. Every turn calls
    /// this, and most contexts have no HTTP.
    #[inline]
    pub(in crate::lua) fn drive_http(&mut self) -> bool {
        self.sockets.http.is_some() && self.drive_all()
    }

    fn drive_all(&mut self) -> bool {
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
                    // The next turn polls the others.
                    item if !has_time && !matches!(item, Item::Waiter(_)) => ready.push(item),
                    Item::Connection(key) => {
                        let bytes = self.sockets.poll_http(key, &self.context, now);
                        looks += 1;
                        if looks % LOOKS == 0 || bytes >= COST_BYTES {
                            now = rt::now();
                        }
                        has_time = self.turn.charge(bytes / COST_BYTES)
                            && now.saturating_sub(began) < TURN_TIME;
                    }
                    Item::Waiter(token) => {
                        self.turn.notices.done(token, Ok(()));
                        has_news = true;
                    }
                    // The script runs first: mostly the task waits for its response.
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
        // Timers are looked at once a turn.
        if now.saturating_sub(began) >= TURN_TIME {
            self.turn.use_up();
        }
        has_news
    }
}

/// Whether something is staged on a connection that is not listed as dirty yet; marks it.
fn has_news(net: &mut net::Connection) -> bool {
    !net.staged.is_empty() && !std::mem::replace(&mut net.is_dirty, true)
}

impl Sockets {
    /// Polls a connection at the time `now`, in nanoseconds; returns how many bytes were received.
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
            && connection.has_withheld_end()
            && http.exchanges.iter_mut().any(|(_, one)| one.connection == key && one.is_waiting())
        {
            // What the script waits for does not come.
            connection.release_end();
        }
        if is_bad && let Some(http) = &mut self.http {
            http.refuse(key, StatusCode::BAD_REQUEST);
        }
        if is_new {
            self.list_dirty(key);
        }
        bytes
    }

    /// Has the connection end when its peer is gone.
    pub(in crate::lua) fn watch_http(&mut self, key: u64, context: &Arc<Context>) {
        let Some(Socket::Http(connection)) = self.all.get_mut(key) else { return };
        let waker = ReadyWaker::waker(context, source(key, KIND_END));
        let end = connection.with_net(|net| net.watch_end(&waker));
        // A peer that has ended its output may still read.
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

    /// Lists a connection as dirty if something is staged.
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

    /// Counts the end of a connection of a server.
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

    /// Has a server's connection take no more requests.
    pub(super) fn close_http(&mut self, key: u64, context: &Arc<Context>) {
        if let Some(Socket::Http(connection)) = self.all.get_mut(key)
            && connection.close() == Due::Over
        {
            self.end_http(key, context);
        }
    }

    /// Ends a connection; what is staged is still sent.
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

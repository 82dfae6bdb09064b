//! HTTP, as scripts see it: servers and the requests they have, and requests of clients.

mod accept;
mod answer;
mod client;
mod deadlines;
mod drive;
mod file;
mod plain;
mod request;
mod upgrade;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use ::http::header::HOST;
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;

use self::request::Burst;
use crate::error::Code;
use crate::http::{Arrived, Channel, Inbox, Item, Pace, Ready, ResponseSlot, Server, waker};
use crate::lua::host;
use crate::message::Held;
use crate::net::SlotMap;
use crate::vm::stack::function;

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"http_serve", function(accept::serve)),
    (c"http_accept", function(accept::accept)),
    (c"http_close", function(accept::close)),
    (c"http_end", function(accept::end)),
    (c"http_forget_server", function(accept::forget)),
    (c"http_sweep", function(deadlines::sweep)),
    (c"http_upgrade", function(upgrade::upgrade)),
    (c"http_sendfile", function(file::send)),
    #[cfg(feature = "tls")]
    (c"http_tls", function(request::tls)),
    (c"http_client", function(client::client)),
    (c"http_is_free", function(client::is_free)),
    (c"http_is_body", function(client::is_body)),
    (c"http_check_headers", function(client::check_headers)),
    (c"http_send", function(client::send)),
    (c"http_forget", function(client::forget)),
    (c"http_response", function(client::response)),
    (c"http_response_headers", function(client::headers)),
    (c"http_response_read", function(client::read)),
    (c"http_request_write", function(client::write)),
    (c"http_request_end", function(client::end)),
    (c"http_drop", function(client::close)),
    (c"http_base64", function(client::base64)),
    (c"http_env", function(client::environment)),
    (c"http_get", function(request::get)),
    (c"http_headers", function(request::headers)),
    (c"http_buffer", function(request::buffer)),
    (c"http_read", function(request::read)),
    (c"http_give_up", function(request::give_up)),
    (c"http_answer", function(answer::answer)),
    (c"http_status", function(answer::status)),
    (c"http_header", function(answer::header)),
    (c"http_trailer", function(answer::trailer)),
    (c"http_add_headers", function(answer::add_all)),
    (c"http_default_type", function(answer::default_type)),
    (c"http_write", function(answer::write)),
    (c"http_finish", function(answer::finish)),
];

#[derive(Default)]
pub(super) struct Http {
    ready: Arc<Ready>,
    inbox: Arc<Inbox>,
    servers: SlotMap<ServerState>,
    exchanges: SlotMap<Exchange>,
    calls: SlotMap<client::Call>,
    /// Why TLS has ended the last client's connection that it has ended.
    failure: Option<(Code, String)>,
    /// The list that [`Ready`] was swapped with, empty: its memory serves the next one.
    work: VecDeque<Item>,
}

struct ServerState {
    server: Arc<Server>,
    connections: usize,
    /// The token of who waits for the end of the last connection.
    closing: Option<u64>,
}

/// A request and its response.
struct Exchange {
    connection: u64,
    /// The request's head; of a plain request only once it is needed.
    parts: Option<Box<Parts>>,
    /// The request's body, if it has one.
    body: Option<Incoming>,
    slot: Arc<ResponseSlot>,
    /// Of the response, as far as the script has set them; `trailers` follow its body.
    status: StatusCode,
    headers: HeaderMap,
    trailers: HeaderMap,
    /// The response's head is on its way.
    has_begun: bool,
    /// Where the script writes the response's body, piece by piece.
    channel: Option<Arc<Channel>>,
    /// Bytes of the piece of the body that there was no room for; 0 if all were taken.
    lost: usize,
    /// The response is not the script's, which can change nothing any more.
    is_refused: bool,
    /// Bytes of the body that the script has read, the most that there may be, and the least rate,
    /// in bytes a second, at which they have to come.
    read: u64,
    read_max: u64,
    rate: u64,
    /// Why no more can be read.
    failed: Option<Code>,
    /// What followed the request's body.
    request_trailers: Option<HeaderMap>,
    /// The token of who waits for more of the body; 0 for nobody.
    waiter: u64,
    /// How fast the body comes, while the script waits for more of it.
    pace: Option<Pace>,
    burst: Burst,
    _held: Option<Held>,
}

pub(in crate::lua) struct NewRequest {
    /// The number by which the script knows it.
    pub(in crate::lua) number: u64,
    /// Its server's number.
    pub(in crate::lua) server: u64,
    pub(in crate::lua) slot: Arc<ResponseSlot>,
}

impl Exchange {
    /// The request's head.
    fn parts(&mut self) -> &Parts {
        let Exchange { parts, slot, .. } = self;
        parts.get_or_insert_with(|| match slot.plain_head() {
            Some(head) => Box::new(head.parts()),
            None => Box::new(Request::new(()).into_parts().0),
        })
    }

    /// The request's version of HTTP.
    fn version(&self) -> Version {
        self.parts.as_ref().map_or(Version::HTTP_11, |parts| parts.version)
    }
}

impl Http {
    /// The waker to poll a body or response with: of whoever waits under the token, if it is polled
    /// for the last time; of nobody otherwise.
    fn waker(&self, token: u64, is_last: bool) -> Waker {
        if is_last { waker(&self.ready, Item::Waiter(token)) } else { Waker::noop().clone() }
    }

    /// Takes the next request.
    fn take_request(&mut self) -> Option<NewRequest> {
        let arrived = loop {
            let arrived = self.inbox.pop()?;
            // The connection may have ended meanwhile.
            if !arrived.slot.is_abandoned() {
                break arrived;
            }
        };
        let Arrived { server, connection, request, slot, held } = arrived;
        let (mut parts, body) = match request.map(|request| request.into_parts()) {
            Some((parts, body)) => (Some(Box::new(parts)), Some(body)),
            None => (None, None),
        };
        if let Some(parts) = &mut parts
            && parts.version == Version::HTTP_2
            && let Some(host) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(host.as_str())
        {
            // HTTP/2 has the host in a pseudo-header.
            parts.headers.entry(HOST).or_insert(host);
        }
        let limits = self.servers.get(server).map(|serving| &serving.server.limits);
        let exchange = Exchange {
            connection,
            parts,
            body,
            slot: Arc::clone(&slot),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            trailers: HeaderMap::new(),
            has_begun: false,
            lost: 0,
            channel: None,
            is_refused: false,
            read: 0,
            read_max: limits.map_or(0, |limits| limits.body_bytes),
            rate: limits.map_or(0, |limits| limits.body_rate),
            failed: None,
            request_trailers: None,
            waiter: 0,
            pace: None,
            burst: Burst::default(),
            _held: held,
        };
        Some(NewRequest { number: self.exchanges.insert(|_| exchange), server, slot })
    }

    /// Whether something was woken or received.
    pub(super) fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.inbox.is_empty()
    }
}

/// Calls `body` with an exchange that is not over, and the list of what was woken.
fn with<R>(key: u64, body: impl FnOnce(&mut Exchange, &Arc<Ready>) -> R) -> Option<R> {
    host::with(|host| {
        let Http { exchanges, ready, .. } = &mut **host.sockets.http.as_mut()?;
        Some(body(exchanges.get_mut(key)?, ready))
    })
}

//! HTTP, as scripts see it: servers, and the requests they are dealing with.

mod accept;
mod answer;
mod client;
mod drive;
mod file;
mod judge;
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

use crate::error::Code;
use crate::http::{Answer, Arrived, Channel, Inbox, Item, Ready, Server, waker};
use crate::message::Held;
use crate::net::SlotMap;
use crate::vm::stack::function;

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"http_serve", function(accept::serve)),
    (c"http_accept", function(accept::accept)),
    (c"http_close", function(accept::close)),
    (c"http_end", function(accept::end)),
    (c"http_forget_server", function(accept::forget)),
    (c"http_sweep", function(judge::sweep)),
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

/// All HTTP of one context.
#[derive(Default)]
pub(super) struct Http {
    ready: Arc<Ready>,
    inbox: Arc<Inbox>,
    servers: SlotMap<Serving>,
    exchanges: SlotMap<Exchange>,
    calls: SlotMap<client::Call>,
    /// Why a connection has ended that no request was sent on.
    failure: Option<(Code, String)>,
    /// The list that was taken of [`Ready`] last, whose room serves the next one.
    work: VecDeque<Item>,
}

/// A server, and how many connections it has.
struct Serving {
    server: Arc<Server>,
    connections: usize,
    /// It takes no more of them; who waits for the end of the last one, under this token.
    closing: Option<u64>,
}

/// A request and what becomes of it.
struct Exchange {
    connection: u64,
    /// What hyper has read; nothing of a plain request, until it is needed.
    parts: Option<Box<Parts>>,
    body: Option<Incoming>,
    answer: Arc<Answer>,
    /// What the script has said of the answer so far.
    status: StatusCode,
    headers: HeaderMap,
    /// What follows the answer's body.
    behind: HeaderMap,
    /// The answer's head is out.
    has_begun: bool,
    channel: Option<Arc<Channel>>,
    /// It was answered on behalf of the script, which has no more say.
    is_refused: bool,
    /// Bytes of the body that the script has read.
    read: u64,
    /// The most that there may be, and the rate at which they have to come.
    read_max: u64,
    rate: u64,
    /// Why no more can be read.
    failed: Option<Code>,
    trailers: Option<HeaderMap>,
    /// Who waits for more of the body; 0 for nobody.
    waiter: u64,
    /// Since when the script waits for more of the body, and how much it had read then.
    waits: Option<(u64, u64)>,
    _held: Option<Held>,
}

/// A request that is to be handled.
pub(in crate::lua) struct Taken {
    /// What the script knows it by.
    pub(in crate::lua) number: u64,
    /// Its server's number.
    pub(in crate::lua) server: u64,
    pub(in crate::lua) answer: Arc<Answer>,
}

impl Exchange {
    /// The request's head.
    fn parts(&mut self) -> &Parts {
        let Exchange { parts, answer, .. } = self;
        parts.get_or_insert_with(|| match answer.lines() {
            Some(lines) => Box::new(lines.parts()),
            None => Box::new(Request::new(()).into_parts().0),
        })
    }

    /// Its version of HTTP.
    fn version(&self) -> Version {
        self.parts.as_ref().map_or(Version::HTTP_11, |parts| parts.version)
    }
}

impl Http {
    /// What a body, or an answer, is looked at with: whoever waits under the token is told when
    /// there is more, if it is the last look; nobody otherwise.
    fn waker(&self, token: u64, is_last: bool) -> Waker {
        if is_last { waker(&self.ready, Item::Waiter(token)) } else { Waker::noop().clone() }
    }

    /// Takes the next request.
    fn take_request(&mut self) -> Option<Taken> {
        let arrived = loop {
            let arrived = self.inbox.pop()?;
            // The connection may have ended meanwhile.
            if !arrived.answer.is_gone() {
                break arrived;
            }
        };
        let Arrived { server, connection, request, answer, held } = arrived;
        let (mut parts, body) = match request.map(|request| request.into_parts()) {
            Some((parts, body)) => (Some(Box::new(parts)), Some(body)),
            None => (None, None),
        };
        if let Some(parts) = &mut parts
            && parts.version == Version::HTTP_2
            && let Some(host) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(host.as_str())
        {
            // By another name there.
            parts.headers.entry(HOST).or_insert(host);
        }
        let limits = self.servers.get(server).map(|serving| &serving.server.limits);
        let exchange = Exchange {
            connection,
            parts,
            body,
            answer: Arc::clone(&answer),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            behind: HeaderMap::new(),
            has_begun: false,
            channel: None,
            is_refused: false,
            read: 0,
            read_max: limits.map_or(0, |limits| limits.body_bytes),
            rate: limits.map_or(0, |limits| limits.body_rate),
            failed: None,
            trailers: None,
            waiter: 0,
            waits: None,
            _held: held,
        };
        Some(Taken { number: self.exchanges.insert(|_| exchange), server, answer })
    }

    /// Whether there is something to be done in this turn.
    pub(super) fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.inbox.is_empty()
    }
}

//! What serves: settings, and the requests that have come.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, EXPECT, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::Service as HyperService;

use super::answer::{Answer, Traffic, Waiting};
use super::body::Out;
use super::count::{HEADER_BYTES, head_bytes};
use super::date::date;
use super::lines::Lines;
use super::ready::{Queue, Ready};
use super::scan::is_host;
use super::tasks::Tasks;
use crate::message::{Allowance, Held};
use crate::sched::Context;
use crate::sync::lock;
#[cfg(feature = "tls")]
use crate::tls;

/// About what a request takes beside its connection, and what of its body waits to be read.
const REQUEST_BYTES: usize = 4096;
const BODY_BYTES: usize = 128 * 1024;

/// Windows of HTTP/2, for a stream and for a connection, and what is kept of what is sent.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1 << 20;
const SEND_BYTES: usize = 256 * 1024;

/// Requests at a time on a connection of HTTP/2.
const STREAMS_MAX: u32 = 100;

/// The least that hyper reads into, and the usual number of headers, for which it has room.
const BUFFER_BYTES: usize = 64 * 1024;
const HEADERS_USUAL: usize = 100;

/// What a server allows its clients. Times are in nanoseconds; a time or rate of 0
/// stands for no limit.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Headers in it.
    pub headers: usize,
    /// Bytes of a body.
    pub body_bytes: u64,
    /// How long a head may take.
    pub head_timeout: u64,
    /// How long a connection may be idle.
    pub idle_timeout: u64,
    /// Bytes a second that a body has to come, or be taken, with.
    pub body_rate: u64,
}

/// A request that has come.
#[derive(Debug)]
pub struct Arrived {
    /// The number of its server.
    pub server: u64,
    /// The key of its connection.
    pub connection: u64,
    /// The request, if hyper has read it.
    pub request: Option<Box<Request<Incoming>>>,
    /// Where the answer goes.
    pub answer: Arc<Answer>,
    /// What it counts for the context.
    pub held: Option<Held>,
}

/// Requests that have come and were not handed out.
pub type Inbox = Queue<Arrived>;

/// A server's settings.
pub struct Server {
    /// What its requests bear.
    pub number: u64,
    /// What it allows.
    pub limits: Limits,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// TLS, if it is used.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<tls::Config>>,
    builder: http1::Builder,
    inbox: Arc<Inbox>,
    ready: Arc<Ready>,
}

impl Server {
    /// A server whose requests go to `inbox`.
    pub fn new(
        number: u64,
        limits: Limits,
        http2: bool,
        inbox: &Arc<Inbox>,
        ready: &Arc<Ready>,
    ) -> Server {
        let mut builder = http1::Builder::new();
        builder.half_close(true).auto_date_header(false).header_read_timeout(None);
        builder.max_buf_size(limits.head_bytes.max(BUFFER_BYTES));
        if limits.headers != HEADERS_USUAL {
            builder.max_headers(limits.headers);
        }
        Server {
            number,
            limits,
            http2,
            #[cfg(feature = "tls")]
            tls: None,
            builder,
            inbox: Arc::clone(inbox),
            ready: Arc::clone(ready),
        }
    }

    /// The list of those who are woken.
    pub(super) fn ready(&self) -> &Arc<Ready> {
        &self.ready
    }

    /// How connections of HTTP/1 are made.
    pub(super) fn http1(&self) -> &http1::Builder {
        &self.builder
    }

    /// How one of HTTP/2 is.
    /// `is_limited`: what may wait in it counts for its context.
    pub(super) fn http2(&self, tasks: Tasks, is_limited: bool) -> http2::Builder<Tasks> {
        let mut builder = http2::Builder::new(tasks);
        let window = if is_limited { BODY_BYTES as u32 } else { STREAM_WINDOW };
        builder
            .auto_date_header(false)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(window)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BYTES)
            .max_header_list_size(u32::try_from(self.limits.head_bytes).unwrap_or(u32::MAX));
        builder
    }
}

/// What hyper gives requests to.
pub(super) struct Service {
    pub(super) server: Arc<Server>,
    /// Its key among the sockets of its context.
    pub(super) connection: u64,
    pub(super) traffic: Arc<Traffic>,
    pub(super) context: Arc<Context>,
    /// A request that was handed out before hyper was there to read it.
    pub(super) first: Mutex<Option<Waiting>>,
}

impl Server {
    /// Hands out a request that hyper does not read, unless the context has no room for it.
    pub(super) fn hand_out(
        &self,
        lines: Lines,
        connection: u64,
        waker: &Waker,
        context: &Context,
    ) -> Result<Arc<Answer>, Lines> {
        let head = lines.bytes().len() + lines.headers() * HEADER_BYTES;
        let held = Allowance::hold_of(context.allowance(), REQUEST_BYTES + head);
        let Some(held) = held else { return Err(lines) };
        let answer = Arc::new(Answer::to(lines, waker.clone()));
        let (server, to) = (self.number, Arc::clone(&answer));
        self.inbox.push(Arrived { server, connection, request: None, answer: to, held });
        Ok(answer)
    }
}

impl HyperService<Request<Incoming>> for Service {
    type Response = Response<Out>;
    type Error = Infallible;
    type Future = Waiting;

    fn call(&self, request: Request<Incoming>) -> Waiting {
        if let Some(first) = lock(&self.first).take() {
            return first;
        }
        let answer = Arc::new(Answer::default());
        let waiting = Waiting::new(&answer, self.traffic.begin());
        if let Err(status) = self.check(&request) {
            answer.give(refusal_of(status));
            return waiting;
        }
        let has_body = !request.body().is_end_stream();
        let body_bytes = if has_body { BODY_BYTES } else { 0 };
        let held = self.context.allowance().map_or(Some(None), |allowance| {
            let (headers, uri) = (head_bytes(request.headers()), request.uri());
            let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
            allowance.hold(REQUEST_BYTES + body_bytes + headers + target).map(Some)
        });
        let Some(held) = held else {
            answer.give(refusal_of(StatusCode::SERVICE_UNAVAILABLE));
            return waiting;
        };
        let (server, connection) = (self.server.number, self.connection);
        let request = Some(Box::new(request));
        self.server.inbox.push(Arrived { server, connection, request, answer, held });
        waiting
    }
}

impl Service {
    /// Whether a request may be handled, and the status that says otherwise.
    fn check(&self, request: &Request<Incoming>) -> Result<(), StatusCode> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let (host, other) = (hosts.next(), hosts.next());
        let is_old = request.version() < Version::HTTP_11;
        let authority = request.uri().authority();
        let has_host = host.is_some() || is_old || authority.is_some();
        if other.is_some() || !has_host || request.version() == Version::HTTP_11 && host.is_none() {
            return Err(StatusCode::BAD_REQUEST);
        }
        if let Some(host) = host {
            let host = host.as_bytes();
            let is_said =
                authority.is_none_or(|it| host.eq_ignore_ascii_case(it.as_str().as_bytes()));
            if !is_said || !is_host(host) {
                return Err(StatusCode::BAD_REQUEST);
            }
        } else if authority.is_some_and(|authority| !is_host(authority.as_str().as_bytes())) {
            return Err(StatusCode::BAD_REQUEST);
        }
        // Of HTTP/1 they were counted.
        if request.headers().len() > self.server.limits.headers {
            return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        if request.headers().get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
            return Err(StatusCode::BAD_REQUEST);
        }
        if request.method() == Method::CONNECT {
            return Err(StatusCode::NOT_IMPLEMENTED);
        }
        let expected = request.headers().get(EXPECT);
        if expected.is_some_and(|it| !it.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            return Err(StatusCode::EXPECTATION_FAILED);
        }
        let length = request.body().size_hint().exact();
        if length.is_some_and(|length| length > self.server.limits.body_bytes) {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Ok(())
    }
}

/// An answer that nobody of the script's gives; the connection is closed behind it.
pub fn refusal_of(status: StatusCode) -> Response<Out> {
    let text = status.canonical_reason().unwrap_or_default();
    let mut response = Response::new(Out::whole(Bytes::from(format!("{text}\n")), None));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(DATE, date());
    response
}

/// The same as bytes of HTTP/1.1, for what hyper was not shown.
pub(super) fn lines_of(status: u16) -> String {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let text = status.canonical_reason().unwrap_or_default();
    let date = date();
    let date = date.to_str().unwrap_or_default();
    format!(
        "HTTP/1.1 {} {text}\r\nconnection: close\r\ncontent-type: text/plain\r\ndate: {date}\r\n\
         content-length: {}\r\n\r\n{text}\n",
        status.as_u16(),
        text.len() + 1
    )
}

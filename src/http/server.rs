//! Servers: their settings, and the requests they receive.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, EXPECT, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::Service as HyperService;

use super::body::Outgoing;
use super::count::{BODY_BYTES, HEADER_BYTES, head_bytes};
use super::date::date;
use super::plain::PlainHead;
use super::ready::{Queue, Ready};
use super::response::{ResponseFuture, ResponseSlot, Traffic};
use super::scan::is_host;
use super::tasks::Tasks;
use crate::message::{Allowance, Held};
use crate::sched::Context;
use crate::sync::lock;
#[cfg(feature = "tls")]
use crate::tls;

/// About how many bytes a request takes beside its connection.
const REQUEST_BYTES: usize = 4096;

/// The most bytes that h2 keeps of what is sent.
const SEND_BYTES: usize = 256 * 1024;

/// The windows of a stream and of a connection of HTTP/2, which bound what waits of bodies: smaller
/// ones if that counts for a context.
pub(super) fn windows(is_limited: bool) -> (u32, u32) {
    if is_limited { (BODY_BYTES as u32 / 4, BODY_BYTES as u32) } else { (256 * 1024, 1 << 20) }
}

/// Concurrent requests on a connection of HTTP/2.
const STREAMS_MAX: u32 = 100;

/// The least size of hyper's read buffer, and the number of headers that it makes room for by
/// itself.
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
    /// The least rate, in bytes a second, at which bodies have to come and to be taken.
    pub body_rate: u64,
}

/// A request that was received.
#[derive(Debug)]
pub struct Arrived {
    /// The number of its server.
    pub server: u64,
    /// The key of its connection.
    pub connection: u64,
    /// The request, unless it is a plain one.
    pub request: Option<Box<Request<Incoming>>>,
    /// Where the response goes, and the head of a plain request.
    pub slot: Arc<ResponseSlot>,
    /// What it counts for the context.
    pub held: Option<Held>,
}

/// Requests that scripts have not been given yet.
pub type Inbox = Queue<Arrived>;

/// A server's settings.
pub struct Server {
    /// Its number among the servers of its context.
    pub number: u64,
    /// What it allows its clients.
    pub limits: Limits,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// The configuration of TLS, if it is used.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<tls::Config>>,
    builder: http1::Builder,
    inbox: Arc<Inbox>,
    ready: Arc<Ready>,
}

impl Server {
    /// A server whose requests go to `inbox` and whose connections are woken through `ready`.
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

    /// Where its connections are listed when they are woken.
    pub(super) fn ready(&self) -> &Arc<Ready> {
        &self.ready
    }

    /// Makes connections of HTTP/1.
    pub(super) fn http1(&self) -> &http1::Builder {
        &self.builder
    }

    /// Makes a connection of HTTP/2; what waits in it counts for a context if that is limited.
    pub(super) fn http2(&self, tasks: Tasks, is_limited: bool) -> http2::Builder<Tasks> {
        let mut builder = http2::Builder::new(tasks);
        let (stream, connection) = windows(is_limited);
        builder
            .auto_date_header(false)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(stream)
            .initial_connection_window_size(connection)
            .max_send_buf_size(SEND_BYTES)
            .max_header_list_size(u32::try_from(self.limits.head_bytes).unwrap_or(u32::MAX));
        builder
    }
}

/// What hyper gives the requests of one connection to.
pub(super) struct Service {
    pub(super) server: Arc<Server>,
    /// Its key among the sockets of its context.
    pub(super) connection: u64,
    pub(super) traffic: Arc<Traffic>,
    pub(super) context: Arc<Context>,
    /// The response to the first request, if that was received before hyper was made.
    pub(super) first: Mutex<Option<ResponseFuture>>,
}

impl Server {
    /// Puts a plain request into the inbox; returns it if the context has no room for it.
    pub(super) fn receive_plain(
        &self,
        head: PlainHead,
        connection: u64,
        waker: &Waker,
        context: &Context,
    ) -> Result<Arc<ResponseSlot>, PlainHead> {
        let bytes = REQUEST_BYTES + head.bytes().len() + head.headers() * HEADER_BYTES;
        let held = Allowance::hold_of(context.allowance(), bytes);
        let Some(held) = held else { return Err(head) };
        let slot = Arc::new(ResponseSlot::for_plain(head, waker.clone()));
        let arrived = Arrived {
            server: self.number,
            connection,
            request: None,
            slot: Arc::clone(&slot),
            held,
        };
        self.inbox.push(arrived);
        Ok(slot)
    }
}

impl HyperService<Request<Incoming>> for Service {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, mut request: Request<Incoming>) -> ResponseFuture {
        if let Some(first) = lock(&self.first).take() {
            return first;
        }
        let slot = Arc::new(ResponseSlot::default());
        let response = ResponseFuture::new(&slot, self.traffic.begin());
        if let Err(status) = self.check(&request) {
            slot.respond(refusal_response(status));
            return response;
        }
        let held = self.context.allowance().map_or(Some(None), |allowance| {
            let (headers, uri) = (head_bytes(request.headers()), request.uri());
            let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
            let bytes = REQUEST_BYTES + headers + target;
            let body_bytes = match request.version() {
                _ if request.body().is_end_stream() => 0,
                Version::HTTP_2 => {
                    let bodies = self.traffic.bodies.hold(allowance)?;
                    request.extensions_mut().insert(bodies);
                    0
                }
                _ => BODY_BYTES,
            };
            allowance.hold(bytes + body_bytes).map(Some)
        });
        let Some(held) = held else {
            slot.respond(refusal_response(StatusCode::SERVICE_UNAVAILABLE));
            return response;
        };
        let (server, connection) = (self.server.number, self.connection);
        let request = Some(Box::new(request));
        self.server.inbox.push(Arrived { server, connection, request, slot, held });
        response
    }
}

impl Service {
    /// The status of the refusal of a request that a script is not to be given.
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
        // The scan has counted those of HTTP/1.
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

/// A response that is not the script's; the connection is closed after it.
pub fn refusal_response(status: StatusCode) -> Response<Outgoing> {
    let text = status.canonical_reason().unwrap_or_default();
    let mut response = Response::new(Outgoing::whole(Bytes::from(format!("{text}\n")), None));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(DATE, date());
    response
}

/// The same as bytes of HTTP/1.1, for a request that hyper has not read.
pub(super) fn refusal_bytes(status: u16) -> String {
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

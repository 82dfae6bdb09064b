//! A server's connection: which protocol it speaks, and polling it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};

use bytes::BytesMut;
use http::{HeaderValue, header};
use hyper::server::conn::{http1, http2};

use super::pace::{Due, Pace, WINDOW};
use super::plain::{self, HeadWriter};
use super::ready::{Item, ItemWaker};
use super::response::{ResponseFuture, ResponseSlot, Traffic};
use super::scan::Scan;
use super::server::{Server, Service, refusal_bytes};
use super::tasks::Tasks;
use super::wire::{Io, Next, Wire};
use crate::buf::fill_block;
use crate::error::Code;
use crate::message::Held;
use crate::sched::Context;
use crate::sync::lock;
use crate::{net, rt};

/// The first bytes of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that are received at once while the protocol is unknown.
const FIRST_BYTES: usize = 4096;

/// Nanoseconds after which an idle connection does without hyper, and its memory.
const HYPER_IDLE: u64 = 1_000_000_000;

/// About how many bytes an idle connection takes, and how many more with HTTP/2.
pub const CONNECTION_BYTES: usize = 12 * 1024;
const HTTP2_BYTES: usize = 24 * 1024;

/// The status for a client that is too slow.
const TIMED_OUT: u16 = 408;

enum Protocol {
    /// The handshake of TLS.
    #[cfg(feature = "tls")]
    Handshake,
    /// This much was received, and may be the beginning of either protocol.
    Unknown(BytesMut),
    /// HTTP/1 without hyper, which is made once a request is not plain: no request is in flight, or
    /// a plain one is.
    Plain(Option<ResponseFuture>),
    Http1(Pin<Box<http1::Connection<Io, Service>>>),
    Http2(Pin<Box<http2::Connection<Io, Service, Tasks>>>, Tasks),
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first request, or the rest of a head.
    Head,
    /// The next request.
    Idle,
    /// Responses, or the peer to take them.
    Busy,
}

/// What was received without hyper.
enum Received {
    /// Nothing yet, or a request that is in the inbox now.
    Nothing,
    /// Something that hyper has to read.
    Other,
    /// The end.
    End,
}

/// A server's connection.
pub struct Connection {
    server: Arc<Server>,
    key: u64,
    protocol: Protocol,
    wire: Arc<Mutex<Wire>>,
    wakes: Arc<ItemWaker>,
    waker: Waker,
    traffic: Arc<Traffic>,
    context: Arc<Context>,
    phase: Phase,
    /// When this phase began.
    since: u64,
    /// How fast the peer takes what is sent.
    pace: Option<Pace>,
    is_closing: bool,
    /// When an idle connection of HTTP/2 was asked to end.
    closing_since: Option<u64>,
    /// What it counts for the context.
    held: Option<Held>,
}

impl Connection {
    /// Takes a connection that has just been accepted, under this key.
    pub fn new(
        server: &Arc<Server>,
        net: net::Connection,
        key: u64,
        context: &Arc<Context>,
        held: Option<Held>,
    ) -> Self {
        net.set_nodelay(true);
        let (wakes, waker) = ItemWaker::new(server.ready(), Item::Connection(key));
        waker.wake_by_ref();
        let protocol = Protocol::Unknown(BytesMut::new());
        #[cfg(feature = "tls")]
        let (mut net, mut protocol) = (net, protocol);
        #[cfg(feature = "tls")]
        if let Some(config) = &server.tls {
            let session = match server.http2 {
                true => config.session_offering(&[b"h2", b"http/1.1"]),
                false => config.session(None),
            };
            let begun = session.ok().map(|session| net.start_tls(session, 1));
            debug_assert_eq!(begun, Some(Ok(())), "a fresh connection can begin TLS");
            protocol = Protocol::Handshake;
        }
        Connection {
            server: Arc::clone(server),
            key,
            protocol,
            wire: Arc::new(Mutex::new(Wire::new(net, context))),
            wakes,
            waker,
            traffic: Arc::new(Traffic::new(context.allowance())),
            context: Arc::clone(context),
            phase: Phase::Head,
            since: rt::now(),
            pace: None,
            is_closing: false,
            closing_since: None,
            held,
        }
    }

    /// The number of its server.
    pub fn server(&self) -> u64 {
        self.server.number
    }

    /// The socket is readable.
    pub fn on_readable(&mut self) {
        lock(&self.wire).on_readable();
        self.waker.wake_by_ref();
    }

    /// The socket is writable.
    pub fn on_writable(&mut self) {
        if lock(&self.wire).on_writable() {
            self.waker.wake_by_ref();
        }
        #[cfg(feature = "tls")]
        if matches!(self.protocol, Protocol::Handshake) {
            self.waker.wake_by_ref();
        }
    }

    /// Calls `body` with the socket.
    pub fn with_net<R>(&self, body: impl FnOnce(&mut net::Connection) -> R) -> R {
        body(&mut lock(&self.wire).net)
    }

    /// Polls the task in a slot, which was woken.
    pub fn run_task(&mut self, slot: usize) {
        if let Protocol::Http2(_, tasks) = &self.protocol {
            tasks.clone().run(slot);
        }
    }

    /// Does what can be done at the time `now`, in nanoseconds; ready once the connection is over.
    pub fn poll(&mut self, now: u64) -> Poll<()> {
        self.wakes.rearm();
        let result = loop {
            let cx = &mut TaskContext::from_waker(&self.waker);
            match &mut self.protocol {
                #[cfg(feature = "tls")]
                Protocol::Handshake => match self.finish_handshake() {
                    Poll::Ready(true) => continue,
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Protocol::Unknown(_) => match self.detect_protocol() {
                    Poll::Ready(true) => continue,
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Protocol::Plain(None) => match self.next_request() {
                    Received::Nothing => break Poll::Pending,
                    Received::End => break Poll::Ready(()),
                    Received::Other => self.begin_hyper(None),
                },
                Protocol::Plain(Some(_)) => match self.respond() {
                    true => {}
                    false => break Poll::Pending,
                },
                Protocol::Http1(connection) => break connection.as_mut().poll(cx).map(drop),
                Protocol::Http2(connection, _) => break connection.as_mut().poll(cx).map(drop),
            }
        };
        if result.is_pending() {
            if self.traffic.in_flight() == 0 && !lock(&self.wire).wants_room {
                self.release_end();
            }
            self.update_phase(now);
            self.count_held();
            return Poll::Pending;
        }
        // The peer is told what it has done wrong, unless a response has begun.
        let mut wire = lock(&self.wire);
        if let Some(refusal) = wire.refusal
            && !wire.has_said_close
            && !wire.has_bad_body(self.traffic.begun())
        {
            wire.net.stage(refusal_bytes(refusal.status()).as_bytes());
        }
        Poll::Ready(())
    }

    /// Whether the peer has ended the stream and hyper does not know.
    pub fn has_withheld_end(&self) -> bool {
        lock(&self.wire).has_withheld_end()
    }

    /// Lets hyper see the end of the stream, if it was withheld.
    pub fn release_end(&self) {
        let mut wire = lock(&self.wire);
        if wire.has_withheld_end() {
            wire.withholds_end = false;
            self.waker.wake_by_ref();
        }
    }

    /// Counts the bytes that it holds for the context.
    fn count_held(&mut self) {
        let Some(held) = &mut self.held else { return };
        let wire = lock(&self.wire);
        let protocol = if matches!(self.protocol, Protocol::Http2(..)) { HTTP2_BYTES } else { 0 };
        held.set(CONNECTION_BYTES + protocol + wire.held_bytes());
        if !wire.wants_room {
            self.traffic.heads.clear();
        }
    }

    fn update_phase(&mut self, now: u64) {
        let is_busy = self.traffic.in_flight() > 0;
        let phase = match &self.protocol {
            _ if is_busy => Phase::Busy,
            Protocol::Http2(..) => Phase::Idle,
            Protocol::Plain(_) | Protocol::Http1(_) if self.traffic.begun() > 0 => {
                match lock(&self.wire).has_half_a_head() {
                    true => Phase::Head,
                    false => Phase::Idle,
                }
            }
            _ => Phase::Head,
        };
        if phase != self.phase {
            (self.phase, self.since, self.pace) = (phase, now, None);
        }
    }

    /// After a poll: whether the body of the last request was refused, the result of `note`, and
    /// how many bytes were received since the last call.
    pub fn take_stock(
        &self,
        note: impl FnOnce(&mut net::Connection) -> bool,
    ) -> (bool, bool, usize) {
        let mut wire = lock(&self.wire);
        let is_bad = wire.has_bad_body(self.traffic.begun());
        (is_bad, note(&mut wire.net), wire.take_received())
    }

    /// Whether the peer has taken too long at the time `now`, in nanoseconds.
    pub fn check(&mut self, now: u64) -> Due {
        let server = Arc::clone(&self.server);
        let limits = &server.limits;
        match self.phase {
            Phase::Head if limits.head_timeout > 0 => {
                let end = self.since.saturating_add(limits.head_timeout);
                if now < end {
                    return Due::At(end);
                }
                let mut wire = lock(&self.wire);
                if wire.has_half_a_head() && !wire.has_said_close {
                    wire.net.stage(refusal_bytes(TIMED_OUT).as_bytes());
                }
                Due::Over
            }
            Phase::Head => Due::Never,
            Phase::Idle => {
                let rested = self.since.saturating_add(HYPER_IDLE);
                let mut due = Due::Never;
                if now < rested && matches!(self.protocol, Protocol::Http1(_)) {
                    due = Due::At(rested);
                } else {
                    self.release_hyper();
                }
                if let Some(since) = self.closing_since {
                    let end = since.saturating_add(WINDOW);
                    return if now < end { Due::At(end) } else { Due::Over };
                }
                let end = self.since.saturating_add(limits.idle_timeout);
                match due {
                    _ if limits.idle_timeout > 0 && now >= end => self.close(),
                    Due::Never if limits.idle_timeout > 0 => Due::At(end),
                    due => due,
                }
            }
            Phase::Busy if limits.body_rate > 0 => self.check_pace(now),
            // To see it become idle.
            Phase::Busy => Due::At(now + WINDOW),
        }
    }

    /// Whether the peer takes what it is sent at the least rate.
    fn check_pace(&mut self, now: u64) -> Due {
        let (is_waiting, moved) = lock(&self.wire).progress();
        // A peer may take what was sent, and never open the window for more.
        let is_waiting = is_waiting || self.traffic.is_http2() && self.traffic.unsent() > 0;
        self.pace = self.pace.filter(|_| is_waiting);
        let Some(pace) = &mut self.pace else {
            self.pace = is_waiting.then(|| Pace::new(now, moved));
            return Due::At(now + WINDOW);
        };
        let due = pace.check(now, moved, self.server.limits.body_rate);
        if due == Due::Over {
            // What waits is of no use to the peer any more.
            lock(&self.wire).net.writer().abandon(Code::TIMED_OUT);
        }
        due
    }

    /// Takes no more requests, and ends once those it has received are answered: [`Due::Over`] if
    /// they are.
    pub fn close(&mut self) -> Due {
        self.is_closing = true;
        if self.traffic.in_flight() == 0 && !matches!(self.protocol, Protocol::Http2(..)) {
            // Requests that the system has received count too.
            lock(&self.wire).on_readable();
            if self.poll(rt::now()).is_ready() {
                return Due::Over;
            }
        }
        let is_idle = self.traffic.in_flight() == 0;
        match &mut self.protocol {
            Protocol::Http1(connection) if !is_idle => connection.as_mut().graceful_shutdown(),
            // The response in flight will have `connection: close`.
            Protocol::Plain(Some(_)) => return Due::Never,
            Protocol::Http2(connection, _) => {
                connection.as_mut().graceful_shutdown();
                self.closing_since = is_idle.then(rt::now);
            }
            _ => return Due::Over,
        }
        self.waker.wake_by_ref();
        self.closing_since.map_or(Due::Never, |since| Due::At(since + WINDOW))
    }

    /// Ready once the handshake of TLS has decided on a protocol; false if it has failed.
    #[cfg(feature = "tls")]
    fn finish_handshake(&mut self) -> Poll<bool> {
        let mut wire = lock(&self.wire);
        let Some((_, result)) = wire.net.advance_tls() else { return Poll::Pending };
        if result.is_err() {
            return Poll::Ready(false);
        }
        let alpn = wire.net.tls().and_then(|(details, _)| details?.alpn);
        drop(wire);
        if alpn.as_deref() == Some(b"h2") && self.server.http2 {
            self.begin_http2();
        } else {
            self.begin_http1();
        }
        Poll::Ready(true)
    }

    /// Ready once the first bytes tell the protocol; false if the peer sends none.
    fn detect_protocol(&mut self) -> Poll<bool> {
        if !self.server.http2 {
            self.begin_http1();
            return Poll::Ready(true);
        }
        let Protocol::Unknown(known) = &mut self.protocol else { return Poll::Ready(true) };
        let mut wire = lock(&self.wire);
        let read = fill_block(known, FIRST_BYTES, |space| match wire.receive(space) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        });
        match read {
            Ok(count) if count > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            _ => return Poll::Ready(false),
        }
        if known.len() < PREFACE.len() && PREFACE.starts_with(known) {
            drop(wire);
            return self.detect_protocol();
        }
        let is_http2 = known.starts_with(PREFACE);
        wire.net.unreceive(std::mem::take(known).freeze());
        drop(wire);
        if is_http2 {
            self.begin_http2()
        } else {
            self.begin_http1()
        }
        Poll::Ready(true)
    }

    fn service(&self) -> (Io, Service) {
        let service = Service {
            server: Arc::clone(&self.server),
            connection: self.key,
            traffic: Arc::clone(&self.traffic),
            context: Arc::clone(&self.context),
            first: Mutex::new(None),
        };
        (Io(Arc::clone(&self.wire)), service)
    }

    fn next_request(&mut self) -> Received {
        let mut wire = lock(&self.wire);
        let head = match wire.next() {
            Poll::Pending => return Received::Nothing,
            Poll::Ready(Ok(Next::Plain(head))) => head,
            Poll::Ready(Ok(Next::Other)) => return Received::Other,
            Poll::Ready(Ok(Next::End) | Err(_)) => return Received::End,
        };
        match self.server.receive_plain(head, self.key, &self.waker, &self.context) {
            Ok(slot) => {
                let response = ResponseFuture::new(&slot, self.traffic.begin());
                self.protocol = Protocol::Plain(Some(response));
                Received::Nothing
            }
            Err(head) => {
                wire.pass(head.bytes());
                Received::Other
            }
        }
    }

    /// Writes the response to a plain request; false if it is not there yet.
    fn respond(&mut self) -> bool {
        let Protocol::Plain(Some(waiting)) = &self.protocol else { return true };
        let is_written = waiting.peek(|response| {
            if self.is_closing {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            let body = response.body().as_whole()?;
            let add = |head: &mut HeadWriter<'_>| head.add_all(response.headers());
            let send = |bytes: &[u8]| {
                let mut wire = lock(&self.wire);
                wire.has_said_close |= self.is_closing;
                wire.write_plain(bytes)
            };
            plain::write_response(response.status(), add, body, rt::now(), send)
        });
        let Some(is_written) = is_written else { return false };
        let Protocol::Plain(waiting) = std::mem::replace(&mut self.protocol, Protocol::Plain(None))
        else {
            return true;
        };
        if is_written != Some(true) {
            // Hyper reads the request again, and is given the response at once.
            if let Some(head) = waiting.as_ref().and_then(|waiting| waiting.slot.plain_head()) {
                lock(&self.wire).pass(head.bytes());
            }
            self.begin_hyper(waiting);
        }
        true
    }

    /// Writes the response to the plain request of `slot`, which stays empty, at the time `now` in
    /// nanoseconds; false if the response has to go through the slot.
    pub fn respond_plain(&mut self, slot: &Arc<ResponseSlot>, bytes: &[u8], now: u64) -> bool {
        let Protocol::Plain(Some(waiting)) = &self.protocol else { return false };
        if self.is_closing || !Arc::ptr_eq(&waiting.slot, slot) {
            return false;
        }
        let mut wire = lock(&self.wire);
        if !wire.write_plain(bytes) {
            return false;
        }
        let may_read = wire.net.may_receive();
        drop(wire);
        self.protocol = Protocol::Plain(None);
        if may_read {
            self.waker.wake_by_ref();
        }
        (self.phase, self.since, self.pace) = (Phase::Idle, now, None);
        true
    }

    fn begin_http1(&mut self) {
        let limits = &self.server.limits;
        lock(&self.wire).scan = Some(Scan::new(limits.head_bytes, limits.headers));
        self.protocol = Protocol::Plain(None);
    }

    /// Has hyper take over; `first` is the response to the request that it reads first, if that is
    /// in the inbox already.
    fn begin_hyper(&mut self, first: Option<ResponseFuture>) {
        let (io, mut service) = self.service();
        service.first = Mutex::new(first);
        let connection = self.server.http1().serve_connection(io, service);
        self.protocol = Protocol::Http1(Box::pin(connection));
    }

    fn begin_http2(&mut self) {
        self.traffic.set_http2();
        lock(&self.wire).withholds_end = true;
        let (io, service) = self.service();
        let tasks = Tasks::new(self.server.ready(), self.key);
        let builder = self.server.http2(tasks.clone(), self.held.is_some());
        let connection = builder.serve_connection(io, service);
        self.protocol = Protocol::Http2(Box::pin(connection), tasks);
    }

    /// Drops hyper's state of an idle connection, which takes ten times the memory of ours.
    fn release_hyper(&mut self) {
        let is_idle = self.phase == Phase::Idle && self.traffic.in_flight() == 0;
        if !is_idle || self.is_closing || !matches!(self.protocol, Protocol::Http1(_)) {
            return;
        }
        let mut wire = lock(&self.wire);
        let is_at_head = wire.scan.as_ref().is_some_and(Scan::is_at_head);
        if wire.refusal.is_some() || wire.net.waiting() > 0 || wire.wants_room || !is_at_head {
            return;
        }
        let Protocol::Http1(connection) =
            std::mem::replace(&mut self.protocol, Protocol::Plain(None))
        else {
            return;
        };
        let parts = Pin::into_inner(connection).into_parts();
        // Mostly empty: hyper was given complete heads, and has made a request of each.
        if !parts.read_buf.is_empty() {
            wire.give_back(&parts.read_buf);
        }
        wire.read_most = 0;
        drop(wire);
        self.count_held();
    }

    /// Ends the connection, and returns its socket unless hyper still holds on to it. What was
    /// received behind the last request can be read there.
    pub fn into_net(self) -> Option<net::Connection> {
        let Connection { protocol, wire, .. } = self;
        let mut read = None;
        match protocol {
            // Both hold the socket.
            Protocol::Http2(connection, tasks) => {
                drop(connection);
                tasks.clear();
            }
            Protocol::Http1(connection) => read = Some(Pin::into_inner(connection).into_parts()),
            _ => {}
        }
        let read = read.map(|parts| parts.read_buf).unwrap_or_default();
        let mut wire = Arc::into_inner(wire)?.into_inner().unwrap_or_else(PoisonError::into_inner);
        wire.give_back(&read);
        Some(wire.net)
    }
}

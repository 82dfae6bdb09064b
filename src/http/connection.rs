//! A server's connection: which protocol it speaks, and one look at it at a time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};

use bytes::BytesMut;
use http::{HeaderValue, header};
use hyper::server::conn::{http1, http2};

use super::answer::{Answer, Traffic, Waiting};
use super::lines::{self, Head};
use super::ready::{Item, Wakes};
use super::scan::Scan;
use super::server::{Server, Service, lines_of};
use super::tasks::Tasks;
use super::wire::{Io, Next, Wire};
use crate::buf::fill_block;
use crate::error::Code;
use crate::message::Held;
use crate::net;
use crate::rt;
use crate::sched::Context;
use crate::sync::lock;

/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first read of a connection takes.
const FIRST_BYTES: usize = 4096;

/// How long a peer's progress is looked at before it is judged, in nanoseconds.
const WINDOW: u64 = 10_000_000_000;

/// Nanoseconds after which a connection without a request gives memory back.
const REST: u64 = 1_000_000_000;

/// About how many bytes a connection takes while it is not busy, and HTTP/2 besides.
pub const CONNECTION_BYTES: usize = 12 * 1024;
const HTTP2_BYTES: usize = 24 * 1024;

/// Too slow: what the client is told, unless an answer has begun.
const TIMED_OUT: u16 = 408;

/// The protocol of a connection.
enum Protocol {
    /// TLS is being agreed on.
    #[cfg(feature = "tls")]
    Handshake,
    /// So much has come, and is no sign yet.
    Unknown(BytesMut),
    /// HTTP/1 without hyper, which is made for a request that is not plain: nothing is going on,
    /// or a plain one is being answered.
    Plain(Option<Waiting>),
    Http1(Pin<Box<http1::Connection<Io, Service>>>),
    Http2(Pin<Box<http2::Connection<Io, Service, Tasks>>>, Tasks),
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first request, or the rest of one's head.
    Head,
    /// The next request.
    Idle,
    /// Answers, or that the peer takes them.
    Busy,
}

/// What there is to be done before hyper is needed.
enum Asked {
    /// Nothing, or a request was handed out.
    Nothing,
    /// What comes next is hyper's.
    Other,
    /// Nothing comes any more.
    End,
}

/// When a connection is to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Then.
    At(u64),
    /// Only if something happens.
    Never,
    /// Now: its time is over.
    Over,
}

/// A server's connection.
pub struct Connection {
    server: Arc<Server>,
    key: u64,
    protocol: Protocol,
    wire: Arc<Mutex<Wire>>,
    wakes: Arc<Wakes>,
    waker: Waker,
    traffic: Arc<Traffic>,
    context: Arc<Context>,
    phase: Phase,
    /// Since when it is in that phase.
    since: u64,
    /// When its progress was looked at last, and how far it was.
    progress: Option<(u64, u64)>,
    is_closing: bool,
    /// When it was asked to end, while nothing went on.
    asked: Option<u64>,
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
        let (wakes, waker) = Wakes::new(server.ready(), Item::Connection(key));
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
            progress: None,
            is_closing: false,
            asked: None,
            held,
        }
    }

    /// The number of its server.
    pub fn server(&self) -> u64 {
        self.server.number
    }

    /// The socket has something to read.
    pub fn on_readable(&mut self) {
        lock(&self.wire).on_readable();
        self.waker.wake_by_ref();
    }

    /// The socket takes more.
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

    /// Goes on with the task in a slot, which was woken.
    pub fn run_task(&mut self, slot: usize) {
        if let Protocol::Http2(_, tasks) = &self.protocol {
            tasks.clone().run(slot);
        }
    }

    /// Goes on as far as possible, at the time `now` in nanoseconds; ready once it is over.
    pub fn poll(&mut self, now: u64) -> Poll<()> {
        self.wakes.begin();
        let result = loop {
            let cx = &mut TaskContext::from_waker(&self.waker);
            match &mut self.protocol {
                #[cfg(feature = "tls")]
                Protocol::Handshake => match self.agree() {
                    Poll::Ready(true) => continue,
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Protocol::Unknown(_) => match self.learn() {
                    Poll::Ready(true) => continue,
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Protocol::Plain(None) => match self.ask() {
                    Asked::Nothing => break Poll::Pending,
                    Asked::End => break Poll::Ready(()),
                    Asked::Other => self.begin_hyper(None),
                },
                Protocol::Plain(Some(_)) => match self.answer() {
                    true => {}
                    false => break Poll::Pending,
                },
                Protocol::Http1(connection) => break connection.as_mut().poll(cx).map(drop),
                Protocol::Http2(connection, _) => break connection.as_mut().poll(cx).map(drop),
            }
        };
        if result.is_pending() {
            if self.traffic.in_flight() == 0 && !lock(&self.wire).wants_room {
                self.tell_end();
            }
            self.note_phase(now);
            self.count();
            return Poll::Pending;
        }
        // What has gone wrong is the peer's affair, who is told as far as that is possible.
        let mut wire = lock(&self.wire);
        if let Some(refusal) = wire.refusal
            && !wire.is_closed
            && !wire.has_bad_body(self.traffic.called())
        {
            wire.net.stage(lines_of(refusal.status()).as_bytes());
        }
        Poll::Ready(())
    }

    /// Whether the peer has said all, and whoever reads does not know.
    pub fn has_kept_end(&self) -> bool {
        lock(&self.wire).has_kept_end()
    }

    /// Tells whoever reads that the peer has said all, if it has.
    pub fn tell_end(&self) {
        let mut wire = lock(&self.wire);
        if wire.has_kept_end() {
            wire.keeps_end = false;
            self.waker.wake_by_ref();
        }
    }

    /// Counts what it holds.
    fn count(&mut self) {
        let Some(held) = &mut self.held else { return };
        let wire = lock(&self.wire);
        let protocol = if matches!(self.protocol, Protocol::Http2(..)) { HTTP2_BYTES } else { 0 };
        held.set(CONNECTION_BYTES + protocol + wire.held_bytes());
        if !wire.wants_room {
            self.traffic.heads.clear();
        }
    }

    fn note_phase(&mut self, now: u64) {
        let is_busy = self.traffic.in_flight() > 0;
        let phase = match &self.protocol {
            _ if is_busy => Phase::Busy,
            Protocol::Http2(..) => Phase::Idle,
            Protocol::Plain(_) | Protocol::Http1(_) if self.traffic.called() > 0 => {
                match lock(&self.wire).has_half_a_head() {
                    true => Phase::Head,
                    false => Phase::Idle,
                }
            }
            _ => Phase::Head,
        };
        if phase != self.phase {
            (self.phase, self.since, self.progress) = (phase, now, None);
        }
    }

    /// After a look at it: whether the body of a request that was handed out was refused, what
    /// `note` finds, and how many bytes were received since this was asked last.
    pub fn take_stock(
        &self,
        note: impl FnOnce(&mut net::Connection) -> bool,
    ) -> (bool, bool, usize) {
        let mut wire = lock(&self.wire);
        let is_bad = wire.has_bad_body(self.traffic.called());
        (is_bad, note(&mut wire.net), wire.take_received())
    }

    /// Judges whether the peer takes too long, at the time `now` in nanoseconds.
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
                if wire.has_half_a_head() && !wire.is_closed {
                    wire.net.stage(lines_of(TIMED_OUT).as_bytes());
                }
                Due::Over
            }
            Phase::Head => Due::Never,
            Phase::Idle => {
                let rested = self.since.saturating_add(REST);
                let mut due = Due::Never;
                if now < rested && matches!(self.protocol, Protocol::Http1(_)) {
                    due = Due::At(rested);
                } else {
                    self.rest();
                }
                if let Some(asked) = self.asked {
                    let end = asked.saturating_add(WINDOW);
                    return if now < end { Due::At(end) } else { Due::Over };
                }
                let end = self.since.saturating_add(limits.idle_timeout);
                match due {
                    _ if limits.idle_timeout > 0 && now >= end => self.close(),
                    Due::Never if limits.idle_timeout > 0 => Due::At(end),
                    due => due,
                }
            }
            Phase::Busy if limits.body_rate > 0 => self.check_progress(now),
            // It is going to be idle.
            Phase::Busy => Due::At(now + WINDOW),
        }
    }

    /// Whether the peer takes what it is sent, at the rate that is wanted.
    fn check_progress(&mut self, now: u64) -> Due {
        let (is_waiting, moved) = lock(&self.wire).progress();
        // A peer may take what is on its way, and never let more come.
        let is_waiting = is_waiting || self.traffic.is_http2() && self.traffic.unsent() > 0;
        let (at, before) = match self.progress {
            Some(known) if is_waiting => known,
            _ => {
                self.progress = is_waiting.then_some((now, moved));
                return Due::At(now + WINDOW);
            }
        };
        if now < at + WINDOW {
            return Due::At(at + WINDOW);
        }
        let wanted = u128::from(self.server.limits.body_rate) * u128::from(now - at);
        if u128::from(moved.saturating_sub(before)) * 1_000_000_000 < wanted {
            // What waits is of no use to it any more.
            lock(&self.wire).net.writer().abandon(Code::TIMED_OUT);
            return Due::Over;
        }
        self.progress = Some((now, moved));
        Due::At(now + WINDOW)
    }

    /// Takes no more requests, and ends once those that have come are answered: [`Due::Over`] if
    /// that is now.
    pub fn close(&mut self) -> Due {
        self.is_closing = true;
        if self.traffic.in_flight() == 0 && !matches!(self.protocol, Protocol::Http2(..)) {
            // What the system has of it has come, too.
            lock(&self.wire).on_readable();
            if self.poll(rt::now()).is_ready() {
                return Due::Over;
            }
        }
        let is_idle = self.traffic.in_flight() == 0;
        match &mut self.protocol {
            Protocol::Http1(connection) if !is_idle => connection.as_mut().graceful_shutdown(),
            // Its answer says so.
            Protocol::Plain(Some(_)) => return Due::Never,
            Protocol::Http2(connection, _) => {
                connection.as_mut().graceful_shutdown();
                self.asked = is_idle.then(rt::now);
            }
            _ => return Due::Over,
        }
        self.waker.wake_by_ref();
        self.asked.map_or(Due::Never, |asked| Due::At(asked + WINDOW))
    }

    /// Goes on with the handshake of TLS, by which the protocol is known; false if there is none.
    #[cfg(feature = "tls")]
    fn agree(&mut self) -> Poll<bool> {
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

    /// Reads until it is known which protocol it is; false if there is none.
    fn learn(&mut self) -> Poll<bool> {
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
            return self.learn();
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

    /// Takes the next request, if it is a plain one.
    fn ask(&mut self) -> Asked {
        let mut wire = lock(&self.wire);
        let lines = match wire.next() {
            Poll::Pending => return Asked::Nothing,
            Poll::Ready(Ok(Next::Plain(lines))) => lines,
            Poll::Ready(Ok(Next::Other)) => return Asked::Other,
            Poll::Ready(Ok(Next::End) | Err(_)) => return Asked::End,
        };
        match self.server.hand_out(lines, self.key, &self.waker, &self.context) {
            Ok(answer) => {
                self.protocol = Protocol::Plain(Some(Waiting::new(&answer, self.traffic.begin())));
                Asked::Nothing
            }
            Err(lines) => {
                wire.pass(lines.bytes());
                Asked::Other
            }
        }
    }

    /// Goes on with the answer to a plain request; false if there is none.
    fn answer(&mut self) -> bool {
        let Protocol::Plain(Some(waiting)) = &self.protocol else { return true };
        let is_written = waiting.look(|response| {
            if self.is_closing {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            let body = response.body().as_whole()?;
            let add = |head: &mut Head<'_>| head.add_all(response.headers());
            let send = |bytes: &[u8]| {
                let mut wire = lock(&self.wire);
                wire.is_closed |= self.is_closing;
                wire.write_plain(bytes)
            };
            lines::write(response.status(), add, body, rt::now(), send)
        });
        let Some(is_written) = is_written else { return false };
        let Protocol::Plain(waiting) = std::mem::replace(&mut self.protocol, Protocol::Plain(None))
        else {
            return true;
        };
        if is_written != Some(true) {
            // Hyper is shown the request, whose answer is there.
            if let Some(lines) = waiting.as_ref().and_then(|waiting| waiting.answer.lines()) {
                lock(&self.wire).pass(lines.bytes());
            }
            self.begin_hyper(waiting);
        }
        true
    }

    /// Answers a plain request with these bytes, past what its answer otherwise goes through; false
    /// if they are to go through that.
    pub fn answer_with(&mut self, answer: &Arc<Answer>, bytes: &[u8], now: u64) -> bool {
        let Protocol::Plain(Some(waiting)) = &self.protocol else { return false };
        if self.is_closing || !Arc::ptr_eq(&waiting.answer, answer) {
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
        (self.phase, self.since, self.progress) = (Phase::Idle, now, None);
        true
    }

    fn begin_http1(&mut self) {
        let limits = &self.server.limits;
        lock(&self.wire).scan = Some(Scan::new(limits.head_bytes, limits.headers));
        self.protocol = Protocol::Plain(None);
    }

    /// Has hyper go on, which is given the answer to its first request, if that was asked before.
    fn begin_hyper(&mut self, first: Option<Waiting>) {
        let (io, mut service) = self.service();
        service.first = Mutex::new(first);
        let connection = self.server.http1().serve_connection(io, service);
        self.protocol = Protocol::Http1(Box::pin(connection));
    }

    fn begin_http2(&mut self) {
        self.traffic.set_http2();
        lock(&self.wire).keeps_end = true;
        let (io, service) = self.service();
        let tasks = Tasks::new(self.server.ready(), self.key);
        let builder = self.server.http2(tasks.clone(), self.held.is_some());
        let connection = builder.serve_connection(io, service);
        self.protocol = Protocol::Http2(Box::pin(connection), tasks);
    }

    /// Nothing is going on: hyper's side is not needed, and takes ten times what ours does.
    fn rest(&mut self) {
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
        // It was given whole heads, and has made a request of each: there is nothing.
        if !parts.read_buf.is_empty() {
            wire.unread(&parts.read_buf);
        }
        wire.most_read = 0;
        drop(wire);
        self.count();
    }

    /// Ends it: the socket, for whoever closes it, if nothing of hyper's holds on to it. What was
    /// received and is no part of the requests before is still to be read there.
    pub fn into_net(self) -> Option<net::Connection> {
        let Connection { protocol, wire, .. } = self;
        let mut read = None;
        match protocol {
            // Both hold on to the socket.
            Protocol::Http2(connection, tasks) => {
                drop(connection);
                tasks.clear();
            }
            Protocol::Http1(connection) => read = Some(Pin::into_inner(connection).into_parts()),
            _ => {}
        }
        let read = read.map(|parts| parts.read_buf).unwrap_or_default();
        let mut wire = Arc::into_inner(wire)?.into_inner().unwrap_or_else(PoisonError::into_inner);
        wire.unread(&read);
        Some(wire.net)
    }
}

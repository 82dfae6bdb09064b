//! Connections to servers.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};

use futures::TryFutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};

use super::body::Outgoing;
use super::connection::CONNECTION_BYTES;
use super::count::BODIES_BYTES;
use super::ready::{Item, ItemWaker, Ready};
use super::server::windows;
use super::tasks::Tasks;
use super::wire::{Io, Wire};
use crate::error::Code;
use crate::message::Held;
use crate::net;
use crate::sched::Context;
use crate::sync::lock;

/// The most size of hyper's read buffer, and so of the head of a response.
const BUFFER_BYTES: usize = 128 * 1024;

/// The most headers of a response.
const HEADERS_MAX: usize = 4096;

/// The head of a response, and its body, once they come.
pub type PendingResponse = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

type Connection1 = http1::Connection<Io, Outgoing>;
type Connection2 = http2::Connection<Io, Outgoing, Tasks>;

/// The state of hyper's side.
enum Protocol {
    Making(Pin<Box<dyn Future<Output = hyper::Result<Protocol>> + Send>>),
    Http1(http1::SendRequest<Outgoing>, Pin<Box<Connection1>>),
    Http2(http2::SendRequest<Outgoing>, Pin<Box<Connection2>>),
}

/// A connection to a server.
pub struct Client {
    protocol: Protocol,
    is_http2: bool,
    wire: Arc<Mutex<Wire>>,
    wakes: Arc<ItemWaker>,
    waker: Waker,
    tasks: Tasks,
    /// What it counts for the context.
    held: Option<Held>,
    /// Requests that the script has not let go of.
    pub users: usize,
}

impl Client {
    /// Takes a connection that is established, under this key.
    pub fn new(
        net: net::Connection,
        key: u64,
        is_http2: bool,
        ready: &Arc<Ready>,
        context: &Arc<Context>,
        held: Option<Held>,
    ) -> Client {
        net.set_nodelay(true);
        let (wakes, waker) = ItemWaker::new(ready, Item::Connection(key));
        let wire = Arc::new(Mutex::new(Wire::new(net, context)));
        let tasks = Tasks::new(ready, key);
        let io = Io(Arc::clone(&wire));
        let protocol = if is_http2 {
            let mut builder = http2::Builder::new(tasks.clone());
            let (stream, connection) = windows(held.is_some());
            builder.initial_stream_window_size(stream).initial_connection_window_size(connection);
            let made = builder.handshake(io);
            let made = made.map_ok(|(sender, one)| Protocol::Http2(sender, Box::pin(one)));
            Protocol::Making(Box::pin(made))
        } else {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(BUFFER_BYTES).max_headers(HEADERS_MAX);
            let made = builder.handshake(io);
            let made = made.map_ok(|(sender, one)| Protocol::Http1(sender, Box::pin(one)));
            Protocol::Making(Box::pin(made))
        };
        Client { protocol, is_http2, wire, wakes, waker, tasks, held, users: 0 }
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
    }

    /// Calls `body` with the socket.
    pub fn with_net<R>(&self, body: impl FnOnce(&mut net::Connection) -> R) -> R {
        body(&mut lock(&self.wire).net)
    }

    /// Why TLS has ended the connection, if it has.
    pub fn tls_failure(&self) -> Option<(Code, String)> {
        #[cfg(feature = "tls")]
        return lock(&self.wire).tls_failure();
        #[cfg(not(feature = "tls"))]
        None
    }

    /// Bytes that were received since the last call.
    pub fn take_received(&mut self) -> usize {
        lock(&self.wire).take_received()
    }

    /// Polls the task in a slot, which was woken.
    pub fn run_task(&mut self, slot: usize) {
        self.tasks.clone().run(slot);
    }

    /// Does what can be done; ready once the connection is over.
    pub fn poll(&mut self) -> Poll<()> {
        let result = self.poll_protocol();
        if let Some(held) = &mut self.held {
            let bodies = if self.is_http2 { BODIES_BYTES } else { 0 };
            held.set(CONNECTION_BYTES + bodies + lock(&self.wire).held_bytes());
        }
        result
    }

    fn poll_protocol(&mut self) -> Poll<()> {
        self.wakes.rearm();
        let waker = self.waker.clone();
        let mut cx = TaskContext::from_waker(&waker);
        loop {
            match &mut self.protocol {
                Protocol::Making(made) => match made.as_mut().poll(&mut cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(protocol)) => self.protocol = protocol,
                },
                Protocol::Http1(_, connection) => {
                    return connection.as_mut().poll(&mut cx).map(drop);
                }
                Protocol::Http2(_, connection) => {
                    let result = connection.as_mut().poll(&mut cx).map(drop);
                    if result.is_ready() {
                        // Responses that came before the end are still to be had.
                        self.tasks.run_all();
                    }
                    return result;
                }
            }
        }
    }

    /// Whether it speaks HTTP/2, so that requests share it.
    pub fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// Whether a request may be sent now.
    pub fn is_free(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(sender, _) => sender.is_ready(),
            Protocol::Http2(sender, _) => sender.is_ready(),
            Protocol::Making(_) => false,
        }
    }

    /// Sends a request; `None` while the connection is being made.
    pub fn send(&mut self, request: Request<Outgoing>) -> Option<PendingResponse> {
        match &mut self.protocol {
            Protocol::Http1(sender, _) => Some(Box::pin(sender.send_request(request))),
            Protocol::Http2(sender, _) => Some(Box::pin(sender.send_request(request))),
            Protocol::Making(_) => None,
        }
    }

    /// Ends the connection, and returns its socket unless hyper still holds on to it.
    pub fn into_net(self) -> Option<net::Connection> {
        let Client { protocol, wire, tasks, .. } = self;
        tasks.clear();
        drop(protocol);
        let wire = Arc::into_inner(wire)?.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some(wire.net)
    }
}

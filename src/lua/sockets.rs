//! The sockets of a context, and what was written to them and to those of others in a turn.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::attempts::Attempt;
use super::notice::{Notice, Notices};
use crate::error::Code;
use crate::frame::FrameError;
#[cfg(feature = "websocket")]
use crate::frame::websocket::{Close, Form, forget_packed};
#[cfg(feature = "http")]
use crate::http;
use crate::net::{
    Acceptor, Body, Connection, Connector, SharedUdpBatches, SharedWriters, SlotMap, UdpSocket,
    linger, linger_datagrams,
};
use crate::rt::{self, Listener};
use crate::sched::{Context, ReadyWaker};
#[cfg(feature = "tls")]
use crate::tls;

/// How websockets are closed whose context ends without a reason.
#[cfg(feature = "websocket")]
const AWAY: Close = Close { code: Close::AWAY, reason: String::new() };

/// The most replies, and the most bytes, that are written together.
const ANSWERS_MAX: usize = 64;
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The most bytes that are staged in a context with a memory limit, which are counted once they are
/// written.
const STAGED_MAX: usize = 4 << 20;

/// The kinds of readiness that wakers carry, beside the key of a socket.
pub(super) const KIND_TIMER: u64 = 0;
pub(super) const KIND_READ: u64 = 1;
pub(super) const KIND_WRITE: u64 = 2;
pub(super) const KIND_END: u64 = 3;

/// The source of readiness that a waker carries: a key and a kind.
pub(super) fn source(key: u64, kind: u64) -> u64 {
    key << 2 | kind
}

pub(super) enum Socket {
    Stream(Box<Connection>),
    Listener(Box<Acceptor>),
    Connecting(Box<Connector>),
    Udp(Box<UdpSocket>),
    #[cfg(feature = "http")]
    Http(Box<http::Connection>),
    #[cfg(feature = "http")]
    HttpClient(Box<http::Client>),
}

/// What is staged: only replies, which leave together, or anything.
#[derive(Debug)]
struct Answers {
    /// The connection of the last event, while the script has written to no other.
    key: u64,
    /// Connections with something staged, before that.
    dirty: usize,
    /// Nothing else is staged.
    are_all: bool,
    bytes: usize,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers { key: 0, dirty: 0, are_all: true, bytes: 0 }
    }
}

/// The sockets of one context; methods that need the context are given it.
pub(super) struct Sockets {
    pub(super) all: SlotMap<Socket>,
    /// By the key that the script has of each.
    pub(super) attempts: HashMap<u64, Attempt>,
    /// Connections, and datagram sockets, with something staged.
    dirty: Vec<u64>,
    answers: Answers,
    /// Connections of other contexts.
    pub(super) shared: SharedWriters,
    /// The connection whose frames are being handed to the script, while finalisers may run.
    pub(super) reading: u64,
    /// Datagram sockets of other contexts.
    pub(super) shared_udp: SharedUdpBatches,
    /// Configurations of TLS, by the keys in their userdata.
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Box<SlotMap<Arc<tls::Config>>>>,
    /// The state of HTTP, once it is used.
    #[cfg(feature = "http")]
    pub(super) http: Option<Box<super::http::Http>>,
    /// Bytes staged since the last flush, and how many of them are written before the turn ends.
    staged: usize,
    staged_max: usize,
}

impl Sockets {
    /// No sockets, for a context with this memory limit.
    pub(super) fn new(limit: usize) -> Sockets {
        Sockets {
            all: SlotMap::default(),
            attempts: HashMap::new(),
            dirty: Vec::new(),
            answers: Answers::default(),
            shared: SharedWriters::default(),
            reading: 0,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "http")]
            http: None,
            shared_udp: SharedUdpBatches::default(),
            staged: 0,
            staged_max: if limit == 0 { usize::MAX } else { (limit / 8).min(STAGED_MAX) },
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    #[inline]
    pub(super) fn stream(&mut self, key: u64) -> Option<&mut Connection> {
        match self.all.get_mut(key) {
            Some(Socket::Stream(connection)) => Some(connection),
            _ => None,
        }
    }

    /// The datagram socket under this key, if it is one.
    pub(super) fn udp(&mut self, key: u64) -> Option<&mut UdpSocket> {
        match self.all.get_mut(key) {
            Some(Socket::Udp(socket)) => Some(socket),
            _ => None,
        }
    }

    /// Stores a new connection.
    pub(super) fn add_stream(&mut self, stream: rt::Stream, context: &Arc<Context>) -> u64 {
        self.all.insert(|key| {
            let (read, write) = (source(key, KIND_READ), source(key, KIND_WRITE));
            Socket::Stream(Box::new(Connection::new(stream, context, read, write)))
        })
    }

    /// Stores a new listen socket.
    pub(super) fn add_listener(&mut self, listener: Listener, context: &Arc<Context>) -> u64 {
        self.all.insert(|key| {
            let acceptor = Acceptor::new(listener, context, source(key, KIND_READ));
            Socket::Listener(Box::new(acceptor))
        })
    }

    /// Stores a new datagram socket.
    pub(super) fn add_udp(&mut self, socket: rt::UdpSocket, context: &Arc<Context>) -> u64 {
        self.all.insert(|key| {
            let (read, write) = (source(key, KIND_READ), source(key, KIND_WRITE));
            Socket::Udp(Box::new(UdpSocket::new(socket, context, read, write)))
        })
    }

    /// Stages a datagram. `None` if there is no such socket; otherwise whether enough are staged to
    /// be sent.
    pub(super) fn write_udp(
        &mut self,
        key: u64,
        to: Option<SocketAddr>,
        body: Body<'_>,
        token: u64,
    ) -> Option<bool> {
        let socket = self.udp(key)?;
        let is_full = socket.staged.push(to, body, token);
        if !socket.is_dirty {
            socket.is_dirty = true;
            self.dirty.push(key);
        }
        Some(is_full)
    }

    /// Reacts to readiness of this kind. If the script is to be told, returns how many frames it
    /// waits for; 0 if none.
    pub(super) fn on_ready(
        &mut self,
        key: u64,
        kind: u64,
        context: &Arc<Context>,
        notices: &mut Notices,
    ) -> Option<usize> {
        match self.all.get_mut(key)? {
            Socket::Listener(listener) => {
                listener.on_ready();
                return Some(0);
            }
            Socket::Connecting(_) => self.advance(key, context, notices),
            Socket::Udp(socket) if kind == KIND_READ => {
                socket.on_ready();
                return Some(0);
            }
            Socket::Udp(socket) => socket.writer().on_ready(),
            Socket::Stream(connection) if kind == KIND_READ => match connection.on_ready() {
                Some(awaited) => {
                    self.answers.key = key;
                    return Some(awaited);
                }
                None => advance_tls(connection, notices),
            },
            #[cfg(feature = "http")]
            Socket::HttpClient(client) if kind == KIND_READ => client.on_readable(),
            #[cfg(feature = "http")]
            Socket::HttpClient(client) => client.on_writable(),
            #[cfg(feature = "http")]
            Socket::Http(_) if kind == KIND_END => self.watch_http(key, context),
            #[cfg(feature = "http")]
            Socket::Http(connection) if kind == KIND_READ => connection.on_readable(),
            #[cfg(feature = "http")]
            Socket::Http(connection) => connection.on_writable(),
            Socket::Stream(_) if kind == KIND_END => notices.push(Notice::Gone(key)),
            Socket::Stream(connection) => {
                connection.writer().on_ready();
                advance_tls(connection, notices);
            }
        }
        None
    }

    /// Lists a connection, other than a stream, that has enough staged to be written.
    #[cfg(feature = "http")]
    pub(super) fn list_dirty(&mut self, key: u64) {
        self.dirty.push(key);
        self.answers.are_all = false;
    }

    /// Whether nothing is staged.
    #[inline]
    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.shared.is_clean() && self.shared_udp.is_clean()
    }

    /// Counts bytes that were staged; true if they are enough for everything to be written.
    #[inline]
    #[must_use]
    pub(super) fn is_full_with(&mut self, bytes: usize) -> bool {
        self.staged += bytes;
        self.staged >= self.staged_max
    }

    /// Stages a frame: see [`Connection::write`]. `None` if there is no such connection.
    pub(super) fn write(
        &mut self,
        key: u64,
        body: Body<'_>,
        token: u64,
    ) -> Option<Result<bool, FrameError>> {
        let stream = self.stream(key)?;
        let result = stream.write(body, token);
        if result.is_ok() && !stream.is_dirty {
            stream.is_dirty = true;
            self.dirty.push(key);
        }
        Some(result)
    }

    /// Stages a frame of this form on a websocket.
    #[cfg(feature = "websocket")]
    pub(super) fn write_message(
        &mut self,
        key: u64,
        form: Form,
        body: Body<'_>,
        token: u64,
    ) -> Option<Result<bool, FrameError>> {
        let result = self.stream(key)?.write_message(form, body, token);
        if result.is_ok() {
            self.note_dirty(key);
        }
        Some(result)
    }

    /// Lists a connection for [`Sockets::flush`].
    #[cfg(feature = "websocket")]
    pub(super) fn note_dirty(&mut self, key: u64) {
        if let Some(stream) = self.stream(key)
            && !std::mem::replace(&mut stream.is_dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Stages a frame with a copy of these bytes, the usual case; false, with nothing done, in
    /// others.
    #[inline(always)]
    pub(super) fn write_plain(&mut self, key: u64, body: &[u8]) -> bool {
        let staged = self.staged + body.len();
        let Some(Socket::Stream(stream)) = self.all.get_mut(key) else { return false };
        if staged >= self.staged_max || !stream.write_plain(body) {
            return false;
        }
        self.staged = staged;
        if !stream.is_dirty {
            stream.is_dirty = true;
            self.dirty.push(key);
        }
        true
    }

    /// The script has handled the last event. While it writes nothing but replies, each on the
    /// connection of its event, they are written in lots: their bytes are still in the caches, and
    /// the receiver is woken for the first of a lot instead of for each. Anything else waits for
    /// the end of the turn, since more may follow on the same sockets.
    #[inline]
    pub(super) fn flush_answers(&mut self, context: &Arc<Context>, notices: &mut Notices) {
        let answers = &mut self.answers;
        let key = std::mem::take(&mut answers.key);
        if self.dirty.len() == answers.dirty {
            return;
        }
        if key == 0 || self.dirty.len() != answers.dirty + 1 || self.dirty.last() != Some(&key) {
            answers.are_all = false;
        }
        answers.dirty = self.dirty.len();
        if !answers.are_all || !self.shared.is_clean() {
            return;
        }
        if let Some(Socket::Stream(connection)) = self.all.get(key) {
            answers.bytes += connection.staged.bytes();
        }
        if answers.dirty >= ANSWERS_MAX || answers.bytes >= ANSWER_BYTES_MAX {
            self.flush(context, notices);
        }
    }

    /// Writes what was staged since the last time.
    pub(super) fn flush(&mut self, context: &Arc<Context>, notices: &mut Notices) {
        for key in self.dirty.drain(..) {
            let notify = |token, result| notices.done(token, result);
            match self.all.get_mut(key) {
                Some(Socket::Stream(connection)) => {
                    connection.is_dirty = false;
                    connection.flush(context, notify);
                }
                Some(Socket::Udp(socket)) => {
                    socket.is_dirty = false;
                    socket.flush(context, notify);
                }
                #[cfg(feature = "http")]
                Some(Socket::Http(connection)) => connection.with_net(|net| {
                    net.is_dirty = false;
                    net.flush(context, notify);
                }),
                #[cfg(feature = "http")]
                Some(Socket::HttpClient(client)) => client.with_net(|net| {
                    net.is_dirty = false;
                    net.flush(context, notify);
                }),
                _ => {}
            }
        }
        #[cfg(feature = "websocket")]
        forget_packed();
        self.answers = Answers::default();
        self.staged = 0;
        self.flush_shared(context, notices);
    }

    /// Writes what was staged for sockets of other contexts.
    pub(super) fn flush_shared(&mut self, context: &Arc<Context>, notices: &mut Notices) {
        self.shared.flush(context, |token, result| notices.done(token, result));
        self.shared_udp.flush(context, |token, result| notices.done(token, result));
    }

    /// See [`Connection::watch_end`]; the script is told by a notice.
    pub(super) fn watch_end(&mut self, key: u64, context: &Arc<Context>) -> Option<Code> {
        let waker = ReadyWaker::waker(context, source(key, KIND_END));
        self.stream(key)?.watch_end(&waker)
    }

    /// Closes a socket; what was written to it still leaves.
    pub(super) fn close(&mut self, key: u64, context: &Arc<Context>, notices: &mut Notices) {
        match self.all.remove(key) {
            Some(Socket::Stream(mut connection)) => {
                #[cfg(feature = "websocket")]
                connection.say_close(&AWAY);
                connection.flush(context, |token, result| notices.done(token, result));
                if connection.tls_token != 0 {
                    notices.fail(connection.tls_token, Code::SOCKET_CLOSED);
                }
                linger(*connection);
            }
            Some(Socket::Connecting(connector)) => {
                self.attempts.remove(&connector.token);
            }
            Some(Socket::Udp(mut socket)) => {
                socket.flush(context, |token, result| notices.done(token, result));
                linger_datagrams(socket.writer().clone());
            }
            #[cfg(feature = "http")]
            Some(Socket::Http(connection)) => {
                connection.into_net().into_iter().for_each(linger);
            }
            #[cfg(feature = "http")]
            Some(Socket::HttpClient(client)) => client.into_net().into_iter().for_each(linger),
            Some(Socket::Listener(..)) | None => {}
        }
    }

    /// Ends a connection's output after what was written; false if it was ended before.
    pub(super) fn shutdown(
        &mut self,
        key: u64,
        context: &Arc<Context>,
        notices: &mut Notices,
    ) -> bool {
        let Some(stream) = self.stream(key) else { return false };
        stream.flush(context, |token, result| notices.done(token, result));
        stream.writer().end()
    }

    /// Resets a connection; what was written is dropped.
    pub(super) fn abort(&mut self, key: u64, notices: &mut Notices) {
        if let Some(Socket::Stream(mut connection)) = self.all.remove(key) {
            let notify = |token, result| notices.done(token, result);
            connection.staged.refuse(Code::SOCKET_CLOSED, notify);
            connection.abort();
            if connection.tls_token != 0 {
                notices.fail(connection.tls_token, Code::SOCKET_CLOSED);
            }
        }
    }

    /// Closes all sockets; what was staged has been written.
    pub(super) fn close_all(&mut self, _context: &Arc<Context>) {
        let all: Vec<_> = self.all.drain().collect();
        for socket in all {
            match socket {
                #[cfg(feature = "websocket")]
                Socket::Stream(mut connection) => {
                    connection.say_close(&AWAY);
                    connection.flush(_context, |_, _| {});
                    linger(*connection);
                }
                #[cfg(not(feature = "websocket"))]
                Socket::Stream(connection) => linger(*connection),
                Socket::Udp(socket) => linger_datagrams(socket.writer().clone()),
                #[cfg(feature = "http")]
                Socket::Http(connection) => {
                    connection.into_net().into_iter().for_each(linger);
                }
                #[cfg(feature = "http")]
                Socket::HttpClient(client) => client.into_net().into_iter().for_each(linger),
                Socket::Listener(_) | Socket::Connecting(_) => {}
            }
        }
    }
}

/// Continues a handshake of TLS, if there is one.
#[cfg(feature = "tls")]
pub(super) fn advance_tls(connection: &mut Connection, notices: &mut Notices) {
    if let Some((token, result)) = connection.advance_tls() {
        notices.done(token, result);
    }
}

#[cfg(not(feature = "tls"))]
fn advance_tls(_: &mut Connection, _: &mut Notices) {}

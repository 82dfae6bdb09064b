//! Servers, and the connections they accept.

use std::sync::Arc;

#[cfg(feature = "tls")]
use mlua::ffi;

use super::super::native::nanoseconds;
use super::super::sockets::{KIND_READ, KIND_WRITE, Socket, source};
use super::{Http, ServerState};
use crate::error::Code;
use crate::http::{CONNECTION_BYTES, Connection, Due, Limits, Server};
use crate::logging::Seldom;
use crate::lua::host::{self, Host};
use crate::message::Allowance;
use crate::net;
use crate::vm::stack::{Nil, Stack};

/// Limits how often the log tells of refused connections.
static REFUSED: Seldom = Seldom::new();

/// native.http_serve(tls, http2, head_bytes, headers, body_bytes, head_timeout, idle_timeout,
/// body_rate): the number of a new server; if `http2` contradicts the protocols that TLS offers,
/// nil and whether these include HTTP/2.
pub(super) fn serve(lua: Stack<'_>) -> Result<u64, (Nil, bool)> {
    let limits = Limits {
        head_bytes: lua.number(3) as usize,
        headers: lua.number(4) as usize,
        body_bytes: lua.number(5) as u64,
        head_timeout: nanoseconds(lua.number(6)),
        idle_timeout: nanoseconds(lua.number(7)),
        body_rate: lua.number(8) as u64,
    };
    #[cfg_attr(not(feature = "tls"), allow(unused_mut, reason = "only TLS changes it"))]
    let mut http2 = lua.boolean(2);
    #[cfg(feature = "tls")]
    let tls = super::super::tls::config_at(lua, 1);
    #[cfg(feature = "tls")]
    if let Some(config) = &tls {
        let is_said = lua.kind(2) != ffi::LUA_TNIL;
        let offers = config.offers(b"h2");
        if is_said && offers != http2 && (offers || config.has_protocols()) {
            return Err((Nil, offers));
        }
        http2 |= offers;
    }
    Ok(host::with(|host| {
        let http = host.sockets.http.get_or_insert_default();
        let Http { servers, inbox, ready, .. } = &mut **http;
        servers.insert(|number| {
            #[allow(unused_mut, reason = "without TLS nothing is added")]
            let mut server = Server::new(number, limits, http2, inbox, ready);
            #[cfg(feature = "tls")]
            {
                server.tls = tls;
            }
            ServerState { server: Arc::new(server), connections: 0, closing: None }
        })
    }))
}

/// native.http_accept(listener, server): accepts all connections that wait; `false, code` if one
/// cannot be.
pub(super) fn accept(lua: Stack<'_>) -> Result<(), Code> {
    let (listener, number) = (lua.key(1), lua.key(2));
    host::with(|host| accept_all(host, listener, number))
}

fn accept_all(host: &mut Host, listener: u64, number: u64) -> Result<(), Code> {
    loop {
        let Some(Socket::Listener(acceptor)) = host.sockets.all.get_mut(listener) else {
            return Err(Code::LISTENER_CLOSED);
        };
        let Some(accepted) = acceptor.accept() else { return Ok(()) };
        let stream = accepted?;
        let http = host.sockets.http.as_mut();
        let Some(serving) = http.and_then(|http| http.servers.get_mut(number)) else {
            return Ok(());
        };
        let held = Allowance::hold_of(host.context.allowance(), CONNECTION_BYTES);
        let Some(held) = held else {
            if REFUSED.is_due() {
                log::warn!(
                    "{}: a connection was refused: the context's memory limit has no room for it",
                    host.context.label()
                );
            }
            stream.reset();
            continue;
        };
        serving.connections += 1;
        let (server, context) = (Arc::clone(&serving.server), &host.context);
        let key = host.sockets.all.insert(|key| {
            let (read, write) = (source(key, KIND_READ), source(key, KIND_WRITE));
            let net = net::Connection::new(stream, context, read, write);
            let connection = Connection::new(&server, net, key, context, held);
            Socket::Http(Box::new(connection))
        });
        host.sockets.watch_http(key, &host.context);
    }
}

/// native.http_close(server, token): ends idle connections at once and the others after their last
/// response. Returns how many are left; `token` is told of the end of the last one.
pub(super) fn close(lua: Stack<'_>) -> usize {
    let (number, token) = (lua.key(1), lua.key(2));
    host::with(|host| host.close_http(number, token, |connection| connection.close()))
}

/// native.http_end(server): ends all connections at once.
pub(super) fn end(lua: Stack<'_>) {
    let number = lua.key(1);
    host::with(|host| host.close_http(number, 0, |_| Due::Over));
}

/// native.http_forget_server(server): removes a server that accepts no more connections; false if
/// it still has some.
pub(super) fn forget(lua: Stack<'_>) -> bool {
    let number = lua.key(1);
    host::with(|host| {
        let Some(http) = &mut host.sockets.http else { return true };
        let has_some = http.servers.get(number).is_some_and(|serving| serving.connections > 0);
        !has_some && {
            http.servers.remove(number);
            true
        }
    })
}

impl Host {
    /// Has `close` close all connections of a server; returns how many are left.
    fn close_http(
        &mut self,
        number: u64,
        token: u64,
        mut close: impl FnMut(&mut Connection) -> Due,
    ) -> usize {
        let mut over = Vec::new();
        for (key, socket) in self.sockets.all.iter_mut() {
            if let Socket::Http(connection) = socket
                && connection.server() == number
                && close(connection) == Due::Over
            {
                over.push(key);
            }
        }
        for key in over {
            self.sockets.end_http(key, &self.context);
        }
        let http = self.sockets.http.as_mut();
        let Some(serving) = http.and_then(|http| http.servers.get_mut(number)) else { return 0 };
        if token != 0 && serving.connections > 0 {
            serving.closing = Some(token);
        }
        serving.connections
    }
}

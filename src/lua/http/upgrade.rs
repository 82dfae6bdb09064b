//! Connections that continue with another protocol.

use ::http::Version;
use http_body::Body as _;

use super::super::sockets::Socket;
use crate::error::Code;
use crate::lua::host::{self, Host};
use crate::vm::stack::Stack;

/// native.http_upgrade(id, head): responds 101 with these lines of a head, each with its end;
/// returns the key of the connection, which is a stream from then on, and its server's number; or
/// `false, code`, and why if the request itself is the reason.
pub(super) fn upgrade(lua: Stack<'_>) -> Result<(u64, u64), (bool, u16, Option<&'static str>)> {
    let (id, head) = (lua.key(1), lua.text(2).unwrap_or_default());
    let taken = host::with(|host| take(host, id, head));
    taken.map_err(|Refused(code, why)| (false, code.0, why))
}

/// Why a request is not upgraded.
struct Refused(Code, Option<&'static str>);

impl From<Code> for Refused {
    fn from(code: Code) -> Refused {
        Refused(code, None)
    }
}

fn take(host: &mut Host, id: u64, head: &[u8]) -> Result<(u64, u64), Refused> {
    let http = host.sockets.http.as_mut().ok_or(Code::SOCKET_CLOSED)?;
    let exchange = http.exchanges.get_mut(id).ok_or(Code::SOCKET_CLOSED)?;
    let has_body = exchange.body.as_ref().is_some_and(|body| !body.is_end_stream());
    let unfit = match exchange.version() {
        _ if exchange.has_begun => Some("the answer has begun"),
        _ if has_body => Some("the request has a body"),
        Version::HTTP_11 => None,
        _ => Some("only requests of HTTP/1.1 can be upgraded"),
    };
    if unfit.is_some() {
        return Err(Refused(Code::INVALID, unfit));
    }
    if exchange.slot.is_abandoned() {
        return Err(Code::SOCKET_CLOSED.into());
    }
    let key = exchange.connection;
    let Some(Socket::Http(connection)) = host.sockets.all.get(key) else {
        return Err(Code::SOCKET_CLOSED.into());
    };
    let number = connection.server();
    // The script can change nothing any more.
    exchange.is_refused = true;
    exchange.has_begun = true;
    let gone = http.exchanges.remove(id);
    let is_there = host.sockets.all.try_change(key, |socket| match socket {
        Socket::Http(connection) => Some(Socket::Stream(Box::new(connection.into_net()?))),
        other => Some(other),
    });
    drop(gone);
    host.sockets.forget_http(number);
    if !is_there {
        return Err(Code::SOCKET_CLOSED.into());
    }
    let Some(stream) = host.sockets.stream(key) else {
        return Err(Code::SOCKET_CLOSED.into());
    };
    stream.forget_end();
    stream.stage(b"HTTP/1.1 101 Switching Protocols\r\n");
    stream.stage(head);
    stream.stage(b"\r\n");
    if !std::mem::replace(&mut stream.is_dirty, true) {
        host.sockets.list_dirty(key);
    }
    Ok((key, number))
}

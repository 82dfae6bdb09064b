//! Short responses to plain requests, which are written directly.

use std::ffi::c_int;

use ::http::StatusCode;
use mlua::ffi;

use super::super::frames::body;
use super::super::sockets::Socket;
use super::Exchange;
use crate::http::{HeadWriter, write_response};
use crate::lua::host;
use crate::net::Body;
use crate::rt;
use crate::vm::stack::Stack;

/// Responds with the body at `index`, if it can be written directly, which ends the request. False,
/// with nothing done, if it cannot: the usual way finds out why. `add` adds the headers, and must
/// not have the VM allocate.
pub(super) fn answer_plain(
    lua: Stack<'_>,
    key: u64,
    status: Option<StatusCode>,
    add: impl FnOnce(&Exchange, &mut HeadWriter<'_>) -> bool,
    index: c_int,
) -> bool {
    let is_none = matches!(lua.kind(index), ffi::LUA_TNIL | ffi::LUA_TNONE);
    let bytes = match body(lua, index) {
        Some(Body::Slice(bytes)) => bytes,
        None if is_none => &[],
        _ => return false,
    };
    let is_sent = host::with(|host| {
        let http = host.sockets.http.as_mut()?;
        let exchange = http.exchanges.get(key)?;
        let is_new = !exchange.has_begun && !exchange.is_refused && exchange.trailers.is_empty();
        if !is_new || exchange.slot.plain_head().is_none() {
            return None;
        }
        let place = exchange.connection;
        let Some(Socket::Http(connection)) = host.sockets.all.get_mut(place) else { return None };
        let status = status.unwrap_or(exchange.status);
        let add = |head: &mut HeadWriter<'_>| add(exchange, head);
        let now = rt::now();
        let send = |all: &[u8]| connection.respond_plain(&exchange.slot, all, now);
        write_response(status, add, bytes, now, send).filter(|is_sent| *is_sent)?;
        // Nobody else has anything of it.
        http.exchanges.discard(key);
        host.sockets.note_http(place);
        Some(())
    });
    is_sent.is_some()
}

/// Adds the headers in the table at `index`; false if one of them needs the usual way.
pub(super) fn add_table(lua: Stack<'_>, index: c_int, head: &mut HeadWriter<'_>) -> bool {
    if lua.kind(index) != ffi::LUA_TTABLE {
        return matches!(lua.kind(index), ffi::LUA_TNIL | ffi::LUA_TNONE);
    }
    lua.push_nil();
    while lua.next(index) {
        let value = lua.top();
        // A number would become a string, which the VM allocates.
        let is_text = [value - 1, value].iter().all(|at| lua.kind(*at) == ffi::LUA_TSTRING);
        let is_added = is_text
            && head
                .add(lua.text(value - 1).unwrap_or_default(), lua.text(value).unwrap_or_default());
        lua.pop();
        if !is_added {
            lua.pop();
            return false;
        }
    }
    true
}

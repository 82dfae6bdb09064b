//! What scripts read of requests.

use std::ffi::c_int;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::header::COOKIE;
use ::http::{HeaderMap, StatusCode, Version};
use bytes::Bytes;
use http_body::Body as _;

use super::super::sockets::Socket;
use super::drive::COST_BYTES;
use super::{Exchange, Http, with};
use crate::buf::{FRAME_INLINE_MAX, Piece};
use crate::error::Code;
use crate::http::{Item, NEVER_TRAILERS, Pace, Ready};
use crate::lua::buffer::userdata::{charge_frames, collect, push_bytes, push_frames};
use crate::lua::host::{self, Host};
use crate::rt;
use crate::vm::stack::{Results, Stack};

/// The fields of a request, as lua/http/request.lua numbers them.
const METHOD: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 3;
const VERSION: u8 = 4;
const ADDRESS: u8 = 5;
const PORT: u8 = 6;

/// native.http_get(id, field): a text; nothing if there is none.
pub(super) fn get(lua: Stack<'_>) -> Option<Vec<u8>> {
    let (key, what) = (lua.key(1), lua.number(2) as u8);
    // Copied, since the VM may run finalisers when it makes a string.
    host::with(|host| text_of(host, key, what))
}

/// A version, as scripts see it.
pub(super) fn text_of_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

fn text_of(host: &mut Host, key: u64, what: u8) -> Option<Vec<u8>> {
    let exchange = host.sockets.http.as_mut()?.exchanges.get_mut(key)?;
    let text = match (what, &exchange.parts, exchange.slot.plain_head()) {
        (METHOD, None, Some(_)) => return Some(b"GET".to_vec()),
        (PATH, None, Some(head)) => return Some(head.path().to_vec()),
        (QUERY, None, Some(head)) => return Some(head.query()?.to_vec()),
        (METHOD, ..) => exchange.parts().method.as_str().to_owned(),
        (PATH, ..) => exchange.parts().uri.path().to_owned(),
        (QUERY, ..) => exchange.parts().uri.query()?.to_owned(),
        (VERSION, ..) => text_of_version(exchange.version()).to_owned(),
        (ADDRESS | PORT, ..) => {
            let connection = exchange.connection;
            let Some(Socket::Http(connection)) = host.sockets.all.get(connection) else {
                return None;
            };
            let peer = connection.with_net(|net| net.addresses().1)?;
            if what == PORT { peer.port().to_string() } else { peer.ip().to_string() }
        }
        _ => return None,
    };
    Some(text.into_bytes())
}

/// native.http_tls(id): a table about the connection's TLS; nothing if it has none.
#[cfg(feature = "tls")]
pub(super) fn tls(lua: Stack<'_>) -> Option<c_int> {
    let key = lua.key(1);
    let state = host::with(|host| {
        let connection = host.sockets.http.as_ref()?.exchanges.get(key)?.connection;
        let Some(Socket::Http(connection)) = host.sockets.all.get(connection) else { return None };
        connection.with_net(|net| net.tls())
    });
    state.map(|state| super::super::tls::push_state(lua, &state))
}

/// native.http_headers(id, are_trailers): two tables, as [`push_headers`].
pub(super) fn headers(lua: Stack<'_>) -> Option<c_int> {
    let are_trailers = lua.boolean(2);
    let found = with(lua.key(1), |exchange, _| match are_trailers {
        true => exchange.request_trailers.clone(),
        false => Some(exchange.parts().headers.clone()),
    });
    found.flatten().map(|headers| push_headers(lua, &headers))
}

/// Pushes a table of all headers, those that came more than once joined; and one of the latter,
/// with lists of their values, or nil if there are none.
pub(super) fn push_headers(lua: Stack<'_>, headers: &HeaderMap) -> c_int {
    lua.push_table(0, headers.keys_len());
    lua.push_nil();
    let (joined, lists) = (lua.top() - 1, lua.top());
    for name in headers.keys() {
        let mut values = headers.get_all(name).iter();
        let (first, second) = (values.next(), values.next());
        lua.push_text(name.as_str().as_bytes());
        if second.is_none() {
            lua.push_text(first.map_or(&[][..], |value| value.as_bytes()));
            lua.raw_set(joined);
            continue;
        }
        let all: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        // HTTP/2 may split a cookie (RFC 9113, 8.2.3).
        let between = if *name == COOKIE { &b"; "[..] } else { b", " };
        lua.push_text(&all.join(between));
        lua.raw_set(joined);
        if !lua.boolean(lists) {
            lua.push_table(0, 1);
            lua.replace(lists);
        }
        lua.push_text(name.as_str().as_bytes());
        lua.push_table(all.len(), 0);
        for (value, at) in all.iter().zip(1..) {
            lua.push_text(value);
            lua.set_entry(-2, at);
        }
        lua.raw_set(lists);
    }
    2
}

/// Pushes a buffer with these bytes, which it copies if they are few and shares otherwise.
fn push_piece(lua: Stack<'_>, piece: &Piece) {
    let all = 0..piece.len();
    let place = std::slice::from_ref(&all);
    collect(lua, |work| work());
    if all.len() <= FRAME_INLINE_MAX {
        return push_frames(lua, 0, place, piece, None);
    }
    charge_frames(lua, place, Some(piece), |work| work());
    push_frames(lua, 0, place, piece, Some(piece));
}

/// native.http_buffer(text): a buffer with these bytes.
pub(super) fn buffer(lua: Stack<'_>) -> c_int {
    let text = lua.text(1).unwrap_or_default();
    push_bytes(lua, text);
    1
}

/// The outcome of reading a piece of a body.
pub(super) enum BodyRead {
    Data(Bytes),
    End,
    Failed(Code),
    Pending,
}

impl Exchange {
    /// Gives the script a piece of the body, unless it becomes too long.
    fn take(&mut self, bytes: Bytes) -> BodyRead {
        self.read += bytes.len() as u64;
        if self.read > self.read_max {
            self.refuse(StatusCode::PAYLOAD_TOO_LARGE, Code::MESSAGE_TOO_LONG);
            return BodyRead::Failed(Code::MESSAGE_TOO_LONG);
        }
        BodyRead::Data(bytes)
    }

    /// Ends the body, unless a trailer is one that could change what it was taken for.
    fn take_trailers(&mut self, trailers: HeaderMap) -> BodyRead {
        if NEVER_TRAILERS.iter().any(|name| trailers.contains_key(name)) {
            self.refuse(StatusCode::BAD_REQUEST, Code::CONNECTION_ABORTED);
            return BodyRead::Failed(Code::CONNECTION_ABORTED);
        }
        self.request_trailers = Some(trailers);
        BodyRead::End
    }

    /// Whether the script waits for more of the body.
    pub(super) fn is_waiting(&self) -> bool {
        self.pace.is_some()
    }

    /// Has whoever waits for the body look at it again.
    pub(super) fn wake(&mut self, ready: &Ready) {
        if self.waiter != 0 {
            ready.push(Item::Waiter(std::mem::take(&mut self.waiter)));
        }
    }
}

/// native.http_read(id, token): a buffer with the next piece of the body; `false, code` if there
/// are no more, with code 1 at its end; nothing if there is none yet, and `token` is told once
/// there is.
pub(super) fn read(lua: Stack<'_>) -> BodyRead {
    let (key, token) = (lua.key(1), lua.key(2));
    host::with(|host| read_body(host, key, token))
}

/// native.http_give_up(id): the script does not wait for more of the body any more.
pub(super) fn give_up(lua: Stack<'_>) {
    let key = lua.key(1);
    host::with(|host| {
        let exchange = host.sockets.http.as_mut()?.exchanges.get_mut(key)?;
        (exchange.pace, exchange.waiter) = (None, 0);
        Some(())
    });
}

/// The results of `native.http_read`.
impl Results for BodyRead {
    fn give(self, lua: Stack<'_>) -> c_int {
        match self {
            BodyRead::Data(bytes) => {
                // A shared piece would keep hyper's read buffer, which may be many times as large.
                let is_limited = host::with(|host| host.context.allowance().is_some());
                let piece = if is_limited { Piece::copy(&bytes) } else { Piece::from(bytes) };
                push_piece(lua, &piece);
                1
            }
            BodyRead::End => Code::END_OF_FILE.give(lua),
            BodyRead::Failed(code) => code.give(lua),
            BodyRead::Pending => 0,
        }
    }
}

/// Pieces of a body that are read one after the other: a peer that sends faster than the script
/// reads keeps no others waiting.
#[derive(Default)]
pub(super) struct Burst(u32);

/// Of so many, and as long as the turn lasts.
const BURST_MAX: u32 = 128;

impl Burst {
    /// Counts one more. False if it is over: who reads waits until others have had their turn.
    fn goes_on(&mut self, has_time: bool) -> bool {
        self.0 += 1;
        let goes_on = has_time && self.0 <= BURST_MAX;
        if !goes_on {
            self.0 = 0;
        }
        goes_on
    }
}

impl Host {
    /// Whether a body that has this burst is read now; otherwise the waiter with this token is
    /// woken once others have had their turn.
    pub(super) fn may_read(
        &mut self,
        token: u64,
        burst: impl FnOnce(&mut Http) -> Option<&mut Burst>,
    ) -> bool {
        let has_time = self.turn.charge(1);
        let Some(http) = &mut self.sockets.http else { return true };
        let goes_on = burst(http).is_none_or(|burst| burst.goes_on(has_time));
        if !goes_on {
            http.ready.push(Item::Waiter(token));
        }
        goes_on
    }
}

fn read_body(host: &mut Host, key: u64, token: u64) -> BodyRead {
    if !host.may_read(token, |http| Some(&mut http.exchanges.get_mut(key)?.burst)) {
        return BodyRead::Pending;
    }
    // Again after the connection was polled, which reads only once somebody wants more.
    for is_last in [false, true] {
        let Some(http) = &mut host.sockets.http else { break };
        let waker = http.waker(token, is_last);
        let Some(exchange) = http.exchanges.get_mut(key) else { break };
        let mut cx = Context::from_waker(&waker);
        if let Some(code) = exchange.failed {
            return BodyRead::Failed(code);
        }
        let Some(body) = &mut exchange.body else { return BodyRead::End };
        let frame = Pin::new(body).poll_frame(&mut cx);
        if frame.is_ready() {
            exchange.pace = None;
        }
        match frame {
            Poll::Ready(None) => return BodyRead::End,
            Poll::Ready(Some(Err(_))) => {
                // Later reads must not find an end.
                exchange.failed = Some(Code::CONNECTION_ABORTED);
                return BodyRead::Failed(Code::CONNECTION_ABORTED);
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => {
                    host.turn.charge(bytes.len() / COST_BYTES);
                    return exchange.take(bytes);
                }
                Err(frame) => {
                    return exchange.take_trailers(frame.into_trailers().unwrap_or_default());
                }
            },
            Poll::Pending if is_last => {
                exchange.waiter = token;
                exchange.pace.get_or_insert_with(|| Pace::new(rt::now(), exchange.read));
                return BodyRead::Pending;
            }
            Poll::Pending => {
                let connection = exchange.connection;
                if let Some(Socket::Http(connection)) = host.sockets.all.get(connection) {
                    connection.release_end();
                }
                host.poll_http_now(connection);
            }
        }
    }
    BodyRead::Failed(Code::CONNECTION_ABORTED)
}

//! Responses of scripts.

use std::ffi::c_int;
use std::sync::Arc;

use ::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, DATE, HOST, HeaderName, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use bytes::Bytes;
use http_body::Body as _;
use mlua::ffi;

use super::super::frames::body;
use super::plain::{add_table, answer_plain};
use super::{Exchange, with};
use crate::error::Code;
use crate::http::{
    Channel, HEADER_BYTES, HeadWriter, Outgoing, Ready, Written, counted, date, has_no_body,
    is_host,
};
use crate::lua::host;
use crate::message::{Allowance, Held};
use crate::net::Body;
use crate::vm::blame::Wrong;
use crate::vm::stack::{Nil, Results, Stack};

/// The most headers of a message. A map holds 24,576, but dropping one that has as many values of a
/// name takes time that grows with their square.
const HEADERS_MAX: usize = 4096;

/// What counts the value of a header takes.
const COUNTING_BYTES: usize = 64;

/// About what a piece of a body takes beside its bytes, here and in h2, while it waits.
const PIECE_BYTES: usize = 320;

/// The body of the response when a handler has failed.
const HANDLER_FAILED: &[u8] = b"Internal Server Error\n";

impl Exchange {
    /// Whether the response has no body.
    fn is_bodyless(&self) -> bool {
        let is_head = self.parts.as_ref().is_some_and(|parts| parts.method == Method::HEAD);
        // That of status 205 is there, and empty.
        is_head || has_no_body(self.status) && self.status != StatusCode::RESET_CONTENT
    }

    /// Whether all of the response is given to be sent: what is written has no place in it.
    fn is_sent_whole(&self) -> bool {
        self.has_begun && self.channel.is_none()
    }

    /// Responds with the head as it was set, and this body; false if nobody waits for that.
    pub(super) fn begin(&mut self, mut out: Outgoing) -> bool {
        self.has_begun = true;
        if self.is_refused {
            return false;
        }
        // For HTTP/1 hyper does that.
        if self.version() == Version::HTTP_2 && self.is_bodyless() {
            if let Some(length) = out.size_hint().exact().filter(|length| *length > 0) {
                self.headers.entry(CONTENT_LENGTH).or_insert(length.into());
            }
            out = Outgoing::whole(Bytes::new(), None);
        }
        let mut response = Response::new(out);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        *headers = std::mem::take(&mut self.headers);
        if !headers.contains_key(DATE) {
            headers.insert(DATE, date());
        }
        self.slot.respond(response)
    }

    /// Responds with these bytes as the whole body.
    fn respond(&mut self, bytes: Bytes, held: Option<Held>) -> bool {
        // The script's length counts only where there is no body.
        if !bytes.is_empty() || !self.is_bodyless() {
            self.headers.remove(CONTENT_LENGTH);
        }
        self.begin(Outgoing::whole(bytes, held))
    }

    /// The channel of a body that is written piece by piece; begins the response with the first.
    fn channel(&mut self, ready: &Arc<Ready>) -> Arc<Channel> {
        if let Some(channel) = &self.channel {
            return Arc::clone(channel);
        }
        let length = self.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let length = length.and_then(|length| length.parse().ok());
        let is_bodyless = self.is_bodyless();
        let channel = match is_bodyless {
            true => Channel::sink(ready, length),
            false => Channel::new(ready, length),
        };
        announce(&mut self.headers, &self.trailers);
        self.channel = Some(Arc::clone(&channel));
        let out = if is_bodyless {
            Outgoing::whole(Bytes::new(), None)
        } else {
            Outgoing::channel(&channel)
        };
        if !self.begin(out) {
            channel.fail();
        }
        channel
    }

    /// A piece of so many bytes is not taken: the client finds the response cut off there, whatever
    /// the script goes on with.
    fn lose(&mut self, bytes: usize, ready: &Arc<Ready>) {
        if !self.is_sent_whole() && !self.is_bodyless() {
            self.channel(ready).fail();
            self.lost = bytes;
        }
    }

    /// Ends the response with these bytes. An error tells why it is not what the script, or its
    /// head, has announced: the client finds it cut off.
    fn end(&mut self, bytes: Bytes, held: Option<Held>) -> Result<(), String> {
        if self.lost > 0 {
            return Err(format!("an answer is cut off: {}", no_room(self.lost)));
        }
        let Some(channel) = &self.channel else {
            if !self.has_begun {
                self.respond(bytes, held);
            }
            return Ok(());
        };
        if let Written::TooLong(wrong) = channel.write(bytes, held) {
            channel.fail();
            return Err(wrong.to_string());
        }
        channel.end(take_trailers(&mut self.trailers)).map_err(|wrong| wrong.to_string())
    }

    /// The script has failed: the client gets status 500, or finds the response cut off. True if it
    /// has all of a response without a body, so that only the end of the connection can tell it.
    fn fail(&mut self) -> bool {
        match &self.channel {
            Some(channel) => channel.fail(),
            None if self.has_begun => {}
            None => {
                self.status = StatusCode::INTERNAL_SERVER_ERROR;
                self.headers = HeaderMap::new();
                self.headers.insert(CONNECTION, HeaderValue::from_static("close"));
                self.respond(Bytes::from_static(HANDLER_FAILED), None);
            }
        }
        self.channel.is_some() && self.version() != Version::HTTP_2 && self.is_bodyless()
    }
}

/// Why a body of this many bytes cannot be sent: responses of this status have none.
pub(super) fn refuse_body(status: StatusCode, bytes: u64) -> Option<String> {
    let is_refused = bytes > 0 && has_no_body(status);
    is_refused.then(|| {
        let status = status.as_u16();
        format!("a response of status {status} has no body: give none, or another status")
    })
}

/// Adds header `trailer` with the names of the trailers, unless it is set: in HTTP/1 hyper sends no
/// others.
pub(super) fn announce(headers: &mut HeaderMap, trailers: &HeaderMap) {
    if trailers.is_empty() || headers.contains_key(TRAILER) {
        return;
    }
    let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
        headers.insert(TRAILER, names);
    }
}

/// Takes the trailers out, if there are some.
pub(super) fn take_trailers(trailers: &mut HeaderMap) -> Option<HeaderMap> {
    Some(std::mem::take(trailers)).filter(|trailers| !trailers.is_empty())
}

const NEVER_TRAILERS: [HeaderName; 12] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// Where headers come from, so that errors can name it.
#[derive(Clone, Copy)]
pub(super) struct HeaderSource<'a> {
    pub(super) function: &'a str,
    pub(super) name: Wrong<'a>,
    pub(super) value: Wrong<'a>,
    pub(super) are_trailers: bool,
}

impl<'a> HeaderSource<'a> {
    pub(super) fn option(function: &'a str, option: &'a str) -> HeaderSource<'a> {
        let is = Wrong::Option(option);
        HeaderSource { function, name: is, value: is, are_trailers: option == "trailers" }
    }

    /// What the function at index `by` has returned; `what` names that.
    pub(super) fn returned(by: c_int, what: &'a str, are_trailers: bool) -> HeaderSource<'a> {
        let is = Wrong::Result(by);
        HeaderSource { function: what, name: is, value: is, are_trailers }
    }
}

/// The headers that a handler returns.
const RETURNED: &str = "result #2 of the handler of 'serve'";

/// Why a header is refused.
enum HeaderError {
    Name,
    Value,
    /// Only hyper sets it.
    Reserved,
    /// The context's memory limit has no room for it.
    NoMemory,
}

fn header_of(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), HeaderError> {
    let name = HeaderName::from_bytes(name).map_err(|_| HeaderError::Name)?;
    if name == TRANSFER_ENCODING {
        return Err(HeaderError::Reserved);
    }
    let bytes = name.as_str().len() + value.len() + HEADER_BYTES + COUNTING_BYTES;
    let Some(held) = hold(bytes) else {
        return Err(HeaderError::NoMemory);
    };
    let value = match held {
        Some(_) => HeaderValue::from_maybe_shared(counted(Bytes::copy_from_slice(value), held)),
        None => HeaderValue::from_bytes(value),
    };
    let value = value.map_err(|_| HeaderError::Value)?;
    if name == CONTENT_LENGTH
        && value.to_str().ok().and_then(|one| one.parse::<u64>().ok()).is_none()
    {
        return Err(HeaderError::Value);
    }
    Ok((name, value))
}

/// Headers of which servers take no two: these say where a message ends, and whom it is for.
const ONE_ONLY: [HeaderName; 2] = [CONTENT_LENGTH, HOST];

/// Adds the header whose name and value, or list of values, are at these indices. Raises if they
/// are not valid.
fn add_header(
    lua: Stack<'_>,
    said: HeaderSource<'_>,
    headers: &mut HeaderMap,
    name: c_int,
    value: c_int,
) {
    let function = said.function;
    if lua.kind(name) != ffi::LUA_TSTRING {
        lua.bad(said.name, function, "name of a header", Some(name));
    }
    let list = value;
    let text_of = |index| String::from_utf8_lossy(lua.text(index).unwrap_or_default());
    let mut add = |value: c_int| {
        let is_text = matches!(lua.kind(value), ffi::LUA_TSTRING | ffi::LUA_TNUMBER);
        // A copy, since asking a number for its text turns it into a string.
        lua.push_copy(value);
        let text = lua.text(lua.top()).filter(|_| is_text);
        let made = header_of(lua.text(name).unwrap_or_default(), text.unwrap_or_default());
        if headers.len() >= HEADERS_MAX {
            let expected = format!("at most {HEADERS_MAX} headers");
            lua.bad(said.value, function, &expected, None);
        }
        match made {
            Err(HeaderError::NoMemory) => {
                let why = "headers that the context's memory limit has room for";
                lua.bad(said.value, function, why, None);
            }
            Ok((name, _)) if said.are_trailers && NEVER_TRAILERS.contains(&name) => {
                let why = format!("{name} has to come before the body");
                lua.bad(said.name, function, &why, None);
            }
            Ok((name, _)) if ONE_ONLY.contains(&name) && headers.contains_key(&name) => {
                lua.bad(said.value, function, &format!("one {name}"), Some(list));
            }
            Ok((HOST, value)) if !is_host(value.as_bytes()) => {
                lua.bad(said.value, function, "name of a host as header host", Some(list));
            }
            Ok((name, value)) if text.is_some() => {
                headers.append(name, value);
            }
            Err(HeaderError::Name) => {
                lua.bad(said.name, function, "name of a header", Some(name));
            }
            Err(HeaderError::Reserved) => {
                let why = "transfer-encoding is not for scripts to say: bodies of unknown length \
                           are sent in chunks";
                lua.bad(said.name, function, why, None);
            }
            Ok(_) | Err(HeaderError::Value) => {
                let expected = format!("value of header {}", text_of(name));
                lua.bad(said.value, function, &expected, Some(value));
            }
        }
        lua.pop();
    };
    if lua.kind(value) != ffi::LUA_TTABLE {
        return add(value);
    }
    for at in 1..=last_place(lua, said, name, value) {
        lua.entry(value, at);
        add(lua.top());
        lua.pop();
    }
}

/// The last position in the list of values at `list`; earlier ones may be nil. Raises for other
/// keys, which would be ignored.
fn last_place(lua: Stack<'_>, said: HeaderSource<'_>, name: c_int, list: c_int) -> i64 {
    lua.check_plain(said.value, said.function, list);
    let mut last = 0;
    lua.push_nil();
    while lua.next(list) {
        lua.pop();
        let (key, place) = (lua.top(), lua.number(-1));
        if lua.kind(key) != ffi::LUA_TNUMBER || place < 1.0 || place.fract() != 0.0 {
            let name = String::from_utf8_lossy(lua.text(name).unwrap_or_default());
            let given = lua.describe(key);
            let why =
                format!("list of values of header {name} expected, got a table with key {given}");
            lua.bad(said.value, said.function, &why, None);
        }
        last = last.max(place as i64);
    }
    last
}

/// Adds the headers in the table at `index`. Raises if they are not valid.
pub(super) fn add_headers(
    lua: Stack<'_>,
    said: HeaderSource<'_>,
    headers: &mut HeaderMap,
    index: c_int,
) {
    match lua.kind(index) {
        ffi::LUA_TNIL | ffi::LUA_TNONE => return,
        ffi::LUA_TTABLE => {}
        _ => {
            lua.bad(said.value, said.function, "table of headers", Some(index));
        }
    }
    lua.push_nil();
    while lua.next(index) {
        let value = lua.top();
        add_header(lua, said, headers, value - 1, value);
        lua.pop();
    }
}

/// The bytes of the string, number or buffer at `index`; none for nil, `None` for other values.
pub(super) fn bytes_at(lua: Stack<'_>, index: c_int) -> Option<Bytes> {
    if matches!(lua.kind(index), ffi::LUA_TNIL | ffi::LUA_TNONE) {
        return Some(Bytes::new());
    }
    Some(match body(lua, index)? {
        Body::Slice(slice) => Bytes::copy_from_slice(slice),
        // Only its length is counted, so it must not keep a much larger block.
        Body::Shared(piece) if piece.block_bytes() > piece.len() + piece.len() / 8 => {
            Bytes::copy_from_slice(&piece)
        }
        Body::Shared(piece) => piece.into_bytes(),
        Body::Lost => Bytes::new(),
    })
}

/// Counts a piece of a body, likewise, with what it waits in.
pub(super) fn hold_piece(bytes: &Bytes) -> Option<Option<Held>> {
    hold(if bytes.is_empty() { 0 } else { bytes.len() + PIECE_BYTES })
}

/// Counts bytes against the context's memory limit; `None` if that has no room for them.
pub(super) fn hold(bytes: usize) -> Option<Option<Held>> {
    host::with(|host| Allowance::hold_of(host.context.allowance().filter(|_| bytes > 0), bytes))
}

/// Why a body of so many bytes is not taken.
fn no_room(bytes: usize) -> String {
    format!("the context's memory limit has no room for a body of {bytes} bytes")
}

/// native.http_answer(id, status, headers, body, handler): responds with what the handler has
/// returned, which ends the request: true. Nothing if the body is of the wrong type; `nil, why` if
/// the status has none, or there is no room for it. Raises if the headers are not valid.
pub(super) fn answer(lua: Stack<'_>) -> Option<Result<bool, (Nil, String)>> {
    let key = lua.key(1);
    let status = StatusCode::from_u16(lua.number(2) as u16).unwrap_or_default();
    if answer_plain(lua, key, Some(status), |_, head| add_table(lua, 3, head), 4) {
        return Some(Ok(true));
    }
    let mut headers = HeaderMap::new();
    add_headers(lua, HeaderSource::returned(5, RETURNED, false), &mut headers, 3);
    let bytes = bytes_at(lua, 4)?;
    if let Some(why) = refuse_body(status, bytes.len() as u64) {
        return Some(Err((Nil, why)));
    }
    let len = bytes.len();
    let Some(held) = hold(len) else { return Some(Err((Nil, no_room(len)))) };
    let gone = host::with(|host| {
        let mut exchange = host.sockets.http.as_mut()?.exchanges.remove(key)?;
        exchange.status = status;
        exchange.headers = headers;
        exchange.respond(bytes, held);
        Some(exchange)
    });
    drop(gone);
    Some(Ok(true))
}

/// native.http_status(id, status): sets the status; false if the response has begun.
pub(super) fn status(lua: Stack<'_>) -> bool {
    let status = StatusCode::from_u16(lua.number(2) as u16).unwrap_or_default();
    let is_set = with(lua.key(1), |exchange, _| {
        exchange.status = status;
        !exchange.has_begun
    });
    is_set == Some(true)
}

/// native.http_header(id, name, value): adds a header, in place of others of that name; false if
/// the response has begun. Raises if it is not valid.
pub(super) fn header(lua: Stack<'_>) -> bool {
    set_header(lua, "header", false)
}

/// native.http_trailer(id, name, value): adds a trailer; false if the response has ended. Raises if
/// it is not valid.
pub(super) fn trailer(lua: Stack<'_>) -> bool {
    set_header(lua, "trailer", true)
}

fn set_header(lua: Stack<'_>, function: &str, are_trailers: bool) -> bool {
    let mut headers = HeaderMap::new();
    let (name, value) = (Wrong::Argument(2), Wrong::Argument(3));
    add_header(lua, HeaderSource { function, name, value, are_trailers }, &mut headers, 2, 3);
    let is_set = with(lua.key(1), |exchange, _| {
        let all = if are_trailers { &mut exchange.trailers } else { &mut exchange.headers };
        let is_room = all.len() + headers.len() <= HEADERS_MAX;
        if is_room {
            all.extend(headers);
        }
        let is_late = if are_trailers { exchange.is_sent_whole() } else { exchange.has_begun };
        is_room && !is_late
    });
    is_set == Some(true)
}

/// native.http_default_type(id): makes JSON the content type, unless that is set; false if the
/// response has begun.
pub(super) fn default_type(lua: Stack<'_>) -> bool {
    let is_set = with(lua.key(1), |exchange, _| {
        let json = HeaderValue::from_static("application/json");
        exchange.headers.entry(CONTENT_TYPE).or_insert(json);
        !exchange.has_begun
    });
    is_set == Some(true)
}

/// native.http_add_headers(id, headers, handler): adds the headers that the handler has returned.
pub(super) fn add_all(lua: Stack<'_>) {
    let mut headers = HeaderMap::new();
    add_headers(lua, HeaderSource::returned(3, RETURNED, false), &mut headers, 2);
    with(lua.key(1), |exchange, _| exchange.headers.extend(headers));
}

/// native.http_write(id, data, token): writes a piece of the body: true if there is room for more;
/// nothing if not, and `token` is told once there is; `false, code` if the client takes no more, or
/// the context's memory limit has no room for it, which cuts the response off;
/// `nil, why` if it cannot be written: 0 for a value of the wrong type, 1 if the response is a
/// file, or a text.
pub(super) fn write(lua: Stack<'_>) -> Result<Written, c_int> {
    let bytes = bytes_at(lua, 2).ok_or_else(|| (Nil, 0.0).give(lua))?;
    let token = lua.key(3);
    let Some(held) = hold_piece(&bytes) else {
        with(lua.key(1), |exchange, ready| exchange.lose(bytes.len(), ready));
        return Err(Code::NO_MEMORY.give(lua));
    };
    let written = with(lua.key(1), |exchange, ready| {
        if exchange.is_sent_whole() {
            return Err(None);
        }
        match refuse_body(exchange.status, bytes.len() as u64) {
            Some(why) => Err(Some(why)),
            None => Ok(exchange.channel(ready).write_and_wait(bytes, held, token)),
        }
    });
    written.unwrap_or(Ok(Written::Closed)).map_err(|why| match why {
        Some(why) => (Nil, why).give(lua),
        None => (Nil, 1.0).give(lua),
    })
}

/// The results of `native.http_write`.
impl Results for Written {
    fn give(self, lua: Stack<'_>) -> c_int {
        match self {
            Written::Done => true.give(lua),
            Written::Full => 0,
            Written::TooLong(wrong) => (Nil, wrong.to_string()).give(lua),
            Written::Closed => Code::SOCKET_CLOSED.give(lua),
        }
    }
}

/// native.http_finish(id, data, has_failed): ends the response with these bytes, or cuts it off,
/// which ends the request: true, or `nil, why` if the body is not as long as its head has
/// announced. Nothing if the data is of the wrong type; `false`, and why, if it cannot be sent: no
/// text if the response is a file.
pub(super) fn finish(lua: Stack<'_>) -> Option<Result<bool, c_int>> {
    let (key, has_failed) = (lua.key(1), lua.boolean(3));
    let add = |exchange: &Exchange, head: &mut HeadWriter<'_>| head.add_all(&exchange.headers);
    if !has_failed && answer_plain(lua, key, None, add, 2) {
        return Some(Ok(true));
    }
    let bytes = bytes_at(lua, 2)?;
    let refused = with(key, |exchange, _| match exchange.is_sent_whole() && !bytes.is_empty() {
        true => Some(None),
        false => refuse_body(exchange.status, bytes.len() as u64).map(Some),
    });
    if let Some(why) = refused.flatten() {
        return Some(Err((false, why).give(lua)));
    }
    let Some(held) = hold(bytes.len()) else {
        return Some(Err((false, no_room(bytes.len())).give(lua)));
    };
    let result = host::with(|host| {
        let http = host.sockets.http.as_mut()?;
        let mut exchange = http.exchanges.remove(key)?;
        let mut is_last = false;
        if !has_failed && !exchange.has_begun && !exchange.trailers.is_empty() {
            exchange.channel(&http.ready);
        }
        let result = match has_failed {
            true => {
                is_last = exchange.fail();
                Ok(())
            }
            false => exchange.end(bytes, held),
        };
        if is_last {
            host.sockets.close_http(exchange.connection, &host.context);
        }
        Some((result, exchange))
    });
    let done = result.map_or(Ok(()), |(done, _)| done);
    Some(done.map(|()| true).map_err(|why| (Nil, why).give(lua)))
}

//! What a script answers.

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
use super::{Exchange, Http};
use crate::error::Code;
use crate::http::{Channel, Head, Out, Ready, Written, counted, date};
use crate::lua::host;
use crate::message::{Allowance, Held};
use crate::net::Body;
use crate::vm::blame::Wrong;
use crate::vm::stack::{Nil, Results, Stack};

/// More headers than anybody takes: maps end at 24,576, and take apart lists of as many values in
/// time that grows with their square.
const HEADERS_MAX: usize = 4096;

/// About what a header takes beside its name and value.
const HEADER_BYTES: usize = 256;

/// Why a piece of an answer is not sent.
const TOO_MUCH: &str = "more than the content-length that was said";

/// What the answer to a request whose handler has failed says.
const FAILED: &[u8] = b"Internal Server Error\n";

impl Exchange {
    /// Whether nothing may follow the head.
    fn is_bodyless(&self) -> bool {
        let statuses = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        let is_head = self.parts.as_ref().is_some_and(|parts| parts.method == Method::HEAD);
        is_head || statuses.contains(&self.status)
    }

    /// The head of the answer, with what was said of it.
    pub(super) fn begin(&mut self, mut out: Out) -> bool {
        self.has_begun = true;
        if self.is_refused {
            return false;
        }
        // In HTTP/1 hyper sees to that.
        if self.version() == Version::HTTP_2 && self.is_bodyless() {
            if let Some(length) = out.size_hint().exact().filter(|length| *length > 0) {
                self.headers.entry(CONTENT_LENGTH).or_insert(length.into());
            }
            out = Out::whole(Bytes::new(), None);
        }
        let mut response = Response::new(out);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        *headers = std::mem::take(&mut self.headers);
        if !headers.contains_key(DATE) {
            headers.insert(DATE, date());
        }
        self.answer.give(response)
    }

    /// Answers with these bytes, and no more.
    fn answer(&mut self, bytes: Bytes, held: Option<Held>) -> bool {
        // What a script says of the length is only of use where there may be no body.
        if !bytes.is_empty() || !self.is_bodyless() {
            self.headers.remove(CONTENT_LENGTH);
        }
        self.begin(Out::whole(bytes, held))
    }

    /// The channel of a body that follows by and by.
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
        announce(&mut self.headers, &self.behind);
        self.channel = Some(Arc::clone(&channel));
        let out = if is_bodyless { Out::whole(Bytes::new(), None) } else { Out::channel(&channel) };
        if !self.begin(out) {
            channel.fail();
        }
        channel
    }

    /// The script has nothing more to say than this: what it has said is the answer. Why that is
    /// none, if so: the client finds it cut off.
    fn end(&mut self, bytes: Bytes, held: Option<Held>) -> Result<(), &'static str> {
        let Some(channel) = &self.channel else {
            if !self.has_begun {
                self.answer(bytes, held);
            }
            return Ok(());
        };
        if channel.write(bytes, held) == Written::TooLong {
            channel.fail();
            return Err(TOO_MUCH);
        }
        match channel.end(trailers_of(&mut self.behind)) {
            true => Ok(()),
            false => Err("less than the content-length that was said"),
        }
    }

    /// The script has failed: the client is told, or finds the answer cut off; true if it has the
    /// whole answer already, which had no body, so that nothing but the end of the connection can
    /// tell it.
    fn fail(&mut self) -> bool {
        match &self.channel {
            Some(channel) => channel.fail(),
            None if self.has_begun => {}
            None => {
                self.status = StatusCode::INTERNAL_SERVER_ERROR;
                self.headers = HeaderMap::new();
                self.headers.insert(CONNECTION, HeaderValue::from_static("close"));
                self.answer(Bytes::from_static(FAILED), None);
            }
        }
        self.channel.is_some() && self.version() != Version::HTTP_2 && self.is_bodyless()
    }
}

/// Says in a head which headers follow the body, if that is not said: HTTP/1 sends no others.
pub(super) fn announce(headers: &mut HeaderMap, trailers: &HeaderMap) {
    if trailers.is_empty() || headers.contains_key(TRAILER) {
        return;
    }
    let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
        headers.insert(TRAILER, names);
    }
}

/// Takes what follows a body, if there is something.
pub(super) fn trailers_of(behind: &mut HeaderMap) -> Option<HeaderMap> {
    Some(std::mem::take(behind)).filter(|trailers| !trailers.is_empty())
}

/// What is no part of what follows a body.
const NO_TRAILERS: [HeaderName; 12] = [
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

/// Who says which headers: how errors name both.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) function: &'a str,
    pub(super) name: Wrong<'a>,
    pub(super) value: Wrong<'a>,
    /// They follow the body.
    pub(super) are_trailers: bool,
}

impl<'a> Said<'a> {
    /// Those of a table of options, or of what stands for one.
    pub(super) fn by(function: &'a str, option: &'a str) -> Said<'a> {
        let is = Wrong::Option(option);
        Said { function, name: is, value: is, are_trailers: option == "trailers" }
    }

    /// Those that the function at an index has returned, which `what` tells.
    pub(super) fn returned(by: c_int, what: &'a str, are_trailers: bool) -> Said<'a> {
        let is = Wrong::Result(by);
        Said { function: what, name: is, value: is, are_trailers }
    }
}

/// What a handler returns second.
const RETURNED: &str = "result #2 of the handler of 'serve'";

/// Why something is no header.
enum NoHeader {
    Name,
    Value,
    /// It is ours to say.
    Ours,
    /// The context's memory limit has no room for it.
    NoRoom,
}

fn header_of(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), NoHeader> {
    let name = HeaderName::from_bytes(name).map_err(|_| NoHeader::Name)?;
    if name == TRANSFER_ENCODING {
        return Err(NoHeader::Ours);
    }
    let Some(held) = hold(name.as_str().len() + value.len() + HEADER_BYTES) else {
        return Err(NoHeader::NoRoom);
    };
    let value = match held {
        Some(_) => HeaderValue::from_maybe_shared(counted(Bytes::copy_from_slice(value), held)),
        None => HeaderValue::from_bytes(value),
    };
    let value = value.map_err(|_| NoHeader::Value)?;
    if name == CONTENT_LENGTH
        && value.to_str().ok().and_then(|one| one.parse::<u64>().ok()).is_none()
    {
        return Err(NoHeader::Value);
    }
    Ok((name, value))
}

/// Adds the header whose name and value are at these indices; a value may be a list. Raises if they
/// are none.
fn add_header(lua: Stack<'_>, said: Said<'_>, headers: &mut HeaderMap, name: c_int, value: c_int) {
    let function = said.function;
    if lua.kind(name) != ffi::LUA_TSTRING {
        lua.bad(said.name, function, "name of a header", Some(name));
    }
    let list = value;
    let text_of = |index| String::from_utf8_lossy(lua.text(index).unwrap_or_default());
    let mut add = |value: c_int| {
        let is_text = matches!(lua.kind(value), ffi::LUA_TSTRING | ffi::LUA_TNUMBER);
        // Of a copy: a number that is asked for its text becomes one.
        lua.push_copy(value);
        let text = lua.text(lua.top()).filter(|_| is_text);
        let made = header_of(lua.text(name).unwrap_or_default(), text.unwrap_or_default());
        if headers.len() >= HEADERS_MAX {
            let expected = format!("at most {HEADERS_MAX} headers");
            lua.bad(said.value, function, &expected, None);
        }
        match made {
            Err(NoHeader::NoRoom) => {
                let why = "headers that the context's memory limit has room for";
                lua.bad(said.value, function, why, None);
            }
            Ok((name, _)) if said.are_trailers && NO_TRAILERS.contains(&name) => {
                let why = format!("{name} has to come before the body");
                lua.bad(said.name, function, &why, None);
            }
            Ok((name, _)) if name == CONTENT_LENGTH && headers.contains_key(&name) => {
                lua.bad(said.value, function, "one content-length", Some(list));
            }
            Ok((name, value)) if text.is_some() => {
                headers.append(name, value);
            }
            Err(NoHeader::Name) => {
                lua.bad(said.name, function, "name of a header", Some(name));
            }
            Err(NoHeader::Ours) => {
                let why = "transfer-encoding is not for scripts to say: bodies of unknown length \
                           are sent in chunks";
                lua.bad(said.name, function, why, None);
            }
            Ok(_) | Err(NoHeader::Value) => {
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

/// The last place of the list of a header's values at `list`, before which some may be empty.
/// Raises if there is more than places, which nobody would look at.
fn last_place(lua: Stack<'_>, said: Said<'_>, name: c_int, list: c_int) -> i64 {
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

/// Adds the headers in the table at `index`. Raises if they are none.
pub(super) fn add_headers(lua: Stack<'_>, said: Said<'_>, headers: &mut HeaderMap, index: c_int) {
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

/// The bytes at `index`: those of a string or number, or what a buffer holds; none for nil.
pub(super) fn bytes_at(lua: Stack<'_>, index: c_int) -> Option<Bytes> {
    if matches!(lua.kind(index), ffi::LUA_TNIL | ffi::LUA_TNONE) {
        return Some(Bytes::new());
    }
    Some(match body(lua, index)? {
        Body::Slice(slice) => Bytes::copy_from_slice(slice),
        // What is counted is its length.
        Body::Shared(piece) if piece.block_bytes() > piece.len() + piece.len() / 8 => {
            Bytes::copy_from_slice(&piece)
        }
        Body::Shared(piece) => piece.into_bytes(),
        Body::Lost => Bytes::new(),
    })
}

/// Counts bytes that are to be sent for the context; nothing if that has no room for them.
pub(super) fn hold(bytes: usize) -> Option<Option<Held>> {
    host::with(|host| Allowance::hold_of(host.context.allowance().filter(|_| bytes > 0), bytes))
}

/// Calls `work` with a request that is not over, and the list of those who are woken.
fn with<R>(key: u64, work: impl FnOnce(&mut Exchange, &Arc<Ready>) -> R) -> Option<R> {
    host::with(|host| {
        let Http { exchanges, ready, .. } = &mut **host.sockets.http.as_mut()?;
        Some(work(exchanges.get_mut(key)?, ready))
    })
}

/// native.http_answer(id, status, headers, body, handler): answers as that has returned, with which
/// the request is over; true unless the body is nothing that can be sent. Raises if the headers are
/// none.
pub(super) fn answer(lua: Stack<'_>) -> Option<bool> {
    let key = lua.key(1);
    let status = StatusCode::from_u16(lua.number(2) as u16).unwrap_or_default();
    if answer_plain(lua, key, Some(status), |_, head| add_table(lua, 3, head), 4) {
        return Some(true);
    }
    let mut headers = HeaderMap::new();
    add_headers(lua, Said::returned(5, RETURNED, false), &mut headers, 3);
    let bytes = bytes_at(lua, 4)?;
    let held = hold(bytes.len());
    let gone = host::with(|host| {
        let mut exchange = host.sockets.http.as_mut()?.exchanges.remove(key)?;
        exchange.status = status;
        exchange.headers = headers;
        match held {
            Some(held) => {
                exchange.answer(bytes, held);
            }
            None => {
                exchange.fail();
            }
        }
        Some(exchange)
    });
    drop(gone);
    Some(true)
}

/// native.http_status(id, status): of an answer that has not begun; false otherwise.
pub(super) fn status(lua: Stack<'_>) -> bool {
    let status = StatusCode::from_u16(lua.number(2) as u16).unwrap_or_default();
    let is_set = with(lua.key(1), |exchange, _| {
        exchange.status = status;
        !exchange.has_begun
    });
    is_set == Some(true)
}

/// native.http_header(id, name, value): of an answer that has not begun, in place of others of that
/// name; false otherwise. Raises if it is none.
pub(super) fn header(lua: Stack<'_>) -> bool {
    set_header(lua, "header", false)
}

/// native.http_trailer(id, name, value): of an answer that has not ended, behind its body; false
/// otherwise. Raises if it is none.
pub(super) fn trailer(lua: Stack<'_>) -> bool {
    set_header(lua, "trailer", true)
}

fn set_header(lua: Stack<'_>, function: &str, are_trailers: bool) -> bool {
    let mut headers = HeaderMap::new();
    let (name, value) = (Wrong::Argument(2), Wrong::Argument(3));
    add_header(lua, Said { function, name, value, are_trailers }, &mut headers, 2, 3);
    let is_set = with(lua.key(1), |exchange, _| {
        let all = if are_trailers { &mut exchange.behind } else { &mut exchange.headers };
        let is_room = all.len() + headers.len() <= HEADERS_MAX;
        if is_room {
            all.extend(headers);
        }
        is_room && (are_trailers || !exchange.has_begun)
    });
    is_set == Some(true)
}

/// native.http_default_type(id): of an answer that has not begun: JSON, unless another was said;
/// false otherwise.
pub(super) fn default_type(lua: Stack<'_>) -> bool {
    let is_set = with(lua.key(1), |exchange, _| {
        let json = HeaderValue::from_static("application/json");
        exchange.headers.entry(CONTENT_TYPE).or_insert(json);
        !exchange.has_begun
    });
    is_set == Some(true)
}

/// native.http_add_headers(id, headers, handler): adds all of a table, which that has returned.
pub(super) fn add_all(lua: Stack<'_>) {
    let mut headers = HeaderMap::new();
    add_headers(lua, Said::returned(3, RETURNED, false), &mut headers, 2);
    with(lua.key(1), |exchange, _| exchange.headers.extend(headers));
}

/// native.http_write(id, data, token): writes a piece of the body: true if there is room for more;
/// nothing if not, and `token` is told once there is; `false, code` if nobody takes it; `nil, why`
/// if it is nothing that can be written: 0, or a text.
pub(super) fn write(lua: Stack<'_>) -> Result<Written, c_int> {
    let bytes = bytes_at(lua, 2).ok_or_else(|| (Nil, 0.0).give(lua))?;
    let token = lua.key(3);
    let held = hold(bytes.len()).ok_or_else(|| Code::NO_MEMORY.give(lua))?;
    let written = with(lua.key(1), |exchange, ready| {
        exchange.channel(ready).write_and_wait(bytes, held, token)
    });
    Ok(written.unwrap_or(Written::Gone))
}

/// What a write of a piece has come to, for `native.http_write`.
impl Results for Written {
    fn give(self, lua: Stack<'_>) -> c_int {
        match self {
            Written::Done => true.give(lua),
            Written::Full => 0,
            Written::TooLong => (Nil, TOO_MUCH).give(lua),
            Written::Gone => Code::SOCKET_CLOSED.give(lua),
        }
    }
}

/// native.http_finish(id, data, has_failed): the answer is whole, with these bytes at its end, or
/// never will be; the request is over. True unless the data is nothing that can be sent; `nil, why`
/// if there is more or less than was said.
pub(super) fn finish(lua: Stack<'_>) -> Option<Result<bool, (Nil, &'static str)>> {
    let (key, has_failed) = (lua.key(1), lua.boolean(3));
    let add = |exchange: &Exchange, head: &mut Head<'_>| head.add_all(&exchange.headers);
    if !has_failed && answer_plain(lua, key, None, add, 2) {
        return Some(Ok(true));
    }
    let bytes = bytes_at(lua, 2)?;
    let held = hold(bytes.len());
    let has_failed = has_failed || held.is_none();
    let held = held.flatten();
    let result = host::with(|host| {
        let http = host.sockets.http.as_mut()?;
        let mut exchange = http.exchanges.remove(key)?;
        let mut is_last = false;
        if !has_failed && !exchange.has_begun && !exchange.behind.is_empty() {
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
    Some(done.map(|()| true).map_err(|why| (Nil, why)))
}

//! Requests of scripts as clients.

use std::ffi::{CStr, c_int};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ::http::response::Parts;
use ::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use base64::prelude::{BASE64_STANDARD, Engine};
use http_body::Body as _;
use hyper::body::Incoming;
use mlua::ffi;

use super::super::confine::Deny;
use super::super::frames::body;
use super::super::sockets::Socket;
use super::Http;
use super::answer::{
    HeaderSource, add_headers, announce, bytes_at, hold, hold_piece, take_trailers,
};
use super::drive::COST_BYTES;
use super::request::{BodyRead, Burst, push_headers, text_of_version};
use crate::error::Code;
use crate::http::{
    BODY_BYTES, CONNECTION_BYTES, Channel, Client, Outgoing, PendingResponse, Written, head_bytes,
};
use crate::lua::host::{self, Host};
use crate::message::Held;
use crate::vm::stack::{Nil, Results, Stack, function};

/// The registry field of the metatable of the userdata for a call, which holds its number.
const CALLS: [&CStr; 1] = [c"node-lua.http-call"];

/// A request that was sent, and its response.
pub(super) struct Call {
    connection: u64,
    pending: Option<PendingResponse>,
    response: Option<(Parts, Incoming)>,
    /// Where the script writes the request's body, piece by piece.
    channel: Option<Arc<Channel>>,
    /// What followed the response's body.
    trailers: Option<HeaderMap>,
    /// What follows the request's body.
    request_trailers: HeaderMap,
    /// The whole response has been read.
    is_over: bool,
    /// Why TLS has ended its connection.
    failure: Option<(Code, String)>,
    /// What it counts for the context.
    held: Option<Held>,
    burst: Burst,
}

/// Methods whose requests are expected to have a body.
const WITH_BODY: [Method; 3] = [Method::POST, Method::PUT, Method::PATCH];

/// About how many bytes a call takes beside its heads.
const CALL_BYTES: usize = 4096;

/// native.http_client(key, is_http2): turns a stream into a client's connection, under the same
/// key; `false, code, text` if it has ended; nothing, with the stream closed, if the context's
/// memory limit has no room for it.
pub(super) fn client(lua: Stack<'_>) -> Option<Result<bool, Failed>> {
    let (key, is_http2) = (lua.key(1), lua.boolean(2));
    let Some(held) = hold(CONNECTION_BYTES) else {
        let gone = host::with(|host| host.sockets.all.remove(key));
        drop(gone);
        return None;
    };
    Some(host::with(|host| {
        let ready = Arc::clone(&host.sockets.http.get_or_insert_default().ready);
        let context = Arc::clone(&host.context);
        let is_there = host.sockets.all.try_change(key, |socket| match socket {
            Socket::Stream(net) => {
                let client = Client::new(*net, key, is_http2, &ready, &context, held);
                Some(Socket::HttpClient(Box::new(client)))
            }
            other => Some(other),
        });
        host.poll_http_now(key);
        let failure = host.sockets.http.as_mut().and_then(|http| http.failure.take());
        if is_there && matches!(host.sockets.all.get(key), Some(Socket::HttpClient(_))) {
            return Ok(true);
        }
        let ended = || (Code::CONNECTION_ABORTED, "the connection has ended at once".to_owned());
        let (code, text) = failure.unwrap_or_else(ended);
        Err((false, code.0, text))
    }))
}

/// `false, code, text`.
type Failed = (bool, u16, String);

impl Http {
    /// Has the calls of a client's connection fail, which TLS has ended.
    pub(super) fn note_failure(&mut self, key: u64, failure: (Code, String)) {
        for (_, call) in self.calls.iter_mut().filter(|(_, call)| call.connection == key) {
            call.failure = Some(failure.clone());
        }
        self.failure = Some(failure);
    }
}

/// native.http_is_free(key): whether a request may be sent on a connection, and how many calls it
/// has; nothing if it has ended.
pub(super) fn is_free(lua: Stack<'_>) -> Option<(bool, usize)> {
    let key = lua.key(1);
    host::with(|host| {
        host.poll_http_now(key);
        let Some(Socket::HttpClient(client)) = host.sockets.all.get(key) else { return None };
        Some((client.is_free(), client.users))
    })
}

/// native.http_is_body(value): whether a value can be sent as a body.
pub(super) fn is_body(lua: Stack<'_>) -> bool {
    body(lua, 1).is_some()
}

/// native.http_check_headers(function, option, headers): raises if they are not valid.
pub(super) fn check_headers(lua: Stack<'_>) {
    let [function, option] =
        [1, 2].map(|at| String::from_utf8_lossy(lua.text(at).unwrap_or_default()));
    add_headers(lua, HeaderSource::option(&function, &option), &mut HeaderMap::new(), 3);
}

/// native.http_send(key, method, target, headers, body, is_streamed, trailers, name): sends a
/// request for the function of that name; returns a userdata for the call, and its number. `false,
/// code, text` if it cannot be sent; nothing if the body cannot be. Raises if headers are not
/// valid.
pub(super) fn send(lua: Stack<'_>) -> Option<Result<c_int, Code>> {
    let key = lua.key(1);
    let (mut headers, mut trailers) = (HeaderMap::new(), HeaderMap::new());
    let on_raise = CloseOnRaise(key);
    let name = String::from_utf8_lossy(lua.text(8).unwrap_or_default());
    add_headers(lua, HeaderSource::option(&name, "headers"), &mut headers, 4);
    add_headers(lua, HeaderSource::option(&name, "trailers"), &mut trailers, 7);
    std::mem::forget(on_raise);
    announce(&mut headers, &trailers);
    let is_streamed = lua.boolean(6);
    let bytes = bytes_at(lua, 5)?;
    let Some(held) = hold(bytes.len()) else { return Some(Err(Code::NO_MEMORY)) };
    // Hyper writes the head into its buffer, where it waits until the server takes it.
    let heads = CALL_BYTES + BODY_BYTES + head_bytes(&headers);
    let Some(call_held) = hold(heads) else { return Some(Err(Code::NO_MEMORY)) };
    let method = Method::from_bytes(lua.text(2).unwrap_or_default());
    let uri = Uri::try_from(lua.text(3).unwrap_or_default());
    let (Ok(method), Ok(uri)) = (method, uri) else { return Some(Err(Code::INVALID)) };
    lua.make_metatable(CALLS[0], function(collect), || {});
    let sent = host::with(|host| {
        let http = host.sockets.http.as_mut()?;
        let Some(Socket::HttpClient(client)) = host.sockets.all.get_mut(key) else { return None };
        let mut channel = None;
        let out = if is_streamed {
            let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            let length = length.and_then(|length| length.parse().ok());
            Outgoing::channel(channel.insert(Channel::new(&http.ready, length)))
        } else {
            // Hyper sets the length; a wrong one would have the server take the next request for
            // a part of the body. Some servers insist on the length of an empty body.
            headers.remove(CONTENT_LENGTH);
            if bytes.is_empty() && WITH_BODY.contains(&method) && !client.is_http2() {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Outgoing::whole(bytes, held)
        };
        let mut request = Request::new(out);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
            (method, uri, headers);
        let pending = client.send(request)?;
        client.users += 1;
        let call = Call {
            connection: key,
            pending: Some(pending),
            response: None,
            channel,
            trailers: None,
            request_trailers: trailers,
            is_over: false,
            failure: None,
            held: call_held,
            burst: Burst::default(),
        };
        Some(http.calls.insert(|_| call))
    });
    Some(sent.ok_or(Code::SOCKET_CLOSED).map(|number| {
        lua.push_key(number, CALLS[0]);
        1 + number.give(lua)
    }))
}

/// Closes a connection of HTTP/1, which its one request is not sent on, when an error unwinds.
struct CloseOnRaise(u64);

impl Drop for CloseOnRaise {
    fn drop(&mut self) {
        host::with(|host| {
            let found = host.sockets.all.get(self.0);
            if matches!(found, Some(Socket::HttpClient(client)) if !client.is_http2()) {
                host.sockets.end_http(self.0, &host.context);
            }
        });
    }
}

/// The finaliser of the userdata for a call.
fn collect(lua: Stack<'_>) {
    if let Some((_, number)) = lua.key_of(1, &CALLS).filter(|_| host::is_entered()) {
        host::with(|host| host.forget_call(number, true));
    }
}

/// native.http_forget(call): drops a call.
pub(super) fn forget(lua: Stack<'_>) {
    let number = lua.key(1);
    host::with(|host| host.forget_call(number, false));
}

impl Host {
    /// Drops a call. A connection of HTTP/1 is of no more use if the response was not read to its
    /// end, or if the script has not given it back.
    fn forget_call(&mut self, number: u64, is_collected: bool) {
        let Some(http) = &mut self.sockets.http else { return };
        let Some(call) = http.calls.remove(number) else { return };
        let (key, is_over) = (call.connection, call.is_over);
        drop(call);
        self.poll_http_now(key);
        let is_useless = match self.sockets.all.get_mut(key) {
            Some(Socket::HttpClient(client)) => {
                client.users -= 1;
                let is_lost = is_collected && !client.is_http2();
                is_lost || !is_over && !client.is_free()
            }
            _ => false,
        };
        if is_useless {
            self.sockets.end_http(key, &self.context);
        }
    }
}

fn with<R>(number: u64, work: impl FnOnce(&mut Call) -> R) -> Option<R> {
    host::with(|host| Some(work(host.sockets.http.as_mut()?.calls.get_mut(number)?)))
}

/// Why there is no response when the connection has ended.
const CLOSED: &str = "the connection has been closed";

/// The outcome of polling for a response.
enum Responded {
    Yes(StatusCode, Version),
    Failed(Code, String),
    NoMemory,
    Pending,
}

/// native.http_response(call, token): status and version of the response; `false, code, text` if it
/// will not come; nothing if it has not come yet, and `token` is told once it has.
pub(super) fn response(lua: Stack<'_>) -> c_int {
    let (number, token) = (lua.key(1), lua.key(2));
    match host::with(|host| poll_response(host, number, token)) {
        Responded::Pending => 0,
        Responded::Yes(status, version) => (status.as_u16(), text_of_version(version)).give(lua),
        Responded::NoMemory => Code::NO_MEMORY.give(lua),
        Responded::Failed(code, text) => (false, code.0, text).give(lua),
    }
}

fn poll_response(host: &mut Host, number: u64, token: u64) -> Responded {
    for is_last in [false, true] {
        let Some(http) = &mut host.sockets.http else { break };
        let waker = http.waker(token, is_last);
        let Some(call) = http.calls.get_mut(number) else { break };
        let Some(pending) = &mut call.pending else { break };
        match pending.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(response)) => {
                call.pending = None;
                let (parts, body) = response.into_parts();
                let has = |name| parts.headers.contains_key(name);
                if has(CONTENT_LENGTH) && has(TRANSFER_ENCODING) {
                    // Nobody knows where it ends.
                    let text = "an answer with two lengths".to_owned();
                    return Responded::Failed(Code::CONNECTION_ABORTED, text);
                }
                let responded = Responded::Yes(parts.status, parts.version);
                if let Some(held) = &mut call.held {
                    let bytes = CALL_BYTES + BODY_BYTES + head_bytes(&parts.headers);
                    if !held.try_set(bytes) {
                        return Responded::NoMemory;
                    }
                }
                call.is_over = body.is_end_stream();
                call.response = Some((parts, body));
                return responded;
            }
            Poll::Ready(Err(error)) => {
                call.pending = None;
                let (code, text) = call
                    .failure
                    .take()
                    .unwrap_or_else(|| (Code::CONNECTION_ABORTED, text_of(&error)));
                return Responded::Failed(code, text);
            }
            Poll::Pending if is_last => return Responded::Pending,
            Poll::Pending => {
                let connection = call.connection;
                host.poll_http_now(connection);
            }
        }
    }
    Responded::Failed(Code::CONNECTION_ABORTED, CLOSED.to_owned())
}

fn text_of(error: &hyper::Error) -> String {
    if error.is_canceled() || error.is_closed() {
        return CLOSED.to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// native.http_response_headers(call, are_trailers): as native.http_headers.
pub(super) fn headers(lua: Stack<'_>) -> Option<c_int> {
    let are_trailers = lua.boolean(2);
    let found = with(lua.key(1), |call| match are_trailers {
        true => call.trailers.clone(),
        false => call.response.as_ref().map(|(parts, _)| parts.headers.clone()),
    });
    found.flatten().map(|headers| push_headers(lua, &headers))
}

/// native.http_response_read(call, token): as native.http_read.
pub(super) fn read(lua: Stack<'_>) -> BodyRead {
    let (number, token) = (lua.key(1), lua.key(2));
    host::with(|host| read_body(host, number, token))
}

fn read_body(host: &mut Host, number: u64, token: u64) -> BodyRead {
    if !host.may_read(token, |http| Some(&mut http.calls.get_mut(number)?.burst)) {
        return BodyRead::Pending;
    }
    for is_last in [false, true] {
        let Some(http) = &mut host.sockets.http else { break };
        let waker = http.waker(token, is_last);
        let Some(call) = http.calls.get_mut(number) else { break };
        let Some((_, body)) = &mut call.response else { break };
        match Pin::new(body).poll_frame(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => {
                    host.turn.charge(bytes.len() / COST_BYTES);
                    return BodyRead::Data(bytes);
                }
                Err(frame) => call.trailers = frame.into_trailers().ok(),
            },
            Poll::Ready(Some(Err(_))) => return BodyRead::Failed(Code::CONNECTION_ABORTED),
            Poll::Ready(None) => {}
            Poll::Pending if is_last => return BodyRead::Pending,
            Poll::Pending => {
                let connection = call.connection;
                host.poll_http_now(connection);
                continue;
            }
        }
        call.is_over = true;
        return BodyRead::End;
    }
    BodyRead::Failed(Code::SOCKET_CLOSED)
}

/// native.http_request_write(call, data, token): as native.http_write.
pub(super) fn write(lua: Stack<'_>) -> Result<Written, c_int> {
    let bytes = bytes_at(lua, 2).filter(|_| lua.kind(2) != ffi::LUA_TNIL);
    let bytes = bytes.ok_or_else(|| (Nil, 0.0).give(lua))?;
    let held = hold_piece(&bytes).ok_or_else(|| Code::NO_MEMORY.give(lua))?;
    let token = lua.key(3);
    let written =
        with(lua.key(1), |call| Some(call.channel.as_ref()?.write_and_wait(bytes, held, token)));
    Ok(written.flatten().unwrap_or(Written::Closed))
}

/// native.http_request_end(call, has_failed, trailers, by, what): ends the request's body, or cuts
/// it off; returns why it is not what its head has announced, if it is shorter. Raises if the
/// trailers are not valid, which the function `by` has returned; `what` names that.
pub(super) fn end(lua: Stack<'_>) -> Option<String> {
    let has_failed = lua.boolean(2);
    let mut trailers = HeaderMap::new();
    let what = String::from_utf8_lossy(lua.text(5).unwrap_or_default());
    add_headers(lua, HeaderSource::returned(4, &what, true), &mut trailers, 3);
    let ended = with(lua.key(1), |call| {
        let Some(channel) = &call.channel else { return Ok(()) };
        if has_failed {
            channel.fail();
            return Ok(());
        }
        call.request_trailers.extend(trailers);
        channel.end(take_trailers(&mut call.request_trailers))
    });
    ended?.err().map(|wrong| wrong.to_string())
}

/// native.http_drop(key): closes a connection.
pub(super) fn close(lua: Stack<'_>) {
    let key = lua.key(1);
    host::with(|host| host.sockets.end_http(key, &host.context));
}

/// native.http_env(name): a variable of the environment; nothing if the context may not see it.
pub(super) fn environment(lua: Stack<'_>) -> Option<String> {
    let name = std::str::from_utf8(lua.text(1)?).ok()?;
    let may_see = host::with(|host| !host.deny.withholds(Deny::OS));
    if may_see { std::env::var(name).ok() } else { None }
}

/// native.http_base64(bytes): the bytes in base64.
pub(super) fn base64(lua: Stack<'_>) -> String {
    BASE64_STANDARD.encode(lua.text(1).unwrap_or_default())
}

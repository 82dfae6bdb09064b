//! WebSockets: connections that have changed from HTTP, and what the handshake takes.

use std::ffi::c_int;

use base64::prelude::{BASE64_STANDARD, Engine};
use mlua::ffi;

use super::buffer::userdata::{buffer_at, push_shared};
use super::frames::{Refused, Staged, body, stage_with, while_reading, with_scratch};
use super::tcp::WEBSOCKET;
use crate::error::Code;
use crate::frame::websocket::{Close, Form, Kind, OFFER, Role, accept_key, agreed, negotiate};
use crate::lua::host;
use crate::net::{Incoming, WebSocketOptions};
use crate::rt;
use crate::vm::stack::{Nil, Results, Stack, function};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"websocket_start", function(start)),
    (c"websocket_read", function(read)),
    (c"websocket_write", function(write)),
    (c"websocket_say_close", function(say_close)),
    (c"websocket_silence", function(silence)),
    (c"websocket_is_code", function(is_code)),
    (c"websocket_is_text", function(is_text)),
    (c"websocket_text", function(text)),
    (c"websocket_key", function(new_key)),
    (c"websocket_accept_key", function(accept)),
    (c"websocket_offer", function(offer)),
    (c"websocket_negotiate", function(negotiate_offers)),
    (c"websocket_agreed", function(agreed_on)),
];

/// Unpacked bytes that cost a turn as much as a message does.
const COST_BYTES: usize = 1024;

/// native.websocket_start(socket, key, is_client, kind, max, window, is_timed): has a tcp socket be
/// a websocket. The window is nil without compression.
fn start(lua: Stack<'_>) {
    let key = lua.key(2);
    let options = WebSocketOptions {
        role: if lua.boolean(3) { Role::Client } else { Role::Server },
        kind: lua.text(4).and_then(Kind::from_word).unwrap_or(Kind::Text),
        message_max: lua.number(5) as usize,
        window: lua.is_number(6).then(|| lua.number(6) as u8),
        is_timed: lua.boolean(7),
    };
    lua.field(ffi::LUA_REGISTRYINDEX, WEBSOCKET);
    lua.set_metatable(1);
    host::with(|host| host.sockets.stream(key).map(|stream| stream.start_websocket(options)));
}

/// native.websocket_read(key): "text" or "binary", and a buffer; `false, code, reason`; nothing if
/// there is nothing yet: then an event tells of more.
fn read(lua: Stack<'_>) -> c_int {
    let key = lua.key(1);
    let found = host::with(|host| {
        if host.sockets.reading == key {
            return Incoming::Wait;
        }
        let has_time = host.turn.charge(1);
        let Some(stream) = host.sockets.stream(key) else {
            return Incoming::Ended(Code::SOCKET_CLOSED, String::new());
        };
        if !has_time {
            stream.read_later(0);
            return Incoming::Wait;
        }
        let found = with_scratch(|scratch| stream.read_message(scratch));
        host.turn.charge(stream.message_work() / COST_BYTES);
        if !matches!(found, Incoming::Wait) || !stream.staged.is_empty() {
            host.sockets.note_dirty(key);
        }
        found
    });
    match found {
        Incoming::Wait => 0,
        Incoming::Message(kind, piece) => {
            lua.push_text(kind.word().as_bytes());
            while_reading(key, || push_shared(lua, piece));
            2
        }
        Incoming::Ended(code, reason) => {
            (false, code.0, [Some(reason).filter(|reason| !reason.is_empty())]).give(lua)
        }
    }
}

/// native.websocket_write(key, data, form, token): as native.write; the form is "text", "binary",
/// "ping", or nil for the usual one.
fn write(lua: Stack<'_>) -> Staged {
    let (key, data, token) = (lua.key(1), body(lua, 2), lua.key(4));
    let form = match lua.text(3) {
        None => Form::Usual,
        Some(b"ping") => Form::Ping,
        Some(word) => Form::Message(Kind::from_word(word).unwrap_or(Kind::Text)),
    };
    let staged = data.map(|data| {
        host::with(|host| {
            if let Some(code) = host.sockets.stream(key).and_then(|stream| stream.state().0) {
                return Err(Refused::Closed(code));
            }
            let write =
                |host: &mut host::Host, body| host.sockets.write_message(key, form, body, token);
            stage_with(host, super::frames::Target::Own(key), data, write)
        })
    });
    staged.ok_or((Nil, 0.0))
}

/// native.websocket_say_close(key, code, reason): says that nothing follows.
fn say_close(lua: Stack<'_>) {
    let (key, code) = (lua.key(1), lua.number(2) as u16);
    let reason = String::from_utf8_lossy(lua.text(3).unwrap_or_default()).into_owned();
    host::with(|host| {
        let stream = host.sockets.stream(key)?;
        stream.say_close(&Close { code, reason });
        host.sockets.note_dirty(key);
        Some(())
    });
}

/// native.websocket_silence(key): for how many seconds nothing has come that would have been taken;
/// nothing if the connection is gone.
fn silence(lua: Stack<'_>) -> Option<f64> {
    let key = lua.key(1);
    let silence = host::with(|host| host.sockets.stream(key).map(|stream| stream.silence()))?;
    Some(silence.unwrap_or_default().as_secs_f64())
}

/// native.websocket_is_code(code): whether a close frame may have it.
fn is_code(lua: Stack<'_>) -> bool {
    let code = lua.number(1);
    let is_code = code.fract() == 0.0 && (0.0..65_536.0).contains(&code);
    is_code && Close::is_code(code as u16)
}

/// native.websocket_is_text(text): whether it is UTF-8 that a close frame has room for.
fn is_text(lua: Stack<'_>) -> bool {
    let text = lua.text(1).unwrap_or_default();
    text.len() <= Close::REASON_BYTES_MAX && std::str::from_utf8(text).is_ok()
}

/// native.websocket_text(buffer): its bytes as a string.
fn text(lua: Stack<'_>) -> Vec<u8> {
    buffer_at(lua, 1).map(|buffer| buffer.as_slice().to_vec()).unwrap_or_default()
}

/// native.websocket_key(): a key for a client.
fn new_key(_: Stack<'_>) -> String {
    let words = rt::random_words().unwrap_or_else(|| [0, 1, 2, 3].map(|at| rt::secret((at, at))));
    let bytes: Vec<u8> = words[..2].iter().flat_map(|word| word.to_ne_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

/// native.websocket_accept_key(key): what a server answers to it.
fn accept(lua: Stack<'_>) -> String {
    accept_key(lua.text(1).unwrap_or_default())
}

/// native.websocket_offer(): what a client offers.
fn offer(_: Stack<'_>) -> &'static str {
    OFFER
}

/// native.websocket_negotiate(offers): the window and the answer; nothing without agreement.
fn negotiate_offers(lua: Stack<'_>) -> Option<(u8, String)> {
    negotiate(std::str::from_utf8(lua.text(1)?).ok()?)
}

/// native.websocket_agreed(answer): the window; or nil, and what is wrong.
fn agreed_on(lua: Stack<'_>) -> Result<u8, (Nil, &'static str)> {
    let answer = lua.text(1).and_then(|text| std::str::from_utf8(text).ok());
    answer.map_or(Err("an extension that was not offered"), agreed).map_err(|why| (Nil, why))
}

/// What is said of one in messages.
pub(super) fn describe(is_open: bool) -> &'static str {
    if is_open { "a websocket" } else { "a closed websocket" }
}

//! Frames: reading and writing sockets.
//!
//! What a script does once per message is here, and made for that: `read` hands out many frames in
//! one call, and plain writes have functions that compiled code calls without leaving it.

use std::cell::Cell;
use std::ffi::c_int;
use std::ops::Range;

use super::buffer::values::{buffer_at, push_frames, with_buffer, with_text};
use crate::buf::{NlBuffer, ReadBuffer};
use crate::error::Code;
use crate::frame::{Encoder, TooLong};
use crate::lua;
use crate::lua::host::{self, Host};
use crate::net::{Body, Read, SharedWriter, WriteBatch};
use crate::vm::hook;
use crate::vm::stack::{Stack, function};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"read", function(read)),
    (c"write", function(write)),
    (c"write_shared", function(write_shared)),
    (c"stage_pointers", function(stage_pointers)),
];

thread_local! {
    /// The block that this worker reads sockets into.
    static SCRATCH: Cell<ReadBuffer> = Cell::new(ReadBuffer::default());
}

/// Calls `body` with that block. Calls inside it get another.
fn with_scratch<R>(body: impl FnOnce(&mut ReadBuffer) -> R) -> R {
    let mut scratch = SCRATCH.take();
    let result = body(&mut scratch);
    SCRATCH.set(scratch);
    result
}

/// Frames that one call of `read` hands out.
const FRAMES_MAX: usize = 16;

/// What a call of `read` has found.
struct Found {
    read: Read,
    /// Nothing is behind it for now.
    is_dry: bool,
}

/// Takes the next frames, whose bodies are at `places`.
fn find(key: u64, scratch: &mut ReadBuffer, places: &mut [Range<usize>; FRAMES_MAX]) -> Found {
    host::with(|host| {
        let has_time = host.turn.charge(1);
        let Some(stream) = host.sockets.stream(key) else {
            return Found { read: Read::Failed(Code::SOCKET_CLOSED), is_dry: false };
        };
        if !has_time {
            stream.read_later();
            return Found { read: Read::Later, is_dry: false };
        }
        let read = stream.read(scratch, places);
        let is_dry = match read {
            Read::Frames(..) => stream.is_dry(),
            Read::Wait | Read::Later => true,
            Read::Failed(_) => false,
        };
        if let Read::Frames(count, _) = read {
            host.turn.charge(count - 1);
        }
        Found { read, is_dry }
    })
}

/// native.read(key, stock): a buffer, how many more, which follow it, are now in the table `stock`
/// from index 1 on, and whether there are none behind those until the next event; `nil, code`;
/// nothing if there is nothing yet.
fn read(lua: Stack<'_>) -> c_int {
    let key = lua.key(1);
    with_scratch(|scratch| {
        let mut places = [const { 0..0 }; FRAMES_MAX];
        let found = find(key, scratch, &mut places);
        let more = match found.read {
            Read::Frames(count, piece) => {
                let bytes = piece.as_deref().unwrap_or(scratch.content());
                push_frames(lua, &places[..count], bytes, piece.as_ref());
                count - 1
            }
            Read::Wait | Read::Later => return 0,
            Read::Failed(code) => return push_code(lua, code),
        };
        lua.push_number(more as f64);
        lua.push_boolean(found.is_dry);
        3
    })
}

/// Reads the next frame into a buffer. Returns 0 if it did, 1 if it did and there is nothing behind
/// it until the next event, 2 if there is nothing yet, 3 if nothing was done: then native.read says
/// why.
fn read_into(key: f64, buffer: &mut NlBuffer) -> c_int {
    if !buffer.is_live() {
        return 3;
    }
    let before = buffer.charged;
    let take = |host: &mut Host| {
        let has_time = host.turn.charge(1);
        let Some(stream) = host.sockets.stream(key as u64) else { return 3 };
        if !has_time {
            stream.read_later();
            return 2;
        }
        // Mostly there are frames left of the last read.
        if !stream.take_into(buffer) {
            let read = with_scratch(|scratch| stream.read_into(scratch, buffer));
            match read {
                Read::Frames(..) => {}
                Read::Wait | Read::Later => return 2,
                Read::Failed(_) => return 3,
            }
        }
        c_int::from(stream.is_dry())
    };
    let result = lua::fault::attempt(take).unwrap_or(3);
    let now = buffer.charged;
    if now != before {
        hook::with_account(|account| account.recharge(before as usize, now as usize));
    }
    result
}

/// native.stage_pointers(): the addresses of [`stage_buffer`], [`stage_text`],
/// [`stage_shared_buffer`] and [`read_into`], for the FFI: nothing may be raised in these.
fn stage_pointers(lua: Stack<'_>) -> c_int {
    let buffer = with_buffer(stage_buffer);
    let text = with_text(stage_text);
    let shared = with_buffer(stage_shared_buffer);
    let into = with_buffer(read_into);
    lua.push_address(buffer);
    lua.push_address(text);
    lua.push_address(shared);
    lua.push_address(into);
    4
}

/// As [`stage_buffer`], to a connection of any context: `fd` is what native.fd returned for it.
fn stage_shared_buffer(fd: f64, buffer: &mut NlBuffer) -> c_int {
    let is_staged = lua::fault::attempt(|host| {
        let fd = fd as u64;
        let body = body_of(buffer);
        if let Body::Slice(body) = body
            && host.sockets.shared.stage(fd, body)
        {
            host.note_staged(body.len());
            return true;
        }
        matches!(stage_shared(host, fd, body, 0), Ok(Ok(())))
    });
    c_int::from(is_staged != Some(true))
}

/// Stages a frame with the content of a buffer. Returns 0, or 1 if nothing was done: then
/// native.write does it, or says why not.
fn stage_buffer(key: f64, buffer: &mut NlBuffer) -> c_int {
    let is_staged = lua::fault::attempt(|host| match body_of(buffer) {
        Body::Slice(body) => stage_plain(host, key, body),
        body => matches!(stage(host, key as u64, body, 0), Some(Ok(()))),
    });
    c_int::from(is_staged != Some(true))
}

/// What a buffer holds, for a write: much by reference, little to be copied.
fn body_of(buffer: &mut NlBuffer) -> Body<'_> {
    if buffer.len() >= WriteBatch::BY_REFERENCE_BYTES {
        Body::Shared(buffer.share())
    } else {
        Body::Slice(buffer.as_slice())
    }
}

/// As [`stage_buffer`], with the bytes of a string.
fn stage_text(key: f64, text: &[u8]) -> c_int {
    let is_staged = lua::fault::attempt(|host| stage_plain(host, key, text));
    c_int::from(is_staged != Some(true))
}

#[inline]
fn stage_plain(host: &mut Host, key: f64, body: &[u8]) -> bool {
    let is_staged = host.sockets.stage(key as u64, body);
    if is_staged {
        host.note_staged(body.len());
    }
    is_staged
}

fn push_code(lua: Stack<'_>, code: Code) -> c_int {
    lua.push_nil();
    lua.push_number(f64::from(code.0));
    2
}

/// The body of a write at `index`: a string, a number's text, or what a buffer holds; `None` for
/// anything else.
fn body<'a>(lua: Stack<'a>, index: c_int) -> Option<Body<'a>> {
    if let Some(text) = lua.text(index) {
        return Some(Body::Slice(text));
    }
    Some(body_of(buffer_at(lua, index)?))
}

/// Pushes why a write is wrong: 0 for the type of the data, or a message.
fn push_refusal(lua: Stack<'_>, message: Option<String>) {
    match message {
        None => lua.push_number(0.0),
        Some(message) => lua.push_text(message.as_bytes()),
    }
}

/// native.write(key, data, token): stages a frame; with a token that is not 0, tells when it is
/// out. Returns nothing, or why the arguments are wrong.
fn write(lua: Stack<'_>) -> c_int {
    let (key, data, token) = (lua.key(1), body(lua, 2), lua.key(3));
    let Some(data) = data else {
        push_refusal(lua, None);
        return 1;
    };
    let message = match host::with(|host| stage(host, key, data, token)) {
        Some(Ok(())) => return 0,
        Some(Err(too_long)) => too_long.to_string(),
        None => Code::SOCKET_CLOSED.text().to_owned(),
    };
    push_refusal(lua, Some(message));
    1
}

/// Stages a frame on a connection of the context's own; `None` if there is none with this key.
fn stage(host: &mut Host, key: u64, mut data: Body<'_>, token: u64) -> Option<Result<(), TooLong>> {
    let bytes = data.held_bytes();
    if host.is_too_much(bytes) {
        host.sockets.stream(key)?.writer().overflow(&host.context);
        data = Body::Slice(&[]);
    }
    match host.sockets.write(key, data, token)? {
        Ok(false) => {}
        Ok(true) => host.flush(),
        Err(too_long) => return Some(Err(too_long)),
    }
    host.note_staged(bytes);
    Some(Ok(()))
}

/// native.write_shared(fd, data, token): as `write`, to a connection of any context. Returns a
/// code first if the connection cannot be written to.
fn write_shared(lua: Stack<'_>) -> c_int {
    let (fd, data, token) = (lua.key(1), body(lua, 2), lua.key(3));
    let refuse = |message: Option<String>| {
        lua.push_nil();
        push_refusal(lua, message);
        2
    };
    let Some(data) = data else { return refuse(None) };
    let result = host::with(|host| stage_shared(host, fd, data, token));
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(too_long)) => refuse(Some(too_long.to_string())),
        Err(code) => {
            lua.push_number(f64::from(code.0));
            1
        }
    }
}

fn stage_shared(
    host: &mut Host,
    fd: u64,
    mut data: Body<'_>,
    token: u64,
) -> Result<Result<(), TooLong>, Code> {
    // Compiled code comes here without the native that confined contexts have in its place.
    if host.deny.withholds_network() {
        return Err(Code::NOT_PERMITTED);
    }
    let known = host.sockets.shared.get(fd).or_else(|| SharedWriter::get(fd));
    let shared = known.ok_or(Code::SOCKET_CLOSED)?;
    let encoder: Encoder = shared.encoder().ok_or(Code::NOT_PERMITTED)?;
    if shared.owner() == host.context.id() {
        // The same queue as other writes of this context, so that their order is kept.
        return stage(host, shared.key(), data, token).ok_or(Code::SOCKET_CLOSED);
    }
    let head = match encoder.head(data.len()) {
        Ok(head) => head,
        Err(too_long) => return Ok(Err(too_long)),
    };
    let bytes = data.held_bytes();
    if host.is_too_much(bytes) {
        shared.writer().overflow(&host.context);
        data = Body::Slice(&[]);
    }
    if host.sockets.shared.push(fd, &shared, encoder, (head, data), token) {
        host.flush();
    }
    host.note_staged(bytes);
    Ok(Ok(()))
}

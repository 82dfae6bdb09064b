//! Frames: reading and writing sockets.
//!
//! What a script does once per message is here, and made for that: `read` hands out many frames in
//! one call, and plain writes have functions that compiled code calls without leaving it.

use std::ffi::{c_int, c_void};
use std::ops::Range;

use bytes::Bytes;
use mlua::ffi::{self, lua_CFunction, lua_State};

use super::{key, push_text, text};
use crate::abi::buffer;
use crate::buf::{INLINE_MAX, NlBuffer};
use crate::error::Code;
use crate::frame::{Encoder, TooLong};
use crate::lua::host::{self, Host, Socket};
use crate::net::{Body, Read, SharedWriter, Staged};

pub(super) const FUNCTIONS: super::Functions = &[
    (c"read", read as lua_CFunction),
    (c"write", write),
    (c"write_shared", write_shared),
    (c"stage_pointers", stage_pointers),
];

/// Frames that one call of `read` hands out.
const FRAMES_MAX: usize = 16;

#[allow(clippy::large_enum_variant, reason = "lives on the stack for one call")]
enum Found {
    /// Frames of at most INLINE_MAX bytes, and where their bodies are.
    Small(Bytes, [Range<usize>; FRAMES_MAX], usize),
    Large(Bytes),
    Nothing,
    Failed(Code),
}

fn find(key: u64) -> Found {
    let found = host::with(|host| {
        let has_time = host.charge(1);
        let found = host.with_stream(key, |stream, scratch| {
            if !has_time {
                stream.read_later();
                return Found::Nothing;
            }
            match stream.read(scratch) {
                Read::Frame { body, .. } if body <= INLINE_MAX => {
                    let mut places = [const { 0..0 }; FRAMES_MAX];
                    let (bytes, count) = stream.take_small(INLINE_MAX, &mut places);
                    Found::Small(bytes, places, count)
                }
                Read::Frame { head, body } => Found::Large(stream.take(head, body)),
                Read::Wait | Read::Later => Found::Nothing,
                Read::Failed(code) => Found::Failed(code),
            }
        });
        if let Some(Found::Small(_, _, count)) = &found {
            host.charge(count - 1);
        }
        found
    });
    found.unwrap_or(Found::Failed(Code::SOCKET_CLOSED))
}

/// native.read(key, stock): a buffer, and how many more, which follow it, are now in the table
/// `stock` from index 1 on; `nil, code`; nothing if there is nothing yet.
unsafe extern "C-unwind" fn read(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let found = find(unsafe { key(raw, 1) });
    // SAFETY: as above; the host is not borrowed any more. What raises drops the bytes on its way.
    unsafe {
        match found {
            Found::Small(bytes, places, count) => {
                buffer::push_small(raw, places[..count].iter().map(|place| &bytes[place.clone()]));
                ffi::lua_pushnumber(raw, (count - 1) as f64);
                2
            }
            Found::Large(bytes) => {
                buffer::push_shared(raw, bytes);
                ffi::lua_pushnumber(raw, 0.0);
                2
            }
            Found::Nothing => 0,
            Found::Failed(code) => push_code(raw, code),
        }
    }
}

/// native.stage_pointers(): the addresses of [`stage_buffer`], [`stage_text`] and
/// [`stage_shared_buffer`], for the FFI.
unsafe extern "C-unwind" fn stage_pointers(raw: *mut lua_State) -> c_int {
    let buffer: unsafe extern "C" fn(f64, *const NlBuffer) -> c_int = stage_buffer;
    let text: unsafe extern "C" fn(f64, *const u8, u32) -> c_int = stage_text;
    let shared: unsafe extern "C" fn(f64, *const NlBuffer) -> c_int = stage_shared_buffer;
    // SAFETY: called by the VM.
    unsafe {
        ffi::lua_pushlightuserdata(raw, buffer as *mut c_void);
        ffi::lua_pushlightuserdata(raw, text as *mut c_void);
        ffi::lua_pushlightuserdata(raw, shared as *mut c_void);
    }
    3
}

/// As [`stage_buffer`], to a connection of any context: `fd` is what native.fd returned for it.
///
/// # Safety
/// As for [`stage_buffer`].
unsafe extern "C" fn stage_shared_buffer(fd: f64, buffer: *const NlBuffer) -> c_int {
    // SAFETY: the caller's contract.
    let body = unsafe { &*buffer }.as_slice();
    if body.len() >= Staged::BY_REFERENCE_BYTES {
        return 1;
    }
    let staged = host::with(|host| stage_shared(host, fd as u64, Body::Slice(body), 0));
    c_int::from(!matches!(staged, Ok(Ok(()))))
}

/// Stages a frame with the content of a buffer. Returns 0, or 1 if nothing was done: then
/// native.write does it, or says why not.
///
/// # Safety
/// `buffer` must be what a buffer userdata holds, and a context must be running.
unsafe extern "C" fn stage_buffer(key: f64, buffer: *const NlBuffer) -> c_int {
    // SAFETY: the caller's contract.
    stage_plain(key, unsafe { &*buffer }.as_slice())
}

/// As [`stage_buffer`], with the bytes of a string.
///
/// # Safety
/// `start` must be valid for `length` bytes, and a context must be running.
unsafe extern "C" fn stage_text(key: f64, start: *const u8, length: u32) -> c_int {
    // SAFETY: the caller's contract.
    stage_plain(key, unsafe { std::slice::from_raw_parts(start, length as usize) })
}

fn stage_plain(key: f64, body: &[u8]) -> c_int {
    if body.len() >= Staged::BY_REFERENCE_BYTES {
        return 1;
    }
    let is_staged = host::with(|host| {
        let key = key as u64;
        let Some(Socket::Stream(stream)) = host.sockets.get_mut(key) else { return false };
        if stream.staged.bytes() + body.len() >= Staged::BYTES_MAX
            || stream.write(Body::Slice(body)).is_err()
        {
            return false;
        }
        if !stream.is_dirty {
            stream.is_dirty = true;
            host.dirty.push(key);
        }
        true
    });
    c_int::from(!is_staged)
}

unsafe fn push_code(raw: *mut lua_State, code: Code) -> c_int {
    // SAFETY: the callers are called by the VM.
    unsafe {
        ffi::lua_pushnil(raw);
        ffi::lua_pushnumber(raw, f64::from(code.0));
    }
    2
}

/// The body of a write at `index`: a string, a number's text, or what a buffer holds; `None` for
/// anything else.
///
/// # Safety
/// `raw` must be a live state; the body lives while the argument is on the stack.
unsafe fn body<'a>(raw: *mut lua_State, index: c_int) -> Option<Body<'a>> {
    // SAFETY: the caller's contract.
    unsafe {
        if let Some(text) = text(raw, index) {
            return Some(Body::Slice(text));
        }
        let buffer = buffer::test(raw, index)?;
        if buffer.is_live() && buffer.as_slice().len() >= Staged::BY_REFERENCE_BYTES {
            return Some(Body::Shared(buffer.share()));
        }
        Some(Body::Slice(buffer.as_slice()))
    }
}

/// Pushes why a write is wrong: 0 for the type of the data, or a message.
unsafe fn push_refusal(raw: *mut lua_State, message: Option<String>) {
    // SAFETY: the callers are called by the VM.
    unsafe {
        match message {
            None => ffi::lua_pushnumber(raw, 0.0),
            Some(message) => push_text(raw, message.as_bytes()),
        }
    }
}

/// native.write(key, data, token): stages a frame; with a token that is not 0, tells when it is
/// out. Returns nothing, or why the arguments are wrong.
unsafe extern "C-unwind" fn write(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let (key, data, token) = unsafe { (key(raw, 1), body(raw, 2), key(raw, 3)) };
    let Some(data) = data else {
        // SAFETY: as above.
        unsafe { push_refusal(raw, None) };
        return 1;
    };
    let message = match host::with(|host| stage(host, key, data, token)) {
        Some(Ok(())) => return 0,
        Some(Err(too_long)) => too_long.to_string(),
        None => Code::SOCKET_CLOSED.text().to_owned(),
    };
    // SAFETY: as above.
    unsafe { push_refusal(raw, Some(message)) };
    1
}

/// Stages a frame on a connection of the context's own; `None` if there is none with this key.
fn stage(host: &mut Host, key: u64, data: Body<'_>, token: u64) -> Option<Result<(), TooLong>> {
    let Some(Socket::Stream(stream)) = host.sockets.get_mut(key) else { return None };
    if let Err(too_long) = stream.write(data) {
        return Some(Err(too_long));
    }
    if token != 0 {
        stream.staged.notify(token);
    }
    if !stream.is_dirty {
        stream.is_dirty = true;
        host.dirty.push(key);
    } else if stream.staged.bytes() >= Staged::BYTES_MAX {
        host.flush();
    }
    Some(Ok(()))
}

/// native.write_shared(fd, data, token): as `write`, to a connection of any context. Returns a
/// code first if the connection cannot be written to.
unsafe extern "C-unwind" fn write_shared(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let (fd, data, token) = unsafe { (key(raw, 1), body(raw, 2), key(raw, 3)) };
    let refuse = |message: Option<String>| {
        // SAFETY: as above.
        unsafe {
            ffi::lua_pushnil(raw);
            push_refusal(raw, message);
        }
        2
    };
    let Some(data) = data else { return refuse(None) };
    let result = host::with(|host| stage_shared(host, fd, data, token));
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(too_long)) => refuse(Some(too_long.to_string())),
        Err(code) => {
            // SAFETY: as above.
            unsafe { ffi::lua_pushnumber(raw, f64::from(code.0)) };
            1
        }
    }
}

fn stage_shared(
    host: &mut Host,
    fd: u64,
    data: Body<'_>,
    token: u64,
) -> Result<Result<(), TooLong>, Code> {
    // Compiled code comes here without the native that confined contexts have in its place.
    if host.deny.withholds_network() {
        return Err(Code::NOT_PERMITTED);
    }
    let known = host.remotes.get(&fd).and_then(|remote| remote.writer.upgrade());
    let shared = known.filter(|shared| !shared.is_closed());
    let shared = shared.or_else(|| SharedWriter::get(fd)).ok_or(Code::SOCKET_CLOSED)?;
    let encoder: Encoder = shared.encoder().ok_or(Code::NOT_PERMITTED)?;
    if shared.owner() == host.context.id() {
        // The same queue as other writes of this context, so that their order is kept.
        return stage(host, shared.key(), data, token).ok_or(Code::SOCKET_CLOSED);
    }
    let head = match encoder.head(data.len()) {
        Ok(head) => head,
        Err(too_long) => return Ok(Err(too_long)),
    };
    let remote = host.remote(fd, &shared);
    remote.staged.push(head.as_slice(), data);
    if token != 0 {
        remote.staged.notify(token);
    }
    if !remote.is_dirty {
        remote.is_dirty = true;
        host.dirty_remotes.push(fd);
    } else if remote.staged.bytes() >= Staged::BYTES_MAX {
        host.flush();
    }
    Ok(Ok(()))
}

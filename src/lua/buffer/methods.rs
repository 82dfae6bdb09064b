//! The functions of module `buffer`, which are also the methods of buffers.
//!
//! A released buffer does not raise here, as `API.md` has it: it is empty, and refuses changes.

use std::ffi::{CStr, c_int};

use memchr::memmem;
use mlua::ffi::{self, lua_CFunction};

use super::pack;
use super::userdata::{
    Fault, buffer_at, charge_part, discharge, push_empty, push_place, push_view, recharge, reserve,
};
use crate::buf::{INLINE_MAX, NlBuffer, ROOM_DEFAULT, SIZE_MAX};
use crate::vm::blame::Wrong;
use crate::vm::stack::{Results, Stack, function};

pub(super) const METHODS: &[(&CStr, lua_CFunction)] = &[
    (c"new", function(new)),
    (c"append", function(append)),
    (c"split", function(split)),
    (c"clear", function(clear)),
    (c"length", function(length)),
    (c"unfill", function(unfill)),
    (c"tostring", function(tostring)),
    (c"find", function(find)),
    (c"valid", function(valid)),
    (c"release", function(release)),
    (c"remove", function(remove)),
    (c"slice", function(slice)),
    (c"pack", function(pack::pack)),
    (c"unpack", function(pack::unpack)),
    (c"packsize", function(pack::packsize)),
];

pub(super) const METAMETHODS: &[(&CStr, lua_CFunction)] = &[
    (c"__len", function(length)),
    (c"__tostring", function(tostring)),
    (c"__concat", function(concat)),
    (c"__eq", function(equal)),
];

const CONTENT: &str = "string, number or buffer";

/// `new([capacity][, content])`
pub(super) fn new(lua: Stack<'_>) -> Result<c_int, Fault> {
    // Before a second argument there is a capacity.
    let has = |index| !matches!(lua.kind(index), ffi::LUA_TNIL | ffi::LUA_TNONE);
    let is_number = lua.kind(1) == ffi::LUA_TNUMBER;
    if has(2) && !is_number {
        lua.bad(Wrong::Argument(1), "new", "capacity before content", Some(1));
    } else if has(3) {
        lua.bad(Wrong::Argument(3), "new", "", Some(3));
    }
    let made = match lua.kind(1) {
        ffi::LUA_TSTRING => new_with_text(lua, 1, None),
        ffi::LUA_TNONE | ffi::LUA_TNIL => push_empty(lua, ROOM_DEFAULT).map(|_| ()),
        ffi::LUA_TNUMBER => {
            let capacity = lua.check_whole(1, SIZE_MAX);
            match lua.kind(2) {
                ffi::LUA_TNONE | ffi::LUA_TNIL => push_empty(lua, capacity).map(|_| ()),
                ffi::LUA_TSTRING | ffi::LUA_TNUMBER => new_with_text(lua, 2, Some(capacity)),
                _ => lua.type_error(2, "string"),
            }
        }
        _ => match buffer_at(lua, 1) {
            Some(source) if source.is_live() => push_view(lua, 1, 0, SIZE_MAX),
            Some(_) => push_empty(lua, ROOM_DEFAULT).map(|_| ()),
            None => lua.type_error(1, CONTENT),
        },
    };
    made.map(|()| 1)
}

fn new_with_text(lua: Stack<'_>, index: c_int, capacity: Option<usize>) -> Result<(), Fault> {
    let text = lua.text(index).unwrap_or(&[]);
    let capacity = capacity.unwrap_or(text.len() + ROOM_DEFAULT).max(text.len());
    // The default room is not worth failing for.
    let capacity = if text.len() <= SIZE_MAX { capacity.min(SIZE_MAX) } else { capacity };
    push_empty(lua, capacity)?.fill(text);
    Ok(())
}

/// `append(buffer, string | number | buffer)`
fn append(lua: Stack<'_>) -> Result<bool, Fault> {
    let target: *const NlBuffer = lua.check_buffer(1);
    if lua.top() > 2 {
        lua.type_error(3, "");
    }
    let appended = match lua.kind(2) {
        ffi::LUA_TSTRING | ffi::LUA_TNUMBER => {
            let text = lua.text(2).unwrap_or(&[]);
            append_text(lua, text)
        }
        _ => match buffer_at(lua, 2) {
            Some(source) if std::ptr::eq(source, target) => append_self(lua),
            Some(_) => append_buffer(lua),
            None => lua.type_error(2, CONTENT),
        },
    };
    match appended {
        Err(Fault::Released) => Ok(false),
        appended => appended.map(|()| true),
    }
}

fn append_text(lua: Stack<'_>, text: &[u8]) -> Result<(), Fault> {
    let target = lua.check_buffer(1);
    if !target.is_unique() || target.room() < text.len() {
        reserve(lua, 1, text.len())?;
    }
    lua.check_buffer(1).fill(text);
    Ok(())
}

fn append_self(lua: Stack<'_>) -> Result<(), Fault> {
    // More than once only if a finaliser made the buffer longer meanwhile.
    loop {
        let len = lua.check_buffer(1).len();
        reserve(lua, 1, len)?;
        if lua.check_buffer(1).fill_self() {
            return Ok(());
        }
    }
}

fn append_buffer(lua: Stack<'_>) -> Result<(), Fault> {
    loop {
        let len = lua.check_buffer(2).len();
        reserve(lua, 1, len)?;
        let source = lua.check_buffer(2).as_slice();
        let target = lua.check_buffer(1);
        if source.len() <= target.room() {
            target.fill(source);
            return Ok(());
        }
    }
}

/// `split(buffer[, n])`
fn split(lua: Stack<'_>) -> Result<c_int, Fault> {
    lua.check_buffer(1);
    let wanted = lua.check_count(2);
    loop {
        let source = lua.check_buffer(1);
        let count = wanted.min(source.len());
        let in_place = source.is_inline() || count <= INLINE_MAX;
        let head = push_place(lua, if in_place { count } else { 0 });
        let mut held = 0;
        if !in_place {
            let source = lua.check_buffer(1);
            held = if count < source.len() { source.view_bytes(count) } else { 0 };
            charge_part(lua, held)?;
        }
        // Only now: a finaliser may have changed the source.
        let source = lua.check_buffer(1);
        if source.is_inline() && count.min(source.len()) > head.room() {
            recharge(lua, held, 0);
            continue;
        }
        let mut charged = 0;
        if count >= source.len() {
            let is_moved = source.split_into(count, head) && !head.is_inline();
            if is_moved {
                head.charged = std::mem::take(&mut source.charged);
            }
        } else {
            let block = source.charged;
            if !source.is_viewed(count) && !in_place && head.set_copy(&source.as_slice()[..count]) {
                source.skip(count);
            } else if source.split_into(count, head) && !head.is_inline() {
                head.charged = block;
            }
            charged = head.charged as usize;
        }
        recharge(lua, held, charged);
        return Ok(1);
    }
}

/// `clear(buffer)`
fn clear(lua: Stack<'_>) -> bool {
    forget(lua, lua.check_buffer(1));
    true
}

/// Empties a buffer; a released one is empty.
fn forget(lua: Stack<'_>, buffer: &mut NlBuffer) {
    if buffer.is_live() {
        buffer.clear();
    }
    if buffer.is_inline() {
        discharge(lua, buffer);
    }
}

/// `length(buffer)`, `#buffer`
fn length(lua: Stack<'_>) -> usize {
    lua.check_buffer(1).len()
}

/// `unfill(buffer)`
fn unfill(lua: Stack<'_>) -> usize {
    lua.check_buffer(1).room()
}

/// `tostring(buffer)`, as method and as metamethod
fn tostring(lua: Stack<'_>) -> c_int {
    let len = lua.check_buffer(1).len();
    push_content(lua, 1, 0, len)
}

/// `a .. b`, where one is a buffer and the other that, a string or a number: a string, as that of
/// LuaJIT's own string buffers
fn concat(lua: Stack<'_>) -> Vec<u8> {
    for index in [1, 2] {
        // Turns numbers into strings; from here on nothing is allocated in the VM.
        if buffer_at(lua, index).is_none() && lua.text(index).is_none() {
            lua.raise(&format!("attempt to concatenate a {} value", lua.kind_name(index)));
        }
    }
    for index in [1, 2] {
        if buffer_at(lua, index).is_some_and(|buffer| !buffer.is_live()) {
            lua.raise(&format!("attempt to concatenate: {}", Fault::Released.text()));
        }
    }
    let part = |index| match buffer_at(lua, index) {
        Some(buffer) => buffer.as_slice(),
        None => lua.text(index).unwrap_or(&[]),
    };
    let (left, right) = (part(1), part(2));
    let size = left.len() + right.len();
    let mut bytes = Vec::<u8>::new();
    if bytes.try_reserve_exact(size).is_err() {
        lua.raise(&Fault::NoMemory(size).text());
    }
    bytes.extend_from_slice(left);
    bytes.extend_from_slice(right);
    bytes
}

/// `a == b` of two buffers: whether they hold the same bytes. A released one is equal to none.
fn equal(lua: Stack<'_>) -> bool {
    match (buffer_at(lua, 1), buffer_at(lua, 2)) {
        (Some(a), Some(b)) => a.is_live() && b.is_live() && a.as_slice() == b.as_slice(),
        _ => false,
    }
}

/// Pushes part of the content of the buffer at `index` as a string; the range must be within it.
///
/// Pushing a string runs the collector, and a finaliser might release the buffer. The bytes in a
/// userdata stay where they are all the same; a block is held by a second reference.
pub(super) fn push_content(lua: Stack<'_>, index: c_int, offset: usize, count: usize) -> c_int {
    let buffer = lua.check_buffer(index);
    let was_unique = buffer.is_unique();
    if buffer.is_inline() || count == 0 {
        return (&buffer.as_slice()[offset..offset + count]).give(lua);
    }
    let bytes = buffer.share_all();
    lua.push_text(&bytes[offset..offset + count]);
    drop(bytes);
    let buffer = lua.check_buffer(index);
    if was_unique && buffer.is_live() {
        // Takes the block back, so that the room is there as before.
        let _ = buffer.prepare(0);
    }
    1
}

/// `find(buffer[, text[, init]])`
fn find(lua: Stack<'_>) -> Option<usize> {
    lua.check_buffer(1);
    let text: &[u8] = if lua.is_absent(2) {
        &[]
    } else if let Some(text) = lua.text(2) {
        text
    } else {
        lua.type_error(2, "string")
    };
    let init = if lua.is_absent(3) { 1 } else { lua.check_whole(3, SIZE_MAX).max(1) };
    let buffer = lua.check_buffer(1);
    if !buffer.is_live() {
        return None;
    }
    memmem::find(buffer.as_slice().get(init - 1..)?, text).map(|at| at + init)
}

/// `valid(buffer)`
pub(super) fn valid(lua: Stack<'_>) -> bool {
    lua.check_buffer(1).is_live()
}

/// `release(buffer)`
fn release(lua: Stack<'_>) {
    let buffer = lua.check_buffer(1);
    discharge(lua, buffer);
    buffer.release();
}

/// `remove(buffer[, n])`
fn remove(lua: Stack<'_>) -> bool {
    let buffer = lua.check_buffer(1);
    let count = lua.check_count(2);
    if count >= buffer.len() {
        forget(lua, buffer);
    } else {
        buffer.skip(count);
    }
    true
}

/// `slice(buffer, offset[, count])`: zero-based, unlike the functions of the contract
fn slice(lua: Stack<'_>) -> Result<c_int, Fault> {
    let buffer = lua.check_buffer(1);
    if !buffer.is_live() {
        return Err(Fault::Released);
    }
    let offset = lua.check_whole(2, buffer.len());
    let rest = buffer.len() - offset;
    let count = if lua.is_absent(3) { rest } else { lua.check_whole(3, rest) };
    push_view(lua, 1, offset, count).map(|()| 1)
}

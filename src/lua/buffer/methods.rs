//! The functions of module `buffer`, which are also the methods of buffers.
//!
//! A released buffer does not raise here, as `API.md` has it: it is empty, and refuses changes.

use std::ffi::{CStr, c_int};

use memchr::memmem;
use mlua::ffi::{self, lua_CFunction, lua_State};

use super::call::Call;
use super::pack;
use super::userdata::{
    Fault, charge_part, discharge, push_empty, push_place, push_view, recharge, reserve,
};
use crate::buf::{INLINE_MAX, NlBuffer, ROOM_DEFAULT, SIZE_MAX};

pub(super) const METHODS: &[(&CStr, lua_CFunction)] = &[
    (c"new", new),
    (c"append", append),
    (c"split", split),
    (c"clear", clear),
    (c"length", length),
    (c"unfill", unfill),
    (c"tostring", tostring),
    (c"find", find),
    (c"valid", valid),
    (c"release", release),
    (c"remove", remove),
    (c"slice", slice),
    (c"pack", pack::pack),
    (c"unpack", pack::unpack),
    (c"packsize", pack::packsize),
];

pub(super) const METAMETHODS: &[(&CStr, lua_CFunction)] =
    &[(c"__len", length), (c"__tostring", tostring), (c"__concat", concat), (c"__eq", equal)];

const CONTENT: &str = "string, number or buffer";

/// `new([capacity][, content])`
pub(super) unsafe extern "C-unwind" fn new(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let result = match call.kind(1) {
        ffi::LUA_TSTRING => new_with_text(call, 1, None),
        ffi::LUA_TNONE | ffi::LUA_TNIL => push_empty(call, ROOM_DEFAULT).map(|_| ()),
        ffi::LUA_TNUMBER => {
            let capacity = call.check_whole(1, SIZE_MAX);
            match call.kind(2) {
                ffi::LUA_TNONE | ffi::LUA_TNIL => push_empty(call, capacity).map(|_| ()),
                ffi::LUA_TSTRING | ffi::LUA_TNUMBER => new_with_text(call, 2, Some(capacity)),
                _ => return call.type_error(2, "string"),
            }
        }
        _ => match call.buffer(1) {
            Some(source) if source.is_live() => push_view(call, 1, 0, SIZE_MAX),
            Some(_) => push_empty(call, ROOM_DEFAULT).map(|_| ()),
            None => return call.type_error(1, CONTENT),
        },
    };
    match result {
        Ok(()) => 1,
        Err(fault) => fault.raise(call),
    }
}

fn new_with_text(call: Call<'_>, index: c_int, capacity: Option<usize>) -> Result<(), Fault> {
    let text = call.text(index).unwrap_or(&[]);
    let capacity = capacity.unwrap_or(text.len() + ROOM_DEFAULT).max(text.len());
    // The default room is not worth failing for.
    let capacity = if text.len() <= SIZE_MAX { capacity.min(SIZE_MAX) } else { capacity };
    push_empty(call, capacity)?.fill(text);
    Ok(())
}

/// `append(buffer, string | number | buffer)`
unsafe extern "C-unwind" fn append(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let target: *const NlBuffer = call.check_buffer(1);
    let result = match call.kind(2) {
        ffi::LUA_TSTRING | ffi::LUA_TNUMBER => {
            let text = call.text(2).unwrap_or(&[]);
            append_text(call, text)
        }
        _ => match call.buffer(2) {
            Some(source) if std::ptr::eq(source, target) => append_self(call),
            Some(_) => append_buffer(call),
            None => return call.type_error(2, CONTENT),
        },
    };
    match result {
        Ok(()) => call.push_boolean(true),
        Err(Fault::Released) => call.push_boolean(false),
        Err(fault) => fault.raise(call),
    }
}

fn append_text(call: Call<'_>, text: &[u8]) -> Result<(), Fault> {
    let target = call.check_buffer(1);
    if !target.is_unique() || target.room() < text.len() {
        reserve(call, 1, text.len())?;
    }
    call.check_buffer(1).fill(text);
    Ok(())
}

fn append_self(call: Call<'_>) -> Result<(), Fault> {
    // More than once only if a finaliser made the buffer longer meanwhile.
    loop {
        let len = call.check_buffer(1).len();
        reserve(call, 1, len)?;
        if call.check_buffer(1).fill_self() {
            return Ok(());
        }
    }
}

fn append_buffer(call: Call<'_>) -> Result<(), Fault> {
    loop {
        let len = call.check_buffer(2).len();
        reserve(call, 1, len)?;
        let source = call.check_buffer(2).as_slice();
        let target = call.check_buffer(1);
        if source.len() <= target.room() {
            target.fill(source);
            return Ok(());
        }
    }
}

/// `split(buffer[, n])`
unsafe extern "C-unwind" fn split(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    call.check_buffer(1);
    let wanted = call.check_count(2);
    loop {
        let source = call.check_buffer(1);
        let count = wanted.min(source.len());
        let in_place = source.is_inline() || count <= INLINE_MAX;
        let head = push_place(call, if in_place { count } else { 0 });
        let mut held = 0;
        if !in_place {
            let source = call.check_buffer(1);
            held = if count < source.len() { source.view_bytes(count) } else { 0 };
            if let Err(fault) = charge_part(call, held) {
                return fault.raise(call);
            }
        }
        // Only now: a finaliser may have changed the source.
        let source = call.check_buffer(1);
        if source.is_inline() && count.min(source.len()) > head.room() {
            recharge(call, held, 0);
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
        recharge(call, held, charged);
        return 1;
    }
}

/// `clear(buffer)`
unsafe extern "C-unwind" fn clear(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    forget(call, call.check_buffer(1));
    call.push_boolean(true)
}

/// Empties a buffer; a released one is empty.
fn forget(call: Call<'_>, buffer: &mut NlBuffer) {
    if buffer.is_live() {
        buffer.clear();
    }
    if buffer.is_inline() {
        discharge(call, buffer);
    }
}

/// `length(buffer)`, `#buffer`
unsafe extern "C-unwind" fn length(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    call.push_number(call.check_buffer(1).len() as f64)
}

/// `unfill(buffer)`
unsafe extern "C-unwind" fn unfill(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    call.push_number(call.check_buffer(1).room() as f64)
}

/// `tostring(buffer)`, as method and as metamethod
unsafe extern "C-unwind" fn tostring(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let len = call.check_buffer(1).len();
    push_content(call, 1, 0, len)
}

/// `a .. b`, where one is a buffer and the other that, a string or a number: a string, as that of
/// LuaJIT's own string buffers
unsafe extern "C-unwind" fn concat(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    for index in [1, 2] {
        // Turns numbers into strings; from here on nothing is allocated in the VM.
        if call.buffer(index).is_none() && call.text(index).is_none() {
            return call.fail(&format!("attempt to concatenate a {} value", call.kind_name(index)));
        }
    }
    for index in [1, 2] {
        if call.buffer(index).is_some_and(|buffer| !buffer.is_live()) {
            return call.fail(&format!("attempt to concatenate: {}", Fault::Released.text()));
        }
    }
    let part = |index| match call.buffer(index) {
        Some(buffer) => buffer.as_slice(),
        None => call.text(index).unwrap_or(&[]),
    };
    let (left, right) = (part(1), part(2));
    let size = left.len() + right.len();
    let mut bytes = Vec::<u8>::new();
    if bytes.try_reserve_exact(size).is_err() {
        return call.fail(&Fault::NoMemory(size).text());
    }
    bytes.extend_from_slice(left);
    bytes.extend_from_slice(right);
    // SAFETY: the bytes are ours; should this raise, the unwinder drops them.
    unsafe { call.push_bytes(bytes.as_ptr(), size) }
}

/// `a == b` of two buffers: whether they hold the same bytes. A released one is equal to none.
unsafe extern "C-unwind" fn equal(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let is_equal = match (call.buffer(1), call.buffer(2)) {
        (Some(a), Some(b)) => a.is_live() && b.is_live() && a.as_slice() == b.as_slice(),
        _ => false,
    };
    call.push_boolean(is_equal)
}

/// Pushes part of the content of the buffer at `index` as a string; the range must be within it.
///
/// Pushing a string runs the collector, and a finaliser might release the buffer. The bytes in a
/// userdata stay where they are all the same; a block is held by a second reference.
pub(super) fn push_content(call: Call<'_>, index: c_int, offset: usize, count: usize) -> c_int {
    let buffer = call.check_buffer(index);
    let was_unique = buffer.is_unique();
    if buffer.is_inline() || count == 0 {
        let bytes = buffer.as_slice()[offset..offset + count].as_ptr();
        // SAFETY: in the userdata, which is an argument.
        return unsafe { call.push_bytes(bytes, count) };
    }
    let bytes = buffer.share_all();
    // SAFETY: `bytes` keeps the block. If this raises, the unwinder drops it.
    unsafe { call.push_bytes(bytes[offset..offset + count].as_ptr(), count) };
    drop(bytes);
    let buffer = call.check_buffer(index);
    if was_unique && buffer.is_live() {
        // Takes the block back, so that the room is there as before.
        let _ = buffer.prepare(0);
    }
    1
}

/// `find(buffer[, text[, init]])`
unsafe extern "C-unwind" fn find(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    call.check_buffer(1);
    let text: &[u8] = if call.is_absent(2) {
        &[]
    } else if let Some(text) = call.text(2) {
        text
    } else {
        return call.type_error(2, "string");
    };
    let init = if call.is_absent(3) { 1 } else { call.check_whole(3, SIZE_MAX).max(1) };
    let buffer = call.check_buffer(1);
    if !buffer.is_live() {
        return 0;
    }
    let Some(content) = buffer.as_slice().get(init - 1..) else { return 0 };
    match memmem::find(content, text) {
        Some(at) => call.push_number((at + init) as f64),
        None => 0,
    }
}

/// `valid(buffer)`
unsafe extern "C-unwind" fn valid(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    call.push_boolean(call.check_buffer(1).is_live())
}

/// `release(buffer)`
unsafe extern "C-unwind" fn release(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let buffer = call.check_buffer(1);
    discharge(call, buffer);
    buffer.release();
    0
}

/// `remove(buffer[, n])`
unsafe extern "C-unwind" fn remove(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let buffer = call.check_buffer(1);
    let count = call.check_count(2);
    if count >= buffer.len() {
        forget(call, buffer);
    } else {
        buffer.skip(count);
    }
    call.push_boolean(true)
}

/// `slice(buffer, offset[, count])`: zero-based, unlike the functions of the contract
unsafe extern "C-unwind" fn slice(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let buffer = call.check_buffer(1);
    if !buffer.is_live() {
        return Fault::Released.raise(call);
    }
    let offset = call.check_whole(2, buffer.len());
    let rest = buffer.len() - offset;
    let count = if call.is_absent(3) { rest } else { call.check_whole(3, rest) };
    match push_view(call, 1, offset, count) {
        Ok(()) => 1,
        Err(fault) => fault.raise(call),
    }
}

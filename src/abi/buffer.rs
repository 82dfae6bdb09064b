//! Buffers as Lua userdata: creation, the type check, and their place in the memory account.
//!
//! The functions that scripts call are in `buffer_calls.rs` and `pack.rs`; what a buffer holds is
//! [`NlBuffer`]'s business. There are two metatables with the same methods: buffers that hold a
//! block have the one with `__gc`, the others cost the collector nothing.
//!
//! Rust code elsewhere uses [`open`], [`push_bytes`], [`push_shared`] and [`test`]:
//!
//! ```ignore
//! buffer::push_shared(state, frame);                  // by reference
//! let payload = buffer::test(state, 1)?.share();      // likewise
//! ```

use std::ffi::{CStr, c_int};
use std::ptr;

use bytes::Bytes;
use mlua::ffi::{self, lua_CFunction, lua_State};

use super::buffer_calls::METHODS;
use super::call::Call;
use crate::buf::{INLINE_MAX, NlBuffer, Plan, ROOM_DEFAULT, SIZE_MAX, STORE_BYTES};
use crate::lua::state;

/// Functions for the table of natives.
pub const FUNCTIONS: &[(&CStr, lua_CFunction)] =
    &[(c"buffer_table", table), (c"buffer_methods", methods), (c"buffer_reserve", reserve_for_lua)];

/// Registry keys, far from the small ones that `luaL_ref` hands out.
const KEY_INLINE: c_int = 0x6e6c_0001;
const KEY_FINALISED: c_int = 0x6e6c_0002;
const KEY_METHODS: c_int = 0x6e6c_0003;

/// Its address, at index 1 of both metatables, is what makes a userdata a buffer.
static TAG: u8 = 0;

/// Why a buffer cannot be made or grown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Released,
    TooLarge(f64),
    NoMemory(usize),
}

impl Fault {
    /// Pushes the text for people.
    pub(super) fn push(self, call: Call<'_>) -> c_int {
        let state = call.state();
        match self {
            // SAFETY: a running state, and a format without arguments.
            Fault::Released => unsafe {
                ffi::lua_pushfstring(state, c"buffer is released".as_ptr())
            },
            // SAFETY: a running state, and a format with two doubles.
            Fault::TooLarge(size) => unsafe {
                let format = c"buffer of %f bytes exceeds the limit of %f";
                ffi::lua_pushfstring(state, format.as_ptr(), size, SIZE_MAX as f64)
            },
            // SAFETY: a running state, and a format with one double.
            Fault::NoMemory(size) => unsafe {
                let format = c"not enough memory for a buffer of %f bytes";
                ffi::lua_pushfstring(state, format.as_ptr(), size as f64)
            },
        };
        1
    }

    /// Raises.
    pub(super) fn raise(self, call: Call<'_>) -> c_int {
        // SAFETY: a running state; level 1 is the function that called this C function.
        unsafe { ffi::luaL_where(call.state(), 1) };
        self.push(call);
        // SAFETY: two strings are on top.
        unsafe { ffi::lua_concat(call.state(), 2) };
        // SAFETY: the message is on top, and nothing here needs dropping.
        unsafe { ffi::lua_error(call.state()) }
    }
}

/// Creates the table of methods, still empty, in a new state. May raise for want of memory.
///
/// # Safety
/// `state` must be made by [`state::State::new`], in use by this thread, with a free stack slot.
pub unsafe fn open(state: *mut lua_State) {
    // SAFETY: the caller's contract; the table is popped.
    unsafe {
        ffi::lua_createtable(state, 0, 0);
        ffi::lua_rawseti_(state, ffi::LUA_REGISTRYINDEX, KEY_METHODS);
    }
}

/// Pushes one of the metatables. With the first of them, which few contexts need, it makes both and
/// fills in the methods; may raise then.
///
/// # Safety
/// `state` must be one that [`open`] was called for, in use by this thread, with 7 free slots.
unsafe fn push_metatable(state: *mut lua_State, key: c_int) {
    // SAFETY: the caller's contract.
    unsafe {
        ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, key);
        if ffi::lua_type(state, -1) == ffi::LUA_TNIL {
            ffi::lua_settop(state, -2);
            fill(state);
            ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, key);
        }
    }
}

/// Fills in the methods, but for those that a script has replaced, and creates the metatables.
///
/// # Safety
/// As for [`push_metatable`].
#[cold]
unsafe fn fill(state: *mut lua_State) {
    // SAFETY: the caller's contract, here and below: every value pushed is popped.
    unsafe { ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, KEY_METHODS) };
    for (name, function) in METHODS {
        // SAFETY: the table is on top, and names are terminated.
        unsafe {
            ffi::lua_pushstring(state, name.as_ptr());
            ffi::lua_pushvalue(state, -1);
            ffi::lua_rawget(state, -3);
            let is_absent = ffi::lua_type(state, -1) == ffi::LUA_TNIL;
            ffi::lua_settop(state, -2);
            if is_absent {
                ffi::lua_pushcclosure(state, *function, 0);
                ffi::lua_rawset(state, -3);
            } else {
                ffi::lua_settop(state, -2);
            }
        }
    }
    // SAFETY: an empty table nobody else has: what `getmetatable` shows of a buffer.
    unsafe { ffi::lua_createtable(state, 0, 0) };
    for key in [KEY_INLINE, KEY_FINALISED] {
        // SAFETY: the stack holds methods and token; the metatable goes on top.
        unsafe {
            ffi::lua_createtable(state, 1, 6);
            ffi::lua_pushlightuserdata(state, (&raw const TAG).cast_mut().cast());
            ffi::lua_rawseti_(state, -2, 1);
            ffi::lua_pushvalue(state, -2);
            ffi::lua_setfield(state, -2, c"__metatable".as_ptr());
            ffi::lua_pushvalue(state, -3);
            ffi::lua_setfield(state, -2, c"__index".as_ptr());
        }
        for (name, function) in super::buffer_calls::METAMETHODS {
            // SAFETY: the metatable is on top.
            unsafe { set_function(state, name, *function) };
        }
        if key == KEY_FINALISED {
            // SAFETY: the metatable is on top.
            unsafe { set_function(state, c"__gc", finalise) };
        }
        // SAFETY: pops the metatable.
        unsafe { ffi::lua_rawseti_(state, ffi::LUA_REGISTRYINDEX, key) };
    }
    // SAFETY: pops the token and the methods.
    unsafe { ffi::lua_settop(state, -3) };
}

/// # Safety
/// As for [`push_metatable`], with a table on top of the stack.
unsafe fn set_function(state: *mut lua_State, name: &CStr, function: lua_CFunction) {
    // SAFETY: the caller's contract.
    unsafe {
        ffi::lua_pushcclosure(state, function, 0);
        ffi::lua_setfield(state, -2, name.as_ptr());
    }
}

/// The buffer at `index`, or `None` if the value there is not a buffer.
///
/// # Safety
/// `state` must be one that [`open`] was called for, in use by this thread, with 2 free slots.
/// The caller must keep the value reachable and hold no other reference to the buffer for `'a`;
/// anything that runs Lua code or the collector may change the buffer.
pub unsafe fn test<'a>(state: *mut lua_State, index: c_int) -> Option<&'a mut NlBuffer> {
    // SAFETY: the caller's contract.
    let place = unsafe { ffi::lua_touserdata(state, index) };
    // SAFETY: as above; pushes the metatable, if there is one.
    if place.is_null() || unsafe { ffi::lua_getmetatable(state, index) } == 0 {
        return None;
    }
    // SAFETY: the metatable is on top, and stays below its first element until both are popped.
    let tag = unsafe {
        ffi::lua_rawgeti_(state, -1, 1);
        let tag = ffi::lua_touserdata(state, -1);
        ffi::lua_settop(state, -3);
        tag
    };
    if !ptr::addr_eq(tag, &raw const TAG) {
        return None;
    }
    // SAFETY: only `push_place` gives userdata such a metatable, after initialising them.
    Some(unsafe { &mut *place.cast::<NlBuffer>() })
}

/// Pushes a new buffer with a copy of `bytes`. Raises a Lua error if memory does not suffice.
///
/// # Safety
/// As for [`test`]; the caller must be prepared for a Lua error, and for finalisers being run.
pub unsafe fn push_bytes(state: *mut lua_State, bytes: &[u8]) {
    // SAFETY: the caller's contract.
    let call = unsafe { Call::new(state) };
    match push_empty(call, bytes.len()) {
        Ok(buffer) => {
            buffer.fill(bytes);
        }
        Err(fault) => {
            fault.raise(call);
        }
    }
}

/// Pushes a new buffer with a copy of the first piece of at most [`INLINE_MAX`] bytes, after having
/// stored one of each other piece in the table at index 2, from 1 on.
///
/// # Safety
/// As for [`push_bytes`]; there must be a table at index 2, and nothing above it.
pub unsafe fn push_small<'a>(state: *mut lua_State, pieces: impl Iterator<Item = &'a [u8]>) {
    // SAFETY: the caller's contract.
    let call = unsafe { Call::new(state) };
    // SAFETY: as above.
    unsafe { push_metatable(state, KEY_INLINE) };
    for (piece, index) in pieces.zip(0..) {
        let buffer = push_bare(call, piece.len());
        buffer.fill(piece);
        // SAFETY: index 3 is the metatable, and the new userdata is on top.
        unsafe {
            ffi::lua_pushvalue(state, 3);
            ffi::lua_setmetatable(state, -2);
            if index > 0 {
                ffi::lua_rawseti_(state, 2, index);
            }
        }
    }
}

/// Pushes a new buffer with these bytes by reference, or with a copy if they are few enough to be
/// stored in the userdata. If memory does not suffice, lets the bytes go and raises a Lua error.
///
/// # Safety
/// As for [`push_bytes`].
pub unsafe fn push_shared(state: *mut lua_State, bytes: Bytes) {
    // SAFETY: the caller's contract.
    let call = unsafe { Call::new(state) };
    if bytes.len() <= INLINE_MAX {
        // Held over a call that may raise: then the unwinder drops them.
        push_place(call, bytes.len(), false).fill(&bytes);
        return;
    }
    let size = bytes.len();
    let fault = if size > SIZE_MAX {
        Fault::TooLarge(size as f64)
    } else {
        let buffer = push_place(call, 0, true);
        // SAFETY: the caller's contract; the userdata on top keeps `buffer` valid.
        if unsafe { state::charge(state, size) } {
            buffer.charged = size as u32;
            buffer.set_shared(bytes);
            return;
        }
        Fault::NoMemory(size)
    };
    drop(bytes);
    fault.raise(call);
}

/// Pushes an empty buffer with at least this much room.
pub(super) fn push_empty<'a>(call: Call<'a>, capacity: usize) -> Result<&'a mut NlBuffer, Fault> {
    if capacity <= INLINE_MAX + ROOM_DEFAULT {
        return Ok(push_place(call, capacity, false));
    }
    if capacity > SIZE_MAX {
        return Err(Fault::TooLarge(capacity as f64));
    }
    let buffer = push_place(call, 0, true);
    // SAFETY: a running state; the userdata on top keeps `buffer` valid.
    if !unsafe { state::charge(call.state(), capacity) } {
        return Err(Fault::NoMemory(capacity));
    }
    buffer.charged = capacity as u32;
    if !buffer.grow_to(capacity) {
        return Err(Fault::NoMemory(capacity));
    }
    Ok(buffer)
}

/// Pushes a buffer that shows `count` bytes of the one at `index`, or as many as there are, from
/// `offset` on.
pub(super) fn push_view(
    call: Call<'_>,
    index: c_int,
    offset: usize,
    count: usize,
) -> Result<(), Fault> {
    let (inline, count) = {
        let source = call.check_buffer(index);
        (source.is_inline(), count.min(source.len().saturating_sub(offset)))
    };
    let by_copy = inline || count <= INLINE_MAX;
    let view = push_place(call, if by_copy { count } else { 0 }, !by_copy);
    // SAFETY: a running state; the userdata on top keeps `view` valid.
    if !by_copy && !unsafe { state::charge(call.state(), count) } {
        return Err(Fault::NoMemory(count));
    }
    // Only now: a finaliser may have changed the source.
    let source = call.check_buffer(index);
    let start = offset.min(source.len());
    let end = start + count.min(source.len() - start);
    if by_copy {
        view.fill(&source.as_slice()[start..end]);
    } else {
        view.charged = count as u32;
        view.set_shared(source.share().slice(start..end));
    }
    Ok(())
}

/// Pushes a userdata with an empty inline buffer in it. Runs the collector, hence finalisers; may
/// raise for want of memory.
pub(super) fn push_place<'a>(call: Call<'a>, room: usize, finalised: bool) -> &'a mut NlBuffer {
    let state = call.state();
    let buffer = push_bare(call, room);
    let key = if finalised { KEY_FINALISED } else { KEY_INLINE };
    // SAFETY: the userdata is on top.
    unsafe {
        push_metatable(state, key);
        ffi::lua_setmetatable(state, -2);
    }
    if finalised {
        buffer.set_finalised();
    }
    buffer
}

/// Pushes a userdata with an empty inline buffer in it, still without a metatable.
fn push_bare<'a>(call: Call<'a>, room: usize) -> &'a mut NlBuffer {
    // SAFETY: a running state with free slots.
    let place = unsafe { ffi::lua_newuserdata(call.state(), NlBuffer::size_with(room)) };
    let place = place.cast::<NlBuffer>();
    // SAFETY: userdata are aligned to 8 and never move.
    unsafe { NlBuffer::init(place, room) };
    // SAFETY: initialised; the stack keeps it alive.
    unsafe { &mut *place }
}

/// Makes the buffer at `index` (positive) writable, with room for `extra` bytes. Runs the collector
/// if it must allocate: look at arguments and buffers again afterwards.
pub(super) fn reserve(call: Call<'_>, index: c_int, extra: usize) -> Result<(), Fault> {
    let state = call.state();
    let mut credit = 0;
    let result = loop {
        let buffer = call.check_buffer(index);
        if !buffer.is_live() {
            break Err(Fault::Released);
        }
        let capacity = match buffer.prepare(extra) {
            Ok(Plan::Ready) => break Ok(()),
            Ok(Plan::Grow(capacity)) => capacity,
            Err(_) => break Err(Fault::TooLarge(buffer.len() as f64 + extra as f64)),
        };
        let held = buffer.charged as usize + credit;
        if held < capacity {
            // SAFETY: a running state. No reference to the buffer is used after this.
            if !unsafe { state::charge(state, capacity - held) } {
                break Err(Fault::NoMemory(capacity));
            }
            credit += capacity - held;
            continue;
        }
        set_finalised(call, index, buffer);
        if !buffer.grow_to(capacity) {
            break Err(Fault::NoMemory(capacity));
        }
        buffer.charged = capacity as u32;
        credit = held - capacity;
        break Ok(());
    };
    if credit > 0 {
        // SAFETY: a running state.
        unsafe { state::discharge(state, credit) };
    }
    result
}

/// Gives the userdata at `index` the metatable with a finaliser, since it is to hold a block.
pub(super) fn set_finalised(call: Call<'_>, index: c_int, buffer: &mut NlBuffer) {
    if buffer.is_finalised() {
        return;
    }
    // SAFETY: a running state with free slots; `index` is positive, hence not shifted by the push.
    unsafe {
        push_metatable(call.state(), KEY_FINALISED);
        ffi::lua_setmetatable(call.state(), index);
    }
    buffer.set_finalised();
}

/// Gives back what is charged for the buffer.
pub(super) fn discharge(call: Call<'_>, buffer: &mut NlBuffer) {
    if buffer.charged > 0 {
        // SAFETY: a running state.
        unsafe { state::discharge(call.state(), buffer.charged as usize) };
        buffer.charged = 0;
    }
}

/// `__gc`
unsafe extern "C-unwind" fn finalise(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    if let Some(buffer) = call.buffer(1) {
        discharge(call, buffer);
        buffer.release();
    }
    0
}

/// `native.buffer_table()`: the table of methods, which may be empty still.
unsafe extern "C-unwind" fn table(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua, with free slots.
    unsafe { ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, KEY_METHODS) };
    1
}

/// `native.buffer_methods()`: the same, filled, and what `getmetatable` shows of a buffer.
unsafe extern "C-unwind" fn methods(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua, with free slots.
    unsafe {
        ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, KEY_METHODS);
        push_metatable(state, KEY_INLINE);
        ffi::lua_getfield_(state, -1, c"__metatable".as_ptr());
        ffi::lua_remove(state, -2);
    }
    2
}

/// `native.buffer_reserve(buffer, extra)`: nothing if there is room now, else why not, as text. The
/// caller vouches for the types.
unsafe extern "C-unwind" fn reserve_for_lua(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let extra = call.number(2).unwrap_or(f64::NAN);
    if !(extra >= 0.0 && extra <= SIZE_MAX as f64) {
        return Fault::TooLarge(extra).push(call);
    }
    match reserve(call, 1, extra as usize) {
        Ok(()) => 0,
        Err(fault) => fault.push(call),
    }
}

const _: () = assert!(STORE_BYTES == 32 && align_of::<NlBuffer>() <= 8);

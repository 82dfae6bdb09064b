//! Buffers as Lua userdata: creation, the type check, and their place in the memory account.
//!
//! The functions that scripts call are in `methods.rs` and `pack.rs`; what a buffer holds is
//! [`NlBuffer`]'s business. Buffers have no finaliser: when the collector frees the userdata, the
//! state's allocator lets go of the block that it may hold (`vm::state`).
//!
//! Rust code elsewhere uses [`open`], [`push_bytes`], [`push_shared`], [`push_frames`], [`test`]:
//!
//! ```ignore
//! buffer::push_shared(state, frame);                  // by reference
//! let payload = buffer::test(state, 1)?.share();      // likewise
//! ```

use std::ffi::{CStr, c_int};
use std::ops::Range;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::call::Call;
use super::methods::{METHODS, new};
use crate::buf::{
    FRAME_INLINE_MAX, INLINE_MAX, NlBuffer, Piece, Plan, ROOM_DEFAULT, SIZE_MAX, STORE_BYTES,
};
use crate::vm::blame;
use crate::vm::stack::Stack;
use crate::vm::state;
use crate::vm::userdata::{self, Maker};

/// Functions for the table of natives.
pub const FUNCTIONS: &[(&CStr, lua_CFunction)] = &[
    (c"buffer_table", table),
    (c"buffer_methods", methods),
    (c"buffer_reserve", reserve_for_lua),
    (c"buffer_assign", assign),
    (c"buffer_is_live", is_live),
    (c"buffer_new", new),
];

/// Registry keys, far from the small ones that `luaL_ref` hands out.
const KEY_METATABLE: c_int = 0x6e6c_0001;
const KEY_ENVIRONMENT: c_int = 0x6e6c_0002;
const KEY_METHODS: c_int = 0x6e6c_0003;

/// What is said of a released buffer.
const RELEASED: &str = "buffer is released (release() gives its memory back for good; clear() \
                        empties one to use it again)";

/// Why a buffer cannot be made or grown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Released,
    TooLarge(f64),
    NoMemory(usize),
}

impl Fault {
    /// For people.
    pub(super) fn text(self) -> String {
        match self {
            Fault::Released => RELEASED.to_owned(),
            Fault::TooLarge(size) => {
                format!("buffer of {size} bytes exceeds the limit of {SIZE_MAX}")
            }
            Fault::NoMemory(size) => format!("not enough memory for a buffer of {size} bytes"),
        }
    }

    /// Raises.
    pub(super) fn raise(self, call: Call<'_>) -> c_int {
        call.raise(&self.text())
    }
}

/// What is said of a buffer in messages.
fn describe(stack: Stack<'_>, index: c_int) -> Option<&'static str> {
    // SAFETY: a running state; what the buffer holds is not kept.
    let buffer = unsafe { test(stack.raw(), index) }?;
    Some(if buffer.is_live() { "a buffer" } else { "a released buffer" })
}

/// Creates the table of methods, still empty, in a new state. May raise for want of memory.
///
/// # Safety
/// `state` must be made by [`state::State::new`], in use by this thread, with a free stack slot.
pub unsafe fn open(state: *mut lua_State) {
    blame::describe_with(describe);
    // SAFETY: the caller's contract; the table is popped.
    unsafe {
        ffi::lua_createtable(state, 0, 0);
        ffi::lua_rawseti_(state, ffi::LUA_REGISTRYINDEX, KEY_METHODS);
    }
}

/// What makes buffers. With the first of them, which few contexts need, the metatable is made, and
/// the methods are filled in; may raise then.
///
/// # Safety
/// `state` must be one that [`open`] was called for, in use by this thread, with 7 free slots, in
/// the C function that runs.
#[inline]
unsafe fn maker<'a>(state: *mut lua_State) -> Maker<'a> {
    loop {
        // SAFETY: the caller's contract.
        if let Some(maker) = unsafe { Maker::new(state) } {
            return maker;
        }
        // SAFETY: as above.
        unsafe { fill(state) };
    }
}

/// Fills in the methods, but for those that a script has replaced, and creates the metatable.
///
/// # Safety
/// As for [`maker`].
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
    // SAFETY: an empty table that nobody else has is what `getmetatable` shows of a buffer; the
    // stack holds methods and token, the metatable goes on top.
    unsafe {
        ffi::lua_createtable(state, 0, 0);
        ffi::lua_createtable(state, 0, 6);
        ffi::lua_pushvalue(state, -2);
        ffi::lua_setfield(state, -2, c"__metatable".as_ptr());
        ffi::lua_pushvalue(state, -3);
        ffi::lua_setfield(state, -2, c"__index".as_ptr());
    }
    for (name, function) in super::methods::METAMETHODS {
        // SAFETY: the metatable is on top.
        unsafe { set_function(state, name, *function) };
    }
    // SAFETY: pops the metatable and the token, which the registry keeps, and the methods.
    unsafe {
        let (table, token) = (ffi::lua_topointer(state, -1), ffi::lua_topointer(state, -2));
        ffi::lua_rawseti_(state, ffi::LUA_REGISTRYINDEX, KEY_METATABLE);
        ffi::lua_rawseti_(state, ffi::LUA_REGISTRYINDEX, KEY_ENVIRONMENT);
        state::account(state).set_buffer_metatable(table, token);
        ffi::lua_settop(state, -2);
    }
}

/// # Safety
/// As for [`maker`], with a table on top of the stack.
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
    let place = unsafe {
        let metatable = state::account(state).buffer_metatable()?;
        userdata::with_metatable(state, index, metatable)?
    };
    // SAFETY: only a `Maker` gives userdata that metatable, with a buffer in them.
    Some(unsafe { &mut *place.cast::<NlBuffer>().as_ptr() })
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

/// Pushes a buffer with the first frame, after having stored one of each other frame in the table
/// at index 2, from 1 on. Frames lie at `places` of `bytes`; those that are large for `piece`,
/// which has the same bytes, are referred to there, the others are copied.
///
/// # Safety
/// As for [`push_bytes`]; there must be a table at index 2, and nothing above it.
pub unsafe fn push_frames(
    state: *mut lua_State,
    places: &[Range<usize>],
    bytes: &[u8],
    piece: Option<&Piece>,
) {
    // SAFETY: the caller's contract.
    let call = unsafe { Call::new(state) };
    let sharing = |len: usize| piece.filter(|piece| Piece::is_shared(len, piece.block_bytes()));
    let (mut held, mut moved) = (0, 0);
    for len in places.iter().map(Range::len).filter(|&len| len > FRAME_INLINE_MAX) {
        held += sharing(len).map_or(len, Piece::block_bytes);
        moved += len;
    }
    // SAFETY: as above.
    if held > 0 && !unsafe { state::charge_for(state, held, moved) } {
        Fault::NoMemory(held).raise(call);
    }
    // SAFETY: as above.
    let maker = unsafe {
        userdata::collect(state);
        maker(state)
    };
    let fill = |buffer: &mut NlBuffer, place: &Range<usize>| {
        if place.len() <= FRAME_INLINE_MAX {
            buffer.fill(&bytes[place.clone()]);
        } else {
            fill_large(buffer, bytes, place.clone(), piece);
        }
    };
    let room = |place: &Range<usize>| if place.len() > FRAME_INLINE_MAX { 0 } else { place.len() };
    // The VM stores what the table must grow for, and the first one, so that the collector looks at
    // the table again; what follows may be stored directly.
    let mut table = None;
    for (place, index) in places.iter().zip(0..).skip(1) {
        // SAFETY: the table is at 2, and just stored into.
        let stored =
            table.and_then(|table| unsafe { maker.store(room(place), table, index as usize) });
        if let Some(buffer) = stored {
            fill(buffer, place);
            continue;
        }
        fill(push_bare(call, maker, room(place)), place);
        // SAFETY: the new userdata is on top.
        unsafe {
            ffi::lua_rawseti(state, 2, index);
            table = maker.table(2);
        }
    }
    let Some(first) = places.first() else { return };
    fill(push_bare(call, maker, room(first)), first);
}

/// Fills a new buffer with a frame that its userdata has no room for. Without memory for the copy
/// it stays empty, and the context ends. Apart, so that what is done for small frames is short.
#[inline(never)]
fn fill_large(buffer: &mut NlBuffer, bytes: &[u8], place: Range<usize>, piece: Option<&Piece>) {
    buffer.assign(bytes, place, piece);
}

/// Pushes a new buffer with these bytes by reference, or with a copy if they are few enough to be
/// stored in the userdata. If memory does not suffice, lets the bytes go and raises a Lua error.
///
/// # Safety
/// As for [`push_bytes`].
pub unsafe fn push_shared(state: *mut lua_State, piece: Piece) {
    // SAFETY: the caller's contract.
    let call = unsafe { Call::new(state) };
    if piece.len() <= INLINE_MAX {
        // Held over a call that may raise: then the unwinder drops them.
        push_place(call, piece.len()).fill(&piece);
        return;
    }
    let (size, held) = (piece.len(), piece.block_bytes());
    let fault = if size > SIZE_MAX {
        Fault::TooLarge(size as f64)
    } else {
        let buffer = push_place(call, 0);
        // SAFETY: the caller's contract; the userdata on top keeps `buffer` valid.
        if unsafe { state::charge_for(state, held, size) } {
            buffer.set_shared(piece);
            return;
        }
        Fault::NoMemory(held)
    };
    drop(piece);
    fault.raise(call);
}

/// Pushes an empty buffer with at least this much room.
pub(super) fn push_empty<'a>(call: Call<'a>, capacity: usize) -> Result<&'a mut NlBuffer, Fault> {
    if capacity <= INLINE_MAX + ROOM_DEFAULT {
        let buffer = push_place(call, capacity);
        buffer.limit_room(capacity);
        return Ok(buffer);
    }
    if capacity > SIZE_MAX {
        return Err(Fault::TooLarge(capacity as f64));
    }
    let buffer = push_place(call, 0);
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
/// `offset` on; it is charged all that it keeps.
pub(super) fn push_view(
    call: Call<'_>,
    index: c_int,
    offset: usize,
    count: usize,
) -> Result<(), Fault> {
    let (inline, count, held) = {
        let source = call.check_buffer(index);
        let count = count.min(source.len().saturating_sub(offset));
        (source.is_inline(), count, source.block_bytes())
    };
    let in_place = inline || count <= INLINE_MAX;
    let view = push_place(call, if in_place { count } else { 0 });
    // SAFETY: a running state; the userdata on top keeps `view` valid.
    if !in_place && !unsafe { state::charge_for(call.state(), held, count) } {
        return Err(Fault::NoMemory(held));
    }
    // Only now: a finaliser may have changed the source.
    let source = call.check_buffer(index);
    let start = offset.min(source.len());
    let end = start + count.min(source.len() - start);
    if in_place {
        view.fill(&source.as_slice()[start..end]);
        return Ok(());
    }
    let block_bytes = source.block_bytes();
    view.set_shared(Piece::new(source.share_all().slice(start..end), block_bytes));
    // What the finaliser did may have made it something else than what was counted.
    recharge(call, held, view.charged as usize);
    Ok(())
}

/// Pushes a userdata with an empty inline buffer in it. Runs the collector, hence finalisers; may
/// raise for want of memory.
pub(super) fn push_place<'a>(call: Call<'a>, room: usize) -> &'a mut NlBuffer {
    // SAFETY: a running state with free slots.
    let maker = unsafe {
        userdata::collect(call.state());
        maker(call.state())
    };
    push_bare(call, maker, room)
}

/// The same without the collector.
#[inline]
fn push_bare<'a>(call: Call<'a>, maker: Maker<'a>, room: usize) -> &'a mut NlBuffer {
    loop {
        // SAFETY: C functions have free slots.
        if let Some(buffer) = unsafe { maker.push(room) } {
            return buffer;
        }
        // The context ends; until then this is an error like others.
        call.raise("not enough memory");
    }
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

/// Charges what a part that is split off keeps; its bytes are not new to the state.
pub(super) fn charge_part(call: Call<'_>, held: usize) -> Result<(), Fault> {
    // SAFETY: a running state.
    if unsafe { state::charge_for(call.state(), held, 0) } {
        Ok(())
    } else {
        Err(Fault::NoMemory(held))
    }
}

/// Has `now` bytes charged in place of `before`.
pub(super) fn recharge(call: Call<'_>, before: usize, now: usize) {
    // SAFETY: a running state.
    unsafe { state::account(call.state()) }.recharge(before, now);
}

/// Gives back what is charged for the buffer.
pub(super) fn discharge(call: Call<'_>, buffer: &mut NlBuffer) {
    if buffer.charged > 0 {
        // SAFETY: a running state.
        unsafe { state::discharge(call.state(), buffer.charged as usize) };
        buffer.charged = 0;
    }
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
        maker(state);
        ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, KEY_METATABLE);
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
        return call.push_text(&Fault::TooLarge(extra).text());
    }
    match reserve(call, 1, extra as usize) {
        Ok(()) => 0,
        Err(fault) => call.push_text(&fault.text()),
    }
}

/// `native.buffer_is_live(buffer)`
unsafe extern "C-unwind" fn is_live(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    call.push_boolean(call.check_buffer(1).is_live())
}

/// `native.buffer_assign(buffer, other)`: makes the first hold what the second holds, by reference
/// where that is possible; false if the first is released. The caller vouches for the types.
unsafe extern "C-unwind" fn assign(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    let call = unsafe { Call::new(state) };
    let piece = call.check_buffer(2).share();
    let buffer = call.check_buffer(1);
    if !buffer.is_live() {
        drop(piece);
        return call.push_boolean(false);
    }
    let before = buffer.charged as usize;
    let done = buffer.assign(&piece, 0..piece.len(), Some(&piece));
    let now = buffer.charged as usize;
    drop(piece);
    recharge(call, before, now);
    if !done {
        return Fault::NoMemory(now).raise(call);
    }
    call.push_boolean(true)
}

const _: () = assert!(STORE_BYTES == 32 && align_of::<NlBuffer>() <= 8);

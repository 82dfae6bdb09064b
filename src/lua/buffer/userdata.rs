//! Buffers as Lua userdata: creation, the type check, and their place in the memory account.
//!
//! The functions that scripts call are in `methods.rs` and `pack.rs`; what a buffer holds is
//! [`NlBuffer`]'s business. Buffers have no finaliser: when the collector frees the userdata, the
//! state's allocator lets go of the block that it may hold (`vm::state`).
//!
//! Rust code elsewhere uses [`open`], [`push_bytes`], [`push_shared`], [`push_frames`],
//! [`buffer_at`]:
//!
//! ```ignore
//! buffer::push_shared(lua, frame);                  // by reference
//! let payload = buffer::buffer_at(lua, 1)?.share(); // likewise
//! ```

use std::ffi::{CStr, c_int};
use std::ops::Range;

use mlua::ffi::{self, lua_CFunction};

use super::methods::{METHODS, new, valid};
use crate::buf::{
    FRAME_INLINE_MAX, INLINE_MAX, NlBuffer, Piece, Plan, ROOM_DEFAULT, SIZE_MAX, STORE_BYTES,
};
use crate::vm::blame;
use crate::vm::kept::Kept;
use crate::vm::stack::{Results, Stack, function};
use crate::vm::userdata::{self, Maker};

/// Functions for the table of natives.
pub const FUNCTIONS: &[(&CStr, lua_CFunction)] = &[
    (c"buffer_table", function(table)),
    (c"buffer_methods", function(methods)),
    (c"buffer_reserve", function(reserve_for_lua)),
    (c"buffer_assign", function(assign)),
    (c"buffer_is_live", function(valid)),
    (c"buffer_new", function(new)),
];

/// What is said of a released buffer.
const RELEASED: &str = "buffer is released (release() gives its memory back for good; clear() \
                        empties one to use it again)";

/// What is said where a userdata cannot be made.
const NO_MEMORY: &str = "not enough memory";

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

    pub(super) fn raise(self, lua: Stack<'_>) -> ! {
        lua.fail(&self.text())
    }
}

/// Raised where others are pushed.
impl Results for Fault {
    fn give(self, lua: Stack<'_>) -> c_int {
        self.raise(lua)
    }
}

/// What is said of a buffer in messages.
fn describe(stack: Stack<'_>, index: c_int) -> Option<&'static str> {
    let buffer = buffer_at(stack, index)?;
    Some(if buffer.is_live() { "a buffer" } else { "a released buffer" })
}

/// Creates the table of methods, still empty, in a new state. May raise if memory runs out.
pub fn open(lua: Stack<'_>) {
    blame::describe_with(describe);
    lua.push_table(0, 0);
    lua.set_entry(ffi::LUA_REGISTRYINDEX, Kept::BufferMethods as i64);
}

/// What makes buffers. With the first of them, which few contexts need, the metatable is made, and
/// the methods are filled in; may raise then.
#[inline]
fn maker(lua: Stack<'_>) -> Maker<'_> {
    loop {
        if let Some(maker) = Maker::new(lua) {
            return maker;
        }
        fill(lua);
    }
}

/// Fills in the methods, but for those that a script has replaced, and creates the metatable.
#[cold]
fn fill(lua: Stack<'_>) {
    lua.entry(ffi::LUA_REGISTRYINDEX, Kept::BufferMethods as i64);
    for (name, function) in METHODS {
        lua.push_text(name.to_bytes());
        lua.push_copy(-1);
        lua.raw_get(-3);
        let is_absent = lua.kind(-1) == ffi::LUA_TNIL;
        lua.pop();
        if is_absent {
            lua.push_function(*function);
            lua.raw_set(-3);
        } else {
            lua.pop();
        }
    }
    lua.push_table(0, 0);
    lua.push_table(0, 6);
    lua.push_copy(-2);
    lua.set_field(-2, c"__metatable");
    lua.push_copy(-3);
    lua.set_field(-2, c"__index");
    for (name, function) in super::methods::METAMETHODS {
        lua.push_function(*function);
        lua.set_field(-2, name);
    }
    let (table, token) = (lua.address(-1), lua.address(-2));
    lua.set_entry(ffi::LUA_REGISTRYINDEX, Kept::BufferMetatable as i64);
    lua.set_entry(ffi::LUA_REGISTRYINDEX, Kept::BufferEnvironment as i64);
    lua.account().set_buffer_metatable(table, token);
    lua.pop();
}

/// The buffer at `index`, or `None` if the value there is not a buffer.
///
/// The caller keeps the value where it is, and holds no other reference to the buffer; whatever
/// runs Lua code or the collector may change it.
#[inline]
pub fn buffer_at(lua: Stack<'_>, index: c_int) -> Option<&mut NlBuffer> {
    let place = userdata::with_metatable(lua, index, lua.account().buffer_metatable()?)?;
    // SAFETY: only a `Maker` gives userdata that metatable, with a buffer in them.
    Some(unsafe { &mut *place.cast::<NlBuffer>().as_ptr() })
}

/// Pushes a new buffer with a copy of `bytes`. Raises a Lua error if memory does not suffice.
pub fn push_bytes(lua: Stack<'_>, bytes: &[u8]) {
    push_empty(lua, bytes.len()).unwrap_or_else(|fault| fault.raise(lua)).fill(bytes);
}

/// Runs the collector if it is due, and makes what comes with the first buffer, inside `around`,
/// since finalisers run then.
#[inline]
pub fn collect(lua: Stack<'_>, around: impl FnOnce(&mut dyn FnMut())) {
    if userdata::is_due(lua) || lua.account().buffer_metatable().is_none() {
        around(&mut || {
            userdata::collect(lua);
            maker(lua);
        });
    }
}

/// Charges what those frames keep for which a userdata has no room, inside `around`, since
/// finalisers may run then; see [`push_frames`].
#[inline]
pub fn charge_frames(
    lua: Stack<'_>,
    places: &[Range<usize>],
    piece: Option<&Piece>,
    around: impl FnOnce(&mut dyn FnMut()),
) {
    let is_large = |place: &Range<usize>| place.len() > FRAME_INLINE_MAX;
    if places.last().is_some_and(|last| last.end > FRAME_INLINE_MAX) && places.iter().any(is_large)
    {
        around(&mut || charge_large(lua, places, piece));
    }
}

fn charge_large(lua: Stack<'_>, places: &[Range<usize>], piece: Option<&Piece>) {
    let sharing = |len: usize| piece.filter(|piece| Piece::is_shared(len, piece.block_bytes()));
    let (mut held, mut moved) = (0, 0);
    for len in places.iter().map(Range::len).filter(|&len| len > FRAME_INLINE_MAX) {
        held += sharing(len).map_or(len, Piece::block_bytes);
        moved += len;
    }
    if !lua.charge_for(held, moved) {
        Fault::NoMemory(held).raise(lua);
    }
}

/// Pushes a buffer with the first frame, after having stored one of each other frame in the table
/// at index `into`, from 1 on. Frames lie at `places` of `bytes`; those that are large for `piece`,
/// which has the same bytes, are referred to there, the others are copied. To be called behind
/// [`collect`] and [`charge_frames`]; does not run the collector itself.
pub fn push_frames(
    lua: Stack<'_>,
    into: c_int,
    places: &[Range<usize>],
    bytes: &[u8],
    piece: Option<&Piece>,
) {
    let maker = maker(lua);
    // The VM stores what the table must grow for, and the first one, so that the collector looks at
    // the table again; what follows may be stored directly.
    let mut table = None;
    for (index, place) in places.iter().enumerate().skip(1) {
        let frame = &bytes[place.clone()];
        if frame.len() <= FRAME_INLINE_MAX {
            // SAFETY: the table was just stored into; nothing has run the collector since.
            if unsafe { maker.store_filled(frame, table, index) }.is_some() {
                continue;
            }
            push_copied(lua, maker, frame);
        } else {
            // SAFETY: nothing has been allocated since the table was stored into.
            if let Some(buffer) = unsafe { maker.store(table, index) } {
                buffer.assign(bytes, place.clone(), piece);
                continue;
            }
            push_bare(lua, maker, 0).assign(bytes, place.clone(), piece);
        }
        lua.set_entry(into, index as i64);
        table = maker.table(into);
    }
    match places.first() {
        Some(place) if place.len() > FRAME_INLINE_MAX => {
            // Without memory for a copy it stays empty, and the context ends; so above.
            push_bare(lua, maker, 0).assign(bytes, place.clone(), piece);
        }
        Some(place) => push_copied(lua, maker, &bytes[place.clone()]),
        None => {}
    }
}

/// Pushes a new buffer with a copy of this many bytes as are stored in the userdata.
#[inline]
fn push_copied(lua: Stack<'_>, maker: Maker<'_>, bytes: &[u8]) {
    if maker.push_filled(bytes).is_none() {
        lua.fail(NO_MEMORY);
    }
}

/// Pushes a new buffer with these bytes by reference, or with a copy if they are few enough to be
/// stored in the userdata. If memory does not suffice, lets the bytes go and raises a Lua error.
pub fn push_shared(lua: Stack<'_>, piece: Piece) {
    if piece.len() <= INLINE_MAX {
        // Held over a call that may raise: then the unwinder drops them.
        push_place(lua, piece.len()).fill(&piece);
        return;
    }
    let (size, held) = (piece.len(), piece.block_bytes());
    let fault = if size > SIZE_MAX {
        Fault::TooLarge(size as f64)
    } else {
        let buffer = push_place(lua, 0);
        if lua.charge_for(held, size) {
            buffer.set_shared(piece);
            return;
        }
        Fault::NoMemory(held)
    };
    drop(piece);
    fault.raise(lua);
}

/// Pushes an empty buffer with at least this much room.
pub(super) fn push_empty<'a>(lua: Stack<'a>, capacity: usize) -> Result<&'a mut NlBuffer, Fault> {
    if capacity <= INLINE_MAX + ROOM_DEFAULT {
        let buffer = push_place(lua, capacity);
        buffer.limit_room(capacity);
        return Ok(buffer);
    }
    if capacity > SIZE_MAX {
        return Err(Fault::TooLarge(capacity as f64));
    }
    let buffer = push_place(lua, 0);
    if !lua.charge(capacity) {
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
    lua: Stack<'_>,
    index: c_int,
    offset: usize,
    count: usize,
) -> Result<(), Fault> {
    let (inline, count, held) = {
        let source = lua.check_buffer(index);
        let count = count.min(source.len().saturating_sub(offset));
        (source.is_inline(), count, source.block_bytes())
    };
    let in_place = inline || count <= INLINE_MAX;
    let view = push_place(lua, if in_place { count } else { 0 });
    if !in_place && !lua.charge_for(held, count) {
        return Err(Fault::NoMemory(held));
    }
    // Only now: a finaliser may have changed the source.
    let source = lua.check_buffer(index);
    let start = offset.min(source.len());
    let end = start + count.min(source.len() - start);
    if in_place {
        view.fill(&source.as_slice()[start..end]);
        return Ok(());
    }
    let block_bytes = source.block_bytes();
    view.set_shared(Piece::new(source.share_all().slice(start..end), block_bytes));
    // What the finaliser did may have made it something else than what was counted.
    recharge(lua, held, view.charged as usize);
    Ok(())
}

/// Pushes a userdata with an empty inline buffer in it. Runs the collector, hence finalisers; may
/// raise if memory runs out.
pub(super) fn push_place<'a>(lua: Stack<'a>, room: usize) -> &'a mut NlBuffer {
    userdata::collect(lua);
    let maker = maker(lua);
    push_bare(lua, maker, room)
}

/// The same without the collector.
#[inline]
fn push_bare<'a>(lua: Stack<'a>, maker: Maker<'a>, room: usize) -> &'a mut NlBuffer {
    // The context ends; until then this is an error like others.
    maker.push(room).unwrap_or_else(|| lua.fail(NO_MEMORY))
}

/// Makes the buffer at `index` (positive) writable, with room for `extra` bytes. Runs the collector
/// if it must allocate: look at arguments and buffers again afterwards.
pub(super) fn reserve(lua: Stack<'_>, index: c_int, extra: usize) -> Result<(), Fault> {
    let mut credit = 0;
    let result = loop {
        let buffer = lua.check_buffer(index);
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
            if !lua.charge(capacity - held) {
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
        lua.discharge(credit);
    }
    result
}

/// Charges what a part that is split off keeps; its bytes are not new to the state.
pub(super) fn charge_part(lua: Stack<'_>, held: usize) -> Result<(), Fault> {
    if lua.charge_for(held, 0) { Ok(()) } else { Err(Fault::NoMemory(held)) }
}

/// Has `now` bytes charged in place of `before`.
pub(super) fn recharge(lua: Stack<'_>, before: usize, now: usize) {
    lua.account().recharge(before, now);
}

/// Gives back what is charged for the buffer.
pub(super) fn discharge(lua: Stack<'_>, buffer: &mut NlBuffer) {
    if buffer.charged > 0 {
        lua.discharge(buffer.charged as usize);
        buffer.charged = 0;
    }
}

/// `native.buffer_table()`: the table of methods, which may be empty still.
fn table(lua: Stack<'_>) -> c_int {
    lua.entry(ffi::LUA_REGISTRYINDEX, Kept::BufferMethods as i64);
    1
}

/// `native.buffer_methods()`: the same, filled, and what `getmetatable` shows of a buffer.
fn methods(lua: Stack<'_>) -> c_int {
    lua.entry(ffi::LUA_REGISTRYINDEX, Kept::BufferMethods as i64);
    maker(lua);
    lua.entry(ffi::LUA_REGISTRYINDEX, Kept::BufferMetatable as i64);
    lua.field(-1, c"__metatable");
    lua.remove(-2);
    2
}

/// `native.buffer_reserve(buffer, extra)`: nothing if there is room now, else why not, as text. The
/// caller vouches for the types.
fn reserve_for_lua(lua: Stack<'_>) -> Option<String> {
    let extra = lua.to_number(2).unwrap_or(f64::NAN);
    if !(extra >= 0.0 && extra <= SIZE_MAX as f64) {
        return Some(Fault::TooLarge(extra).text());
    }
    reserve(lua, 1, extra as usize).err().map(Fault::text)
}

/// `native.buffer_assign(buffer, other)`: makes the first hold what the second holds, by reference
/// where that is possible; false if the first is released. The caller vouches for the types.
fn assign(lua: Stack<'_>) -> Result<bool, Fault> {
    let piece = lua.check_buffer(2).share();
    let buffer = lua.check_buffer(1);
    if !buffer.is_live() {
        return Ok(false);
    }
    let before = buffer.charged as usize;
    let done = buffer.assign(&piece, 0..piece.len(), Some(&piece));
    let now = buffer.charged as usize;
    drop(piece);
    recharge(lua, before, now);
    if done { Ok(true) } else { Err(Fault::NoMemory(now)) }
}

const _: () = assert!(STORE_BYTES == 32 && align_of::<NlBuffer>() <= 8);

//! The library's functions, made to look like C code to scripts.
//!
//! Libraries count levels of the stack, for `error`, `setfenv` or `debug.getinfo`, and look at what
//! they find there. In plain LuaJIT `require`, `coroutine.resume` and their like are C functions:
//! their frames have no lines, and errors that blame them no position. A function of ours is Lua,
//! so that what it calls can wait. Of bytecode without debug information the VM says "line 0"; of
//! bytecode whose lines are all negative it says what it says of C code, nothing. So that is what
//! [`disguise`] gives it, once it is loaded: all functions of all contexts share the table of their
//! lines. `stock.rs` does the rest.

use std::ffi::CStr;
use std::ptr;

use mlua::ffi::{self, lua_State};

use super::stdio;

/// The name of all chunks of the library: what the VM tells of C functions.
pub(crate) const CHUNK_NAME: &CStr = c"=[C]";

/// The line of functions that stand for a C function of LuaJIT's frame by frame …
pub(crate) const STAND_IN: i32 = -1;
/// … of those that the main script is called by, which are none to scripts …
pub(crate) const BENEATH: i32 = -3;
/// … and of all others, which are one frame to scripts, however many they take.
pub(crate) const LIBRARY: i32 = -2;

/// LuaJIT's `GCproto`: what functions of the same code share.
#[repr(C)]
struct Prototype {
    next: u64,
    marked: u8,
    kind: u8,
    parameters: u8,
    frame: u8,
    instructions: u32,
    unused: u32,
    collector_list: u64,
    /// Points behind the objects.
    constants: *const *mut Prototype,
    upvalue_list: u64,
    objects: u32,
    numbers: u32,
    bytes: u32,
    upvalues: u8,
    flags: u8,
    trace: u16,
    name: u64,
    first_line: i32,
    lines: i32,
    /// For each instruction but the first how many lines it is after the first.
    line_table: *const u8,
    upvalue_names: *const u8,
    variables: *const u8,
}

/// The type of a prototype in its header.
const KIND: u8 = 7;

/// All instructions are on the first line.
static LINES: [u8; 1 << 14] = [0; 1 << 14];

/// The prototype of the function on the top of the stack, whose instructions follow it.
unsafe fn prototype(raw: *mut lua_State) -> *mut Prototype {
    // SAFETY: the callers have a Lua function there, in whose object is where they begin.
    unsafe { ((*stdio::object(raw, -1)).code as usize as *mut Prototype).sub(1) }
}

/// The prototypes among the constants of one: of the functions inside it.
unsafe fn inner(outer: *const Prototype) -> impl Iterator<Item = *mut Prototype> {
    // SAFETY: the callers have a live prototype; objects have their kind in the same place.
    let objects = unsafe {
        let count = (*outer).objects as usize;
        std::slice::from_raw_parts((*outer).constants.sub(count), count)
    };
    objects.iter().copied().filter(|object| {
        // SAFETY: as above.
        unsafe { (**object).kind == KIND }
    })
}

/// Has the function on the top of the stack, and those inside it, look as if all their code were
/// on this line, and nothing in it had a name.
///
/// # Safety
/// `raw` must be a live state with a Lua function on top that was just loaded, and prototypes of
/// the layout that [`is_known`] looks for.
pub(crate) unsafe fn disguise(raw: *mut lua_State, line: i32) {
    unsafe fn disguise_all(prototype: *mut Prototype, line: i32) {
        // SAFETY: a live prototype of this layout, which nobody else has. The VM reads one line
        // for each instruction, and frees nothing of what is pointed to.
        unsafe {
            if (*prototype).instructions as usize <= LINES.len() {
                (*prototype).first_line = line;
                (*prototype).lines = 0;
                (*prototype).line_table = LINES.as_ptr();
                (*prototype).upvalue_names = ptr::null();
                (*prototype).variables = ptr::null();
            }
            inner(prototype).for_each(|inner| disguise_all(inner, line));
        }
    }
    // SAFETY: the caller's contract.
    unsafe { disguise_all(prototype(raw), line) };
}

/// Whether the function on the top of the stack is one that was disguised. It must not be dumped:
/// the VM takes what lies behind the table of lines for that of the prototype.
///
/// # Safety
/// `raw` must be a live state with a Lua function on top.
pub(crate) unsafe fn is_disguised(raw: *mut lua_State) -> bool {
    // SAFETY: the caller's contract.
    unsafe { ptr::eq((*prototype(raw)).line_table, LINES.as_ptr()) }
}

/// Whether prototypes are laid out as expected.
///
/// # Safety
/// `raw` must be a live state with a free stack slot. Raises for want of memory.
pub(crate) unsafe fn is_known(raw: *mut lua_State) -> bool {
    const TEXT: &[u8] = b"local a\n\nreturn function()\n\n return a end";
    // SAFETY: the caller's contract; the stack is left as it was.
    unsafe {
        let start = TEXT.as_ptr().cast();
        let status = ffi::luaL_loadbuffer(raw, start, TEXT.len(), CHUNK_NAME.as_ptr());
        if status != ffi::LUA_OK {
            ffi::lua_error(raw);
        }
        let outer = prototype(raw);
        let has_one = (*outer).kind == KIND && (*outer).objects == 1;
        let is_known = has_one
            && inner(outer).all(|inner| {
                ((*inner).instructions, (*inner).upvalues) == (3, 1)
                    && ((*inner).first_line, (*inner).lines) == (3, 2)
                    && (*inner).name == (*outer).name
                    && (*inner).line_table.addr() + 2 == (*inner).upvalue_names.addr()
            });
        ffi::lua_settop(raw, -2);
        is_known
    }
}

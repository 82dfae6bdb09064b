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

use mlua::ffi::lua_State;

use super::layout::{Prototype, inner, prototype};

/// The name of all chunks of the library: what the VM tells of C functions.
pub(crate) const CHUNK_NAME: &CStr = c"=[C]";

/// The line of functions that stand for a C function of LuaJIT's frame by frame …
pub(crate) const STAND_IN: i32 = -1;
/// … of those that the main script is called by, which are none to scripts …
pub(crate) const BENEATH: i32 = -3;
/// … and of all others, which are one frame to scripts, however many they take.
pub(crate) const LIBRARY: i32 = -2;

/// All instructions are on the first line.
static LINES: [u8; 1 << 14] = [0; 1 << 14];

/// Has the function on the top of the stack, and those inside it, look as if all their code were
/// on this line, and nothing in it had a name.
///
/// # Safety
/// `raw` must be a live state with a Lua function on top that was just loaded.
pub(crate) unsafe fn disguise(raw: *mut lua_State, line: i32) {
    unsafe fn disguise_all(prototype: *mut Prototype, line: i32) {
        // SAFETY: a live prototype, which nobody else has. The VM reads one line
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
    unsafe { disguise_all(prototype(raw, -1), line) };
}

/// Whether the function on the top of the stack is one that was disguised. It must not be dumped:
/// the VM takes what lies behind the table of lines for that of the prototype.
///
/// # Safety
/// `raw` must be a live state with a Lua function on top.
pub(crate) unsafe fn is_disguised(raw: *mut lua_State) -> bool {
    // SAFETY: the caller's contract.
    unsafe { ptr::eq((*prototype(raw, -1)).line_table, LINES.as_ptr()) }
}

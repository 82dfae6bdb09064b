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

use super::layout::{Prototype, inner, prototype};
use super::stack::Stack;

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
pub(crate) fn disguise(lua: Stack<'_>, line: i32) {
    fn disguise_all(prototype: &mut Prototype, line: i32) {
        // The VM reads one line for each instruction, and frees nothing of what is pointed to.
        if prototype.instructions as usize <= LINES.len() {
            prototype.first_line = line;
            prototype.lines = 0;
            prototype.line_table = LINES.as_ptr();
            prototype.upvalue_names = ptr::null();
            prototype.variables = ptr::null();
        }
        // SAFETY: live ones, which nobody else has: the function was just loaded.
        unsafe { inner(prototype).for_each(|inner| disguise_all(&mut *inner, line)) };
    }
    // SAFETY: a Lua function is on top, which was just loaded.
    disguise_all(unsafe { &mut *prototype(lua.raw(), -1) }, line);
}

/// Whether the Lua function on the top of the stack is one that was disguised. It must not be
/// dumped: the VM takes what lies behind the table of lines for that of the prototype.
pub(crate) fn is_disguised(lua: Stack<'_>) -> bool {
    // SAFETY: a Lua function is on top.
    ptr::eq(unsafe { (*prototype(lua.raw(), -1)).line_table }, LINES.as_ptr())
}

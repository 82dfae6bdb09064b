//! Values on the stack of a state, as native functions read and push them.

use std::ffi::{CStr, c_int};
use std::hash::Hasher;

use mlua::ffi;
use mlua::ffi::lua_State;

/// The registry field of the table.
pub(crate) const TABLE: &CStr = c"node-lua.native";

/// The bytes of a string argument (numbers are converted in place); `None` for anything else.
///
/// # Safety
/// The bytes live while the argument is on the stack.
pub(crate) unsafe fn text<'a>(raw: *mut lua_State, index: c_int) -> Option<&'a [u8]> {
    let mut length = 0;
    // SAFETY: the caller passes a live state.
    let start = unsafe { ffi::lua_tolstring(raw, index, &mut length) };
    // SAFETY: the VM vouches for pointer and length.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}

/// Pushes a string.
///
/// # Safety
/// `raw` must have a free stack slot. Raises for want of memory.
pub(crate) unsafe fn push_text(raw: *mut lua_State, text: &[u8]) {
    // SAFETY: pointer and length are those of a slice; the VM copies the bytes.
    unsafe { ffi::lua_pushlstring(raw, text.as_ptr().cast(), text.len()) };
}

/// An argument that the Lua side has made sure is a number.
///
/// # Safety
/// `raw` must be a live state.
pub(crate) unsafe fn number(raw: *mut lua_State, index: c_int) -> f64 {
    // SAFETY: the caller's contract.
    unsafe { ffi::lua_tonumber(raw, index) }
}

/// A key or token, which came from us as an exact number.
///
/// # Safety
/// As for [`number`].
pub(crate) unsafe fn key(raw: *mut lua_State, index: c_int) -> u64 {
    // SAFETY: the caller's contract. `as` saturates: no number is out of range.
    unsafe { number(raw, index) as u64 }
}

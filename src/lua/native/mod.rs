//! The functions that the runtime's Lua side calls, in one table named `native`.
//!
//! They check little: the Lua side has checked what scripts pass. None of them waits. None calls
//! into the VM while it borrows the host, because whatever allocates in the VM may run finalisers,
//! which are script code and use the host too.

pub(super) mod confine;
mod context;
mod event;
mod rwopt;
mod stat;
mod tcp;

use std::ffi::{CStr, c_int};
use std::sync::Arc;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::convert::OPEN_FFI;
use super::library;
use crate::abi;
use crate::context::Context;
use crate::error::Code;

/// The registry field of the table.
pub(super) const TABLE: &CStr = c"node-lua.native";

type Functions = &'static [(&'static CStr, lua_CFunction)];

/// Fills the table of native functions, and prepares a fresh state for them.
///
/// # Safety
/// `raw` must be a fresh state with an empty stack, inside a turn. Raises for want of memory.
pub(super) unsafe fn open(raw: *mut lua_State) {
    const LISTS: [Functions; 6] = [
        context::FUNCTIONS,
        event::FUNCTIONS,
        stat::FUNCTIONS,
        stat::FAULTS,
        tcp::FUNCTIONS,
        abi::buffer::FUNCTIONS,
    ];
    let count: usize = LISTS.iter().map(|list| list.len()).sum();
    // SAFETY: the caller's contract; all names are terminated.
    unsafe {
        abi::buffer::open(raw);
        super::convert::install(raw);
        ffi::lua_createtable(raw, 0, count as c_int + 2);
        for (name, function) in LISTS.into_iter().flatten() {
            ffi::lua_pushcfunction(raw, *function);
            ffi::lua_setfield(raw, -2, name.as_ptr());
        }
        ffi::lua_pushcfunction(raw, library::load);
        ffi::lua_setfield(raw, -2, c"load".as_ptr());
        ffi::lua_pushcfunction(raw, set_ffi);
        ffi::lua_setfield(raw, -2, c"set_ffi".as_ptr());
        ffi::lua_createtable(raw, 0, abi::layout::HEADERS.len() as c_int);
        for (name, text) in abi::layout::HEADERS {
            push_text(raw, name.as_bytes());
            push_text(raw, text.as_bytes());
            ffi::lua_rawset(raw, -3);
        }
        ffi::lua_setfield(raw, -2, c"headers".as_ptr());
        ffi::lua_setfield(raw, ffi::LUA_REGISTRYINDEX, TABLE.as_ptr());
        tcp::open(raw);
        ffi::lua_settop(raw, 0);
    }
}

/// native.set_ffi(f): f() returns the FFI library.
unsafe extern "C-unwind" fn set_ffi(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, once per state, with a function.
    unsafe {
        ffi::lua_settop(raw, 1);
        ffi::lua_getfield(raw, ffi::LUA_REGISTRYINDEX, TABLE.as_ptr());
        ffi::lua_pushvalue(raw, 1);
        ffi::lua_setfield(raw, -2, c"ffi".as_ptr());
        ffi::lua_settop(raw, 1);
        ffi::lua_setfield(raw, ffi::LUA_REGISTRYINDEX, OPEN_FFI.as_ptr());
    }
    0
}

/// Logs the failure of a script.
pub(super) fn report(context: &Arc<Context>, text: &str) {
    match context.name() {
        Some(name) => log::error!("context {} ({name}): {text}", context.id()),
        None => log::error!("context {}: {text}", context.id()),
    }
}

/// Pushes a string.
///
/// # Safety
/// `raw` must have a free stack slot. Raises for want of memory.
unsafe fn push_text(raw: *mut lua_State, text: &[u8]) {
    // SAFETY: pointer and length are those of a slice; the VM copies the bytes.
    unsafe { ffi::lua_pushlstring(raw, text.as_ptr().cast(), text.len()) };
}

/// The bytes of a string argument (numbers are converted in place); `None` for anything else.
///
/// # Safety
/// The bytes live while the argument is on the stack.
unsafe fn text<'a>(raw: *mut lua_State, index: c_int) -> Option<&'a [u8]> {
    let mut length = 0;
    // SAFETY: the caller passes a live state.
    let start = unsafe { ffi::lua_tolstring(raw, index, &mut length) };
    // SAFETY: the VM vouches for pointer and length.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}

/// An argument that the Lua side has made sure is a number.
///
/// # Safety
/// `raw` must be a live state.
unsafe fn number(raw: *mut lua_State, index: c_int) -> f64 {
    // SAFETY: the caller's contract.
    unsafe { ffi::lua_tonumber(raw, index) }
}

/// A key or token, which came from us as an exact number.
///
/// # Safety
/// As for [`number`].
unsafe fn key(raw: *mut lua_State, index: c_int) -> u64 {
    // SAFETY: the caller's contract. `as` saturates: no number is out of range.
    unsafe { number(raw, index) as u64 }
}

/// Pushes `false, code`.
///
/// # Safety
/// `raw` must have two free stack slots.
unsafe fn push_failure(raw: *mut lua_State, code: Code) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        ffi::lua_pushboolean(raw, 0);
        ffi::lua_pushnumber(raw, f64::from(code.0));
    }
    2
}

/// Seconds to nanoseconds; what does not fit is for ever.
fn nanoseconds(seconds: f64) -> u64 {
    // `as` saturates.
    (seconds * 1e9).ceil() as u64
}

//! Clocks, as scripts read them.

use std::ffi::c_int;
use std::os::unix::ffi::OsStrExt;

use mlua::ffi;
use mlua::ffi::{lua_CFunction, lua_State};

use crate::rt;

/// Functions for the table of natives.
pub(super) const FUNCTIONS: super::native::Functions =
    &[(c"now", now as lua_CFunction), (c"wall_clock", wall_clock)];

/// native.now(): seconds of the monotonic clock.
unsafe extern "C-unwind" fn now(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe { ffi::lua_pushnumber(raw, rt::now() as f64 / 1e9) };
    1
}

/// native.wall_clock(): seconds since 1970.
unsafe extern "C-unwind" fn wall_clock(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe { ffi::lua_pushnumber(raw, rt::wall_clock().as_secs_f64()) };
    1
}

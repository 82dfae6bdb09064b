//! `getfenv` and `setfenv` for confined contexts: as LuaJIT has them, but that the library's
//! functions seem to have the script's globals as their environment, and keep the one they have.

use std::ffi::{CStr, c_int};

use mlua::ffi::{self, lua_CFunction, lua_State};

pub(crate) const FUNCTIONS: &[(&CStr, lua_CFunction)] =
    &[(c"getfenv", getfenv as lua_CFunction), (c"setfenv", setfenv)];

/// The name of all chunks of the library.
const LIBRARY: &[u8] = b"=[C]";

/// Pushes the Lua or C function that argument 1 is, or names by its level on the stack; false, with
/// nothing pushed, for level 0.
unsafe fn push_function(raw: *mut lua_State, level: c_int) -> bool {
    // SAFETY: called by the VM's callees, with free slots; nothing is owned where this raises.
    unsafe {
        if ffi::lua_type(raw, 1) == ffi::LUA_TFUNCTION {
            ffi::lua_pushvalue(raw, 1);
            return true;
        }
        if level == 0 {
            return false;
        }
        let mut frame = std::mem::zeroed::<ffi::lua_Debug>();
        if level < 0 || ffi::lua_getstack(raw, level, &mut frame) == 0 {
            ffi::luaL_argerror(raw, 1, c"invalid level".as_ptr());
        }
        ffi::lua_getinfo(raw, c"f".as_ptr(), &mut frame);
        true
    }
}

/// Whether the function on top of the stack is one of the library's.
unsafe fn is_library(raw: *mut lua_State) -> bool {
    // SAFETY: a live state with a function on top, and slots free. The copy is popped, and the name
    // lives as long as the function.
    unsafe {
        let mut about = std::mem::zeroed::<ffi::lua_Debug>();
        ffi::lua_pushvalue(raw, -1);
        ffi::lua_getinfo(raw, c">S".as_ptr(), &mut about);
        CStr::from_ptr(about.source).to_bytes().starts_with(LIBRARY)
    }
}

/// `getfenv([f | level])`
unsafe extern "C-unwind" fn getfenv(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; nothing is owned where this raises.
    unsafe {
        let level = match ffi::lua_type(raw, 1) {
            ffi::LUA_TFUNCTION => 0,
            _ => ffi::luaL_optinteger(raw, 1, 1) as c_int,
        };
        let is_own =
            push_function(raw, level) && ffi::lua_iscfunction(raw, -1) == 0 && !is_library(raw);
        if is_own {
            ffi::lua_getfenv(raw, -1);
        } else {
            ffi::lua_pushvalue(raw, ffi::LUA_GLOBALSINDEX);
        }
    }
    1
}

/// `setfenv(f | level, table)`
unsafe extern "C-unwind" fn setfenv(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; nothing is owned where this raises.
    unsafe {
        ffi::luaL_checktype(raw, 2, ffi::LUA_TTABLE);
        ffi::lua_settop(raw, 2);
        let level = match ffi::lua_type(raw, 1) {
            ffi::LUA_TFUNCTION => 0,
            _ => ffi::luaL_checkinteger(raw, 1) as c_int,
        };
        if !push_function(raw, level) {
            ffi::lua_pushvalue(raw, 2);
            ffi::lua_replace(raw, ffi::LUA_GLOBALSINDEX);
            return 0;
        }
        if ffi::lua_iscfunction(raw, -1) != 0 || is_library(raw) {
            let text = c"'setfenv' cannot change environment of given object";
            return ffi::luaL_error(raw, text.as_ptr());
        }
        ffi::lua_pushvalue(raw, 2);
        ffi::lua_setfenv(raw, -2);
    }
    1
}

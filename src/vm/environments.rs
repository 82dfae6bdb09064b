//! `getfenv` and `setfenv` for confined contexts: as LuaJIT has them, but that the library's
//! functions seem to have the script's globals as their environment, and keep the one they have.

use std::ffi::{CStr, c_int};

use mlua::ffi::{self, lua_CFunction};

use super::disguise::CHUNK_NAME;
use super::stack::{Stack, function};

pub(crate) const FUNCTIONS: &[(&CStr, lua_CFunction)] =
    &[(c"getfenv", function(getfenv)), (c"setfenv", function(setfenv))];

/// Pushes the Lua or C function that argument 1 is, or names by its level on the stack; false, with
/// nothing pushed, for level 0.
fn push_function(lua: Stack<'_>, level: c_int) -> bool {
    if lua.kind(1) == ffi::LUA_TFUNCTION {
        lua.push_copy(1);
        return true;
    }
    if level != 0 && lua.frame(level, c"f").is_none() {
        lua.wrong_argument(1, c"invalid level");
    }
    level != 0
}

/// Whether the function on top of the stack is a script's, in Lua.
fn is_script(lua: Stack<'_>) -> bool {
    !lua.is_c_function(-1) && !lua.function_record(-1).source().starts_with(CHUNK_NAME.to_bytes())
}

/// `getfenv([f | level])`
fn getfenv(lua: Stack<'_>) -> c_int {
    let level = match lua.kind(1) {
        ffi::LUA_TFUNCTION => 0,
        _ => lua.optional_integer(1, 1) as c_int,
    };
    if push_function(lua, level) && is_script(lua) {
        lua.environment(-1);
    } else {
        lua.push_copy(ffi::LUA_GLOBALSINDEX);
    }
    1
}

/// `setfenv(f | level, table)`
fn setfenv(lua: Stack<'_>) -> c_int {
    lua.check_kind(2, ffi::LUA_TTABLE);
    lua.set_top(2);
    let level = match lua.kind(1) {
        ffi::LUA_TFUNCTION => 0,
        _ => lua.check_integer(1) as c_int,
    };
    if !push_function(lua, level) {
        lua.push_copy(2);
        lua.replace(ffi::LUA_GLOBALSINDEX);
        return 0;
    }
    if !is_script(lua) {
        lua.place_and_raise(c"'setfenv' cannot change environment of given object");
    }
    lua.push_copy(2);
    lua.set_environment(-2);
    1
}

//! The standard functions as they were before any script ran: what the chunks of the library that
//! are loaded later find under the usual names.
//!
//! A script may replace every global and every field of every table that it can reach. So each
//! chunk gets an environment of its own, in which names are looked up here; chunks take what they
//! need into locals while they are loaded, and use no global later (`tests/tidy.rs` checks that).
//! An environment holds nothing: a script that gets hold of one, as by `getfenv`, changes nothing
//! for anybody.

use std::ffi::{CStr, c_int};

use mlua::ffi::{self, lua_State};

/// Registry keys, far from the small ones that `luaL_ref` hands out: the functions, in the order of
/// [`LIBRARIES`], and the metatable of environments.
const KEY_FUNCTIONS: c_int = 0x6e6c_0011;
const KEY_METATABLE: c_int = 0x6e6c_0012;

/// What the library uses, by the table that has it; the first one is that of the globals.
const LIBRARIES: &[(&CStr, &[&CStr])] = &[
    (
        c"_G",
        &[
            c"assert",
            c"error",
            c"getmetatable",
            c"ipairs",
            c"loadfile",
            c"next",
            c"package",
            c"pairs",
            c"pcall",
            c"rawequal",
            c"rawget",
            c"rawset",
            c"select",
            c"setmetatable",
            c"tonumber",
            c"tostring",
            c"type",
            c"unpack",
            c"xpcall",
        ],
    ),
    (
        c"string",
        &[c"byte", c"char", c"find", c"format", c"gmatch", c"gsub", c"match", c"rep", c"sub"],
    ),
    (c"table", &[c"concat", c"insert", c"remove", c"sort"]),
    (c"math", &[c"abs", c"ceil", c"floor", c"huge", c"max", c"min", c"randomseed"]),
    (
        c"bit",
        &[c"band", c"bor", c"bxor", c"bnot", c"lshift", c"rshift", c"arshift", c"bswap", c"tobit"],
    ),
    (
        c"coroutine",
        &[c"create", c"isyieldable", c"resume", c"running", c"status", c"wrap", c"yield"],
    ),
    (c"debug", &[c"getinfo", c"sethook", c"traceback"]),
    (c"jit", &[c"off", c"on", c"status"]),
];

/// Keeps the functions. Call before any script runs.
///
/// # Safety
/// `raw` must be a state with the standard libraries as they are opened, and 4 free stack slots.
/// Raises for want of memory.
pub(super) unsafe fn keep(raw: *mut lua_State) {
    let count: usize = LIBRARIES.iter().map(|(_, names)| names.len()).sum();
    // SAFETY: the caller's contract; each loop leaves the stack as it was.
    unsafe {
        ffi::lua_createtable(raw, count as c_int, 0);
        let mut index = 0;
        for (library, names) in LIBRARIES {
            ffi::lua_getglobal(raw, library.as_ptr());
            for name in *names {
                ffi::lua_getfield(raw, -1, name.as_ptr());
                index += 1;
                ffi::lua_rawseti(raw, -3, index);
            }
            ffi::lua_settop(raw, -2);
        }
        ffi::lua_rawseti_(raw, ffi::LUA_REGISTRYINDEX, KEY_FUNCTIONS);
    }
}

/// Gives the function on top of the stack an environment of its own.
///
/// # Safety
/// `raw` must be a state that [`keep`] was called for, with a function on top and 4 free stack
/// slots. Raises for want of memory.
pub(super) unsafe fn set_environment(raw: *mut lua_State) {
    // SAFETY: the caller's contract. What is pushed is popped.
    unsafe {
        ffi::lua_createtable(raw, 0, 0);
        push_metatable(raw);
        ffi::lua_setmetatable(raw, -2);
        ffi::lua_setfenv(raw, -2);
    }
}

/// Pushes the metatable of environments.
unsafe fn push_metatable(raw: *mut lua_State) {
    // SAFETY: the callers have 3 slots free.
    unsafe {
        ffi::lua_rawgeti_(raw, ffi::LUA_REGISTRYINDEX, KEY_METATABLE);
        if ffi::lua_type(raw, -1) == ffi::LUA_TTABLE {
            return;
        }
        ffi::lua_settop(raw, -2);
        ffi::lua_createtable(raw, 0, 2);
        ffi::lua_pushcfunction(raw, look_up);
        ffi::lua_setfield(raw, -2, c"__index".as_ptr());
        ffi::lua_pushboolean(raw, 0);
        ffi::lua_setfield(raw, -2, c"__metatable".as_ptr());
        ffi::lua_pushvalue(raw, -1);
        ffi::lua_rawseti_(raw, ffi::LUA_REGISTRYINDEX, KEY_METATABLE);
    }
}

/// The `__index` of environments: a function, or a table with all those of a library.
unsafe extern "C-unwind" fn look_up(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with two arguments, which are looked at before the stack changes.
    unsafe {
        let name = super::native::text(raw, 2).unwrap_or_default();
        if name == b"_G" {
            // Who asks for this means the script's own.
            ffi::lua_pushvalue(raw, ffi::LUA_GLOBALSINDEX);
            return 1;
        }
        if name == b"loadstring" {
            ffi::lua_pushcfunction(raw, load_text);
            return 1;
        }
        let mut first = 1;
        for (library, names) in LIBRARIES {
            let is_globals = first == 1;
            if is_globals && let Some(at) = names.iter().position(|known| known.to_bytes() == name)
            {
                ffi::lua_rawgeti_(raw, ffi::LUA_REGISTRYINDEX, KEY_FUNCTIONS);
                ffi::lua_rawgeti_(raw, -1, first + at as c_int);
                return 1;
            }
            if !is_globals && library.to_bytes() == name {
                push_library(raw, names, first);
                return 1;
            }
            first += names.len() as c_int;
        }
        let text = b"the library uses a global that is not kept for it: ";
        super::native::push_text(raw, text);
        ffi::lua_pushvalue(raw, 2);
        ffi::lua_concat(raw, 2);
        ffi::lua_error(raw)
    }
}

/// `loadstring(text, name)` for the library: what it generates has an environment of its own too.
unsafe extern "C-unwind" fn load_text(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, by the library, with two strings, which stay on the stack.
    unsafe {
        let text = super::native::text(raw, 1).unwrap_or_default();
        let name = ffi::lua_tostring(raw, 2);
        if ffi::luaL_loadbuffer(raw, text.as_ptr().cast(), text.len(), name) != ffi::LUA_OK {
            ffi::lua_pushnil(raw);
            ffi::lua_insert(raw, -2);
            return 2;
        }
        set_environment(raw);
    }
    1
}

/// Pushes a table with these functions, which are kept from `first` on.
unsafe fn push_library(raw: *mut lua_State, names: &[&CStr], first: c_int) {
    // SAFETY: called by `look_up`, with free slots.
    unsafe {
        ffi::lua_rawgeti_(raw, ffi::LUA_REGISTRYINDEX, KEY_FUNCTIONS);
        ffi::lua_createtable(raw, 0, names.len() as c_int);
        for (name, index) in names.iter().zip(first..) {
            ffi::lua_rawgeti_(raw, -2, index);
            ffi::lua_setfield(raw, -2, name.as_ptr());
        }
        // What is missing raises here too.
        push_metatable(raw);
        ffi::lua_setmetatable(raw, -2);
    }
}

//! A Lua state with the buffer library, for scripts that need nothing else of the runtime.

#![allow(unsafe_code, reason = "a state without the runtime")]

use std::ffi::{CStr, CString};

use mlua::ffi::{self, lua_State};
use node_lua::lua::buffer::{header, userdata};
use node_lua::vm::state::State;
use node_lua::vm::{blame, prelude};

/// What the scripts of tests require.
const CHECKS: &str = include_str!("../lua/support/checks.lua");

/// Run with the natives: makes `buffer` and `packet` available, and keeps what is printed.
const BOOT: &str = r#"
    local native = ...
    native.ffi = require
    function native.compile(text)
        return assert(loadstring(text, "=[C]"))
    end
    function native.header(name)
        return native.headers[name]
    end
    buffer = native.load "buffer"(native)
    package.loaded.buffer = buffer
    package.preload.packet = function() return native.load "packet"(native) end
    package.preload["support.checks"] = assert(loadstring(native.checks, "=checks"))
    native_for_tests = native
    printed = {}
    function io.write(...)
        for i = 1, select('#', ...) do printed[#printed + 1] = tostring((select(i, ...))) end
    end
"#;

/// A state with module `buffer` loaded; `io.write` is collected for [`output`].
pub(crate) fn state() -> State {
    let state = State::new().expect("memory for a state");
    let raw = state.as_ptr();
    // SAFETY: a fresh state; errors would abort the test, which is as good as failing it.
    unsafe {
        userdata::open(raw);
        ffi::lua_createtable(raw, 0, 8);
        for (name, function) in userdata::FUNCTIONS.iter().chain(blame::FUNCTIONS) {
            ffi::lua_pushcclosure(raw, *function, 0);
            ffi::lua_setfield(raw, -2, name.as_ptr());
        }
        ffi::lua_createtable(raw, 0, 1);
        for (name, text) in header::HEADERS {
            ffi::lua_pushlstring_(raw, name.as_ptr().cast(), name.len());
            ffi::lua_pushlstring_(raw, text.as_ptr().cast(), text.len());
            ffi::lua_settable(raw, -3);
        }
        ffi::lua_setfield(raw, -2, c"headers".as_ptr());
        ffi::lua_pushcclosure(raw, prelude::load_early, 0);
        ffi::lua_setfield(raw, -2, c"load".as_ptr());
        ffi::lua_pushlstring_(raw, CHECKS.as_ptr().cast(), CHECKS.len());
        ffi::lua_setfield(raw, -2, c"checks".as_ptr());
    }
    call(raw, "=boot", BOOT, 1).expect("boot");
    state
}

/// Runs a script.
pub(crate) fn run(state: &State, name: &str, source: &str) -> Result<(), String> {
    call(state.as_ptr(), name, source, 0)
}

/// What the scripts of this state have written.
#[allow(dead_code, reason = "not every test looks at it")]
pub(crate) fn output(state: &State) -> String {
    run(state, "=output", "printed = table.concat(printed)").expect("concat");
    let raw = state.as_ptr();
    // SAFETY: the state is not running; the string is copied before it is popped.
    unsafe {
        ffi::lua_getglobal_(raw, c"printed".as_ptr());
        let mut len = 0;
        let text = ffi::lua_tolstring(raw, -1, &mut len);
        let text = std::slice::from_raw_parts(text.cast::<u8>(), len).to_vec();
        ffi::lua_settop(raw, -2);
        String::from_utf8(text).expect("UTF-8")
    }
}

/// Calls a chunk with the `arguments` topmost values.
fn call(raw: *mut lua_State, name: &str, source: &str, arguments: i32) -> Result<(), String> {
    let name = CString::new(name).expect("name without zero");
    // SAFETY: the state is not running, and everything is called protected.
    unsafe {
        ffi::lua_getglobal_(raw, c"debug".as_ptr());
        ffi::lua_getfield_(raw, -1, c"traceback".as_ptr());
        ffi::lua_remove(raw, -2);
        let mut status =
            ffi::luaL_loadbuffer(raw, source.as_ptr().cast(), source.len(), name.as_ptr());
        let base = ffi::lua_gettop(raw) - arguments - 1;
        if status == 0 {
            ffi::lua_insert(raw, base);
            ffi::lua_insert(raw, base);
            // Now the handler, the chunk, and its arguments.
            status = ffi::lua_pcall(raw, arguments, 0, base);
        }
        let result = if status == 0 { Ok(()) } else { Err(message(raw)) };
        ffi::lua_settop(raw, 0);
        result
    }
}

/// Calls a global function with one string.
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) fn call_global(state: &State, name: &CStr, argument: &[u8]) -> Result<(), String> {
    let raw = state.as_ptr();
    // SAFETY: the state is not running; only the call may raise, but for want of memory, and that
    // is protected.
    unsafe {
        ffi::lua_getglobal_(raw, c"debug".as_ptr());
        ffi::lua_getfield_(raw, -1, c"traceback".as_ptr());
        ffi::lua_getglobal_(raw, name.as_ptr());
        ffi::lua_pushlstring_(raw, argument.as_ptr().cast(), argument.len());
        let status = ffi::lua_pcall(raw, 1, 0, 2);
        let result = if status == 0 { Ok(()) } else { Err(message(raw)) };
        ffi::lua_settop(raw, 0);
        result
    }
}

/// The error on top of the stack.
///
/// # Safety
/// The state must not be running, and something be on its stack.
unsafe fn message(raw: *mut lua_State) -> String {
    // SAFETY: the caller's contract; the text is copied before anything is popped.
    unsafe {
        let text = ffi::lua_tostring(raw, -1);
        if text.is_null() {
            return "error that is no string".to_owned();
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

//! A Lua state with the buffer library, for scripts that need nothing else of the runtime.

use std::ffi::{CStr, CString};

use mlua::ffi;
use node_lua::lua::buffer::{header, userdata};
use node_lua::vm::stack::{Stack, function};
use node_lua::vm::state::State;
use node_lua::vm::{blame, prelude};

/// What the scripts of tests require.
const CHECKS: &str = include_str!("../lua/support/checks.lua");

/// Run with the natives: makes `buffer` and `packet` available, and keeps what is printed.
const BOOT: &str = r#"
    local native = native_for_tests
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
    printed = {}
    function io.write(...)
        for i = 1, select('#', ...) do printed[#printed + 1] = tostring((select(i, ...))) end
    end
"#;

/// A state with module `buffer` loaded; `io.write` is collected for [`output`].
pub(crate) fn state() -> State {
    let state = State::new().expect("memory for a state");
    let lua = state.stack();
    userdata::open(lua);
    lua.push_table(0, 8);
    for (name, function) in userdata::FUNCTIONS.iter().chain(blame::FUNCTIONS) {
        lua.push_function(*function);
        lua.set_field(-2, name);
    }
    lua.push_table(0, 1);
    for (name, text) in header::HEADERS {
        lua.push_text(name.as_bytes());
        lua.push_text(text.as_bytes());
        lua.raw_set(-3);
    }
    lua.set_field(-2, c"headers");
    lua.push_function(function(prelude::load));
    lua.set_field(-2, c"load");
    lua.push_text(CHECKS.as_bytes());
    lua.set_field(-2, c"checks");
    lua.set_global(c"native_for_tests");
    run(&state, "=boot", BOOT).expect("boot");
    state
}

/// Runs a script.
pub(crate) fn run(state: &State, name: &str, source: &str) -> Result<(), String> {
    let name = CString::new(name).expect("name without zero");
    let lua = state.stack();
    lua.push_global(c"debug");
    lua.field(-1, c"traceback");
    let mut status = lua.load_plain(source.as_bytes(), &name);
    if status == ffi::LUA_OK {
        status = lua.protected_call(0, 0, 2);
    }
    finish(lua, status)
}

/// What the scripts of this state have written.
#[allow(dead_code, reason = "not every test looks at it")]
pub(crate) fn output(state: &State) -> String {
    run(state, "=output", "printed = table.concat(printed)").expect("concat");
    let lua = state.stack();
    lua.push_global(c"printed");
    let text = lua.text(-1).unwrap_or_default().to_vec();
    lua.pop();
    String::from_utf8(text).expect("UTF-8")
}

/// Calls a global function with one string.
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) fn call_global(state: &State, name: &CStr, argument: &[u8]) -> Result<(), String> {
    let lua = state.stack();
    lua.push_global(c"debug");
    lua.field(-1, c"traceback");
    lua.push_global(name);
    lua.push_text(argument);
    finish(lua, lua.protected_call(1, 0, 2))
}

/// The error on top of the stack, which is cleared, if there is one.
fn finish(lua: Stack<'_>, status: i32) -> Result<(), String> {
    let result = if status == ffi::LUA_OK {
        Ok(())
    } else {
        let text = lua.text(-1).unwrap_or(b"error that is no string");
        Err(String::from_utf8_lossy(text).into_owned())
    };
    lua.set_top(0);
    result
}

//! LuaJIT with nothing around it, from the sources that node-lua is built from.

use std::path::Path;

/// Runs one script with its arguments; `...` holds them.
///
/// # Errors
///
/// The script's own, or that it cannot be read.
pub fn run(script: &Path, arguments: Vec<String>) -> Result<(), String> {
    let lua = mlua_state();
    let arguments: mlua::Variadic<String> = arguments.into_iter().collect();
    lua.load(script).call::<()>(arguments).map_err(|e| e.to_string())
}

fn mlua_state() -> mlua::Lua {
    // SAFETY: the scripts are this project's own; they use `ffi` only for clocks.
    unsafe { mlua::Lua::unsafe_new() }
}

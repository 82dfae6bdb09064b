//! LuaJIT with nothing around it, from the sources that node-lua is built from.

use std::path::Path;

/// Runs one script with its arguments; `...` holds them.
///
/// # Errors
///
/// The script's own, or that it cannot be read.
pub fn run(script: &Path, arguments: Vec<String>) -> Result<(), String> {
    let lua = mlua::Lua::new();
    let arguments: mlua::Variadic<String> = arguments.into_iter().collect();
    lua.load(script).call::<()>(arguments).map_err(|e| e.to_string())
}

//! Loading a script, for the driver of its state to run.

use std::ffi::c_int;

use mlua::ffi;

use super::command::{beside, push_arg, push_command, set_compiler, set_folder};
use super::confine::confine;
use super::program::{Paths, Script, Source};
use crate::vm::chunk_cache::load_file;
use crate::vm::convert::push_value;
use crate::vm::stack::{Stack, TABLE};
use crate::vm::{convert, standard};

/// Puts the script and its arguments on the driver's stack; returns how many values that are, or
/// why the script does not load. The stack is empty before.
pub(super) fn load_script(lua: Stack<'_>, script: Script) -> Result<c_int, Vec<u8>> {
    if let Some(Paths { path, cpath }) = script.paths {
        let set = move |lua: Stack<'_>| {
            lua.push_text(&path);
            lua.set_field(-2, c"path");
            lua.push_text(&cpath);
            lua.set_field(-2, c"cpath");
        };
        standard::set_paths(lua, Box::new(set));
    }
    match &script.command_line {
        Some(line) => push_arg(lua, line),
        None => set_compiler(lua),
    }
    if script.deny.is_any() {
        confine(lua, script.deny);
    }
    let has_coroutines = match &script.command_line {
        Some(line) if line.is_interactive || !line.steps.is_empty() => {
            push_command(lua, line, &script.source);
            false
        }
        _ => {
            let (status, has_coroutines) = load(lua, &script.source, script.deny.is_any());
            if status != ffi::LUA_OK {
                return Err(lua.error_text());
            }
            has_coroutines
        }
    };
    if has_coroutines {
        lua.field(ffi::LUA_REGISTRYINDEX, TABLE);
        lua.field(-1, c"load_coroutines");
        lua.call(0, 0);
        lua.set_top(-2);
    }
    let count = script.arguments.len() as c_int;
    let too_many = || Err(format!("too many arguments: {count}").into());
    if !lua.has_room(count + convert::STACK_SLOTS) {
        return too_many();
    }
    for argument in &script.arguments {
        if let Err(error) = push_value::<super::BufferValues>(lua, argument) {
            return Err(error.to_string().into());
        }
    }
    if lua.give_to_driver(1 + count) { Ok(1 + count) } else { too_many() }
}

/// Pushes the loaded chunk, or the error message; returns the status, and whether the library's
/// code for coroutines is wanted.
fn load(lua: Stack<'_>, source: &Source, text_only: bool) -> (c_int, bool) {
    match source {
        Source::File(path, folder) => {
            let folder = folder.as_ref();
            let loaded = match load_file(lua, path, text_only) {
                (ffi::LUA_ERRFILE, _) if let Some(other) = beside(path, folder) => {
                    lua.set_top(-2);
                    set_folder(&other, folder);
                    return load_file(lua, &other, text_only);
                }
                loaded => loaded,
            };
            set_folder(path, folder);
            loaded
        }
        // Only together with something that comes before.
        Source::Stdin | Source::Nothing => lua.load(b"", c"=stdin"),
        Source::Text { name, text } => lua.load(text, name),
    }
}

//! Loading a script, for the driver of its state to run.

#![allow(unsafe_code, reason = "not behind a safe face yet")]

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};

use super::command::{beside, push_arg, push_command, set_compiler, set_folder};
use super::confine::confine;
use super::program::{Paths, Script, Source, text_of};
use crate::vm::stack::Stack;
use crate::vm::{self, chunk_cache, convert};

/// Puts the script and its arguments on the driver's stack; returns how many values that are, or
/// why the script does not load.
///
/// # Safety
/// `raw` must be a live state with an empty stack, in a call that catches what is raised, and
/// `driver` a coroutine of it that has not been resumed.
pub(super) unsafe fn load_script(
    raw: *mut lua_State,
    driver: *mut lua_State,
    script: Script,
) -> Result<c_int, Vec<u8>> {
    // SAFETY: a live state with an empty stack; what raises is caught by the caller's `protected`.
    unsafe {
        ffi::lua_getglobal(raw, c"package".as_ptr());
        match &script.paths {
            Paths::Default => {}
            Paths::Before(templates) => {
                push_bytes(raw, templates);
                ffi::lua_getfield(raw, 1, c"path".as_ptr());
                ffi::lua_concat(raw, 2);
                ffi::lua_setfield(raw, 1, c"path".as_ptr());
            }
            Paths::Exactly(path, cpath) => {
                push_bytes(raw, path);
                ffi::lua_setfield(raw, 1, c"path".as_ptr());
                push_bytes(raw, cpath);
                ffi::lua_setfield(raw, 1, c"cpath".as_ptr());
            }
        }
        ffi::lua_settop(raw, 0);
        match &script.command_line {
            Some(line) => push_arg(Stack::new(raw), line),
            None => set_compiler(Stack::new(raw)),
        }
        if script.deny.is_any() {
            confine(Stack::new(raw), script.deny);
        }
        let has_coroutines = match &script.command_line {
            Some(line) if line.is_interactive || !line.steps.is_empty() => {
                push_command(Stack::new(raw), line, &script.source);
                false
            }
            _ => {
                let (status, has_coroutines) = load(raw, &script.source, script.deny.is_any());
                if status != ffi::LUA_OK {
                    return Err(text_of(raw));
                }
                has_coroutines
            }
        };
        if has_coroutines {
            ffi::lua_getfield(raw, ffi::LUA_REGISTRYINDEX, vm::stack::TABLE.as_ptr());
            ffi::lua_getfield(raw, -1, c"load_coroutines".as_ptr());
            ffi::lua_call(raw, 0, 0);
            ffi::lua_settop(raw, -2);
        }
        let count = script.arguments.len() as c_int;
        if ffi::lua_checkstack(raw, count + convert::STACK_SLOTS) == 0
            || ffi::lua_checkstack(driver, count + 1) == 0
        {
            return Err(format!("too many arguments: {count}").into());
        }
        for argument in &script.arguments {
            if let Err(error) = convert::push_value::<super::BufferValues>(raw, argument) {
                return Err(error.to_string().into());
            }
        }
        ffi::lua_xmove(raw, driver, 1 + count);
        Ok(1 + count)
    }
}

unsafe fn push_bytes(raw: *mut lua_State, bytes: &[u8]) {
    // SAFETY: pointer and length are those of a slice; the VM copies the bytes.
    unsafe { ffi::lua_pushlstring(raw, bytes.as_ptr().cast(), bytes.len()) };
}

/// Pushes the loaded chunk, or the error message; returns the status, and whether the library's
/// code for coroutines is wanted.
unsafe fn load(raw: *mut lua_State, source: &Source, text_only: bool) -> (c_int, bool) {
    match source {
        Source::File(path, folder) => {
            let folder = folder.as_ref();
            // SAFETY: the caller's contract; a message that is not needed is on top.
            let loaded = unsafe {
                match chunk_cache::load_file(raw, path, text_only) {
                    (ffi::LUA_ERRFILE, _) if let Some(other) = beside(path, folder) => {
                        ffi::lua_settop(raw, -2);
                        set_folder(&other, folder);
                        return chunk_cache::load_file(raw, &other, text_only);
                    }
                    loaded => loaded,
                }
            };
            set_folder(path, folder);
            loaded
        }
        // Only together with something that comes before.
        Source::Stdin | Source::Nothing => {
            // SAFETY: as above; an empty chunk.
            (unsafe { ffi::luaL_loadbuffer(raw, c"".as_ptr(), 0, c"=stdin".as_ptr()) }, false)
        }
        // SAFETY: pointer and length are those of a slice, the name is terminated.
        Source::Text { name, text } => unsafe {
            let status = ffi::luaL_loadbuffer(raw, text.as_ptr().cast(), text.len(), name.as_ptr());
            (status, status == ffi::LUA_OK && chunk_cache::mentions(raw))
        },
    }
}

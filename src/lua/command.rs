//! The command line as the main script finds it, what is done before that script runs, and where
//! scripts are looked for.

use std::ffi::c_int;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlua::ffi::{self, lua_State};

use super::host;
use super::program::Source;
use crate::vm::prelude;

/// What comes before the main script, and after it.
#[derive(Debug)]
pub struct CommandLine {
    /// What the global `arg` holds below index 0: the binary and its options.
    pub before: Vec<Vec<u8>>,
    /// From index 0 on: the script and its arguments.
    pub script: Vec<Vec<u8>>,
    /// What is done first, in this order.
    pub steps: Vec<Step>,
    /// Whether lines from standard input are run in the end.
    pub is_interactive: bool,
}

/// Something that is done before the main script runs; lua/core/command.lua knows the kinds.
#[derive(Debug)]
pub struct Step {
    /// The option's letter.
    pub kind: u8,
    /// What follows it: several words for `b` alone.
    pub words: Vec<Vec<u8>>,
}

/// Sets the global `arg`.
///
/// # Safety
/// `raw` must be a live state with an empty stack. Raises for want of memory.
pub(super) unsafe fn push_arg(raw: *mut lua_State, line: &CommandLine) {
    let first = -(line.before.len() as i64);
    // SAFETY: a live state with an empty stack.
    unsafe {
        ffi::lua_createtable(raw, line.script.len() as c_int, line.before.len() as c_int);
        for (text, index) in line.before.iter().chain(&line.script).zip(first..) {
            push_bytes(raw, text);
            ffi::lua_rawseti(raw, 1, index);
        }
        ffi::lua_setglobal(raw, c"arg".as_ptr());
    }
}

/// Sets the compiler of a context that has no command line as that of the process says.
///
/// # Safety
/// As for [`push_arg`]; raises what is wrong with the options as well.
pub(super) unsafe fn set_compiler(raw: *mut lua_State) {
    let settings = host::with(|host| Arc::clone(&host.settings));
    for (kind, text) in &settings.compiler {
        // SAFETY: a live state with an empty stack; what raises ends the context.
        unsafe {
            prelude::push_chunk(raw, "core/compiler");
            push_bytes(raw, &[*kind]);
            push_bytes(raw, text);
            ffi::lua_call(raw, 2, 0);
        }
    }
}

/// Pushes what is to be done in place of a chunk, for lua/core/command.lua.
///
/// # Safety
/// `raw` must be a live state with some slots free. Raises for want of memory.
pub(super) unsafe fn push_command(raw: *mut lua_State, line: &CommandLine, source: &Source) {
    // SAFETY: a live state with some slots free.
    unsafe {
        ffi::lua_createtable(raw, line.steps.len() as c_int, 2);
        for (step, index) in line.steps.iter().zip(1..) {
            ffi::lua_createtable(raw, step.words.len() as c_int + 1, 0);
            push_bytes(raw, &[step.kind]);
            ffi::lua_rawseti(raw, -2, 1);
            for (word, place) in step.words.iter().zip(2..) {
                push_bytes(raw, word);
                ffi::lua_rawseti(raw, -2, place);
            }
            ffi::lua_rawseti(raw, -2, index);
        }
        match source {
            Source::File(path, _) => push_bytes(raw, path.as_os_str().as_bytes()),
            Source::Stdin => ffi::lua_pushboolean(raw, 1),
            Source::Text { .. } | Source::Nothing => ffi::lua_pushnil(raw),
        }
        ffi::lua_setfield(raw, -2, c"main".as_ptr());
        ffi::lua_pushboolean(raw, c_int::from(line.is_interactive));
        ffi::lua_setfield(raw, -2, c"is_interactive".as_ptr());
    }
    if let Source::File(path, _) = source {
        set_folder(path, None);
    }
}

/// Notes where the running context's script is: names of others may be relative to that.
pub(super) fn set_folder(script: &Path, creators: Option<&Arc<Path>>) {
    let Some(folder) = script.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return;
    };
    // Most have the folder of their creator, and share what says so.
    let shared = creators.filter(|creators| ***creators == *folder).map(Arc::clone);
    host::with(|host| host.folder = Some(shared.unwrap_or_else(|| folder.into())));
}

/// A file beside the creator's script, if there is none at the path itself.
pub(super) fn beside(path: &Path, folder: Option<&Arc<Path>>) -> Option<PathBuf> {
    let other = folder.filter(|_| path.is_relative() && !path.exists())?.join(path);
    other.exists().then_some(other)
}

unsafe fn push_bytes(raw: *mut lua_State, bytes: &[u8]) {
    // SAFETY: pointer and length are those of a slice; the VM copies the bytes.
    unsafe { ffi::lua_pushlstring(raw, bytes.as_ptr().cast(), bytes.len()) };
}

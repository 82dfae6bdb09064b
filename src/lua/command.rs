//! The command line as the main script finds it, what is done before that script runs, and where
//! scripts are looked for.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::host;
use super::program::Source;
use crate::vm::prelude::push_chunk;
use crate::vm::stack::Stack;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The option's letter.
    pub kind: u8,
    /// What follows it: several words for `b` alone.
    pub words: Vec<Vec<u8>>,
}

impl Step {
    /// One of this kind.
    pub fn new(kind: u8, words: impl IntoIterator<Item = OsString>) -> Step {
        Step { kind, words: words.into_iter().map(OsString::into_vec).collect() }
    }
}

/// Sets the global `arg`.
pub(super) fn push_arg(lua: Stack<'_>, line: &CommandLine) {
    let first = -(line.before.len() as i64);
    lua.push_table(line.script.len(), line.before.len());
    for (text, index) in line.before.iter().chain(&line.script).zip(first..) {
        lua.push_text(text);
        lua.set_entry(1, index);
    }
    lua.set_global(c"arg");
}

/// Sets the compiler of a context that has no command line as that of the process says.
pub(super) fn set_compiler(lua: Stack<'_>) {
    let settings = host::with(|host| Arc::clone(&host.settings));
    for (kind, text) in &settings.compiler {
        push_chunk(lua, "core/compiler");
        lua.push_text(&[*kind]);
        lua.push_text(text);
        lua.call(2, 0);
    }
}

/// Pushes what is to be done in place of a chunk, for lua/core/command.lua.
pub(super) fn push_command(lua: Stack<'_>, line: &CommandLine, source: &Source) {
    lua.push_table(line.steps.len(), 2);
    for (step, index) in line.steps.iter().zip(1..) {
        lua.push_table(step.words.len() + 1, 0);
        lua.push_text(&[step.kind]);
        lua.set_entry(-2, 1);
        for (word, place) in step.words.iter().zip(2..) {
            lua.push_text(word);
            lua.set_entry(-2, place);
        }
        lua.set_entry(-2, index);
    }
    match source {
        Source::File(path, _) => lua.push_text(path.as_os_str().as_bytes()),
        Source::Stdin => lua.push_boolean(true),
        Source::Text { .. } | Source::Nothing => lua.push_nil(),
    }
    lua.set_field(-2, c"main");
    lua.push_boolean(line.is_interactive);
    lua.set_field(-2, c"is_interactive");
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

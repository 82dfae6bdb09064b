//! The runtime's Lua side: embedded in the binary, loaded as bytecode. A chunk is compiled when a
//! process asks for it first.

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;

use mlua::ffi;

use super::disguise::{self, CHUNK_NAME, disguise};
use super::openers::vm;
use super::stack::Stack;
use super::state::State;
use super::{pristine, standard};

/// Names of chunks, and the text of `lua/NAME.lua`, or of the file that is named beside it.
macro_rules! sources {
    (@ $name:literal) => { include_str!(concat!("../../lua/", $name, ".lua")) };
    (@ $name:literal $file:literal) => { sources!(@ $file) };
    ($($name:literal $(in $file:literal)?),* $(,)?) => {
        &[$(($name, sources!(@ $name $($file)?)),)*]
    };
}

const SOURCES: &[&[(&str, &str)]] = &[
    sources![
        "buffer/access", "buffer/cdef", "buffer" in "buffer/init", "buffer/number",
        "buffer/varint", "context/confine", "context/create", "context" in "context/init",
        "context/monitor", "context/names", "context/options", "context/process", "context/query",
        "context/request", "context/unclaimed", "context/wait", "core/command", "core/compiler",
        "core/coroutine", "core/dispatch", "core/failure", "core/ffi", "core/lines",
        "core/listing", "core/open_ffi", "core/options", "core/refusal", "core/require",
        "core/simulation", "core/stubs", "core/timeout", "init", "packet/code",
        "packet" in "packet/init", "supervisor", "tcp/accept", "tcp/connect", "tcp/ending",
        "tcp" in "tcp/init", "tcp/methods", "tcp/monitor", "tcp/options", "tcp/piece",
        "tcp/shortage", "tcp/socket", "timer", "udp" in "udp/init", "udp/options",
    ],
    #[cfg(any(feature = "json", feature = "msgpack"))]
    sources!["json"],
    #[cfg(feature = "http")]
    sources![
        "http/args", "http/client", "http" in "http/init", "http/message", "http/pool",
        "http/request", "http/server", "http/upgrade", "http/url",
    ],
    #[cfg(feature = "json")]
    sources!["cjson"],
    #[cfg(feature = "msgpack")]
    sources!["msgpack"],
    #[cfg(feature = "tls")]
    sources!["tcp/tls", "tls"],
    #[cfg(feature = "websocket")]
    sources![
        "websocket/accept", "websocket/connect", "websocket/handshake",
        "websocket" in "websocket/init", "websocket/timing",
    ],
];

/// Name, chunk name and source text of LuaJIT's own modules: made by build.rs. They are compiled
/// when they are asked for.
const JIT_MODULES: &[(&str, &CStr, &str)] = include!(concat!(env!("OUT_DIR"), "/jit_modules.rs"));

/// Chunks whose functions stand for LuaJIT's own.
const STAND_INS: &[&str] = &["core/require"];
/// Chunks whose functions call the main script, and are beneath it on the stack.
const BENEATH: &[&str] = &["core/command", "core/lines"];

struct Chunk {
    bytecode: Vec<u8>,
    /// Where its functions seem to be.
    line: i32,
    /// Whether it has a [`DIVIDER`].
    is_divided: bool,
}

const COUNT: usize = {
    let (mut count, mut at) = (0, 0);
    while at < SOURCES.len() {
        count += SOURCES[at].len();
        at += 1;
    }
    count
};

/// Those of [`SOURCES`] that have been asked for.
static CHUNKS: [OnceLock<Chunk>; COUNT] = [const { OnceLock::new() }; COUNT];

/// All sources, each with its place among [`CHUNKS`].
fn sources() -> impl Iterator<Item = (usize, &'static (&'static str, &'static str))> {
    SOURCES.iter().copied().flatten().enumerate()
}

/// A chunk, compiled if it is the first time; `None` without memory for it.
fn chunk(index: usize, name: &str, text: &str) -> Option<&'static Chunk> {
    if let Some(chunk) = CHUNKS[index].get() {
        return Some(chunk);
    }
    let line = match () {
        () if STAND_INS.contains(&name) => disguise::STAND_IN,
        () if BENEATH.contains(&name) => disguise::BENEATH,
        () => disguise::LIBRARY,
    };
    let state = State::new()?;
    if !pristine::has_learned() {
        state.protect(pristine::learn).ok()?;
    }
    let divided = text
        .split_once(DIVIDER)
        .map(|(above, below)| format!("{above}return (function(...)\n{below}\nend)(...)"));
    let bytecode = compile(&state, name, divided.as_deref().unwrap_or(text))?;
    let chunk = Chunk { bytecode, line, is_divided: divided.is_some() };
    Some(CHUNKS[index].get_or_init(|| chunk))
}

/// A line of a chunk: what is below it becomes a function of its own, which has what is above it as
/// upvalues. Making a closure, the VM looks for each variable of the enclosing function in a list
/// of all that were captured, but copies what that function itself has as upvalues.
const DIVIDER: &str = "-- What is above are upvalues of what is below: see prelude.rs.\n";

/// Compiles a chunk of the library, without debug information; `None` without memory for it.
fn compile(state: &State, name: &str, text: &str) -> Option<Vec<u8>> {
    let lua = state.stack();
    // Not yet by the name of the library's chunks, whose functions cannot be dumped.
    let status = lua.load_plain(text.as_bytes(), c"=[node-lua]");
    if status == ffi::LUA_ERRMEM {
        return None;
    }
    assert_eq!(status, ffi::LUA_OK, "the embedded library compiles: {name}");
    lua.push_global(c"string");
    lua.field(-1, c"dump");
    lua.push_copy(-3);
    lua.push_boolean(true);
    if lua.protected_call(2, 1, 0) != ffi::LUA_OK {
        return None;
    }
    let bytecode = lua.text(-1)?.to_vec();
    lua.set_top(0);
    Some(bytecode)
}

/// native.compile(text): the function of a text that the library has made, which is to look like
/// its others.
pub(crate) fn compile_for_lua(lua: Stack<'_>) -> c_int {
    lua.load_or_raise(lua.text(1).unwrap_or_default(), CHUNK_NAME);
    disguise(lua, disguise::LIBRARY);
    pristine::set_environment(lua);
    1
}

/// The VM's name and version, as `jit.version` has it.
pub fn vm_version() -> String {
    let Some(state) = State::new() else { return "LuaJIT".to_owned() };
    let lua = state.stack();
    lua.push_global(c"jit");
    lua.field(-1, c"version");
    String::from_utf8_lossy(lua.text(-1).unwrap_or_default()).into_owned()
}

/// The VM's own `package.path` and `package.cpath`, whatever the environment says; `None` without
/// memory for it.
pub fn default_paths() -> Option<(Vec<u8>, Vec<u8>)> {
    let state = State::new()?;
    let mut paths = (Vec::new(), Vec::new());
    let find = |lua: Stack<'_>| {
        // The library is opened once more, told to leave the environment alone.
        lua.push_boolean(true);
        lua.set_field(ffi::LUA_REGISTRYINDEX, standard::NO_ENVIRONMENT);
        lua.push_function(vm::luaopen_package);
        lua.call(0, 0);
        lua.push_global(c"package");
        for (name, path) in [(c"path", &mut paths.0), (c"cpath", &mut paths.1)] {
            lua.field(1, name);
            *path = lua.text(-1).unwrap_or_default().to_vec();
        }
    };
    state.protect(find).ok()?;
    Some(paths)
}

/// Pushes the function of a library chunk; false, with nothing pushed, if there is none of that
/// name.
pub(crate) fn push_chunk(lua: Stack<'_>, name: &str) -> bool {
    push(lua, name).is_some()
}

fn push(lua: Stack<'_>, name: &str) -> Option<&'static Chunk> {
    let (index, (name, text)) = sources().find(|(_, (known, _))| *known == name)?;
    let Some(chunk) = chunk(index, name, text) else {
        lua.push_text(b"not enough memory for the library");
        lua.raise_top()
    };
    // Out of memory is all that can happen.
    lua.load_or_raise(&chunk.bytecode, CHUNK_NAME);
    disguise(lua, chunk.line);
    Some(chunk)
}

/// Calls the function of a library chunk with as many arguments, which are on top, before any
/// script runs. It leaves one result.
pub(crate) fn run(lua: Stack<'_>, name: &str, arguments: c_int) {
    let at = lua.top() - arguments + 1;
    if let Some(chunk) = push(lua, name) {
        lua.insert(at);
        lua.call_once(arguments, 1, chunk.is_divided);
    }
}

/// run(name, …): what a library chunk returns, before any script runs.
pub(crate) fn run_early(lua: Stack<'_>) -> c_int {
    let name = lua.text(1).and_then(|name| std::str::from_utf8(name).ok());
    run(lua, name.unwrap_or_default(), lua.top() - 1);
    1
}

/// native.load_jit(name): the function of a module that comes with LuaJIT, like `jit.v`; nothing if
/// there is none of that name.
pub(crate) fn load_jit(lua: Stack<'_>) -> c_int {
    let name = lua.text(1).unwrap_or_default();
    let found = JIT_MODULES.iter().find(|(known, ..)| known.as_bytes() == name);
    let Some((_, chunk_name, source)) = found else { return 0 };
    lua.load_or_raise(source.as_bytes(), chunk_name);
    1
}

/// native.load(name): the function of a library chunk, in an environment of its own; or nil.
pub fn load(lua: Stack<'_>) -> c_int {
    let name = lua.text(1).and_then(|name| std::str::from_utf8(name).ok());
    let is_there = name.is_some_and(|name| push_chunk(lua, name));
    if is_there {
        pristine::set_environment(lua);
    }
    c_int::from(is_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_compiles() {
        for (index, (name, text)) in sources() {
            let chunk = chunk(index, name, text);
            assert!(chunk.is_some_and(|chunk| !chunk.bytecode.is_empty()), "{name}");
        }
    }
}

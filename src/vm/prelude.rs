//! The runtime's Lua side: embedded in the binary, loaded as bytecode. A chunk is compiled when a
//! process asks for it first.

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;

use mlua::ffi;

use super::disguise::{self, CHUNK_NAME, disguise};
use super::stack::Stack;
use super::state::State;
use super::{pristine, standard};

/// Module name, chunk name and source text.
const SOURCES: &[(&str, &CStr, &str)] = &[
    ("init", c"=[node-lua]", include_str!("../../lua/init.lua")),
    ("core/dispatch", c"=[node-lua] dispatch", include_str!("../../lua/core/dispatch.lua")),
    ("core/coroutine", c"=[node-lua] coroutine", include_str!("../../lua/core/coroutine.lua")),
    ("core/stubs", c"=[node-lua] stubs", include_str!("../../lua/core/stubs.lua")),
    ("context/names", c"=[node-lua] names", include_str!("../../lua/context/names.lua")),
    ("core/command", c"=[node-lua] command", include_str!("../../lua/core/command.lua")),
    ("core/compiler", c"=[node-lua] compiler", include_str!("../../lua/core/compiler.lua")),
    ("core/lines", c"=[node-lua] lines", include_str!("../../lua/core/lines.lua")),
    ("context/process", c"=[node-lua] process", include_str!("../../lua/context/process.lua")),
    ("core/failure", c"=[node-lua] failure", include_str!("../../lua/core/failure.lua")),
    ("core/refusal", c"=[node-lua] refusal", include_str!("../../lua/core/refusal.lua")),
    ("context/request", c"=[node-lua] request", include_str!("../../lua/context/request.lua")),
    ("core/timeout", c"=[node-lua] timeout", include_str!("../../lua/core/timeout.lua")),
    ("core/ffi", c"=[node-lua] ffi", include_str!("../../lua/core/ffi.lua")),
    ("core/options", c"=[node-lua] options", include_str!("../../lua/core/options.lua")),
    ("core/listing", c"=[node-lua] listing", include_str!("../../lua/core/listing.lua")),
    ("tcp/accept", c"=[node-lua] accept", include_str!("../../lua/tcp/accept.lua")),
    #[cfg(feature = "http")]
    ("http", c"=[node-lua] http", include_str!("../../lua/http/init.lua")),
    #[cfg(feature = "http")]
    ("http/args", c"=[node-lua] args", include_str!("../../lua/http/args.lua")),
    #[cfg(feature = "http")]
    ("http/upgrade", c"=[node-lua] upgrade", include_str!("../../lua/http/upgrade.lua")),
    #[cfg(feature = "http")]
    ("http/client", c"=[node-lua] client", include_str!("../../lua/http/client.lua")),
    #[cfg(feature = "http")]
    ("http/pool", c"=[node-lua] pool", include_str!("../../lua/http/pool.lua")),
    #[cfg(feature = "http")]
    ("http/url", c"=[node-lua] url", include_str!("../../lua/http/url.lua")),
    #[cfg(feature = "http")]
    ("http/message", c"=[node-lua] message", include_str!("../../lua/http/message.lua")),
    #[cfg(feature = "http")]
    ("http/request", c"=[node-lua] request", include_str!("../../lua/http/request.lua")),
    #[cfg(feature = "http")]
    ("http/server", c"=[node-lua] server", include_str!("../../lua/http/server.lua")),
    #[cfg(feature = "tls")]
    ("tls", c"=[node-lua] tls", include_str!("../../lua/tls.lua")),
    #[cfg(feature = "tls")]
    ("tcp/tls", c"=[node-lua] tls", include_str!("../../lua/tcp/tls.lua")),
    ("tcp/options", c"=[node-lua] options", include_str!("../../lua/tcp/options.lua")),
    ("tcp/methods", c"=[node-lua] methods", include_str!("../../lua/tcp/methods.lua")),
    ("tcp/ending", c"=[node-lua] ending", include_str!("../../lua/tcp/ending.lua")),
    ("tcp/monitor", c"=[node-lua] monitor", include_str!("../../lua/tcp/monitor.lua")),
    (
        "context/unclaimed",
        c"=[node-lua] unclaimed",
        include_str!("../../lua/context/unclaimed.lua"),
    ),
    ("context/query", c"=[node-lua] query", include_str!("../../lua/context/query.lua")),
    ("core/require", c"=[node-lua] require", include_str!("../../lua/core/require.lua")),
    ("buffer/access", c"=[node-lua] access", include_str!("../../lua/buffer/access.lua")),
    ("buffer/number", c"=[node-lua] number", include_str!("../../lua/buffer/number.lua")),
    ("buffer/varint", c"=[node-lua] varint", include_str!("../../lua/buffer/varint.lua")),
    ("packet/code", c"=[node-lua] code", include_str!("../../lua/packet/code.lua")),
    ("core/open_ffi", c"=[node-lua] open_ffi", include_str!("../../lua/core/open_ffi.lua")),
    ("buffer/cdef", c"=[node-lua] cdef", include_str!("../../lua/buffer/cdef.lua")),
    ("context/confine", c"=[node-lua] confine", include_str!("../../lua/context/confine.lua")),
    ("context/create", c"=[node-lua] create", include_str!("../../lua/context/create.lua")),
    ("context/monitor", c"=[node-lua] monitor", include_str!("../../lua/context/monitor.lua")),
    ("context/options", c"=[node-lua] options", include_str!("../../lua/context/options.lua")),
    ("tcp/connect", c"=[node-lua] connect", include_str!("../../lua/tcp/connect.lua")),
    ("context/wait", c"=[node-lua] wait", include_str!("../../lua/context/wait.lua")),
    ("core/simulation", c"=[node-lua] simulation", include_str!("../../lua/core/simulation.lua")),
    ("tcp/piece", c"=[node-lua] piece", include_str!("../../lua/tcp/piece.lua")),
    ("tcp/shortage", c"=[node-lua] shortage", include_str!("../../lua/tcp/shortage.lua")),
    ("tcp/socket", c"=[node-lua] socket", include_str!("../../lua/tcp/socket.lua")),
    ("buffer", c"=[node-lua] buffer", include_str!("../../lua/buffer/init.lua")),
    ("context", c"=[node-lua] context", include_str!("../../lua/context/init.lua")),
    #[cfg(feature = "json")]
    ("cjson", c"=[node-lua] cjson", include_str!("../../lua/cjson.lua")),
    #[cfg(any(feature = "json", feature = "msgpack"))]
    ("json", c"=[node-lua] json", include_str!("../../lua/json.lua")),
    #[cfg(feature = "msgpack")]
    ("msgpack", c"=[node-lua] msgpack", include_str!("../../lua/msgpack.lua")),
    ("packet", c"=[node-lua] packet", include_str!("../../lua/packet/init.lua")),
    ("supervisor", c"=[node-lua] supervisor", include_str!("../../lua/supervisor.lua")),
    ("tcp", c"=[node-lua] tcp", include_str!("../../lua/tcp/init.lua")),
    ("udp", c"=[node-lua] udp", include_str!("../../lua/udp/init.lua")),
    ("udp/options", c"=[node-lua] options", include_str!("../../lua/udp/options.lua")),
    #[cfg(feature = "websocket")]
    ("websocket", c"=[node-lua] websocket", include_str!("../../lua/websocket/init.lua")),
    #[cfg(feature = "websocket")]
    ("websocket/accept", c"=[node-lua] websocket", include_str!("../../lua/websocket/accept.lua")),
    #[cfg(feature = "websocket")]
    (
        "websocket/connect",
        c"=[node-lua] websocket",
        include_str!("../../lua/websocket/connect.lua"),
    ),
    #[cfg(feature = "websocket")]
    (
        "websocket/handshake",
        c"=[node-lua] websocket",
        include_str!("../../lua/websocket/handshake.lua"),
    ),
    #[cfg(feature = "websocket")]
    ("websocket/timing", c"=[node-lua] websocket", include_str!("../../lua/websocket/timing.lua")),
    ("timer", c"=[node-lua] timer", include_str!("../../lua/timer.lua")),
];

/// LuaJIT's own modules, likewise: made by build.rs. They are compiled when they are asked for.
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

/// Those of [`SOURCES`] that have been asked for.
static CHUNKS: [OnceLock<Chunk>; SOURCES.len()] = [const { OnceLock::new() }; SOURCES.len()];

/// The chunk at this place of [`SOURCES`], compiled if it is the first time; `None` without memory
/// for it.
fn chunk(index: usize) -> Option<&'static Chunk> {
    if let Some(chunk) = CHUNKS[index].get() {
        return Some(chunk);
    }
    let (name, chunk_name, source) = SOURCES[index];
    let line = match () {
        () if STAND_INS.contains(&name) => disguise::STAND_IN,
        () if BENEATH.contains(&name) => disguise::BENEATH,
        () => disguise::LIBRARY,
    };
    let state = State::new()?;
    if !pristine::has_learned() {
        state.protect(pristine::learn).ok()?;
    }
    let divided = source
        .split_once(DIVIDER)
        .map(|(above, below)| format!("{above}return (function(...)\n{below}\nend)(...)"));
    let bytecode = compile(&state, chunk_name, divided.as_deref().unwrap_or(source))?;
    let chunk = Chunk { bytecode, line, is_divided: divided.is_some() };
    Some(CHUNKS[index].get_or_init(|| chunk))
}

/// A line of a chunk: what is below it becomes a function of its own, which has what is above it as
/// upvalues. Making a closure, the VM looks for each variable of the enclosing function in a list
/// of all that were captured, but copies what that function itself has as upvalues.
const DIVIDER: &str = "-- What is above are upvalues of what is below: see prelude.rs.\n";

/// Compiles a chunk of the library, without debug information; `None` without memory for it.
fn compile(state: &State, chunk_name: &CStr, source: &str) -> Option<Vec<u8>> {
    let lua = state.stack();
    let status = lua.load_plain(source.as_bytes(), chunk_name);
    if status == ffi::LUA_ERRMEM {
        return None;
    }
    assert_eq!(status, ffi::LUA_OK, "the embedded library compiles: {chunk_name:?}");
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
        lua.push_function(ffi::luaopen_package);
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
    let index = SOURCES.iter().position(|(known, ..)| *known == name)?;
    let Some(chunk) = chunk(index) else {
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
        for (index, (name, ..)) in SOURCES.iter().enumerate() {
            assert!(chunk(index).is_some_and(|chunk| !chunk.bytecode.is_empty()), "{name}");
        }
    }
}

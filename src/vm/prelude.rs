//! The runtime's Lua side: embedded in the binary, compiled once per process, loaded as bytecode.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use mlua::ffi::{self, lua_State};

use super::disguise::{self, CHUNK_NAME, disguise};
use super::pristine;
use super::state::State;

/// Module name, chunk name and source text.
const SOURCES: &[(&str, &CStr, &str)] = &[
    ("init", c"=[node-lua]", include_str!("../../lua/init.lua")),
    ("core/dispatch", c"=[node-lua] dispatch", include_str!("../../lua/core/dispatch.lua")),
    ("core/coroutine", c"=[node-lua] coroutine", include_str!("../../lua/core/coroutine.lua")),
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
    ("core/listing", c"=[node-lua] listing", include_str!("../../lua/core/listing.lua")),
    ("tcp/accept", c"=[node-lua] accept", include_str!("../../lua/tcp/accept.lua")),
    ("tcp/options", c"=[node-lua] options", include_str!("../../lua/tcp/options.lua")),
    ("tcp/methods", c"=[node-lua] methods", include_str!("../../lua/tcp/methods.lua")),
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
    ("tcp/connect", c"=[node-lua] connect", include_str!("../../lua/tcp/connect.lua")),
    ("context/wait", c"=[node-lua] wait", include_str!("../../lua/context/wait.lua")),
    ("core/simulation", c"=[node-lua] simulation", include_str!("../../lua/core/simulation.lua")),
    ("tcp/shortage", c"=[node-lua] shortage", include_str!("../../lua/tcp/shortage.lua")),
    ("tcp/socket", c"=[node-lua] socket", include_str!("../../lua/tcp/socket.lua")),
    ("buffer", c"=[node-lua] buffer", include_str!("../../lua/buffer/init.lua")),
    ("context", c"=[node-lua] context", include_str!("../../lua/context/init.lua")),
    ("packet", c"=[node-lua] packet", include_str!("../../lua/packet/init.lua")),
    ("supervisor", c"=[node-lua] supervisor", include_str!("../../lua/supervisor.lua")),
    ("tcp", c"=[node-lua] tcp", include_str!("../../lua/tcp/init.lua")),
    ("timer", c"=[node-lua] timer", include_str!("../../lua/timer.lua")),
];

/// LuaJIT's own modules, likewise: made by build.rs. They are compiled when they are asked for.
const JIT_MODULES: &[(&str, &CStr, &str)] = include!(concat!(env!("OUT_DIR"), "/jit_modules.rs"));

/// Chunks whose functions stand for LuaJIT's own.
const STAND_INS: &[&str] = &["core/require"];
/// Chunks whose functions call the main script, and are beneath it on the stack.
const BENEATH: &[&str] = &["core/command", "core/lines"];

struct Chunk {
    name: &'static str,
    bytecode: Vec<u8>,
    /// Where its functions seem to be.
    line: i32,
}

/// Learns about the VM what the library has to know.
unsafe extern "C-unwind" fn look_around(raw: *mut lua_State) -> c_int {
    // SAFETY: called by way of the VM, in a fresh state.
    unsafe {
        pristine::learn(raw);
    }
    0
}

/// The library's chunks; `None` if there is no memory to compile them.
fn chunks() -> Option<&'static [Chunk]> {
    static CHUNKS: OnceLock<Vec<Chunk>> = OnceLock::new();
    if let Some(chunks) = CHUNKS.get() {
        return Some(chunks);
    }
    let state = State::new()?;
    // SAFETY: a fresh state, ours alone; what raises is caught.
    if unsafe { ffi::lua_cpcall(state.as_ptr(), look_around, std::ptr::null_mut()) } != ffi::LUA_OK
    {
        return None;
    }
    let made = |&(name, chunk_name, source): &(_, _, _)| {
        let line = match () {
            () if STAND_INS.contains(&name) => disguise::STAND_IN,
            () if BENEATH.contains(&name) => disguise::BENEATH,
            () => disguise::LIBRARY,
        };
        Some(Chunk { name, bytecode: compile(&state, chunk_name, source)?, line })
    };
    let made: Option<Vec<Chunk>> = SOURCES.iter().map(made).collect();
    let made = made?;
    Some(CHUNKS.get_or_init(|| made))
}

/// A line of a chunk: what is below it becomes a function of its own, which has what is above it as
/// upvalues. Making a closure, the VM looks for each variable of the enclosing function in a list
/// of all that were captured, but copies what that function itself has as upvalues.
const DIVIDER: &str = "-- What is above are upvalues of what is below: see prelude.rs.\n";

/// Compiles a chunk of the library, without debug information; `None` without memory for it.
fn compile(state: &State, chunk_name: &CStr, source: &str) -> Option<Vec<u8>> {
    let raw = state.as_ptr();
    let source = match source.split_once(DIVIDER) {
        Some((above, below)) => format!("{above}return (function(...)\n{below}\nend)(...)").into(),
        None => Cow::Borrowed(source),
    };
    // SAFETY: the state is ours alone; the stack is left as it was.
    unsafe {
        let status = load_text(raw, chunk_name, source.as_bytes());
        if status == ffi::LUA_ERRMEM {
            return None;
        }
        assert_eq!(status, ffi::LUA_OK, "the embedded library compiles: {chunk_name:?}");
        ffi::lua_getglobal(raw, c"string".as_ptr());
        ffi::lua_getfield(raw, -1, c"dump".as_ptr());
        ffi::lua_pushvalue(raw, -3);
        ffi::lua_pushboolean(raw, 1);
        if ffi::lua_pcall(raw, 2, 1, 0) != ffi::LUA_OK {
            return None;
        }
        let mut length = 0;
        let bytes = ffi::lua_tolstring(raw, -1, &mut length);
        let bytecode = std::slice::from_raw_parts(bytes.cast::<u8>(), length).to_vec();
        ffi::lua_settop(raw, 0);
        Some(bytecode)
    }
}

/// Pushes the function of a text, or why there is none; returns the status.
///
/// # Safety
/// `raw` must be a live state with a free stack slot.
unsafe fn load_text(raw: *mut lua_State, name: &CStr, text: &[u8]) -> c_int {
    // SAFETY: pointer and length are those of a slice, which outlives the call.
    unsafe { ffi::luaL_loadbuffer(raw, text.as_ptr().cast(), text.len(), name.as_ptr()) }
}

/// native.compile(text): the function of a text that the library has made, which is to look like
/// its others.
///
/// # Safety
/// A lua_CFunction: called by the VM only.
pub unsafe extern "C-unwind" fn compile_for_lua(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with a text, which stays on the stack. What is raised unwinds.
    unsafe {
        let mut length = 0;
        let text = ffi::lua_tolstring(raw, 1, &mut length);
        if text.is_null() {
            return 0;
        }
        let text = std::slice::from_raw_parts(text.cast::<u8>(), length);
        if load_text(raw, CHUNK_NAME, text) != ffi::LUA_OK {
            ffi::lua_error(raw);
        }
        disguise(raw, disguise::LIBRARY);
        pristine::set_environment(raw);
    }
    1
}

/// The VM's name and version, as `jit.version` has it.
pub fn vm_version() -> String {
    let Some(state) = State::new() else { return "LuaJIT".to_owned() };
    let raw = state.as_ptr();
    // SAFETY: the state is ours alone, with its libraries open; the text is copied while it is on
    // the stack.
    unsafe {
        ffi::lua_getglobal(raw, c"jit".as_ptr());
        ffi::lua_getfield(raw, -1, c"version".as_ptr());
        let text = ffi::lua_tostring(raw, -1);
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// The VM's own `package.path` and `package.cpath`, whatever the environment says; `None` without
/// memory for it.
pub fn default_paths() -> Option<(Vec<u8>, Vec<u8>)> {
    let state = State::new()?;
    let mut paths = (Vec::new(), Vec::new());
    // SAFETY: the state is ours alone; what raises is caught, and the paths outlive the call.
    let status = unsafe { ffi::lua_cpcall(state.as_ptr(), find_paths, (&raw mut paths).cast()) };
    (status == ffi::LUA_OK).then_some(paths)
}

/// Fills in the paths that its argument points to.
unsafe extern "C-unwind" fn find_paths(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM for `default_paths`, in a state with its libraries open: one of them
    // is opened once more, told to leave the environment alone. The texts are copied while they are
    // on the stack.
    unsafe {
        let paths = &mut *ffi::lua_touserdata(raw, 1).cast::<(Vec<u8>, Vec<u8>)>();
        ffi::lua_pushboolean(raw, 1);
        ffi::lua_setfield(raw, ffi::LUA_REGISTRYINDEX, c"LUA_NOENV".as_ptr());
        ffi::lua_pushcfunction(raw, ffi::luaopen_package);
        ffi::lua_call(raw, 0, 0);
        ffi::lua_getglobal(raw, c"package".as_ptr());
        for (name, path) in [(c"path", &mut paths.0), (c"cpath", &mut paths.1)] {
            let mut length = 0;
            ffi::lua_getfield(raw, 2, name.as_ptr());
            let text = ffi::lua_tolstring(raw, -1, &mut length);
            if !text.is_null() {
                *path = std::slice::from_raw_parts(text.cast::<u8>(), length).to_vec();
            }
        }
    }
    0
}

/// Pushes the function of a library chunk; false, with nothing pushed, if there is none of that
/// name.
///
/// # Safety
/// `state` must be a live state with a free stack slot. Raises only for want of memory.
pub unsafe fn push_chunk(state: *mut lua_State, name: &str) -> bool {
    let Some(chunks) = chunks() else {
        // SAFETY: a live state; raises.
        unsafe { ffi::luaL_error(state, c"not enough memory for the library".as_ptr()) };
        return false;
    };
    let Some(chunk) = chunks.iter().find(|chunk| chunk.name == name) else {
        return false;
    };
    let (code, length) = (chunk.bytecode.as_ptr().cast::<c_char>(), chunk.bytecode.len());
    // SAFETY: the bytecode is our own, from this very VM, and lives for ever.
    let status = unsafe { ffi::luaL_loadbuffer(state, code, length, CHUNK_NAME.as_ptr()) };
    if status != ffi::LUA_OK {
        // SAFETY: the message is on the stack; out of memory is all that can have happened.
        unsafe { ffi::lua_error(state) };
    }
    // SAFETY: the function is on the stack, and was just loaded.
    unsafe { disguise(state, chunk.line) };
    true
}

/// native.load_jit(name): the function of a module that comes with LuaJIT, like `jit.v`; nothing if
/// there is none of that name.
///
/// # Safety
/// A lua_CFunction: called by the VM only.
pub unsafe extern "C-unwind" fn load_jit(state: *mut lua_State) -> c_int {
    let mut length = 0;
    // SAFETY: called by the VM, which vouches for pointer and length while the text is there.
    let found = unsafe {
        let text = ffi::lua_tolstring(state, 1, &mut length);
        let name = match text.is_null() {
            true => &[],
            false => std::slice::from_raw_parts(text.cast::<u8>(), length),
        };
        JIT_MODULES.iter().find(|(known, ..)| known.as_bytes() == name)
    };
    let Some((_, chunk_name, source)) = found else { return 0 };
    let (text, length) = (source.as_ptr().cast::<c_char>(), source.len());
    // SAFETY: called by the VM; text and name live for ever. What is raised is the lack of memory.
    unsafe {
        if ffi::luaL_loadbuffer(state, text, length, chunk_name.as_ptr()) != ffi::LUA_OK {
            ffi::lua_error(state);
        }
    }
    1
}

/// native.load(name): the function of a library chunk, in an environment of its own; or nil.
///
/// # Safety
/// A lua_CFunction: called by the VM only.
pub unsafe extern "C-unwind" fn load(state: *mut lua_State) -> c_int {
    // SAFETY: the caller's contract; a function is on top.
    unsafe {
        let count = load_early(state);
        if count > 0 {
            pristine::set_environment(state);
        }
        count
    }
}

/// native.load_early(name): the same in the environment of scripts, before there is any.
///
/// # Safety
/// A lua_CFunction: called by the VM only.
pub unsafe extern "C-unwind" fn load_early(state: *mut lua_State) -> c_int {
    let mut length = 0;
    // SAFETY: called by the VM with a stack; a non-string yields null.
    let text = unsafe { ffi::lua_tolstring(state, 1, &mut length) };
    if text.is_null() {
        return 0;
    }
    // SAFETY: the VM vouches for pointer and length while argument 1 is on the stack.
    let name = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    let Ok(name) = std::str::from_utf8(name) else {
        return 0;
    };
    // SAFETY: as above.
    c_int::from(unsafe { push_chunk(state, name) })
}

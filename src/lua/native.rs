//! The functions that the runtime's Lua side calls, in one table named `native`.
//!
//! They check little: the Lua side has checked what scripts pass. None of them waits. None calls
//! into the VM while it borrows the host, because whatever allocates in the VM may run finalisers,
//! which are script code and use the host too.

use std::collections::HashMap;
use std::ffi::{CStr, c_int};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use mlua::ffi;
use mlua::ffi::lua_CFunction;

use super::buffer;
use crate::error::Code;
use crate::lua;
use crate::vm::int64::OPEN_FFI;
use crate::vm::stack::{Results, Stack, TABLE, function};
use crate::vm::{
    blame, chunk_cache, coroutine, cut, environments, finaliser, native, prelude, standard, stock,
};

pub(super) type Functions = &'static [(&'static CStr, lua_CFunction)];

/// Makes the table of native functions, and prepares a fresh state for them. Raises if out of
/// memory.
pub(super) fn open(lua: Stack<'_>) {
    buffer::userdata::open(lua);
    native::prepare(lua);
    lua.push_table(0, FUNCTIONS_USUAL);
    lua.push_table(0, 1);
    lua.push_function(function(look_up));
    lua.set_field(-2, c"__index");
    lua.set_metatable(-2);
    lua.set_field(ffi::LUA_REGISTRYINDEX, TABLE);
    lua.set_top(0);
}

/// Functions that a context without sockets looks up.
const FUNCTIONS_USUAL: usize = 24;

type ByName = HashMap<&'static [u8], lua_CFunction, BuildHasherDefault<NameHasher>>;

/// FNV-1a: the names are ours, and short.
#[derive(Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The `__index` of the table: makes a function when it is first looked up. A context needs few of
/// them, and all would take 9 KiB.
fn look_up(lua: Stack<'_>) -> c_int {
    const LISTS: &[Functions] = &[
        lua::context::FUNCTIONS,
        environments::FUNCTIONS,
        lua::events::FUNCTIONS,
        coroutine::FUNCTIONS,
        finaliser::FUNCTIONS,
        lua::timer::FUNCTIONS,
        lua::log::FUNCTIONS,
        lua::clock::FUNCTIONS,
        lua::failure::FUNCTIONS,
        stock::FUNCTIONS,
        cut::FUNCTIONS,
        lua::frames::FUNCTIONS,
        lua::message::FUNCTIONS,
        lua::names::FUNCTIONS,
        lua::shortage::FUNCTIONS,
        lua::process::FUNCTIONS,
        lua::stat::FUNCTIONS,
        lua::stat::FAULTS,
        lua::tcp::FUNCTIONS,
        lua::udp::FUNCTIONS,
        blame::FUNCTIONS,
        buffer::userdata::FUNCTIONS,
        #[cfg(feature = "http")]
        lua::http::FUNCTIONS,
        #[cfg(any(feature = "json", feature = "msgpack"))]
        lua::data::FUNCTIONS,
        #[cfg(feature = "json")]
        lua::json::FUNCTIONS,
        #[cfg(feature = "msgpack")]
        lua::msgpack::FUNCTIONS,
        #[cfg(feature = "tls")]
        lua::tls::FUNCTIONS,
        #[cfg(feature = "websocket")]
        lua::websocket::FUNCTIONS,
        &[
            (c"load", function(prelude::load)),
            (c"load_jit", function(prelude::load_jit)),
            (c"look_at", function(chunk_cache::look_at)),
            (c"compile", function(prelude::compile_for_lua)),
            (c"loaded", function(loaded)),
            (c"package", function(package)),
            (c"set_ffi", function(set_ffi)),
            (c"header", function(header)),
        ],
    ];
    static BY_NAME: LazyLock<ByName> = LazyLock::new(|| {
        let all = LISTS.iter().copied().flatten();
        all.map(|(name, function)| (name.to_bytes(), *function)).collect()
    });
    let found = lua.text(2).and_then(|name| BY_NAME.get(name));
    let Some(found) = found else { return 0 };
    lua.push_function(*found);
    lua.push_copy(2);
    lua.push_copy(-2);
    lua.raw_set(1);
    1
}

/// native.set_ffi(f): f() returns the FFI library.
fn set_ffi(lua: Stack<'_>) {
    lua.set_top(1);
    lua.field(ffi::LUA_REGISTRYINDEX, TABLE);
    lua.push_copy(1);
    lua.set_field(-2, c"ffi");
    lua.set_top(1);
    lua.set_field(ffi::LUA_REGISTRYINDEX, OPEN_FFI);
}

/// first_word(text): the first word, and the others if there are any.
pub(super) fn first_word(lua: Stack<'_>) -> c_int {
    let text = lua.text(1).unwrap_or_default();
    let end = text.iter().position(|byte| *byte == b' ');
    lua.push_text(&text[..end.unwrap_or(text.len())]);
    end.map_or(1, |end| {
        lua.push_text(&text[end + 1..]);
        2
    })
}

/// native.loaded(): what `package.loaded` and `package.preload` are.
fn loaded(lua: Stack<'_>) -> c_int {
    lua.field(ffi::LUA_REGISTRYINDEX, c"_LOADED");
    lua.field(ffi::LUA_REGISTRYINDEX, c"_PRELOAD");
    2
}

/// native.package(): the table of that name.
fn package(lua: Stack<'_>) -> c_int {
    standard::push_package(lua);
    1
}

/// Seconds to nanoseconds; what does not fit is for ever.
pub(super) fn nanoseconds(seconds: f64) -> u64 {
    // `as` saturates.
    (seconds * 1e9).ceil() as u64
}

/// native.header(name): the text of a header in ffi/, or nothing.
fn header(lua: Stack<'_>) -> Option<&'static str> {
    let name = lua.text(1).unwrap_or_default();
    let found = buffer::header::HEADERS.iter().find(|(known, _)| known.as_bytes() == name);
    found.map(|(_, text)| *text)
}

/// `false, code`; and a text, if there is more to say.
impl Results for Code {
    fn give(self, lua: Stack<'_>) -> c_int {
        let text = super::host::with(|host| host.peers.explanation.take());
        (false, self.0, text).give(lua)
    }
}

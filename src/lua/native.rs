//! The functions that the runtime's Lua side calls, in one table named `native`.
//!
//! They check little: the Lua side has checked what scripts pass. None of them waits. None calls
//! into the VM while it borrows the host, because whatever allocates in the VM may run finalisers,
//! which are script code and use the host too.

use std::collections::HashMap;
use std::ffi::{CStr, c_int};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::{
    buffer, context, events, failure, frames, message, names, process, shortage, stat, tcp, timer,
};
use crate::error::Code;
use crate::lua;
use crate::vm::convert::OPEN_FFI;
use crate::vm::coroutine;
use crate::vm::environments;
use crate::vm::stack::{Stack, function};
use crate::vm::stack::{TABLE, push_text, text};
use crate::vm::{blame, chunk_cache, cut, prelude, profiler, stock};

pub(super) type Functions = &'static [(&'static CStr, lua_CFunction)];

/// Makes the table of native functions, and prepares a fresh state for them.
///
/// # Safety
/// `raw` must be a fresh state with an empty stack, inside a turn. Raises for want of memory.
pub(super) unsafe fn open(raw: *mut lua_State) {
    // SAFETY: the caller's contract; all names are terminated.
    unsafe {
        buffer::userdata::open(raw);
        crate::vm::convert::install(raw);
        crate::vm::pristine::keep(raw);
        stock::install(raw);
        profiler::install(raw);
        ffi::lua_createtable(raw, 0, FUNCTIONS_USUAL);
        ffi::lua_createtable(raw, 0, 1);
        ffi::lua_pushcfunction(raw, look_up);
        ffi::lua_setfield(raw, -2, c"__index".as_ptr());
        ffi::lua_setmetatable(raw, -2);
        ffi::lua_setfield(raw, ffi::LUA_REGISTRYINDEX, TABLE.as_ptr());
        ffi::lua_settop(raw, 0);
    }
}

/// Functions that a context without sockets looks up.
const FUNCTIONS_USUAL: c_int = 24;

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
unsafe extern "C-unwind" fn look_up(raw: *mut lua_State) -> c_int {
    const LISTS: &[Functions] = &[
        context::FUNCTIONS,
        environments::FUNCTIONS,
        events::FUNCTIONS,
        coroutine::FUNCTIONS,
        timer::FUNCTIONS,
        lua::log::FUNCTIONS,
        lua::clock::FUNCTIONS,
        failure::FUNCTIONS,
        stock::FUNCTIONS,
        cut::FUNCTIONS,
        frames::FUNCTIONS,
        message::FUNCTIONS,
        names::FUNCTIONS,
        shortage::FUNCTIONS,
        process::FUNCTIONS,
        stat::FUNCTIONS,
        stat::FAULTS,
        tcp::FUNCTIONS,
        blame::FUNCTIONS,
        buffer::userdata::FUNCTIONS,
        &[
            (c"load", prelude::load as lua_CFunction),
            (c"load_early", prelude::load_early),
            (c"load_jit", prelude::load_jit),
            (c"look_at", chunk_cache::look_at),
            (c"compile", prelude::compile_for_lua),
            (c"set_ffi", set_ffi),
            (c"header", function(header)),
            (c"open_sockets", function(open_sockets)),
        ],
    ];
    static BY_NAME: LazyLock<ByName> = LazyLock::new(|| {
        let all = LISTS.iter().copied().flatten();
        all.map(|(name, function)| (name.to_bytes(), *function)).collect()
    });
    // SAFETY: called by the VM with the table and a name, which is looked at before the stack
    // changes.
    unsafe {
        let found = text(raw, 2).and_then(|name| BY_NAME.get(name));
        let Some(function) = found else { return 0 };
        ffi::lua_pushcfunction(raw, *function);
        ffi::lua_pushvalue(raw, 2);
        ffi::lua_pushvalue(raw, -2);
        ffi::lua_rawset(raw, 1);
    }
    1
}

/// native.set_ffi(f): f() returns the FFI library.
unsafe extern "C-unwind" fn set_ffi(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, once per state, with a function.
    unsafe {
        ffi::lua_settop(raw, 1);
        ffi::lua_getfield(raw, ffi::LUA_REGISTRYINDEX, TABLE.as_ptr());
        ffi::lua_pushvalue(raw, 1);
        ffi::lua_setfield(raw, -2, c"ffi".as_ptr());
        ffi::lua_settop(raw, 1);
        ffi::lua_setfield(raw, ffi::LUA_REGISTRYINDEX, OPEN_FFI.as_ptr());
    }
    0
}

/// The first `max` bytes of a text, and what is said of the others.
pub(super) fn shorten(text: &[u8], max: usize) -> (&[u8], String) {
    match text.split_at_checked(max) {
        Some((shown, rest)) if !rest.is_empty() => {
            (shown, format!("… and {} more bytes", rest.len()))
        }
        _ => (text, String::new()),
    }
}

/// Seconds to nanoseconds; what does not fit is for ever.
pub(super) fn nanoseconds(seconds: f64) -> u64 {
    // `as` saturates.
    (seconds * 1e9).ceil() as u64
}

/// native.header(name): the text of a header in ffi/, or nothing.
fn header(lua: Stack<'_>) -> c_int {
    let name = lua.text(1).unwrap_or_default();
    let found = buffer::header::HEADERS.iter().find(|(known, _)| known.as_bytes() == name);
    let Some((_, text)) = found else { return 0 };
    lua.push_text(text.as_bytes());
    1
}

/// native.open_sockets(): prepares the state for sockets.
fn open_sockets(lua: Stack<'_>) -> c_int {
    tcp::open(lua);
    0
}

/// Pushes `false, code`.
pub(super) fn push_failure(lua: Stack<'_>, code: Code) -> c_int {
    lua.push_boolean(false);
    lua.push_number(f64::from(code.0));
    2
}

//! 64-bit integers: cdata that only the FFI library can tell apart and make.
//!
//! The C API does neither, so two Lua functions do, kept where scripts do not reach by accident.
//! They are made when the first such integer passes: opening FFI takes 13 KiB, and most contexts
//! never need it.

use std::ffi::{CStr, c_int, c_void};

use mlua::ffi::{self, lua_State};

/// Returns a function that tells what a cdata is, and one that makes such a cdata.
const HELPERS: &[u8] = b"
local open = ...
local ffi = open and open() or require('ffi')
local istype, new = ffi.istype, ffi.new
local int64, uint64 = ffi.typeof('int64_t'), ffi.typeof('uint64_t')
return function(value)
    return istype(int64, value) and 1 or istype(uint64, value) and 2 or 0
end, function(kind)
    return new(kind == 1 and int64 or uint64)
end";

const SIGNED: c_int = 1;
const UNSIGNED: c_int = 2;

/// Their addresses are the keys of the helpers in the registry.
static TELL: u8 = 0;
static MAKE: u8 = 1;

/// A 64-bit integer of either sort.
pub(crate) enum Integer {
    Signed(i64),
    Unsigned(u64),
}

impl Integer {
    /// Its value, whatever its sort is.
    pub(crate) fn value(self) -> i128 {
        match self {
            Integer::Signed(value) => value.into(),
            Integer::Unsigned(value) => value.into(),
        }
    }
}

/// Where a state may keep a function that returns the FFI library, for scripts that have put
/// something else in the place of `require`.
pub const OPEN_FFI: &CStr = c"node-lua.ffi";

/// Makes the helpers.
unsafe fn make_helpers(state: *mut lua_State) {
    // SAFETY: the callers have slots free; the chunk is a constant that compiles and returns two
    // functions.
    unsafe {
        let name = c"=[node-lua] int64".as_ptr();
        if ffi::luaL_loadbuffer(state, HELPERS.as_ptr().cast(), HELPERS.len(), name) != 0 {
            ffi::lua_error(state);
        }
        ffi::lua_getfield(state, ffi::LUA_REGISTRYINDEX, OPEN_FFI.as_ptr());
        ffi::lua_call(state, 1, 2);
        for key in [&raw const MAKE, &raw const TELL] {
            ffi::lua_pushlightuserdata(state, key.cast_mut().cast());
            ffi::lua_insert(state, -2);
            ffi::lua_rawset(state, ffi::LUA_REGISTRYINDEX);
        }
    }
}

/// Pushes a helper.
unsafe fn push_helper(state: *mut lua_State, key: &'static u8) {
    // SAFETY: the callers have stack slots free.
    unsafe {
        let key = (&raw const *key).cast_mut().cast::<c_void>();
        ffi::lua_pushlightuserdata(state, key);
        ffi::lua_rawget_(state, ffi::LUA_REGISTRYINDEX);
        if ffi::lua_type(state, -1) != ffi::LUA_TFUNCTION {
            ffi::lua_pop(state, 1);
            make_helpers(state);
            ffi::lua_pushlightuserdata(state, key);
            ffi::lua_rawget_(state, ffi::LUA_REGISTRYINDEX);
        }
    }
}

/// The integer on top of the stack; `None` if the cdata is something else.
///
/// # Safety
/// A cdata must be on top, and four slots free.
pub(crate) unsafe fn to_integer(state: *mut lua_State) -> Option<Integer> {
    // SAFETY: the caller's contract. The helper returns a number, and only for cdata of eight bytes
    // one that leads to the read; the cdata stays on the stack meanwhile.
    unsafe {
        push_helper(state, &TELL);
        ffi::lua_pushvalue(state, -2);
        ffi::lua_call(state, 1, 1);
        let kind = ffi::lua_tonumber(state, -1) as c_int;
        ffi::lua_pop(state, 1);
        let content = ffi::lua_topointer(state, -1);
        match kind {
            SIGNED => Some(Integer::Signed(content.cast::<i64>().read_unaligned())),
            UNSIGNED => Some(Integer::Unsigned(content.cast::<u64>().read_unaligned())),
            _ => None,
        }
    }
}

/// Pushes an integer.
///
/// # Safety
/// `state` must be live and on its own thread, with three slots free. May unwind.
pub(crate) unsafe fn push_integer(state: *mut lua_State, integer: Integer) {
    let (kind, bits) = match integer {
        Integer::Signed(value) => (SIGNED, value as u64),
        Integer::Unsigned(value) => (UNSIGNED, value),
    };
    // SAFETY: the caller's contract. The helper returns a new cdata of eight bytes that nobody else
    // has; what `lua_topointer` gives for a cdata is its content.
    unsafe {
        push_helper(state, &MAKE);
        ffi::lua_pushnumber(state, f64::from(kind));
        ffi::lua_call(state, 1, 1);
        ffi::lua_topointer(state, -1).cast_mut().cast::<u64>().write_unaligned(bits);
    }
}

/// The integer in the cdata at `index`, as scripts write it; `None` if it is something else.
///
/// # Safety
/// `state` must be a running one with five slots free, with a cdata at `index`. May raise.
pub(crate) unsafe fn text_at(state: *mut lua_State, index: c_int) -> Option<String> {
    // SAFETY: the caller's contract; a copy is looked at, and popped.
    let found = unsafe {
        ffi::lua_pushvalue(state, index);
        let found = to_integer(state);
        ffi::lua_settop(state, -2);
        found
    };
    found.map(|integer| match integer {
        Integer::Signed(value) => format!("{value}LL"),
        Integer::Unsigned(value) => format!("{value}ULL"),
    })
}

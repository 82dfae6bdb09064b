//! 64-bit integers: cdata that only the FFI library can tell apart and make.
//!
//! The C API does neither, so two Lua functions do, kept where scripts do not reach by accident.
//! They are made when the first such integer passes: opening FFI takes 13 KiB, and most contexts
//! never need it.

use std::ffi::{CStr, c_int};

use mlua::ffi;

use super::stack::Stack;

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

fn make_helpers(lua: Stack<'_>) {
    lua.load_or_raise(HELPERS, c"=[node-lua] int64");
    lua.field(ffi::LUA_REGISTRYINDEX, OPEN_FFI);
    lua.call(1, 2);
    for key in [&raw const MAKE, &raw const TELL] {
        lua.push_address(key.cast_mut().cast());
        lua.insert(-2);
        lua.raw_set(ffi::LUA_REGISTRYINDEX);
    }
}

fn push_helper(lua: Stack<'_>, key: &'static u8) {
    let find = || {
        lua.push_address((&raw const *key).cast_mut().cast());
        lua.raw_get(ffi::LUA_REGISTRYINDEX);
    };
    find();
    if lua.kind(-1) != ffi::LUA_TFUNCTION {
        lua.pop();
        make_helpers(lua);
        find();
    }
}

/// The integer in the cdata on top of the stack; `None` if that is something else.
pub(crate) fn to_integer(lua: Stack<'_>) -> Option<Integer> {
    push_helper(lua, &TELL);
    lua.push_copy(-2);
    lua.call(1, 1);
    let kind = lua.number(-1) as c_int;
    lua.pop();
    if kind != SIGNED && kind != UNSIGNED {
        return None;
    }
    // SAFETY: the helper has found a cdata of eight bytes, which is what `lua_topointer` gives.
    let bits = unsafe { lua.address(-1).cast::<u64>().read_unaligned() };
    Some(if kind == SIGNED { Integer::Signed(bits as i64) } else { Integer::Unsigned(bits) })
}

/// Pushes an integer. May raise.
pub(crate) fn push_integer(lua: Stack<'_>, integer: Integer) {
    let (kind, bits) = match integer {
        Integer::Signed(value) => (SIGNED, value as u64),
        Integer::Unsigned(value) => (UNSIGNED, value),
    };
    push_helper(lua, &MAKE);
    lua.push_number(f64::from(kind));
    lua.call(1, 1);
    // SAFETY: the helper has made a cdata of eight bytes that nobody else has.
    unsafe { lua.address(-1).cast_mut().cast::<u64>().write_unaligned(bits) };
}

/// The integer in the cdata at `index`; `None` if it is something else. May raise.
pub(crate) fn integer_at(lua: Stack<'_>, index: c_int) -> Option<Integer> {
    lua.push_copy(index);
    let found = to_integer(lua);
    lua.pop();
    found
}

/// The same as scripts write it.
pub(crate) fn text_at(lua: Stack<'_>, index: c_int) -> Option<String> {
    integer_at(lua, index).map(|integer| match integer {
        Integer::Signed(value) => format!("{value}LL"),
        Integer::Unsigned(value) => format!("{value}ULL"),
    })
}

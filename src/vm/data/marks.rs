//! Metatables that say what a table is to be written as.

use mlua::ffi;

use crate::vm::kept::Kept;
use crate::vm::stack::Stack;

/// What a table is marked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A list, also if it is empty.
    Array,
    /// Keys and values, whatever the keys are.
    Object,
    /// A list if it is empty.
    EmptyArray,
    /// A value of an application's own type: fields `type` and `data`.
    Extension,
}

const ALL: [Mark; 4] = [Mark::Array, Mark::Object, Mark::EmptyArray, Mark::Extension];

/// Where the registry has one.
fn key_of(mark: Mark) -> i64 {
    let kept = match mark {
        Mark::Array => Kept::Array,
        Mark::Object => Kept::Object,
        Mark::EmptyArray => Kept::EmptyArray,
        Mark::Extension => Kept::Extension,
    };
    kept as i64
}

/// Pushes a mark, which is made when it is first asked for.
pub(crate) fn push_mark(lua: Stack<'_>, mark: Mark) {
    lua.entry(ffi::LUA_REGISTRYINDEX, key_of(mark));
    if lua.kind(-1) != ffi::LUA_TTABLE {
        lua.set_top(-2);
        lua.push_table(0, 0);
        lua.push_copy(-1);
        lua.set_entry(ffi::LUA_REGISTRYINDEX, key_of(mark));
    }
}

/// The addresses of the marks that there are; nothing is allocated.
pub(super) fn addresses(lua: Stack<'_>) -> [u64; ALL.len()] {
    ALL.map(|mark| {
        lua.entry(ffi::LUA_REGISTRYINDEX, key_of(mark));
        let address = lua.address(-1) as u64;
        lua.set_top(-2);
        address
    })
}

/// The mark whose address is that of a metatable.
pub(super) fn find(addresses: [u64; ALL.len()], metatable: u64) -> Option<Mark> {
    addresses.iter().position(|address| *address == metatable).map(|index| ALL[index])
}

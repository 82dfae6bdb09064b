//! 64-bit integers, read where the FFI library keeps them.

use std::sync::OnceLock;

use mlua::ffi;

use crate::vm::int64::Integer;
use crate::vm::layout::{Cdata, POINTER, Slot, tag};
use crate::vm::state::State;

const TAG: i64 = !10;

/// The numbers of `int64_t` and `uint64_t`, which all states have built in.
static TYPES: OnceLock<Option<[u16; 2]>> = OnceLock::new();

/// Looks at one of each, in a state of our own.
fn find_types() -> Option<[u16; 2]> {
    let state = State::new()?;
    let raw = state.as_ptr();
    // SAFETY: a fresh state of ours; what raises is caught. A cdata is as long as what is read, and
    // its content is where `lua_topointer` says.
    unsafe {
        let text = c"return -2LL, 3ULL";
        let status = ffi::luaL_loadbuffer(raw, text.as_ptr(), text.count_bytes(), text.as_ptr());
        if status != ffi::LUA_OK || ffi::lua_pcall(raw, 0, 2, 0) != ffi::LUA_OK {
            return None;
        }
        let look = |index| {
            let content = ffi::lua_topointer(raw, index).cast::<u64>();
            let object = content.byte_sub(size_of::<Cdata>()).cast::<Cdata>();
            (ffi::lua_type(raw, index) == ffi::LUA_TCDATA).then(|| ((*object).of, content.read()))
        };
        match (look(1)?, look(2)?) {
            ((signed, 0xffff_ffff_ffff_fffe), (unsigned, 3)) => Some([signed, unsigned]),
            _ => None,
        }
    }
}

/// The integer in the cdata that a slot refers to; `None` if it is something else.
pub(super) fn integer(slot: Slot) -> Option<Integer> {
    debug_assert_eq!(tag(slot), TAG);
    let [signed, unsigned] = (*TYPES.get_or_init(find_types))?;
    let object = (slot & POINTER) as *const Cdata;
    // SAFETY: a cdata of the state that this thread runs, reached from what is on its stack; those
    // of these types have eight bytes.
    unsafe {
        let content = object.add(1).cast::<u64>();
        match (*object).of {
            of if of == signed => Some(Integer::Signed(content.read() as i64)),
            of if of == unsigned => Some(Integer::Unsigned(content.read())),
            _ => None,
        }
    }
}

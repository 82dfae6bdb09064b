//! Finalisers, `__gc` and those of `ffi.gc`, as LuaJIT calls them: what they raise is reported.
//!
//! LuaJIT drops it, unless somebody listens to its event `errfin`. The linker leads its call here
//! (src/vm/linked.rs).

use std::ffi::c_int;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::stack::{Stack, TABLE};
use super::state::is_ours;
use super::{hook, layout};

pub(crate) const FUNCTIONS: &[(&std::ffi::CStr, lua_CFunction)] =
    &[(c"is_finalising", is_finalising as lua_CFunction)];

/// A bit of LuaJIT's hook mask: a finaliser runs.
const HOOK_GC: u8 = 0x40;

/// native.is_finalising(): whether a finaliser runs.
unsafe extern "C-unwind" fn is_finalising(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, in the state that runs.
    unsafe {
        let mask = (*layout::global(raw)).hook_mask;
        ffi::lua_pushboolean(raw, c_int::from(mask & HOOK_GC != 0));
    }
    1
}

/// Has `report_caught` of the library told of what a finaliser raises, while its frames are there.
/// Returns what the call that LuaJIT was about to make returns, and leaves the same on the stack;
/// `None` if that call is to be made as it is.
///
/// # Safety
/// `raw` must be the coroutine that LuaJIT runs finalisers in, with the finaliser, a free slot and
/// the object on top.
pub unsafe fn call(raw: *mut lua_State) -> Option<c_int> {
    // SAFETY: the coroutine that finalisers run in, with the finaliser and its object on top. All
    // these names are interned, so that nothing is allocated and nothing raises outside of the
    // call.
    unsafe {
        // A state of a module's has nobody to tell.
        if !is_ours(raw) || ffi::lua_checkstack(raw, 4) == 0 {
            return None;
        }
        let top = ffi::lua_gettop(raw);
        if hook::ends_finalisers(Stack::new(raw)) {
            // One of any number, each of which would go on until it is interrupted itself. What is
            // in C may hold something that is not the VM's.
            if ffi::lua_type(raw, top - 2) == ffi::LUA_TFUNCTION
                && ffi::lua_iscfunction(raw, top - 2) == 0
            {
                ffi::lua_settop(raw, top - 3);
                return Some(ffi::LUA_OK);
            }
            hook::arm_from_outside();
        }
        ffi::lua_pushstring(raw, TABLE.as_ptr());
        ffi::lua_rawget(raw, ffi::LUA_REGISTRYINDEX);
        if ffi::lua_type(raw, -1) == ffi::LUA_TTABLE {
            ffi::lua_pushstring(raw, c"report_caught".as_ptr());
            ffi::lua_rawget(raw, -2);
        }
        if ffi::lua_type(raw, -1) != ffi::LUA_TFUNCTION {
            ffi::lua_settop(raw, top);
            return None;
        }
        ffi::lua_replace(raw, top - 1);
        ffi::lua_settop(raw, top);
        ffi::lua_pushvalue(raw, top - 2);
        ffi::lua_insert(raw, top);
        let status = ffi::lua_pcall(raw, 1, 0, top - 1);
        if status == ffi::LUA_OK {
            ffi::lua_settop(raw, top - 3);
        } else {
            ffi::lua_replace(raw, top - 2);
            ffi::lua_settop(raw, top - 2);
        }
        Some(status)
    }
}

//! Hooks of scripts for lines: the library's code has none, which is nothing that a hook could be
//! called for. In plain LuaJIT all Lua code that runs has lines.
//!
//! The linker leads `lua_sethook` and `lua_gethook` here (src/linked.rs).

use std::ffi::c_int;

use mlua::ffi::{self, lua_Debug, lua_Hook, lua_State};

use super::state::account;

/// What is to be set in the place of a hook.
///
/// # Safety
/// `raw` must be a live state that this thread uses.
pub unsafe fn instead(
    raw: *mut lua_State,
    hook: Option<lua_Hook>,
    mask: c_int,
) -> Option<lua_Hook> {
    if mask & ffi::LUA_MASKLINE == 0 || hook.is_none() {
        return hook;
    }
    // SAFETY: a live state of this thread's has an account.
    unsafe { account(raw) }.line_hook.set(hook);
    Some(filter)
}

/// The hook that the script has set, where this one was found.
///
/// # Safety
/// As for [`instead`].
pub unsafe fn behind(raw: *mut lua_State, hook: Option<lua_Hook>) -> Option<lua_Hook> {
    if hook.is_none_or(|set| set as usize != filter as *const () as usize) {
        return hook;
    }
    // SAFETY: only states of ours have this filter as their hook, and they have an account.
    unsafe { account(raw) }.line_hook.get()
}

/// Calls the script's hook, but for lines of what has none.
unsafe extern "C-unwind" fn filter(raw: *mut lua_State, activation: *mut lua_Debug) {
    // SAFETY: called by the VM in a live state with what it tells hooks.
    unsafe {
        if (*activation).event == ffi::LUA_HOOKLINE && (*activation).currentline <= 0 {
            return;
        }
        if let Some(hook) = account(raw).line_hook.get() {
            hook(raw, activation);
        }
    }
}

//! Hooks of scripts for lines, calls and returns: they are not to see the library's code.
//!
//! In plain LuaJIT the functions that are the library's here are C functions: those have no lines
//! and tell no returns, what they call by themselves is not seen, and a line goes on behind a call
//! of one. So the script's hook is called by [`filter`].
//!
//! The linker leads `lua_sethook` and `lua_gethook` here (src/linked.rs).

use std::ffi::c_int;

use mlua::ffi::{self, lua_Debug, lua_Hook, lua_State};

use super::frames::is_hidden;
use super::stack::{Stack, place_of};
use super::state::{account, is_ours};
use super::stock::{Kind, frame};

/// The events that are filtered.
const FILTERED: c_int = ffi::LUA_MASKLINE | ffi::LUA_MASKCALL | ffi::LUA_MASKRET;

/// Calls of the library that are under way and remembered, at most: deeper ones show a line twice.
const CALLS_MAX: usize = 100;

/// Frames of C functions between a script's and the library's that are looked behind.
const C_FRAMES_MAX: c_int = 4;

/// A line that runs in a script's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    coroutine: *mut lua_State,
    frame: c_int,
    line: c_int,
}

/// What the script's hook was told of lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    last: Option<Place>,
    /// Those that have called the library since they were told.
    calling: Vec<Place>,
}

/// What is to be set in the place of a hook.
///
/// # Safety
/// `raw` must be a live state that this thread uses.
pub unsafe fn instead(
    raw: *mut lua_State,
    hook: Option<lua_Hook>,
    mask: c_int,
) -> Option<lua_Hook> {
    // SAFETY: a live state of this thread's; one of ours has an account.
    unsafe {
        if mask & FILTERED == 0 || hook.is_none() || !is_ours(raw) {
            return hook;
        }
        account(raw).line_hook.set(hook);
        account(raw).lines.take();
    }
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

/// Calls the script's hook, but for what it is not to see.
unsafe extern "C-unwind" fn filter(raw: *mut lua_State, activation: *mut lua_Debug) {
    // SAFETY: called by the VM in a live state of ours, with what it tells hooks.
    unsafe {
        let lua = Stack::new(raw);
        let is_seen = match (*activation).event {
            ffi::LUA_HOOKLINE => is_new_line(lua, &*activation),
            ffi::LUA_HOOKCALL => is_call(lua),
            ffi::LUA_HOOKRET => frame(lua, 0).is_none_or(|kind| !kind.is_ours()),
            _ => true,
        };
        if is_seen && let Some(hook) = account(raw).line_hook.get() {
            hook(raw, activation);
        }
    }
}

/// Whether a script sees the call of the function that runs. (What a function of the library ends
/// with calling, in C, is seen: its own frame is gone.)
fn is_call(lua: Stack<'_>) -> bool {
    matches!(frame(lua, 0), Some(Kind::Script) | None) || !is_hidden(lua, 0)
}

/// Whether this is a line of the script's, and not the rest of one that has called the library: the
/// VM begins it anew, since what has run in between was Lua.
fn is_new_line(lua: Stack<'_>, activation: &lua_Debug) -> bool {
    let (coroutine, line) = (lua.raw(), activation.currentline);
    let mut lines = lua.account().lines.borrow_mut();
    if line > 0 {
        let here = Place { coroutine, frame: place_of(activation), line };
        let was_calling = lines.calling.contains(&here);
        // With what errors have left of deeper frames.
        lines.calling.retain(|one| one.coroutine != coroutine || one.frame < here.frame);
        lines.last = Some(here);
        return !was_calling;
    }
    // The library's code has no lines. `pcall` and its like may have called it.
    let is_c = |level: &c_int| frame(lua, *level) == Some(Kind::C);
    let level = (1..C_FRAMES_MAX).find(|level| !is_c(level)).unwrap_or(C_FRAMES_MAX);
    if let Some(caller) = lua.frame(level, c"l") {
        let caller = Place { coroutine, frame: caller.place(), line: caller.line() };
        // Not that of a function in between, which has ended with a call of the library.
        let is_told = lines.last == Some(caller);
        if is_told && lines.calling.len() < CALLS_MAX && !lines.calling.contains(&caller) {
            lines.calling.push(caller);
        }
    }
    false
}

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
use super::{cut, layout};

/// The events that are filtered.
const FILTERED: c_int = ffi::LUA_MASKLINE | ffi::LUA_MASKCALL | ffi::LUA_MASKRET;

/// Calls of the library that are under way and remembered, at most: deeper ones show a line, or a
/// call, twice.
const CALLS_MAX: usize = 100;

/// Frames of C functions between a script's and the library's that are looked behind.
const C_FRAMES_MAX: c_int = 4;

/// The hook that the script has set, and for which events.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// The script's.
    pub hook: lua_Hook,
    /// Its events, some of `LUA_MASKCALL` and the like.
    pub mask: c_int,
}

/// A line that runs in a script's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    coroutine: *mut lua_State,
    frame: c_int,
    line: c_int,
}

/// The frame of a function of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    coroutine: *mut lua_State,
    frame: c_int,
    returns_to: u64,
}

/// What the script's hook was told of lines, and of calls.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: Option<Place>,
    /// Lines that have called the library since they were told.
    calling: Vec<Place>,
    /// Functions of the library that have been called, and have not returned.
    entered: Vec<Call>,
    /// The line in which the turn was cut, until the next one is told there.
    cut: Option<Place>,
    /// The coroutines that events have come from, each resumed by the one before.
    running: Vec<*mut lua_State>,
    /// The hook is about to be called for a function that stands for one of LuaJIT's, for what that
    /// calls, or for one that a coroutine has ended with.
    is_calling: bool,
}

impl Told {
    /// An event has come from this coroutine: those that it had resumed have yielded, or are over.
    /// Behind a `yield` the VM begins the line anew.
    fn note_running(&mut self, coroutine: *mut lua_State) {
        if self.running.last() == Some(&coroutine) {
            return;
        }
        let found = self.running.iter().rposition(|&one| one == coroutine);
        if let Some(at) = found {
            let left = self.running.split_off(at + 1);
            self.calling.retain(|one| !left.contains(&one.coroutine));
        } else if self.running.len() < CALLS_MAX {
            self.running.push(coroutine);
        }
    }

    fn note_calling(&mut self, place: Place) {
        if self.calling.len() < CALLS_MAX && !self.calling.contains(&place) {
            self.calling.push(place);
        }
    }
}

impl Stack<'_> {
    /// Whether the hook is called for such a call; asked once.
    pub(super) fn is_call_told(self) -> bool {
        self.is_ours() && std::mem::take(&mut self.account().told.borrow_mut().is_calling)
    }
}

/// What is to be set in the place of a hook and its events. Who is to be told of calls must know of
/// returns.
///
/// # Safety
/// `raw` must be a live state that this thread uses.
pub unsafe fn instead(
    raw: *mut lua_State,
    hook: Option<lua_Hook>,
    mask: c_int,
) -> (Option<lua_Hook>, c_int) {
    // The hook that cuts stands in for the filter itself.
    let is_theirs = |hook: &lua_Hook| mask & FILTERED != 0 && !cut::is_hook(*hook);
    let Some(wanted) = hook.filter(is_theirs) else { return (hook, mask) };
    // SAFETY: a live state of this thread's; one of ours has an account.
    unsafe {
        if !is_ours(raw) {
            return (hook, mask);
        }
        let before = account(raw).line_hook.replace(Some(Set { hook: wanted, mask }));
        // A hook that makes way for one that cuts the turn comes back as it was.
        let is_same = |set: Set| set.mask == mask && set.hook as usize == wanted as usize;
        if !before.is_some_and(is_same) {
            account(raw).told.take();
        }
    }
    (Some(filter), mask | watched(mask))
}

/// The events that [`filter`] is to be called for, where the script's hook is for those in `mask`.
pub(super) fn watched(mask: c_int) -> c_int {
    let returns = if mask & ffi::LUA_MASKCALL == 0 { 0 } else { ffi::LUA_MASKRET };
    mask & FILTERED | returns
}

/// The hook that the script has set, and its events, where `hook` was found; `None` if it is that.
///
/// # Safety
/// As for [`instead`].
pub unsafe fn behind(raw: *mut lua_State, hook: Option<lua_Hook>) -> Option<Set> {
    hook.filter(|&set| set as usize == filter as *const () as usize)?;
    // SAFETY: only states of ours have this filter as their hook, and they have an account.
    unsafe { account(raw) }.line_hook.get()
}

/// The turn is about to be cut before an instruction, which the VM tells no line of; of the next
/// one it does, as if that began one.
///
/// # Safety
/// `raw` must be the coroutine that runs, in a hook that was called with this for an instruction.
pub(super) unsafe fn before_cut(raw: *mut lua_State, activation: *mut lua_Debug) {
    // SAFETY: a live state of ours, and what the VM tells hooks.
    unsafe {
        if account(raw).line_hook.get().is_none_or(|set| set.mask & ffi::LUA_MASKLINE == 0) {
            return;
        }
        let lua = Stack::new(raw);
        let line = lua.frame(0, c"l").map_or(0, |record| record.line());
        if line <= 0 {
            return;
        }
        let here = Place { coroutine: raw, frame: place_of(&*activation), line };
        if lua.account().told.borrow().last != Some(here) {
            let mut activation = std::ptr::read(activation);
            activation.event = ffi::LUA_HOOKLINE;
            activation.currentline = line;
            filter(raw, &raw mut activation);
        }
        lua.account().told.borrow_mut().cut = Some(here);
    }
}

/// Calls the script's hook, but for what it is not to see.
///
/// # Safety
/// As for hooks.
pub(super) unsafe extern "C-unwind" fn filter(raw: *mut lua_State, activation: *mut lua_Debug) {
    // SAFETY: called by the VM in a live state of ours, with what it tells hooks.
    unsafe {
        let Some(set) = account(raw).line_hook.get() else { return };
        let lua = Stack::new(raw);
        lua.account().told.borrow_mut().note_running(raw);
        let is_seen = match (*activation).event {
            ffi::LUA_HOOKLINE => is_new_line(lua, &*activation, set.mask),
            ffi::LUA_HOOKCALL => is_call(lua, &*activation),
            ffi::LUA_HOOKRET => is_return(lua, &*activation) && set.mask & ffi::LUA_MASKRET != 0,
            _ => true,
        };
        // LuaJIT calls the hook for these, too, though what has called them is not the script's.
        let is_calling = is_seen
            && (*activation).event == ffi::LUA_HOOKCALL
            && (frame(lua, 0).is_some_and(Kind::is_ours) && frame(lua, 1).is_none()
                || (0..2).any(|level| frame(lua, level) == Some(Kind::StandIn)));
        lua.account().told.borrow_mut().is_calling = is_calling;
        if is_seen {
            (set.hook)(raw, activation);
        }
    }
}

/// Whether a script sees the call of the function that runs: not what the library calls, nor what a
/// function of the library ends with calling, which has its frame.
fn is_call(lua: Stack<'_>, activation: &lua_Debug) -> bool {
    let kind = frame(lua, 0);
    // SAFETY: a function was called, and is about to run, in the coroutine that runs.
    let (returns_to, is_in_root) =
        unsafe { (layout::return_address(lua.raw()), cut::is_root(lua.raw())) };
    let here = Call { coroutine: lua.raw(), frame: place_of(activation), returns_to };
    let is_resume = kind == Some(Kind::C) && is_resume(lua);
    let is_continuation = {
        let mut told = lua.account().told.borrow_mut();
        if is_resume && let Some(last) = told.last.filter(|last| last.coroutine == here.coroutine) {
            // The line of who calls it goes on afterwards.
            told.note_calling(last);
        }
        let entered = &mut told.entered;
        let is_continuation = entered.contains(&here);
        // With what errors have left.
        entered.retain(|one| one.coroutine != here.coroutine || one.frame < here.frame);
        if kind.is_some_and(Kind::is_ours) {
            if entered.len() == CALLS_MAX {
                entered.remove(0);
            }
            entered.push(here);
        }
        is_continuation
    };
    let is_roots = is_in_root && kind.is_some_and(Kind::is_ours) && frame(lua, 1).is_none();
    matches!(kind, Some(Kind::Script) | None) || !is_continuation && !is_roots && !is_hidden(lua, 0)
}

/// Whether the function that runs is the VM's `coroutine.resume`.
fn is_resume(lua: Stack<'_>) -> bool {
    let is_there = lua.frame(0, c"f").is_some();
    let is_resume = is_there && lua.account().cut.is_resume(lua.address(-1));
    if is_there {
        lua.pop();
    }
    is_resume
}

/// Whether a script sees the function return that runs.
fn is_return(lua: Stack<'_>, activation: &lua_Debug) -> bool {
    if frame(lua, 0).is_none_or(|kind| !kind.is_ours()) {
        return true;
    }
    // SAFETY: a function runs.
    let shift = layout::arguments_shift(unsafe { layout::return_address(lua.raw()) });
    let (coroutine, place) = (lua.raw(), place_of(activation) - shift);
    let entered = &mut lua.account().told.borrow_mut().entered;
    entered.retain(|one| one.coroutine != coroutine || one.frame < place);
    false
}

/// Whether this is a line of the script's, and not the rest of one that has called the library: the
/// VM begins it anew, since what has run in between was Lua. Where it tells of calls, it does so
/// behind functions in C, too, but for those that resume a coroutine.
fn is_new_line(lua: Stack<'_>, activation: &lua_Debug, mask: c_int) -> bool {
    let (coroutine, line) = (lua.raw(), activation.currentline);
    let mut told = lua.account().told.borrow_mut();
    if line > 0 {
        let here = Place { coroutine, frame: place_of(activation), line };
        let was_cut = told.cut.take_if(|cut| cut.coroutine == coroutine) == Some(here);
        let was_calling = was_cut || told.calling.contains(&here);
        // With what errors have left of deeper frames.
        told.calling.retain(|one| one.coroutine != coroutine || one.frame < here.frame);
        told.last = Some(here);
        return !was_calling;
    }
    if mask & ffi::LUA_MASKCALL != 0 {
        return false;
    }
    // The library's code has no lines. `pcall` and its like may have called it.
    let is_c = |level: &c_int| frame(lua, *level) == Some(Kind::C);
    let level = (1..C_FRAMES_MAX).find(|level| !is_c(level)).unwrap_or(C_FRAMES_MAX);
    if let Some(caller) = lua.frame(level, c"l") {
        let caller = Place { coroutine, frame: caller.place(), line: caller.line() };
        // Not that of a function in between, which has ended with a call of the library.
        if told.last == Some(caller) {
            told.note_calling(caller);
        }
    }
    false
}

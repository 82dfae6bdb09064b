//! Ending what a state runs, whatever it is: a hook that raises, and keeps raising.
//!
//! [`arm`] is called on the thread that runs the state: by the watchdog's signal, or by the
//! allocator. Compiled loops look at the hook too (`LUAJIT_ENABLE_CHECKHOOK`). While it is armed
//! every instruction raises, so that no `pcall` gets anywhere; it is armed again as long as the
//! turn lasts, should a script take it away. What cannot be interrupted is a C function that does
//! not return.

use std::any::Any;
use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Once, OnceLock};

use mlua::ffi::{self, lua_Debug, lua_State};

use super::host::{self, Host};
use super::state::{State, account};
use crate::context::{Context, End};

/// A bit of LuaJIT's hook mask: a hook, a finaliser or an event handler runs.
const HOOK_ACTIVE: u8 = 0x10;

/// A state's hook, as LuaJIT keeps it: function, mask, count.
type Hook = (Option<ffi::lua_Hook>, c_int, c_int);

thread_local! {
    /// The hook that the state had before [`stand_still`] took its place.
    static BEFORE: Cell<Option<(*mut lua_State, Hook)>> = const { Cell::new(None) };
    /// The state that this thread runs.
    static RUNNING: Cell<*mut lua_State> = const { Cell::new(std::ptr::null_mut()) };
    /// What the script was doing when the hook was first called in this turn.
    static CAUGHT: Cell<Option<(*mut lua_State, String)>> = const { Cell::new(None) };
}

/// Where LuaJIT's global state keeps things that no function of its API gives access to, found out
/// by looking for known values in a state of our own.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// From the state to its hook mask.
    hook_mask: usize,
    /// From the state to the coroutine that runs.
    current: usize,
}

static LAYOUT: OnceLock<Option<Layout>> = OnceLock::new();

/// Bytes of a state that are searched: the main coroutine and the global state come first.
const SEARCHED: usize = 1024;

/// Has panics in the turn of a context logged without the backtrace that may be asked for: where
/// machine code of scripts is on the stack, unwinding it for one aborts the process.
fn set_panic_hook() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match host::is_entered() {
            true => log::error!("{panic}"),
            false => usual(panic),
        }));
    });
}

/// Prepares what [`arm`] needs; to be called before any context runs.
pub fn init() {
    set_panic_hook();
    LAYOUT.get_or_init(|| State::new().and_then(|state| find_layout(&state)));
    crate::context::set_interrupt(arm);
    crate::context::set_ask_pause(arm_pause);
    crate::thread::on_give_back(super::slots::trim);
}

/// Makes `raw` the state that this thread runs, null for none; returns the one before.
pub(super) fn set_running(raw: *mut lua_State) -> *mut lua_State {
    RUNNING.replace(raw)
}

/// The state that this thread runs; null if none.
#[inline]
pub(super) fn running() -> *mut lua_State {
    RUNNING.get()
}

/// Forgets the state that this thread runs if it is this one: its memory is given back.
#[cold]
pub(super) fn forget(raw: *mut lua_State) {
    if RUNNING.get() == raw {
        RUNNING.set(std::ptr::null_mut());
    }
}

/// Takes what the script of this state was doing when it was interrupted.
pub(super) fn take_caught(raw: *mut lua_State) -> Option<String> {
    CAUGHT.take().and_then(|(of, text)| (of == raw && !text.is_empty()).then_some(text))
}

/// Interrupts what runs on this thread. Async-signal-safe.
pub(super) fn arm() {
    let raw = RUNNING.get();
    if raw.is_null() {
        return;
    }
    // SAFETY: the state is alive, and used by this thread: LuaJIT allows the hook to be set at any
    // time, from a signal handler too.
    unsafe { ffi::lua_sethook(raw, Some(hook), ffi::LUA_MASKCOUNT, 1) };
    if let Some(Some(layout)) = LAYOUT.get() {
        // SAFETY: a byte of the live state, see `find_layout`. Hooks, finalisers and event handlers
        // run with hooks switched off: they are interrupted too.
        unsafe {
            let mask = raw.cast::<u8>().add(layout.hook_mask);
            mask.write_volatile(mask.read_volatile() & !HOOK_ACTIVE);
        }
    }
}

/// Has what runs on this thread stand still, between two instructions of a script, as long as the
/// watchdog wants. Async-signal-safe.
fn arm_pause() {
    let raw = RUNNING.get();
    if raw.is_null() {
        return;
    }
    // SAFETY: the state is alive, and used by this thread.
    let before =
        unsafe { (ffi::lua_gethook(raw), ffi::lua_gethookmask(raw), ffi::lua_gethookcount(raw)) };
    let function = before.0.filter(|_| before.1 != 0).map_or(0, |function| function as usize);
    // One that raises goes first.
    if function != hook as *const () as usize && function != stand_still as *const () as usize {
        BEFORE.set(Some((raw, before)));
        // SAFETY: as in `arm`. Hooks, finalisers and event handlers are left to go on.
        unsafe { ffi::lua_sethook(raw, Some(stand_still), ffi::LUA_MASKCOUNT, 1) };
    }
}

/// The hook that stands still. Whatever hook there was is in its place again before that.
unsafe extern "C-unwind" fn stand_still(raw: *mut lua_State, _activation: *mut lua_Debug) {
    let (function, mask, count) = match BEFORE.take() {
        Some((of, before)) if of == RUNNING.get() => before,
        _ => (None, 0, 0),
    };
    // SAFETY: called by the VM between two instructions; the hook was that of this state.
    unsafe { ffi::lua_sethook(raw, function, mask, count) };
    crate::context::pause();
}

/// Has the state that this thread runs collect its garbage as soon as that is possible.
pub(super) fn arm_collection() {
    let raw = RUNNING.get();
    if !raw.is_null() {
        // SAFETY: as in `arm`.
        unsafe { ffi::lua_sethook(raw, Some(collect), ffi::LUA_MASKCOUNT, 1) };
    }
}

/// The hook that collects, once.
unsafe extern "C-unwind" fn collect(raw: *mut lua_State, _activation: *mut lua_Debug) {
    // SAFETY: called by the VM between two instructions.
    unsafe {
        ffi::lua_sethook(raw, None, 0, 0);
        ffi::lua_gc(raw, ffi::LUA_GCCOLLECT, 0);
        account(raw).on_collected();
    }
}

/// The coroutine that this thread runs, if that can be known.
pub(super) fn current() -> Option<*mut lua_State> {
    let raw = RUNNING.get();
    let layout = (*LAYOUT.get()?)?;
    if raw.is_null() {
        return None;
    }
    // SAFETY: a pointer inside the live state, see `find_layout`.
    Some(unsafe { raw.cast::<u8>().add(layout.current).cast::<*mut lua_State>().read() })
}

/// Ends a context in which the runtime itself has failed, once it executes an instruction.
#[cold]
pub(super) fn doom(context: &Arc<Context>, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    let text = format!("the runtime failed: {text}");
    log::error!("context {}: {text}; it ends", context.id());
    context.destroy(End::Error(text.into()));
    arm();
}

/// As [`host::with`], for functions that the machine code of scripts calls, which no Lua error may
/// pass through: should `body` panic, there is no result, and the context ends once the function
/// has returned.
#[inline]
pub(super) fn attempt<R>(body: impl FnOnce(&mut Host) -> R) -> Option<R> {
    host::with(|host| match catch_unwind(AssertUnwindSafe(|| body(host))) {
        Ok(result) => Some(result),
        Err(panic) => {
            doom(&host.context, &*panic);
            None
        }
    })
}

/// Ends one in whose native function that was: raises.
#[cold]
pub(super) fn fail(context: &Arc<Context>, panic: Box<dyn Any + Send>) -> ! {
    doom(context, &*panic);
    let Some(raw) = current() else { resume_unwind(panic) };
    drop(panic);
    // SAFETY: the coroutine that has called the native function, which nothing of ours is live in
    // but what unwinding drops.
    unsafe {
        ffi::lua_pushlstring(raw, INTERRUPTED.as_ptr(), INTERRUPTED.count_bytes());
        ffi::lua_error(raw)
    }
}

/// The hook: says where, once, and raises.
unsafe extern "C-unwind" fn hook(raw: *mut lua_State, _activation: *mut lua_Debug) {
    let running = RUNNING.get();
    let caught = CAUGHT.take().filter(|(of, _)| *of == running);
    let is_first = caught.is_none();
    CAUGHT.set(caught.or(Some((running, String::new()))));
    // SAFETY: called by the VM between two instructions, with stack slots free.
    unsafe {
        if is_first {
            // May raise for want of memory: then there is no traceback.
            luaL_traceback(raw, raw, std::ptr::null(), 0);
            let text = ffi::lua_tostring(raw, -1);
            if !text.is_null() {
                let text = CStr::from_ptr(text).to_string_lossy().into_owned();
                CAUGHT.set(Some((running, text)));
            }
        }
        ffi::lua_pushlstring(raw, INTERRUPTED.as_ptr(), INTERRUPTED.count_bytes());
        ffi::lua_error(raw);
    }
}

/// What is raised.
const INTERRUPTED: &CStr = c"interrupted: the context ends";

unsafe extern "C-unwind" {
    /// LuaJIT's own, of which mlua has a replacement.
    fn luaL_traceback(
        raw: *mut lua_State,
        of: *mut lua_State,
        message: *const std::ffi::c_char,
        level: c_int,
    );
}

/// A hook that does nothing, of which only the address matters.
unsafe extern "C-unwind" fn nothing(_raw: *mut lua_State, _activation: *mut lua_Debug) {}

thread_local! {
    static FOUND: Cell<Option<usize>> = const { Cell::new(None) };
}

fn find_layout(state: &State) -> Option<Layout> {
    let raw = state.as_ptr();
    let bytes = |offset: usize| {
        // SAFETY: a state is larger than what is searched (checked by the test below: LuaJIT's
        // dispatch table alone, allocated with it, takes more).
        unsafe { raw.cast::<u8>().add(offset).read_volatile() }
    };
    let masks = [0, ffi::LUA_MASKCOUNT, ffi::LUA_MASKLINE, ffi::LUA_MASKCALL | ffi::LUA_MASKRET];
    let mut places: Vec<usize> = (0..SEARCHED).collect();
    for mask in masks {
        // SAFETY: our own state, which is not running.
        unsafe { ffi::lua_sethook(raw, Some(nothing), mask, 1) };
        places.retain(|&offset| c_int::from(bytes(offset)) == mask);
    }
    // SAFETY: as above.
    unsafe { ffi::lua_sethook(raw, None, 0, 0) };
    let &[hook_mask] = places.as_slice() else { return None };
    FOUND.set(None);
    // SAFETY: as above; want of memory is caught.
    let status = unsafe { ffi::lua_cpcall(raw, start_find_current, std::ptr::null_mut()) };
    let current = (status == ffi::LUA_OK).then(|| FOUND.take()).flatten()?;
    Some(Layout { hook_mask, current })
}

/// Calls `find_current` in a coroutine, which is where it looks for itself.
unsafe extern "C-unwind" fn start_find_current(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, on the main coroutine of `find_layout`'s state.
    unsafe {
        let thread = ffi::lua_newthread(raw);
        ffi::lua_pushlightuserdata(thread, raw.cast());
        ffi::lua_pushcclosure(thread, find_current, 1);
        // What it has found is what counts.
        ffi::lua_resume_(thread, 0);
    }
    0
}

/// Finds where the main state, its upvalue, refers to the coroutine that this is called in.
unsafe extern "C-unwind" fn find_current(thread: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the upvalue is the state of `find_layout`, of which as many bytes
    // as there are searched.
    unsafe {
        let raw = ffi::lua_touserdata(thread, ffi::lua_upvalueindex(1)).cast::<*mut lua_State>();
        let words = SEARCHED / size_of::<*mut lua_State>();
        let mut places = (0..words).filter(|&word| raw.add(word).read_volatile() == thread);
        let place = places.next().filter(|_| places.next().is_none());
        FOUND.set(place.map(|word| word * size_of::<*mut lua_State>()));
    }
    0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_states_is_found() {
        let state = State::new().unwrap();
        assert!(find_layout(&state).is_some());
        assert!(state.account().lua_bytes() > 2 * SEARCHED);
    }
}

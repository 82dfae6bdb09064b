//! Ending what a state runs, whatever it is: a hook that raises, and keeps raising.
//!
//! [`arm`] is called on the thread that runs the state: by the watchdog's signal, or by the
//! allocator. Compiled loops look at the hook too (`LUAJIT_ENABLE_CHECKHOOK`). While it is armed
//! every instruction raises, so that no `pcall` gets anywhere; it is armed again as long as the
//! turn lasts, should a script take it away. What cannot be interrupted is a C function that does
//! not return.
//!
//! Setting a hook ends what LuaJIT's trace compiler is recording, which it must not do at any
//! moment: in between two steps of the compiler that leaves half a trace, and the process crashes
//! later. So whoever comes from a signal, or from an allocation, which may be the compiler's own,
//! looks at the compiler first, and leaves the hook alone unless it is idle; the watchdog asks
//! again soon. A signal may also come in the middle of a change of the hook: [`set_undisturbed`]
//! keeps it off while we or the script make one (src/vm/linked.rs); one that the end of a recording
//! makes is mended by taking the hook away before it is set, which has LuaJIT fill its tables
//! again.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::sync::atomic::{Ordering, compiler_fence};

use mlua::ffi::{self, lua_CFunction, lua_Debug, lua_State};

use super::stack::Stack;
use super::state::Account;
use super::stock::{Kind, frame};
use super::traceback::{hide_bottom, traceback};
use super::{cut, layout};
use crate::os::thread;

/// A bit of LuaJIT's hook mask: a hook, a finaliser or an event handler runs.
const HOOK_ACTIVE: u8 = 0x10;
/// With those that tell an event handler or a finaliser from a hook.
const HOOK_KINDS: u8 = 0x70;

thread_local! {
    /// The state that this thread runs.
    static RUNNING: Cell<*mut lua_State> = const { Cell::new(std::ptr::null_mut()) };
    /// What the script was doing when the hook was first called in this turn.
    static CAUGHT: Cell<Option<(*mut lua_State, String)>> = const { Cell::new(None) };
    /// This thread is changing a hook: signals leave it alone.
    static IS_SETTING: Cell<bool> = const { Cell::new(false) };
}

/// Whether what the state runs is being ended, or the finalisers of one that is being closed, which
/// had their time: each that is called would raise at its first instruction. To be called from a
/// function that the VM has called: where it was asked for the compiler may have been in the way,
/// and stays there until some Lua runs.
pub(super) fn ends_finalisers(lua: Stack<'_>) -> bool {
    if crate::sched::is_interrupted() {
        arm();
    }
    lua.is_armed()
}

/// A state that runs nothing is about to be closed: what has interrupted its turn is not to
/// interrupt finalisers.
pub(super) fn disarm(lua: Stack<'_>) {
    if lua.is_armed() {
        // SAFETY: a live state of this thread's, between two calls.
        unsafe { set_hook(lua.raw(), None, 0, 0) };
    }
}

/// Prepares what [`arm`] needs; to be called before any context runs.
pub fn init() {
    crate::sched::set_interrupt(arm_from_outside);
    crate::sched::set_cut(cut::arm);
    crate::os::memory::on_give_back(super::memory::slots::trim);
    crate::os::stdio::on_file(|is_more| {
        with_current(|lua| lua.count_file(is_more)).unwrap_or(true)
    });
    crate::os::stdio::on_read(|| {
        with_current(|lua| lua.end_if_interrupted());
    });
    crate::os::stdio::on_wait(crate::sched::is_interrupted);
}

/// Makes `raw` the state that this thread runs, null for none; returns the one before.
pub(crate) fn set_running(raw: *mut lua_State) -> *mut lua_State {
    RUNNING.replace(raw)
}

/// The state that this thread runs; null if none.
#[inline]
pub(crate) fn running() -> *mut lua_State {
    RUNNING.get()
}

/// Calls `body` with the account of the state that this thread runs, if it runs one.
#[inline]
pub(crate) fn with_account<R>(body: impl FnOnce(&Account) -> R) -> Option<R> {
    with_current(|lua| body(lua.account()))
}

/// Calls `body` with the stack of the coroutine that this thread runs, if it runs one: of the
/// function in C that this one has called.
pub(crate) fn with_current<R>(body: impl FnOnce(Stack<'_>) -> R) -> Option<R> {
    let raw = RUNNING.get();
    // SAFETY: what runs is alive, and so is the coroutine, with the slots that a function has.
    (!raw.is_null()).then(|| body(unsafe { Stack::new((*layout::global(raw)).current) }))
}

/// Raises, in the coroutine that runs, what interruptions raise.
///
/// # Panics
/// If none runs.
pub(crate) fn raise_interrupted() -> ! {
    with_current(|lua| lua.raise_interrupted()).expect("a coroutine runs")
}

/// Forgets the state that this thread runs if it is this one: its memory is given back.
#[cold]
pub(crate) fn forget(raw: *mut lua_State) {
    if RUNNING.get() == raw {
        RUNNING.set(std::ptr::null_mut());
    }
}

/// Takes what the script of this state was doing when it was interrupted.
pub(crate) fn take_caught(raw: *mut lua_State) -> Option<String> {
    CAUGHT.take().and_then(|(of, text)| (of == raw && !text.is_empty()).then_some(text))
}

/// Whether a hook may be set from wherever the VM may be: in a signal handler, in an allocation.
pub(crate) fn may_set(raw: *mut lua_State) -> bool {
    // SAFETY: this thread runs the state, which is alive.
    let compiler = || unsafe { (&raw const (*layout::global(raw)).compiler_state).read_volatile() };
    !IS_SETTING.get() && compiler() == 0
}

/// Sets the hook of the running state, from the very beginning: see above.
///
/// # Safety
/// `raw` must be alive and used by this thread, which is where a hook may be set: in a function of
/// ours that the VM has called, or where [`may_set`] says so.
pub(crate) unsafe fn set_hook(
    raw: *mut lua_State,
    hook: Option<ffi::lua_Hook>,
    mask: c_int,
    count: c_int,
) {
    // SAFETY: a live state of this thread's, whose hook may be set now.
    set_undisturbed(|| unsafe {
        ffi::lua_sethook(raw, None, 0, 0);
        ffi::lua_sethook(raw, hook, mask, count);
    });
}

/// Calls `body`, which changes what hooks a state of this thread has, with signals kept off; not if
/// this is a signal's handler that has come while the thread changes a hook.
pub(crate) fn undisturbed(body: impl FnOnce()) {
    if !IS_SETTING.get() {
        set_undisturbed(body);
    }
}

/// Calls `body`, which is about to change a hook, with signals kept off: one that found the change
/// half made would take that for the hook there was before.
#[inline]
pub fn set_undisturbed<R>(body: impl FnOnce() -> R) -> R {
    let before = IS_SETTING.replace(true);
    compiler_fence(Ordering::SeqCst);
    let result = body();
    compiler_fence(Ordering::SeqCst);
    IS_SETTING.set(before);
    result
}

/// Has this thread stay inside of the hook that the VM has called, which is about to yield, until
/// [`yielded`]: to the VM a yield outside of one is another. False if the context ends, for which
/// the hook has been left; then it is not to yield.
pub(crate) fn keep_inside(raw: *mut lua_State) -> bool {
    IS_SETTING.set(true);
    compiler_fence(Ordering::SeqCst);
    // SAFETY: a live state, which this thread runs.
    let mask = unsafe { (&raw const (*layout::global(raw)).hook_mask).read_volatile() };
    let is_inside = mask & HOOK_ACTIVE != 0;
    IS_SETTING.set(is_inside);
    is_inside
}

/// The hook has yielded, or nothing has: signals may set hooks again.
#[inline]
pub(super) fn yielded() {
    IS_SETTING.set(false);
}

/// Whether this is the address of the hook that raises.
pub(crate) fn is_hook(address: usize) -> bool {
    address == hook as *const () as usize
}

/// Interrupts what runs on this thread. Only where the VM has called a function of ours.
pub(crate) fn arm() {
    let raw = RUNNING.get();
    if raw.is_null() {
        return;
    }
    // SAFETY: the state is alive, and used by this thread. Hooks, finalisers and event handlers run
    // with hooks switched off: they are interrupted too.
    unsafe {
        set_hook(raw, Some(hook), ffi::LUA_MASKCOUNT, 1);
        let mask = &raw mut (*layout::global(raw)).hook_mask;
        mask.write_volatile(mask.read_volatile() & !HOOK_ACTIVE);
    }
}

/// The same, from a signal handler or an allocation; false if it cannot be done now.
/// Async-signal-safe.
pub(crate) fn arm_from_outside() -> bool {
    let raw = RUNNING.get();
    if !raw.is_null() && !may_set(raw) {
        return false;
    }
    arm();
    true
}

/// Has the coroutine that runs call `collect`, which collects garbage, in the C function that it
/// has called; whether nothing was raised. `None` if there is none.
pub(crate) fn collect_now(collect: lua_CFunction) -> Option<bool> {
    with_current(|lua| {
        let is_done = lua.call_c_protected(collect) == ffi::LUA_OK;
        if !is_done {
            lua.pop();
        }
        is_done
    })
}

/// Values after which who goes through many looks whether the context is to end.
const VALUES_PER_LOOK: u32 = 1024;

impl Stack<'_> {
    fn raise_interrupted(self) -> ! {
        self.push_text(INTERRUPTED.to_bytes());
        self.raise_top()
    }

    /// Raises if the context ends, for a function in C that runs long.
    #[inline]
    pub fn look(self) {
        if self.is_armed() {
            // SAFETY: the coroutine that has called; raising unwinds what is live in it.
            unsafe { hook(self.raw(), std::ptr::null_mut()) };
        }
    }

    /// The same for one that has waited, and found that what the thread runs is to end, which may
    /// have been asked for where no hook could be set.
    pub(crate) fn end_if_interrupted(self) {
        if crate::sched::is_interrupted() {
            arm();
        }
        self.look();
    }

    /// Whether the hook of the state is ours.
    #[inline]
    fn is_armed(self) -> bool {
        // SAFETY: a live state of this thread's.
        unsafe { ffi::lua_gethook(self.raw()) }.is_some_and(|set| is_hook(set as usize))
    }

    /// Whether this call, from C, is of a script's hook, for what the library does by itself:
    /// nobody is there to catch what it raises, and nothing of it is the script's affair.
    #[inline]
    pub fn is_hook_inside(self) -> bool {
        // SAFETY: a coroutine that runs, of a live state.
        let mask = unsafe { (*layout::global(self.raw())).hook_mask };
        // What the script has called of the library is its affair.
        if mask & HOOK_KINDS != HOOK_ACTIVE
            || self.is_call_told()
            || frame(self, 0) == Some(Kind::Script)
        {
            return false;
        }
        let mut level = 1;
        while frame(self, level) == Some(Kind::C) {
            level += 1;
        }
        frame(self, level) != Some(Kind::Script)
    }

    /// Raises if C functions call each other deeper than the state may have them.
    #[cold]
    pub fn check_depth(self) {
        let most = if self.is_ours() { stack_max(self.account()) } else { usize::MAX };
        if !thread::may_nest(most) {
            self.place_and_raise(c"C stack overflow");
        }
    }

    /// Raises if the context ends, now and then: counts what is left until it looks again.
    #[inline]
    pub(crate) fn tick(self, left: &mut u32) {
        if *left == 0 {
            *left = VALUES_PER_LOOK;
            self.look();
        }
        *left -= 1;
    }
}

/// What functions in C may use of the stack, calling each other, as a part of the limit, and at
/// most. It is not counted with the rest: what is let go there goes when the turn ends.
const STACK_PART: usize = 4;
const STACK_BYTES: usize = 8 << 20;

/// Bytes of the C stack that a turn of the state may use.
pub(crate) fn stack_max(account: &Account) -> usize {
    account.limit().map_or(usize::MAX, |limit| (limit / STACK_PART).min(STACK_BYTES))
}

/// The hook: says where, once, and raises.
unsafe extern "C-unwind" fn hook(raw: *mut lua_State, _activation: *mut lua_Debug) {
    let running = RUNNING.get();
    let caught = CAUGHT.take().filter(|(of, _)| *of == running);
    let is_first = caught.is_none();
    CAUGHT.set(caught.or(Some((running, String::new()))));
    // SAFETY: called by the VM between two instructions, with stack slots free.
    let lua = unsafe { Stack::new(raw) };
    if is_first {
        let mut text = Vec::new();
        traceback(lua, lua, 0, &mut text);
        hide_bottom(&mut text);
        CAUGHT.set(Some((running, String::from_utf8_lossy(&text).into_owned())));
    }
    // A `pcall` that was called where hooks are off, by a finaliser or a handler, leaves them off
    // when it has caught what is raised: this hook would be called on one level alone.
    // SAFETY: this thread runs the state, which is alive.
    unsafe { (*layout::global(raw)).hook_mask &= !HOOK_ACTIVE };
    lua.raise_interrupted();
}

/// What is raised.
pub(crate) const INTERRUPTED: &CStr = c"interrupted: the context ends";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::time::{Duration, Instant};

    use super::super::state::State;
    use super::*;
    use crate::os::signal;

    /// Keeps the trace compiler busy; every answer is checked.
    const BUSY: &str = concat!(
        "local program = (function() ",
        include_str!("../../tests/lua/support/traces.lua"),
        " end)()
        jit.opt.start('hotloop=1', 'hotexit=1', 'minstitch=1', 'maxtrace=50')
        local is_over = ...
        local known, k = {}, 0
        while not is_over() do
          k = k % 50 + 1
          local f = program(k - 1)
          for r = 1, 8 do
            local a = f()
            known[k] = known[k] or a
            assert(known[k] == a)
          end
        end"
    );

    /// Signals that found the hook free to be set, and all.
    static SET: AtomicUsize = AtomicUsize::new(0);
    static SENT: AtomicUsize = AtomicUsize::new(0);
    static IS_OVER: AtomicBool = AtomicBool::new(false);

    extern "C" fn on_signal(_signal: c_int) {
        SET.fetch_add(usize::from(cut::arm()), Ordering::Relaxed);
    }

    fn is_over(_: Stack<'_>) -> bool {
        IS_OVER.load(Ordering::Relaxed)
    }

    /// Thousands of signals a second, as no watchdog sends them. A hook that is set at any moment
    /// makes this crash within a second, mostly.
    #[test]
    fn signals_at_any_moment_leave_the_trace_compiler_whole() {
        signal::handle(libc::SIGUSR2, on_signal);
        let state = State::new().unwrap();
        let raw = state.as_ptr();
        let thread = thread::Handle::current();
        set_running(raw);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let end = Instant::now() + Duration::from_secs(2);
                while Instant::now() < end {
                    thread.send(libc::SIGUSR2);
                    SENT.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_micros(50));
                }
                IS_OVER.store(true, Ordering::Relaxed);
            });
            let lua = state.stack();
            assert_eq!(lua.load_plain(BUSY.as_bytes(), c"=busy"), ffi::LUA_OK);
            lua.push_function(crate::vm::stack::function(is_over));
            let status = lua.protected_call(1, 0, 0);
            assert_eq!(status, ffi::LUA_OK, "{:?}", lua.text(-1).map(String::from_utf8_lossy));
        });
        set_running(std::ptr::null_mut());
        let (set, sent) = (SET.load(Ordering::Relaxed), SENT.load(Ordering::Relaxed));
        assert!(set > 0 && set < sent, "{set} of {sent}: the compiler is idle at times only");
    }
}

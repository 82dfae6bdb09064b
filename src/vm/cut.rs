//! Cutting turns: what a context runs is left between two instructions of its script, and goes on
//! there later, on whatever thread.
//!
//! [`arm`] sets a hook, which the VM calls before the next instruction, in compiled loops too. The
//! hook yields in the coroutine that it finds running. Who has resumed that one hands the yield on
//! upward (lua/core/dispatch.lua and coroutine.lua), up to the driver, the coroutine that Rust
//! resumes. So a turn can be left only where nothing else is on the way: not inside of a C function
//! that calls back (a comparator of `table.sort`, a finaliser), nor in a coroutine that C code has
//! resumed. The hook looks at the whole way first; where it cannot be taken, it is refused.
//!
//! Between a cut and its end nothing of the context runs, finalisers neither: the library counts on
//! what it has looked at an instruction ago. So nothing is done meanwhile that allocates in the VM.
//!
//! The hook that was there before, a script's own, is told of lines, calls and returns meanwhile.
//! It is put back before anything else happens, with what was left of its count. The same hook
//! serves for a collection that an allocation asks for.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

use mlua::ffi::{self, lua_CFunction, lua_Debug, lua_Hook, lua_State};

use super::coroutine::vm_yield;
use super::hook::{self, may_set, set_hook};
use super::layout;
use super::line_hook;
use super::stack::Stack;
use super::state::account;
use super::stock::{Kind, frame};
use super::traceback::{hide_bottom, traceback};
use crate::hint::rarely;
use crate::os::errno::{errno, set_errno};
use crate::rt;

pub(crate) const FUNCTIONS: &[(&std::ffi::CStr, lua_CFunction)] =
    &[(c"prepare_cuts", prepare as lua_CFunction)];

unsafe extern "C-unwind" {
    /// LuaJIT's, which mlua does not declare.
    fn lua_isyieldable(raw: *mut lua_State) -> c_int;
}

/// A hook, as LuaJIT keeps it.
#[derive(Clone, Copy, Debug, Default)]
struct Hook {
    function: Option<lua_Hook>,
    mask: c_int,
    count: c_int,
    /// Instructions until it is called.
    left: c_int,
}

/// What is kept with a state to cut its turns.
#[derive(Debug)]
pub(crate) struct Cut {
    driver: Cell<*mut lua_State>,
    /// What the library resumes coroutines with.
    resume: Cell<*const c_void>,
    /// The table whose first field tells the library of a cut, in the registry.
    flag: Cell<c_int>,
    /// The function that returns the root that runs, likewise.
    root: Cell<c_int>,
    /// The hook that ours has taken the place of, while that is set.
    before: Cell<Option<Hook>>,
    /// What ours is to do.
    is_wanted: Cell<bool>,
    wants_collection: Cell<bool>,
    /// The root that runs a statement of the prompt, if it does.
    statement: Cell<*mut lua_State>,
    /// The script's `errno`, and the coroutine that ran, while the turn is cut.
    errno: Cell<c_int>,
    at: Cell<*mut lua_State>,
}

impl Default for Cut {
    fn default() -> Cut {
        Cut {
            driver: Cell::new(std::ptr::null_mut()),
            resume: Cell::new(std::ptr::null()),
            flag: Cell::new(0),
            root: Cell::new(0),
            before: Cell::new(None),
            is_wanted: Cell::new(false),
            wants_collection: Cell::new(false),
            statement: Cell::new(std::ptr::null_mut()),
            errno: Cell::new(0),
            at: Cell::new(std::ptr::null_mut()),
        }
    }
}

impl Cut {
    /// Whether this is what the library resumes coroutines with.
    pub(super) fn is_resume(&self, function: *const c_void) -> bool {
        self.resume.get() == function
    }

    /// The coroutine that Rust resumes.
    pub(crate) fn driver(&self) -> *mut lua_State {
        self.driver.get()
    }

    /// What is done right before the driver of `raw`, which this thread runs, is resumed.
    pub(crate) fn begin(&self, raw: *mut lua_State) {
        if rarely(!self.at.replace(std::ptr::null_mut()).is_null()) {
            set_errno(self.errno.get());
        }
        if rarely(self.breaks_off()) {
            // SAFETY: the state is alive, and at rest.
            unsafe { self.set(raw, 1) };
        }
        if rt::is_simulated()
            && let Some(instructions) = rt::cut_after()
            // SAFETY: the state is alive, and at rest. A script's hook would miss all these.
            && unsafe { ffi::lua_gethookmask(raw) } & ffi::LUA_MASKCOUNT == 0
        {
            self.is_wanted.set(true);
            // SAFETY: the state is alive, and at rest, where its hook may be set.
            unsafe { self.set(raw, instructions) };
        }
    }

    /// Whether a statement of the prompt is to be broken off here.
    #[inline]
    fn breaks_off(&self) -> bool {
        !self.statement.get().is_null() && crate::sched::is_statement_broken()
    }

    /// Sets the root that runs a statement of the prompt; null for none.
    pub(crate) fn set_statement(&self, root: *mut lua_State) {
        self.statement.set(root);
    }

    /// What is done once it has come back, where no signal asks for a cut any more.
    #[inline]
    pub(crate) fn finish(&self, raw: *mut lua_State) {
        if rarely(self.before.get().is_some()) {
            self.is_wanted.set(false);
            // SAFETY: the state is alive, and at rest.
            unsafe { self.restore(raw) };
        }
    }

    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        !self.at.get().is_null()
    }

    /// What the script was doing when its turn was cut, if it is.
    pub(crate) fn traceback(&self) -> Option<String> {
        let (at, mut text) = (self.at.get(), Vec::new());
        if at.is_null() {
            return None;
        }
        // SAFETY: a coroutine of the state, which is alive: those that are cut stay so. Nobody else
        // uses the state: what refers to it is this thread's.
        let lua = unsafe { Stack::new(at) };
        traceback(lua, lua, 0, &mut text);
        hide_bottom(&mut text);
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// Sets our hook in the place of what is there, if that may be.
    ///
    /// # Safety
    /// As for [`set_hook`].
    unsafe fn set(&self, raw: *mut lua_State, instructions: c_int) {
        // SAFETY: a live state of this thread's.
        let (function, mask, count, left) = unsafe {
            let count = ffi::lua_gethookcount(raw);
            let left = (*layout::global(raw)).hook_count;
            (ffi::lua_gethook(raw), ffi::lua_gethookmask(raw), count, left)
        };
        let address = function.filter(|_| mask != 0).map_or(0, |function| function as usize);
        if hook::is_hook(address) {
            return;
        }
        if address != hook as *const () as usize {
            // Between counting down to 0 and calling the hook a signal may come: the call is due,
            // which the VM would not notice of a count that is 0 before the next instruction.
            let is_due = left == 0 && mask & ffi::LUA_MASKCOUNT != 0;
            let left = if is_due { 1 } else { left };
            self.before.set(Some(Hook { function, mask, count, left }));
        }
        let watched = line_hook::watched(self.before.get().map_or(0, |before| before.mask));
        // SAFETY: a hook may be set now, which is what the callers have made sure of.
        unsafe { set_hook(raw, Some(hook), ffi::LUA_MASKCOUNT | watched, instructions) };
    }

    /// Puts back what was there before, if the hook is ours still.
    ///
    /// # Safety
    /// As for [`set_hook`].
    unsafe fn restore(&self, raw: *mut lua_State) {
        hook::undisturbed(|| {
            let before = self.before.take().unwrap_or_default();
            // SAFETY: a hook may be set now; the hook was that of this state.
            unsafe {
                if ffi::lua_gethook(raw).map(|function| function as usize)
                    != Some(hook as *const () as usize)
                {
                    return;
                }
                ffi::lua_sethook(raw, None, 0, 0);
                ffi::lua_sethook(raw, before.function, before.mask, before.count);
                (*layout::global(raw)).hook_count = before.left;
            }
        });
    }
}

/// Has the turn that runs on this thread cut before its next instruction; false if that cannot be
/// asked for now. Async-signal-safe.
pub(crate) fn arm() -> bool {
    let raw = hook::running();
    if raw.is_null() {
        return true;
    }
    if !may_set(raw) {
        return false;
    }
    // SAFETY: the state is alive, used by this thread, and its hook may be set.
    unsafe {
        let cut = &account(raw).cut;
        cut.is_wanted.set(true);
        cut.set(raw, 1);
    }
    true
}

/// Calls `look`, which tells scripts what hook is set, while ours is in the place of none.
pub(crate) fn uncovered(lua: Stack<'_>, look: impl Fn() -> c_int) -> c_int {
    let (raw, top) = (lua.raw(), lua.top());
    if !may_set(raw) {
        return look();
    }
    let (cut, mut left) = (&lua.account().cut, None);
    // SAFETY: the state is alive, used by this thread, and its hook may be set.
    unsafe {
        loop {
            if cut.before.get().is_some() {
                left = Some((*layout::global(raw)).hook_count);
                cut.restore(raw);
            }
            let results = look();
            if cut.before.get().is_none() {
                if let Some(instructions) = left {
                    hook::undisturbed(|| cut.set(raw, instructions.max(1)));
                }
                return results;
            }
            // A signal has come meanwhile.
            lua.set_top(top);
        }
    }
}

/// Has the state that this thread runs collect its garbage as soon as that is possible; false if
/// that cannot be asked for now. Called by an allocation.
pub(crate) fn arm_collection() -> bool {
    let raw = hook::running();
    if raw.is_null() || !may_set(raw) {
        return raw.is_null();
    }
    // SAFETY: the state is alive, used by this thread, and its hook may be set.
    unsafe {
        let cut = &account(raw).cut;
        cut.wants_collection.set(true);
        cut.set(raw, 1);
    }
    true
}

/// Whether this is the hook that cuts.
pub(super) fn is_hook(function: lua_Hook) -> bool {
    function as usize == hook as *const () as usize
}

/// The hook: collects, or yields, once.
unsafe extern "C-unwind" fn hook(raw: *mut lua_State, activation: *mut lua_Debug) {
    // The script's. Where it is for a call it cannot yield: the next instruction is soon enough.
    // SAFETY: what the VM tells hooks, handed on as it came.
    unsafe {
        if (*activation).event != ffi::LUA_HOOKCOUNT {
            return line_hook::filter(raw, activation);
        }
    }
    // What the script finds in `ffi.errno()`.
    let errno = errno();
    let running = hook::running();
    if running.is_null() {
        return;
    }
    // SAFETY: called by the VM between two instructions, in a coroutine of the state that runs,
    // with stack slots free. Nothing is live here that would have to be dropped when it yields.
    unsafe {
        let account = account(raw);
        let cut = &account.cut;
        cut.restore(running);
        if cut.wants_collection.take() {
            ffi::lua_gc(raw, ffi::LUA_GCCOLLECT, 0);
            account.on_collected();
        }
        if cut.breaks_off() {
            // Nowhere inside the library, and in nothing else that runs meanwhile.
            let is_script = frame(Stack::new(raw), 0) == Some(Kind::Script);
            if is_script && root(raw) == cut.statement.get() {
                crate::sched::set_statement(true);
                cut.is_wanted.set(false);
                ffi::luaL_where(raw, 0);
                ffi::lua_pushstring(raw, c"interrupted!".as_ptr());
                ffi::lua_concat(raw, 2);
                ffi::lua_error(raw);
            }
            cut.set(running, 1);
        }
        // One that resumes others must have handed a cut on before it is cut itself.
        if !cut.is_wanted.take() || cut.is_cut() {
            return;
        }
        let driver = cut.driver.get();
        if driver.is_null() || may_leave(raw, driver, || cut.resume.get()) != 0 {
            return crate::sched::refuse_cut();
        }
        if !hook::keep_inside(raw) {
            return;
        }
        if raw != driver {
            ffi::lua_rawgeti(raw, ffi::LUA_REGISTRYINDEX, cut.flag.get().into());
            ffi::lua_pushboolean(raw, 1);
            ffi::lua_rawseti(raw, -2, 1);
            ffi::lua_settop(raw, -2);
        }
        line_hook::before_cut(raw, activation);
        cut.errno.set(errno);
        cut.at.set(raw);
        vm_yield(raw, 0);
    }
}

/// native.prepare_cuts(driver, resume, root, flag): names the coroutine that turns run in, what the
/// library resumes others with, what tells the root that runs, and the table that tells of a cut.
unsafe extern "C-unwind" fn prepare(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with these arguments; what is referred to stays in the registry.
    unsafe {
        let cut = &account(raw).cut;
        cut.driver.set(ffi::lua_tothread(raw, 1));
        cut.resume.set(ffi::lua_topointer(raw, 2));
        cut.flag.set(ffi::luaL_ref(raw, ffi::LUA_REGISTRYINDEX));
        cut.root.set(ffi::luaL_ref(raw, ffi::LUA_REGISTRYINDEX));
        ffi::lua_settop(raw, 1);
        ffi::luaL_ref(raw, ffi::LUA_REGISTRYINDEX);
    }
    0
}

/// Whether a coroutine is a root, or the driver: where a script's yield has nowhere to go.
///
/// # Safety
/// As for [`root`].
pub(crate) unsafe fn is_root(raw: *mut lua_State) -> bool {
    // SAFETY: a live state, of which this is the coroutine that runs.
    unsafe { raw == root(raw) || raw == account(raw).cut.driver() }
}

/// The root that runs, if that can be known.
///
/// # Safety
/// `raw` must be the coroutine that runs, in a C function or a hook.
unsafe fn root(raw: *mut lua_State) -> *mut lua_State {
    // SAFETY: a coroutine that runs; `lua_topointer` and its like read variables. The stack is left
    // as it was.
    unsafe {
        let reference = account(raw).cut.root.get();
        if reference == 0 || ffi::lua_checkstack(raw, 2) == 0 {
            return std::ptr::null_mut();
        }
        ffi::lua_rawgeti(raw, ffi::LUA_REGISTRYINDEX, reference.into());
        ffi::lua_call(raw, 0, 1);
        let root = ffi::lua_tothread(raw, -1);
        ffi::lua_settop(raw, -2);
        root
    }
}

/// What [`may_leave`] returns in error handlers.
pub(crate) const IN_HANDLER: u8 = 4;
const RESUMED_IN_HANDLER: u8 = 6;

/// Whether a yield gets from the coroutine that runs up to `root`. 0 if so; 1 if the C stack cannot
/// be left, there or in between; 2 if C code has resumed one of those coroutines; [`IN_HANDLER`] if
/// this is an error handler, and 6 if that has resumed one of them.
///
/// # Safety
/// `raw` must be running, with `root` alive. Raises if memory runs out.
#[inline]
pub(crate) unsafe fn may_leave(
    raw: *mut lua_State,
    root: *mut lua_State,
    resume: impl FnOnce() -> *const c_void,
) -> u8 {
    // SAFETY: the coroutine that runs, and a root that is alive.
    unsafe {
        match () {
            () if lua_isyieldable(raw) == 0 => {
                if ffi::lua_status(raw) == ffi::LUA_ERRERR {
                    IN_HANDLER
                } else {
                    1
                }
            }
            () if root == raw => 0,
            () => look_up_to(raw, root, resume()),
        }
    }
}

/// What [`may_leave`] returns for a coroutine other than `root`, from where each one that is inside
/// another is found as the argument of the `resume` that the other is in.
///
/// # Safety
/// As there.
unsafe fn look_up_to(raw: *mut lua_State, root: *mut lua_State, resume: *const c_void) -> u8 {
    let mut at = root;
    while at != raw {
        // SAFETY: `at` is alive: the root, or on the stack of one that is. What is pushed is
        // popped, as when the VM's own `debug` looks at a coroutine in this state.
        unsafe {
            if lua_isyieldable(at) == 0 {
                let is_handler = ffi::lua_status(at) == ffi::LUA_ERRERR;
                return if is_handler { RESUMED_IN_HANDLER } else { 1 };
            }
            let lua = Stack::new(at);
            if lua.frame(0, c"f").is_none() {
                return 2;
            }
            let is_resume = lua.address(-1) == resume;
            lua.pop();
            if !is_resume || !lua.first_local(0) {
                return 2;
            }
            let inner = lua.thread(-1);
            lua.pop();
            let Some(inner) = inner else { return 2 };
            at = inner.raw();
        }
    }
    0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::state::State;
    use super::*;

    /// Right when the VM has counted down to 0, it calls the hook later; so does the one put back.
    #[test]
    fn a_hook_that_is_due_is_due_after_the_cut() {
        unsafe extern "C-unwind" fn of_script(_raw: *mut lua_State, _activation: *mut lua_Debug) {}
        let state = State::new().unwrap();
        let (raw, cut) = (state.as_ptr(), &state.account().cut);
        for (left, expected) in [(0, 1), (1, 1), (700, 700)] {
            // SAFETY: a live state at rest, of this thread.
            unsafe {
                ffi::lua_sethook(raw, Some(of_script), ffi::LUA_MASKCOUNT, 1000);
                (*layout::global(raw)).hook_count = left;
                cut.set(raw, 1);
                cut.restore(raw);
                assert_eq!((*layout::global(raw)).hook_count, expected, "{left}");
            }
        }
    }
}

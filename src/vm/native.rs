//! What native functions do with the VM, beside values on their stack.

use std::any::Any;
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;

use mlua::ffi;

use super::layout::{self, Function};
use super::stack::Stack;
use super::state::Account;
use super::{chunk_cache, profiler, state, stock, traceback};
use crate::logging;

/// Prepares a fresh state for what the library does with it. Raises if memory runs out.
pub(crate) fn prepare(lua: Stack<'_>) {
    stock::install(lua);
    profiler::install(lua);
}

impl<'a> Stack<'a> {
    #[inline]
    pub(crate) fn account(self) -> &'a Account {
        // SAFETY: a live state; its account lives as long as it does.
        unsafe { state::account(self.raw()) }
    }

    /// Whether the state is one of ours, which has an account, and not a C module's.
    #[inline]
    pub(super) fn is_ours(self) -> bool {
        // SAFETY: the state of a stack is alive.
        unsafe { state::is_ours(self.raw()) }
    }

    /// Collects all garbage; finalisers run meanwhile.
    pub(crate) fn collect(self) {
        self.control_collector(ffi::LUA_GCCOLLECT);
        self.account().on_collected();
    }

    /// Appends a traceback of this coroutine from a level on.
    pub(crate) fn traceback(self, level: c_int, to: &mut Vec<u8>) {
        traceback::traceback(self, self, level, to);
    }

    /// Which of LuaJIT's own functions is at `index`: above that of Lua's and C's for those.
    pub(crate) fn function_number(self, index: c_int) -> u8 {
        // SAFETY: a function is there.
        unsafe { (*layout::object::<Function>(self.raw(), index)).number }
    }

    /// The error on top of the stack, as text.
    pub(crate) fn error_text(self) -> Vec<u8> {
        // A number would be converted, which may raise.
        match self.kind(-1) {
            // The VM's own words, which are short: cut in any case.
            ffi::LUA_TSTRING => logging::bounded(self.text(-1).unwrap_or_default(), usize::MAX),
            kind => format!("(error object of type {kind})").into(),
        }
    }

    /// Pushes the chunk of a text, or the message why there is none; returns the status, and
    /// whether the chunk mentions coroutines.
    pub(crate) fn load(self, text: &[u8], name: &CStr) -> (c_int, bool) {
        let status = self.load_plain(text, name);
        (status, status == ffi::LUA_OK && chunk_cache::mentions(self))
    }

    /// Moves as many values to the driver, which has not been resumed; false if it has no room.
    pub(crate) fn give_to_driver(self, count: c_int) -> bool {
        let driver = self.account().cut.driver();
        // SAFETY: a coroutine of this state, which is alive and at rest, and the values are there.
        unsafe {
            let has_room = ffi::lua_checkstack(driver, count) != 0;
            if has_room {
                ffi::lua_xmove(self.raw(), driver, count);
            }
            has_room
        }
    }
}

/// What ends the context in which the runtime itself has failed; it raises.
static ON_FAULT: OnceLock<fn(Box<dyn Any + Send>) -> !> = OnceLock::new();

/// Has `end` called should the runtime itself fail in a function that scripts call.
pub(crate) fn on_fault(end: fn(Box<dyn Any + Send>) -> !) {
    let _ = ON_FAULT.set(end);
}

/// What `body`, which raises nothing, returns; should it panic, the context ends, with a Lua error:
/// a panic must not cross the frames of the VM.
pub(crate) fn guarded<R>(body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| match ON_FAULT.get() {
        Some(end) => end(panic),
        None => resume_unwind(panic),
    })
}

/// Has the processor fetch a callback and what was made just before it, like a variable that it
/// alone closes over. Timers fire in another order than they were made in: fetched one by one, when
/// they are called, thousands of them wait for memory most of the time.
pub(crate) fn prefetch(object: *const c_void) {
    #[cfg(target_arch = "x86_64")]
    for line in [0, -64, 64] {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which no address makes fail.
        unsafe { _mm_prefetch(object.cast::<i8>().wrapping_offset(line), _MM_HINT_T0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = object;
}

//! Running what a state holds, from outside of it: calls that catch what is raised, and the driver.

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};

use super::stack::Stack;
use super::state::State;
use super::{foreign_signals, hook, spent};
use crate::hint::rarely;

/// What the VM returns when memory runs out.
pub(crate) const OUT_OF_MEMORY: &str = "out of memory";

/// Where the driver has come to.
pub(crate) enum Came {
    /// To the end of its step, where it yields two numbers.
    Done(f64, f64),
    /// It was cut.
    Cut,
    /// It has failed, so that it cannot be resumed any more.
    Failed(Vec<u8>),
}

impl State {
    /// Calls `body` so that what it raises comes back as text; it unwinds `body`, destructors
    /// included. The stack is as before afterwards.
    ///
    /// # Errors
    /// What was raised.
    pub(crate) fn protect<F: FnOnce(Stack<'_>)>(&self, body: F) -> Result<(), Vec<u8>> {
        self.protect_on(self.as_ptr(), body)
    }

    /// The same on the stack of one of its coroutines, which is at rest.
    fn protect_on<F>(&self, raw: *mut lua_State, body: F) -> Result<(), Vec<u8>>
    where
        F: FnOnce(Stack<'_>),
    {
        unsafe extern "C-unwind" fn trampoline<F: FnOnce(Stack<'_>)>(raw: *mut lua_State) -> c_int {
            // SAFETY: `protect` passes a pointer to its `body`, which outlives the call; and the
            // stack is that of a C function that runs.
            unsafe {
                let body = ffi::lua_touserdata(raw, 1).cast::<Option<F>>();
                ffi::lua_settop(raw, 0);
                if let Some(body) = (*body).take() {
                    body(Stack::new(raw));
                }
            }
            0
        }
        let mut body = Some(body);
        let pointer: *mut Option<F> = &mut body;
        // SAFETY: a live state, which this thread alone uses, since it cannot be shared; the call
        // protects the whole of `body`, and what is raised lies on the stack afterwards.
        unsafe {
            let top = ffi::lua_gettop(raw);
            let result = match ffi::lua_cpcall(raw, trampoline::<F>, pointer.cast()) {
                ffi::LUA_OK => Ok(()),
                status => Err(error_text(raw, status)),
            };
            ffi::lua_settop(raw, top);
            result
        }
    }

    /// As [`protect`](State::protect), for what fills the state with things that stay: meanwhile
    /// nothing is collected. It runs on a stack of its own, which need not grow for it and goes.
    ///
    /// # Errors
    /// What was raised.
    pub(crate) fn fill<F: FnOnce(Stack<'_>)>(&self, body: F) -> Result<(), Vec<u8>> {
        let set = |what, value| {
            // SAFETY: a live state; only sets figures.
            unsafe { ffi::lua_gc(self.as_ptr(), what, value) };
        };
        set(ffi::LUA_GCSTOP, 0);
        let mut apart = None;
        let result = self
            .protect(|lua| apart = Some(lua.push_new_thread()))
            .and_then(|()| self.protect_on(apart.unwrap_or(self.as_ptr()), body));
        if let Some(apart) = apart {
            // SAFETY: a coroutine that nobody else knows, and nothing was collected meanwhile.
            unsafe { spent::free(self.as_ptr(), apart, &[]) };
        }
        // Usually: the next cycle begins when there is twice as much.
        set(ffi::LUA_GCRESTART, -1);
        result
    }

    /// Resumes the driver, with as many values that lie on its stack.
    #[inline]
    pub(crate) fn resume(&self, arguments: c_int) -> Came {
        let cut = &self.account().cut;
        let driver = cut.driver();
        cut.begin(self.as_ptr());
        if rarely(self.account().has_handlers.get()) {
            foreign_signals::begin(self.as_ptr());
        }
        // SAFETY: live states, which this thread alone uses. The driver is at rest, or else the VM
        // refuses; what it yields or raises is on its stack afterwards.
        unsafe {
            let status = ffi::lua_resume_(driver, arguments);
            hook::yielded();
            if rarely(self.account().has_handlers.get()) {
                foreign_signals::finish(self.as_ptr());
            }
            if rarely(status != ffi::LUA_YIELD) {
                return Came::Failed(match status {
                    ffi::LUA_OK => Vec::new(),
                    status => error_text(driver, status),
                });
            }
            let is_done =
                ffi::lua_gettop(driver) >= 2 && ffi::lua_type(driver, -2) == ffi::LUA_TNUMBER;
            let came = match is_done {
                true => Came::Done(ffi::lua_tonumber(driver, -2), ffi::lua_tonumber(driver, -1)),
                false => Came::Cut,
            };
            ffi::lua_settop(driver, 0);
            came
        }
    }
}

/// What a call that has failed with this status has left on the stack.
///
/// # Safety
/// `raw` must be a live state, with the error value on top.
#[cold]
unsafe fn error_text(raw: *mut lua_State, status: c_int) -> Vec<u8> {
    match status {
        ffi::LUA_ERRMEM => OUT_OF_MEMORY.into(),
        // SAFETY: a live state that is not running; nothing is pushed.
        _ => unsafe { Stack::new(raw) }.error_text(),
    }
}

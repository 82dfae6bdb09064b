//! What has served to fill a new state, and is let go at once: a cycle of the collector would cost
//! a third of what it takes to create a context.

use std::ffi::c_int;

use mlua::ffi::lua_State;

use super::layout::{self, Function, Global, KIND_FUNCTION, Prototype, prototype};
use super::stack::Stack;

unsafe extern "C-unwind" {
    fn lj_func_free(global: *mut Global, function: *mut Function);
    fn lj_func_freeproto(global: *mut Global, prototype: *mut Prototype);
    fn lj_state_free(global: *mut Global, thread: *mut lua_State);
}

/// Frees a coroutine, or code and the functions that have it, unless the collector is at work.
///
/// # Safety
/// `raw` must be a live state, used by this thread. Nobody may use these any more, nor refer to
/// them from an object that is alive.
pub(super) unsafe fn free(raw: *mut lua_State, thread: *mut lua_State, code: &[*mut Prototype]) {
    // SAFETY: a live state. Objects begin with the address of the next, and their kind; the last
    // has no next.
    unsafe {
        let global = layout::global(raw);
        let mut left = code.len() + usize::from(!thread.is_null());
        let mut link = &raw mut (*global).root;
        while left > 0 && *link != 0 && (*global).phase == 0 {
            let object = *link as usize as *mut Function;
            let is_spent = |&code: &*mut Prototype| (*object).code == code.add(1) as u64;
            if object.cast() == thread {
                *link = (*object).next;
                lj_state_free(global, thread);
                left -= 1;
            } else if code.contains(&object.cast()) {
                *link = (*object).next;
                lj_func_freeproto(global, object.cast());
                left -= 1;
            } else if (*object).kind == KIND_FUNCTION && code.iter().any(is_spent) {
                *link = (*object).next;
                lj_func_free(global, object);
            } else {
                link = &raw mut (*object).next;
            }
        }
    }
}

impl Stack<'_> {
    /// Calls a chunk of the library's, which lies below its arguments, before any script runs, and
    /// frees it: it must have been loaded just now. If it `is_divided` (see prelude.rs) that is so
    /// for the function inside it that it calls. Raises what it raises.
    pub(super) fn call_once(self, arguments: c_int, results: c_int, is_divided: bool) {
        let raw = self.raw();
        // SAFETY: a function in Lua, that was loaded and is nobody else's. A prototype keeps those
        // inside it, in the order in which they end, the last one first. What was called has
        // returned: functions that it has made have prototypes of their own.
        unsafe {
            let outer = prototype(raw, -1 - arguments);
            let inner = layout::inner(outer).next().filter(|_| is_divided);
            self.call(arguments, results);
            free(
                raw,
                std::ptr::null_mut(),
                &[outer, inner.unwrap_or(outer)][..1 + usize::from(is_divided)],
            );
        }
    }
}

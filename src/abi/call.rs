//! What a C function does with its Lua stack, so that functions need little `unsafe`.
//!
//! Every method that raises says so: nothing that needs dropping may be alive where it is called,
//! since a Lua error need not run destructors.

use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr;

use mlua::ffi::{self, lua_State};

use super::buffer;
use crate::buf::{NlBuffer, SIZE_MAX};

/// The running call of a C function; its arguments are at 1 and up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    state: *mut lua_State,
    _stack: PhantomData<&'a ()>,
}

impl<'a> Call<'a> {
    /// # Safety
    /// `state` must be what Lua passed to the C function that runs, `'a` must end with that call,
    /// and the function must leave its arguments in place while it uses them.
    pub(super) unsafe fn new(state: *mut lua_State) -> Call<'a> {
        Call { state, _stack: PhantomData }
    }

    pub(super) fn state(self) -> *mut lua_State {
        self.state
    }

    pub(super) fn kind(self, index: c_int) -> c_int {
        // SAFETY: a running state, by the contract of `new`; any index is acceptable to lua_type.
        unsafe { ffi::lua_type(self.state, index) }
    }

    /// True if there is no such argument, or it is nil.
    pub(super) fn is_absent(self, index: c_int) -> bool {
        self.kind(index) <= ffi::LUA_TNIL
    }

    /// The buffer at `index`, if it is one.
    pub(super) fn buffer(self, index: c_int) -> Option<&'a mut NlBuffer> {
        // SAFETY: as in `kind`; the argument keeps the userdata alive for `'a`.
        unsafe { buffer::test(self.state, index) }
    }

    /// The buffer at `index`. Raises if it is something else.
    pub(super) fn check_buffer(self, index: c_int) -> &'a mut NlBuffer {
        loop {
            if let Some(buffer) = self.buffer(index) {
                return buffer;
            }
            self.type_error(index, c"buffer");
        }
    }

    /// The bytes of a string or a number (as text) at `index`, else `None`. A number may raise for
    /// want of memory.
    pub(super) fn text(self, index: c_int) -> Option<&'a [u8]> {
        let mut len = 0;
        // SAFETY: as in `kind`. A number is replaced by its text in place.
        let bytes = unsafe { ffi::lua_tolstring(self.state, index, &mut len) };
        if bytes.is_null() {
            return None;
        }
        // SAFETY: strings do not move, and the argument keeps this one alive for `'a`.
        Some(unsafe { std::slice::from_raw_parts(bytes.cast(), len) })
    }

    /// A number, or the number that a string stands for.
    pub(super) fn number(self, index: c_int) -> Option<f64> {
        // SAFETY: as in `kind`.
        if unsafe { ffi::lua_isnumber(self.state, index) } == 0 {
            return None;
        }
        // SAFETY: as in `kind`.
        Some(unsafe { ffi::lua_tonumber(self.state, index) })
    }

    /// A whole number from 0 to `max`. Raises for anything else, naming value and limit.
    pub(super) fn check_whole(self, index: c_int, max: usize) -> usize {
        // SAFETY: as in `kind`.
        let number = unsafe { ffi::luaL_checknumber(self.state, index) };
        if !(number >= 0.0 && number <= max as f64 && number.fract() == 0.0) {
            // SAFETY: the format takes two doubles.
            let text = unsafe {
                ffi::lua_pushfstring(
                    self.state,
                    c"whole number from 0 to %f expected, got %f".as_ptr(),
                    max as f64,
                    number,
                )
            };
            // SAFETY: the text is on the stack.
            unsafe { ffi::luaL_argerror(self.state, index, text) };
        }
        number as usize
    }

    /// A count of bytes that may also be absent or larger than any buffer, both meaning all.
    pub(super) fn check_count(self, index: c_int) -> usize {
        if self.is_absent(index) || self.number(index).is_some_and(|n| n > SIZE_MAX as f64) {
            return SIZE_MAX;
        }
        self.check_whole(index, SIZE_MAX)
    }

    pub(super) fn push_boolean(self, value: bool) -> c_int {
        // SAFETY: as in `kind`; C functions start with 20 free slots.
        unsafe { ffi::lua_pushboolean(self.state, c_int::from(value)) };
        1
    }

    pub(super) fn push_number(self, value: f64) -> c_int {
        // SAFETY: as in `push_boolean`.
        unsafe { ffi::lua_pushnumber(self.state, value) };
        1
    }

    pub(super) fn push_value(self, index: c_int) -> c_int {
        // SAFETY: as in `push_boolean`.
        unsafe { ffi::lua_pushvalue(self.state, index) };
        1
    }

    /// Pushes bytes as a string. Runs the collector, hence finalisers; may raise without memory.
    ///
    /// # Safety
    /// The bytes must remain valid whatever a finaliser does.
    pub(super) unsafe fn push_bytes(self, bytes: *const u8, len: usize) -> c_int {
        let bytes = if len == 0 { ptr::dangling() } else { bytes };
        // SAFETY: as in `push_boolean`, and the caller's contract.
        unsafe { ffi::lua_pushlstring_(self.state, bytes.cast(), len) };
        1
    }

    /// Raises: an argument has the wrong type.
    pub(super) fn type_error(self, index: c_int, expected: &CStr) -> c_int {
        // SAFETY: as in `kind`.
        unsafe { ffi::luaL_typerror(self.state, index, expected.as_ptr()) }
    }

    /// Raises: an argument has a wrong value.
    pub(super) fn argument_error(self, index: c_int, text: &CStr) -> c_int {
        // SAFETY: as in `kind`.
        unsafe { ffi::luaL_argerror(self.state, index, text.as_ptr()) }
    }
}

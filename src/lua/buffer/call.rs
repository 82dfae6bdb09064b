//! What a C function does with its Lua stack, so that functions need little `unsafe`.
//!
//! Every method that raises says so: nothing that needs dropping may be alive where it is called,
//! since a Lua error need not run destructors.

use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::methods::{METAMETHODS, METHODS};
use super::userdata;
use crate::buf::{NlBuffer, SIZE_MAX};
use crate::vm::blame::{self, Wrong};
use crate::vm::convert::int64;
use crate::vm::convert::int64::Integer;

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

    /// The 64-bit integer in the cdata at `index`; `None` if it is something else. May raise.
    pub(super) fn int64(self, index: c_int) -> Option<i128> {
        // SAFETY: a running state with free slots and a cdata, of which a copy is popped.
        unsafe {
            ffi::lua_pushvalue(self.state, index);
            let found = int64::to_integer(self.state);
            ffi::lua_settop(self.state, -2);
            found.map(Integer::value)
        }
    }

    /// Pushes an `int64_t` or a `uint64_t` with these bits. May raise.
    pub(super) fn push_int64(self, bits: u64, signed: bool) {
        let integer = if signed { Integer::Signed(bits as i64) } else { Integer::Unsigned(bits) };
        // SAFETY: a running state with free slots.
        unsafe { int64::push_integer(self.state, integer) };
    }

    /// True if there is no such argument, or it is nil.
    pub(super) fn is_absent(self, index: c_int) -> bool {
        self.kind(index) <= ffi::LUA_TNIL
    }

    /// The buffer at `index`, if it is one.
    pub(super) fn buffer(self, index: c_int) -> Option<&'a mut NlBuffer> {
        // SAFETY: as in `kind`; the argument keeps the userdata alive for `'a`.
        unsafe { userdata::test(self.state, index) }
    }

    /// The buffer at `index`. Raises if it is something else.
    pub(super) fn check_buffer(self, index: c_int) -> &'a mut NlBuffer {
        loop {
            if let Some(buffer) = self.buffer(index) {
                return buffer;
            }
            self.type_error(index, "buffer");
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
        let number = self.number(index).unwrap_or(f64::NAN);
        if !(number >= 0.0 && number <= max as f64 && number.fract() == 0.0) {
            self.type_error(index, &format!("whole number from 0 to {max}"));
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

    /// Pushes a text of our own.
    pub(super) fn push_text(self, text: &str) -> c_int {
        // SAFETY: the text does not depend on the VM.
        unsafe { self.push_bytes(text.as_ptr(), text.len()) }
    }

    /// Puts a number in the place of an argument.
    pub(super) fn replace_by_number(self, index: c_int, value: f64) {
        // SAFETY: as in `push_boolean`, with that argument below.
        unsafe {
            ffi::lua_pushnumber(self.state, value);
            ffi::lua_replace(self.state, index);
        }
    }

    /// Puts a string in the place of an argument. Runs the collector, hence finalisers.
    pub(super) fn replace_by_bytes(self, index: c_int, bytes: &[u8]) {
        // SAFETY: as in `push_boolean`, with that argument below; the bytes are no buffer's.
        unsafe {
            self.push_bytes(bytes.as_ptr(), bytes.len());
            ffi::lua_replace(self.state, index);
        }
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

    /// Raises: an argument is not what it should be.
    pub(super) fn type_error(self, index: c_int, expected: &str) -> c_int {
        let wrong = Wrong::Argument(index);
        // SAFETY: as in `kind`.
        unsafe { blame::bad(self.state, wrong, self.name(), expected, Some(index)) }
    }

    /// Raises: something is wrong with an argument; what it is, is added.
    pub(super) fn argument_error(self, index: c_int, text: &str) -> c_int {
        let wrong = Wrong::Argument(index);
        // SAFETY: as in `kind`.
        unsafe {
            let why = format!("{text}, got {}", blame::describe(self.state, index));
            blame::bad(self.state, wrong, self.name(), &why, None)
        }
    }

    /// Raises a text with the name of the function in front.
    pub(super) fn raise(self, text: &str) -> c_int {
        // SAFETY: as in `kind`.
        unsafe { blame::raise(self.state, &format!("{}: {text}", self.name())) }
    }

    /// Raises a text.
    pub(super) fn fail(self, text: &str) -> c_int {
        // SAFETY: as in `kind`.
        unsafe { blame::raise(self.state, text) }
    }

    /// The name of the type of an argument.
    pub(super) fn kind_name(self, index: c_int) -> &'a str {
        // SAFETY: as in `kind`; names of types live for ever.
        let name = unsafe { CStr::from_ptr(ffi::luaL_typename(self.state, index)) };
        name.to_str().unwrap_or("strange")
    }

    /// What scripts call the function that runs.
    fn name(self) -> &'static str {
        // SAFETY: a record that is filled in; as in `kind`, for the level that runs, whose function
        // is pushed and popped.
        let running = unsafe {
            let mut record = std::mem::zeroed();
            ffi::lua_getstack(self.state, 0, &mut record);
            ffi::lua_getinfo(self.state, c"f".as_ptr(), &mut record);
            let running = ffi::lua_tocfunction(self.state, -1);
            ffi::lua_settop(self.state, -2);
            running
        };
        let is_it =
            |function: lua_CFunction| running.is_some_and(|f| std::ptr::fn_addr_eq(f, function));
        let found = METHODS.iter().chain(METAMETHODS).find(|(_, function)| is_it(*function));
        found.and_then(|(name, _)| name.to_str().ok()).unwrap_or("buffer")
    }
}

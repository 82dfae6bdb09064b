//! What the functions of buffers do with their stack, beside what all do.
//!
//! Every method that raises says so: then the unwinder drops what is alive.

use std::ffi::c_int;

use mlua::ffi::{self, lua_CFunction};

use super::methods::{METAMETHODS, METHODS};
use super::userdata;
use crate::buf::{NlBuffer, SIZE_MAX};
use crate::vm::blame::Wrong;
use crate::vm::int64::{self, Integer};
use crate::vm::stack::Stack;

impl<'a> Stack<'a> {
    /// Pushes an `int64_t` or a `uint64_t` with these bits. May raise.
    pub(super) fn push_int64(self, bits: u64, signed: bool) {
        let integer = if signed { Integer::Signed(bits as i64) } else { Integer::Unsigned(bits) };
        int64::push_integer(self, integer);
    }

    /// True if there is no such argument, or it is nil.
    pub(super) fn is_absent(self, index: c_int) -> bool {
        self.kind(index) <= ffi::LUA_TNIL
    }

    /// The buffer at `index`. Raises if it is something else.
    pub(super) fn check_buffer(self, index: c_int) -> &'a mut NlBuffer {
        userdata::buffer_at(self, index).unwrap_or_else(|| self.type_error(index, "buffer"))
    }

    /// A number, or the number that a string stands for.
    pub(super) fn to_number(self, index: c_int) -> Option<f64> {
        self.is_number(index).then(|| self.number(index))
    }

    /// A whole number from 0 to `max`. Raises for anything else, naming value and limit.
    pub(super) fn check_whole(self, index: c_int, max: usize) -> usize {
        let number = self.to_number(index).unwrap_or(f64::NAN);
        if !(number >= 0.0 && number <= max as f64 && number.fract() == 0.0) {
            self.type_error(index, &format!("whole number from 0 to {max}"));
        }
        number as usize
    }

    /// A count of bytes that may also be absent or larger than any buffer, both meaning all.
    pub(super) fn check_count(self, index: c_int) -> usize {
        if self.is_absent(index) || self.to_number(index).is_some_and(|n| n > SIZE_MAX as f64) {
            return SIZE_MAX;
        }
        self.check_whole(index, SIZE_MAX)
    }

    /// Puts a string in the place of an argument; runs the collector likewise.
    pub(super) fn replace_by_text(self, index: c_int, bytes: &[u8]) {
        self.push_text(bytes);
        self.replace(index);
    }

    /// Puts a number in the place of an argument.
    pub(super) fn replace_by_number(self, index: c_int, value: f64) {
        self.push_number(value);
        self.replace(index);
    }

    /// Raises: an argument is not what it should be.
    pub(super) fn type_error(self, index: c_int, expected: &str) -> ! {
        self.bad(Wrong::Argument(index), self.name(), expected, Some(index))
    }

    /// Raises: something is wrong with an argument; what it is, is added.
    pub(super) fn argument_error(self, index: c_int, text: &str) -> ! {
        let why = format!("{text}, got {}", self.describe(index));
        self.bad(Wrong::Argument(index), self.name(), &why, None)
    }

    /// Raises a text with the name of the function in front.
    pub(super) fn fail(self, text: &str) -> ! {
        self.raise(&format!("{}: {text}", self.name()))
    }

    /// What scripts call the function that runs.
    fn name(self) -> &'static str {
        let running = self.running_function();
        let is_it =
            |function: lua_CFunction| running.is_some_and(|f| std::ptr::fn_addr_eq(f, function));
        let found = METHODS.iter().chain(METAMETHODS).find(|(_, function)| is_it(*function));
        found.and_then(|(name, _)| name.to_str().ok()).unwrap_or("buffer")
    }
}

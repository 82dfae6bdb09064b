//! The stack, and values on it.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::{Results, slots};
use crate::failpoint;
use crate::hint::rare;
use crate::vm::layout::{self, NIL, Slot, boolean, double, kind};

/// The stack of a native function that runs: its arguments are at 1 and up, and it has 20 slots
/// free.
///
/// What raises, and that is said of it, unwinds through its caller, which drops what it owns.
/// Pushing a string, a table or a userdata may raise if memory runs out, and may run finalisers,
/// which are script code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack<'a> {
    pub(super) raw: *mut lua_State,
    _arguments: PhantomData<&'a ()>,
}

/// The C function that calls `body`, a function without captured variables, with the stack that it
/// is called with, and pushes what that returns.
pub const fn function<R: Results, F: Fn(Stack<'_>) -> R + Copy>(_body: F) -> lua_CFunction {
    const { assert!(size_of::<F>() == 0, "no variables are captured") };
    unsafe extern "C-unwind" fn call<R: Results, F: Fn(Stack<'_>) -> R + Copy>(
        raw: *mut lua_State,
    ) -> c_int {
        // SAFETY: a type without size, of which `function` was given a value: it may be copied from
        // nowhere.
        let body = unsafe { NonNull::<F>::dangling().read() };
        // SAFETY: what Lua passes to the function that it calls, for as long as that runs.
        let lua = unsafe { Stack::new(raw) };
        body(lua).give(lua)
    }
    call::<R, F>
}

impl<'a> Stack<'a> {
    /// # Safety
    /// `raw` must be a state that this thread runs, with 20 slots free, until `'a` ends.
    #[inline]
    pub unsafe fn new(raw: *mut lua_State) -> Stack<'a> {
        Stack { raw, _arguments: PhantomData }
    }

    /// The state itself, for functions that take one.
    #[inline]
    pub(crate) fn raw(self) -> *mut lua_State {
        self.raw
    }

    /// What is at an index, as the VM keeps it; from the top if that is negative. Not for upvalues
    /// and their like, whose indices are none of the stack.
    #[inline]
    fn found(self, index: c_int) -> Option<Slot> {
        debug_assert!(index > ffi::LUA_REGISTRYINDEX);
        let values = self.arguments();
        let end = if index < 0 { values.len() } else { usize::MAX };
        values.get(end.wrapping_add_signed(index as isize)).map(|value| value.slot())
    }

    /// The same; nil if there is nothing.
    #[inline]
    pub(super) fn slot(self, index: c_int) -> Slot {
        self.found(index).unwrap_or(NIL)
    }

    /// The number at an index, or of an upvalue, that holds one, or a text that reads as one; 0 for
    /// anything else.
    #[inline]
    pub(crate) fn number(self, index: c_int) -> f64 {
        if index > ffi::LUA_REGISTRYINDEX {
            let slot = self.slot(index);
            if let Some(number) = double(slot) {
                return number;
            }
            rare();
            if slot == NIL {
                return 0.0;
            }
        }
        vm!(self, lua_tonumber, index)
    }

    #[inline]
    pub(crate) fn is_nil(self, index: c_int) -> bool {
        self.slot(index) == NIL
    }

    /// A key or token, which came from us as an exact number.
    #[inline]
    pub(crate) fn key(self, index: c_int) -> u64 {
        failpoint::check_native();
        // `as` saturates: no number is out of range.
        self.number(index) as u64
    }

    /// The bytes of a string argument; of a number, its text; `None` for anything else.
    #[inline]
    pub fn text(self, index: c_int) -> Option<&'a [u8]> {
        let mut length = 0;
        let start = vm!(self, lua_tolstring, index, &mut length);
        // SAFETY: the VM vouches for pointer and length; arguments stay where they are while the
        // function runs, which is what its author sees to.
        (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast(), length) })
    }

    /// Whether it is neither nil nor false.
    #[inline]
    pub(crate) fn boolean(self, index: c_int) -> bool {
        ![NIL, boolean(false)].contains(&self.slot(index))
    }

    /// The type of a value: one of `LUA_TNIL` and its like, `LUA_TNONE` if there is none.
    #[inline]
    pub fn kind(self, index: c_int) -> c_int {
        self.found(index).map_or(ffi::LUA_TNONE, kind)
    }

    pub(crate) fn kind_name(self, index: c_int) -> &'static str {
        let name = vm!(self, lua_typename, self.kind(index));
        // SAFETY: names of types are constants.
        unsafe { CStr::from_ptr(name) }.to_str().unwrap_or("strange")
    }

    /// Whether it is a number, or a text that reads as one.
    #[inline]
    pub(crate) fn is_number(self, index: c_int) -> bool {
        vm!(self, lua_isnumber, index) != 0
    }

    /// The length of a string, in bytes.
    #[inline]
    pub fn length(self, index: c_int) -> usize {
        vm!(self, lua_objlen, index)
    }

    /// The number of arguments, and of what was pushed since.
    #[inline]
    pub fn top(self) -> c_int {
        slots::count(self)
    }

    /// Takes away what is above this index, from the top if it is negative.
    #[inline]
    pub fn set_top(self, index: c_int) {
        debug_assert!(index.unsigned_abs() <= self.top().unsigned_abs() + 20);
        let top = self.top();
        match if index < 0 { top + index + 1 } else { index } {
            index if index <= top => slots::cut(self, index),
            index => vm!(self, lua_settop, index),
        }
    }

    /// Makes room for more; false if there is none.
    pub(crate) fn has_room(self, slots: c_int) -> bool {
        vm!(self, lua_checkstack, slots) != 0
    }

    /// Pushes a number.
    #[inline]
    pub fn push_number(self, number: f64) {
        slots::push(self, layout::number(number));
    }

    /// Pushes a whole number, below 2^63: of signed integers the processor makes numbers with one
    /// instruction.
    #[inline]
    pub(crate) fn push_whole(self, number: u64) {
        debug_assert!(number <= i64::MAX as u64);
        self.push_number(number as i64 as f64);
    }

    /// Pushes a boolean.
    #[inline]
    pub fn push_boolean(self, value: bool) {
        slots::push(self, boolean(value));
    }

    /// Pushes nil.
    #[inline]
    pub fn push_nil(self) {
        slots::push(self, NIL);
    }

    /// Pushes a string.
    #[inline]
    pub fn push_text(self, bytes: &[u8]) {
        vm!(self, lua_pushlstring_, bytes.as_ptr().cast(), bytes.len());
    }

    /// Pushes what is at another index.
    #[inline]
    pub(crate) fn push_copy(self, index: c_int) {
        vm!(self, lua_pushvalue, index);
    }

    pub(crate) fn push_address(self, address: *mut c_void) {
        vm!(self, lua_pushlightuserdata, address);
    }

    /// Pushes a C function.
    pub fn push_function(self, function: lua_CFunction) {
        vm!(self, lua_pushcfunction, function);
    }

    /// Pushes a C function that has as many values on top as upvalues.
    pub(crate) fn push_closure(self, function: lua_CFunction, upvalues: c_int) {
        vm!(self, lua_pushcclosure, function, upvalues);
    }

    /// Pushes an upvalue of the function at `index`; false if it has none of that number.
    pub(crate) fn upvalue(self, index: c_int, number: c_int) -> bool {
        !vm!(self, lua_getupvalue, index, number).is_null()
    }
}

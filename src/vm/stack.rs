//! Values on the stack of a state, as native functions read and push them.

use std::ffi::c_void;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr::NonNull;

use mlua::ffi;
use mlua::ffi::lua_CFunction;
use mlua::ffi::lua_State;

use super::blame::Wrong;
use super::state::Account;
use super::{blame, chunk_cache, convert, prelude, state, traceback};
use super::{pristine, profiler, stock};
use crate::logging;
use crate::message::Value;

/// Prepares a fresh state for what the library does with it. Raises for want of memory.
pub(crate) fn prepare(lua: Stack<'_>) {
    let raw = lua.raw();
    // SAFETY: a running state with an empty stack.
    unsafe {
        pristine::keep(raw);
        stock::install(raw);
        profiler::install(raw);
    }
}

/// The registry field of the table of native functions.
pub(crate) const TABLE: &CStr = c"node-lua.native";

/// The bytes of a string argument (numbers are converted in place); `None` for anything else.
///
/// # Safety
/// The bytes live while the argument is on the stack.
pub(crate) unsafe fn text<'a>(raw: *mut lua_State, index: c_int) -> Option<&'a [u8]> {
    let mut length = 0;
    // SAFETY: the caller passes a live state.
    let start = unsafe { ffi::lua_tolstring(raw, index, &mut length) };
    // SAFETY: the VM vouches for pointer and length.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}

/// Pushes a string.
///
/// # Safety
/// `raw` must have a free stack slot. Raises for want of memory.
pub(crate) unsafe fn push_text(raw: *mut lua_State, text: &[u8]) {
    // SAFETY: pointer and length are those of a slice; the VM copies the bytes.
    unsafe { ffi::lua_pushlstring(raw, text.as_ptr().cast(), text.len()) };
}

/// An argument that the Lua side has made sure is a number.
///
/// # Safety
/// `raw` must be a live state.
pub(crate) unsafe fn number(raw: *mut lua_State, index: c_int) -> f64 {
    // SAFETY: the caller's contract.
    unsafe { ffi::lua_tonumber(raw, index) }
}

/// A key or token, which came from us as an exact number.
///
/// # Safety
/// As for [`number`].
pub(crate) unsafe fn key(raw: *mut lua_State, index: c_int) -> u64 {
    // SAFETY: the caller's contract. `as` saturates: no number is out of range.
    unsafe { number(raw, index) as u64 }
}

/// The stack of a native function that runs: its arguments are at 1 and up, and it has 20 slots
/// free.
///
/// What raises, and that is said of it, unwinds through its caller, which drops what it owns.
/// Pushing a string, a table or a userdata may raise for want of memory, and may run finalisers,
/// which are script code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack<'a> {
    raw: *mut lua_State,
    _arguments: PhantomData<&'a ()>,
}

/// The C function that calls `body`, a function without captured variables, with the stack that it
/// is called with.
pub(crate) const fn function<F: Fn(Stack<'_>) -> c_int + Copy>(_body: F) -> lua_CFunction {
    const { assert!(size_of::<F>() == 0, "no variables are captured") };
    unsafe extern "C-unwind" fn call<F: Fn(Stack<'_>) -> c_int + Copy>(
        raw: *mut lua_State,
    ) -> c_int {
        // SAFETY: a type without size, of which `function` was given a value: it may be copied from
        // nowhere.
        let body = unsafe { NonNull::<F>::dangling().read() };
        // SAFETY: what Lua passes to the function that it calls, for as long as that runs.
        body(unsafe { Stack::new(raw) })
    }
    call::<F>
}

impl<'a> Stack<'a> {
    /// # Safety
    /// `raw` must be a state that this thread runs, with 20 slots free, until `'a` ends.
    #[inline]
    pub(crate) unsafe fn new(raw: *mut lua_State) -> Stack<'a> {
        Stack { raw, _arguments: PhantomData }
    }

    /// The state itself, for functions that take one.
    #[inline]
    pub(crate) fn raw(self) -> *mut lua_State {
        self.raw
    }

    /// The account of the state.
    #[inline]
    pub(crate) fn account(self) -> &'a Account {
        // SAFETY: a live state; its account lives as long as it does.
        unsafe { state::account(self.raw) }
    }

    /// The number at an index that holds one, or a text that reads as one; 0 for anything else.
    #[inline]
    pub(crate) fn number(self, index: c_int) -> f64 {
        // SAFETY: by the contract of `new`, as everywhere below: a running state.
        unsafe { number(self.raw, index) }
    }

    /// A key or token, which came from us as an exact number.
    #[inline]
    pub(crate) fn key(self, index: c_int) -> u64 {
        // SAFETY: a running state.
        unsafe { key(self.raw, index) }
    }

    /// The bytes of a string argument; of a number, its text; `None` for anything else.
    #[inline]
    pub(crate) fn text(self, index: c_int) -> Option<&'a [u8]> {
        // SAFETY: a running state; arguments stay where they are while the function runs, which is
        // what its author sees to.
        unsafe { text(self.raw, index) }
    }

    /// Whether it is neither nil nor false.
    #[inline]
    pub(crate) fn boolean(self, index: c_int) -> bool {
        // SAFETY: a running state.
        unsafe { ffi::lua_toboolean(self.raw, index) != 0 }
    }

    /// The type of a value: one of `LUA_TNIL` and its like.
    #[inline]
    pub(crate) fn kind(self, index: c_int) -> c_int {
        // SAFETY: a running state.
        unsafe { ffi::lua_type(self.raw, index) }
    }

    /// Whether it is a number, or a text that reads as one.
    #[inline]
    pub(crate) fn is_number(self, index: c_int) -> bool {
        // SAFETY: a running state.
        unsafe { ffi::lua_isnumber(self.raw, index) != 0 }
    }

    /// The length of a string, in bytes.
    #[inline]
    pub(crate) fn length(self, index: c_int) -> usize {
        // SAFETY: a running state.
        unsafe { ffi::lua_objlen(self.raw, index) }
    }

    /// The number of arguments, and of what was pushed since.
    #[inline]
    pub(crate) fn top(self) -> c_int {
        // SAFETY: a running state.
        unsafe { ffi::lua_gettop(self.raw) }
    }

    /// Takes away what is above this index, from the top if it is negative.
    #[inline]
    pub(crate) fn set_top(self, index: c_int) {
        debug_assert!(index.unsigned_abs() <= self.top().unsigned_abs() + 20);
        // SAFETY: a running state; the slots are there.
        unsafe { ffi::lua_settop(self.raw, index) };
    }

    /// Makes room for more; false if there is none.
    pub(crate) fn has_room(self, slots: c_int) -> bool {
        // SAFETY: a running state.
        unsafe { ffi::lua_checkstack(self.raw, slots) != 0 }
    }

    #[inline]
    pub(crate) fn push_number(self, number: f64) {
        // SAFETY: a running state with a slot free.
        unsafe { ffi::lua_pushnumber(self.raw, number) };
    }

    #[inline]
    pub(crate) fn push_boolean(self, value: bool) {
        // SAFETY: a running state with a slot free.
        unsafe { ffi::lua_pushboolean(self.raw, c_int::from(value)) };
    }

    #[inline]
    pub(crate) fn push_nil(self) {
        // SAFETY: a running state with a slot free.
        unsafe { ffi::lua_pushnil(self.raw) };
    }

    /// Pushes a string.
    #[inline]
    pub(crate) fn push_text(self, bytes: &[u8]) {
        // SAFETY: a running state with a slot free.
        unsafe { push_text(self.raw, bytes) };
    }

    /// Pushes what is at another index.
    #[inline]
    pub(crate) fn push_copy(self, index: c_int) {
        // SAFETY: a running state with a slot free.
        unsafe { ffi::lua_pushvalue(self.raw, index) };
    }

    /// Pushes an address.
    pub(crate) fn push_address(self, address: *mut c_void) {
        // SAFETY: a running state with a slot free; the VM only keeps the number.
        unsafe { ffi::lua_pushlightuserdata(self.raw, address) };
    }

    /// Pushes a C function.
    pub(crate) fn push_function(self, function: lua_CFunction) {
        // SAFETY: a running state with a slot free.
        unsafe { ffi::lua_pushcfunction(self.raw, function) };
    }

    /// Pushes a table with room for as many entries of each sort.
    #[inline]
    pub(crate) fn push_table(self, list: usize, fields: usize) {
        // SAFETY: a running state with a slot free.
        unsafe { ffi::lua_createtable(self.raw, list as c_int, fields as c_int) };
    }

    /// Sets an entry of the table at `index`: the key lies below the value, and both go.
    pub(crate) fn raw_set(self, index: c_int) {
        // SAFETY: a running state with a key and a value on top, and a table.
        unsafe { ffi::lua_rawset(self.raw, index) };
    }

    /// Gives what is at `index` the metatable on top, which goes.
    pub(crate) fn set_metatable(self, index: c_int) {
        // SAFETY: a running state with a table on top.
        unsafe { ffi::lua_setmetatable(self.raw, index) };
    }

    /// Sets a global of scripts to what is on top, which goes.
    pub(crate) fn set_global(self, name: &CStr) {
        // SAFETY: a running state with a value on top.
        unsafe { ffi::lua_setglobal(self.raw, name.as_ptr()) };
    }

    /// Pushes a global of scripts.
    pub(crate) fn push_global(self, name: &CStr) {
        // SAFETY: a running state with a slot free.
        unsafe { ffi::lua_getglobal(self.raw, name.as_ptr()) };
    }

    /// Pushes a field of the table at `index`, which has no metatable of a script's.
    #[inline]
    pub(crate) fn field(self, index: c_int, name: &CStr) {
        // SAFETY: a running state with a slot free, and a table.
        unsafe { ffi::lua_getfield(self.raw, index, name.as_ptr()) };
    }

    /// Sets a field of the table at `index` to what is on top, which goes.
    #[inline]
    pub(crate) fn set_field(self, index: c_int, name: &CStr) {
        // SAFETY: a running state with a value on top, and a table.
        unsafe { ffi::lua_setfield(self.raw, index, name.as_ptr()) };
    }

    /// Pushes an entry of the table at `index`.
    #[inline]
    pub(crate) fn entry(self, index: c_int, at: i64) {
        // SAFETY: a running state with a slot free, and a table.
        unsafe { ffi::lua_rawgeti(self.raw, index, at) };
    }

    /// Sets an entry of the table at `index` to what is on top, which goes.
    #[inline]
    pub(crate) fn set_entry(self, index: c_int, at: i64) {
        // SAFETY: a running state with a value on top, and a table.
        unsafe { ffi::lua_rawseti(self.raw, index, at) };
    }

    /// The address of what is at an index, if it is an object.
    #[inline]
    pub(crate) fn address(self, index: c_int) -> *const c_void {
        // SAFETY: a running state.
        unsafe { ffi::lua_topointer(self.raw, index) }
    }

    /// Pushes a userdata that holds `key`, with the metatable in this field of the registry.
    pub(crate) fn push_key(self, key: u64, metatable: &CStr) {
        // SAFETY: a running state with slots free; the block has room for the key.
        unsafe {
            ffi::lua_newuserdata(self.raw, size_of::<u64>()).cast::<u64>().write(key);
            ffi::lua_getfield(self.raw, ffi::LUA_REGISTRYINDEX, metatable.as_ptr());
            ffi::lua_setmetatable(self.raw, -2);
        }
    }

    /// The key in the userdata at `index`, if it has one of these metatables, and which.
    pub(crate) fn key_of(self, index: c_int, metatables: &[&CStr]) -> Option<(usize, u64)> {
        // SAFETY: a running state with two slots free; whatever is pushed is popped. Only
        // `push_key` gives userdata one of these metatables, with a key in it.
        unsafe {
            let top = self.top();
            if ffi::lua_getmetatable(self.raw, index) == 0 {
                return None;
            }
            let which = metatables.iter().position(|name| {
                ffi::lua_getfield(self.raw, ffi::LUA_REGISTRYINDEX, name.as_ptr());
                let is_one = ffi::lua_rawequal(self.raw, -1, top + 1) != 0;
                ffi::lua_settop(self.raw, top + 1);
                is_one
            });
            ffi::lua_settop(self.raw, top);
            Some((which?, ffi::lua_touserdata(self.raw, index).cast::<u64>().read()))
        }
    }

    /// Calls the function that lies below its arguments. Raises what it raises.
    pub(crate) fn call(self, arguments: c_int, results: c_int) {
        // SAFETY: a running state with the function and its arguments on top.
        unsafe { ffi::lua_call(self.raw, arguments, results) };
    }

    /// Collects all garbage; finalisers run meanwhile.
    pub(crate) fn collect(self) {
        // SAFETY: a running state, which may collect wherever a C function runs.
        unsafe { ffi::lua_gc(self.raw, ffi::LUA_GCCOLLECT, 0) };
        self.account().on_collected();
    }

    /// Brings the next collection nearer, as if so many bytes more were used.
    pub(crate) fn pace(self, bytes: usize) {
        // SAFETY: a running state.
        unsafe { state::pace(self.raw, bytes) };
    }

    /// Appends a traceback of this coroutine from a level on.
    pub(crate) fn traceback(self, level: c_int, to: &mut Vec<u8>) {
        // SAFETY: a running state with slots free.
        unsafe { traceback::traceback(self.raw, self.raw, level, to) };
    }

    /// Pushes the function of an embedded chunk.
    pub(crate) fn push_chunk(self, name: &str) {
        // SAFETY: a running state with the library loaded.
        unsafe { prelude::push_chunk(self.raw, name) };
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

    /// Puts as many texts on top together to one.
    pub(crate) fn concat(self, count: c_int) {
        // SAFETY: a running state with as many texts on its stack.
        unsafe { ffi::lua_concat(self.raw, count) };
    }

    /// Pushes the chunk of a text, or the message why there is none; returns the status, and
    /// whether the chunk mentions coroutines.
    pub(crate) fn load(self, text: &[u8], name: &CStr) -> (c_int, bool) {
        // SAFETY: a running state with the library loaded; pointer and length are those of a slice.
        unsafe {
            let (start, length) = (text.as_ptr().cast(), text.len());
            let status = ffi::luaL_loadbuffer(self.raw, start, length, name.as_ptr());
            (status, status == ffi::LUA_OK && chunk_cache::mentions(self.raw))
        }
    }

    /// The same for that of a file: see [`chunk_cache::load_file`].
    pub(crate) fn load_file(self, path: &Path, text_only: bool) -> (c_int, bool) {
        // SAFETY: a running state with slots free and the library loaded.
        unsafe { chunk_cache::load_file(self.raw, path, text_only) }
    }

    /// Moves as many values to the driver, which has not been resumed; false if it has no room.
    pub(crate) fn give_to_driver(self, count: c_int) -> bool {
        let driver = self.account().cut.driver();
        // SAFETY: a coroutine of this state, which is alive and at rest, and the values are there.
        unsafe {
            let has_room = ffi::lua_checkstack(driver, count) != 0;
            if has_room {
                ffi::lua_xmove(self.raw, driver, count);
            }
            has_room
        }
    }

    /// Puts a value into the VM.
    ///
    /// # Errors
    /// The stack cannot grow; nothing was pushed.
    #[inline]
    pub(crate) fn push_value<B: convert::Buffers>(
        self,
        value: &Value,
    ) -> Result<(), convert::Refused> {
        // SAFETY: a running state with slots free.
        unsafe { convert::push_value::<B>(self.raw, value) }
    }

    /// What a value is, for people: see [`blame::describe`].
    pub(crate) fn describe(self, index: c_int) -> String {
        // SAFETY: a running state with slots free.
        unsafe { blame::describe(self.raw, index) }
    }

    /// Raises a text as the script's fault: see [`blame::raise`].
    pub(crate) fn raise(self, text: &str) -> c_int {
        // SAFETY: a running state with slots free.
        unsafe { blame::raise(self.raw, text) }
    }

    /// Raises what is wrong with an argument or option: see [`blame::bad`].
    pub(crate) fn bad(
        self,
        wrong: Wrong<'_>,
        function: &str,
        why: &str,
        value: Option<c_int>,
    ) -> c_int {
        // SAFETY: a running state with slots free.
        unsafe { blame::bad(self.raw, wrong, function, why, value) }
    }

    /// Takes a value of this type out of the VM if that needs no table and no long text.
    #[inline]
    pub(crate) fn to_small_value(self, index: c_int, kind: c_int) -> Option<Value> {
        // SAFETY: a running state with slots free; the caller has looked at the type.
        unsafe { convert::to_small_value(self.raw, index, kind) }
    }

    /// Takes any other value of this type out of the VM.
    ///
    /// # Errors
    /// Why it cannot travel.
    pub(crate) fn to_large_value<B: convert::Buffers>(
        self,
        index: c_int,
        kind: c_int,
        scratch: &mut convert::Scratch,
    ) -> Result<Value, convert::Unsupported> {
        // SAFETY: a running state with slots free; the caller has looked at the type.
        unsafe { convert::to_large_value::<B>(self.raw, index, kind, scratch) }
    }
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

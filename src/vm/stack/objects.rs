//! Tables, functions and userdata on a stack.

use std::ffi::{CStr, c_int, c_void};

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::Stack;
use crate::vm::layout::{Live, Thread};

impl<'a> Stack<'a> {
    /// Pushes a table with room for as many entries of each sort.
    #[inline]
    pub fn push_table(self, list: usize, fields: usize) {
        vm!(self, lua_createtable, list as c_int, fields as c_int);
    }

    /// Sets an entry of the table at `index`: the key lies below the value, and both go.
    pub fn raw_set(self, index: c_int) {
        vm!(self, lua_rawset, index);
    }

    /// Gives what is at `index` the metatable on top, which goes.
    pub(crate) fn set_metatable(self, index: c_int) {
        vm!(self, lua_setmetatable, index);
    }

    /// Sets a global of scripts to what is on top, which goes.
    pub fn set_global(self, name: &CStr) {
        vm!(self, lua_setglobal, name.as_ptr());
    }

    /// Pushes a global of scripts.
    pub fn push_global(self, name: &CStr) {
        vm!(self, lua_getglobal_, name.as_ptr());
    }

    /// The address in a light userdata.
    pub(crate) fn light(self, index: c_int) -> usize {
        self.userdata(index) as usize
    }

    /// Where the content of a userdata is; null if it is none.
    #[inline]
    pub fn userdata(self, index: c_int) -> *mut c_void {
        vm!(self, lua_touserdata, index)
    }

    /// Pushes a field of the table at `index`, which has no metatable of a script's.
    #[inline]
    pub fn field(self, index: c_int, name: &CStr) {
        vm!(self, lua_getfield_, index, name.as_ptr());
    }

    /// Sets a field of the table at `index` to what is on top, which goes.
    #[inline]
    pub fn set_field(self, index: c_int, name: &CStr) {
        vm!(self, lua_setfield, index, name.as_ptr());
    }

    /// Pushes an entry of the table at `index`.
    #[inline]
    pub fn entry(self, index: c_int, at: i64) {
        vm!(self, lua_rawgeti_, index, at as c_int);
    }

    /// Sets an entry of the table at `index` to what is on top, which goes.
    #[inline]
    pub(crate) fn set_entry(self, index: c_int, at: i64) {
        vm!(self, lua_rawseti_, index, at as c_int);
    }

    /// The address of what is at an index, if it is an object.
    #[inline]
    pub(crate) fn address(self, index: c_int) -> *const c_void {
        vm!(self, lua_topointer, index)
    }

    /// Makes the metatable of userdata that hold keys, in this field of the registry, if it is not
    /// there: with a finaliser, hidden from scripts. `fill` adds to it, on top.
    pub(crate) fn make_metatable(self, name: &CStr, collect: lua_CFunction, fill: impl FnOnce()) {
        self.field(ffi::LUA_REGISTRYINDEX, name);
        if self.kind(-1) == ffi::LUA_TNIL {
            self.push_table(0, 4);
            self.push_function(collect);
            self.set_field(-2, c"__gc");
            self.push_boolean(false);
            self.set_field(-2, c"__metatable");
            fill();
            self.set_field(ffi::LUA_REGISTRYINDEX, name);
        }
        self.pop();
    }

    /// Pushes a userdata that holds `key`, with the metatable in this field of the registry.
    pub(crate) fn push_key(self, key: u64, metatable: &CStr) {
        let block = vm!(self, lua_newuserdata, size_of::<u64>());
        // SAFETY: the new block has room for the key.
        unsafe { block.cast::<u64>().write(key) };
        self.field(ffi::LUA_REGISTRYINDEX, metatable);
        self.set_metatable(-2);
    }

    /// The key in the userdata at `index`, if it has one of these metatables, and which.
    pub(crate) fn key_of(self, index: c_int, metatables: &[&CStr]) -> Option<(usize, u64)> {
        let top = self.top();
        if !self.metatable(index) {
            return None;
        }
        let which = metatables.iter().position(|name| {
            self.field(ffi::LUA_REGISTRYINDEX, name);
            let is_one = vm!(self, lua_rawequal, -1, top + 1) != 0;
            self.set_top(top + 1);
            is_one
        });
        self.set_top(top);
        let content = vm!(self, lua_touserdata, index).cast::<u64>();
        // SAFETY: only `push_key` gives userdata one of these metatables, with a key in it.
        which.map(|which| (which, unsafe { content.read() }))
    }

    /// Pushes the metatable of what is at `index`; false if it has none.
    pub(crate) fn metatable(self, index: c_int) -> bool {
        vm!(self, lua_getmetatable, index) != 0
    }

    /// Puts the entry of the table at `index` in the place of its key, which is on top.
    pub(crate) fn raw_get(self, index: c_int) {
        vm!(self, lua_rawget_, index);
    }

    /// Puts the next key and value of the table at `index` in the place of a key, nil for none;
    /// false, with nothing in its place, if there is none.
    #[inline]
    pub(crate) fn next(self, index: c_int) -> bool {
        vm!(self, lua_next, index) != 0
    }

    /// Moves what is on top down to this place.
    pub(crate) fn insert(self, index: c_int) {
        vm!(self, lua_insert, index);
    }

    /// Puts what is on top into this place.
    pub(crate) fn replace(self, index: c_int) {
        vm!(self, lua_replace, index);
    }

    /// Takes this value away.
    pub(crate) fn remove(self, index: c_int) {
        vm!(self, lua_remove, index);
    }

    pub(crate) fn push_integer(self, number: i64) {
        vm!(self, lua_pushinteger, number as _);
    }

    /// What LuaJIT takes for the place, level or count that is at an index: the whole number in a
    /// number or text there, a certain one for what is out of range or none, and 0 for anything
    /// else.
    pub(crate) fn whole(self, index: c_int) -> c_int {
        let number = self.number(index);
        // What this processor makes of a number that has no place.
        let is_in_range = -2_147_483_649.0 < number && number < 2_147_483_648.0;
        if cfg!(target_arch = "x86_64") && !is_in_range { c_int::MIN } else { number as c_int }
    }

    /// The same where LuaJIT takes the lower half of a longer number.
    pub(crate) fn whole_low(self, index: c_int) -> c_int {
        vm!(self, lua_tointeger_, index) as c_int
    }

    /// The same; `default` if there is nothing. Raises for anything else.
    pub(crate) fn optional_integer(self, index: c_int, default: i64) -> i64 {
        vm!(self, luaL_optinteger, index, default as _)
    }

    /// The whole number at an index; raises if there is none.
    pub(crate) fn check_integer(self, index: c_int) -> i64 {
        vm!(self, luaL_checkinteger, index)
    }

    /// The bytes of the string, or number, at an index; raises if it is neither.
    pub(crate) fn check_text(self, index: c_int) -> &'a [u8] {
        vm!(self, luaL_checklstring, index, std::ptr::null_mut());
        self.text(index).unwrap_or_default()
    }

    /// Takes away what is on top.
    #[inline]
    pub fn pop(self) {
        self.set_top(-2);
    }

    pub(crate) fn is_c_function(self, index: c_int) -> bool {
        vm!(self, lua_iscfunction, index) != 0
    }

    pub(crate) fn c_function(self, index: c_int) -> Option<lua_CFunction> {
        vm!(self, lua_tocfunction, index)
    }

    /// Gives the function, or userdata, at `index` the environment on top, which goes.
    pub(crate) fn set_environment(self, index: c_int) {
        vm!(self, lua_setfenv, index);
    }

    /// Pushes the environment of what is at `index`.
    pub(crate) fn environment(self, index: c_int) {
        vm!(self, lua_getfenv, index);
    }

    /// Raises if there is a value of another type at `index`.
    pub(crate) fn check_kind(self, index: c_int, kind: c_int) {
        vm!(self, luaL_checktype, index, kind);
    }

    /// Raises, as LuaJIT does, that an argument is wrong.
    pub(crate) fn wrong_argument(self, index: c_int, why: &CStr) -> ! {
        vm!(self, luaL_argerror, index, why.as_ptr());
        unreachable!("it has raised")
    }

    /// Raises a text, in which nothing is to be replaced, with the place that has called.
    pub(crate) fn place_and_raise(self, text: &CStr) -> ! {
        vm!(self, luaL_error, text.as_ptr());
        unreachable!("it has raised")
    }

    /// Makes room for as many values as a C function has; raises if there is none.
    pub(crate) fn want_room(self, slots: c_int, why: &CStr) {
        vm!(self, luaL_checkstack, slots, why.as_ptr());
    }

    /// Raises what is on top.
    pub(crate) fn raise_top(self) -> ! {
        vm!(self, lua_error)
    }

    /// Calls the function that lies below its arguments. Raises what it raises.
    pub(crate) fn call(self, arguments: c_int, results: c_int) {
        vm!(self, lua_call, arguments, results);
    }

    /// The arguments of the function in C that runs, and what was pushed since: as long as these
    /// stay where they are, which is what its author sees to.
    #[inline]
    pub(crate) fn arguments(self) -> &'a [Live<'a>] {
        let thread = self.raw.cast::<Thread>();
        // SAFETY: a running coroutine, which has its values between these two.
        unsafe {
            let (base, top) = ((*thread).base, (*thread).top);
            std::slice::from_raw_parts(base.cast(), top.offset_from_unsigned(base))
        }
    }

    /// How many values there are from this place on, up to the top.
    ///
    /// # Safety
    /// `base` must be a place on this stack.
    pub unsafe fn count_from(self, base: *const u64) -> c_int {
        // SAFETY: a live coroutine, whose top is on the stack that `base` is on.
        unsafe { (*self.raw.cast::<Thread>()).top.cast_const().offset_from(base.cast()) as c_int }
    }

    /// Puts what the table at `index` has for a key, which is on top, in its place; as a script
    /// finds it.
    pub(crate) fn look_up(self, index: c_int) {
        vm!(self, lua_gettable_, index);
    }

    /// Calls a function in C without arguments; returns the status, with what was raised on top.
    pub(crate) fn call_c_protected(self, function: lua_CFunction) -> c_int {
        vm!(self, lua_cpcall, function, std::ptr::null_mut())
    }

    /// Has the collector do one of the things of `lua_gc`; what that returns.
    pub(crate) fn control_collector(self, what: c_int) -> c_int {
        vm!(self, lua_gc, what, 0)
    }

    /// Pushes a new coroutine, and returns it.
    pub(crate) fn push_new_thread(self) -> *mut lua_State {
        vm!(self, lua_newthread)
    }

    /// Puts as many texts on top together to one.
    pub(crate) fn concat(self, count: c_int) {
        vm!(self, lua_concat, count);
    }

    /// Gives the bytecode of the Lua function on top, piece by piece; returns the status.
    pub(crate) fn dump<F: FnMut(&[u8])>(self, mut take: F) -> c_int {
        unsafe extern "C-unwind" fn write<F: FnMut(&[u8])>(
            _: *mut lua_State,
            piece: *const c_void,
            length: usize,
            take: *mut c_void,
        ) -> c_int {
            // SAFETY: what `dump` passes, and a piece of that length.
            unsafe { (*take.cast::<F>())(std::slice::from_raw_parts(piece.cast(), length)) };
            0
        }
        let top = self.top();
        let status = vm!(self, lua_dump, write::<F>, (&raw mut take).cast(), 0);
        // Without memory it leaves an error.
        self.set_top(top);
        status
    }

    /// Calls the function that lies below its arguments, protected; returns the status. `handler`
    /// is where the function is that makes something of errors, 0 for none.
    pub fn protected_call(self, arguments: c_int, results: c_int, handler: c_int) -> c_int {
        vm!(self, lua_pcall, arguments, results, handler)
    }

    /// Pushes the chunk of a text, or of bytecode of this VM's, or the message why there is none;
    /// returns the status.
    pub fn load_plain(self, text: &[u8], name: &CStr) -> c_int {
        vm!(self, luaL_loadbuffer, text.as_ptr().cast(), text.len(), name.as_ptr())
    }

    /// Pushes the chunk likewise; raises if there is none.
    pub(crate) fn load_or_raise(self, text: &[u8], name: &CStr) {
        if self.load_plain(text, name) != ffi::LUA_OK {
            self.raise_top();
        }
    }
}

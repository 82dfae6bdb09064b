//! What native functions tell of the coroutines that run.

use std::ffi::c_int;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::cut::may_leave;
use super::hook;
use super::stack::{Nil, Results, Stack, function};
use super::state::is_ours;
use crate::os::stdio::fork;
use crate::os::thread;

/// Functions for the table of natives.
pub(crate) const FUNCTIONS: &[(&std::ffi::CStr, lua_CFunction)] = &[
    (c"may_wait", function(may_wait)),
    (c"has_stack", function(has_stack)),
    (c"keep_parked", function(keep_parked)),
    (c"throw", throw),
];

/// Its address is where the registry has the table of coroutines that wait.
static PARKED: u8 = 0;

fn push_parked(lua: Stack<'_>) {
    lua.push_address((&raw const PARKED).cast_mut().cast());
    lua.raw_get(ffi::LUA_REGISTRYINDEX);
}

/// native.keep_parked(table): the coroutines that wait in a call of the library are keys of this.
fn keep_parked(lua: Stack<'_>) {
    lua.push_address((&raw const PARKED).cast_mut().cast());
    lua.push_copy(1);
    lua.raw_set(ffi::LUA_REGISTRYINDEX);
}

/// For C code that is about to resume a coroutine with the arguments on top: whether that waits
/// in a call of the library. Then a message is there instead.
pub fn refuse_resume(lua: Stack<'_>, arguments: c_int) -> bool {
    if !lua.is_ours() {
        return false;
    }
    let top = lua.top();
    // The driver is resumed once in every turn, and never waits so.
    if lua.raw() == lua.account().cut.driver() || !lua.has_room(2) {
        return false;
    }
    push_parked(lua);
    let is_parked = lua.kind(-1) == ffi::LUA_TTABLE && {
        lua.push_thread();
        lua.raw_get(-2);
        lua.boolean(-1)
    };
    lua.set_top(if is_parked { top - arguments } else { top });
    if is_parked {
        lua.push_text(b"cannot resume non-suspended coroutine");
    }
    is_parked
}

/// native.may_wait(root, resume): nothing if a wait gets from the coroutine that runs up to its
/// root. 1 if the C stack cannot be left, there or in between; 2 if C code has resumed one of those
/// coroutines; 3 if there is no root; 4 in an error handler, the function that `xpcall` was given;
/// 5 in a process that was forked off; 6 in a coroutine that an error handler has resumed. `resume`
/// is what the library resumes coroutines with.
#[inline]
fn may_wait(lua: Stack<'_>) -> Option<u8> {
    Some(why_not_wait(lua)).filter(|&why| why != 0)
}

/// For functions with the arguments of [`may_wait`] before their own: if a wait does not get up to
/// the root, the number of results that they are to return.
#[inline]
pub(crate) fn refuse_wait(lua: Stack<'_>) -> Option<c_int> {
    may_wait(lua).map(|why| (Nil, why).give(lua))
}

const IN_CHILD: u8 = 5;

unsafe extern "C-unwind" {
    /// LuaJIT's: leaves what is protected innermost, with the error on top of the stack.
    fn lj_err_throw(raw: *mut lua_State, code: c_int) -> !;
}

/// native.throw(text): raises, in an error handler too, where the VM would replace any error by one
/// of its own that tells nothing: no handler is called.
unsafe extern "C-unwind" fn throw(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with this argument, which is on top of the stack. Nothing is live
    // here that would have to be dropped.
    unsafe {
        ffi::lua_settop(raw, 1);
        lj_err_throw(raw, ffi::LUA_ERRRUN)
    }
}

/// What [`may_wait`] returns, or 0. The first arguments are a coroutine and a function.
#[inline]
fn why_not_wait(lua: Stack<'_>) -> u8 {
    match lua.thread(1) {
        _ if fork::is_child() => IN_CHILD,
        None => 3,
        // SAFETY: called by the VM, in the coroutine that runs, with a live one of its state.
        Some(root) => unsafe { may_leave(lua.raw(), root.raw(), || lua.address(2)) },
    }
}

#[cfg(renames)]
unsafe extern "C-unwind" {
    /// LuaJIT's `lua_yield`: see .cargo/config.toml.
    #[link_name = "node_lua_vm_yield"]
    pub(crate) fn vm_yield(raw: *mut lua_State, results: c_int) -> c_int;
}
#[cfg(not(renames))]
pub(crate) use mlua::ffi::lua_yield as vm_yield;

/// What C modules call to yield. In a root coroutine, which counts as the main one, that raises, as
/// it does in plain Lua.
///
/// # Safety
/// As for LuaJIT's function of this name.
#[cfg(renames)]
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn lua_yield(raw: *mut lua_State, results: c_int) -> c_int {
    const TEXT: &std::ffi::CStr = c"attempt to yield across C-call boundary: a C function yields \
        outside of any coroutine; call it in one (coroutine.wrap)";
    // SAFETY: the coroutine that runs is to yield. What is live in the caller is left as by any
    // error.
    unsafe {
        if is_ours(raw) && super::cut::is_root(raw) {
            ffi::luaL_error(raw, TEXT.as_ptr());
        }
        vm_yield(raw, results)
    }
}

/// native.has_stack(): whether another coroutine may run inside those that do.
fn has_stack(lua: Stack<'_>) -> bool {
    thread::has_stack() && thread::may_nest(hook::stack_max(lua.account()))
}

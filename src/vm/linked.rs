//! What of LuaJIT runs long without an instruction of a script in between, and ends when its
//! context does, or is fast.
//!
//! The linker leads calls between LuaJIT's own files here (build.rs): sorting a table compares, the
//! compiler asks for one token after the other, each a place to look whether the context ends.
//! Finding a text in another takes time as their lengths together say, not their product.
//!
//! Other libraries find functions of the system here, too: those that set handlers of signals; and
//! `luaL_openlibs`.

#![allow(unsafe_code, reason = "what LuaJIT calls")]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};

use memchr::memmem;
use mlua::ffi::{self, lua_Hook, lua_State};
use node_lua::os::{stdio, thread};
use node_lua::vm::layout::Lexer;
use node_lua::vm::stack::Stack;
use node_lua::vm::{coroutine, finaliser, hook, line_hook, standard};

unsafe extern "C-unwind" {
    fn __real_lua_lessthan(raw: *mut lua_State, left: c_int, right: c_int) -> c_int;
    fn __real_lua_call(raw: *mut lua_State, arguments: c_int, results: c_int);
    fn __real_lj_vm_resume(
        raw: *mut lua_State,
        base: *mut u64,
        results: c_int,
        handler: isize,
    ) -> c_int;
    fn __real_lj_vm_call(raw: *mut lua_State, base: *mut c_void, results: c_int);
    fn __real_lj_lex_next(lexer: *mut Lexer);
    #[cfg_attr(renames, link_name = "__real_node_lua_vm_sethook")]
    fn __real_lua_sethook(
        raw: *mut lua_State,
        hook: Option<lua_Hook>,
        mask: c_int,
        count: c_int,
    ) -> c_int;
    fn __real_lua_gethook(raw: *mut lua_State) -> Option<lua_Hook>;
    fn __real_lua_gethookmask(raw: *mut lua_State) -> c_int;
    fn __real_lj_vm_pcall(
        raw: *mut lua_State,
        base: *mut c_void,
        results: c_int,
        handler: isize,
    ) -> c_int;
}

unsafe extern "C" {
    fn __real_dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// What our library and Rust's look up, none of which prints.
const SILENT: [&CStr; 3] = [c"memchr", c"__pthread_get_minstack", c"gnu_get_libc_version"];

/// `dlsym`: what a script, or a module in C, finds by it may print.
///
/// # Safety
/// As that function's.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: `dlsym` takes a terminated text; the arguments are handed on.
    unsafe {
        if !SILENT.contains(&CStr::from_ptr(name)) {
            stdio::use_stream();
        }
        __real_dlsym(library, name)
    }
}

/// Calls of what is quick itself between two looks.
const CALLS: u32 = 16;

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

/// Looks from time to time whether the context ends.
#[inline]
fn look_seldom(lua: Stack<'_>) {
    COUNT.set(COUNT.get().wrapping_add(1));
    if COUNT.get().is_multiple_of(CALLS) {
        lua.look();
    }
}

/// `lua_lessthan`, of which `table.sort` makes as many calls as the square of what it sorts.
///
/// # Safety
/// As that function's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_lua_lessthan(
    raw: *mut lua_State,
    left: c_int,
    right: c_int,
) -> c_int {
    // SAFETY: the arguments of `lua_lessthan`, handed on, in the coroutine that has called it.
    unsafe {
        look_seldom(Stack::new(raw));
        __real_lua_lessthan(raw, left, right)
    }
}

/// `lua_call`: what is called may be in C again. `debug.sethook` calls hooks by it, with two
/// arguments for no result.
///
/// # Safety
/// As that function's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_lua_call(raw: *mut lua_State, arguments: c_int, results: c_int) {
    // SAFETY: the arguments of `lua_call`, handed on, in the coroutine that has called it; or the
    // function and its two arguments are taken off the stack.
    unsafe {
        let lua = Stack::new(raw);
        lua.look();
        if (arguments, results) == (2, 0) && lua.is_hook_inside() {
            return lua.set_top(-4);
        }
        __real_lua_call(raw, arguments, results);
    }
}

/// `lj_vm_call`, by which all C functions call others, metamethods included: these may nest until
/// the C stack that the state may use is used up.
///
/// # Safety
/// As that function's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_lj_vm_call(
    raw: *mut lua_State,
    base: *mut c_void,
    results: c_int,
) {
    // SAFETY: the arguments of `lj_vm_call`, handed on, in the coroutine that has called it.
    unsafe {
        if thread::is_deep() {
            Stack::new(raw).check_depth();
        }
        __real_lj_vm_call(raw, base, results);
    }
}

/// `lj_vm_resume`, by which C code resumes coroutines: one that waits in a call of the library is
/// not suspended, as far as a script can tell.
///
/// # Safety
/// As that function's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_lj_vm_resume(
    raw: *mut lua_State,
    base: *mut u64,
    results: c_int,
    handler: isize,
) -> c_int {
    // SAFETY: `lua_resume` passes a coroutine that does not run, and where its arguments begin.
    unsafe {
        let lua = Stack::new(raw);
        if coroutine::refuse_resume(lua, lua.count_from(base)) {
            return ffi::LUA_ERRRUN;
        }
        __real_lj_vm_resume(raw, base, results, handler)
    }
}

/// `lua_sethook`, for `debug.sethook`.
///
/// # Safety
/// As that function's.
#[cfg_attr(renames, unsafe(export_name = "__wrap_node_lua_vm_sethook"))]
#[cfg_attr(not(renames), unsafe(no_mangle))]
unsafe extern "C" fn __wrap_lua_sethook(
    raw: *mut lua_State,
    hook: Option<lua_Hook>,
    mask: c_int,
    count: c_int,
) -> c_int {
    // SAFETY: the arguments of `lua_sethook`, handed on: a live state of this thread's.
    hook::set_undisturbed(|| unsafe {
        let (hook, mask) = line_hook::instead(raw, hook, mask);
        __real_lua_sethook(raw, hook, mask, count)
    })
}

/// `lua_gethook`, for `debug.gethook`.
///
/// # Safety
/// As that function's.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_lua_gethook(raw: *mut lua_State) -> Option<lua_Hook> {
    // SAFETY: the argument of `lua_gethook`, handed on: a live state of this thread's.
    unsafe {
        let found = __real_lua_gethook(raw);
        line_hook::behind(raw, found).map_or(found, |set| Some(set.hook))
    }
}

/// `lua_gethookmask`, likewise.
///
/// # Safety
/// As that function's.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_lua_gethookmask(raw: *mut lua_State) -> c_int {
    // SAFETY: the argument of `lua_gethookmask`, handed on: a live state of this thread's.
    unsafe {
        let set = line_hook::behind(raw, __real_lua_gethook(raw));
        set.map_or_else(|| __real_lua_gethookmask(raw), |set| set.mask)
    }
}

/// `luaL_openlibs`, which modules in C find here and not in LuaJIT.
///
/// # Safety
/// As that function's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn luaL_openlibs(raw: *mut lua_State) {
    // SAFETY: the coroutine that calls the module, with the slots that any C function has; or a
    // state of the module's own.
    standard::open_for_module(unsafe { Stack::new(raw) });
}

/// Handlers of signals, in this process: those of C modules are called on the thread that runs
/// their state.
mod signals {
    use std::ffi::c_int;

    use node_lua::vm::foreign_signals;

    /// The system's function of this name, which all libraries find here.
    ///
    /// # Safety
    /// As that function's.
    #[unsafe(no_mangle)]
    unsafe extern "C-unwind" fn sigaction(
        signal: c_int,
        new: *const libc::sigaction,
        old: *mut libc::sigaction,
    ) -> c_int {
        // SAFETY: the arguments, handed on.
        unsafe { foreign_signals::set(signal, new, old) }
    }

    /// Likewise.
    ///
    /// # Safety
    /// As that function's.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn kill(process: libc::pid_t, signal: c_int) -> c_int {
        // SAFETY: the arguments, handed on.
        unsafe { foreign_signals::send(process, signal) }
    }

    /// Likewise, with the meaning that it has in glibc.
    ///
    /// # Safety
    /// As that function's.
    #[unsafe(no_mangle)]
    unsafe extern "C-unwind" fn signal(signal: c_int, handler: usize) -> usize {
        // SAFETY: all zero is an action; places for actions.
        unsafe {
            let mut new: libc::sigaction = std::mem::zeroed();
            let mut old = new;
            new.sa_sigaction = handler;
            new.sa_flags = libc::SA_RESTART;
            match foreign_signals::set(signal, &raw const new, &raw mut old) {
                0 => old.sa_sigaction,
                _ => libc::SIG_ERR,
            }
        }
    }
}

/// `lj_vm_pcall`: of those who call it only the collector has its handler inherited.
///
/// # Safety
/// As that function's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_lj_vm_pcall(
    raw: *mut lua_State,
    base: *mut c_void,
    results: c_int,
    handler: isize,
) -> c_int {
    // SAFETY: the arguments of `lj_vm_pcall`, handed on; the collector's stack is as
    // `finaliser::call` wants it.
    unsafe {
        let done = if handler < 0 { finaliser::call(raw) } else { None };
        done.unwrap_or_else(|| __real_lj_vm_pcall(raw, base, results, handler))
    }
}

/// `lj_lex_next`, for each token of a text that is compiled.
///
/// # Safety
/// As that function's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_lj_lex_next(lexer: *mut Lexer) {
    // SAFETY: the compiler's state is alive; it is called in protected mode, by that coroutine.
    unsafe {
        look_seldom(Stack::new((*lexer).state));
        __real_lj_lex_next(lexer);
    }
}

/// `lj_str_find`: where a text begins in another, or null.
///
/// # Safety
/// `text` must have `text_len` bytes, and `part` `part_len`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_lj_str_find(
    text: *const c_char,
    part: *const c_char,
    text_len: u32,
    part_len: u32,
) -> *const c_char {
    // SAFETY: LuaJIT passes two texts with their lengths.
    unsafe {
        let all = std::slice::from_raw_parts(text.cast(), text_len as usize);
        let part = std::slice::from_raw_parts(part.cast(), part_len as usize);
        memmem::find(all, part).map_or(std::ptr::null(), |at| text.add(at))
    }
}

/// What may add a key to a table: see `vm/tables.rs`, which knows where LuaJIT puts keys on this
/// processor.
#[cfg(target_arch = "x86_64")]
mod tables {
    use mlua::ffi::lua_State;
    use node_lua::vm::layout::Table;

    unsafe extern "C-unwind" {
        fn __real_lj_tab_newkey(
            raw: *mut lua_State,
            table: *mut Table,
            key: *const u64,
        ) -> *mut u64;
        fn __real_lj_tab_set(raw: *mut lua_State, table: *mut Table, key: *const u64) -> *mut u64;
        fn __real_lj_tab_setinth(raw: *mut lua_State, table: *mut Table, key: i32) -> *mut u64;
        fn __real_lj_tab_reasize(raw: *mut lua_State, table: *mut Table, len: u32);
    }

    /// `lj_tab_newkey`, for a key that is not in the table.
    ///
    /// # Safety
    /// As that function's, like those that follow.
    #[unsafe(no_mangle)]
    unsafe extern "C-unwind" fn __wrap_lj_tab_newkey(
        raw: *mut lua_State,
        table: *mut Table,
        key: *const u64,
    ) -> *mut u64 {
        // SAFETY: LuaJIT passes a live table and a key that is not in it.
        unsafe {
            if (*table).may_be_crowded() {
                (*table).prepare(raw, *key);
            }
            __real_lj_tab_newkey(raw, table, key)
        }
    }

    /// `lj_tab_set`, for a key that may be there.
    #[unsafe(no_mangle)]
    unsafe extern "C-unwind" fn __wrap_lj_tab_set(
        raw: *mut lua_State,
        table: *mut Table,
        key: *const u64,
    ) -> *mut u64 {
        // SAFETY: LuaJIT passes a live table and a key.
        unsafe {
            if (*table).may_be_crowded() {
                (*table).prepare_if_new(raw, *key);
            }
            __real_lj_tab_set(raw, table, key)
        }
    }

    /// `lj_tab_setinth`, for an integer that is not in the array.
    #[unsafe(no_mangle)]
    unsafe extern "C-unwind" fn __wrap_lj_tab_setinth(
        raw: *mut lua_State,
        table: *mut Table,
        key: i32,
    ) -> *mut u64 {
        // SAFETY: LuaJIT passes a live table.
        unsafe {
            if (*table).may_be_crowded() {
                (*table).prepare_if_new(raw, f64::from(key).to_bits());
            }
            __real_lj_tab_setinth(raw, table, key)
        }
    }

    /// `lj_tab_reasize`: makes the array longer.
    #[unsafe(no_mangle)]
    unsafe extern "C-unwind" fn __wrap_lj_tab_reasize(
        raw: *mut lua_State,
        table: *mut Table,
        len: u32,
    ) {
        // SAFETY: LuaJIT passes a live table, whose array is to become longer.
        unsafe {
            (*table).check_chains(raw);
            __real_lj_tab_reasize(raw, table, len);
        }
    }
}

//! What scripts can see of the stack and of functions, as plain LuaJIT shows it.
//!
//! The library has put Lua in the place of some functions that are C in LuaJIT, and its own
//! functions are Lua too. To scripts all of them are C functions: here are the functions of `debug`
//! that would tell, and the text of a traceback. `disguise.rs` has the other half.
//!
//! A function of the library takes one frame to scripts, the one that they have called. What it
//! calls is not shown, until a script's function is called.

use std::ffi::{CStr, c_char, c_int};
use std::mem::{MaybeUninit, size_of};
use std::sync::OnceLock;

use mlua::ffi::{self, lua_CFunction, lua_Debug, lua_State};

use super::disguise::{BENEATH, CHUNK_NAME, STAND_IN};
use super::frames::is_hidden;
use super::strings;
use super::traceback::traceback;

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Script,
    C,
    /// Of the library; each of its frames stands for one of LuaJIT's.
    StandIn,
    /// Of the library.
    Library,
    /// Of the library, below the main script: never shown.
    Beneath,
}

impl Kind {
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Kind::StandIn | Kind::Library | Kind::Beneath)
    }
}

/// Bytes of a C function's object before the address of its code, and its number among the built-in
/// ones. `replace` compares the former.
const CODE_OFFSET: usize = 40;
pub(crate) const NUMBER_OFFSET: usize = 10;

/// Of built-in functions the number is above that of Lua's and C's.
pub(crate) const BUILT_IN: u8 = 2;

pub(crate) type Original = OnceLock<lua_CFunction>;

static GETINFO: Original = OnceLock::new();
static TRACEBACK: Original = OnceLock::new();
static GETLOCAL: Original = OnceLock::new();
static SETLOCAL: Original = OnceLock::new();
static GETUPVALUE: Original = OnceLock::new();
static SETUPVALUE: Original = OnceLock::new();
static UPVALUEID: Original = OnceLock::new();
static UPVALUEJOIN: Original = OnceLock::new();
static DUMP: Original = OnceLock::new();
static GETFENV: Original = OnceLock::new();
static SETFENV: Original = OnceLock::new();

/// Gives built-in functions of this state other code. They stay the same objects: to the VM, and to
/// `tostring`, nothing has happened.
///
/// # Safety
/// `raw` must be a fresh state with its libraries open and stack slots free. May raise.
pub(crate) unsafe fn install(raw: *mut lua_State) {
    // For the test that looks at the library's functions from outside (tests/language_reach.rs).
    if cfg!(debug_assertions) && std::env::var_os("NODE_LUA_BARE").is_some() {
        return;
    }
    let debug: [(&CStr, lua_CFunction, &'static Original); 8] = [
        (c"getinfo", getinfo, &GETINFO),
        (c"traceback", debug_traceback, &TRACEBACK),
        (c"getlocal", getlocal, &GETLOCAL),
        (c"setlocal", setlocal, &SETLOCAL),
        (c"getupvalue", getupvalue, &GETUPVALUE),
        (c"setupvalue", setupvalue, &SETUPVALUE),
        (c"upvalueid", upvalueid, &UPVALUEID),
        (c"upvaluejoin", upvaluejoin, &UPVALUEJOIN),
    ];
    // SAFETY: the caller's contract; the stack is left as it was.
    unsafe {
        ffi::lua_getglobal(raw, c"debug".as_ptr());
        for (name, code, original) in debug {
            replace(raw, name, code, original);
        }
        ffi::lua_getglobal(raw, c"string".as_ptr());
        replace(raw, c"dump", dump, &DUMP);
        strings::install(raw);
        ffi::lua_pushvalue(raw, ffi::LUA_GLOBALSINDEX);
        replace(raw, c"getfenv", getfenv, &GETFENV);
        replace(raw, c"setfenv", setfenv, &SETFENV);
        ffi::lua_settop(raw, -4);
    }
}

/// Gives the built-in function of this name in the table on top other code.
pub(crate) unsafe fn replace(
    raw: *mut lua_State,
    name: &CStr,
    code: lua_CFunction,
    original: &'static Original,
) {
    // SAFETY: a live state with a table on top. Any function's object is longer than what is
    // compared of it; only where the address of its code is found is it written.
    unsafe {
        ffi::lua_getfield(raw, -1, name.as_ptr());
        if let Some(before) = ffi::lua_tocfunction(raw, -1) {
            let object = ffi::lua_topointer(raw, -1).cast::<u8>().cast_mut();
            let place = object.add(CODE_OFFSET).cast::<lua_CFunction>();
            if object.add(NUMBER_OFFSET).read() >= BUILT_IN
                && place.cast::<usize>().read() == before as usize
            {
                original.get_or_init(|| before);
                place.write(code);
            }
        }
        ffi::lua_settop(raw, -2);
    }
}

/// Has the code that was replaced do the rest.
pub(crate) unsafe fn go_on(raw: *mut lua_State, original: &Original) -> c_int {
    // SAFETY: the function is called in our place, with our arguments. It has been stored before
    // ours could be called.
    original.get().map_or(0, |code| unsafe { code(raw) })
}

/// What the library itself asks about functions.
pub(crate) const FUNCTIONS: &[(&CStr, lua_CFunction)] =
    &[(c"frames", frames), (c"loading", loading), (c"show", show_instead)];

/// native.frames(f[, co]): how many calls of f are under way in a coroutine, this one or another,
/// and the coroutine.
unsafe extern "C-unwind" fn frames(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with these arguments.
    unsafe {
        let wanted = ffi::lua_topointer(raw, 1);
        let other = ffi::lua_tothread(raw, 2);
        let of = if other.is_null() { raw } else { other };
        // What has ended by an error still has its frames.
        let is_alive = ffi::lua_status(of) <= ffi::LUA_YIELD;
        let (mut count, mut level) = (0, 0);
        while is_alive
            && has_room(raw, of)
            && let Some((mut found, _)) = frame(of, level)
        {
            ffi::lua_getinfo(of, c"f".as_ptr(), &mut found);
            count += i64::from(ffi::lua_topointer(of, -1) == wanted);
            ffi::lua_settop(of, -2);
            level += 1;
        }
        ffi::lua_pushinteger(raw, count);
        if other.is_null() {
            ffi::lua_pushthread(raw);
        } else {
            ffi::lua_pushvalue(raw, 2);
        }
    }
    2
}

/// native.loading(): what is in package.loaded in the place of a module that is being loaded.
unsafe extern "C-unwind" fn loading(raw: *mut lua_State) -> c_int {
    // What LuaJIT's own `require` puts there: a number that no computation has as its result.
    const SENTINEL: u64 = 0x8100_0000_0000_0073;
    // SAFETY: called by the VM.
    unsafe { ffi::lua_pushnumber(raw, f64::from_bits(SENTINEL)) };
    1
}

/// native.show(f, g): to scripts, f is g.
unsafe extern "C-unwind" fn show_instead(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with two functions.
    unsafe {
        ffi::lua_settop(raw, 2);
        ffi::lua_getfield(raw, ffi::LUA_REGISTRYINDEX, SHOWN.as_ptr());
        if ffi::lua_type(raw, -1) != ffi::LUA_TTABLE {
            ffi::lua_settop(raw, 2);
            ffi::lua_createtable(raw, 0, 2);
            ffi::lua_pushvalue(raw, -1);
            ffi::lua_setfield(raw, ffi::LUA_REGISTRYINDEX, SHOWN.as_ptr());
        }
        ffi::lua_insert(raw, 1);
        ffi::lua_rawset(raw, 1);
    }
    0
}

/// The kind of what `lua_getinfo` has been asked for with "S".
unsafe fn kind_of(found: &lua_Debug) -> Kind {
    // SAFETY: the VM's texts are terminated, and live as long as the function.
    unsafe {
        if *found.what.cast::<u8>() == b'C' {
            return Kind::C;
        }
        if CStr::from_ptr(found.source).to_bytes() != CHUNK_NAME.to_bytes() {
            return Kind::Script;
        }
    }
    match found.linedefined {
        STAND_IN => Kind::StandIn,
        BENEATH => Kind::Beneath,
        _ => Kind::Library,
    }
}

/// The frame at a level of a coroutine, if there is one.
pub(crate) unsafe fn frame(of: *mut lua_State, level: c_int) -> Option<(lua_Debug, Kind)> {
    let mut found = MaybeUninit::<lua_Debug>::zeroed();
    // SAFETY: a live state. All zeros are a valid record, which the VM fills.
    unsafe {
        if level < 0 || ffi::lua_getstack(of, level, found.as_mut_ptr()) == 0 {
            return None;
        }
        ffi::lua_getinfo(of, c"S".as_ptr(), found.as_mut_ptr());
        let found = found.assume_init();
        let kind = kind_of(&found);
        Some((found, kind))
    }
}

/// The kind of the function at an index, if it is one.
unsafe fn function_kind(raw: *mut lua_State, index: c_int) -> Option<Kind> {
    let mut found = MaybeUninit::<lua_Debug>::zeroed();
    // SAFETY: a live state, called from C, so that stack slots are free; "S" takes the function.
    unsafe {
        if ffi::lua_type(raw, index) != ffi::LUA_TFUNCTION {
            return None;
        }
        ffi::lua_pushvalue(raw, index);
        ffi::lua_getinfo(raw, c">S".as_ptr(), found.as_mut_ptr());
        Some(kind_of(&found.assume_init()))
    }
}

unsafe fn is_ours(raw: *mut lua_State, index: c_int) -> bool {
    // SAFETY: the caller's.
    unsafe { function_kind(raw, index) }.is_some_and(Kind::is_ours)
}

/// Whether the frame was called by the library: then its name is not known, as if C had called it.
pub(crate) unsafe fn has_no_name(of: *mut lua_State, level: c_int) -> bool {
    // SAFETY: the caller's.
    unsafe { frame(of, level + 1) }.is_some_and(|(_, kind)| kind.is_ours())
}

/// Whether a function can be pushed onto the stack of another coroutine.
pub(crate) unsafe fn has_room(raw: *mut lua_State, of: *mut lua_State) -> bool {
    // SAFETY: the caller's. C functions have slots free.
    raw == of || unsafe { ffi::lua_checkstack(of, 2) } != 0
}

/// The level in a coroutine of what scripts see as this one.
unsafe fn real_level(of: *mut lua_State, level: c_int) -> c_int {
    let (mut real, mut left) = (0, level);
    // SAFETY: the caller's.
    unsafe {
        while frame(of, real).is_some() {
            if !is_hidden(of, real) {
                if left == 0 {
                    return real;
                }
                left -= 1;
            }
            real += 1;
        }
    }
    real
}

/// The coroutine that a function of `debug` is asked about, and how many arguments that takes. The
/// level in the next argument is made a real one.
unsafe fn subject(raw: *mut lua_State) -> (*mut lua_State, c_int) {
    // SAFETY: called by the VM.
    unsafe {
        let of = ffi::lua_tothread(raw, 1);
        if of.is_null() {
            return (raw, 0);
        }
        if of != raw && ffi::lua_isnumber(raw, 2) != 0 && has_room(raw, of) {
            let level = ffi::lua_tointeger(raw, 2).clamp(-1, c_int::MAX as i64) as c_int;
            if level >= 0 {
                ffi::lua_pushinteger(raw, real_level(of, level) as i64);
                ffi::lua_replace(raw, 2);
            }
        }
        (of, 1)
    }
}

unsafe fn level(raw: *mut lua_State, index: c_int) -> c_int {
    // SAFETY: called by the VM, with a number there.
    unsafe { ffi::lua_tointeger(raw, index).clamp(-1, c_int::MAX as i64) as c_int }
}

/// debug.getinfo
unsafe extern "C-unwind" fn getinfo(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; the table on top is the one that was just made.
    unsafe {
        let (of, shift) = subject(raw);
        let (mut kind, mut is_nameless) = (function_kind(raw, shift + 1), false);
        if kind.is_none() && ffi::lua_isnumber(raw, shift + 1) != 0 {
            let level = level(raw, shift + 1);
            kind = frame(of, level).map(|(_, kind)| kind);
            is_nameless = has_no_name(of, level);
        }
        let results = go_on(raw, &GETINFO);
        if results != 1 || ffi::lua_type(raw, -1) != ffi::LUA_TTABLE {
            return results;
        }
        if is_nameless && has(raw, c"namewhat") {
            set(raw, c"namewhat", || ffi::lua_pushstring(raw, c"".as_ptr()));
            set(raw, c"name", || ffi::lua_pushnil(raw));
        }
        if !kind.is_some_and(Kind::is_ours) {
            return results;
        }
        if has(raw, c"what") {
            set(raw, c"what", || ffi::lua_pushstring(raw, c"C".as_ptr()));
            set(raw, c"linedefined", || ffi::lua_pushinteger(raw, -1));
            set(raw, c"lastlinedefined", || ffi::lua_pushinteger(raw, -1));
        }
        if has(raw, c"currentline") {
            set(raw, c"currentline", || ffi::lua_pushinteger(raw, -1));
        }
        if has(raw, c"nups") {
            set(raw, c"nups", || ffi::lua_pushinteger(raw, 0));
            set(raw, c"nparams", || ffi::lua_pushinteger(raw, 0));
            set(raw, c"isvararg", || ffi::lua_pushboolean(raw, 1));
        }
        set(raw, c"activelines", || ffi::lua_pushnil(raw));
        if has(raw, c"func") {
            shown(raw);
        }
        results
    }
}

/// Whether the table on top has a field.
unsafe fn has(raw: *mut lua_State, name: &CStr) -> bool {
    // SAFETY: a table of our own is on top.
    unsafe {
        ffi::lua_getfield(raw, -1, name.as_ptr());
        let is_there = ffi::lua_type(raw, -1) != ffi::LUA_TNIL;
        ffi::lua_settop(raw, -2);
        is_there
    }
}

unsafe fn set<R>(raw: *mut lua_State, name: &CStr, push: impl FnOnce() -> R) {
    push();
    // SAFETY: a table of our own, and the value above it.
    unsafe { ffi::lua_setfield(raw, -2, name.as_ptr()) };
}

/// The registry field of a table: function of the library → the one that scripts know in its place.
pub(crate) const SHOWN: &CStr = c"node-lua.shown";

/// Puts the function that scripts know in the place of `func` in the table on top.
unsafe fn shown(raw: *mut lua_State) {
    // SAFETY: the table of `getinfo` is on top, which has that field.
    unsafe {
        ffi::lua_getfield(raw, ffi::LUA_REGISTRYINDEX, SHOWN.as_ptr());
        if ffi::lua_type(raw, -1) != ffi::LUA_TTABLE {
            ffi::lua_settop(raw, -2);
            return;
        }
        ffi::lua_getfield(raw, -2, c"func".as_ptr());
        ffi::lua_rawget(raw, -2);
        ffi::lua_remove(raw, -2);
        if ffi::lua_type(raw, -1) == ffi::LUA_TFUNCTION {
            ffi::lua_setfield(raw, -2, c"func".as_ptr());
        } else {
            ffi::lua_settop(raw, -2);
        }
    }
}

/// Whether a function of `debug` that looks into a frame is asked about one of the library's.
unsafe fn looks_inside(raw: *mut lua_State) -> bool {
    // SAFETY: called by the VM.
    unsafe {
        let (of, shift) = subject(raw);
        if ffi::lua_isnumber(raw, shift + 1) != 0 {
            return frame(of, level(raw, shift + 1)).is_some_and(|(_, kind)| kind.is_ours());
        }
        is_ours(raw, shift + 1)
    }
}

/// debug.getlocal
unsafe extern "C-unwind" fn getlocal(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        if looks_inside(raw) {
            ffi::lua_pushnil(raw);
            return 1;
        }
        go_on(raw, &GETLOCAL)
    }
}

/// debug.setlocal
unsafe extern "C-unwind" fn setlocal(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        if looks_inside(raw) {
            ffi::lua_pushnil(raw);
            return 1;
        }
        go_on(raw, &SETLOCAL)
    }
}

/// debug.getupvalue
unsafe extern "C-unwind" fn getupvalue(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe { if is_ours(raw, 1) { 0 } else { go_on(raw, &GETUPVALUE) } }
}

/// debug.setupvalue
unsafe extern "C-unwind" fn setupvalue(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe { if is_ours(raw, 1) { 0 } else { go_on(raw, &SETUPVALUE) } }
}

/// Has a C function without upvalues stand where a function of the library does.
unsafe fn make_c(raw: *mut lua_State, index: c_int) {
    unsafe extern "C-unwind" fn nothing(_raw: *mut lua_State) -> c_int {
        0
    }
    // SAFETY: called by the VM.
    unsafe {
        if is_ours(raw, index) {
            ffi::lua_pushcfunction(raw, nothing);
            ffi::lua_replace(raw, index);
        }
    }
}

/// debug.upvalueid
unsafe extern "C-unwind" fn upvalueid(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        make_c(raw, 1);
        go_on(raw, &UPVALUEID)
    }
}

/// debug.upvaluejoin
unsafe extern "C-unwind" fn upvaluejoin(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        make_c(raw, 1);
        make_c(raw, 3);
        go_on(raw, &UPVALUEJOIN)
    }
}

/// string.dump
unsafe extern "C-unwind" fn dump(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        make_c(raw, 1);
        go_on(raw, &DUMP)
    }
}

/// getfenv
unsafe extern "C-unwind" fn getfenv(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        let found = match ffi::lua_type(raw, 1) {
            ffi::LUA_TFUNCTION => is_ours(raw, 1),
            ffi::LUA_TNUMBER => frame(raw, level(raw, 1)).is_some_and(|(_, kind)| kind.is_ours()),
            _ => false,
        };
        if !found {
            return go_on(raw, &GETFENV);
        }
        ffi::lua_pushvalue(raw, ffi::LUA_GLOBALSINDEX);
    }
    1
}

/// setfenv
unsafe extern "C-unwind" fn setfenv(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        if ffi::lua_isnumber(raw, 1) != 0 && ffi::lua_type(raw, 2) == ffi::LUA_TTABLE {
            let level = level(raw, 1);
            if level > 0
                && let Some((mut found, kind)) = frame(raw, level)
                && kind.is_ours()
            {
                ffi::lua_getinfo(raw, c"f".as_ptr(), &mut found);
                ffi::lua_replace(raw, 1);
            }
        }
        make_c(raw, 1);
        go_on(raw, &SETFENV)
    }
}

/// debug.traceback
unsafe extern "C-unwind" fn debug_traceback(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; texts are copied before the stack changes.
    unsafe {
        let (of, shift) = match ffi::lua_tothread(raw, 1) {
            of if of.is_null() => (raw, 0),
            of => (of, 1),
        };
        let mut length = 0;
        let text = ffi::lua_tolstring(raw, shift + 1, &mut length);
        if text.is_null() && ffi::lua_gettop(raw) > shift {
            ffi::lua_settop(raw, shift + 1);
            return 1;
        }
        let default = i64::from(of == raw);
        let level = ffi::luaL_optinteger(raw, shift + 2, default);
        let level = level.clamp(c_int::MIN as i64, c_int::MAX as i64) as c_int;
        let mut trace = Vec::new();
        if !text.is_null() {
            trace.extend_from_slice(std::slice::from_raw_parts(text.cast::<u8>(), length));
            trace.push(b'\n');
        }
        let level = if of == raw || level < 0 || !has_room(raw, of) {
            level
        } else {
            real_level(of, level)
        };
        traceback(raw, of, level, &mut trace);
        ffi::lua_pushlstring(raw, trace.as_ptr().cast::<c_char>(), trace.len());
    }
    1
}

const _: () = assert!(size_of::<lua_CFunction>() == size_of::<usize>());

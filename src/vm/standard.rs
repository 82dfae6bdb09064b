//! The standard libraries of a context, of which most are opened when its script first looks one
//! up: many contexts need none, and all take 15 KiB.
//!
//! Until then the table of globals has a metatable, and lacks those functions by which a script
//! could see it, or look through the table, as `next`. Who looks one of these up finds everything
//! in its place, and no metatable: so scripts see what LuaJIT shows.

use std::ffi::{CStr, c_int};

use mlua::ffi::{self, lua_CFunction};

use super::kept::Kept;
use super::openers::vm;
use super::stack::{Stack, TABLE, function};
use super::{stdio, stock};

/// What a state needs before any script runs.
const EARLY: [(&CStr, lua_CFunction); 2] = [(c"", vm::luaopen_base), (c"jit", vm::luaopen_jit)];

const PACKAGE: (&CStr, lua_CFunction) = (c"package", vm::luaopen_package);

/// What is opened when it is looked up.
const LATE: [(&CStr, lua_CFunction); 8] = [
    (c"table", vm::luaopen_table),
    (c"io", vm::luaopen_io),
    (c"os", vm::luaopen_os),
    (c"string", vm::luaopen_string),
    (c"math", vm::luaopen_math),
    (c"debug", vm::luaopen_debug),
    (c"bit", vm::luaopen_bit),
    // Open, but the library's functions are to take the place of some in it.
    (COROUTINE, vm::luaopen_base),
];

const COROUTINE: &CStr = c"coroutine";

/// A field of the registry, true if LuaJIT is to ignore `LUA_PATH` and `LUA_CPATH`.
pub(crate) const NO_ENVIRONMENT: &CStr = c"LUA_NOENV";

/// What shows a script which globals there are, or their metatable, or can give functions others.
/// (So can what is in `debug`. `table.foreach` shows no more than that these are missing.) And what
/// calls handlers where the stack is full: no library can be opened there.
const WITHHELD: [&CStr; 12] = [
    c"next",
    c"pairs",
    c"rawget",
    c"rawset",
    c"getmetatable",
    c"setmetatable",
    c"setfenv",
    c"module",
    c"require",
    c"package",
    c"xpcall",
    COROUTINE,
];

// The upvalues of `look_up`: a bit for each library that is open, and from then on how many names
// were not found; what random numbers begin with; what is withheld.
const NOTES: c_int = 1;
const SEED: c_int = 2;
const KEPT: c_int = 3;

const MISSED_ONE: u64 = 1 << LATE.len();
/// Names looked up in vain after which the script has what it may need of globals.
const MISSED_MAX: u64 = 64;

/// Opens what a state needs at once. Raises if memory runs out.
pub(super) fn open_early(lua: Stack<'_>) {
    for (name, open) in EARLY {
        call(lua, name, open);
    }
    preload_ffi(lua);
    stdio::lead_print(lua);
}

/// Opens all that LuaJIT has, as LuaJIT does. Raises if memory runs out.
pub(super) fn open_stock(lua: Stack<'_>) {
    let late = LATE.into_iter().filter(|(name, _)| *name != COROUTINE);
    for (name, open) in EARLY.into_iter().chain([PACKAGE]).chain(late) {
        call(lua, name, open);
    }
    preload_ffi(lua);
}

/// `luaL_openlibs`, for modules in C. A context has all libraries, and keeps those: LuaJIT's own
/// functions do not know that calls wait. Any other state, which a module has made, gets LuaJIT's.
pub fn open_for_module(lua: Stack<'_>) {
    if lua.is_ours() { open_all(lua) } else { open_stock(lua) }
}

fn preload_ffi(lua: Stack<'_>) {
    lua.field(ffi::LUA_REGISTRYINDEX, c"_PRELOAD");
    lua.push_function(vm::luaopen_ffi);
    lua.set_field(-2, c"ffi");
    lua.pop();
}

fn call(lua: Stack<'_>, name: &CStr, open: lua_CFunction) {
    lua.push_function(open);
    lua.push_text(name.to_bytes());
    lua.call(1, 0);
}

/// From now on the rest of a state whose early libraries are open is opened when it is looked up.
/// Call before any script runs.
pub(crate) fn withhold(lua: Stack<'_>, seed: f64) {
    let top = lua.top();
    // Strings find their methods where `string` will be.
    lua.push_text(b"");
    lua.push_table(0, 1);
    lua.push_function(function(method));
    lua.set_field(-2, c"__index");
    lua.set_metatable(-2);
    lua.push_copy(ffi::LUA_GLOBALSINDEX);
    let globals = lua.top();
    lua.push_table(0, 2);
    lua.push_number(0.0);
    lua.push_number(seed);
    for name in WITHHELD {
        lua.push_text(name.to_bytes());
        lua.raw_get(globals);
    }
    lua.push_closure(LOOK_UP, KEPT - 1 + WITHHELD.len() as c_int);
    for name in WITHHELD {
        lua.push_nil();
        lua.set_field(globals, name);
    }
    lua.push_copy(-1);
    lua.set_field(-3, c"__newindex");
    lua.set_field(-2, c"__index");
    lua.set_metatable(-2);
    lua.set_top(top);
}

/// Pushes the function of this name that is withheld from the script so far; false, with nothing
/// pushed, if there is none.
pub(super) fn push_withheld(lua: Stack<'_>, name: &[u8]) -> bool {
    let Some(at) = WITHHELD.iter().position(|known| known.to_bytes() == name) else { return false };
    let top = lua.top();
    lua.push_copy(ffi::LUA_GLOBALSINDEX);
    let is_there = push_look_up(lua, top + 1) && lua.upvalue(-1, KEPT + at as c_int);
    if is_there {
        lua.insert(top + 1);
    }
    lua.set_top(top + c_int::from(is_there));
    is_there
}

/// Pushes `look_up`, if it is the `__index` of the table of globals, at an index. If not, false:
/// what is on the stack then means nothing.
fn push_look_up(lua: Stack<'_>, globals: c_int) -> bool {
    lua.kind(globals) == ffi::LUA_TTABLE && lua.metatable(globals) && {
        lua.field(-1, c"__index");
        lua.c_function(-1).is_some_and(|it| it as usize == LOOK_UP as usize)
    }
}

static LOOK_UP: lua_CFunction = function(look_up);

/// Whether the table of globals, at an index, still lacks something.
fn is_withheld(lua: Stack<'_>, globals: c_int) -> bool {
    let top = lua.top();
    let is_ours = push_look_up(lua, globals);
    lua.set_top(top);
    is_ours
}

/// Puts everything in its place, if it is not.
pub(super) fn open_all(lua: Stack<'_>) {
    lua.push_copy(ffi::LUA_GLOBALSINDEX);
    if is_withheld(lua, lua.top()) {
        lua.push_global(c"next");
        lua.pop();
    }
    lua.pop();
}

/// The `__index` and `__newindex` of the table of globals.
fn look_up(lua: Stack<'_>) -> c_int {
    // The handler of an error that comes from here can call this later.
    if !is_withheld(lua, 1) {
        return 0;
    }
    let is_set = lua.top() > 2;
    let wrong = match lua.kind(2) {
        ffi::LUA_TNIL => Some("nil"),
        ffi::LUA_TNUMBER if lua.number(2).is_nan() => Some("NaN"),
        _ => None,
    };
    if let Some(wrong) = wrong.filter(|_| is_set) {
        restore(lua);
        lua.raise(&format!("table index is {wrong}"));
    }
    let name = if lua.kind(2) == ffi::LUA_TSTRING { lua.text(2) } else { None };
    let is = |known: &CStr| name == Some(known.to_bytes());
    let notes = lua.number(ffi::lua_upvalueindex(NOTES)) as u64;
    let late = (0..LATE.len()).find(|&at| is(LATE[at].0) && notes >> at & 1 == 0);
    match late {
        Some(_) if !is_set && is(COROUTINE) => show_coroutines(lua, c"load_coroutines"),
        Some(at) if !is_set && !is(c"debug") => open(lua, at),
        Some(_) => restore(lua),
        None if !is(COROUTINE) && WITHHELD.iter().any(|known| is(known)) => restore(lua),
        None if notes >= MISSED_MAX * MISSED_ONE => restore(lua),
        None => note(lua, notes + MISSED_ONE),
    }
    match is_set {
        true => {
            lua.set_top(3);
            lua.raw_set(1);
            0
        }
        false => {
            lua.set_top(2);
            lua.raw_get(1);
            1
        }
    }
}

/// Puts the table in its place, once a function of the library's has filled it. The table of
/// globals is at 1.
fn show_coroutines(lua: Stack<'_>, fill: &CStr) {
    let top = lua.top();
    lua.field(ffi::LUA_REGISTRYINDEX, TABLE);
    lua.field(-1, fill);
    lua.call(0, 0);
    let notes = lua.number(ffi::lua_upvalueindex(NOTES)) as u64;
    note(lua, notes | 1 << (LATE.len() - 1));
    lua.push_text(COROUTINE.to_bytes());
    lua.push_copy(ffi::lua_upvalueindex(KEPT - 1 + WITHHELD.len() as c_int));
    lua.raw_set(1);
    lua.set_top(top);
}

fn note(lua: Stack<'_>, notes: u64) {
    lua.push_number(notes as f64);
    lua.replace(ffi::lua_upvalueindex(NOTES));
}

/// Calls what opens a library, which sets globals. The table of these is at an index.
fn call_without_metatable(lua: Stack<'_>, globals: c_int, name: &CStr, open: lua_CFunction) {
    if !lua.metatable(globals) {
        lua.push_nil();
    }
    let metatable = lua.top();
    lua.push_nil();
    lua.set_metatable(globals);
    lua.push_function(open);
    lua.push_text(name.to_bytes());
    let status = lua.protected_call(1, 0, 0);
    lua.push_copy(metatable);
    lua.set_metatable(globals);
    if status != ffi::LUA_OK {
        lua.raise_top();
    }
    lua.set_top(metatable - 1);
}

/// Pushes the table `package`, and opens it if need be. The library may ask for it before scripts
/// do, which is not to show.
pub(crate) fn push_package(lua: Stack<'_>) {
    lua.entry(ffi::LUA_REGISTRYINDEX, Kept::Package as i64);
    if lua.kind(-1) == ffi::LUA_TTABLE {
        return;
    }
    lua.pop();
    lua.push_copy(ffi::LUA_GLOBALSINDEX);
    let globals = lua.top();
    let take = |name: &CStr| {
        lua.push_text(name.to_bytes());
        lua.raw_get(globals);
    };
    take(c"package");
    if lua.kind(-1) != ffi::LUA_TTABLE {
        call_without_metatable(lua, globals, c"package", vm::luaopen_package);
        stock::install_in(lua, c"package");
        take(c"module");
        lua.set_entry(ffi::LUA_REGISTRYINDEX, Kept::Module as i64);
        take(c"package");
        for name in [c"module", c"require", c"package"] {
            lua.push_text(name.to_bytes());
            lua.push_nil();
            lua.raw_set(globals);
        }
    }
    lua.push_copy(-1);
    lua.set_entry(ffi::LUA_REGISTRYINDEX, Kept::Package as i64);
    lua.insert(globals);
    lua.set_top(globals);
    if let Some(SetPaths(set)) = lua.account().paths.take() {
        set(lua);
    }
}

/// Called with the table `package` on top.
pub(super) struct SetPaths(Box<dyn FnOnce(Stack<'_>)>);

impl std::fmt::Debug for SetPaths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetPaths").finish_non_exhaustive()
    }
}

/// Has this called once there is the table `package`, which is on top then.
pub(crate) fn set_paths(lua: Stack<'_>, set: Box<dyn FnOnce(Stack<'_>)>) {
    lua.account().paths.replace(Some(SetPaths(set)));
    lua.entry(ffi::LUA_REGISTRYINDEX, Kept::Package as i64);
    if lua.kind(-1) == ffi::LUA_TTABLE
        && let Some(SetPaths(set)) = lua.account().paths.take()
    {
        set(lua);
    }
    lua.pop();
}

/// Opens one of the libraries. The table of globals is at 1.
fn open(lua: Stack<'_>, at: usize) {
    let (name, open) = LATE[at];
    let top = lua.top();
    // What has been compiled may still refer to this one.
    lua.push_text(b"");
    lua.metatable(-1);
    let methods = lua.top();
    call_without_metatable(lua, 1, name, open);
    let notes = lua.number(ffi::lua_upvalueindex(NOTES)) as u64;
    note(lua, notes | 1 << at);
    match name.to_bytes() {
        b"string" => {
            lua.push_copy(1);
            lua.field(-1, name);
            lua.set_field(methods, c"__index");
        }
        b"io" => {
            stdio::lead_io(lua);
        }
        b"math" => seed_random(lua, lua.number(ffi::lua_upvalueindex(SEED))),
        _ => {}
    }
    stock::install_in(lua, name);
    lua.set_top(top);
}

/// Has random numbers begin elsewhere than those of other contexts.
fn seed_random(lua: Stack<'_>, seed: f64) {
    lua.push_global(c"math");
    lua.field(-1, c"randomseed");
    lua.push_number(seed);
    lua.call(1, 0);
    lua.pop();
}

/// Puts everything in its place. The table of globals is at 1.
fn restore(lua: Stack<'_>) {
    let notes = lua.number(ffi::lua_upvalueindex(NOTES)) as u64;
    for (at, (name, _)) in LATE.iter().enumerate() {
        match notes >> at & 1 {
            0 if *name == COROUTINE => show_coroutines(lua, c"stub_coroutines"),
            0 => open(lua, at),
            _ => {}
        }
    }
    push_package(lua);
    let package = lua.top();
    for (name, at) in WITHHELD.iter().zip(KEPT..).filter(|(name, _)| **name != COROUTINE) {
        lua.push_text(name.to_bytes());
        match name.to_bytes() {
            b"package" => lua.push_copy(package),
            b"module" => lua.entry(ffi::LUA_REGISTRYINDEX, Kept::Module as i64),
            _ => lua.push_copy(ffi::lua_upvalueindex(at)),
        }
        lua.raw_set(1);
    }
    lua.push_nil();
    lua.set_metatable(1);
}

/// The `__index` of strings before `string` is open.
fn method(lua: Stack<'_>) -> c_int {
    lua.push_global(c"string");
    lua.push_copy(2);
    lua.raw_get(-2);
    1
}

//! What scripts can see of the stack and of functions, as plain LuaJIT shows it.
//!
//! The library has put Lua in the place of some functions that are C in LuaJIT, and its own
//! functions are Lua too. To scripts all of them are C functions: here are the functions of `debug`
//! that would tell, and the text of a traceback. `disguise.rs` has the other half.
//!
//! A function of the library takes one frame to scripts, the one that they have called. What it
//! calls is not shown, until a script's function is called.

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;

use mlua::ffi::{self, lua_CFunction};

use super::disguise::{BENEATH, CHUNK_NAME, STAND_IN};
use super::frames::is_hidden;
use super::layout::{self, Function};
use super::native::guarded;
use super::stack::{Nil, Record, Stack, function};
use super::traceback::traceback;
use super::{cut, frames, strings};

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

/// Of built-in functions the number is above that of Lua's and C's.
pub(crate) const BUILT_IN: u8 = 2;

pub(crate) type Original = OnceLock<lua_CFunction>;

static GETINFO: Original = OnceLock::new();
static TRACEBACK: Original = OnceLock::new();
static GETHOOK: Original = OnceLock::new();
static GETLOCAL: Original = OnceLock::new();
static SETLOCAL: Original = OnceLock::new();
static GETUPVALUE: Original = OnceLock::new();
static SETUPVALUE: Original = OnceLock::new();
static UPVALUEID: Original = OnceLock::new();
static UPVALUEJOIN: Original = OnceLock::new();
static DUMP: Original = OnceLock::new();
static GETFENV: Original = OnceLock::new();
static SETFENV: Original = OnceLock::new();
static MODULE: Original = OnceLock::new();

/// Gives built-in functions of this state other code, of those libraries that are open. They stay
/// the same objects: to the VM, and to `tostring`, nothing has happened.
pub(crate) fn install(lua: Stack<'_>) {
    for library in [c"_G", c"debug", c"package", c"string", c"table"] {
        lua.push_global(library);
        let is_open = lua.kind(-1) == ffi::LUA_TTABLE;
        lua.pop();
        if is_open {
            install_in(lua, library);
        }
    }
}

/// The same in one library, which is open.
pub(super) fn install_in(lua: Stack<'_>, library: &CStr) {
    // For the test that looks at the library's functions from outside (tests/language_reach.rs).
    if cfg!(debug_assertions) && std::env::var_os("NODE_LUA_BARE").is_some() {
        return;
    }
    lua.push_global(library);
    match library.to_bytes() {
        b"_G" => {
            replace(lua, c"getfenv", function(getfenv), &GETFENV);
            replace(lua, c"setfenv", function(setfenv), &SETFENV);
        }
        b"package" => {
            frames::note_loaders(lua);
            lua.push_copy(ffi::LUA_GLOBALSINDEX);
            replace(lua, c"module", function(module), &MODULE);
            lua.pop();
        }
        b"debug" => {
            replace(lua, c"getinfo", function(getinfo), &GETINFO);
            replace(lua, c"traceback", function(debug_traceback), &TRACEBACK);
            replace(lua, c"gethook", function(gethook), &GETHOOK);
            replace(lua, c"getlocal", function(getlocal), &GETLOCAL);
            replace(lua, c"setlocal", function(setlocal), &SETLOCAL);
            replace(lua, c"getupvalue", function(getupvalue), &GETUPVALUE);
            replace(lua, c"setupvalue", function(setupvalue), &SETUPVALUE);
            replace(lua, c"upvalueid", function(upvalueid), &UPVALUEID);
            replace(lua, c"upvaluejoin", function(upvaluejoin), &UPVALUEJOIN);
        }
        b"string" => {
            replace(lua, c"dump", function(dump), &DUMP);
            strings::install(lua);
        }
        b"table" => strings::install_insert(lua),
        _ => {}
    }
    lua.pop();
}

/// Gives the function in C of this name in the table on top, of a fresh state, other code.
pub(crate) fn replace(
    lua: Stack<'_>,
    name: &CStr,
    code: lua_CFunction,
    original: &'static Original,
) {
    lua.field(-1, name);
    if let Some(before) = lua.c_function(-1) {
        // SAFETY: a function in C is there, which nobody else looks at meanwhile.
        let object = unsafe { &mut *layout::object::<Function>(lua.raw(), -1) };
        original.get_or_init(|| before);
        object.function = code;
    }
    lua.pop();
}

/// Has the code that was replaced do the rest.
pub(crate) fn go_on(lua: Stack<'_>, original: &Original) -> c_int {
    // SAFETY: it is called in our place, with our arguments. It has been stored before ours could
    // be called.
    original.get().map_or(0, |code| unsafe { code(lua.raw()) })
}

/// What the library itself asks about functions.
pub(crate) const FUNCTIONS: &[(&CStr, lua_CFunction)] = &[
    (c"frames", function(frames)),
    (c"loading", function(loading)),
    (c"show", function(show_instead)),
];

/// native.frames(f[, co]): how many calls of f are under way in a coroutine, this one or another,
/// and the coroutine.
fn frames(lua: Stack<'_>) -> c_int {
    let wanted = lua.address(1);
    let other = lua.thread(2);
    let of = other.unwrap_or(lua);
    // What has ended by an error still has its frames; what runs has not, though an error handler
    // of `xpcall` may be what it runs.
    let is_alive = other.is_none() || of.status() <= ffi::LUA_YIELD;
    let (mut count, mut level) = (0, 0);
    while is_alive && has_room(lua, of) && of.frame(level, c"f").is_some() {
        count += i64::from(of.address(-1) == wanted);
        of.pop();
        level += 1;
    }
    lua.push_integer(count);
    match other {
        None => lua.push_thread(),
        Some(_) => lua.push_copy(2),
    }
    2
}

/// native.loading(): what is in package.loaded in the place of a module that is being loaded.
fn loading(_: Stack<'_>) -> f64 {
    // What LuaJIT's own `require` puts there: a number that no computation has as its result.
    const SENTINEL: u64 = 0x8100_0000_0000_0073;
    f64::from_bits(SENTINEL)
}

/// native.show(f, g): to scripts, f is g.
fn show_instead(lua: Stack<'_>) {
    lua.set_top(2);
    lua.field(ffi::LUA_REGISTRYINDEX, SHOWN);
    if lua.kind(-1) != ffi::LUA_TTABLE {
        lua.set_top(2);
        lua.push_table(0, 2);
        lua.push_copy(-1);
        lua.set_field(ffi::LUA_REGISTRYINDEX, SHOWN);
    }
    lua.insert(1);
    lua.raw_set(1);
}

/// The kind of what "S" was asked of.
fn kind_of(found: &Record) -> Kind {
    match found.first_line() {
        _ if found.what().first() == Some(&b'C') => Kind::C,
        _ if found.source() != CHUNK_NAME.to_bytes() => Kind::Script,
        STAND_IN => Kind::StandIn,
        BENEATH => Kind::Beneath,
        _ => Kind::Library,
    }
}

pub(crate) fn frame(of: Stack<'_>, level: c_int) -> Option<Kind> {
    of.frame(level, c"S").map(|found| kind_of(&found))
}

fn function_kind(lua: Stack<'_>, index: c_int) -> Option<Kind> {
    let is_function = lua.kind(index) == ffi::LUA_TFUNCTION;
    is_function.then(|| kind_of(&lua.function_record(index)))
}

fn is_ours(lua: Stack<'_>, index: c_int) -> bool {
    function_kind(lua, index).is_some_and(Kind::is_ours)
}

/// Whether the frame was called by the library: then its name is not known, as if C had called it.
pub(crate) fn has_no_name(of: Stack<'_>, level: c_int) -> bool {
    frame(of, level.saturating_add(1)).is_some_and(Kind::is_ours)
}

/// Whether a function can be pushed onto the stack of another coroutine.
pub(crate) fn has_room(lua: Stack<'_>, of: Stack<'_>) -> bool {
    lua == of || of.has_room(2)
}

/// The level in a coroutine of what scripts see as this one.
fn real_level(of: Stack<'_>, level: c_int) -> c_int {
    let (mut real, mut left) = (0, level);
    while frame(of, real).is_some() {
        if !is_hidden(of, real) {
            if left == 0 {
                return real;
            }
            left -= 1;
        }
        real += 1;
    }
    real
}

/// The coroutine that a function of `debug` is asked about, and how many arguments that takes. The
/// level in the next argument, as the function reads it, is made a real one.
fn subject<'a>(lua: Stack<'a>, level: fn(Stack<'a>, c_int) -> c_int) -> (Stack<'a>, c_int) {
    let Some(of) = lua.thread(1) else { return (lua, 0) };
    if of != lua && lua.is_number(2) && has_room(lua, of) {
        let level = level(lua, 2);
        if level >= 0 {
            lua.push_integer(guarded(|| real_level(of, level)).into());
            lua.replace(2);
        }
    }
    (of, 1)
}

/// Whether this is a frame of those that a root coroutine is run by, other than the uppermost: to
/// scripts there is one, as in a traceback.
fn is_beneath(of: Stack<'_>, level: c_int) -> bool {
    let is_other = |kind: Kind| kind.is_ours() || kind == Kind::C;
    let here = frame(of, level).filter(|&kind| level > 0 && is_other(kind));
    if here.is_none() || !(level..).map_while(|level| frame(of, level)).all(is_other) {
        return false;
    }
    let above = (0..level).rev().map_while(|level| frame(of, level).filter(|&kind| is_other(kind)));
    above.into_iter().any(Kind::is_ours)
}

fn getinfo(lua: Stack<'_>) -> c_int {
    let (of, shift) = subject(lua, Stack::whole_low);
    let (mut kind, mut is_nameless) = (function_kind(lua, shift + 1), false);
    if kind.is_none() && lua.is_number(shift + 1) {
        let level = lua.whole_low(shift + 1);
        let is_over;
        (kind, is_nameless, is_over) =
            guarded(|| (frame(of, level), has_no_name(of, level), is_beneath(of, level)));
        if is_over {
            lua.push_nil();
            return 1;
        }
    }
    let results = go_on(lua, &GETINFO);
    if results != 1 || lua.kind(-1) != ffi::LUA_TTABLE {
        return results;
    }
    if is_nameless && has(lua, c"namewhat") {
        set(lua, c"namewhat", || lua.push_text(b""));
        set(lua, c"name", || lua.push_nil());
    }
    if !kind.is_some_and(Kind::is_ours) {
        return results;
    }
    if has(lua, c"what") {
        set(lua, c"what", || lua.push_text(b"C"));
        set(lua, c"linedefined", || lua.push_integer(-1));
        set(lua, c"lastlinedefined", || lua.push_integer(-1));
    }
    if has(lua, c"currentline") {
        set(lua, c"currentline", || lua.push_integer(-1));
    }
    if has(lua, c"nups") {
        set(lua, c"nups", || lua.push_integer(0));
        set(lua, c"nparams", || lua.push_integer(0));
        set(lua, c"isvararg", || lua.push_boolean(true));
    }
    set(lua, c"activelines", || lua.push_nil());
    if has(lua, c"func") {
        shown(lua);
    }
    results
}

/// Whether the table on top has a field.
fn has(lua: Stack<'_>, name: &CStr) -> bool {
    lua.field(-1, name);
    let is_there = lua.kind(-1) != ffi::LUA_TNIL;
    lua.pop();
    is_there
}

fn set<R>(lua: Stack<'_>, name: &CStr, push: impl FnOnce() -> R) {
    push();
    lua.set_field(-2, name);
}

/// The registry field of a table: function of the library → the one that scripts know in its place.
pub(crate) const SHOWN: &CStr = c"node-lua.shown";

/// Puts the function that scripts know in the place of `func` in the table on top.
fn shown(lua: Stack<'_>) {
    lua.field(ffi::LUA_REGISTRYINDEX, SHOWN);
    if lua.kind(-1) != ffi::LUA_TTABLE {
        lua.pop();
        return;
    }
    lua.field(-2, c"func");
    lua.raw_get(-2);
    lua.remove(-2);
    if lua.kind(-1) == ffi::LUA_TFUNCTION {
        lua.set_field(-2, c"func");
    } else {
        lua.pop();
    }
}

/// Whether a function of `debug` that looks into a frame is asked about one of the library's.
fn looks_inside(lua: Stack<'_>) -> bool {
    let (of, shift) = subject(lua, Stack::whole);
    if lua.is_number(shift + 1) {
        return frame(of, lua.whole(shift + 1)).is_some_and(Kind::is_ours);
    }
    is_ours(lua, shift + 1)
}

/// debug.gethook(…): never tells of the hook that cuts.
fn gethook(lua: Stack<'_>) -> c_int {
    cut::uncovered(lua, || go_on(lua, &GETHOOK))
}

fn getlocal(lua: Stack<'_>) -> Result<c_int, Nil> {
    if looks_inside(lua) { Err(Nil) } else { Ok(go_on(lua, &GETLOCAL)) }
}

fn setlocal(lua: Stack<'_>) -> Result<c_int, Nil> {
    if looks_inside(lua) { Err(Nil) } else { Ok(go_on(lua, &SETLOCAL)) }
}

fn getupvalue(lua: Stack<'_>) -> c_int {
    if is_ours(lua, 1) { 0 } else { go_on(lua, &GETUPVALUE) }
}

fn setupvalue(lua: Stack<'_>) -> c_int {
    if is_ours(lua, 1) { 0 } else { go_on(lua, &SETUPVALUE) }
}

/// Has a C function without upvalues stand where a function of the library does.
fn make_c(lua: Stack<'_>, index: c_int) {
    if is_ours(lua, index) {
        lua.push_function(function(|_| ()));
        lua.replace(index);
    }
}

fn upvalueid(lua: Stack<'_>) -> c_int {
    make_c(lua, 1);
    go_on(lua, &UPVALUEID)
}

fn upvaluejoin(lua: Stack<'_>) -> c_int {
    make_c(lua, 1);
    make_c(lua, 3);
    go_on(lua, &UPVALUEJOIN)
}

fn dump(lua: Stack<'_>) -> c_int {
    make_c(lua, 1);
    go_on(lua, &DUMP)
}

fn getfenv(lua: Stack<'_>) -> c_int {
    let is_called_by_ours = |level| level > 0 && frame(lua, level).is_some_and(Kind::is_ours);
    let found = match lua.kind(1) {
        ffi::LUA_TNIL | ffi::LUA_TNONE => is_called_by_ours(1),
        _ if lua.is_number(1) => is_called_by_ours(lua.whole(1)),
        _ => is_ours(lua, 1),
    };
    if !found {
        return go_on(lua, &GETFENV);
    }
    lua.push_copy(ffi::LUA_GLOBALSINDEX);
    1
}

fn setfenv(lua: Stack<'_>) -> c_int {
    if lua.is_number(1) && lua.kind(2) == ffi::LUA_TTABLE {
        let level = lua.whole(1);
        if level > 0 && frame(lua, level).is_some_and(Kind::is_ours) {
            lua.frame(level, c"f");
            lua.replace(1);
        }
    }
    make_c(lua, 1);
    go_on(lua, &SETFENV)
}

/// module: its caller gets an environment, if that is a function of a script's. Those of the
/// library count as C functions, which get none.
fn module(lua: Stack<'_>) -> c_int {
    if !frame(lua, 1).is_some_and(Kind::is_ours) {
        return go_on(lua, &MODULE);
    }
    let Some(code) = MODULE.get() else { return 0 };
    // Its caller is this function then.
    lua.push_function(*code);
    lua.insert(1);
    lua.call(lua.top() - 1, 0);
    0
}

fn debug_traceback(lua: Stack<'_>) -> c_int {
    let (of, shift) = lua.thread(1).map_or((lua, 0), |of| (of, 1));
    let text = lua.text(shift + 1);
    if text.is_none() && lua.top() > shift {
        lua.set_top(shift + 1);
        return 1;
    }
    let level = lua.optional_integer(shift + 2, i64::from(of == lua));
    let level = level.clamp(c_int::MIN.into(), c_int::MAX.into()) as c_int;
    let mut trace = Vec::new();
    if let Some(text) = text {
        trace.extend_from_slice(text);
        trace.push(b'\n');
    }
    let is_real = of == lua || level < 0 || !has_room(lua, of);
    guarded(|| {
        let level = if is_real { level } else { real_level(of, level) };
        traceback(lua, of, level, &mut trace);
    });
    lua.push_text(&trace);
    1
}

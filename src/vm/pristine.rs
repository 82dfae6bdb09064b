//! The standard functions as they were before any script ran. Chunks of the library that are loaded
//! later find these under the usual names.
//!
//! A script may replace every global and every field of every table that it can reach. So each
//! chunk gets an environment of its own, in which names are looked up here; chunks take what they
//! need into locals while they are loaded, and use no global later (`tests/tidy/` checks that).
//! An environment holds nothing: a script that gets hold of one, as by `getfenv`, changes nothing
//! for anybody.
//!
//! Contexts keep nothing for this. A function that a script finds under a name is taken if it is
//! the one that is built in under that name, and made anew if not: what that takes is learnt once
//! per process.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int};
use std::sync::OnceLock;

use mlua::ffi::{self, lua_CFunction};

use super::kept::Kept;
use super::layout::{self, Function};
use super::stack::{Stack, function};
use super::{chunk_cache, standard, stock};

const GLOBALS: &CStr = c"_G";

/// The tables whose functions the library may use.
const LIBRARIES: [&CStr; 8] =
    [GLOBALS, c"string", c"table", c"math", c"bit", c"coroutine", c"debug", c"jit"];

/// What is built in under a name.
#[derive(Debug)]
enum BuiltIn {
    /// A function in C, or in the VM's own machine code.
    Function {
        number: u8,
        function: usize,
        /// Where the VM finds its code, from where it finds that of other C functions.
        code: u64,
        upvalues: Vec<BuiltIn>,
    },
    /// A function in Lua: its bytecode.
    Code(Vec<u8>),
    Text(Vec<u8>),
    Number(f64),
}

type Names = BTreeMap<Vec<u8>, BuiltIn>;

/// What is built in, by table and name.
static KNOWN: OnceLock<BTreeMap<Vec<u8>, Names>> = OnceLock::new();

impl BuiltIn {
    /// What the value on top of the stack is; `None` if it cannot be made anew.
    fn of(lua: Stack<'_>) -> Option<BuiltIn> {
        match lua.kind(-1) {
            ffi::LUA_TNUMBER => Some(BuiltIn::Number(lua.number(-1))),
            ffi::LUA_TSTRING => Some(BuiltIn::Text(lua.text(-1)?.to_vec())),
            ffi::LUA_TFUNCTION if !lua.is_c_function(-1) => {
                let Some(code) = chunk_cache::dump(lua) else {
                    lua.push_text(b"not enough memory");
                    lua.raise_top()
                };
                Some(BuiltIn::Code(code.to_vec()))
            }
            ffi::LUA_TFUNCTION => BuiltIn::of_function(lua),
            _ => None,
        }
    }

    fn of_function(lua: Stack<'_>) -> Option<BuiltIn> {
        let mut upvalues = Vec::new();
        let &mut Function { number, function: address, code, .. } = function_on_top(lua);
        while lua.upvalue(-1, upvalues.len() as c_int + 1) {
            let upvalue = BuiltIn::of(lua);
            lua.pop();
            upvalues.push(upvalue?);
        }
        lua.push_function(LOAD_TEXT);
        let code = code.wrapping_sub(function_on_top(lua).code);
        lua.pop();
        Some(BuiltIn::Function { number, function: address as usize, code, upvalues })
    }

    /// Whether the value on top of the stack is this function.
    fn is(&self, lua: Stack<'_>) -> bool {
        let &BuiltIn::Function { number, function, .. } = self else { return false };
        if !lua.is_c_function(-1) {
            return false;
        }
        let found = function_on_top(lua);
        found.number == number && found.function as usize == function
    }

    /// Pushes another one of the kind.
    fn push(&self, lua: Stack<'_>) {
        match self {
            BuiltIn::Number(number) => lua.push_number(*number),
            BuiltIn::Text(text) => lua.push_text(text),
            BuiltIn::Code(code) => lua.load_or_raise(code, c"=[C]"),
            BuiltIn::Function { number, function, code, upvalues } => {
                lua.want_room(upvalues.len() as c_int + 2, c"upvalues");
                for upvalue in upvalues {
                    upvalue.push(lua);
                }
                lua.push_closure(LOAD_TEXT, upvalues.len() as c_int);
                // A new C function becomes one of the VM's own in the way in which the VM makes
                // those, of what it had made of them.
                let made = function_on_top(lua);
                made.number = *number;
                made.code = made.code.wrapping_add(*code);
                // SAFETY: the address of a function in C, as which it was found.
                unsafe { (&raw mut made.function).cast::<usize>().write(*function) };
            }
        }
    }
}

fn function_on_top(lua: Stack<'_>) -> &mut Function {
    // SAFETY: called with one on top, which nobody else looks at meanwhile.
    unsafe { &mut *layout::object(lua.raw(), -1) }
}

/// Whether [`learn`] was called.
pub(crate) fn has_learned() -> bool {
    KNOWN.get().is_some()
}

/// Learns what is built in.
pub(crate) fn learn(lua: Stack<'_>) {
    let mut known = BTreeMap::new();
    stock::install(lua);
    for library in LIBRARIES {
        let mut names = Names::new();
        lua.push_global(library);
        lua.push_nil();
        while lua.next(-2) {
            if lua.kind(-2) == ffi::LUA_TSTRING
                && let Some(value) = BuiltIn::of(lua)
            {
                names.insert(lua.text(-2).unwrap_or_default().to_vec(), value);
            }
            lua.pop();
        }
        lua.pop();
        known.insert(library.to_bytes().to_vec(), names);
    }
    KNOWN.get_or_init(|| known);
}

/// Gives the function on top of the stack an environment of its own.
pub(crate) fn set_environment(lua: Stack<'_>) {
    lua.push_table(0, 0);
    push_metatable(lua);
    lua.set_metatable(-2);
    lua.set_environment(-2);
}

fn push_metatable(lua: Stack<'_>) {
    lua.entry(ffi::LUA_REGISTRYINDEX, Kept::Environments as i64);
    if lua.kind(-1) == ffi::LUA_TTABLE {
        return;
    }
    lua.pop();
    lua.push_table(0, 2);
    lua.push_function(function(look_up));
    lua.set_field(-2, c"__index");
    lua.push_boolean(false);
    lua.set_field(-2, c"__metatable");
    lua.push_copy(-1);
    lua.set_entry(ffi::LUA_REGISTRYINDEX, Kept::Environments as i64);
}

/// The `__index` of environments, and of what stands for libraries in them: tables that hold the
/// library's name.
fn look_up(lua: Stack<'_>) -> c_int {
    let name = lua.text(2).unwrap_or_default();
    lua.entry(1, 1);
    let library = lua.text(3);
    let known = KNOWN.get();
    if library.is_none() {
        if name == GLOBALS.to_bytes() {
            // Who asks for this means the script's own.
            lua.push_copy(ffi::LUA_GLOBALSINDEX);
            return 1;
        }
        if name == b"package" {
            standard::push_package(lua);
            return 1;
        }
        if name == b"loadstring" {
            lua.push_function(LOAD_TEXT);
            return 1;
        }
        if known.is_some_and(|known| known.contains_key(name)) {
            lua.push_table(1, 0);
            lua.push_copy(2);
            lua.set_entry(-2, 1);
            push_metatable(lua);
            lua.set_metatable(-2);
            return 1;
        }
    }
    let names = known.and_then(|known| known.get(library.unwrap_or(GLOBALS.to_bytes())));
    if let Some(built_in) = names.and_then(|names| names.get(name)) {
        if library.is_some() || !standard::push_withheld(lua, name) {
            push_present(lua, library.is_some());
        }
        if !built_in.is(lua) {
            built_in.push(lua);
        }
        return 1;
    }
    let text = b"the library uses a global that is not kept for it: ";
    lua.push_text(text);
    lua.push_copy(2);
    lua.concat(2);
    lua.raise_top()
}

/// Pushes what scripts find under a name now.
fn push_present(lua: Stack<'_>, is_in_library: bool) {
    lua.push_copy(ffi::LUA_GLOBALSINDEX);
    if is_in_library {
        lua.push_copy(3);
        lua.raw_get(-2);
        if lua.kind(-1) != ffi::LUA_TTABLE {
            return;
        }
    }
    lua.push_copy(2);
    lua.raw_get(-2);
}

const LOAD_TEXT: lua_CFunction = function(load_text);

/// `loadstring(text, name)` for the library: what it generates has an environment of its own too.
fn load_text(lua: Stack<'_>) -> c_int {
    let text = lua.text(1).unwrap_or_default();
    let name = CString::new(lua.text(2).unwrap_or_default()).unwrap_or_default();
    if lua.load_plain(text, &name) != ffi::LUA_OK {
        lua.push_nil();
        lua.insert(-2);
        return 2;
    }
    set_environment(lua);
    1
}

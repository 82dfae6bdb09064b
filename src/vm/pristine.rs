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
use std::ffi::{CStr, c_int};
use std::sync::OnceLock;

use mlua::ffi::{self, lua_State};

use super::layout::{self, Function};
use super::{chunk_cache, stock};
use crate::vm;

/// Registry keys, far from the small ones that `luaL_ref` hands out: the table `package`, and the
/// metatable of environments.
const KEY_PACKAGE: c_int = 0x6e6c_0011;
const KEY_METATABLE: c_int = 0x6e6c_0012;

/// The table of globals.
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
    ///
    /// # Safety
    /// `raw` must be a live state with 2 free stack slots. Raises for want of memory.
    unsafe fn of(raw: *mut lua_State) -> Option<BuiltIn> {
        // SAFETY: the caller's contract; the stack is left as it was, bytes are copied at once.
        unsafe {
            match ffi::lua_type(raw, -1) {
                ffi::LUA_TNUMBER => Some(BuiltIn::Number(ffi::lua_tonumber(raw, -1))),
                ffi::LUA_TSTRING => Some(BuiltIn::Text(vm::stack::text(raw, -1)?.to_vec())),
                ffi::LUA_TFUNCTION if ffi::lua_iscfunction(raw, -1) == 0 => {
                    let code = chunk_cache::dump(raw);
                    if code.is_none() {
                        ffi::luaL_error(raw, c"not enough memory".as_ptr());
                    }
                    Some(BuiltIn::Code(code?.to_vec()))
                }
                ffi::LUA_TFUNCTION => BuiltIn::of_function(raw),
                _ => None,
            }
        }
    }

    unsafe fn of_function(raw: *mut lua_State) -> Option<BuiltIn> {
        let mut upvalues = Vec::new();
        // SAFETY: called by `of` with a C function on top.
        unsafe {
            let Function { number, function, code, .. } = *layout::object::<Function>(raw, -1);
            while !ffi::lua_getupvalue(raw, -1, upvalues.len() as c_int + 1).is_null() {
                let upvalue = BuiltIn::of(raw);
                ffi::lua_settop(raw, -2);
                upvalues.push(upvalue?);
            }
            ffi::lua_pushcfunction(raw, load_text);
            let code = code.wrapping_sub((*layout::object::<Function>(raw, -1)).code);
            ffi::lua_settop(raw, -2);
            Some(BuiltIn::Function { number, function: function as usize, code, upvalues })
        }
    }

    /// Whether the value on top of the stack is this function.
    unsafe fn is(&self, raw: *mut lua_State) -> bool {
        let &BuiltIn::Function { number, function, .. } = self else { return false };
        // SAFETY: called by `look_up`. A function in C is as long as what is looked at.
        unsafe {
            if ffi::lua_iscfunction(raw, -1) == 0 {
                return false;
            }
            let found = layout::object::<Function>(raw, -1);
            (*found).number == number && (*found).function as usize == function
        }
    }

    /// Pushes another one of the kind.
    ///
    /// # Safety
    /// `raw` must be a live state with free stack slots. Raises for want of memory.
    unsafe fn push(&self, raw: *mut lua_State) {
        // SAFETY: the caller's contract. A new C function becomes one of the VM's own in the way
        // in which the VM makes those, of what it had made of them.
        unsafe {
            match self {
                BuiltIn::Number(number) => ffi::lua_pushnumber(raw, *number),
                BuiltIn::Text(text) => vm::stack::push_text(raw, text),
                BuiltIn::Code(code) => {
                    let start = code.as_ptr().cast();
                    if ffi::luaL_loadbuffer(raw, start, code.len(), c"=[C]".as_ptr()) != 0 {
                        ffi::lua_error(raw);
                    }
                }
                BuiltIn::Function { number, function, code, upvalues } => {
                    ffi::luaL_checkstack(raw, upvalues.len() as c_int + 2, std::ptr::null());
                    for upvalue in upvalues {
                        upvalue.push(raw);
                    }
                    ffi::lua_pushcclosure(raw, load_text, upvalues.len() as c_int);
                    let made = layout::object::<Function>(raw, -1);
                    (*made).number = *number;
                    (*made).code = (*made).code.wrapping_add(*code);
                    (&raw mut (*made).function).cast::<usize>().write(*function);
                }
            }
        }
    }
}

/// Learns what is built in.
///
/// # Safety
/// `raw` must be a fresh state with the libraries open, and 6 free stack slots. Raises for want of
/// memory.
pub(crate) unsafe fn learn(raw: *mut lua_State) {
    let mut known = BTreeMap::new();
    // SAFETY: the caller's contract; the stack is left as it was. Keys are not converted: those
    // that are looked at are strings.
    unsafe {
        stock::install(raw);
        for library in LIBRARIES {
            let mut names = Names::new();
            ffi::lua_getglobal(raw, library.as_ptr());
            ffi::lua_pushnil(raw);
            while ffi::lua_next(raw, -2) != 0 {
                if ffi::lua_type(raw, -2) == ffi::LUA_TSTRING
                    && let Some(value) = BuiltIn::of(raw)
                {
                    names.insert(vm::stack::text(raw, -2).unwrap_or_default().to_vec(), value);
                }
                ffi::lua_settop(raw, -2);
            }
            ffi::lua_settop(raw, -2);
            known.insert(library.to_bytes().to_vec(), names);
        }
    }
    KNOWN.get_or_init(|| known);
}

/// Keeps what cannot be made anew. Call before any script runs.
///
/// # Safety
/// `raw` must be a state with the standard libraries as they are opened, and a free stack slot.
/// Raises for want of memory.
pub(crate) unsafe fn keep(raw: *mut lua_State) {
    // SAFETY: the caller's contract.
    unsafe {
        ffi::lua_getglobal(raw, c"package".as_ptr());
        ffi::lua_rawseti_(raw, ffi::LUA_REGISTRYINDEX, KEY_PACKAGE);
    }
}

/// Gives the function on top of the stack an environment of its own.
///
/// # Safety
/// `raw` must be a state that [`keep`] was called for, with a function on top and 4 free stack
/// slots. Raises for want of memory.
pub(crate) unsafe fn set_environment(raw: *mut lua_State) {
    // SAFETY: the caller's contract. What is pushed is popped.
    unsafe {
        ffi::lua_createtable(raw, 0, 0);
        push_metatable(raw);
        ffi::lua_setmetatable(raw, -2);
        ffi::lua_setfenv(raw, -2);
    }
}

/// Pushes the metatable of environments.
unsafe fn push_metatable(raw: *mut lua_State) {
    // SAFETY: the callers have 3 slots free.
    unsafe {
        ffi::lua_rawgeti_(raw, ffi::LUA_REGISTRYINDEX, KEY_METATABLE);
        if ffi::lua_type(raw, -1) == ffi::LUA_TTABLE {
            return;
        }
        ffi::lua_settop(raw, -2);
        ffi::lua_createtable(raw, 0, 2);
        ffi::lua_pushcfunction(raw, look_up);
        ffi::lua_setfield(raw, -2, c"__index".as_ptr());
        ffi::lua_pushboolean(raw, 0);
        ffi::lua_setfield(raw, -2, c"__metatable".as_ptr());
        ffi::lua_pushvalue(raw, -1);
        ffi::lua_rawseti_(raw, ffi::LUA_REGISTRYINDEX, KEY_METATABLE);
    }
}

/// The `__index` of environments, and of what stands for libraries in them: tables that hold the
/// library's name.
unsafe extern "C-unwind" fn look_up(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with two arguments, which stay on the stack.
    unsafe {
        let name = vm::stack::text(raw, 2).unwrap_or_default();
        ffi::lua_rawgeti_(raw, 1, 1);
        let library = vm::stack::text(raw, 3);
        let known = KNOWN.get();
        if library.is_none() {
            if name == GLOBALS.to_bytes() {
                // Who asks for this means the script's own.
                ffi::lua_pushvalue(raw, ffi::LUA_GLOBALSINDEX);
                return 1;
            }
            if name == b"package" {
                ffi::lua_rawgeti_(raw, ffi::LUA_REGISTRYINDEX, KEY_PACKAGE);
                return 1;
            }
            if name == b"loadstring" {
                ffi::lua_pushcfunction(raw, load_text);
                return 1;
            }
            if known.is_some_and(|known| known.contains_key(name)) {
                ffi::lua_createtable(raw, 1, 0);
                ffi::lua_pushvalue(raw, 2);
                ffi::lua_rawseti_(raw, -2, 1);
                push_metatable(raw);
                ffi::lua_setmetatable(raw, -2);
                return 1;
            }
        }
        let names = known.and_then(|known| known.get(library.unwrap_or(GLOBALS.to_bytes())));
        if let Some(built_in) = names.and_then(|names| names.get(name)) {
            push_present(raw, library.is_some());
            if !built_in.is(raw) {
                built_in.push(raw);
            }
            return 1;
        }
        let text = b"the library uses a global that is not kept for it: ";
        vm::stack::push_text(raw, text);
        ffi::lua_pushvalue(raw, 2);
        ffi::lua_concat(raw, 2);
        ffi::lua_error(raw)
    }
}

/// Pushes what scripts find under a name now.
unsafe fn push_present(raw: *mut lua_State, is_in_library: bool) {
    // SAFETY: called by `look_up`, with the name at 2, that of the library at 3, and free slots.
    // Nothing is called that scripts have put there.
    unsafe {
        ffi::lua_pushvalue(raw, ffi::LUA_GLOBALSINDEX);
        if is_in_library {
            ffi::lua_pushvalue(raw, 3);
            ffi::lua_rawget(raw, -2);
            if ffi::lua_type(raw, -1) != ffi::LUA_TTABLE {
                return;
            }
        }
        ffi::lua_pushvalue(raw, 2);
        ffi::lua_rawget(raw, -2);
    }
}

/// `loadstring(text, name)` for the library: what it generates has an environment of its own too.
unsafe extern "C-unwind" fn load_text(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, by the library, with two strings, which stay on the stack.
    unsafe {
        let text = vm::stack::text(raw, 1).unwrap_or_default();
        let name = ffi::lua_tostring(raw, 2);
        if ffi::luaL_loadbuffer(raw, text.as_ptr().cast(), text.len(), name) != ffi::LUA_OK {
            ffi::lua_pushnil(raw);
            ffi::lua_insert(raw, -2);
            return 2;
        }
        set_environment(raw);
    }
    1
}

//! What modules in C call to open one standard library, as `luaopen_io`, by names that LuaJIT's own
//! functions do not have any more: see .cargo/config.toml.
//!
//! A context has all libraries, and keeps them: LuaJIT's functions would take the place of those
//! that know of contexts (that calls wait, that output is shared). Any other state, which a module
//! has made, gets LuaJIT's.

#![allow(unsafe_code, reason = "what modules in C call")]
#![cfg_attr(not(renames), allow(unused_imports, reason = "LuaJIT's functions have their names"))]

use std::ffi::{CStr, c_int};

use mlua::ffi::{self, lua_CFunction};

use super::stack::Stack;
use super::standard;

/// Defines the functions: `vm` are LuaJIT's, the names without a prefix are what modules find.
macro_rules! openers {
    ($($open:ident = $vm:literal, $library:literal;)*) => {
        /// LuaJIT's functions.
        #[cfg(renames)]
        pub(super) mod vm {
            unsafe extern "C-unwind" {
                $(
                    #[link_name = $vm]
                    pub(crate) fn $open(raw: *mut mlua::ffi::lua_State) -> std::ffi::c_int;
                )*
            }
        }
        #[cfg(not(renames))]
        pub(super) use mlua::ffi as vm;

        $(
            /// As LuaJIT's function of this name, for modules in C.
            ///
            /// # Safety
            /// As for that function.
            #[cfg(renames)]
            #[unsafe(no_mangle)]
            unsafe extern "C-unwind" fn $open(raw: *mut mlua::ffi::lua_State) -> c_int {
                // SAFETY: the coroutine that calls the module, with the slots that any C function
                // has; or a state of the module's own.
                open(unsafe { Stack::new(raw) }, $library, vm::$open)
            }
        )*
    };
}

openers! {
    luaopen_base = "node_lua_vm_luaopen_base", c"_G";
    luaopen_bit = "node_lua_vm_luaopen_bit", c"bit";
    luaopen_debug = "node_lua_vm_luaopen_debug", c"debug";
    luaopen_ffi = "node_lua_vm_luaopen_ffi", c"ffi";
    luaopen_io = "node_lua_vm_luaopen_io", c"io";
    luaopen_jit = "node_lua_vm_luaopen_jit", c"jit";
    luaopen_math = "node_lua_vm_luaopen_math", c"math";
    luaopen_os = "node_lua_vm_luaopen_os", c"os";
    luaopen_package = "node_lua_vm_luaopen_package", c"package";
    luaopen_string = "node_lua_vm_luaopen_string", c"string";
    luaopen_table = "node_lua_vm_luaopen_table", c"table";
}

/// Leaves the library on the stack, with `coroutine` behind the basic one, as LuaJIT's function
/// does: the one that a context has, unless its script has thrown that away.
#[cfg(renames)]
fn open(lua: Stack<'_>, library: &CStr, open: lua_CFunction) -> c_int {
    let top = lua.top();
    if lua.is_ours() {
        standard::open_all(lua);
        lua.field(ffi::LUA_REGISTRYINDEX, c"_LOADED");
        lua.field(-1, library);
        if lua.kind(-1) == ffi::LUA_TTABLE {
            let is_basic = library == c"_G";
            if is_basic {
                lua.field(-2, c"coroutine");
            }
            return 1 + c_int::from(is_basic);
        }
        lua.set_top(top);
    }
    // SAFETY: the coroutine that calls, with what it has passed; nothing is live here.
    unsafe { open(lua.raw()) }
}

//! What a context's creator withholds from it, and from all that it creates.

use std::ffi::c_int;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::native::push_failure;
use crate::error::Code;
use crate::lua::host;
use crate::vm::stack::{TABLE, key};
use crate::vm::{blame, prelude};

/// What is withheld, one bit each; lua/context/create.lua knows the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deny(u8);

impl Deny {
    const FFI: u8 = 1;
    const IO: u8 = 2;
    const OS: u8 = 4;
    const LOADLIB: u8 = 8;
    const NETWORK: u8 = 16;
    const CREATE: u8 = 32;

    /// From the bits. FFI and C modules can do anything: whatever is withheld, so are they.
    pub(super) fn new(bits: u8) -> Deny {
        Deny(if bits == 0 { 0 } else { bits | Deny::FFI | Deny::LOADLIB })
    }

    /// What either withholds.
    pub(super) fn and(self, other: Deny) -> Deny {
        Deny(self.0 | other.0)
    }

    /// Whether anything is withheld.
    pub(super) fn is_any(self) -> bool {
        self.0 != 0
    }

    /// Whether the network is.
    #[inline]
    pub(super) fn withholds_network(self) -> bool {
        self.0 & Deny::NETWORK != 0
    }

    /// Whether files are.
    pub(super) fn withholds_files(self) -> bool {
        self.0 & Deny::IO != 0
    }

    fn has(self, bit: u8) -> c_int {
        c_int::from(self.0 & bit != 0)
    }
}

/// In place of the natives that open or use sockets. Writing by number has a door of its own for
/// compiled code: `stage_shared` (frames.rs) refuses behind all of them.
const NETWORK: super::native::Functions = &[
    (c"listen", refuse as lua_CFunction),
    (c"resolve", refuse_token),
    (c"connect", refuse_token),
    (c"fd_src", refuse_use),
];

/// Confines a state before its script runs.
///
/// # Safety
/// `raw` must be a state with the library loaded, and 6 free stack slots. May raise.
pub(super) unsafe fn confine(raw: *mut lua_State, deny: Deny) {
    // SAFETY: the caller's contract; the stack is left as it was.
    unsafe {
        let top = ffi::lua_gettop(raw);
        ffi::lua_getfield(raw, ffi::LUA_REGISTRYINDEX, TABLE.as_ptr());
        if deny.has(Deny::NETWORK) != 0 {
            for (name, function) in NETWORK {
                ffi::lua_pushcfunction(raw, *function);
                ffi::lua_setfield(raw, -2, name.as_ptr());
            }
        }
        if deny.has(Deny::OS) != 0 {
            for name in [c"exit", c"hear"] {
                ffi::lua_pushcfunction(raw, refuse_process);
                ffi::lua_setfield(raw, -2, name.as_ptr());
            }
        }
        if deny.has(Deny::CREATE) != 0 {
            ffi::lua_pushcfunction(raw, refuse_creation);
            ffi::lua_setfield(raw, -2, c"create".as_ptr());
        }
        prelude::push_chunk(raw, "context/confine");
        ffi::lua_pushvalue(raw, -2);
        ffi::lua_getglobal(raw, c"buffer".as_ptr());
        for bit in [Deny::IO, Deny::OS, Deny::NETWORK] {
            ffi::lua_pushboolean(raw, deny.has(bit));
        }
        ffi::lua_call(raw, 5, 0);
        ffi::lua_settop(raw, top);
    }
}

/// Fails as `native.create` does: nil, and why.
unsafe extern "C-unwind" fn refuse_creation(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, which has slots for the results.
    unsafe {
        ffi::lua_pushnil(raw);
        crate::vm::stack::push_text(raw, b"creating contexts is withheld from this context");
    }
    2
}

/// Fails as `native.hear` and `native.exit` do: nil, and why.
unsafe extern "C-unwind" fn refuse_process(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM, which has slots for the results.
    unsafe {
        ffi::lua_pushnil(raw);
        crate::vm::stack::push_text(
            raw,
            b"the process is withheld from this context (deny \"os\")",
        );
    }
    2
}

/// Fails as not permitted.
unsafe extern "C-unwind" fn refuse(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe { push_failure(raw, Code::NOT_PERMITTED) }
}

/// Fails likewise, by way of the token that is its first argument.
unsafe extern "C-unwind" fn refuse_token(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let token = unsafe { key(raw, 1) };
    host::with(|host| host.fail(token, Code::NOT_PERMITTED));
    0
}

/// Raises.
unsafe extern "C-unwind" fn refuse_use(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM; nothing of ours is live here.
    unsafe { blame::raise(raw, "the network is withheld from this context") }
}

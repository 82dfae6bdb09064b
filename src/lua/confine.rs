//! What a context's creator withholds from it, and from all that it creates.

use mlua::ffi;

use crate::error::Code;
use crate::lua::host;
use crate::vm::prelude::push_chunk;
use crate::vm::stack::{Nil, Stack, TABLE, function};

/// What is withheld, one bit each; lua/context/options.lua knows the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deny(u8);

impl Deny {
    const FFI: u8 = 1;
    /// Files.
    pub(super) const IO: u8 = 2;
    /// The process, and what it was started with.
    pub(super) const OS: u8 = 4;
    const LOADLIB: u8 = 8;
    pub(super) const NETWORK: u8 = 16;
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

    /// Whether what this bit stands for is.
    #[inline]
    pub(super) fn withholds(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// In place of the natives that open or use sockets. Writing by number has a door of its own for
/// compiled code: `stage_shared` (frames.rs) refuses behind all of them.
const NETWORK: super::native::Functions = &[
    (c"listen", function(refuse)),
    (c"resolve", function(refuse_token)),
    (c"connect", function(refuse_token)),
    (c"fd_src", function(refuse_use)),
    (c"udp_open", function(refuse)),
    (c"udp_fd_src", function(refuse_use)),
];

/// Confines a state before its script runs.
pub(super) fn confine(lua: Stack<'_>, deny: Deny) {
    let top = lua.top();
    lua.field(ffi::LUA_REGISTRYINDEX, TABLE);
    if deny.withholds(Deny::NETWORK) {
        for (name, function) in NETWORK {
            lua.push_function(*function);
            lua.set_field(-2, name);
        }
    }
    if deny.withholds(Deny::OS) {
        for name in [c"exit", c"hear"] {
            lua.push_function(function(refuse_process));
            lua.set_field(-2, name);
        }
    }
    if deny.withholds(Deny::CREATE) {
        lua.push_function(function(refuse_creation));
        lua.set_field(-2, c"create");
    }
    push_chunk(lua, "context/confine");
    lua.push_copy(-2);
    lua.push_global(c"buffer");
    for bit in [Deny::IO, Deny::OS, Deny::NETWORK] {
        lua.push_boolean(deny.withholds(bit));
    }
    lua.call(5, 0);
    lua.set_top(top);
}

/// Fails as `native.create` does: nil, and why.
fn refuse_creation(_: Stack<'_>) -> (Nil, &'static str) {
    (Nil, "creating contexts is withheld from this context")
}

/// Fails as `native.hear` and `native.exit` do: nil, and why.
fn refuse_process(_: Stack<'_>) -> (Nil, &'static str) {
    (Nil, "the process is withheld from this context (deny \"os\")")
}

/// Fails as not permitted.
fn refuse(_: Stack<'_>) -> Code {
    Code::NOT_PERMITTED
}

/// Fails likewise, by way of the token that is its first argument.
fn refuse_token(lua: Stack<'_>) {
    let token = lua.key(1);
    host::with(|host| host.turn.notices.fail(token, Code::NOT_PERMITTED));
}

fn refuse_use(lua: Stack<'_>) {
    lua.raise("the network is withheld from this context")
}

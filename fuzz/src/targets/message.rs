//! Values on their way between two VMs, and bytes that no VM has written.

#![allow(unsafe_code, reason = "a state without the runtime")]

use std::cell::RefCell;
use std::ffi::c_int;

use mlua::ffi::{self, lua_State};
use node_lua::buf::Piece;
use node_lua::lua::BufferValues;
use node_lua::message::{Encoded, Value};
use node_lua::vm::convert::{Scratch, push_value, to_value};

use super::program::Program;

thread_local! {
    static PROGRAM: RefCell<Program> =
        const { RefCell::new(Program::new("@message.lua", include_str!("message.lua"))) };
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
    /// The buffers of the table encoded last.
    static BUFFERS: RefCell<Vec<Piece>> = const { RefCell::new(Vec::new()) };
}

/// A program for `message.lua`: it builds a value, or takes the input for the wire form of one.
pub(super) fn run(input: &[u8]) {
    PROGRAM.with_borrow_mut(|program| program.run(input, open));
}

/// Adds `wire_encode`, `wire_decode` and `wire_copy` to the globals.
pub(super) fn open(state: *mut lua_State) {
    let functions: [(_, ffi::lua_CFunction); 3] =
        [(c"wire_encode", encode), (c"wire_decode", decode), (c"wire_copy", copy)];
    // SAFETY: a state that is not running, with the standard libraries open and slots free.
    unsafe {
        for (name, function) in functions {
            ffi::lua_pushcclosure(state, function, 0);
            ffi::lua_setglobal(state, name.as_ptr());
        }
    }
}

/// Pushes nil, and why there is nothing else.
unsafe fn refuse(state: *mut lua_State, why: &str) -> c_int {
    // SAFETY: called by functions that the VM has called.
    unsafe {
        ffi::lua_pushnil(state);
        ffi::lua_pushlstring_(state, why.as_ptr().cast(), why.len());
    }
    2
}

/// The value at index 1, taken out of the VM.
unsafe fn take(state: *mut lua_State) -> Result<Value, String> {
    // SAFETY: as above; the VM gives 20 stack slots.
    SCRATCH
        .with_borrow_mut(|scratch| unsafe { to_value::<BufferValues>(state, 1, scratch) })
        .map_err(|unsupported| unsupported.to_string())
}

/// `wire_encode(table)`: its wire form; nil and the reason if it does not travel
unsafe extern "C-unwind" fn encode(state: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with one argument.
    match unsafe { take(state) } {
        Ok(Value::Table(encoded)) => {
            BUFFERS.set(encoded.buffers().to_vec());
            let bytes = encoded.bytes();
            // SAFETY: as above.
            unsafe { ffi::lua_pushlstring_(state, bytes.as_ptr().cast(), bytes.len()) };
            1
        }
        // SAFETY: as above.
        Ok(_) => unsafe { refuse(state, "no table") },
        // SAFETY: as above.
        Err(why) => unsafe { refuse(state, &why) },
    }
}

/// Pushes a value, after true, or nil and the reason.
unsafe fn give(state: *mut lua_State, value: &Value) -> c_int {
    // SAFETY: called by functions that the VM has called, which left most slots free.
    unsafe {
        ffi::lua_pushboolean(state, 1);
        match push_value::<BufferValues>(state, value) {
            Ok(()) => 2,
            Err(refused) => refuse(state, &refused.to_string()),
        }
    }
}

/// `wire_decode(bytes)`: true and the value, or nil and the reason; with the buffers of the table
/// encoded last
unsafe extern "C-unwind" fn decode(state: *mut lua_State) -> c_int {
    let mut len = 0;
    // SAFETY: called by the VM with a string.
    let bytes = unsafe {
        let start = ffi::lua_tolstring(state, 1, &mut len);
        std::slice::from_raw_parts(start.cast::<u8>(), len)
    };
    let value = Value::Table(Encoded::new(bytes, BUFFERS.with_borrow(Vec::clone)));
    // SAFETY: as above.
    unsafe { give(state, &value) }
}

/// `wire_copy(value)`: true and the value as another VM gets it, or nil and the reason
unsafe extern "C-unwind" fn copy(state: *mut lua_State) -> c_int {
    // SAFETY: called by the VM with one argument.
    match unsafe { take(state) } {
        // SAFETY: as above.
        Ok(value) => unsafe { give(state, &value) },
        // SAFETY: as above.
        Err(why) => unsafe { refuse(state, &why) },
    }
}

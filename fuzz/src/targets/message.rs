//! Values on their way between two VMs, and bytes that no VM has written.

use std::cell::RefCell;
use std::ffi::c_int;

use node_lua::buf::Piece;
use node_lua::lua::BufferValues;
use node_lua::message::{Encoded, Value};
use node_lua::vm::convert::{Scratch, push_value, to_value};
use node_lua::vm::stack::{Stack, function};
use node_lua::vm::state::State;

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
pub(super) fn open(state: &State) {
    let lua = state.stack();
    for (name, function) in [
        (c"wire_encode", function(encode)),
        (c"wire_decode", function(decode)),
        (c"wire_copy", function(copy)),
    ] {
        lua.push_function(function);
        lua.set_global(name);
    }
}

/// Pushes nil, and why there is nothing else.
fn refuse(lua: Stack<'_>, why: &str) -> c_int {
    lua.push_nil();
    lua.push_text(why.as_bytes());
    2
}

/// The value at index 1, taken out of the VM.
fn take(lua: Stack<'_>) -> Result<Value, String> {
    SCRATCH
        .with_borrow_mut(|scratch| to_value::<BufferValues>(lua, 1, scratch))
        .map_err(|unsupported| unsupported.to_string())
}

/// `wire_encode(table)`: its wire form; nil and the reason if it does not travel
fn encode(lua: Stack<'_>) -> c_int {
    match take(lua) {
        Ok(Value::Table(encoded)) => {
            BUFFERS.set(encoded.buffers().to_vec());
            lua.push_text(encoded.bytes());
            1
        }
        Ok(_) => refuse(lua, "no table"),
        Err(why) => refuse(lua, &why),
    }
}

/// Pushes a value, after true, or nil and the reason.
fn give(lua: Stack<'_>, value: &Value) -> c_int {
    lua.push_boolean(true);
    match push_value::<BufferValues>(lua, value) {
        Ok(()) => 2,
        Err(refused) => refuse(lua, &refused.to_string()),
    }
}

/// `wire_decode(bytes)`: true and the value, or nil and the reason; with the buffers of the table
/// encoded last
fn decode(lua: Stack<'_>) -> c_int {
    let bytes = lua.text(1).unwrap_or_default();
    give(lua, &Value::Table(Encoded::new(bytes, BUFFERS.with_borrow(Vec::clone))))
}

/// `wire_copy(value)`: true and the value as another VM gets it, or nil and the reason
fn copy(lua: Stack<'_>) -> c_int {
    match take(lua) {
        Ok(value) => give(lua, &value),
        Err(why) => refuse(lua, &why),
    }
}

//! set_rwopt and get_rwopt: how frames look.

use std::ffi::c_int;

use mlua::ffi;

use crate::frame::{Endian, HeadOptions, HeadPatch};
use crate::lua::host;
use crate::net::OptionsRefused;
use crate::vm::stack::Stack;

/// Whole numbers from here on are not told from each other.
const WHOLE_MAX: f64 = (1_u64 << 53) as f64;

/// The fields of one direction from `index` on: endian, bytes, max.
fn patch(lua: Stack<'_>, index: c_int, prefix: &str) -> Result<HeadPatch, String> {
    let mut patch = HeadPatch::default();
    let wrong = |field, expected, at| {
        Err(format!("{prefix}_head_{field}: {expected} expected, got {}", lua.describe(at)))
    };
    if lua.kind(index) != ffi::LUA_TNIL {
        let is_text = lua.kind(index) == ffi::LUA_TSTRING;
        patch.endian = if is_text { lua.text(index).and_then(Endian::from_letter) } else { None };
        if patch.endian.is_none() {
            return wrong("endian", "'L' or 'B'", index);
        }
    }
    for (field, at) in [("bytes", index + 1), ("max", index + 2)] {
        if lua.kind(at) == ffi::LUA_TNIL {
            continue;
        }
        let value = lua.number(at);
        if !lua.is_number(at) || value.fract() != 0.0 || value.abs() >= WHOLE_MAX {
            return wrong(field, "whole number", at);
        }
        let value = Some(value as i64);
        if field == "bytes" { patch.bytes = value } else { patch.max = value }
    }
    Ok(patch)
}

/// native.set_rwopt(key, read endian, bytes, max, write endian, bytes, max): nothing, or why not.
pub(super) fn set_rwopt(lua: Stack<'_>) -> c_int {
    let (key, read, write) = (lua.key(1), patch(lua, 2, "read"), patch(lua, 5, "write"));
    let result =
        read.and_then(|read| write.map(|write| (read, write))).and_then(|(read, write)| {
            host::with(|host| {
                host.sockets.stream(key).map(|stream| stream.set_options(read, write))
            })
            .unwrap_or(Ok(()))
            .map_err(|refused| match refused {
                OptionsRefused::InvalidRead(error) => format!("read_{error}"),
                OptionsRefused::InvalidWrite(error) => format!("write_{error}"),
                OptionsRefused::ReadFrozen => {
                    "read options are fixed once reading has begun: set them before".into()
                }
                OptionsRefused::WriteFrozen => {
                    "write options are fixed once writing has begun: set them before".into()
                }
            })
        });
    let Err(message) = result else { return 0 };
    lua.push_text(message.as_bytes());
    1
}

/// native.get_rwopt(key): the six fields.
pub(super) fn get_rwopt(lua: Stack<'_>) -> c_int {
    let key = lua.key(1);
    let options = host::with(|host| host.sockets.stream(key).map(|stream| stream.options()));
    let Some((read, write)) = options else { return 0 };
    let push = |options: HeadOptions| {
        lua.push_text(options.endian().letter().as_bytes());
        lua.push_number(f64::from(options.bytes()));
        lua.push_number(f64::from(options.max()));
    };
    push(read);
    push(write);
    6
}

//! set_rwopt and get_rwopt: how frames look.

use std::ffi::c_int;

use mlua::ffi;

use crate::frame::{Endian, HeadOptions, HeadPatch};
use crate::lua::host;
use crate::net::OptionsRefused;
use crate::vm::stack::Stack;

/// Characters of a wrong text that a message shows.
const GIVEN_MAX: usize = 40;

/// A wrong argument, for the message: its type, and what it is if that says more.
fn given(lua: Stack<'_>, index: c_int) -> String {
    let (kind, name) = (lua.kind(index), lua.kind_name(index));
    match kind {
        ffi::LUA_TSTRING => {
            let text = String::from_utf8_lossy(lua.text(index).unwrap_or_default());
            format!("{name} '{}'", text.chars().take(GIVEN_MAX).collect::<String>())
        }
        ffi::LUA_TNUMBER => format!("{name} {}", lua.number(index)),
        ffi::LUA_TBOOLEAN => format!("{name} {}", lua.boolean(index)),
        _ => name.to_owned(),
    }
}

/// The fields of one direction from `index` on: endian, bytes, max.
fn patch(lua: Stack<'_>, index: c_int, prefix: &str) -> Result<HeadPatch, String> {
    let mut patch = HeadPatch::default();
    match lua.kind(index) {
        ffi::LUA_TNIL => {}
        ffi::LUA_TSTRING => {
            let letter = lua.text(index).unwrap_or_default();
            let endian =
                Endian::from_letter(letter).map_err(|error| format!("{prefix}_{error}"))?;
            patch.endian = Some(endian);
        }
        _ => {
            let given = given(lua, index);
            return Err(format!("{prefix}_head_endian: 'L' or 'B' expected, got {given}"));
        }
    }
    for (offset, field) in [(1, "bytes"), (2, "max")] {
        let value = match lua.kind(index + offset) {
            ffi::LUA_TNIL => continue,
            _ if lua.is_number(index + offset) => lua.number(index + offset),
            _ => {
                let given = given(lua, index + offset);
                return Err(format!("{prefix}_head_{field}: number expected, got {given}"));
            }
        };
        if !value.is_finite() || value.fract() != 0.0 {
            return Err(format!("{prefix}_head_{field}: {value} is not an integer"));
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

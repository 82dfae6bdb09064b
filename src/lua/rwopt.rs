//! set_rwopt and get_rwopt: how frames look.

use std::ffi::{CStr, c_int};

use mlua::ffi::{self, lua_State};

use crate::frame::{Endian, HeadOptions, HeadPatch};
use crate::lua::host;
use crate::net::OptionsRefused;
use crate::vm::stack::{key, push_text, text};

/// Characters of a wrong text that a message shows.
const GIVEN_MAX: usize = 40;

/// A wrong argument, for the message: its type, and what it is if that says more.
unsafe fn given(raw: *mut lua_State, index: c_int) -> String {
    // SAFETY: the caller passes a live state; names of types are terminated and live for ever.
    unsafe {
        let kind = ffi::lua_type(raw, index);
        let name = CStr::from_ptr(ffi::lua_typename(raw, kind)).to_string_lossy();
        match kind {
            ffi::LUA_TSTRING => {
                let text = String::from_utf8_lossy(text(raw, index).unwrap_or_default());
                format!("{name} '{}'", text.chars().take(GIVEN_MAX).collect::<String>())
            }
            ffi::LUA_TNUMBER => format!("{name} {}", ffi::lua_tonumber(raw, index)),
            ffi::LUA_TBOOLEAN => format!("{name} {}", ffi::lua_toboolean(raw, index) != 0),
            _ => name.into_owned(),
        }
    }
}

/// The fields of one direction from `index` on: endian, bytes, max.
unsafe fn patch(raw: *mut lua_State, index: c_int, prefix: &str) -> Result<HeadPatch, String> {
    // SAFETY: the caller is called by the VM with seven arguments.
    unsafe {
        let mut patch = HeadPatch::default();
        match ffi::lua_type(raw, index) {
            ffi::LUA_TNIL => {}
            ffi::LUA_TSTRING => {
                let letter = text(raw, index).unwrap_or_default();
                let endian =
                    Endian::from_letter(letter).map_err(|error| format!("{prefix}_{error}"))?;
                patch.endian = Some(endian);
            }
            _ => {
                let given = given(raw, index);
                return Err(format!("{prefix}_head_endian: 'L' or 'B' expected, got {given}"));
            }
        }
        for (offset, field) in [(1, "bytes"), (2, "max")] {
            let value = match ffi::lua_type(raw, index + offset) {
                ffi::LUA_TNIL => continue,
                _ if ffi::lua_isnumber(raw, index + offset) != 0 => {
                    ffi::lua_tonumber(raw, index + offset)
                }
                _ => {
                    let given = given(raw, index + offset);
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
}

/// native.set_rwopt(key, read endian, bytes, max, write endian, bytes, max): nothing, or why not.
pub(super) unsafe extern "C-unwind" fn set_rwopt(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let (key, read, write) =
        unsafe { (key(raw, 1), patch(raw, 2, "read"), patch(raw, 5, "write")) };
    let result =
        read.and_then(|read| write.map(|write| (read, write))).and_then(|(read, write)| {
            host::with(|host| host.stream(key).map(|stream| stream.set_options(read, write)))
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
    // SAFETY: as above.
    unsafe { push_text(raw, message.as_bytes()) };
    1
}

/// native.get_rwopt(key): the six fields.
pub(super) unsafe extern "C-unwind" fn get_rwopt(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    let key = unsafe { key(raw, 1) };
    let options = host::with(|host| host.stream(key).map(|stream| stream.options()));
    let Some((read, write)) = options else { return 0 };
    let push = |options: HeadOptions| {
        // SAFETY: as above.
        unsafe {
            push_text(raw, options.endian().letter().as_bytes());
            ffi::lua_pushnumber(raw, f64::from(options.bytes()));
            ffi::lua_pushnumber(raw, f64::from(options.max()));
        }
    };
    push(read);
    push(write);
    6
}

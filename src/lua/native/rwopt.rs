//! set_rwopt and get_rwopt: how frames look.

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};

use super::{key, push_text, text};
use crate::frame::{Endian, HeadOptions, HeadPatch};
use crate::lua::host;
use crate::net::OptionsRefused;

/// The fields of one direction from `index` on: endian, bytes, max.
unsafe fn patch(raw: *mut lua_State, index: c_int, prefix: &str) -> Result<HeadPatch, String> {
    // SAFETY: the caller is called by the VM with seven arguments.
    unsafe {
        let mut patch = HeadPatch::default();
        match ffi::lua_type(raw, index) {
            ffi::LUA_TNIL => {}
            ffi::LUA_TSTRING => {
                let letter = text(raw, index).unwrap_or_default();
                let endian = Endian::from_letter(letter)
                    .map_err(|error| format!("{prefix}_head_endian: {error}"))?;
                patch.endian = Some(endian);
            }
            _ => return Err(format!("{prefix}_head_endian: not \"L\" or \"B\"")),
        }
        for (offset, field) in [(1, "bytes"), (2, "max")] {
            let value = match ffi::lua_type(raw, index + offset) {
                ffi::LUA_TNIL => continue,
                _ if ffi::lua_isnumber(raw, index + offset) != 0 => {
                    ffi::lua_tonumber(raw, index + offset)
                }
                _ => return Err(format!("{prefix}_head_{field}: not a number")),
            };
            if value.fract() != 0.0 || value.is_infinite() {
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
                    OptionsRefused::Invalid(error) => error.to_string(),
                    OptionsRefused::ReadFrozen => {
                        "read options are fixed once reading has begun".into()
                    }
                    OptionsRefused::WriteFrozen => {
                        "write options are fixed once writing has begun".into()
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

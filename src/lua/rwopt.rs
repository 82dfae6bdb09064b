//! set_rwopt, reframe and get_rwopt: how frames look.

use std::ffi::c_int;

use mlua::ffi;

use crate::frame::{Endian, HeadOptions, HeadPatch, ReadPatch, Width};
use crate::lua::host;
use crate::net::OptionsRefused;
use crate::vm::stack::Stack;

/// Whole numbers from here on are not told from each other.
const WHOLE_MAX: f64 = (1_u64 << 53) as f64;

/// The fields of one direction from `index` on: endian, bytes, max, adjust, offset.
fn patch(lua: Stack<'_>, index: c_int, prefix: &str) -> Result<HeadPatch, String> {
    let mut patch = HeadPatch::default();
    let wrong = |field, expected, at| {
        Err(format!("{prefix}_head_{field}: {expected} expected, got {}", lua.describe(at)))
    };
    let text = |at| (lua.kind(at) == ffi::LUA_TSTRING).then(|| lua.text(at)).flatten();
    if lua.kind(index) != ffi::LUA_TNIL {
        patch.endian = text(index).and_then(Endian::from_letter);
        if patch.endian.is_none() {
            return wrong("endian", "'L' or 'B'", index);
        }
    }
    for (field, at) in ["bytes", "max", "adjust", "offset"].into_iter().zip(index + 1..) {
        if lua.kind(at) == ffi::LUA_TNIL {
            continue;
        }
        if field == "bytes" && text(at) == Some(Width::VARINT.as_bytes()) {
            patch.width = Some(Width::Varint);
            continue;
        }
        // No text that reads as a number, as for all options.
        let is_number = lua.kind(at) == ffi::LUA_TNUMBER;
        let value = if is_number { lua.number(at) } else { 0.0 };
        if !is_number || value.fract() != 0.0 || value.abs() >= WHOLE_MAX {
            let hint = if field == "bytes" { " (0 to 8, or 'varint')" } else { "" };
            return wrong(field, "whole number", at).map_err(|text: String| text + hint);
        }
        let value = value as i64;
        match field {
            "bytes" => patch.width = Some(Width::Bytes(value)),
            "max" => patch.max = Some(value),
            "adjust" => patch.adjust = Some(value),
            _ => patch.offset = Some(value),
        }
    }
    Ok(patch)
}

/// The field for a delimiter at `index`: text, or false for none any more.
fn delimiter(lua: Stack<'_>, index: c_int) -> Result<Option<Vec<u8>>, String> {
    let wrong = || {
        let got = lua.describe(index);
        Err(format!("read_delimiter: string of 1 to 16 bytes, or false, expected, got {got}"))
    };
    match lua.kind(index) {
        ffi::LUA_TNIL => Ok(None),
        ffi::LUA_TBOOLEAN if !lua.boolean(index) => Ok(Some(Vec::new())),
        ffi::LUA_TSTRING => match lua.text(index) {
            None | Some([]) => wrong(),
            Some(text) => Ok(Some(text.to_vec())),
        },
        _ => wrong(),
    }
}

/// native.set_rwopt(key, is_reframed, read endian, bytes, max, adjust, offset, delimiter, write
/// endian, bytes, max, adjust, offset): nothing, or why not.
pub(super) fn set_rwopt(lua: Stack<'_>) -> c_int {
    let Err(message) = set(lua) else { return 0 };
    lua.push_text(message.as_bytes());
    1
}

fn set(lua: Stack<'_>) -> Result<(), String> {
    let (key, is_reframed) = (lua.key(1), lua.boolean(2));
    let read = ReadPatch { head: patch(lua, 3, "read")?, delimiter: delimiter(lua, 8)? };
    let write = patch(lua, 9, "write")?;
    let result = host::with(|host| {
        let stream = host.sockets.stream(key)?;
        Some(match is_reframed {
            true => stream.reframe(read, write),
            false => stream.set_options(read, write),
        })
    });
    result.unwrap_or(Ok(())).map_err(|refused| match refused {
        OptionsRefused::InvalidRead(error) => format!("read_{error}"),
        OptionsRefused::InvalidWrite(error) => format!("write_{error}"),
        OptionsRefused::ReadFrozen => {
            "read options are fixed once reading has begun: set them before, or use 'reframe'"
                .into()
        }
        OptionsRefused::WriteFrozen => {
            "write options are fixed once writing has begun: set them before, or use 'reframe'"
                .into()
        }
    })
}

/// native.get_rwopt(key): the fields of reading, as for `set_rwopt`, and those of writing.
pub(super) fn get_rwopt(lua: Stack<'_>) -> c_int {
    let key = lua.key(1);
    let options = host::with(|host| host.sockets.stream(key).map(|stream| stream.options()));
    let Some((read, write)) = options else { return 0 };
    let push = |options: &HeadOptions, max: u32| {
        lua.push_text(options.endian().letter().as_bytes());
        match options.width() {
            Width::Varint => lua.push_text(Width::VARINT.as_bytes()),
            Width::Bytes(bytes) => lua.push_number(bytes as f64),
        }
        lua.push_number(f64::from(max));
        lua.push_number(f64::from(options.adjust()));
        lua.push_number(f64::from(options.offset()));
    };
    let delimiter = read.delimiter();
    push(read.head(), delimiter.map_or(read.head().max(), |delimiter| delimiter.max));
    match delimiter {
        Some(delimiter) => lua.push_text(&delimiter.bytes),
        None => lua.push_nil(),
    }
    push(&write, write.max());
    11
}

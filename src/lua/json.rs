//! JSON, as scripts write and read it: the modules `json` and `cjson`.

use std::cell::RefCell;
use std::ffi::c_int;

use mlua::ffi;
use serde::Serialize;

use super::data::{self, BYTES, Input, READ, WRITE};
use crate::codec::json::{self, Style};
use crate::vm::blame::Raised;
use crate::vm::data::{Builder, Charged, Marked, ReadRules, Source, Sparse, WriteRules, write};
use crate::vm::stack::{Nil, Stack, function};

/// Functions for the table of natives.
pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"json_encode", function(encode)),
    (c"json_decode", function(decode)),
    (c"cjson_encode", function(cjson_encode)),
    (c"cjson_decode", function(cjson_decode)),
];

/// Options of module `cjson`, one bit each; lua/cjson.lua knows the numbers.
mod flag {
    /// Failures are returned as nil and a text, not raised.
    pub(super) const SAFE: u32 = 1;
    pub(super) const EMPTY_IS_ARRAY: u32 = 2;
    pub(super) const CONVERT_SPARSE: u32 = 4;
    pub(super) const NULL_FOR_INVALID: u32 = 8;
    pub(super) const ESCAPE_SLASH: u32 = 16;
    pub(super) const SKIP_UNSUPPORTED: u32 = 32;
    pub(super) const MARK_ARRAYS: u32 = 64;
}

/// Pushes the text of the value on top of the stack; in words, why there is none.
fn push_text(
    lua: Stack<'_>,
    rules: &WriteRules,
    style: Style,
    bytes_max: usize,
) -> Result<(), String> {
    let source = Source::new(lua, rules);
    write(lua, bytes_max, |output| {
        let written = source.top().serialize(&mut json::Writer::new(&mut *output, style));
        output.failure = output.failure.or(source.take_shortage());
        written
    })
    .map_err(|(error, failure)| data::why(&source, failure, bytes_max, error))
}

/// json.encode(value[, options])
fn encode(lua: Stack<'_>) -> Result<c_int, Raised> {
    let mut rules = WRITE;
    let bytes_max =
        data::write_options(lua, &mut rules, ", invalid_utf8", |options, name, rules| match name {
            b"invalid_utf8" => {
                rules.is_lossy = options.word(name, ["raise", "replace"]);
                true
            }
            _ => false,
        });
    let written = push_text(lua, &rules, Style::default(), bytes_max);
    written.map(|()| 1).map_err(|why| Raised(format!("encode: {why}")))
}

/// Pushes what a text says; in words, why there is nothing.
fn push_value(lua: Stack<'_>, text: &[u8], rules: ReadRules, max: usize) -> Result<(), String> {
    if text.len() > max {
        return Err(data::too_long(text.len(), max));
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let place = json::Place::of(text, error.valid_up_to());
            return Err(format!("invalid UTF-8 at {place}"));
        }
    };
    let charged = RefCell::new(Charged::new(lua));
    let may_hold = |bytes| charged.borrow_mut().collect_and_set(bytes);
    let mut from = json::Reader::with_memory(text, &may_hold);
    let result =
        Builder::new(lua, rules, text.as_bytes()).push(&mut from).and_then(|()| from.end());
    result.map_err(|error| format!("{error} at {}", from.place()))
}

/// json.decode(text[, options])
fn decode(lua: Stack<'_>) -> Result<c_int, Raised> {
    let input = Input::new(lua, 1, "decode");
    let mut rules = READ;
    let bytes_max =
        data::read_options(lua, &mut rules, ", mark_arrays", |options, name, rules| match name {
            b"mark_arrays" => {
                rules.marks = if options.flag(name) { Marked::All } else { Marked::None };
                true
            }
            _ => false,
        });
    let read = push_value(lua, &input, rules, bytes_max);
    read.map(|()| 1).map_err(|why| Raised(format!("decode: {why}")))
}

/// Nil and why, or what is raised.
type Failed = Result<(Nil, String), Raised>;

fn fail(is_safe: bool, why: String) -> Failed {
    if is_safe { Ok((Nil, why)) } else { Err(Raised(why)) }
}

/// native.cjson_encode(value, flags, max_depth, ratio, safe, digits)
fn cjson_encode(lua: Stack<'_>) -> Result<c_int, Failed> {
    let flags = lua.key(2) as u32;
    let has = |flag: u32| flags & flag != 0;
    let (ratio, safe) = (lua.key(4) as u32, lua.key(5) as u32);
    let rules = WriteRules {
        depth_max: lua.key(3) as u32,
        mixes: true,
        sparse: Sparse { safe, ratio, convert: has(flag::CONVERT_SPARSE) },
        empty_is_list: has(flag::EMPTY_IS_ARRAY),
        nulls_infinity: has(flag::NULL_FOR_INVALID),
        skips: has(flag::SKIP_UNSUPPORTED),
        ..WRITE
    };
    let style = Style { digits: lua.key(6) as usize, escapes_slash: has(flag::ESCAPE_SLASH) };
    lua.set_top(1);
    let written = push_text(lua, &rules, style, BYTES).map(|()| 1);
    written.map_err(|why| fail(has(flag::SAFE), format!("Cannot serialise: {why}")))
}

/// native.cjson_decode(text, flags, max_depth)
fn cjson_decode(lua: Stack<'_>) -> Result<c_int, Failed> {
    let (flags, depth_max) = (lua.key(2) as u32, lua.key(3) as u32);
    let is_safe = flags & flag::SAFE != 0;
    let marks = if flags & flag::MARK_ARRAYS != 0 { Marked::All } else { Marked::None };
    let rules = ReadRules { depth_max, marks, is_exact: false, ..READ };
    if lua.kind(1) == ffi::LUA_TNUMBER {
        // As text, like all that takes one.
        lua.text(1);
    }
    if is_safe && !matches!(lua.kind(1), ffi::LUA_TSTRING | ffi::LUA_TUSERDATA) {
        let got = lua.describe(1);
        let why = format!("bad argument #1 to 'decode' (string or buffer expected, got {got})");
        return Err(fail(true, why));
    }
    let input = Input::new(lua, 1, "decode");
    push_value(lua, &input, rules, BYTES).map(|()| 1).map_err(|why| fail(is_safe, why))
}

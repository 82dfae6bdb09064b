//! What the modules `json` and `msgpack` have in common: texts, options, marks and failures.

use std::ffi::c_int;
use std::ops::Deref;

use mlua::ffi;

use super::buffer::userdata::buffer_at;
use crate::buf::Piece;
use crate::codec::Sink;
use crate::vm::blame::Wrong;
use crate::vm::data::{
    DEPTH_MAX, Failure, Fault, Keys, Mark, Marked, Output, ReadRules, Source, Sparse, WriteRules,
    empty_array, push_mark,
};
use crate::vm::stack::{Stack, function};

/// Functions for the table of natives.
pub(super) const FUNCTIONS: super::native::Functions =
    &[(c"data_mark", function(mark)), (c"data_constants", function(push_constants))];

/// All that the modules `json`, `cjson` and `msgpack` call, which needs buffers, but no context.
#[cfg(all(feature = "json", feature = "msgpack"))]
pub const DATA_FUNCTIONS: &[super::native::Functions] =
    &[FUNCTIONS, super::json::FUNCTIONS, super::msgpack::FUNCTIONS];

/// Levels that are written and read if no option says otherwise.
pub(super) const DEPTH: u32 = 1000;

/// Bytes of a document, likewise.
pub(super) const BYTES: usize = 64 << 20;

/// The most that an option may allow: a string of the VM is no longer.
const BYTES_MAX: usize = (1 << 31) - 1024;

/// native.data_mark(n): one of the metatables that say what a table is written as.
fn mark(lua: Stack<'_>) -> c_int {
    let mark = match lua.key(1) {
        0 => Mark::Array,
        1 => Mark::Object,
        2 => Mark::EmptyArray,
        _ => Mark::Extension,
    };
    push_mark(lua, mark);
    1
}

/// native.data_constants(): what stands for null, and for a list without elements.
fn push_constants(lua: Stack<'_>) -> c_int {
    lua.push_address(std::ptr::null_mut());
    lua.push_address(empty_array());
    2
}

/// The bytes of an argument: of a string, or of a buffer, whatever becomes of that meanwhile.
pub(super) enum Input<'a> {
    Text(&'a [u8]),
    Shared(Piece),
}

impl<'a> Input<'a> {
    /// Those of the argument at `index`; raises if it is neither.
    pub(super) fn new(lua: Stack<'a>, index: c_int, function: &str) -> Input<'a> {
        if lua.kind(index) == ffi::LUA_TSTRING {
            return Input::Text(lua.text(index).unwrap_or_default());
        }
        let live = buffer_at(lua, index).filter(|buffer| buffer.is_live());
        match live.map(|buffer| buffer.share()) {
            Some(piece) => Input::Shared(piece),
            None => lua.bad(Wrong::Argument(index), function, "string or buffer", Some(index)),
        }
    }
}

impl Deref for Input<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Input::Text(text) => text,
            Input::Shared(piece) => piece,
        }
    }
}

impl Sink for Output<'_> {
    #[inline]
    fn room(&mut self, more: usize) -> Option<&mut Vec<u8>> {
        Output::room(self, more)
    }
}

/// How values are written if no option says otherwise.
pub(super) const WRITE: WriteRules = WriteRules {
    keys: Keys::Text,
    depth_max: DEPTH,
    is_sorted: false,
    has_bytes: false,
    has_infinity: false,
    nulls_infinity: false,
    is_lossy: false,
    mixes: false,
    sparse: Sparse { safe: 10, ratio: 2, convert: false },
    empty_is_list: false,
    skips: false,
    object: "json.object",
};

/// How values are built if no option says otherwise.
pub(super) const READ: ReadRules = ReadRules {
    depth_max: DEPTH,
    is_exact: true,
    marks: Marked::Empty,
    null: 0,
    drops_null: false,
    push_bytes: None,
};

/// What the options of `encode` say, in the second argument; returns how many bytes there may be.
/// `take` knows the options that only one form has, which `more` lists. The value is alone on the
/// stack afterwards.
pub(super) fn write_options(
    lua: Stack<'_>,
    rules: &mut WriteRules,
    more: &str,
    mut take: impl FnMut(&Options<'_>, &[u8], &mut WriteRules) -> bool,
) -> usize {
    let mut bytes_max = BYTES;
    if lua.top() > 1 {
        check_last(lua, 2, "encode");
        let known = ["empty, max_bytes, max_depth, sort_keys", more];
        Options::each(lua, 2, "encode", known, |options, name| {
            match name {
                b"max_depth" => rules.depth_max = options.depth(name),
                b"max_bytes" => bytes_max = options.bytes(name),
                b"sort_keys" => rules.is_sorted = options.flag(name),
                b"empty" => rules.empty_is_list = options.word(name, ["object", "array"]),
                _ => return take(options, name, rules),
            }
            true
        });
    } else if lua.top() == 0 {
        lua.bad(Wrong::Argument(1), "encode", "value", Some(1));
    }
    lua.set_top(1);
    bytes_max
}

/// The same for `decode`. What stands for null is in place 3 afterwards, if an option says so.
pub(super) fn read_options(
    lua: Stack<'_>,
    rules: &mut ReadRules,
    more: &str,
    mut take: impl FnMut(&Options<'_>, &[u8], &mut ReadRules) -> bool,
) -> usize {
    let mut bytes_max = BYTES;
    if lua.top() > 1 {
        check_last(lua, 2, "decode");
        lua.set_top(2);
        lua.push_nil();
        let known = ["drop_nulls, int64, max_bytes, max_depth, null", more];
        Options::each(lua, 2, "decode", known, |options, name| {
            match name {
                b"max_depth" => rules.depth_max = options.depth(name),
                b"max_bytes" => bytes_max = options.bytes(name),
                b"int64" => rules.is_exact = options.flag(name),
                b"null" => {
                    rules.null = 3;
                    lua.push_copy(-1);
                    lua.replace(3);
                }
                b"drop_nulls" => rules.drops_null = options.flag(name),
                _ => return take(options, name, rules),
            }
            true
        });
    }
    bytes_max
}

/// Raises for what follows the last argument.
fn check_last(lua: Stack<'_>, last: c_int, function: &str) {
    if lua.top() > last {
        lua.bad(Wrong::Argument(last + 1), function, "", Some(last + 1));
    }
}

/// A table of options, one after the other.
pub(super) struct Options<'a> {
    lua: Stack<'a>,
    function: &'static str,
}

impl<'a> Options<'a> {
    /// Has `take` look at each option at `index`, with its value on top of the stack; raises if it
    /// does not know the name, saying which are `known`, or if it is no table.
    pub(super) fn each(
        lua: Stack<'a>,
        index: c_int,
        function: &'static str,
        known: [&str; 2],
        mut take: impl FnMut(&Options<'a>, &[u8]) -> bool,
    ) {
        match lua.kind(index) {
            ffi::LUA_TNIL | ffi::LUA_TNONE => return,
            ffi::LUA_TTABLE => lua.check_plain(Wrong::Argument(index), function, index),
            _ => {
                let expected = "table of options or nil";
                lua.bad(Wrong::Argument(index), function, expected, Some(index));
            }
        }
        let options = Options { lua, function };
        let top = lua.top();
        lua.push_nil();
        while lua.next(index) {
            // A number would be changed into its text, which is no key of the table any more.
            let name = match lua.kind(-2) {
                ffi::LUA_TSTRING => lua.text(-2).unwrap_or_default(),
                _ => b"?",
            };
            if !take(&options, name) {
                let given = lua.describe(-2);
                let why = format!("no option named {given}; there are {}{}", known[0], known[1]);
                lua.bad(Wrong::Argument(index), function, &why, None);
            }
            lua.set_top(top + 1);
        }
    }

    pub(super) fn flag(&self, name: &[u8]) -> bool {
        if self.lua.kind(-1) != ffi::LUA_TBOOLEAN {
            self.wrong(name, "boolean");
        }
        self.lua.boolean(-1)
    }

    /// A whole number from 1 to `max`.
    fn count(&self, name: &[u8], max: usize) -> usize {
        let is_number = self.lua.kind(-1) == ffi::LUA_TNUMBER;
        let number = if is_number { self.lua.number(-1) } else { 0.0 };
        if !(number >= 1.0 && number <= max as f64 && number.fract() == 0.0) {
            self.wrong(name, &format!("whole number from 1 to {max}"));
        }
        number as usize
    }

    pub(super) fn depth(&self, name: &[u8]) -> u32 {
        self.count(name, DEPTH_MAX as usize) as u32
    }

    pub(super) fn bytes(&self, name: &[u8]) -> usize {
        self.count(name, BYTES_MAX)
    }

    /// One of two words; true if it is the second.
    pub(super) fn word(&self, name: &[u8], words: [&str; 2]) -> bool {
        let found = match self.lua.kind(-1) {
            ffi::LUA_TSTRING => self.lua.text(-1),
            _ => None,
        };
        let which = words.iter().position(|word| Some(word.as_bytes()) == found);
        if which.is_none() {
            self.wrong(name, &format!("\"{}\" or \"{}\"", words[0], words[1]));
        }
        which == Some(1)
    }

    fn wrong(&self, name: &[u8], expected: &str) {
        let name = String::from_utf8_lossy(name).into_owned();
        self.lua.bad(Wrong::Option(&name), self.function, expected, Some(self.lua.top()));
    }
}

/// Why writing failed, in words.
pub(super) fn why(
    source: &Source<'_>,
    failure: Option<Failure>,
    max: usize,
    error: impl std::fmt::Display,
) -> String {
    match (source.take_fault(), failure) {
        (Some(Fault(text)), _) => text,
        (None, Some(Failure::TooLarge)) => format!("more than {max} bytes (max_bytes)"),
        (None, Some(Failure::Memory(bytes))) => format!("not enough memory for {bytes} bytes"),
        (None, None) => error.to_string(),
    }
}

/// What is said of a text that is too long.
pub(super) fn too_long(length: usize, max: usize) -> String {
    format!("{length} bytes, {max} at most (max_bytes)")
}

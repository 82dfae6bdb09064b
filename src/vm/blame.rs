//! Errors that scripts make: what is said of a wrong value, and whose line it names.
//!
//! Whatever raises because of what a script has passed comes through here, from Rust and from the
//! Lua side (`core.bad`, `core.raise`): the line is that of the innermost function of the script,
//! however many of the library's and of the VM's lie above it, and the text says what was given.
//!
//! ```text
//!   main.lua:7: bad argument #2 to 'read' (number of seconds expected, got string "abc")
//!   main.lua:8: calling 'read' on bad self (tcp socket expected, got number 5)
//!   main.lua:9: bad option 'worker' of 'create' (integer from 0 to 1 expected, got number 7)
//! ```
//!
//! What a callback has returned is its fault: the line is the one on which it begins.

use std::ffi::{CStr, c_int};
use std::fmt::Write;
use std::sync::OnceLock;

use mlua::ffi::{self, lua_CFunction};

use super::int64;
use super::stack::{Record, Results, Stack, function};
use super::stock::{Kind, frame};

/// Functions for the table of natives.
pub const FUNCTIONS: &[(&CStr, lua_CFunction)] = &[
    (c"bad", function(bad_for_lua)),
    (c"bad_because", function(bad_because_for_lua)),
    (c"raise", function(raise_for_lua)),
    (c"placed", function(placed_for_lua)),
    (c"describe", function(describe_for_lua)),
    (c"check_plain", function(check_plain_for_lua)),
];

/// Prefixes of the names of chunks that are not the script's: C functions, as which the library's
/// appear too, and the VM's own.
const OTHERS: [&[u8]; 2] = [b"=[C]", b"=[builtin:"];

/// Levels of the stack that are searched for a function of the script.
const LEVELS_MAX: c_int = 1000;
/// Bytes of a string that are shown, and how many of them if there are more.
const TEXT_MAX: usize = 60;
const TEXT_SHOWN: usize = 40;

/// What is wrong: an argument, by its position from 1, or an option, by its name.
#[derive(Clone, Copy, Debug)]
pub enum Wrong<'a> {
    /// An argument of a function.
    Argument(c_int),
    /// A field of a table of options; words with a space among them are said as they are.
    Option(&'a str),
    /// What the function at this index has returned; which result that is, and of what, is said in
    /// the place of a function's name.
    Result(c_int),
}

/// Where the script is.
struct Place {
    /// The same as text, for the front of a message.
    text: Vec<u8>,
    /// The name by which it calls the library's function, if it calls it as a method.
    method: Option<String>,
}

impl Place {
    /// A line of what a record is about; nothing if that is not the script's.
    fn new(record: &Record, line: c_int) -> Option<Place> {
        let is_script = !OTHERS.iter().any(|prefix| record.source().starts_with(prefix));
        let text = [record.short_source(), format!(":{line}: ").as_bytes()].concat();
        (line >= 0 && is_script).then_some(Place { text, method: None })
    }

    /// Where the function at `index` begins.
    fn of_function(lua: Stack<'_>, index: c_int) -> Option<Place> {
        if lua.kind(index) != ffi::LUA_TFUNCTION {
            return None;
        }
        let record = lua.function_record(index);
        // That of a whole file says 0.
        let line = record.first_line();
        Place::new(&record, if line == 0 { 1 } else { line })
    }
}

/// The innermost function of the script that runs. If there is none, since it has ended with the
/// call of what raises, where that function begins which the library has called; `None` if that is
/// not known either.
fn place(lua: Stack<'_>) -> Option<Place> {
    for level in 0..LEVELS_MAX {
        let Some(record) = lua.frame(level, c"Sl") else { return place_called(lua, level) };
        let Some(place) = Place::new(&record, record.line()) else { continue };
        // Of the function that this one has called.
        let called = lua.frame(level - 1, c"n").filter(|called| called.name_kind() == b"method");
        let method = called.map(|called| String::from_utf8_lossy(called.name()).into_owned());
        return Some(Place { method, ..place });
    }
    None
}

/// Where the function begins that the library has called, on a stack of so many frames: who calls
/// one has it as its first variable.
fn place_called(lua: Stack<'_>, depth: c_int) -> Option<Place> {
    (0..depth).find_map(|level| {
        if !frame(lua, level).is_some_and(Kind::is_ours) || !lua.first_local(level) {
            return None;
        }
        let place = Place::of_function(lua, lua.top());
        lua.pop();
        place
    })
}

/// What is raised in the place of results, as [`Stack::raise`] does.
#[derive(Debug)]
pub(crate) struct Raised(pub(crate) String);

impl Results for Raised {
    fn give(self, lua: Stack<'_>) -> c_int {
        lua.raise(&self.0)
    }
}

impl Stack<'_> {
    /// Raises a text, as the fault of the script's innermost function. What needs dropping must be
    /// in the hands of the unwinder.
    pub(crate) fn raise(self, text: &str) -> ! {
        raise_at(self, place(self), text)
    }

    /// Raises: something that was passed to `function` is wrong. `why` says all, or, if a value is
    /// given by its index, what was expected instead; nothing if that is empty.
    pub(crate) fn bad(
        self,
        wrong: Wrong<'_>,
        function: &str,
        why: &str,
        value: Option<c_int>,
    ) -> ! {
        let place = match wrong {
            Wrong::Result(by) => Place::of_function(self, by),
            _ => place(self),
        };
        let why = match value {
            Some(index) => {
                let expected = if why.is_empty() { "no more arguments" } else { why };
                format!("{expected} expected, got {}", self.describe(index))
            }
            None => why.to_owned(),
        };
        let is_method = place.as_ref().and_then(|place| place.method.as_deref()) == Some(function);
        let text = match wrong {
            Wrong::Argument(1) if is_method => format!("calling '{function}' on bad self ({why})"),
            Wrong::Argument(position) => {
                let position = position - c_int::from(is_method);
                format!("bad argument #{position} to '{function}' ({why})")
            }
            Wrong::Result(_) => format!("bad {function} ({why})"),
            Wrong::Option(name) if name.contains(' ') => {
                format!("bad {name} of '{function}' ({why})")
            }
            Wrong::Option(name) => {
                format!("bad option '{}' of '{function}' ({why})", shorten(name.as_bytes()))
            }
        };
        raise_at(self, place, &text)
    }

    /// Raises if what is read of a table may stand behind a metatable, where no list of its fields
    /// finds it: whoever goes by the list would take such options for none.
    pub(crate) fn check_plain(self, wrong: Wrong<'_>, function: &str, index: c_int) {
        if !self.metatable(index) {
            return;
        }
        self.push_text(b"__index");
        self.raw_get(-2);
        let is_behind = self.kind(-1) != ffi::LUA_TNIL;
        self.pop();
        self.pop();
        if is_behind {
            let why = "a table of its own fields expected, this one has a metatable with __index; \
                       copy them into a plain table";
            self.bad(wrong, function, why, None);
        }
    }

    /// What a value is, for people: its type, and the value where that is short.
    /// May raise if memory runs out, and run finalisers.
    pub(crate) fn describe(self, index: c_int) -> String {
        match self.kind(index) {
            ffi::LUA_TNONE => "no value".to_owned(),
            ffi::LUA_TNIL => "nil".to_owned(),
            ffi::LUA_TBOOLEAN => format!("boolean {}", self.boolean(index)),
            ffi::LUA_TNUMBER => {
                // A copy is turned into text.
                self.push_copy(index);
                let text = format!("number {}", text_at(self, -1));
                self.pop();
                text
            }
            ffi::LUA_TSTRING => {
                let text = self.text(index).unwrap_or_default();
                let len = text.len();
                let cut = if len > TEXT_MAX { format!(" of {len} bytes") } else { String::new() };
                format!("string \"{}\"{cut}", shorten(text))
            }
            ffi::LUA_TUSERDATA => {
                let makers = MAKERS.iter().filter_map(OnceLock::get);
                let found = makers.filter_map(|describe| describe(self, index)).next();
                found.unwrap_or("userdata").to_owned()
            }
            ffi::LUA_TCDATA => match int64::text_at(self, index) {
                Some(text) => format!("cdata {text}"),
                None => "cdata".to_owned(),
            },
            _ => self.kind_name(index).to_owned(),
        }
    }
}

fn push_placed(lua: Stack<'_>, place: Option<Place>, text: &str) {
    lua.push_text(&place.map(|place| place.text).unwrap_or_default());
    lua.push_text(text.as_bytes());
    lua.concat(2);
}

fn raise_at(lua: Stack<'_>, place: Option<Place>, text: &str) -> ! {
    push_placed(lua, place, text);
    lua.raise_top()
}

/// Says what a userdata is, if it is one of those it knows.
/// It leaves the stack as it was.
pub(crate) type Describe = fn(Stack<'_>, c_int) -> Option<&'static str>;

/// Those who make userdata.
static MAKERS: [OnceLock<Describe>; 4] = [const { OnceLock::new() }; 4];

/// Has `describe` asked what a userdata is, from now on and in all states.
pub(crate) fn describe_with(describe: Describe) {
    let is_known = |known: &Describe| std::ptr::fn_addr_eq(*known, describe);
    if !MAKERS.iter().any(|maker| is_known(maker.get_or_init(|| describe))) {
        log::error!("nobody else can tell what userdata is");
    }
}

/// A text in one line, cut if it is long; what is no text, and what controls, is escaped.
pub(super) fn shorten(text: &[u8]) -> String {
    let shown = if text.len() > TEXT_MAX { &text[..TEXT_SHOWN] } else { text };
    let mut out = String::new();
    for chunk in shown.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' => out.extend(['\\', letter]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\0' => out.push_str("\\0"),
                _ if letter.is_control() => {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "\\x{:02x}", u32::from(letter));
                }
                _ => out.push(letter),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    if shown.len() < text.len() {
        out.push_str("...");
    }
    out
}

/// The text at an index; nothing if there is none.
fn text_at(lua: Stack<'_>, index: c_int) -> String {
    String::from_utf8_lossy(lua.text(index).unwrap_or_default()).into_owned()
}

/// `native.bad(position, function, expected, value)`, with an option's name for a position where
/// that is wrong, or the function whose result is. Without a value argument `got no value` is said;
/// if nil was expected, no argument was.
fn bad_for_lua(lua: Stack<'_>) {
    let (function, expected) = (text_at(lua, 2), text_at(lua, 3));
    lua.bad(wrong_at(lua, &mut String::new()), &function, &expected, Some(4))
}

/// What is wrong, by the first argument: a position, a function, or a name, which is put into
/// `name`.
fn wrong_at<'a>(lua: Stack<'_>, name: &'a mut String) -> Wrong<'a> {
    match lua.kind(1) {
        ffi::LUA_TNUMBER => Wrong::Argument(lua.number(1) as c_int),
        ffi::LUA_TFUNCTION => Wrong::Result(1),
        _ => {
            *name = text_at(lua, 1);
            Wrong::Option(name)
        }
    }
}

/// `native.check_plain(position, function, table)`, with a name for a position likewise.
fn check_plain_for_lua(lua: Stack<'_>) {
    let function = text_at(lua, 2);
    lua.check_plain(wrong_at(lua, &mut String::new()), &function, 3);
}

/// `native.bad_because(position, function, why)`: likewise, with no more than the reason.
fn bad_because_for_lua(lua: Stack<'_>) {
    let (mut name, function, why) = (String::new(), text_at(lua, 2), text_at(lua, 3));
    lua.bad(wrong_at(lua, &mut name), &function, &why, None)
}

/// `native.raise(text, by)`: as the fault of that function, if there is one.
fn raise_for_lua(lua: Stack<'_>) {
    let place = if lua.top() > 1 { Place::of_function(lua, 2) } else { place(lua) };
    raise_at(lua, place, &text_at(lua, 1))
}

/// `native.placed(text)`: the text that `raise` raises.
fn placed_for_lua(lua: Stack<'_>) -> c_int {
    push_placed(lua, place(lua), &text_at(lua, 1));
    1
}

/// `native.describe(value)`: as text.
fn describe_for_lua(lua: Stack<'_>) -> String {
    lua.describe(1)
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn texts_are_shown_in_one_line_of_bounded_length() {
        assert_eq!(
            shorten(b"a\"b\\c\n\r\t\0\x1b\x7f\xff\xc3\xa4"),
            "a\\\"b\\\\c\\n\\r\\t\\0\\x1b\\x7f\\xffä"
        );
        assert_eq!(shorten(&[b'x'; 60]), "x".repeat(60));
        assert_eq!(shorten(&[b'x'; 61]), format!("{}...", "x".repeat(40)));
    }
}

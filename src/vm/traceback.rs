//! The text of a traceback, with the frames that scripts see: see `stock.rs`.

use std::ffi::c_int;

use super::frames::is_hidden;
use super::stack::Stack;
use super::stock::{BUILT_IN, Kind, frame, has_no_name, has_room};

/// How many frames of a deep stack are shown, of its top and of its bottom.
const FIRST: c_int = 12;
const LAST: c_int = 10;

/// From this level on a stack is deep.
const DEEP: c_int = 200;
/// How many frames a root coroutine begins with at most.
const ROOT_FRAMES: c_int = 4;

/// Appends a traceback, as LuaJIT's `luaL_traceback` writes it, from a level on.
/// `lua` is what runs, and `of` one of its coroutines. Does not raise.
pub(crate) fn traceback(lua: Stack<'_>, of: Stack<'_>, from: c_int, text: &mut Vec<u8>) {
    text.extend_from_slice(b"stack traceback:");
    if !has_room(lua, of) {
        return;
    }
    // Each look at a frame goes through all above it. Deep down there are scripts' alone, but
    // at the very bottom.
    let bottom = of.depth() - ROOT_FRAMES;
    let (mut level, mut limit) = (from, FIRST);
    loop {
        if level >= limit && limit != c_int::MAX {
            limit = c_int::MAX;
            if frame(of, level.saturating_add(LAST + 1)).is_some() {
                text.extend_from_slice(b"\n\t...");
                let last = (bottom..bottom + ROOT_FRAMES).filter(|&at| is_hidden(of, at));
                level = bottom + ROOT_FRAMES - LAST - last.count() as c_int;
            }
            continue;
        }
        let Some(kind) = frame(of, level) else { return };
        let may_be_hidden = level < DEEP || level >= bottom;
        if !may_be_hidden || !is_hidden(of, level) {
            show(of, level, kind, text);
        }
        level += 1;
    }
}

/// Takes away what the runtime runs a main chunk in: its last line, if that is a function in C that
/// nothing has called by a name.
pub(crate) fn hide_bottom(text: &mut Vec<u8>) {
    let Some(at) = text.iter().rposition(|&byte| byte == b'\n') else { return };
    let last = &text[at..];
    if last.starts_with(b"\n\t[C]: at 0x") || last.starts_with(b"\n\t[builtin#") {
        text.truncate(at);
    }
}

fn show(of: Stack<'_>, level: c_int, kind: Kind, text: &mut Vec<u8>) {
    let Some(found) = of.frame(level, c"Snlf") else { return };
    let (object, code, number) = (of.address(-1), of.c_function(-1), of.function_number(-1));
    of.pop();
    // Names of files and fields are any bytes.
    let place = found.short_source();
    let name = if has_no_name(of, level) { &[] } else { found.name() };
    let mut say = |pieces: &[&[u8]]| text.extend(pieces.iter().copied().flatten());
    match kind {
        Kind::C if name.is_empty() && number >= BUILT_IN && level_below(of, level) => {
            say(&[format!("\n\t[builtin#{number}]:").as_bytes()]);
        }
        Kind::Script => say(&[b"\n\t", place, b":"]),
        _ => say(&[b"\n\t[C]:"]),
    }
    if kind == Kind::Script && found.line() > 0 {
        say(&[format!("{}:", found.line()).as_bytes()]);
    }
    if !name.is_empty() {
        say(&[b" in function '", name, b"'"]);
    } else if kind == Kind::Script && found.what().first() == Some(&b'm') {
        say(&[b" in main chunk"]);
    } else if kind == Kind::Script {
        say(&[b" in function <", place, format!(":{}>", found.first_line()).as_bytes()]);
    } else {
        let address = code.filter(|_| kind == Kind::C);
        let address = address.map_or(object as usize, |code| code as usize);
        say(&[format!(" at {address:#x}").as_bytes()]);
    }
}

/// Whether there is a frame below: what is at the bottom is the runtime's.
fn level_below(of: Stack<'_>, level: c_int) -> bool {
    frame(of, level.saturating_add(1)).is_some()
}

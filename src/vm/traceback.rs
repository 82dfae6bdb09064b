//! The text of a traceback, with the frames that scripts see: see `stock.rs`.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;

use mlua::ffi::{self, lua_Debug, lua_State};

use super::frames::is_hidden;
use super::stock::{BUILT_IN, Kind, NUMBER_OFFSET, frame, has_no_name, has_room};

/// How many frames of a deep stack are shown, of its top and of its bottom.
const FIRST: c_int = 12;
const LAST: c_int = 10;

/// From this level on a stack is deep.
const DEEP: c_int = 200;
/// How many frames a root coroutine begins with at most.
const ROOT_FRAMES: c_int = 4;

/// Appends a traceback, as LuaJIT's `luaL_traceback` writes it, from a level on.
///
/// # Safety
/// `raw` must be the state that runs, and `of` one of its coroutines. Does not raise.
pub(crate) unsafe fn traceback(
    raw: *mut lua_State,
    of: *mut lua_State,
    from: c_int,
    text: &mut Vec<u8>,
) {
    text.extend_from_slice(b"stack traceback:");
    // SAFETY: the caller's.
    unsafe {
        if !has_room(raw, of) {
            return;
        }
        // Each look at a frame goes through all above it. Deep down there are scripts' alone, but
        // at the very bottom.
        let bottom = depth(of) - ROOT_FRAMES;
        let (mut level, mut limit) = (from, FIRST);
        loop {
            if level >= limit && limit != c_int::MAX {
                limit = c_int::MAX;
                if frame(of, level + LAST + 1).is_some() {
                    text.extend_from_slice(b"\n\t...");
                    let last = (bottom..bottom + ROOT_FRAMES).filter(|&at| is_hidden(of, at));
                    level = bottom + ROOT_FRAMES - LAST - last.count() as c_int;
                }
                continue;
            }
            let Some((found, kind)) = frame(of, level) else { return };
            let may_be_hidden = level < DEEP || level >= bottom;
            if !may_be_hidden || !is_hidden(of, level) {
                show(of, level, found, kind, text);
            }
            level += 1;
        }
    }
}

const _: () = assert!(size_of::<lua_Debug>() == 120, "its last field is the last four bytes");

/// Takes away what the runtime runs a main chunk in: its last line, if that is a function in C that
/// nothing has called by a name.
pub(crate) fn hide_bottom(text: &mut Vec<u8>) {
    let Some(at) = text.iter().rposition(|&byte| byte == b'\n') else { return };
    let last = &text[at..];
    if last.starts_with(b"\n\t[C]: at 0x") || last.starts_with(b"\n\t[builtin#") {
        text.truncate(at);
    }
}

/// How many frames there are.
unsafe fn depth(of: *mut lua_State) -> c_int {
    let mut record = MaybeUninit::<lua_Debug>::zeroed();
    // SAFETY: the caller's. All zeros are a valid record; of a level that is not there LuaJIT tells
    // how far it has come, in the record's last field.
    unsafe {
        ffi::lua_getstack(of, c_int::MAX, record.as_mut_ptr());
        record.as_ptr().cast::<c_int>().add(size_of::<lua_Debug>() / size_of::<c_int>() - 1).read()
    }
}

unsafe fn show(
    of: *mut lua_State,
    level: c_int,
    mut found: lua_Debug,
    kind: Kind,
    text: &mut Vec<u8>,
) {
    // SAFETY: the caller's; the VM's texts are terminated and live while the frame does.
    unsafe {
        ffi::lua_getinfo(of, c"nlf".as_ptr(), &mut found);
        let object = ffi::lua_topointer(of, -1);
        let code = ffi::lua_tocfunction(of, -1);
        ffi::lua_settop(of, -2);
        // Names of files and fields are any bytes.
        let place = CStr::from_ptr(found.short_src.as_ptr()).to_bytes();
        let name = match found.name.is_null() || has_no_name(of, level) {
            true => &[],
            false => CStr::from_ptr(found.name).to_bytes(),
        };
        let number = object.cast::<u8>().add(NUMBER_OFFSET).read();
        let mut say = |pieces: &[&[u8]]| text.extend(pieces.iter().copied().flatten());
        match kind {
            Kind::C if name.is_empty() && number >= BUILT_IN && level_below(of, level) => {
                say(&[format!("\n\t[builtin#{number}]:").as_bytes()]);
            }
            Kind::Script => say(&[b"\n\t", place, b":"]),
            _ => say(&[b"\n\t[C]:"]),
        }
        if kind == Kind::Script && found.currentline > 0 {
            say(&[format!("{}:", found.currentline).as_bytes()]);
        }
        if !name.is_empty() {
            say(&[b" in function '", name, b"'"]);
        } else if kind == Kind::Script && *found.what.cast::<u8>() == b'm' {
            say(&[b" in main chunk"]);
        } else if kind == Kind::Script {
            say(&[b" in function <", place, format!(":{}>", found.linedefined).as_bytes()]);
        } else {
            let address = code.filter(|_| kind == Kind::C);
            let address = address.map_or(object as usize, |code| code as usize);
            say(&[format!(" at {address:#x}").as_bytes()]);
        }
    }
}

/// Whether there is a frame below: what is at the bottom is the runtime's.
unsafe fn level_below(of: *mut lua_State, level: c_int) -> bool {
    // SAFETY: the caller's.
    unsafe { frame(of, level + 1) }.is_some()
}

//! Scripts that many contexts run, compiled once.
//!
//! The second context that runs a file leaves its bytecode here, with names and lines, and those
//! after it load that, for as long as the file is the same. A file that was changed a moment ago
//! may change again without showing it: such a one is always read.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use memchr::memmem::Finder;
use mlua::ffi::{self, lua_State};

use super::stack::{Stack, TABLE};
use super::{blame, disguise};
use crate::{logging, rt};

/// Files that are remembered. One more, and all are forgotten.
const FILES_MAX: usize = 256;
/// Bytecode larger than this is not kept.
const CODE_MAX: usize = 1 << 20;
/// Seconds for which a file must have been left alone: file systems tell times coarsely.
const SETTLED: i64 = 2;

/// Whether a file is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct Known {
    stamp: Stamp,
    /// Absent as long as only one context has run the file.
    code: Option<Arc<[u8]>>,
}

static FILES: RwLock<Option<HashMap<PathBuf, Known>>> = RwLock::new(None);

/// The stamp of a file that has been left alone.
fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let stamp = Stamp {
        place: (found.dev(), found.ino()),
        bytes: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    };
    let now = rt::wall_clock().as_secs() as i64;
    let is_settled = stamp.modified.0.max(stamp.changed.0) + SETTLED < now;
    // In a simulation it must not matter when a file was written; it is not to change meanwhile.
    (is_settled || rt::is_simulated()).then_some(stamp)
}

enum Found {
    Code(Arc<[u8]>),
    Once,
    Nothing,
}

fn find(path: &Path, stamp: Stamp) -> Found {
    let files = FILES.read().unwrap_or_else(PoisonError::into_inner);
    match files.as_ref().and_then(|files| files.get(path)) {
        Some(known) if known.stamp == stamp => {
            known.code.as_ref().map_or(Found::Once, |code| Found::Code(Arc::clone(code)))
        }
        _ => Found::Nothing,
    }
}

fn remember(path: &Path, stamp: Stamp, code: Option<Arc<[u8]>>) {
    let mut files = FILES.write().unwrap_or_else(PoisonError::into_inner);
    let files = files.get_or_insert_default();
    if files.len() >= FILES_MAX && !files.contains_key(path) {
        files.clear();
    }
    files.insert(path.to_owned(), Known { stamp, code });
}

unsafe extern "C-unwind" {
    /// LuaJIT's, which mlua declares for other versions of Lua only.
    fn luaL_loadbufferx(
        raw: *mut lua_State,
        text: *const c_char,
        length: usize,
        name: *const c_char,
        mode: *const c_char,
    ) -> c_int;
}

/// The text of an error without its number, as the C library has it.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Bytes that texts show of a path: longer ones lead to no file, or have been made up.
const PATH_SHOWN: usize = 1024;

/// A path in a text for people.
pub(crate) fn shown(path: &Path) -> String {
    let (shown, rest) = logging::shorten(path.as_os_str().as_bytes(), PATH_SHOWN);
    format!("{}{rest}", String::from_utf8_lossy(shown))
}

/// Reads a script. Whatever is no regular file might have a thread wait for somebody for ever.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let place = shown(path);
    let cannot_read = |why: &str| format!("cannot read {place}: {why}");
    // A pipe is opened at once, whether or not somebody writes.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| format!("cannot open {place}: {}", reason(&error)))?;
    let length = match file.metadata() {
        Ok(found) if found.is_file() => found.len(),
        Ok(found) if found.is_dir() => return Err(cannot_read("Is a directory")),
        Ok(_) => return Err(cannot_read("a script must be a regular file")),
        Err(error) => return Err(cannot_read(&reason(&error))),
    };
    let mut text = Vec::new();
    // One byte more than there are: the read that finds the end needs room.
    let room = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
    let has_room = text.try_reserve_exact(room).is_ok();
    let result = match has_room {
        // As a reader without a known length: the file would be asked for it once more.
        true => file.take(u64::MAX).read_to_end(&mut text),
        false => Err(ErrorKind::OutOfMemory.into()),
    };
    result.map_err(|error| cannot_read(&reason(&error)))?;
    Ok(text)
}

/// Loads what a file holds: pushes the chunk, or the message why there is none.
fn load_from(lua: Stack<'_>, path: &Path, name: &CStr, text_only: bool) -> c_int {
    let text = match read(path) {
        Ok(text) => text,
        Err(message) => {
            lua.push_text(message.as_bytes());
            return ffi::LUA_ERRFILE;
        }
    };
    let name = [b"@", name.to_bytes_with_nul()].concat();
    let mode = if text_only { c"t".as_ptr() } else { std::ptr::null() };
    let (start, length) = (text.as_ptr().cast(), text.len());
    // SAFETY: a running state with slots free, pointer and length of a vector, a terminated name.
    unsafe { luaL_loadbufferx(lua.raw(), start, length, name.as_ptr().cast(), mode) }
}

/// Pushes the chunk of a file, or the message why there is none; returns the status, as
/// `luaL_loadfile` does, and whether the chunk [`mentions`] coroutines.
pub(crate) fn load_file(lua: Stack<'_>, path: &Path, text_only: bool) -> (c_int, bool) {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        let name = blame::shorten(path.as_os_str().as_bytes());
        let text = format!("cannot open \"{name}\": the file's name contains a zero byte");
        lua.push_text(text.as_bytes());
        return (ffi::LUA_ERRRUN, false);
    };
    if text_only {
        // Bytecode is not checked when it is loaded; what is kept may come from a file of it.
        let status = load_from(lua, path, &name, true);
        if status == ffi::LUA_OK {
            mentions(lua);
        }
        return (status, false);
    }
    let stamp = stamp(path);
    let found = stamp.map_or(Found::Nothing, |stamp| find(path, stamp));
    if let Found::Code(code) = &found {
        // The bytecode is from this very VM, of a file of that name, which it holds.
        return (lua.load_plain(code, &name), Words::of(code).prepare(lua));
    }
    let status = load_from(lua, path, &name, false);
    if let (ffi::LUA_OK, Some(stamp)) = (status, stamp) {
        let code = matches!(found, Found::Once).then(|| dump(lua)).flatten();
        remember(path, stamp, code);
    }
    (status, status == ffi::LUA_OK && mentions(lua))
}

/// Words in code for which something of the library is prepared.
#[derive(Clone, Copy, Debug, Default)]
struct Words {
    /// `coroutine`: what core/coroutine.lua has.
    coroutine: bool,
    /// What looks through tables, or loads code that may: then modules show all their functions
    /// (core/listing.lua) …
    look: bool,
    /// … and those of `buffer` too if it is mentioned.
    buffer: bool,
}

/// What looks for the words; for the second kind it is their beginnings.
struct Finders {
    coroutine: Finder<'static>,
    look: [Finder<'static>; 4],
    buffer: Finder<'static>,
}

static FINDERS: LazyLock<Finders> = LazyLock::new(|| Finders {
    coroutine: Finder::new("coroutine"),
    look: ["pairs", "next", "load", "foreach"].map(Finder::new),
    buffer: Finder::new("buffer"),
});

impl Words {
    fn of(text: &[u8]) -> Words {
        let begins = |word: &Finder| {
            word.find_iter(text).any(|at| {
                let before = at.checked_sub(1).map_or(0, |at| text[at]);
                !(before.is_ascii_alphanumeric() || before == b'_')
            })
        };
        let finders = &*FINDERS;
        Words {
            coroutine: finders.coroutine.find(text).is_some(),
            look: finders.look.iter().any(begins),
            buffer: finders.buffer.find(text).is_some(),
        }
    }

    /// Has the modules show their functions, if need be; returns whether coroutines are wanted.
    fn prepare(self, lua: Stack<'_>) -> bool {
        if self.look {
            let top = lua.top();
            lua.field(ffi::LUA_REGISTRYINDEX, TABLE);
            lua.field(-1, c"list");
            lua.push_boolean(self.buffer);
            lua.call(1, 0);
            lua.set_top(top);
        }
        self.coroutine
    }
}

/// native.look_at(f): prepares what code mentions.
pub(crate) fn look_at(lua: Stack<'_>) -> c_int {
    lua.set_top(1);
    if lua.kind(1) == ffi::LUA_TFUNCTION && !lua.is_c_function(1) {
        mentions(lua);
    }
    0
}

/// Prepares what the function on top of the stack mentions, in names and texts; returns whether
/// that is the word `coroutine`.
pub(crate) fn mentions(lua: Stack<'_>) -> bool {
    if disguise::is_disguised(lua) {
        return false;
    }
    let mut found = Words::default();
    // Texts are not cut up.
    lua.dump(|piece| {
        let words = Words::of(piece);
        found.coroutine |= words.coroutine;
        found.look |= words.look;
        found.buffer |= words.buffer;
    });
    found.prepare(lua)
}

/// The bytecode of the function on top of the stack, unless it is large.
pub(crate) fn dump(lua: Stack<'_>) -> Option<Arc<[u8]>> {
    let mut code: Vec<u8> = Vec::new();
    let status = lua.dump(|piece| code.extend_from_slice(piece));
    (status == ffi::LUA_OK && code.len() <= CODE_MAX).then(|| code.into())
}

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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, RwLock};

use memchr::memmem::Finder;
use mlua::ffi::{self, lua_State};

use super::stack::{Stack, TABLE};
use super::{blame, disguise, standard};
use crate::os::descriptors::with_room;
use crate::sync;
use crate::{logging, rt};

/// Files that are remembered, and bytes of bytecode: beyond that those go that were used least
/// lately.
const FILES_MAX: usize = 256;
const CODE_MAX: usize = 8 << 20;
/// The same for what contexts with a memory limit have left here: it outlives them.
const LIMITED_FILES_MAX: usize = 64;
const LIMITED_CODE_MAX: usize = 1 << 20;
/// Bytecode larger than this is not kept.
const CHUNK_MAX: usize = 1 << 20;
/// A script is no larger than this. Nor may a file yield much whose size the system does not tell,
/// as in `/proc`: some have no end.
const SCRIPT_MAX: u64 = 64 << 20;
const UNTOLD_MAX: u64 = 64 << 10;
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
    is_limited: bool,
    /// When it was last used, in uses of any.
    used: AtomicU64,
}

/// Uses of what is known.
static USES: AtomicU64 = AtomicU64::new(0);

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
    let files = sync::read(&FILES);
    match files.as_ref().and_then(|files| files.get(path)) {
        Some(known) if known.stamp == stamp => {
            // Relaxed: what goes first is no more than likely right.
            known.used.store(USES.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            known.code.as_ref().map_or(Found::Once, |code| Found::Code(Arc::clone(code)))
        }
        _ => Found::Nothing,
    }
}

fn remember(path: &Path, stamp: Stamp, code: Option<Arc<[u8]>>, is_limited: bool) {
    let mut files = sync::write(&FILES);
    let files = files.get_or_insert_default();
    let used = AtomicU64::new(USES.fetch_add(1, Ordering::Relaxed));
    files.insert(path.to_owned(), Known { stamp, code, is_limited, used });
    if is_limited {
        shrink(files, LIMITED_FILES_MAX, LIMITED_CODE_MAX, |known| known.is_limited);
    }
    shrink(files, FILES_MAX, CODE_MAX, |_| true);
}

/// Forgets those files that were used least lately, of those that count, until no more are left
/// than this, nor more bytecode.
fn shrink(
    files: &mut HashMap<PathBuf, Known>,
    most: usize,
    bytes_most: usize,
    counts: impl Fn(&Known) -> bool,
) {
    loop {
        let all = || files.iter().filter(|(_, known)| counts(known));
        let bytes: usize = all().filter_map(|(_, known)| Some(known.code.as_ref()?.len())).sum();
        if all().count() <= most && bytes <= bytes_most {
            return;
        }
        let last = all().min_by_key(|(_, known)| known.used.load(Ordering::Relaxed));
        let Some(path) = last.map(|(path, _)| path.clone()) else { return };
        files.remove(&path);
    }
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

/// Reads a script for a context that may hold `room` bytes more. Whatever is no regular file might
/// have a thread wait for somebody for ever.
fn read(path: &Path, room: usize) -> Result<Vec<u8>, String> {
    let place = shown(path);
    let cannot_read = |why: &str| format!("cannot read {place}: {why}");
    // A pipe is opened at once, whether or not somebody writes.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = with_room(|| File::options().read(true).custom_flags(flags).open(path));
    let file = opened.map_err(|error| format!("cannot open {place}: {}", reason(&error)))?;
    let told = match file.metadata() {
        Ok(found) if found.is_file() => found.len(),
        Ok(found) if found.is_dir() => return Err(cannot_read("Is a directory")),
        Ok(_) => return Err(cannot_read("a script must be a regular file")),
        Err(error) => return Err(cannot_read(&reason(&error))),
    };
    let most = if told == 0 { UNTOLD_MAX } else { told };
    if most > SCRIPT_MAX {
        return Err(cannot_read(&format!("it has {told} bytes, a script at most {SCRIPT_MAX}")));
    }
    if told > room as u64 {
        let why = format!("it has {told} bytes, more than the memory limit leaves ({room})");
        return Err(cannot_read(&why));
    }
    let mut text = Vec::new();
    // One byte more than there are: the read that finds the end needs room.
    let result = match text.try_reserve_exact(most as usize + 1) {
        Ok(()) => file.take(most + 1).read_to_end(&mut text),
        Err(_) => Err(ErrorKind::OutOfMemory.into()),
    };
    result.map_err(|error| cannot_read(&reason(&error)))?;
    match text.len() as u64 > most {
        true if told == 0 => Err(cannot_read("it does not tell how long it is")),
        true => Err(cannot_read("it became longer meanwhile")),
        false => Ok(text),
    }
}

/// Loads what a file holds: pushes the chunk, or the message why there is none.
fn load_from(lua: Stack<'_>, path: &Path, name: &CStr, text_only: bool) -> c_int {
    let text = match read(path, lua.account().room()) {
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
        remember(path, stamp, code, lua.account().limit().is_some());
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
    /// `foreach`, which passes metatables by.
    standard: bool,
}

/// What looks for the words; for the second kind it is their beginnings.
struct Finders {
    coroutine: Finder<'static>,
    look: [Finder<'static>; 3],
    buffer: Finder<'static>,
    standard: Finder<'static>,
}

static FINDERS: LazyLock<Finders> = LazyLock::new(|| Finders {
    coroutine: Finder::new("coroutine"),
    look: ["pairs", "next", "load"].map(Finder::new),
    buffer: Finder::new("buffer"),
    standard: Finder::new("foreach"),
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
        let standard = begins(&finders.standard);
        Words {
            coroutine: finders.coroutine.find(text).is_some(),
            look: standard || finders.look.iter().any(begins),
            buffer: finders.buffer.find(text).is_some(),
            standard,
        }
    }

    /// Has the modules show their functions, if need be; returns whether coroutines are wanted.
    fn prepare(self, lua: Stack<'_>) -> bool {
        if self.standard {
            standard::open_all(lua);
        }
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
pub(crate) fn look_at(lua: Stack<'_>) {
    lua.set_top(1);
    if lua.kind(1) == ffi::LUA_TFUNCTION && !lua.is_c_function(1) {
        mentions(lua);
    }
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
        found.standard |= words.standard;
    });
    found.prepare(lua)
}

/// The bytecode of the function on top of the stack, unless it is large.
pub(crate) fn dump(lua: Stack<'_>) -> Option<Arc<[u8]>> {
    let mut code: Vec<u8> = Vec::new();
    let mut is_short = true;
    let status = lua.dump(|piece| {
        is_short &= code.len() + piece.len() <= CHUNK_MAX;
        if is_short {
            code.extend_from_slice(piece);
        }
    });
    (status == ffi::LUA_OK && is_short).then(|| code.into())
}

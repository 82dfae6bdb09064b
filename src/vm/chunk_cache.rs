//! Scripts that many contexts run, compiled once.
//!
//! The second context that runs a file leaves its bytecode here, with names and lines, and those
//! after it load that, for as long as the file is the same. A file that was changed a moment ago
//! may change again without showing it: such a one is always read.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use memchr::memmem::Finder;
use mlua::ffi::{self, lua_State};

use super::{blame, disguise};
use crate::rt;

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

/// Reads a script. Whatever is no regular file might have a thread wait for somebody for ever.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let place = path.display();
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

/// Pushes a message.
unsafe fn push_message(raw: *mut lua_State, text: &str) {
    // SAFETY: the callers have a live state with a slot free; the VM copies the text.
    unsafe { ffi::lua_pushlstring(raw, text.as_ptr().cast(), text.len()) };
}

/// Loads what a file holds: pushes the chunk, or the message why there is none.
unsafe fn load_from(raw: *mut lua_State, path: &Path, name: &CStr, text_only: bool) -> c_int {
    let text = match read(path) {
        Ok(text) => text,
        Err(message) => {
            // SAFETY: as the caller promises.
            unsafe { push_message(raw, &message) };
            return ffi::LUA_ERRFILE;
        }
    };
    let name = [b"@", name.to_bytes_with_nul()].concat();
    let mode = if text_only { c"t".as_ptr() } else { std::ptr::null() };
    let (start, length) = (text.as_ptr().cast(), text.len());
    // SAFETY: a live state, pointer and length of a vector, a terminated name.
    unsafe { luaL_loadbufferx(raw, start, length, name.as_ptr().cast(), mode) }
}

/// Pushes the chunk of a file, or the message why there is none; returns the status, as
/// `luaL_loadfile` does, and whether the chunk [`mentions`] coroutines.
///
/// # Safety
/// `raw` must be a live state with three stack slots free. Raises for want of memory.
pub(crate) unsafe fn load_file(raw: *mut lua_State, path: &Path, text_only: bool) -> (c_int, bool) {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        let name = blame::shorten(path.as_os_str().as_bytes());
        let text = format!("cannot open \"{name}\": the file's name contains a zero byte");
        // SAFETY: a live state; the VM copies the text.
        unsafe { ffi::lua_pushlstring(raw, text.as_ptr().cast(), text.len()) };
        return (ffi::LUA_ERRRUN, false);
    };
    if text_only {
        // Bytecode is not checked when it is loaded; what is kept may come from a file of it.
        // SAFETY: a live state with slots free.
        let status = unsafe { load_from(raw, path, &name, true) };
        if status == ffi::LUA_OK {
            // SAFETY: the chunk is on top.
            unsafe { mentions(raw) };
        }
        return (status, false);
    }
    let stamp = stamp(path);
    let found = stamp.map_or(Found::Nothing, |stamp| find(path, stamp));
    if let Found::Code(code) = &found {
        // SAFETY: the bytecode is from this very VM, of a file of that name, which it holds.
        let status =
            unsafe { ffi::luaL_loadbuffer(raw, code.as_ptr().cast(), code.len(), name.as_ptr()) };
        // SAFETY: a live state.
        return (status, unsafe { Words::of(code).prepare(raw) });
    }
    // SAFETY: a live state with slots free.
    let status = unsafe { load_from(raw, path, &name, false) };
    if let (ffi::LUA_OK, Some(stamp)) = (status, stamp) {
        // SAFETY: the chunk is on top.
        let code = matches!(found, Found::Once).then(|| unsafe { dump(raw) }).flatten();
        remember(path, stamp, code);
    }
    // SAFETY: as above.
    (status, status == ffi::LUA_OK && unsafe { mentions(raw) })
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
    ///
    /// # Safety
    /// `raw` must be a live state with the library loaded and three stack slots free. Raises for
    /// want of memory.
    unsafe fn prepare(self, raw: *mut lua_State) -> bool {
        if self.look {
            // SAFETY: the caller's contract; the stack is left as it was.
            unsafe {
                let top = ffi::lua_gettop(raw);
                ffi::lua_getfield(raw, ffi::LUA_REGISTRYINDEX, super::stack::TABLE.as_ptr());
                ffi::lua_getfield(raw, -1, c"list".as_ptr());
                ffi::lua_pushboolean(raw, c_int::from(self.buffer));
                ffi::lua_call(raw, 1, 0);
                ffi::lua_settop(raw, top);
            }
        }
        self.coroutine
    }
}

/// native.look_at(f): prepares what code mentions.
pub(crate) unsafe extern "C-unwind" fn look_at(raw: *mut lua_State) -> c_int {
    // SAFETY: called by the VM.
    unsafe {
        ffi::lua_settop(raw, 1);
        if ffi::lua_type(raw, 1) == ffi::LUA_TFUNCTION && ffi::lua_iscfunction(raw, 1) == 0 {
            mentions(raw);
        }
    }
    0
}

/// Prepares what the function on top of the stack mentions, in names and texts; returns whether
/// that is the word `coroutine`.
///
/// # Safety
/// `raw` must be a live state with a Lua function on top, and the library loaded. Raises for want
/// of memory.
pub(crate) unsafe fn mentions(raw: *mut lua_State) -> bool {
    unsafe extern "C-unwind" fn search(
        _: *mut lua_State,
        piece: *const c_void,
        length: usize,
        found: *mut c_void,
    ) -> c_int {
        // SAFETY: `mentions` passes words of its own, and the VM a piece of that length. Texts are
        // not cut up.
        unsafe {
            let found = &mut *found.cast::<Words>();
            let words = Words::of(std::slice::from_raw_parts(piece.cast(), length));
            found.coroutine |= words.coroutine;
            found.look |= words.look;
            found.buffer |= words.buffer;
        }
        0
    }
    // SAFETY: a function is on top.
    if unsafe { disguise::is_disguised(raw) } {
        return false;
    }
    let mut found = Words::default();
    // SAFETY: a function is on top; `search` is made for these words.
    unsafe { ffi::lua_dump(raw, search, (&raw mut found).cast(), 1) };
    // SAFETY: the caller's contract.
    unsafe { found.prepare(raw) }
}

/// The bytecode of the function on top of the stack, unless it is large.
///
/// # Safety
/// `raw` must be a live state with a Lua function on top.
pub(crate) unsafe fn dump(raw: *mut lua_State) -> Option<Arc<[u8]>> {
    unsafe extern "C-unwind" fn append(
        _: *mut lua_State,
        piece: *const c_void,
        length: usize,
        code: *mut c_void,
    ) -> c_int {
        // SAFETY: `dump` passes a vector of its own, and the VM a piece of that length.
        unsafe {
            let code = &mut *code.cast::<Vec<u8>>();
            code.extend_from_slice(std::slice::from_raw_parts(piece.cast(), length));
        }
        0
    }
    let mut code: Vec<u8> = Vec::new();
    // SAFETY: a function is on top; `append` is made for this vector.
    let status = unsafe { ffi::lua_dump(raw, append, (&raw mut code).cast(), 0) };
    (status == 0 && code.len() <= CODE_MAX).then(|| code.into())
}

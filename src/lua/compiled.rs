//! Scripts that many contexts run, compiled once.
//!
//! The second context that runs a file leaves its bytecode here, with names and lines, and those
//! after it load that, for as long as the file is the same. A file that was changed a moment ago
//! may change again without showing it: such a one is always read.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use mlua::ffi::{self, lua_State};

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
    /// LuaJIT's, which mlua does not declare.
    fn luaL_loadfilex(raw: *mut lua_State, name: *const c_char, mode: *const c_char) -> c_int;
}

/// Pushes the chunk of a file, or the message why there is none; returns the status, as
/// `luaL_loadfile` does, and whether the chunk [`mentions`] coroutines.
///
/// # Safety
/// `raw` must be a live state with three stack slots free. Raises for want of memory.
pub(super) unsafe fn load_file(raw: *mut lua_State, path: &Path, text_only: bool) -> (c_int, bool) {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        let text = b"the file's name contains a zero byte";
        // SAFETY: a live state; the VM copies the text.
        unsafe { ffi::lua_pushlstring(raw, text.as_ptr().cast(), text.len()) };
        return (ffi::LUA_ERRRUN, false);
    };
    if text_only {
        // Bytecode is not checked when it is loaded; what is kept may come from a file of it.
        // SAFETY: a live state and terminated texts.
        return (unsafe { luaL_loadfilex(raw, name.as_ptr(), c"t".as_ptr()) }, false);
    }
    let stamp = stamp(path);
    let found = stamp.map_or(Found::Nothing, |stamp| find(path, stamp));
    if let Found::Code(code) = &found {
        // SAFETY: the bytecode is from this very VM, of a file of that name, which it holds.
        let status =
            unsafe { ffi::luaL_loadbuffer(raw, code.as_ptr().cast(), code.len(), name.as_ptr()) };
        return (status, is_in(code));
    }
    // SAFETY: a live state and a terminated name.
    let status = unsafe { ffi::luaL_loadfile(raw, name.as_ptr()) };
    if let (ffi::LUA_OK, Some(stamp)) = (status, stamp) {
        // SAFETY: the chunk is on top.
        let code = matches!(found, Found::Once).then(|| unsafe { dump(raw) }).flatten();
        remember(path, stamp, code);
    }
    // SAFETY: as above.
    (status, status == ffi::LUA_OK && unsafe { mentions(raw) })
}

/// The word that is looked for.
const COROUTINE: &[u8] = b"coroutine";

fn is_in(text: &[u8]) -> bool {
    memchr::memmem::find(text, COROUTINE).is_some()
}

/// Whether a text in the function on top of the stack, or a name in it, has the word `coroutine`.
///
/// # Safety
/// `raw` must be a live state with a Lua function on top. Raises for want of memory.
pub(super) unsafe fn mentions(raw: *mut lua_State) -> bool {
    unsafe extern "C-unwind" fn search(
        _: *mut lua_State,
        piece: *const c_void,
        length: usize,
        found: *mut c_void,
    ) -> c_int {
        // SAFETY: `mentions` passes a flag of its own, and the VM a piece of that length. Texts are
        // not cut up.
        unsafe {
            let found = &mut *found.cast::<bool>();
            *found |= is_in(std::slice::from_raw_parts(piece.cast(), length));
        }
        0
    }
    let mut found = false;
    // SAFETY: a function is on top; `search` is made for this flag.
    unsafe { ffi::lua_dump(raw, search, (&raw mut found).cast(), 1) };
    found
}

/// The bytecode of the function on top of the stack, unless it is large.
unsafe fn dump(raw: *mut lua_State) -> Option<Arc<[u8]>> {
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

//! What the C library keeps for an open file counts for who has opened it.
//!
//! The linker puts these functions in the place of those that LuaJIT's `io` closes files with
//! (build.rs); those that open some are in children.rs.

use std::ffi::c_int;
use std::sync::OnceLock;

use super::FILE;
use crate::os::errno::set_errno;

/// About how many bytes a stream takes: its record, and its buffer once it is used.
pub const FILE_BYTES: usize = 4736;

unsafe extern "C" {
    fn _IO_fclose(stream: *mut FILE) -> c_int;
}

/// Counts one file more, or less; false if there is to be none more.
static COUNT: OnceLock<fn(bool) -> bool> = OnceLock::new();

/// Sets what counts the files of the context that runs.
pub fn on_file(count: fn(bool) -> bool) {
    COUNT.get_or_init(|| count);
}

fn count(is_more: bool) -> bool {
    COUNT.get().is_none_or(|count| count(is_more))
}

/// Opens a stream, unless its context must not have one more.
pub(super) fn open(open: impl FnOnce() -> *mut FILE) -> *mut FILE {
    if !count(true) {
        set_errno(libc::ENOMEM);
        return std::ptr::null_mut();
    }
    let stream = open();
    if stream.is_null() {
        count(false);
    }
    stream
}

/// # Safety
/// As for `fclose`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fclose(stream: *mut FILE) -> c_int {
    count(false);
    // SAFETY: the argument of `fclose`, handed on.
    unsafe { _IO_fclose(stream) }
}

/// # Safety
/// As for `pclose`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_pclose(stream: *mut FILE) -> c_int {
    count(false);
    // SAFETY: the argument of `pclose`, handed on: in this library that is the same function, which
    // is kept under this name.
    unsafe { _IO_fclose(stream) }
}

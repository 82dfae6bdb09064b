//! What LuaJIT's `io` calls of the C library to write: the linker puts these functions in the place
//! of the library's (build.rs).

use std::ffi::{c_int, c_void};

use super::hook;
use super::stdio::{lock_errors, take_error_piece, write_error, write_parts};
use crate::os::errno::set_errno;
use crate::os::stdio::stream::Stream;
use crate::os::stdio::{self, FILE, Lock, is_file};

// SAFETY: numbers, which the system checks; whoever locks the list lets it go.
unsafe extern "C" {
    safe fn lseek64(descriptor: c_int, offset: i64, from: c_int) -> i64;
    safe fn _IO_list_lock();
    safe fn _IO_list_unlock();
    fn _IO_iter_begin() -> *mut c_void;
    fn _IO_iter_end() -> *mut c_void;
    fn _IO_iter_next(at: *mut c_void) -> *mut c_void;
    fn _IO_iter_file(at: *mut c_void) -> *mut FILE;
}

/// What LuaJIT's `write` calls for each piece, in place of `fwrite`; see build.rs. Raises if its
/// context ends meanwhile.
///
/// # Safety
/// As for `fwrite`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fwrite(
    from: *const c_void,
    size: usize,
    count: usize,
    stream: Stream,
) -> usize {
    // SAFETY: `fwrite` is given this many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), size * count) };
    let written = if stream == Stream::errors() {
        take_error_piece(bytes).unwrap_or_else(|| {
            let lock = lock_errors();
            write_parts(bytes, |part| write_error(&lock, part))
        })
    } else {
        let stream = stream.wait_and_lock();
        write_parts(bytes, |part| stream.write(part).0)
    };
    if written == bytes.len() { count } else { written / size.max(1) }
}

/// In place of `fflush`, see build.rs: for standard output it tells what nobody else could.
///
/// # Safety
/// As for `fflush`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fflush(stream: *mut FILE) -> c_int {
    if stream.is_null() {
        flush_files();
        return 0;
    }
    // SAFETY: `fflush` takes an open stream.
    let stream = unsafe { Stream::new(stream) };
    if stream != Stream::output() {
        return stream.flush();
    }
    let reason = Lock::take().map_or_else(Some, |lock| lock.flush());
    let found = hook::with_account(|account| stdio::loss_after(&account.output.told)).flatten();
    let Some(reason) = reason.or(found) else { return 0 };
    set_errno(reason);
    -1
}

/// In place of `fseeko`, see build.rs: what was printed comes first.
///
/// # Safety
/// As for `fseeko`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fseeko64(stream: Stream, offset: i64, from: c_int) -> c_int {
    if stream != Stream::output() {
        return stream.seek(offset, from);
    }
    let Ok(lock) = Lock::take() else { return -1 };
    let reason = lock.flush();
    let is_done = lseek64(libc::STDOUT_FILENO, offset, from) >= 0;
    if let Some(reason) = reason {
        stdio::note_loss(reason);
    }
    if is_done { 0 } else { -1 }
}

/// In place of `ftello`, likewise.
///
/// # Safety
/// As for `ftello`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_ftello64(stream: Stream) -> i64 {
    if stream != Stream::output() {
        return stream.position();
    }
    stdio::flush();
    lseek64(libc::STDOUT_FILENO, 0, libc::SEEK_CUR)
}

/// Writes what `io.popen` has written before a child starts, so that the child finds it: standard
/// output and files. What another thread uses, perhaps waiting for input, is left alone, where the
/// C library would wait for it, and hold up whoever opens or closes a file meanwhile.
fn flush_files() {
    stdio::flush();
    _IO_list_lock();
    // SAFETY: while the list is locked, its streams stay.
    let streams = unsafe {
        let (first, end) = (_IO_iter_begin(), _IO_iter_end());
        let some = move |at| Some(at).filter(|&at| at != end);
        std::iter::successors(some(first), move |&at| some(_IO_iter_next(at)))
            .map(|at| Stream::new(_IO_iter_file(at)))
    };
    for stream in streams {
        let Some(_locked) = stream.try_lock() else { continue };
        if stream.pending() > 0 && stream != Stream::output() && is_file(stream) {
            // What fails is told by who closes it.
            stream.flush();
        }
    }
    _IO_list_unlock();
}

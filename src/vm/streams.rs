//! What LuaJIT's `io` calls of the C library to write: the linker puts these functions in the place
//! of the library's (build.rs).

use std::ffi::{c_int, c_void};

use super::stdio::{lock_errors, take_error_piece, write_error, write_parts};
use super::{hook, state};
use crate::os::stdio::{self, FILE, Lock};

unsafe extern "C" {
    static stderr: *mut FILE;
    fn flockfile(stream: *mut FILE);
    fn funlockfile(stream: *mut FILE);
    fn fwrite_unlocked(from: *const c_void, size: usize, count: usize, to: *mut FILE) -> usize;
    fn _IO_fflush(stream: *mut FILE) -> c_int;
    fn _IO_list_lock();
    fn _IO_list_unlock();
    fn _IO_iter_begin() -> *mut c_void;
    fn _IO_iter_end() -> *mut c_void;
    fn _IO_iter_next(at: *mut c_void) -> *mut c_void;
    fn _IO_iter_file(at: *mut c_void) -> *mut FILE;
    fn ftrylockfile(stream: *mut FILE) -> c_int;
    fn __fpending(stream: *mut FILE) -> usize;
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
    to: *mut FILE,
) -> usize {
    /// A stream that is locked.
    struct Locked(*mut FILE);
    impl Drop for Locked {
        fn drop(&mut self) {
            // SAFETY: locked by this thread, in what follows.
            unsafe { funlockfile(self.0) };
        }
    }
    // SAFETY: the arguments of `fwrite`: an open stream and so many bytes.
    let (bytes, errors) =
        unsafe { (std::slice::from_raw_parts(from.cast::<u8>(), size * count), stderr) };
    let written = if to == errors {
        take_error_piece(bytes).unwrap_or_else(|| {
            let lock = lock_errors();
            write_parts(bytes, |part| write_error(&lock, part))
        })
    } else {
        // SAFETY: an open stream.
        unsafe { flockfile(to) };
        let _locked = Locked(to);
        // SAFETY: the stream is locked, pointer and length are those of a slice.
        write_parts(bytes, |part| unsafe {
            fwrite_unlocked(part.as_ptr().cast(), 1, part.len(), to)
        })
    };
    if written == bytes.len() { count } else { written / size.max(1) }
}

/// In place of `fflush`, see build.rs: for standard output it tells what nobody else could.
///
/// # Safety
/// As for `fflush`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_fflush(stream: *mut FILE) -> c_int {
    if stream.is_null() {
        flush_files();
        return 0;
    }
    if stream != stdio::stream() {
        // SAFETY: `fflush` takes any open stream.
        return unsafe { _IO_fflush(stream) };
    }
    let reason = Lock::take().map_or(Some(libc::EINTR), |lock| lock.flush());
    let raw = hook::running();
    if raw.is_null() {
        return if reason.is_some() { -1 } else { 0 };
    }
    // SAFETY: the state that this thread runs.
    let told = unsafe { &state::account(raw).output.told };
    let Some(reason) = reason.or(stdio::loss_after(told)) else { return 0 };
    // SAFETY: the address of this thread's errno.
    unsafe { *libc::__errno_location() = reason };
    -1
}

/// In place of `fseeko`, see build.rs: what was printed comes first.
///
/// # Safety
/// As for `fseeko`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_fseeko64(stream: *mut FILE, offset: i64, from: c_int) -> c_int {
    if stream != stdio::stream() {
        // SAFETY: the arguments of `fseeko`, handed on.
        return unsafe { libc::fseeko(stream, offset, from) };
    }
    let Some(lock) = Lock::take() else { return -1 };
    let reason = lock.flush();
    // SAFETY: a descriptor and numbers.
    let is_done = unsafe { libc::lseek64(libc::STDOUT_FILENO, offset, from) >= 0 };
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
unsafe extern "C" fn __wrap_ftello64(stream: *mut FILE) -> i64 {
    if stream != stdio::stream() {
        // SAFETY: the argument of `ftello`, handed on.
        return unsafe { libc::ftello(stream) };
    }
    stdio::flush();
    // SAFETY: a descriptor and numbers.
    unsafe { libc::lseek64(libc::STDOUT_FILENO, 0, libc::SEEK_CUR) }
}

/// Writes what `io.popen` has written before a child starts, so that the child finds it: standard
/// output and files. What another thread uses, perhaps waiting for input, is left alone, where the
/// C library would wait for it, and hold up whoever opens or closes a file meanwhile.
fn flush_files() {
    stdio::flush();
    // SAFETY: while the list is locked, its streams stay; each is used only while it is locked.
    unsafe {
        _IO_list_lock();
        let mut at = _IO_iter_begin();
        while at != _IO_iter_end() {
            let stream = _IO_iter_file(at);
            if ftrylockfile(stream) == 0 {
                if __fpending(stream) > 0 && stream != stdio::stream() && is_file(stream) {
                    // What fails is told by who closes it.
                    _IO_fflush(stream);
                }
                funlockfile(stream);
            }
            at = _IO_iter_next(at);
        }
        _IO_list_unlock();
    }
}

/// Whether writing to it does not wait for anybody.
unsafe fn is_file(stream: *mut FILE) -> bool {
    // SAFETY: an open stream; all zero is a valid record.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::fstat(libc::fileno(stream), &raw mut found) == 0
            && found.st_mode & libc::S_IFMT == libc::S_IFREG
    }
}

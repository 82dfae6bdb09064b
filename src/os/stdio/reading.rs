//! Before a script waits for input, what it has printed is written: a prompt, or an answer that
//! whoever writes the input waits for. And a script ends while it reads a line that has no end.
//!
//! The linker puts these functions in the place of those that LuaJIT's `io` library reads with
//! (build.rs).

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use super::{FILE, waits};

unsafe extern "C" {
    fn _IO_fgets(to: *mut c_char, size: c_int, from: *mut FILE) -> *mut c_char;
    fn _IO_fread(to: *mut c_void, size: usize, count: usize, from: *mut FILE) -> usize;
    fn fgetc(from: *mut FILE) -> c_int;
    fn ferror(stream: *mut FILE) -> c_int;
    fn clearerr(stream: *mut FILE);
    fn fscanf(from: *mut FILE, format: *const c_char, ...) -> c_int;
}

static LOOK: OnceLock<fn()> = OnceLock::new();

/// Sets what is called before scripts read: it unwinds if theirs is to end.
pub fn on_read(look: fn()) {
    LOOK.get_or_init(|| look);
}

/// How every stream of glibc begins.
#[repr(C)]
pub(super) struct Head {
    flags: c_int,
    next: *const u8,
    end: *const u8,
    start: *const u8,
    pub(super) write_start: *const u8,
}

/// Called before something is read from `stream`.
///
/// # Safety
/// It must be an open stream.
#[inline]
unsafe fn prepare(stream: *mut FILE) {
    let look = || {
        if let Some(look) = LOOK.get() {
            look();
        }
    };
    look();
    // SAFETY: a stream begins with its head, and the caller has one that is open.
    let head = unsafe { &*stream.cast::<Head>() };
    if head.next >= head.end && !is_file(stream) {
        super::flush();
        // SAFETY: an open stream.
        let fd = unsafe { libc::fileno(stream) };
        if !waits::wait(fd, libc::POLLIN) {
            look();
        }
    }
}

/// Whether a read has ended early because the descriptor does not block, and is to go on: whoever
/// reads waits, as for one that blocks.
///
/// # Safety
/// It must be an open stream, of which something was read right before.
unsafe fn is_early(stream: *mut FILE) -> bool {
    let is_empty = waits::errno() == libc::EAGAIN;
    // SAFETY: an open stream.
    unsafe {
        let is_early = is_empty && ferror(stream) != 0;
        if is_early {
            clearerr(stream);
        }
        is_early
    }
}

/// Whether a read finds what there is, and does not wait.
fn is_file(stream: *mut FILE) -> bool {
    // SAFETY: an open stream; all zero is a valid record, which is filled.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::fstat(libc::fileno(stream), &raw mut found) == 0
            && found.st_mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// # Safety
/// As for `fgets`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fgets(
    to: *mut c_char,
    size: c_int,
    from: *mut FILE,
) -> *mut c_char {
    let mut length = 0;
    loop {
        // SAFETY: the arguments of `fgets`, handed on: an open stream, and room for so many bytes,
        // of which the first have a line's beginning in them, with a zero behind it.
        unsafe {
            prepare(from);
            let rest = to.add(length as usize);
            let found = _IO_fgets(rest, size - length, from);
            // Without an error flag set, which glibc leaves alone then, the line is whole.
            if !is_early(from) {
                return if found.is_null() && length == 0 { found } else { to };
            }
            if !found.is_null() {
                length += libc::strlen(rest) as c_int;
            }
        }
    }
}

/// # Safety
/// As for `fread`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_fread(
    to: *mut c_void,
    size: usize,
    count: usize,
    from: *mut FILE,
) -> usize {
    let mut length = 0;
    loop {
        // SAFETY: the arguments of `fread`, handed on: an open stream, and room for so many bytes.
        unsafe {
            prepare(from);
            // LuaJIT's have a size of one byte.
            length += _IO_fread(to.byte_add(length * size), size, count - length, from);
            if length == count || !is_early(from) {
                return length;
            }
        }
    }
}

/// # Safety
/// As for `getc`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_getc(from: *mut FILE) -> c_int {
    loop {
        // SAFETY: the argument of `getc`, handed on: an open stream.
        unsafe {
            prepare(from);
            let byte = fgetc(from);
            if byte >= 0 || !is_early(from) {
                return byte;
            }
        }
    }
}

/// LuaJIT reads numbers with it, one at a time: there is one place to write to.
///
/// # Safety
/// As for `fscanf`, with a format that names one value.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap___isoc99_fscanf(
    from: *mut FILE,
    format: *const c_char,
    to: *mut c_void,
) -> c_int {
    // SAFETY: the arguments of `fscanf`, handed on. Where glibc is, a function with a list of
    // arguments takes pointers in the same registers as one without.
    unsafe {
        prepare(from);
        fscanf(from, format, to)
    }
}
